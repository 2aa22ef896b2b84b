"""The drills about certificates, on a lab that lives in memory (world.py)."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from lab.drill import catalogue, certificates, undo
from lab.drill.probes import LONGEST
from lab.drill.run import RECOVERY
from lab.drill.scene import Scene
from lab.errors import LabStateError
from lab.health.facts.gather import COMMAND
from lab.health.facts.machine import own_scripts
from lab.model import Node
from tests.provision.test_certificate import certificate
from tests.unit.world import KilledError, World, lab_of, live

ALL = ("cp1", "cp2", "cp3")


class Drilled:
    """A lab that is up, whose control planes take short-lived certificates; `valid`: for how many seconds."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, valid: float = 1.0) -> None:
        self.world = live(World(folder), monkeypatch)
        self.world.up(lab_of(folder))
        self.world.touches.clear()
        self.valid = valid
        self.marks: list[tuple[str, str, int]] = []
        self._ask = self.world.ask
        monkeypatch.setattr(certificates, "VALID", 1.0)
        self.world.ask = self.ask  # type: ignore[method-assign]

    def ask(self, node: Node, command: tuple[str, ...]) -> str:
        """Take the fault, and show the certificates; all else as the world does."""
        if command[:4] == ("sudo", "bash", "-s", "--"):
            assert command[4:] == ("certificates_short_lived", "inject", "1"), command
            self.world.touch(f"fault {node.name}", lambda: self.world.ends_soon.add(node.name))
            return ""
        if command == ("sudo", COMMAND, "certificates"):
            now = datetime.datetime.now(datetime.UTC)
            ends = now + datetime.timedelta(seconds=self.valid)
            short = certificate(f"{ends:%Y-%m-%dT%H:%M:%S}")
            return (
                f"== script 0\n{own_scripts()}  -\n== certificates 0\n"
                f"# /etc/kubernetes/pki/ca.crt\n{certificate('2099-01-01')}"
                f"# /etc/kubernetes/pki/apiserver.crt\n{short}"
                f"# /var/lib/kubelet/pki/kubelet-client-current.pem\n{certificate('2020-01-01')}"
                f"== clock 0\n{now.timestamp()}\n"
            )
        return self._ask(node, command)

    @property
    def scene(self) -> Scene:
        """All control planes; marks are kept with the number of changes so far."""
        session = self.world.session(self.world.wanted)
        return Scene(
            session,
            session.lab.control_planes,
            lambda kind, what: self.marks.append((kind, what, len(self.world.touches))),
        )

    def touched(self, word: str) -> list[str]:
        """The machines that something was done on, in order."""
        return [touch.split()[1] for touch in self.world.touches if touch.startswith(f"{word} ")]


@pytest.fixture
def drilled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Drilled:
    return Drilled(tmp_path, monkeypatch)


def test_certificates_are_replaced_pods_restart_one_by_one_and_the_fault_is_in_once_one_has_ended(
    drilled: Drilled,
) -> None:
    began = datetime.datetime.now(datetime.UTC)
    certificates.expire(drilled.scene)
    assert sorted(drilled.touched("fault")) == [*ALL]
    assert drilled.touched("renew-certificates") == [*ALL], "the restarts"
    assert drilled.world.words["renew-certificates cp1"] == ("0",), "none is renewed"
    assert drilled.marks == [("inject", "the fault", len(drilled.world.touches))]
    # An end has no fractions of a second.
    assert datetime.datetime.now(datetime.UTC) - began > datetime.timedelta(seconds=drilled.valid - 1)


def test_certificates_that_do_not_end_soon_are_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drilled = Drilled(tmp_path, monkeypatch, valid=86400.0)
    with pytest.raises(LabStateError, match="kubeadm has not made short-lived ones"):
        certificates.expire(drilled.scene)
    assert drilled.marks == []


def test_all_files_are_renewed_before_the_first_restart(drilled: Drilled) -> None:
    drilled.world.ends_soon = set(ALL)
    certificates.bring_back(drilled.scene)
    done = [touch for touch in drilled.world.touches if touch.startswith(("renew", "load"))]
    assert sorted(done[:3]) == [f"renew-certificates {name}" for name in ALL]
    assert done[3:] == [
        each.format(name)
        for name in ALL
        for each in ("load-balancer lb1", "renew-certificates {}", "load-balancer lb1")
    ]
    assert [mark[:2] for mark in drilled.marks] == [("detect", certificates.RENEWED)]
    assert drilled.world.ends_soon | drilled.world.outdated == set()


@pytest.mark.parametrize("drill", ["certificates-expire", "renew-certificates"])
def test_a_lab_without_the_fault_is_left_as_it_is(drilled: Drilled, drill: str) -> None:
    [chosen] = (each for each in catalogue.DRILLS if each.name == drill)
    chosen.heal(drilled.scene)
    done = [touch for touch in drilled.world.touches if not touch.startswith("renew-certificates")]
    assert (done, drilled.world.haproxy_drained) == ([], set())


def test_a_drill_that_was_killed_is_reverted_by_the_next(drilled: Drilled) -> None:
    world = drilled.world
    [drill] = (each for each in catalogue.DRILLS if each.name == "certificates-expire")
    world.break_at("renew-certificates cp2", "after", KilledError())
    undo.remember(drilled.scene, drill)
    with pytest.raises(KilledError):
        drill.inject(drilled.scene)
    world.dead = False
    assert undo.leftovers(world.session(world.wanted)) == ("certificates-expire on cp1, cp2, cp3",)
    assert world.ends_soon | world.outdated | world.haproxy_drained == set()


def test_all_certificates_are_renewed_whatever_their_end(drilled: Drilled) -> None:
    certificates.renew_all(drilled.scene)
    assert drilled.touched("renew-certificates") == [*ALL]
    assert drilled.world.words["renew-certificates cp1"] == ("36500",)
    assert drilled.marks == [("inject", "the fault", 0)]


def test_probes_run_as_long_as_each_drill_may_take() -> None:
    for drill in catalogue.DRILLS:
        assert drill.prepares + drill.seconds + RECOVERY + 120 < LONGEST, drill.name
