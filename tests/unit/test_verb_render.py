"""Writing `.lab/`: what is recorded first, what is secret, what stays for machines that leave or have moved."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lab.errors import LabStateError
from lab.remote import control_folder
from lab.session import Session
from lab.verbs import render
from lab.workspace import Workspace, made
from lab.workspace.made import Made
from lab.workspace.render import credentials
from tests.unit.fakes import MANIFEST, FakeRemote, keep_made, recorded, with_a_second_balancer
from tests.unit.sessions import GOLDEN, LAB_YAML, as_made, let_exist, on_any_host, wanted

FEWER = LAB_YAML + "nodes: {workers: {count: 2}}\n"


@pytest.fixture(autouse=True)
def _any_host(monkeypatch: pytest.MonkeyPatch) -> None:
    on_any_host(monkeypatch)


@pytest.fixture
def opened(tmp_path: Path) -> Session:
    return wanted(tmp_path / "here")


def written(session: Session, golden: str = GOLDEN) -> Made:
    return render.record_and_write(session, golden)


def record_of(session: Session) -> Made:
    found = made.read(session.workspace)
    assert found is not None
    return found


def files(session: Session) -> dict[str, bytes]:
    root = session.workspace.root
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_rendering_keeps_which_lab_it_was(opened: Session) -> None:
    record = written(opened)
    assert record == record_of(opened)
    assert record.lab == opened.lab
    assert record.root == str(opened.workspace.root)
    assert record.owner.startswith(f"{opened.workspace.root}#")
    assert {machine.golden for machine in record.machines.values()} == {GOLDEN}
    assert opened.workspace.vagrantfile.exists()


def test_machines_are_recorded_before_anything_of_them_is_written(
    opened: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(render, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        written(opened)
    assert {*record_of(opened).machines} == {node.name for node in opened.lab.nodes}


def test_a_docker_lab_s_record_says_nothing_of_libvirt(opened: Session) -> None:
    written(opened)
    assert (record_of(opened).lab.provider, record_of(opened).lab.libvirt) == ("docker", None)


def test_what_is_secret_of_a_rendered_lab_is_private(opened: Session) -> None:
    written(opened)
    for path in opened.workspace.secrets.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert opened.workspace.secrets.stat().st_mode & 0o777 == 0o700
    token = (opened.workspace.secrets / "w1" / "secrets").read_text().strip().partition("=")[2]
    assert token
    assert not any(token.encode() in text for name, text in files(opened).items() if "secrets" not in name)


def test_rendering_makes_no_folder_for_connections(opened: Session) -> None:
    written(opened)
    assert str(control_folder(opened.workspace)) in opened.workspace.ssh_config.read_text()
    assert not control_folder(opened.workspace).exists()


def test_rendering_shuts_secrets_that_others_were_let_into(opened: Session) -> None:
    written(opened)
    key = opened.workspace.secrets / "ca.key"
    assert key.exists()
    key.chmod(0o644)
    opened.workspace.secrets.chmod(0o755)
    written(opened)
    assert key.stat().st_mode & 0o777 == 0o600
    assert opened.workspace.secrets.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("exist", [True, False])
def test_rendering_again_changes_only_this_run_s_secrets(opened: Session, tmp_path: Path, exist: bool) -> None:
    written(opened)
    if exist:
        let_exist(opened.workspace)
    before = files(opened)
    written(wanted(tmp_path / "here"))
    changed = {Path(name).name for name, text in files(opened).items() if before.get(name) != text}
    assert changed == {"secrets"}


def test_the_same_lab_in_other_words_is_the_same_lab(opened: Session, tmp_path: Path) -> None:
    record = written(opened)
    let_exist(opened.workspace)
    other = wanted(tmp_path / "here", f"# a word\n{LAB_YAML}nodes: {{workers: {{count: 3}}}}\n")
    assert written(other) == record


def test_a_lab_without_machines_may_become_another_and_keeps_its_label(opened: Session, tmp_path: Path) -> None:
    before = written(opened)
    record = written(wanted(tmp_path / "here", "name: yours\nprovider: docker\nnodes: {workers: {count: 1}}\n"))
    assert record.lab.name == "yours"
    assert {*record.machines} == {node.name for node in record.lab.nodes}, "those of the other were never made"
    assert record.owner == before.owner


def test_a_lab_from_an_earlier_version_keeps_its_label_and_its_golden_machines(tmp_path: Path) -> None:
    opened = wanted(tmp_path / "here", "provider: docker\n")
    opened.workspace.write(opened.workspace.identity, recorded("lab-format-1.json"))
    let_exist(opened.workspace)
    record = written(wanted(tmp_path / "here", "provider: docker\n"))
    assert record.owner == str(opened.workspace.root)
    assert f"ha-lab.workspace={opened.workspace.root}'" in opened.workspace.vagrantfile.read_text()
    assert record.golden == "ha-lab/golden:77d1632b985f1c10"


def test_what_an_earlier_shape_of_the_lab_had_for_a_machine_is_not_given_to_it_any_more(
    opened: Session, tmp_path: Path
) -> None:
    written(opened)
    patch = opened.workspace.node("cp1") / "patches" / "corednsdeployment+strategic.yaml"
    assert patch.exists()
    alone = wanted(tmp_path / "here", LAB_YAML + "nodes: {workers: {count: 0}, control_planes: {count: 1}}\n")
    written(alone)
    assert not patch.exists()
    assert (opened.workspace.node("cp1") / "node.env").exists()


def test_a_pod_network_of_one_s_own_is_read_beside_the_lab_file(opened: Session, tmp_path: Path) -> None:
    (tmp_path / "here" / "mine.yaml").write_text(MANIFEST)
    other = wanted(tmp_path / "here", LAB_YAML + "network: {pod_network: mine.yaml}\n")
    written(other)
    assert (other.workspace.node("cp1") / "pod-network" / "manifest.yaml").read_text() == MANIFEST


def test_nothing_is_written_for_a_ca_that_is_not_valid_now(
    opened: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(workspace: Workspace) -> None:
        raise LabStateError("the lab's CA is expired")

    monkeypatch.setattr(credentials, "require_valid_ca", refuse)
    with pytest.raises(LabStateError, match="expired"):
        written(opened)
    assert not opened.workspace.root.exists()


# Machines that leave.


def test_a_machine_that_leaves_is_reached_and_known_to_vagrant_until_it_is_gone(
    opened: Session, tmp_path: Path
) -> None:
    written(opened)
    let_exist(opened.workspace)
    other = wanted(tmp_path / "here", FEWER)
    record = written(other)
    assert "w3" in record.machines
    workspace = other.workspace
    assert "Host w3" in workspace.ssh_config.read_text()
    assert "'w3'" in workspace.vagrantfile.read_text()
    assert workspace.node("w3").exists()
    assert "w3" not in (workspace.node("cp1") / "hosts").read_text(), "it is part of nothing else"
    gone = record.without("w3")
    made.write(workspace, gone)
    render.write(other, gone, GOLDEN)
    assert "Host w3" not in workspace.ssh_config.read_text()
    assert "'w3'" not in workspace.vagrantfile.read_text()
    assert not workspace.node("w3").exists()
    assert not (workspace.secrets / "w3").exists()


@pytest.mark.parametrize("text", [LAB_YAML, FEWER], ids=["wanted again", "wanted no longer"])
def test_rendering_does_not_forget_that_a_machine_was_half_removed(
    opened: Session, tmp_path: Path, text: str
) -> None:
    record = written(opened)
    let_exist(opened.workspace)
    made.write(opened.workspace, record.model_copy(update={"leaving": ("w3",)}))
    record = written(wanted(tmp_path / "here", text))
    assert record.leaving == ("w3",)
    assert "w3" in record.machines


def test_a_replaced_machine_is_recorded_with_the_golden_machine_that_it_is_made_from(
    opened: Session, tmp_path: Path
) -> None:
    record = written(opened, "ha-lab/golden:old")
    let_exist(opened.workspace)
    made.write(opened.workspace, record.without("cp1", again=record.node("cp1")))
    record = written(wanted(tmp_path / "here"), "ha-lab/golden:new")
    assert record.machines["cp1"].golden == "ha-lab/golden:new"
    assert record.machines["cp2"].golden == "ha-lab/golden:old"


# A folder that moved.


def test_files_with_the_folder_s_path_follow_it_and_its_label_and_sockets_stay(
    opened: Session, tmp_path: Path
) -> None:
    before = written(opened)
    let_exist(opened.workspace)
    sockets, vagrantfile = control_folder(opened.workspace), opened.workspace.vagrantfile.read_text()
    (tmp_path / "here").rename(tmp_path / "there")
    moved = as_made(tmp_path / "there")
    assert moved.differs is None
    render.refresh(moved)
    ssh_config = moved.workspace.ssh_config.read_text()
    assert str(tmp_path / "here") not in ssh_config
    assert f'"{moved.workspace.root}/secrets/id_ed25519"' in ssh_config
    assert str(sockets) in ssh_config
    assert control_folder(moved.workspace) == sockets
    assert moved.workspace.vagrantfile.read_text() == vagrantfile.replace(
        f"{opened.workspace.root}/", f"{moved.workspace.root}/"
    )
    assert f"ha-lab.workspace={before.owner}'" in moved.workspace.vagrantfile.read_text()
    record = record_of(moved)
    assert record.root == str(moved.workspace.root)
    assert record == before.model_copy(update={"root": str(moved.workspace.root)})


def test_an_earlier_version_s_lab_that_moved_is_written_in_the_new_form_with_its_label(
    opened: Session, tmp_path: Path
) -> None:
    lab, workspace = opened.lab, opened.workspace
    label = str(workspace.root)
    written(replace(opened, made=Made(lab=lab, owner=label, root=label)))
    let_exist(workspace)
    workspace.write(
        workspace.identity, json.dumps(json.loads(lab.model_dump_json()) | {"image": "ha-lab/golden:o"})
    )
    (tmp_path / "here").rename(tmp_path / "there")
    moved = as_made(tmp_path / "there")
    render.refresh_locked(moved)
    record = record_of(moved)
    assert json.loads(moved.workspace.identity.read_text())["format"] == made.FORMAT
    assert (record.owner, record.root) == (label, str(moved.workspace.root))
    assert f"ha-lab.workspace={label}'" in moved.workspace.vagrantfile.read_text()


def test_rendering_says_where_the_folder_is_now(opened: Session, tmp_path: Path) -> None:
    before = written(opened)
    let_exist(opened.workspace)
    (tmp_path / "here").rename(tmp_path / "there")
    record = written(wanted(tmp_path / "there"))
    assert (record.root, record.owner) == (str(tmp_path / "there" / ".lab"), before.owner)
    assert record_of(wanted(tmp_path / "there")) == record


def test_a_folder_that_moved_away_and_back_is_as_it_was(opened: Session, tmp_path: Path) -> None:
    written(opened)
    let_exist(opened.workspace)
    before = files(opened)
    (tmp_path / "here").rename(tmp_path / "there")
    render.refresh(as_made(tmp_path / "there"))
    (tmp_path / "there").rename(tmp_path / "here")
    render.refresh(as_made(tmp_path / "here"))
    assert files(opened) == before


def test_a_moved_folder_is_not_written_to_while_another_run_has_the_lab(
    opened: Session, tmp_path: Path
) -> None:
    written(opened)
    let_exist(opened.workspace)
    (tmp_path / "here").rename(tmp_path / "there")
    moved = as_made(tmp_path / "there")
    with moved.workspace.lock(), pytest.raises(LabStateError, match="in use by process"):
        render.refresh_locked(moved)
    assert record_of(moved).root == str(tmp_path / "here" / ".lab")


def test_what_another_run_has_recorded_meanwhile_is_kept_where_the_folder_moved(
    opened: Session, tmp_path: Path
) -> None:
    written(opened)
    let_exist(opened.workspace)
    (tmp_path / "here").rename(tmp_path / "there")
    moved = as_made(tmp_path / "there")
    made.update(moved.workspace, lambda record: record.with_leaving("w1"))
    render.refresh_locked(moved)
    record = record_of(moved)
    assert (record.root, record.leaving) == (str(moved.workspace.root), ("w1",))


def test_a_folder_that_did_not_move_needs_no_lock(opened: Session, tmp_path: Path) -> None:
    written(opened)
    let_exist(opened.workspace)
    with opened.workspace.lock():
        render.refresh_locked(as_made(tmp_path / "here"))


def test_a_folder_that_did_not_move_is_not_written_to(opened: Session, tmp_path: Path) -> None:
    written(opened)
    let_exist(opened.workspace)
    opened.workspace.vagrantfile.unlink()
    render.refresh(as_made(tmp_path / "here"))
    assert not opened.workspace.vagrantfile.exists()


def test_a_folder_without_a_lab_is_not_written_to(opened: Session) -> None:
    render.refresh(opened)
    assert not opened.workspace.root.exists()


def test_a_lab_with_its_own_pod_network_moves_with_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine.yaml").write_text(MANIFEST)
    text = LAB_YAML + "network: {pod_network: mine.yaml}\n"
    opened = wanted(tmp_path / "here", text)
    written(opened)
    let_exist(opened.workspace)
    (tmp_path / "here").rename(tmp_path / "there")
    moved = as_made(tmp_path / "there")
    assert moved.differs is None, "it is the same file"
    render.refresh(moved)
    assert record_of(moved).lab.network.pod_network == str(tmp_path / "there" / "mine.yaml")
    written(wanted(tmp_path / "there", text))
    assert as_made(tmp_path / "there").differs is None


def test_machines_that_leave_stay_known_where_the_folder_moves_meanwhile(
    opened: Session, tmp_path: Path
) -> None:
    written(opened)
    let_exist(opened.workspace)
    written(wanted(tmp_path / "here", FEWER))
    (tmp_path / "here").rename(tmp_path / "there")
    moved = as_made(tmp_path / "there")
    render.refresh(moved)
    assert "Host w3" in moved.workspace.ssh_config.read_text()
    assert "'w3'" in moved.workspace.vagrantfile.read_text()


# Load balancers that run.


def balanced(opened: Session) -> tuple[Session, FakeRemote]:
    lab = with_a_second_balancer(opened.lab)
    remote = FakeRemote(lab, opened.workspace)
    record = keep_made(opened.workspace, lab, GOLDEN)
    return replace(opened, lab=lab, remote=remote, made=record), remote


def test_every_load_balancer_is_configured(opened: Session) -> None:
    session, remote = balanced(opened)
    render.configure_load_balancers(session)
    assert remote.delivered == ["lb1", "lb2"]
    assert [event for event in remote.events if event.startswith("start")] == [
        "start load-balancer lb1",
        "start load-balancer lb2",
    ]
    assert "192.168.56.9:8404" in (opened.workspace.node("lb2") / "haproxy.cfg").read_text()
    assert not opened.workspace.node("cp1").exists()


@pytest.mark.parametrize(
    ("holding", "down", "order"),
    [
        ({"lb1"}, set(), ["lb2", "lb1"]),
        ({"lb2"}, set(), ["lb1", "lb2"]),
        (set(), set(), ["lb1", "lb2"]),
        ({"lb1", "lb2"}, set(), ["lb1", "lb2"]),
        ({"lb1"}, {"lb2"}, ["lb2", "lb1"]),
    ],
)
def test_of_two_load_balancers_the_one_with_the_address_is_configured_last(
    opened: Session, holding: set[str], down: set[str], order: list[str]
) -> None:
    session, _ = balanced(opened)
    network = session.lab.network.model_copy(update={"virtual_address": IPv4Address("192.168.56.5")})
    lab = session.lab.model_copy(update={"network": network})
    sharing = FakeRemote(lab, opened.workspace)
    sharing.holding, sharing.down = holding, down
    render.configure_load_balancers(
        replace(session, lab=lab, remote=sharing, made=keep_made(opened.workspace, lab, GOLDEN))
    )
    assert sharing.delivered == order


def test_configuring_load_balancers_needs_no_manifest(opened: Session) -> None:
    session, remote = balanced(opened)
    network = session.lab.network.model_copy(update={"pod_network": "/nowhere/mine.yaml"})
    lab = session.lab.model_copy(update={"network": network})
    render.configure_load_balancers(replace(session, lab=lab, made=keep_made(opened.workspace, lab)))
    assert remote.delivered == ["lb1", "lb2"]
