"""The record of what was made: read in both of its forms, and true at every moment of a lab's life."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab import config, providers
from lab.errors import LabStateError
from lab.model import Lab, LoadBalancer, Node, owner_label
from lab.model.change import Change, Setting, change
from lab.plans.up import provisioners
from lab.remote import control_folder
from lab.workspace import Workspace, made, render
from lab.workspace.made import Made, MadeMachine
from tests.unit.fakes import SITE, keep_made, recorded

LAB = config.default()
EARLIER = LAB.model_copy(
    update={
        "load_balancer": LoadBalancer(health_path="/healthz"),
        "network": LAB.network.model_copy(update={"policy": "none"}),
    }
)
"""The default lab of the version that wrote recorded/lab-format-1.json: it was made without NetworkPolicies."""
OLD, NEW = "ha-lab/golden:old", "ha-lab/golden:new"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "here" / ".lab")


def lab_of(folder: Path, text: str) -> Lab:
    (folder / "lab.yaml").write_text(text)
    return config.load(folder / "lab.yaml")


def before(record: Made, lab: Lab, golden: str = OLD, leaving: tuple[str, ...] = ()) -> Made:
    """The record before a lab is applied, and once these can't stay any more."""
    record = record.with_machines(lab, golden)
    for name in leaving:
        record = record.with_leaving(name)
    return record


def first_record(lab: Lab = LAB, golden: str = OLD) -> Made:
    """The record of a lab whose machines are about to be made."""
    return before(Made(lab=lab, owner="/l#1", root="/l"), lab, golden)


def up(folder: Path, *, names: list[str]) -> Workspace:
    """A workspace whose machines Vagrant knows."""
    workspace = Workspace(folder / ".lab")
    for name in names:
        workspace.write(workspace.root / ".vagrant/machines" / name / "docker/id", name)
    return workspace


def names(record: Made) -> list[str]:
    return [node.name for node in record.lab.nodes]


# Reading and writing.


def test_where_nothing_was_rendered_there_is_no_record(workspace: Workspace) -> None:
    assert made.read(workspace) is None
    assert made.owner(workspace) == str(workspace.root)


def test_a_record_is_read_as_it_was_written(workspace: Workspace) -> None:
    record = first_record().model_copy(update={"leaving": ("w3",)})
    made.write(workspace, record)
    assert workspace.exists()
    assert made.read(workspace) == record
    assert made.owner(workspace) == "/l#1"
    assert json.loads(workspace.identity.read_text())["format"] == made.FORMAT


def test_an_older_record_is_read_and_its_label_is_the_folder_s_path(workspace: Workspace) -> None:
    workspace.write(workspace.identity, recorded("lab-format-1.json"))
    up(workspace.root.parent, names=["lb1"])
    record = made.read(workspace)
    assert record is not None
    assert record.lab == EARLIER
    assert record.owner == record.root == str(workspace.root)
    assert record.machines == {
        node.name: MadeMachine(golden="ha-lab/golden:77d1632b985f1c10", kubernetes="1.36.3")
        for node in LAB.nodes
    }
    assert record.leaving == ()


def older(folder: Path) -> Workspace:
    """A folder that an earlier version rendered where it is, with its label."""
    workspace = up(folder, names=["lb1"])
    workspace.write(workspace.identity, recorded("lab-format-1.json"))
    site = replace(SITE, workspace=workspace.root, owner=str(workspace.root))
    workspace.write(workspace.vagrantfile, render.render(LAB, site, provisioners)["Vagrantfile"])
    return workspace


@pytest.mark.parametrize("name", ["here", "ada's \\ lab"])
def test_an_older_lab_that_was_moved_keeps_the_label_of_its_machines(tmp_path: Path, name: str) -> None:
    former = older(tmp_path / name)
    (tmp_path / name).rename(tmp_path / "there")
    moved = Workspace(tmp_path / "there" / ".lab")
    record = made.read(moved)
    assert record is not None
    assert (record.owner, record.root) == (str(former.root), str(former.root))


