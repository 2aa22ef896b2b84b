"""The drill that downgrades etcd, on a lab that lives in memory (world.py)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.config import default
from lab.drill import catalogue, command, downgrade, undo
from lab.drill.catalogue import Drill
from lab.drill.scene import Scene
from lab.errors import ConfigError, LabError, LabStateError
from lab.golden import image
from lab.health.facts.gather import COMMAND
from lab.health.facts.machine import own_scripts
from lab.model import Node
from tests.unit.world import KilledError, World, lab_of, live

ALL = ("cp1", "cp2", "cp3")
NEW, OLD = "3.7.2", "3.6.16"


def minor(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))[:2]


class Drilled:
    """A lab with etcd 3.7; its members agree about a downgrade as etcd's do (server/etcdserver/version)."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = live(World(folder), monkeypatch)
        self.world.up(lab_of(folder, version="1.37.2"))
        self.world.touches.clear()
        self.world.leader = 2
        self.target = ""
        self.storage = "3.7.0"
        self.marks: list[tuple[str, str]] = []
        self._ask = self.world.ask
        self.world.ask = self.ask  # type: ignore[method-assign]

    @property
    def versions(self) -> list[str]:
        return [self.world.machine(name).etcd for name in ALL]

    def agree(self) -> None:
        """What the leader does every five seconds."""
        if self.target and all(minor(each) == minor(self.target) for each in self.versions):
            self.target = ""
        lowest = min(self.versions, key=minor)
        self.storage = f"{self.target or '.'.join(lowest.split('.')[:2])}.0"
        for version in self.versions:
            assert minor(version) >= minor(self.storage), "this member does not start: its data is newer"

    def ask(self, node: Node, command: tuple[str, ...]) -> str:
        """Play etcdctl downgrade, and show each member's part; all else as the world does."""
        if command[:4] == ("sudo", "bash", "-s", "--"):
            name, action, *words = command[4:]
            assert (name, node.name) == ("etcd_downgrade_enabled", "cp1")
            self.world.touch(f"downgrade {action}", lambda: setattr(self, "target", "".join(words)))
            return ""
        if command == ("sudo", COMMAND, "etcd-status"):
            self.agree()
            said = {
                "header": {"member_id": int(node.name[-1])},
                "leader": self.world.leader,
                "version": self.world.machine(node.name).etcd,
                "storageVersion": self.storage,
                "downgradeInfo": {"enabled": True, "targetVersion": f"{self.target}.0"} if self.target else {},
            }
            return f"== script 0\n{own_scripts()}  -\n== etcd-status 0\n{json.dumps([{'Status': said}])}\n"
        return self._ask(node, command)

    @property
    def scene(self) -> Scene:
        session = self.world.session(self.world.wanted)
        return Scene(session, downgrade.members(session), lambda kind, what: self.marks.append((kind, what)))

    def done(self) -> list[str]:
        """What was done to etcd, in order."""
        return [touch for touch in self.world.touches if touch.startswith(("upgrade", "downgrade"))]


@pytest.fixture
def drilled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Drilled:
    monkeypatch.setattr(image, "name", lambda lab: f"golden-{lab.kubernetes.version}")
    return Drilled(tmp_path, monkeypatch)


def drill(name: str = "downgrade-etcd") -> Drill:
    return next(each for each in catalogue.DRILLS if each.name == name)


def test_members_go_back_one_by_one_with_the_leader_last_and_forward_again(drilled: Drilled) -> None:
    one_by_one = [f"upgrade {name} --etcd" for name in ("cp1", "cp3", "cp2")]
    downgrade.downgrade(drilled.scene)
    assert drilled.versions == [OLD] * 3
    assert drilled.done() == ["downgrade inject", *one_by_one]
    assert drilled.world.words["upgrade cp1 --etcd"] == ("--etcd", "3.6.16-0")
    assert drilled.target == "", "etcd has completed the downgrade"
    assert drilled.marks == [("inject", "the fault"), ("detect", downgrade.DOWNGRADED)]
    drilled.world.touches.clear()
    downgrade.finish(drilled.scene)
    assert (drilled.versions, drilled.storage) == ([NEW] * 3, "3.7.0")
    assert drilled.done() == ["downgrade heal", *one_by_one]
    assert drilled.world.words["upgrade cp1 --etcd"] == ("--etcd", "3.7.2-0")
    assert drilled.world.haproxy_drained == set()


