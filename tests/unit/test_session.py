from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab import config, host
from lab import plans as provision
from lab import providers as machines
from lab.config import Choice, choice
from lab.errors import ConfigError, LabStateError
from lab.golden import image
from lab.remote import Remote, control_folder
from lab.session import Session, open_session
from lab.system.progress import Progress
from lab.verbs import kubeconfig
from tests.unit.fakes import FakeRemote, printed, with_a_second_balancer

LAB_YAML = "name: mine\n"


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setattr(host, "node_capabilities", lambda: ("NET_ADMIN",))
    monkeypatch.setattr(image, "name", lambda lab: "ha-lab/golden:0123456789abcdef")
    return reopened(tmp_path, LAB_YAML)


def reopened(tmp_path: Path, text: str) -> Session:
    (tmp_path / "lab.yaml").write_text(text)
    return open_session(tmp_path / "lab.yaml", printed()[0])


def boot(opened: Session) -> None:
    """Let a machine of the lab exist."""
    opened.workspace.write(opened.workspace.root / ".vagrant/machines/cp1/docker/id", "1")


def test_opening_touches_nothing(opened: Session, tmp_path: Path) -> None:
    assert [path.name for path in tmp_path.iterdir()] == ["lab.yaml"]
    assert opened.workspace.root == tmp_path / ".lab"


def test_a_lab_file_that_is_wrong_opens_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        reopened(tmp_path, "bogus: 1\n")


def test_rendering_keeps_which_lab_it_was(opened: Session) -> None:
    opened.render()
    identity = opened.workspace.read_identity()
    assert (identity["name"], identity["image"]) == ("mine", "ha-lab/golden:0123456789abcdef")
    assert opened.workspace.vagrantfile.exists()


def test_what_is_secret_of_a_rendered_lab_is_private(opened: Session) -> None:
    opened.render()
    for path in opened.workspace.secrets.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert opened.workspace.secrets.stat().st_mode & 0o777 == 0o700
    token = (opened.workspace.secrets / "w1" / "secrets").read_text().strip().partition("=")[2]
    others = [
        path for path in opened.workspace.root.rglob("*") if path.is_file() and "secrets" not in path.parts
    ]
    assert not any(token in path.read_text() for path in others)


def test_every_load_balancer_is_configured(opened: Session) -> None:
    lab = with_a_second_balancer(opened.lab)
    remote = FakeRemote(lab, opened.workspace)
    opened.workspace.write_identity({"image": "golden"})
    replace(opened, lab=lab, remote=remote).configure_load_balancer()
    assert remote.delivered == ["lb1", "lb2"]
    assert [event for event in remote.events if event.startswith("start")] == [
        "start load-balancer lb1",
        "start load-balancer lb2",
    ]
    assert "192.168.56.9:8404" in (opened.workspace.node("lb2") / "haproxy.cfg").read_text()
    assert not opened.workspace.node("cp1").exists()


def test_rendering_makes_no_folder_for_connections(opened: Session) -> None:
    opened.render()
    assert str(control_folder(opened.workspace)) in opened.workspace.ssh_config.read_text()
    assert not control_folder(opened.workspace).exists()


def test_rendering_shuts_secrets_that_others_were_let_into(opened: Session) -> None:
    opened.render()
    key = opened.workspace.secrets / "ca.key"
    assert key.exists()
    key.chmod(0o644)
    opened.workspace.secrets.chmod(0o755)
    opened.render()
    assert key.stat().st_mode & 0o777 == 0o600
    assert opened.workspace.secrets.stat().st_mode & 0o777 == 0o700


def test_rendering_again_changes_only_this_run_s_secrets(opened: Session) -> None:
    opened.render()
    before = {path: path.read_bytes() for path in opened.workspace.root.rglob("*") if path.is_file()}
    opened.render()
    changed = {path.name for path, content in before.items() if path.read_bytes() != content}
    assert changed == {"secrets"}


def test_machines_made_from_another_lab_file_are_refused(opened: Session, tmp_path: Path) -> None:
    opened.render()
    boot(opened)
    other = reopened(tmp_path, "name: yours\nnetwork: {pods: 10.200.0.0/16}\n")
    with pytest.raises(LabStateError, match=r"lab 'mine'.*what differs: name, network") as caught:
        other.render()
    assert "./inv destroy" in caught.value.hint
    assert opened.workspace.read_identity()["name"] == "mine"


def test_the_same_lab_in_other_words_is_the_same_lab(opened: Session, tmp_path: Path) -> None:
    opened.render()
    boot(opened)
    reopened(tmp_path, "# a word\nname: mine\nnodes: {workers: {count: 3}}\n").render()


def test_a_lab_without_machines_may_become_another(opened: Session, tmp_path: Path) -> None:
    opened.render()
    reopened(tmp_path, "name: yours\n").render()


def test_a_machine_is_found_by_name_or_refused_with_the_names(opened: Session) -> None:
    assert opened.node("w2").name == "w2"
    with pytest.raises(ConfigError, match="no machine 'w9'") as caught:
        opened.node("w9")
    assert caught.value.hint == "its machines: lb1, cp1, cp2, cp3, w1, w2, w3"


