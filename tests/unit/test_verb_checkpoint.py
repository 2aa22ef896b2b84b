"""`checkpoint`, `checkpoints` and `restore` on a lab that lives in memory, also broken off at each step."""

from __future__ import annotations

import io
import json
import stat
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lab import providers
from lab.errors import ConfigError, HostNotFit, LabError, LabStateError, NodeFailed
from lab.model import Lab, Node
from lab.plans import already
from lab.session import Session
from lab.verbs import checkpoint, plan
from lab.workspace import checkpoints, made, recovery
from lab.workspace.recovery import Recovery
from tests.unit import saved_world
from tests.unit.saved_world import SavedWorld
from tests.unit.world import KilledError, World, lab_of, live


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A lab that is up."""
    world = live(World(tmp_path), monkeypatch)
    # A session for another lab would reach for real machines.
    monkeypatch.setattr(checkpoint, "of_lab", lambda session, lab: world.session(lab))
    monkeypatch.setattr(checkpoint, "close_connections", lambda session: None)
    world.up(lab_of(tmp_path))
    world.touches.clear()
    return world


@pytest.fixture
def saved(world: World, monkeypatch: pytest.MonkeyPatch) -> SavedWorld:
    return saved_world.live(world, monkeypatch)


def session(world: World, **numbers: Any) -> Session:
    """The lab as a lab.yaml with these numbers describes it."""
    world.wanted = lab_of(world.folder, **numbers)
    world.dead = False
    return world.session(world.wanted)


def save(world: World, name: str = "start") -> checkpoints.Checkpoint:
    world.dead = False
    return checkpoint.save(world.session(world.record.lab), name)


def restore(
    world: World, name: str = "start", *, answer: bool = True, **numbers: Any
) -> checkpoints.Checkpoint:
    def confirm(question: str) -> bool:
        world.asked.append(question)
        return answer

    return checkpoint.restore(session(world, **numbers), name, consent=False, confirm=confirm)


def shown(of: Session) -> str:
    out = io.StringIO()
    Console(width=500, file=out).print(checkpoint.listed(of))
    return out.getvalue()


def test_all_machines_are_saved_once_all_are_off_and_run_again(
    world: World, saved: SavedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(lab: Lab, node: Node, timeout: float) -> bool:
        time.sleep(0.05)  # so that a state that is saved too early is seen
        return world.stop(lab, node, timeout)

    monkeypatch.setattr(providers, "stop", stop)
    found = save(world)
    kinds = [touch.split()[0] for touch in world.touches if touch.split()[0] in ("stop", "save", "start")]
    names = {node.name for node in world.record.lab.nodes}
    assert kinds == ["stop"] * 6 + ["save"] * 6 + ["start"] * 6
    assert {name for _, name in saved.saved} == set(found.machines) == names
    assert (found.complete, found.healthy, found.size) == (True, True, 600)
    world.require_applied(world.record.lab)


def test_what_came_after_a_checkpoint_is_gone_once_it_is_restored(world: World, saved: SavedWorld) -> None:
    save(world)
    world.nodes["w2"] = "user"
    world.machine("cp2").has = "fresh"
    kubeconfig = world.workspace.kubeconfig
    before = world.record
    world.touches.clear()
    restored = restore(world)
    assert world.nodes["w2"] == ""
    assert world.machine("cp2").has == "joined"
    assert world.record == before
    assert not any(touch.startswith("boot") for touch in world.touches)
    assert kubeconfig.read_text() == "yes"
    world.require_applied(restored.made.lab)


def test_a_restore_is_shown_and_nothing_happens_after_a_no(world: World, saved: SavedWorld) -> None:
    save(world)
    save(world, "later")
    world.touches.clear()
    with pytest.raises(LabStateError, match="nothing was changed"):
        restore(world, answer=False)
    assert world.touches == []
    [question] = world.asked
    assert "All 6 machines of ha-lab go back to start" in question
    assert "will be lost" in question
    assert "taken since stay (later)" in question


def test_secrets_and_kubeconfig_are_those_of_the_checkpoint_and_private(
    world: World, saved: SavedWorld
) -> None:
    workspace = world.workspace
    ca = (workspace.secrets / "ca.key").read_text()
    save(world)
    kept = workspace.checkpoints / "start"
    modes = {stat.S_IMODE(path.stat().st_mode) for path in kept.rglob("*") if path.is_file()}
    folders = [workspace.checkpoints, kept, kept / "secrets"]
    assert modes == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}
    for name in ("ca.key", "ca.crt"):
        workspace.write_secret(workspace.secrets / name, "of a rotation since")
    found = checkpoints.find(workspace, "start")
    assert found is not None
    checkpoints.put_back(workspace, found)
    assert (workspace.secrets / "ca.key").read_text() == ca


def test_a_lab_without_a_cluster_yet_gets_none_by_being_saved_and_restored(
    world: World, saved: SavedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(already, "problems", lambda lab, workspace, remote: ("the API does not answer",))
    for name in ("w1", "w2"):
        world.machine(name).has = "fresh"
    world.workspace.kubeconfig.unlink()
    assert not save(world).healthy
    world.workspace.write_secret(world.workspace.kubeconfig, "of later")
    world.machine("w1").has = "joined"
    restore(world)
    assert [world.machine(name).has for name in ("w1", "w2")] == ["fresh", "fresh"]
    assert all(machine.state == "running" for machine in world.machines.values())
    assert not world.workspace.kubeconfig.exists()


@pytest.mark.parametrize("name", ["", "Start", "a b", "-x", "x-", "../x", "x" * 31])
def test_a_name_that_can_t_be_used_is_refused(world: World, saved: SavedWorld, name: str) -> None:
    with pytest.raises(ConfigError, match="can't have the name"):
        save(world, name)
    assert world.touches == []


def test_a_name_that_exists_is_refused_and_nothing_is_lost(world: World, saved: SavedWorld) -> None:
    save(world)
    before = dict(saved.saved)
    world.touches.clear()
    with pytest.raises(ConfigError, match="there is a checkpoint start already, of 20") as caught:
        save(world)
    assert "checkpoints --remove start" in caught.value.hint
    assert (world.touches, saved.saved) == ([], before)


def test_a_full_disk_is_found_before_a_machine_stops(world: World, saved: SavedWorld) -> None:
    saved.free = 600 + providers.SPARE_MIB - 1
    with pytest.raises(HostNotFit, match="600 MiB are needed, with 512 MiB to spare, and 1111 MiB are free"):
        save(world)
    assert world.touches == []
    saved.free += 1
    save(world)
    saved.free = 0  # a restore replaces what is there
    restore(world)


def test_a_restore_that_needs_more_than_it_frees_is_refused(world: World, saved: SavedWorld) -> None:
    save(world)
    saved.free = providers.SPARE_MIB
    for name in ("w1", "w2"):
        world.lose(name)
    world.touches.clear()
    with pytest.raises(HostNotFit, match="200 MiB are needed"):
        restore(world)
    assert world.touches == []


@pytest.mark.parametrize(
    ("numbers", "differs"),
    [
        ({"workers": 1}, "nodes.workers.count: 2 → 1"),
        ({"profile": "reference"}, "load_balancer.profile: tuned → reference"),
        ({"addons": ["local-path"]}, "addons: nothing → local-path"),
    ],
)
def test_a_checkpoint_of_another_lab_yaml_is_refused_with_what_differs(
    world: World, saved: SavedWorld, numbers: dict[str, Any], differs: str
) -> None:
    save(world)
    world.touches.clear()
    with pytest.raises(ConfigError, match="the checkpoint start is of another lab") as caught:
        restore(world, **numbers)
    assert differs in caught.value.message
    assert "set lab.yaml back" in caught.value.hint
    assert world.touches == []


def test_machines_that_were_added_since_are_in_the_way(world: World, saved: SavedWorld) -> None:
    save(world)
    world.up(lab_of(world.folder, workers=3))
    with pytest.raises(ConfigError, match="w3 was created since") as caught:
        restore(world)
    assert "./inv up" in caught.value.hint
    world.up(lab_of(world.folder))
    restore(world)


def test_sizes_that_docker_does_not_enforce_make_no_other_lab(world: World, saved: SavedWorld) -> None:
    save(world)
    restore(world, cpus=3)


def test_a_lab_between_two_versions_is_not_saved(world: World, saved: SavedWorld) -> None:
    world.up(lab_of(world.folder, version="1.36.3"))
    world.break_at("upgrade w1", "before", LabError("it failed"))
    with pytest.raises(LabError):
        world.up(lab_of(world.folder, version="1.37.2"))
    with pytest.raises(LabStateError, match=r"an upgrade to Kubernetes 1\.37\.2 is under way"):
        save(world)


def test_a_machine_from_another_golden_machine_can_t_take_the_state(world: World, saved: SavedWorld) -> None:
    save(world)
    world.machine("w1").base = "ha-lab/golden:fedcba9876543210"
    with pytest.raises(LabStateError, match="start can't be restored: w1: it is another machine"):
        restore(world)


def test_a_machine_that_is_gone_is_created_and_restored(world: World, saved: SavedWorld) -> None:
    save(world)
    world.lose("cp1")
    world.touches.clear()
    restore(world)
    assert [touch for touch in world.touches if touch.startswith("boot")] == ["boot cp1"]
    world.require_applied(world.record.lab)


def test_a_state_that_went_with_its_machine_is_missed_before_anything_is_lost(
    world: World, saved: SavedWorld
) -> None:
    save(world)
    del saved.saved["start", "cp2"]
    world.touches.clear()
    with pytest.raises(LabStateError, match="can't be restored: cp2: nothing is saved of it"):
        restore(world)
    assert world.touches == []


def test_machines_that_do_not_run_are_refused(world: World, saved: SavedWorld) -> None:
    world.machine("cp2").state = "paused"
    with pytest.raises(LabStateError, match="not all machines run: cp2 is paused") as caught:
        save(world)
    assert "./inv up" in caught.value.hint
    assert world.touches == []


def test_a_lab_in_the_middle_of_a_change_is_refused(world: World, saved: SavedWorld) -> None:
    made.write(world.workspace, world.record.with_leaving("w2"))
    world.touches.clear()
    with pytest.raises(LabStateError, match="a change of w2 was interrupted"):
        save(world)
    assert world.touches == []


def test_a_lab_that_was_never_made_has_nothing_to_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = live(World(tmp_path), monkeypatch)
    monkeypatch.setattr(checkpoint, "of_lab", lambda session, lab: world.session(lab))
    with pytest.raises(LabStateError, match="the lab has no machines"):
        checkpoint.save(world.session(lab_of(tmp_path)), "start")


def test_a_failure_to_save_starts_the_machines_and_leaves_nothing(world: World, saved: SavedWorld) -> None:
    world.break_at("save cp2", "before", LabError("the disk is full"))
    with pytest.raises(NodeFailed, match="cp2: the disk is full"):
        save(world)
    assert (saved.saved, checkpoints.names(world.workspace)) == ({}, ())
    world.require_applied(world.record.lab)


def _touched(world: World, kinds: tuple[str, ...]) -> list[tuple[str, int]]:
    counts: Counter[str] = Counter()
    found = []
    for touch in world.touches:
        counts[touch] += 1
        if touch.split()[0] in kinds:
            found.append((touch, counts[touch]))
    return found


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("again", ["checkpoint", "up"])
def test_a_checkpoint_that_was_killed_anywhere_is_done_by_the_same_verb_or_undone_by_up(
    world: World, saved: SavedWorld, when: Any, again: str
) -> None:
    save(world, "first")
    for touch, nth in _touched(world, ("stop", "save", "start")):
        name = f"again-{touch.replace(' ', '-')}"
        world.touches.clear()
        world.break_at(touch, when, KilledError(), nth=nth)
        with pytest.raises(KilledError):
            save(world, name)
        if again == "up":
            world.up(world.record.lab)
        else:
            found = checkpoints.find(world.workspace, name)
            if found is None or not found.complete:
                assert save(world, name).healthy
            else:
                world.up(world.record.lab)
            restore(world, name)
        world.require_applied(world.record.lab)
        world.dead = False
        if name in checkpoints.names(world.workspace):
            checkpoint.remove(world.session(world.record.lab), name)
        assert saved.names() == {"first"}


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_restore_that_was_killed_anywhere_is_completed_and_up_says_so(
    world: World, saved: SavedWorld, when: Any
) -> None:
    save(world)
    world.touches.clear()
    restore(world)
    half = 0
    for touch, nth in _touched(world, ("record", "stop", "load", "start")):
        world.nodes["w2"] = "user"
        world.touches.clear()
        world.break_at(touch, when, KilledError(), nth=nth)
        with pytest.raises(KilledError):
            restore(world)
        world.dead = False
        if world.record.restoring:
            half += 1
            with pytest.raises(LabStateError, match="restoring the checkpoint start was interrupted") as caught:
                world.up(world.record.lab)
            assert "`./inv restore start` completes it" in caught.value.hint
            with pytest.raises(LabStateError, match="restoring the checkpoint start was interrupted"):
                save(world, "other")
            with pytest.raises(LabStateError, match="restoring the checkpoint start was interrupted"):
                checkpoint.remove(world.session(world.record.lab), "start")
            refused = plan.look(world.session(world.record.lab)).refused
            assert refused is not None
            assert "./inv restore start" in refused.next
            restore(world)
        else:
            world.up(world.record.lab)
            restore(world)
        assert world.nodes["w2"] == ""
        world.require_applied(world.record.lab)
    assert half >= 12


def test_a_restore_ends_a_recovery_that_was_interrupted(world: World, saved: SavedWorld) -> None:
    save(world)
    recovery.write(world.workspace, Recovery("/home/ada/mine.tar", "", "recovery-1", ("cp1",), None))
    with pytest.raises(LabStateError, match=r"a recovery from /home/ada/mine\.tar was interrupted"):
        world.up(world.record.lab)
    world.dead = False
    restore(world)
    assert recovery.read(world.workspace) is None
    world.up(world.record.lab)


def test_checkpoints_are_listed_with_their_sizes_and_what_is_against_them(
    world: World, saved: SavedWorld
) -> None:
    of = world.session(world.record.lab)
    assert "this lab has no checkpoints" in shown(of)
    save(world)
    save(world, "later")
    (world.workspace.checkpoints / "half").mkdir()
    (world.workspace.checkpoints / "torn").mkdir()
    (world.workspace.checkpoints / "torn" / "checkpoint.json").write_text("{")
    other = world.session(lab_of(world.folder, profile="reference"))
    said = shown(other)
    assert [line.split()[0] for line in said.splitlines()[1:]] == ["start", "later", "half", "torn"]
    assert "600" in said
    assert "of another lab: load_balancer.profile: tuned → reference" in said
    assert "incomplete: saving it was interrupted" in said
    found = {each["name"]: each for each in json.loads(checkpoint.to_json(of))["checkpoints"]}
    assert (found["start"]["mib"], found["start"]["problem"]) == (600, None)
    assert len(found["start"]["machines"]) == 6
    assert "can't be used" in found["torn"]["problem"]
    assert checkpoint.destroyed_with(of) == ("and its checkpoints half, later (600 MiB), start (600 MiB), torn")


def test_a_checkpoint_is_removed_with_all_that_was_saved(world: World, saved: SavedWorld) -> None:
    save(world)
    of = world.session(world.record.lab)
    assert "The checkpoint start (600 MiB) will be removed" in checkpoint.removal_question(of, "start")
    checkpoint.remove(of, "start")
    assert (saved.saved, checkpoints.names(world.workspace)) == ({}, ())
    assert checkpoint.destroyed_with(of) == ""
    for act in (checkpoint.remove, checkpoint.removal_question):
        with pytest.raises(ConfigError, match="this lab has no checkpoint 'start'"):
            act(of, "start")


def test_a_restore_of_nothing_names_what_there_is(world: World, saved: SavedWorld) -> None:
    save(world)
    with pytest.raises(ConfigError, match="no checkpoint 'strat'") as caught:
        restore(world, "strat")
    assert caught.value.hint == "its checkpoints: start"
    found = checkpoints.find(world.workspace, "start")
    assert found is not None
    checkpoints.begin(world.workspace, found.model_copy(update={"name": "half", "complete": False}))
    with pytest.raises(LabStateError, match="the checkpoint half is incomplete"):
        restore(world, "half")


def test_a_checkpoint_agrees_with_a_lab_whose_folder_has_moved(
    world: World, saved: SavedWorld, tmp_path: Path
) -> None:
    manifest = tmp_path / "net.yaml"
    manifest.write_text("x")
    save(world)
    path = world.workspace.checkpoints / "start" / "checkpoint.json"
    there = json.loads(path.read_text())
    there["made"]["root"] = "/elsewhere/.lab"
    there["made"]["lab"]["network"]["pod_network"] = "/elsewhere/net.yaml"
    path.write_text(json.dumps(there))
    found = checkpoints.find(world.workspace, "start")
    assert found is not None
    assert found.made.lab.network.pod_network == str(manifest)


def test_a_checkpoint_of_an_earlier_version_of_the_kit_can_be_used(world: World, saved: SavedWorld) -> None:
    save(world)
    path = world.workspace.checkpoints / "start" / "checkpoint.json"
    there = json.loads(path.read_text())
    there["made"]["lab"]["mirrors"]["kubernetes_packages"] = "https://mirror.example/k8s"
    path.write_text(json.dumps(there))
    found = checkpoints.find(world.workspace, "start")
    assert found is not None
    assert found.made == world.record
