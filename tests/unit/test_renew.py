"""Certificates that end soon are renewed by `up`, one control plane at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import LabError
from lab.plans import quorum, renew, spare
from lab.plans.quorum import Membership
from tests.unit.world import KilledError, World, lab_of, live


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return live(World(tmp_path), monkeypatch)


def with_an_end(world: World, *names: str, control_planes: int = 3) -> None:
    """A lab that is up, and on these control planes certificates end soon."""
    world.up(lab_of(world.folder, control_planes=control_planes))
    world.ends_soon = set(names)
    world.touches.clear()


def renewals(world: World) -> list[str]:
    """What was done from the first renewal on that is about certificates."""
    about = ("load-balancer", "renew-certificates", "kubeconfig")
    done = [touch for touch in world.touches if touch.startswith(about)]
    # `up` configures HAProxy and fetches the kubeconfig in any case, before and after this.
    begin = next(index for index, touch in enumerate(done) if touch.startswith("renew")) - 1
    return done[begin:]


def test_each_control_plane_is_drained_renewed_and_given_back_before_the_next(world: World) -> None:
    with_an_end(world, "cp1", "cp2", "cp3")
    world.up(world.wanted)
    one = ["load-balancer lb1", "renew-certificates {}", "load-balancer lb1", "kubeconfig"]
    assert renewals(world) == [*(each.format(f"cp{n}") for n in (1, 2, 3) for each in one), "kubeconfig"]
    assert (world.ends_soon, world.haproxy_drained) == (set(), set())
    assert world.words["renew-certificates cp1"] == ("30",)


def test_only_control_planes_with_something_to_renew_are_changed(world: World) -> None:
    with_an_end(world, "cp2")
    world.up(world.wanted)
    assert [touch for touch in world.touches if touch.startswith("renew")] == ["renew-certificates cp2"]


def test_no_member_is_restarted_while_another_control_plane_joins(world: World) -> None:
    with_an_end(world, "cp2", "cp3")
    world.lose("cp1")
    world.up(world.wanted)
    order = [touch for touch in world.touches if touch.startswith(("renew", "control-plane-join"))]
    assert order == [
        "control-plane-join cp1",
        "control-plane-join cp3",
        "renew-certificates cp2",
        "renew-certificates cp3",
    ]


def test_a_new_lab_has_nothing_to_renew(world: World) -> None:
    world.up(lab_of(world.folder))
    assert not any(touch.startswith("renew") for touch in world.touches)


def test_the_only_control_plane_is_renewed_too(world: World) -> None:
    with_an_end(world, "cp1", control_planes=1)
    world.up(world.wanted)
    assert world.ends_soon == set()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("touch", ["load-balancer lb1", "renew-certificates cp2", "kubeconfig"])
@pytest.mark.parametrize("error", [KilledError(), LabError("no")])
def test_an_interrupted_renewal_is_completed_by_the_next_up(
    world: World, touch: str, when: str, error: BaseException
) -> None:
    with_an_end(world, "cp1", "cp2", "cp3")
    restore = world.remember()
    for nth in (1, 2, 3) if touch == "load-balancer lb1" else (1,):
        restore()
        world.break_at(touch, when, error, nth=nth)  # type: ignore[arg-type]
        with pytest.raises(type(error)):
            world.up(world.wanted)
        world.up(world.wanted)
        world.require_applied(world.wanted)
        assert world.haproxy_drained == set()


def test_no_member_is_restarted_without_which_etcd_has_no_majority(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_an_end(world, "cp1", "cp2", "cp3")
    monkeypatch.setattr(spare, "MAJORITY_TIMEOUT", 0.0)
    members = ("cp1", "cp2", "cp3")
    monkeypatch.setattr(quorum, "membership", lambda *_: Membership(members, frozenset({"cp1", "cp2"})))
    with pytest.raises(LabError, match=r"2 of the others must answer meanwhile, and cp3 does not$"):
        world.up(world.wanted)
    assert not any(touch.startswith("renew") for touch in world.touches)
    assert world.haproxy_drained == set()


def test_the_reasons_of_one_kind_are_one_phrase(world: World) -> None:
    with_an_end(world, "cp1")
    node = world.wanted.node("cp1")
    assert node is not None
    found = renew.left(node, world.session(world.wanted).remote)
    assert found == (
        "apiserver, admin.conf (valid until 2026-12-01)",
        "etcd (started before its certificates were written)",
    )