def test_all_members_have_the_image_before_anything_is_enabled(drilled: Drilled) -> None:
    downgrade.downgrade(drilled.scene)
    touches = drilled.world.touches
    payloads = [touches.index(f"payload {name}") for name in ALL]
    assert max(payloads) < touches.index("downgrade inject")
    assert not drilled.world.workspace.payloads.exists()


def test_no_member_is_changed_before_all_store_the_former_format(
    drilled: Drilled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downgrade, "AGREED_TIMEOUT", 0.0)
    monkeypatch.setattr(Drilled, "agree", lambda self: None)
    with pytest.raises(LabError, match=r"cp1: its data has the format of 3\.7\.0"):
        downgrade.downgrade(drilled.scene)
    assert drilled.done() == ["downgrade inject"]


def test_a_lab_whose_etcd_was_not_downgraded_is_left_as_it_is(drilled: Drilled) -> None:
    downgrade.finish(drilled.scene)
    assert drilled.world.touches == ["load-balancer lb1"], "which drains none there"


def test_a_downgrade_that_is_enabled_only_is_cancelled(drilled: Drilled) -> None:
    drilled.target = "3.6"
    downgrade.finish(drilled.scene)
    assert (drilled.done(), drilled.target, drilled.storage) == (["downgrade heal"], "", "3.7.0")


@pytest.mark.parametrize(
    "at", ["downgrade inject", *(f"upgrade {name} --etcd" for name in ("cp1", "cp3", "cp2"))]
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_drill_that_was_killed_is_reverted_by_the_next(drilled: Drilled, at: str, when: str) -> None:
    world = drilled.world
    world.break_at(at, when, KilledError())  # type: ignore[arg-type]
    undo.remember(drilled.scene, drill())
    with pytest.raises(KilledError):
        downgrade.downgrade(drilled.scene)
    world.dead = False
    assert undo.leftovers(world.session(world.wanted)) == ("downgrade-etcd on cp1, cp2, cp3",)
    assert (drilled.versions, drilled.storage, drilled.target) == ([NEW] * 3, "3.7.0", "")
    assert world.haproxy_drained == set()


@pytest.mark.parametrize(
    "at", ["downgrade heal", *(f"upgrade {name} --etcd" for name in ("cp1", "cp3", "cp2"))]
)
def test_a_revert_that_was_killed_is_completed(drilled: Drilled, at: str) -> None:
    downgrade.downgrade(drilled.scene)
    drilled.world.touches.clear()
    drilled.world.break_at(at, "after", KilledError())
    with pytest.raises(KilledError):
        downgrade.finish(drilled.scene)
    drilled.world.dead = False
    downgrade.finish(drilled.scene)
    assert (drilled.versions, drilled.storage, drilled.target) == ([NEW] * 3, "3.7.0", "")
    assert drilled.world.haproxy_drained == set()


# Refused.


def test_an_etcd_without_a_former_version_does_not_fit(tmp_path: Path) -> None:
    assert drill().lab_problem(lab_of(tmp_path, version="1.37.2")) is None
    said = drill().lab_problem(lab_of(tmp_path, version="1.36.3"))
    assert said is not None
    assert "Kubernetes 1.36.3 has etcd 3.6.16" in said
    assert "needs 3 control planes" in (drill().lab_problem(lab_of(tmp_path, control_planes=1)) or "")


def test_without_the_image_and_its_golden_machine_nothing_begins(drilled: Drilled) -> None:
    drilled.world.baked = False
    with pytest.raises(LabStateError, match=r"cp1, cp2, cp3: the image etcd:3\.6\.16-0 is missing") as caught:
        drill().victims(drilled.world.session(drilled.world.wanted))
    assert "kubernetes.version: 1.36.3" in caught.value.hint
    for name in ALL:
        drilled.world.machine(name).payloads = ("etcd-3.6.16-0",)
    assert len(drill().victims(drilled.world.session(drilled.world.wanted))) == 3


def test_all_drills_are_those_that_fit_every_lab_of_their_size(tmp_path: Path) -> None:
    assert drill() not in command.chosen("all", default())
    assert command.chosen("downgrade-etcd", default()) == (drill(),)
    assert [each.lab_problem(lab_of(tmp_path)) for each in command.chosen("all", default())] == [None] * len(
        command.chosen("all", default())
    )
    with pytest.raises(ConfigError, match="no drill 'downgrade'") as caught:
        command.chosen("downgrade", default())
    assert "downgrade-etcd" in caught.value.hint