def test_an_older_lab_of_which_a_folder_is_a_copy_keeps_its_machines(tmp_path: Path) -> None:
    original = older(tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "copy")
    copy = Workspace(tmp_path / "copy" / ".lab")
    assert made.owner(copy) == str(copy.root)
    assert made.owner(original) == str(original.root)


def test_an_older_lab_whose_former_path_leads_to_it_is_no_copy(tmp_path: Path) -> None:
    former = older(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    (tmp_path / "here").symlink_to(tmp_path / "there")
    assert made.owner(Workspace(tmp_path / "there" / ".lab")) == str(former.root)


@pytest.mark.parametrize("text", [None, b"\xff", b"# a user's own file\n"])
def test_an_older_lab_without_a_label_to_read_is_where_it_was_made(tmp_path: Path, text: bytes | None) -> None:
    workspace = older(tmp_path / "here")
    workspace.vagrantfile.unlink()
    if text is not None:
        workspace.vagrantfile.write_bytes(text)
    assert made.owner(workspace) == str(workspace.root)


def test_a_record_from_before_network_policies_is_of_a_lab_without(workspace: Workspace) -> None:
    made.write(workspace, first_record())
    early = json.loads(workspace.identity.read_text())
    assert early["lab"]["network"].pop("policy") == "kube-router"
    workspace.write(workspace.identity, json.dumps(early))
    record = made.read(workspace)
    assert record is not None
    assert record.lab.network.policy == "none"


def test_an_older_record_without_machines_has_none(workspace: Workspace) -> None:
    workspace.write(workspace.identity, recorded("lab-format-1.json"))
    record = made.read(workspace)
    assert record is not None
    assert (record.machines, record.golden) == ({}, "")


def test_a_record_from_before_libvirt_is_the_same_lab(workspace: Workspace) -> None:
    early = {key: value for key, value in json.loads(recorded("lab-format-1.json")).items() if key != "libvirt"}
    workspace.write(workspace.identity, json.dumps(early))
    record = made.read(workspace)
    assert record is not None
    assert record.lab == EARLIER


def test_an_older_lab_s_health_check_is_shown_as_a_change(workspace: Workspace) -> None:
    workspace.write(workspace.identity, recorded("lab-format-1.json"))
    record = made.read(workspace)
    assert record is not None
    found = change(record.lab, LAB, sizes_enforced=False)
    assert found == Change(
        settings=(
            Setting("network.policy", "none", "kube-router"),
            Setting("load_balancer.health_path", "/healthz", "/readyz"),
        )
    )
    assert found.reconfigured == found.settings


def test_an_older_record_is_written_in_the_new_form_and_keeps_its_label(workspace: Workspace) -> None:
    workspace.write(workspace.identity, recorded("lab-format-1.json"))
    up(workspace.root.parent, names=["lb1"])
    before_it = made.read(workspace)
    assert before_it is not None
    made.write(workspace, before_it)
    assert made.read(workspace) == before_it
    assert json.loads(workspace.identity.read_text())["format"] == made.FORMAT


@pytest.mark.parametrize("form", [3, 99, "x", 0])
def test_a_later_form_is_refused_with_the_way_out(workspace: Workspace, form: object) -> None:
    workspace.write(workspace.identity, json.dumps({"format": form, "what": "ever"}))
    with pytest.raises(
        LabStateError, match=rf"written by a later version of the kit \(format {form}"
    ) as caught:
        made.read(workspace)
    assert "the checkout that created it" in caught.value.hint
    assert "git pull" in caught.value.hint


@pytest.mark.parametrize("text", ["{", "", "\x00", '{"name": "ha-'])
def test_a_record_that_is_not_json_is_an_error(workspace: Workspace, text: str) -> None:
    workspace.write(workspace.identity, text)
    with pytest.raises(LabStateError, match=r"lab\.json can't be read") as caught:
        made.read(workspace)
    assert str(workspace.root) in caught.value.hint


def test_a_record_that_is_no_text_is_an_error(workspace: Workspace) -> None:
    workspace.write(workspace.identity, b"\xff")
    with pytest.raises(LabStateError, match=r"lab\.json can't be read"):
        made.read(workspace)


@pytest.mark.parametrize("text", ["[]", "null", '"a lab"', "3"])
def test_a_record_of_another_shape_is_an_error_and_never_no_record(workspace: Workspace, text: str) -> None:
    """Taken for none, the label of machines that exist would be lost."""
    workspace.write(workspace.identity, text)
    with pytest.raises(LabStateError, match="it is not a lab's record") as caught:
        made.read(workspace)
    assert f"move {workspace.root} away" in caught.value.hint


def test_a_record_that_may_not_be_read_is_an_error(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_made(workspace, LAB)

    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(LabStateError, match=r"lab\.json can't be read.*Permission denied"):
        made.read(workspace)


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"colour": "red"}, "colour"),
        ({"nodes": "none"}, "nodes"),
        ({"kubernetes": {"version": "1.36.3", "channel": "beta"}}, "kubernetes.channel"),
    ],
)
def test_a_record_with_what_this_version_does_not_know_is_refused_naming_it(
    workspace: Workspace, change: dict[str, object], wrong: str
) -> None:
    workspace.write(workspace.identity, json.dumps(json.loads(recorded("lab-format-1.json")) | change))
    with pytest.raises(LabStateError, match=rf"not written by this version of the kit.*{wrong}") as caught:
        made.read(workspace)
    assert "`./inv destroy` removes the machines" in caught.value.hint
    assert caught.value.__cause__ is not None


