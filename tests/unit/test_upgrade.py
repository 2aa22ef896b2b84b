"""`up` with another kubernetes.version, on a lab that lives in memory (tests/unit/world.py)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lab.config import default
from lab.errors import ConfigError, LabError, LabStateError
from lab.golden import payload
from lab.model import Lab
from lab.plans import quorum, spare, upgrade
from lab.plans.quorum import Membership, Running
from lab.session import Session
from lab.verbs import bake
from lab.verbs import up as bring_up
from tests.unit.test_lifecycle import order
from tests.unit.world import IMAGES, KilledError, When, World, lab_of, live
from tests.whole import rows


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return live(World(tmp_path), monkeypatch)


def lab(world: World, version: str, *, control_planes: int = 3, workers: int = 2) -> Lab:
    return lab_of(world.folder, version=version, control_planes=control_planes, workers=workers)


def made(world: World, version: str = "1.35.4", *, control_planes: int = 3, workers: int = 2) -> None:
    """A lab that is up with this version."""
    world.up(lab(world, version, control_planes=control_planes, workers=workers))
    world.touches.clear()


def upgrades(world: World) -> list[str]:
    return [touch for touch in world.touches if touch.startswith("upgrade ")]


@pytest.mark.parametrize(("control_planes", "workers"), [(3, 2), (1, 0), (1, 1), (3, 0)])
def test_all_machines_get_the_version_and_the_lab_is_what_lab_yaml_says(
    world: World, control_planes: int, workers: int
) -> None:
    made(world, control_planes=control_planes, workers=workers)
    wanted = lab(world, "1.36.3", control_planes=control_planes, workers=workers)
    world.up(wanted)
    world.require_applied(wanted)
    assert not world.workspace.payloads.exists()
    world.touches.clear()
    world.up(wanted)
    assert not upgrades(world), "a second `up` upgrades nothing"


def test_control_planes_go_one_by_one_with_etcd_s_leader_last_then_workers(world: World) -> None:
    made(world)
    world.leader = 1
    world.up(lab(world, "1.36.3"))
    assert upgrades(world) == [f"upgrade {name}" for name in ("cp2", "cp3", "cp1", "w1", "w2")]
    # Every machine has its payload before the first is touched.
    assert max(world.touches.index(f"payload {n}") for n in ("cp1", "cp2", "cp3", "w1", "w2")) < min(
        world.touches.index(touch) for touch in world.touches if touch.startswith(("drain", "upgrade"))
    )


def test_each_machine_is_drained_before_and_takes_pods_again_after(world: World) -> None:
    made(world)
    world.up(lab(world, "1.36.3"))
    for name in ("cp1", "cp2", "cp3", "w1", "w2"):
        assert order(world, f"drain {name}", f"upgrade {name}", f"drain {name} --undo")
    assert world.words["drain cp1"] == ("cp1",)
    assert world.words["upgrade w1"] == ("1.36.3", "3.6.16-0")


def test_a_backup_is_kept_before_anything_is_touched_and_its_place_is_shown(world: World) -> None:
    made(world)
    world.wanted = lab(world, "1.36.3")
    session = world.session(world.wanted)
    bring_up.up(session, bring_up.Request(consent=True), lambda question: False)
    first = min(world.touches.index(touch) for touch in world.touches if not touch.startswith("deliver"))
    assert world.touches[first] == "backup"
    assert world.touches.count("backup") == 1
    said = " ".join(session.progress.console.file.getvalue().split())  # type: ignore[attr-defined]
    assert "-before-1.36.3.tar: `./inv recover" in said
    assert "nothing was changed" not in said


def test_an_upgrade_that_goes_on_keeps_no_second_backup(world: World) -> None:
    made(world)
    world.break_at("upgrade cp2", "before", LabError("it failed"))
    with pytest.raises(LabError):
        world.up(lab(world, "1.36.3"))
    world.up(lab(world, "1.36.3"))
    assert world.touches.count("backup") == 1


def test_a_node_that_a_user_has_cordoned_stays_so(world: World) -> None:
    made(world)
    world.nodes["w1"] = "user"
    world.up(lab(world, "1.36.3"))
    world.require_applied(world.wanted)
    assert world.nodes == {"cp1": "", "cp2": "", "cp3": "", "w1": "user", "w2": ""}


def test_etcd_goes_first_where_the_new_version_s_can_t_join_it(world: World) -> None:
    made(world, "1.36.3")
    for name in ("cp1", "cp2", "cp3"):
        world.machine(name).etcd = "3.6.8"  # made by an earlier version of the kit
    wanted = lab(world, "1.37.2")
    world.up(wanted)
    world.require_applied(wanted)
    etcd = [f"upgrade {name} --etcd" for name in ("cp2", "cp3", "cp1")]
    assert upgrades(world)[:3] == etcd
    assert upgrades(world)[3:] == [f"upgrade {name}" for name in ("cp2", "cp3", "cp1", "w1", "w2")]
    assert world.words[etcd[0]] == ("--etcd", "3.6.16-0")


def test_etcd_is_left_alone_where_it_is_new_enough(world: World) -> None:
    made(world, "1.36.3")
    world.up(lab(world, "1.37.2"))
    assert not any("--etcd" in touch for touch in world.touches)


def test_versions_of_etcd_are_compared_as_numbers() -> None:
    control_planes = default().control_planes
    said = Running("cp1", {"cp1": "3.6.9", "cp2": "3.6.11", "cp3": "3.6.16"})
    assert [n.name for n in upgrade.with_old_etcd(control_planes, said, "1.37.2")] == ["cp1"]
    assert upgrade.with_old_etcd(control_planes, said, "1.36.3") == ()


def test_a_plain_upgrade_leaves_haproxy_out_and_goes_by_name(world: World) -> None:
    made(world)
    world.leader, world.wanted = 1, lab(world, "1.36.3")
    bring_up.up(world.session(world.wanted), bring_up.Request(consent=True, plain=True), lambda question: False)
    world.require_applied(world.wanted)
    assert upgrades(world)[:3] == ["upgrade cp1", "upgrade cp2", "upgrade cp3"]
    assert world.words["upgrade cp1"] == ("1.36.3", "3.6.16-0", "--plain")


def test_plain_is_refused_where_nothing_is_upgraded(world: World) -> None:
    made(world)
    with pytest.raises(ConfigError, match="--plain: no upgrade"):
        bring_up.up(
            world.session(world.wanted), bring_up.Request(consent=True, plain=True), lambda question: False
        )


# Refused.


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [("1.35.4", "1.37.2", "one minor version at a time"), ("1.36.3", "1.35.4", "can't be downgraded")],
)
def test_two_minors_and_the_way_back_are_refused_before_anything(
    world: World, before: str, after: str, words: str
) -> None:
    made(world, before)
    with pytest.raises(ConfigError, match=words):
        world.up(lab(world, after))
    assert world.touches == []


def stopped(world: World) -> None:
    world.machine("w2").state = "stopped"


def failing(world: World) -> None:
    world.failing = ("etcd-health[cp2]: unhealthy",)


@pytest.mark.parametrize(
    ("happened", "words"), [(stopped, "w2 is stopped"), (failing, "etcd-health\\[cp2\\]: unhealthy")]
)
def test_an_upgrade_does_not_begin_on_a_lab_that_is_not_healthy(
    world: World, happened: Callable[[World], None], words: str
) -> None:
    made(world)
    happened(world)
    with pytest.raises(LabStateError, match=f"an upgrade begins on a healthy lab.*{words}") as caught:
        world.up(lab(world, "1.36.3"))
    assert world.touches == []
    assert "set kubernetes.version back to 1.35.4" in caught.value.hint


def test_an_upgrade_does_not_begin_without_room_for_its_files(world: World) -> None:
    made(world)
    world.free = 4000
    with pytest.raises(LabStateError, match="up to 4362 MiB, and 4000 MiB are free where docker"):
        world.up(lab(world, "1.36.3"))
    assert world.touches == []
    world.free = 4362
    world.up(lab(world, "1.36.3"))
    world.require_applied(world.wanted)
    world.free = None
    world.up(lab(world, "1.37.2"))
    world.require_applied(world.wanted)


def test_a_version_that_can_t_be_baked_leaves_the_lab_as_it_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(session: Session, *, consent: bool) -> str:
        raise LabError("there is no network")

    made(world)
    monkeypatch.setattr(bake, "bake", fail)
    with pytest.raises(LabError, match="there is no network"):
        world.up(lab(world, "1.36.3"))
    assert (world.touches, world.record.upgrading) == ([], "")


def test_an_upgrade_is_asked_about_and_a_no_changes_nothing(world: World) -> None:
    made(world)
    with pytest.raises(LabStateError, match="nothing was changed"):
        world.up(lab(world, "1.36.3"), consent=False, answer=False)
    assert world.touches == []
    assert "upgraded from 1.35.4 to 1.36.3" in world.asked[-1]


def test_an_upgrade_under_way_is_not_asked_about_again(world: World) -> None:
    made(world)
    world.break_at("upgrade w1", "before", LabError("it failed"))
    with pytest.raises(LabError):
        world.up(lab(world, "1.36.3"))
    world.up(lab(world, "1.36.3"), consent=False)
    world.require_applied(world.wanted)


def test_an_upgrade_under_way_goes_nowhere_else(world: World) -> None:
    made(world)
    world.break_at("upgrade w1", "before", LabError("it failed"))
    with pytest.raises(LabError):
        world.up(lab(world, "1.36.3"))
    for other in ("1.35.4", "1.37.2"):
        with pytest.raises(ConfigError, match=r"an upgrade to 1\.36\.3 is under way"):
            world.up(lab(world, other))


# Interrupted.


FAULTS: tuple[tuple[When, BaseException], ...] = (("after", KilledError()), ("before", LabError("it failed")))


@pytest.mark.slow
@pytest.mark.parametrize("every", rows({"some": 5, "all": 1}, usual=("some",)))
def test_an_upgrade_that_is_broken_off_anywhere_is_ended_by_the_next_up(world: World, every: str) -> None:
    made(world, workers=1)
    restore = world.remember()
    wanted = lab(world, "1.36.3", workers=1)
    world.up(wanted)
    touches = list(dict.fromkeys(world.touches))
    for touch in touches[:: {"some": 5, "all": 1}[every]]:
        for when, error in FAULTS:
            restore()
            world.break_at(touch, when, error)
            with pytest.raises(type(error)):
                world.up(wanted)
            world.up(wanted)
            try:
                world.require_applied(wanted)
            except AssertionError as problem:
                raise AssertionError(f"{type(error).__name__} {when} {touch}: {problem}") from problem


def test_a_machine_that_lost_its_power_meanwhile_is_started_and_upgraded(world: World) -> None:
    made(world)
    world.break_at("upgrade cp2", "after", KilledError())
    with pytest.raises(KilledError):
        world.up(lab(world, "1.36.3"))
    world.machine("cp2").state = "stopped"
    world.up(lab(world, "1.36.3"))
    world.require_applied(world.wanted)
    assert "start cp2" in world.touches


@pytest.mark.parametrize("name", ["cp3", "w2"])
def test_a_machine_that_hangs_meanwhile_is_replaced_and_made_with_the_new_version(
    world: World, name: str
) -> None:
    made(world)
    world.break_at("upgrade cp2", "after", KilledError())
    with pytest.raises(KilledError):
        world.up(lab(world, "1.36.3"))
    world.machine(name).hangs = True
    world.up(lab(world, "1.36.3"), replacing=(name,))
    world.require_applied(world.wanted)
    assert order(world, f"remove {name}", "upgrade cp1", f"boot {name}")
    assert world.touches.count(f"upgrade {name}") == 0


def test_a_failure_while_a_machine_is_replaced_is_told_with_all_versions(world: World) -> None:
    made(world)
    world.break_at("upgrade w1", "before", LabError("kubeadm failed"))
    session = world.session(lab(world, "1.36.3"))
    request = bring_up.Request(consent=True, replacing=("w2",))
    with pytest.raises(LabError, match="kubeadm failed"):
        bring_up.up(session, request, lambda question: False)
    said = " ".join(session.progress.console.file.getvalue().split())  # type: ignore[attr-defined]
    assert "Kubernetes' versions: cp1 1.36.3, cp2 1.36.3, cp3 1.36.3, w1 1.35.4, w2 removed" in said


def test_a_control_plane_whose_etcd_is_silent_stops_it(world: World) -> None:
    made(world)
    world.silent_etcd = "cp3"
    with pytest.raises(LabError, match="no answer of etcd on cp3"):
        world.up(lab(world, "1.36.3"))
    assert not upgrades(world)
    world.silent_etcd = ""
    world.up(lab(world, "1.36.3"))
    world.require_applied(world.wanted)


def test_fewer_machines_and_another_version_at_once(world: World) -> None:
    made(world)
    wanted = lab(world, "1.36.3", workers=1)
    world.up(wanted)
    world.require_applied(wanted)
    assert order(world, "remove w2", "upgrade cp2", "upgrade w1")
    assert "upgrade w2" not in world.touches


def test_more_machines_and_another_version_at_once(world: World) -> None:
    made(world, workers=1)
    wanted = lab(world, "1.36.3", workers=2)
    world.up(wanted)
    world.require_applied(wanted)
    assert order(world, "upgrade w1", "boot w2")


def test_no_control_plane_is_upgraded_that_etcd_can_t_do_without(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(world)
    monkeypatch.setattr(spare, "MAJORITY_TIMEOUT", 0.0)
    members = ("cp1", "cp2", "cp3")
    monkeypatch.setattr(quorum, "membership", lambda *_: Membership(members, frozenset({"cp1", "cp2"})))
    with pytest.raises(LabError, match="cp2's etcd member can't be restarted now: 2 of the others must answer"):
        world.up(lab(world, "1.36.3"))
    assert upgrades(world) == []
    assert world.haproxy_drained == set()


def test_what_is_upgraded_already_is_not_drained_again(world: World) -> None:
    made(world)
    world.break_at("upgrade w1", "before", LabError("it failed"))
    with pytest.raises(LabError):
        world.up(lab(world, "1.36.3"))
    world.touches.clear()
    world.up(lab(world, "1.36.3"))
    assert upgrades(world) == ["upgrade w1", "upgrade w2"]
    assert not any(touch in ("drain cp1", "drain cp2", "drain cp3") for touch in world.touches)


def test_after_a_failure_haproxy_uses_the_server_again(world: World) -> None:
    made(world)
    world.break_at("upgrade cp2", "before", LabError("it failed"))
    with pytest.raises(LabError):
        world.up(lab(world, "1.36.3"))
    assert world.haproxy_drained == set()
    assert upgrades(world) == ["upgrade cp2"], "no other one is begun"


# Stops.


@pytest.mark.parametrize(
    ("until", "done"),
    [("upgrade-control-planes", []), ("upgrade-workers", ["cp2", "cp3", "cp1"])],
)
def test_up_stops_before_the_machines_that_you_upgrade(world: World, until: str, done: list[str]) -> None:
    made(world)
    world.wanted = lab(world, "1.36.3")
    bring_up.up(
        world.session(world.wanted), bring_up.Request(consent=True, until=until), lambda question: False
    )
    assert upgrades(world) == [f"upgrade {name}" for name in done]
    assert world.record.upgrading == "1.36.3"
    assert all(world.machine(name).payloads for name in ("cp1", "cp2", "cp3", "w1", "w2"))
    # As by hand: the next `up` sees that of the machine itself.
    world.machine("w1").version = "1.36.3"
    world.up(world.wanted)
    world.require_applied(world.wanted)
    assert "upgrade w1" not in world.touches


@pytest.mark.parametrize(
    ("version", "until", "words"),
    [("1.36.3", "load-balancer", "does not stop there"), ("1.35.4", "upgrade-workers", "no upgrade")],
)
def test_a_stop_that_up_does_not_come_to_is_refused(world: World, version: str, until: str, words: str) -> None:
    made(world)
    world.wanted = lab(world, version)
    with pytest.raises(ConfigError, match=words):
        bring_up.up(
            world.session(world.wanted), bring_up.Request(consent=True, until=until), lambda question: False
        )


def test_machines_get_only_the_images_that_their_role_starts_and_that_they_lack(world: World) -> None:
    nodes = {node.name: node for node in lab(world, "1.36.3").nodes}
    names = [each.name for each in IMAGES]
    assert [each.name for each in payload.missing(nodes["cp1"], IMAGES, ())] == names
    assert [each.name for each in payload.missing(nodes["w1"], IMAGES, ())] == names[-1:]
    assert payload.missing(nodes["cp1"], IMAGES, names) == ()
