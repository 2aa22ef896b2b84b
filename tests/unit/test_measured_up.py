"""What `up --measure` has the probes do: a change's title, which machines stay, and what has no limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lab.drill import measure
from lab.drill.measured_up import Measured, _exemptions
from lab.drill.recording import Report, Title
from lab.plans import already
from lab.providers import MachineState
from lab.session import Session
from lab.verbs import up as bring_up
from lab.verbs.up import Request
from tests.unit.world import World, lab_of, live


@dataclass
class Asked:
    """A lab in memory, and what `lab.drill.measure` was asked for there."""

    world: World
    title: Title | None = None
    words: dict[str, Any] = field(default_factory=dict)

    def measured(
        self, session: Session, title: Title, work: Callable[[], None], **words: Any
    ) -> tuple[Report, Path]:
        self.title, self.words = title, words
        work()
        found = Report(lab="", kubernetes="", provider="", began="", host={}, results=())
        return found, self.world.folder

    def up(self, *, replacing: tuple[str, ...] = (), **numbers: Any) -> None:
        """Bring the lab to these numbers with --measure."""
        world = self.world
        world.wanted = lab_of(world.folder, **numbers)
        wish = Request(consent=True, replacing=replacing)
        bring_up.up(world.session(world.wanted), wish, lambda question: False, Measured())
        world.require_applied(world.wanted)

    @property
    def exempt(self) -> list[str]:
        """The figures that have no limit."""
        return [each.figure for each in self.words["exemptions"]]

    @property
    def stay(self) -> list[str]:
        """The machines that the probes may rely on."""
        return [node.name for node in self.words["keep"]]


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    found = Asked(live(World(tmp_path), monkeypatch))
    monkeypatch.setattr(measure, "measured", found.measured)
    found.world.up(lab_of(tmp_path))
    return found


def test_a_change_is_called_by_what_it_does_in_both_languages(asked: Asked) -> None:
    asked.up(workers=4)
    assert asked.title == Title(en="A change of the lab: added w3, w4", ko="랩 변경: 추가: w3, w4")
    asked.up(workers=3, profile="reference", replacing=("w1", "cp2"))
    assert asked.title == Title(
        en="A change of the lab: removed w4; replaced cp2, w1; changed load_balancer.profile",
        ko="랩 변경: 제거: w4; 교체: cp2, w1; 설정 변경: load_balancer.profile",
    )
    asked.world.enforces_sizes = True
    asked.up(workers=3, cpus=3, profile="reference")
    assert asked.title == Title(
        en="A change of the lab: resized w1, w2, w3", ko="랩 변경: 크기 변경: w1, w2, w3"
    )


def test_a_lab_that_needs_no_change_has_a_title_too(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(already, "is_up", lambda lab, workspace, remote: True)
    asked.up()
    assert asked.title == Title(en="`up` on a lab that needs no change", ko="변경이 없는 랩에서 실행한 up")


def test_the_probes_rely_on_the_machines_that_are_there_before_and_after(asked: Asked) -> None:
    asked.up(workers=3, replacing=("lb1", "w1"))
    assert asked.stay == ["lb1", "cp1", "cp2", "cp3", "w2"]


@pytest.mark.parametrize("state", ["stopped", "paused", "absent"])
def test_the_probes_do_not_rely_on_machines_that_the_change_starts_or_makes(
    asked: Asked, state: MachineState
) -> None:
    for name in ("cp1", "w2"):
        asked.world.machines[name].state = state
        if state == "absent":
            asked.world.lose(name)
    asked.up()
    assert asked.stay == ["lb1", "cp2", "cp3", "w1"]
    assert asked.words["off"] == {"cp1", "w2"}


def test_a_machine_that_is_off_and_leaves_is_named_as_off(asked: Asked) -> None:
    asked.world.machines["w2"].state = "stopped"
    asked.up(workers=1)
    assert asked.words["off"] == {"w2"}


def test_new_connections_have_no_limit_while_the_only_load_balancer_is_made_again(asked: Asked) -> None:
    asked.up(replacing=("lb1",))
    [exemption] = asked.words["exemptions"]
    assert exemption.figure == "connections.failed"
    for why in (exemption.en, exemption.ko):
        assert "lb1" in why


def test_new_connections_have_no_limit_while_the_only_load_balancer_gets_another_size(
    asked: Asked,
) -> None:
    asked.world.enforces_sizes = True
    asked.up(balancer_cpus=2)
    assert asked.exempt == ["connections.failed"]


def test_every_other_change_has_all_limits(asked: Asked) -> None:
    asked.up(workers=1, control_planes=1)
    assert asked.exempt == []
    asked.up(control_planes=3, workers=1, profile="reference")
    assert asked.exempt == []
    asked.up(control_planes=3, workers=1, profile="reference", replacing=("cp1", "w1"))
    assert asked.exempt == []


def test_with_a_second_load_balancer_new_connections_have_their_limit(tmp_path: Path) -> None:
    lab = lab_of(tmp_path)
    [one] = lab.balancers
    other = one.model_copy(update={"name": "lb2", "address": one.address + 1})
    assert _exemptions(lab, [one]) != ()
    assert _exemptions(lab.model_copy(update={"nodes": (one, other, *lab.nodes[1:])}), [one]) == ()


def test_an_upgrade_is_titled_by_its_version_and_has_all_limits(asked: Asked) -> None:
    asked.up(version="1.37.2")
    assert asked.title is not None
    assert asked.title.en == "A change of the lab: upgraded Kubernetes to 1.37.2"
    assert asked.exempt == []
    assert asked.words["limits"] == {"connections.failed": 0, "writes.longest_gap_s": 3}
    assert (asked.words["drill"], asked.words["profile"]) == ("", "")
    assert asked.stay == ["lb1", "cp1", "cp2", "cp3", "w1", "w2"]


def test_there_are_no_limits_while_the_only_api_server_is_upgraded(asked: Asked) -> None:
    asked.up(control_planes=1)
    asked.up(version="1.37.2", control_planes=1)
    assert asked.exempt == ["connections.failed", "writes.longest_gap_s"]


def test_other_changes_have_no_limit_of_writes(asked: Asked) -> None:
    asked.up(workers=3)
    assert asked.words["limits"] == {"connections.failed": 0}


def test_a_plain_upgrade_stands_beside_the_profiles(asked: Asked) -> None:
    asked.world.wanted = lab_of(asked.world.folder, version="1.37.2")
    session = asked.world.session(asked.world.wanted)
    bring_up.up(session, Request(consent=True, plain=True), lambda question: False, Measured(plain=True))
    assert asked.words["profile"] == "plain"
    assert asked.title is not None
    assert "--plain" in asked.title.en