def test_a_new_form_s_record_that_lacks_something_is_refused_naming_it(workspace: Workspace) -> None:
    workspace.write(workspace.identity, json.dumps({"format": 2, "lab": json.loads(LAB.model_dump_json())}))
    with pytest.raises(LabStateError, match=r"can't use: owner, root"):
        made.read(workspace)


# The label.


def test_each_lab_has_a_label_of_its_own(workspace: Workspace) -> None:
    one, other = made.new_owner(workspace), made.new_owner(workspace)
    assert one != other
    assert one.startswith(f"{workspace.root}#")


def test_the_label_and_the_sockets_folder_stay_when_the_folder_moves(workspace: Workspace) -> None:
    keep_made(workspace, LAB)
    unmoved = made.owner(workspace), control_folder(workspace)
    moved = workspace.root.parent.rename(workspace.root.parent.parent / "there")
    after = Workspace(moved / ".lab")
    assert (made.owner(after), control_folder(after)) == unmoved
    assert owner_label(made.owner(after)) == f"ha-lab.workspace={workspace.root}"
    record = made.read(after)
    assert record is not None
    assert record.root == str(workspace.root), "where its files were rendered"


@pytest.mark.parametrize(
    ("manifest", "after"),
    [
        ("{folder}/cni/mine.yaml", "{moved}/cni/mine.yaml"),
        ("/elsewhere/mine.yaml", "/elsewhere/mine.yaml"),
        ("{folder}-not/mine.yaml", "{folder}-not/mine.yaml"),
        ("flannel", "flannel"),
    ],
)
def test_a_manifest_beside_the_lab_file_moves_with_it(workspace: Workspace, manifest: str, after: str) -> None:
    folder, moved = workspace.root.parent, workspace.root.parent.parent / "there"
    network = LAB.network.model_copy(update={"pod_network": manifest.format(folder=folder)})
    keep_made(workspace, LAB.model_copy(update={"network": network}))
    unmoved = made.read(workspace)
    assert unmoved is not None
    assert unmoved.lab.network == network
    folder.rename(moved)
    record = made.read(Workspace(moved / ".lab"))
    assert record is not None
    assert record.lab.network.pod_network == after.format(folder=folder, moved=moved)