def test_a_pod_network_of_one_s_own_is_read_beside_the_lab_file(tmp_path: Path, opened: Session) -> None:
    (tmp_path / "mine.yaml").write_text("kind: List\n")
    other = reopened(tmp_path, "network: {pod_network: mine.yaml}\n")
    other.render()
    assert (other.workspace.node("cp1") / "pod-network" / "manifest.yaml").read_text() == "kind: List\n"


def test_machines_keep_the_golden_machine_they_were_made_from(
    opened: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.render("ha-lab/golden:old")
    boot(opened)
    monkeypatch.setattr(image, "exists", lambda _, golden: golden == "ha-lab/golden:old")
    fits: list[set[str]] = []
    monkeypatch.setattr(Session, "make_fit", lambda self, purposes, *, consent: fits.append(purposes))
    assert opened.bake(consent=False) == "ha-lab/golden:old"
    assert fits == [{"up"}]


def test_destroying_removes_all_and_only_once(opened: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    opened.render()
    removed: list[str] = []
    monkeypatch.setattr(machines, "remove", lambda *_: removed.append("machines"))
    monkeypatch.setattr(Remote, "hang_up", lambda self: removed.append("connections"))
    assert opened.destroy()
    assert removed == ["connections", "machines"]
    assert not opened.workspace.root.exists()
    assert not opened.destroy()


def test_a_destroy_that_fails_keeps_the_folder(opened: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    opened.render()

    def fails(*_: object) -> None:
        raise LabStateError("docker said no")

    monkeypatch.setattr(machines, "remove", fails)
    monkeypatch.setattr(Remote, "hang_up", lambda self: None)
    with pytest.raises(LabStateError, match="docker said no"):
        opened.destroy()
    assert opened.workspace.read_identity()["name"] == "mine"


def test_a_missing_lab_file_is_the_default_lab(tmp_path: Path) -> None:
    assert open_session(tmp_path / "none.yaml", printed()[0]).lab == config.default()


def test_up_asks_again_whether_machines_are_emulated_once_it_has_baked(
    opened: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [Choice("libvirt", False), Choice("libvirt", True)]
    monkeypatch.setattr(choice, "settle", lambda file, workspace: answers.pop(0))
    virtual = reopened(tmp_path, LAB_YAML)
    monkeypatch.setattr(Session, "bake", lambda self, *, consent: "ha-lab/golden-0123")
    seen: list[bool] = []
    monkeypatch.setattr(Session, "_bring_up", lambda self, golden, until: seen.append(self.lab.emulated))
    virtual.up(consent=False)
    assert (virtual.lab.emulated, seen) == (False, [True])


def test_a_docker_lab_is_settled_once(opened: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "settle", lambda *_: pytest.fail("asked again"))
    monkeypatch.setattr(Session, "bake", lambda self, *, consent: "ha-lab/golden:0123")
    brought_up: list[tuple[str, str]] = []
    monkeypatch.setattr(Session, "_bring_up", lambda self, golden, until: brought_up.append((golden, until)))
    opened.up(consent=False)
    opened.up(consent=False, until="joins")
    assert brought_up == [("ha-lab/golden:0123", ""), ("ha-lab/golden:0123", "joins")]


def test_a_docker_lab_s_identity_says_nothing_of_libvirt(opened: Session) -> None:
    opened.render()
    identity = opened.workspace.read_identity()
    assert (identity["provider"], identity["libvirt"]) == ("docker", None)
    # As an earlier version wrote it: still the same lab.
    opened.workspace.write_identity({key: value for key, value in identity.items() if key != "libvirt"})
    boot(opened)
    opened.render()


@pytest.mark.parametrize("until", ["", "load-balancer"])
def test_a_run_that_stops_on_the_way_says_so_and_has_a_kubeconfig_where_there_is_one(
    opened: Session, monkeypatch: pytest.MonkeyPatch, until: str
) -> None:
    stops: list[str] = []
    said: list[object] = []

    def bring_up(*words: Any) -> bool:
        stops.append(words[-1])
        return True

    monkeypatch.setattr(provision, "bring_up", bring_up)
    monkeypatch.setattr(Session, "_require_own_machines", lambda self: None)
    monkeypatch.setattr(Session, "keep_kubeconfig", lambda self: until == "")
    monkeypatch.setattr(Session, "_keep_bill_of_materials", lambda self, golden: None)
    monkeypatch.setattr(Progress, "say", lambda self, what: said.append(what))
    opened._bring_up("ha-lab/golden:0123", until)
    assert stops == [until]
    console, text = printed()
    console.print(said[-1])
    assert ("./inv task 3" in text.getvalue()) is bool(until)
    assert ("the lab is up" in text.getvalue()) is not bool(until)


def test_the_first_control_plane_that_has_a_kubeconfig_gives_it(
    opened: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def fetch(*words: Any) -> bool:
        asked.append(words[-1].name)
        return False

    monkeypatch.setattr(Remote, "why_not_reachable", lambda self, node: "down" if node.name == "cp1" else None)
    monkeypatch.setattr(kubeconfig, "fetch", fetch)
    assert not opened.keep_kubeconfig()
    assert asked == ["cp2", "cp3"]