# The life of a lab.


def test_a_new_lab_s_machines_are_recorded_before_they_are_made() -> None:
    record = first_record()
    assert record.lab == LAB
    assert {*record.machines} == {node.name for node in LAB.nodes}
    assert {machine.golden for machine in record.machines.values()} == {OLD}
    assert record.complete == ()
    applied = record.applied(LAB, OLD)
    assert applied == record.model_copy(update={"complete": LAB.nodes})
    assert (record.manifest, record.applied(LAB, OLD, "c0ffee").manifest) == ("", "c0ffee")
    assert record.applied(LAB, OLD, "c0ffee").applied(LAB, OLD).manifest == "", "flannel again"
    assert applied.without("w3").complete == LAB.nodes, "the others have yet to forget it"


def test_growing_records_what_is_added_with_its_own_golden_machine(tmp_path: Path) -> None:
    wanted = lab_of(tmp_path, "nodes: {workers: {count: 5}}")
    record = before(first_record(), wanted, NEW)
    assert names(record) == [node.name for node in wanted.nodes]
    assert {name for name, machine in record.machines.items() if machine.golden == NEW} == {"w4", "w5"}
    assert record.golden == OLD, "most have that one"
    assert record.applied(wanted, NEW).lab == wanted
    assert record.applied(wanted, NEW).machines == record.machines


def test_what_stays_has_its_settings_as_they_were_made_until_the_new_ones_are_applied(tmp_path: Path) -> None:
    wanted = lab_of(
        tmp_path, "load_balancer: {profile: reference}\nnodes: {workers: {count: 4, memory_mib: 1024}}"
    )
    record = before(first_record(), wanted)
    assert record.lab.load_balancer == LAB.load_balancer
    assert [node.memory_mib for node in record.lab.workers] == [1536, 1536, 1536, 1024]
    assert record.applied(wanted, OLD).lab == wanted


def test_shrinking_forgets_a_machine_only_once_it_is_gone(tmp_path: Path) -> None:
    wanted = lab_of(tmp_path, "nodes: {workers: {count: 1}}")
    record = before(first_record(), wanted, leaving=("w2", "w3"))
    assert {*names(record)} == {*record.machines} == {node.name for node in LAB.nodes}
    assert record.leaving == ("w2", "w3")
    record = record.without("w2")
    assert "w2" not in (*names(record), *record.machines)
    assert "w3" in record.machines
    assert record.leaving == ("w3",)
    assert record.applied(wanted, OLD).leaving == ()
    record = record.without("w3").applied(wanted, OLD)
    assert record.lab == wanted
    assert record.leaving == ()


def test_a_machine_that_leaves_is_kept_whatever_is_wanted_by_then(tmp_path: Path) -> None:
    """Killed on the way to one worker, then two are wanted, then five control planes and no worker."""
    one, two = (lab_of(tmp_path, f"nodes: {{workers: {{count: {count}}}}}") for count in (1, 2))
    record = before(first_record(), one, leaving=("w2", "w3"))
    record = before(record, two, NEW, record.leaving)
    assert {*record.machines} == {node.name for node in LAB.nodes}
    grown = lab_of(tmp_path, "nodes: {control_planes: {count: 5}, workers: {count: 0}}")
    record = before(record, grown, NEW, record.leaving)
    assert {*record.machines} == {*(node.name for node in LAB.nodes), "cp4", "cp5"}
    assert {*names(record)} == {*record.machines}
    assert record.machines["w2"].golden == OLD


def test_a_machine_that_was_added_and_never_applied_is_not_forgotten(tmp_path: Path) -> None:
    record = before(first_record(), lab_of(tmp_path, "nodes: {workers: {count: 5}}"))
    record = before(record, LAB, leaving=("w4", "w5"))
    assert {"w4", "w5"} < {*record.machines}
    assert record.lab.node("w5") is not None


def test_a_replaced_machine_stays_in_the_lab_and_is_recorded_again_before_it_is_made() -> None:
    bigger = node_of(LAB, "cp1").model_copy(update={"memory_mib": 4096})
    wanted = LAB.model_copy(update={"nodes": (LAB.nodes[0], bigger, *LAB.nodes[2:])})
    record = before(first_record(), wanted, NEW, ("cp1",))
    assert record.node("cp1") == node_of(LAB, "cp1"), "it exists as it was made"
    record = record.without("cp1", again=bigger)
    assert "cp1" not in record.machines
    assert names(record) == names(first_record()), "nothing else of the lab takes its place"
    assert record.node("cp1") == bigger
    assert record.leaving == ()
    record = before(record, wanted, NEW)
    assert record.machines["cp1"].golden == NEW
    assert record.machines["cp2"].golden == OLD


@pytest.mark.parametrize("name", ["lb1", "cp1", "w1"])
def test_a_lab_whose_machine_is_being_replaced_is_a_lab(name: str, workspace: Workspace) -> None:
    """Its load balancer gone for good, nothing could say where its API is."""
    record = first_record().without(name, again=node_of(LAB, name))
    made.write(workspace, record)
    found = made.read(workspace)
    assert found is not None
    assert found.lab.api == LAB.api
    assert found.lab.route_target == LAB.route_target
    assert found.lab.first == LAB.first


def test_a_replaced_machine_that_is_wanted_no_longer_is_forgotten_where_it_was_not_made_again(
    tmp_path: Path,
) -> None:
    record = first_record().without("w3", again=node_of(LAB, "w3"))
    record = before(record, lab_of(tmp_path, "nodes: {workers: {count: 2}}"))
    assert "w3" not in (*record.machines, *names(record))


def test_a_machine_that_was_replaced_is_of_its_own_kubernetes(tmp_path: Path) -> None:
    newer = lab_of(tmp_path, "kubernetes: {version: 1.37.2}")
    record = before(first_record().without("w3", again=node_of(LAB, "w3")), newer, NEW)
    assert record.machines["w3"] == MadeMachine(golden=NEW, kubernetes="1.37.2")
    assert record.machines["w2"] == MadeMachine(golden=OLD, kubernetes="1.36.3")


def test_the_golden_machine_of_a_lab_is_that_of_most_of_its_machines() -> None:
    record = first_record()
    few = {name: MadeMachine(golden=NEW, kubernetes="1.36.3") for name in ("w1", "w2")}
    assert record.model_copy(update={"machines": record.machines | few}).golden == OLD
    none = {name: MadeMachine(golden="", kubernetes="1.36.3") for name in record.machines}
    assert record.model_copy(update={"machines": none}).golden == ""
    assert record.model_copy(update={"machines": none | few}).golden == NEW


def test_machines_are_removed_by_the_provider_that_made_them(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_made(workspace, LAB.model_copy(update={"provider": "virtualbox"}))
    monkeypatch.setattr(providers.docker.machines, "remove", lambda *_: pytest.fail("docker was asked"))
    asked: list[Workspace] = []
    monkeypatch.setattr(providers.virtualbox.machines, "remove", lambda workspace, log: asked.append(workspace))
    providers.remove(workspace, workspace.logs / "log")
    assert asked == [workspace]


def node_of(lab: Lab, name: str) -> Node:
    found = lab.node(name)
    assert found is not None
    return found


def test_a_record_from_when_kubernetes_came_as_packages_can_be_read(workspace: Workspace) -> None:
    made.write(workspace, first_record())
    early = json.loads(workspace.identity.read_text())
    early["lab"]["mirrors"]["kubernetes_packages"] = "https://mirror.example/k8s"
    workspace.write(workspace.identity, json.dumps(early))
    record = made.read(workspace)
    assert record is not None
    assert record.lab == first_record().lab
