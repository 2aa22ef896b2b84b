"""What `up` does around its plans: settle, agree, find again what was lost, and end with the right words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab import providers
from lab.config import Choice, choice
from lab.errors import CommandFailed, ConfigError, LabStateError
from lab.model import Lab, Node
from lab.model.change import Change
from lab.plans import already
from lab.remote import Remote
from lab.session import Session
from lab.system.progress import Progress
from lab.verbs import bake, render, up
from lab.verbs.up import Request, Run
from lab.workspace import Workspace, kubeconfig, made
from tests.unit.fakes import printed
from tests.unit.sessions import GOLDEN, LAB_YAML, let_exist, on_any_host, wanted


@pytest.fixture
def carried_out(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What `up` would have carried out once all is agreed and baked."""
    on_any_host(monkeypatch)
    found: list[tuple[Any, ...]] = []
    monkeypatch.setattr(bake, "bake", lambda session, *, consent: GOLDEN)
    monkeypatch.setattr(up, "_carry_out", lambda *words: found.append(words))
    return found


@pytest.fixture
def complete(carried_out: list[tuple[Any, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A lab that was made completely, and that says that it is all that `up` would make of it."""
    session = lived(tmp_path)
    record = made.read(session.workspace)
    assert record is not None
    made.write(session.workspace, record.applied(session.lab, GOLDEN))
    monkeypatch.setattr(already, "is_up", lambda *_: True)
    monkeypatch.setattr(providers, "unknown_to_vagrant", lambda _: [])
    return wanted(tmp_path)


def nobody(question: str) -> bool:
    pytest.fail(f"asked {question}")


def lived(folder: Path) -> Session:
    """A lab whose machines exist."""
    session = wanted(folder)
    render.record_and_write(session, GOLDEN)
    let_exist(session.workspace, *(node.name for node in session.lab.nodes))
    return wanted(folder)


def test_up_asks_again_whether_machines_are_emulated_once_it_has_baked(
    carried_out: list[tuple[Any, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [Choice("libvirt", False), Choice("libvirt", True)]
    monkeypatch.setattr(choice, "settle", lambda file, workspace: answers.pop(0))
    virtual = wanted(tmp_path)
    up.up(virtual, Request(), nobody)
    assert virtual.lab.emulated is False
    assert carried_out[0][0].lab.emulated is True
    assert carried_out[0][0].remote.lab.emulated is True


def test_a_docker_lab_is_settled_once(
    carried_out: list[tuple[Any, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = wanted(tmp_path)
    monkeypatch.setattr(choice, "settle", lambda *_: pytest.fail("asked again"))
    up.up(opened, Request(), nobody)
    up.up(opened, Request(until="joins"), nobody)
    assert [words[2] for words in carried_out] == [GOLDEN, GOLDEN]
    assert [words[-1].until for words in carried_out] == ["", "joins"]


def test_what_was_made_meanwhile_counts_and_not_what_was_there_when_the_lab_was_opened(
    carried_out: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    early = wanted(tmp_path, "name: yours\nprovider: docker\n")
    lived(tmp_path)
    (tmp_path / "lab.yaml").write_text("name: yours\nprovider: docker\n")
    with pytest.raises(ConfigError, match="mine → yours can't be done to machines that exist"):
        up.up(early, Request(consent=True), nobody)
    assert carried_out == []


@pytest.mark.parametrize("agreed", [True, False])
def test_what_goes_is_asked_for_and_a_no_changes_nothing(
    carried_out: list[tuple[Any, ...]], tmp_path: Path, agreed: bool
) -> None:
    lived(tmp_path)
    fewer = wanted(tmp_path, LAB_YAML + "nodes: {workers: {count: 2}}\n")
    questions: list[str] = []

    def person(question: str) -> bool:
        questions.append(question)
        return agreed

    if agreed:
        up.up(fewer, Request(), person)
        assert len(carried_out) == 1
    else:
        with pytest.raises(LabStateError, match="nothing was changed"):
            up.up(fewer, Request(), person)
        assert carried_out == []
    assert questions == ["w3 will be removed, with all data that is only there. Continue? [y/N] "]
    carried_out.clear()
    up.up(fewer, Request(consent=True), nobody)
    assert len(carried_out) == 1


def test_a_lab_that_moved_is_reached_before_anything_is_asked_of_its_machines(
    carried_out: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    lived(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    moved = wanted(tmp_path / "there")

    def person(question: str) -> bool:
        assert str(tmp_path / "there") in moved.workspace.ssh_config.read_text()
        return False

    with pytest.raises(LabStateError, match="nothing was changed"):
        up.up(moved, Request(replacing=("w3",)), person)
    assert carried_out == []


# What Vagrant has lost sight of.


class Began(Exception):
    """The machines are about to be recorded and made."""


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Machines that run and that Vagrant does not know, until they are adopted."""
    on_any_host(monkeypatch)
    found: list[str] = []

    def adopt(lab: Lab, workspace: Workspace) -> None:
        let_exist(workspace, *found)
        found.clear()

    def began(*_: object) -> None:
        raise Began

    monkeypatch.setattr(bake, "bake", lambda session, *, consent: GOLDEN)
    monkeypatch.setattr(providers, "unknown_to_vagrant", lambda workspace: list(found))
    monkeypatch.setattr(providers, "adopt", adopt)
    monkeypatch.setattr(render, "record_and_write", began)
    return found


def forgotten(folder: Path, lost: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A lab that was made, whose .vagrant folder is gone."""
    with monkeypatch.context() as patch:
        patch.setattr(render, "record_and_write", RECORD)
        session = wanted(folder)
        render.record_and_write(session, GOLDEN)
    lost.extend(node.name for node in session.lab.nodes)


RECORD = render.record_and_write


def test_machines_that_vagrant_lost_sight_of_are_its_own_again(
    lost: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten(tmp_path, lost, monkeypatch)
    session = wanted(tmp_path)
    with pytest.raises(Began):
        up.up(session, Request(), nobody)
    assert session.workspace.has_machines()
    assert lost == []


def test_another_lab_is_not_made_over_machines_that_vagrant_lost_sight_of(
    lost: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten(tmp_path, lost, monkeypatch)
    before = made.read(wanted(tmp_path).workspace)
    other = wanted(tmp_path, "name: yours\nprovider: docker\nnodes: {workers: {count: 1}}\n")
    with pytest.raises(LabStateError, match="Vagrant had lost track of machines of this lab") as caught:
        up.up(other, Request(consent=True), nobody)
    assert "./inv plan" in caught.value.hint
    assert made.read(other.workspace) == before
    with pytest.raises(ConfigError, match="mine → yours can't be done to machines that exist"):
        up.up(other, Request(consent=True), nobody)


def test_machines_of_a_lab_without_a_record_are_left_to_destroy(lost: list[str], tmp_path: Path) -> None:
    lost.extend(["lb1", "cp1"])
    with pytest.raises(
        LabStateError, match=r"\.vagrant does not know this many machines of this lab: 2"
    ) as caught:
        up.up(wanted(tmp_path), Request(), nobody)
    assert "./inv destroy" in caught.value.hint


# How a run ends.


@pytest.mark.parametrize("until", ["", "load-balancer"])
def test_a_run_that_stops_on_the_way_says_so_and_has_a_kubeconfig_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: str
) -> None:
    on_any_host(monkeypatch)
    said: list[object] = []
    stops: list[str] = []
    kept: list[Session] = []

    def run(self: Run, known: bool, stop: str, *_: object) -> bool:
        stops.append(stop)
        let_exist(self.session.workspace)
        return True

    monkeypatch.setattr(bake, "bake", lambda session, *, consent: GOLDEN)
    monkeypatch.setattr(providers, "unknown_to_vagrant", lambda workspace: [])
    monkeypatch.setattr(Run, "up", run)
    monkeypatch.setattr(up, "keep_kubeconfig", lambda session: kept.append(session))
    monkeypatch.setattr(up, "_keep_bill_of_materials", lambda session, golden: None)
    monkeypatch.setattr(Progress, "say", lambda self, what: said.append(what))
    opened = wanted(tmp_path)
    up.up(opened, Request(until=until), nobody)
    assert stops == [until]
    assert len(kept) == 1
    console, text = printed()
    console.print(said[-1])
    assert ("./inv task 3" in text.getvalue()) is bool(until)
    assert ("the lab is up" in text.getvalue()) is not bool(until)


def test_what_differs_stays_so_where_a_run_stops_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until everything was applied, the record says what the machines have."""
    on_any_host(monkeypatch)
    lived(tmp_path)
    monkeypatch.setattr(bake, "bake", lambda session, *, consent: GOLDEN)
    monkeypatch.setattr(providers, "unknown_to_vagrant", lambda workspace: [])
    monkeypatch.setattr(Run, "up", lambda *_: True)
    monkeypatch.setattr(up, "keep_kubeconfig", lambda session: True)
    monkeypatch.setattr(up, "_keep_bill_of_materials", lambda session, golden: None)
    edited = wanted(tmp_path, LAB_YAML + "load_balancer: {profile: reference}\n")
    for until, profile in (("joins", "tuned"), ("", "reference")):
        up.up(edited, Request(until=until), nobody)
        record = made.read(edited.workspace)
        assert record is not None
        assert record.lab.load_balancer.profile == profile


def test_a_replaced_machine_is_recorded_again_before_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_any_host(monkeypatch)
    session = lived(tmp_path)
    seen: list[bool] = []

    def recorded() -> bool:
        record = made.read(session.workspace)
        assert record is not None
        return "w3" in record.machines

    def remove(self: Run, leaving: tuple[Node, ...], *_: object) -> bool:
        record = made.read(session.workspace)
        assert record is not None
        assert [node.name for node in leaving] == ["w3"]
        made.write(session.workspace, record.without("w3", self.session.lab.node("w3")))
        seen.append(recorded())
        return True

    def killed(*_: object) -> bool:
        seen.append(recorded())
        raise KeyboardInterrupt

    monkeypatch.setattr(bake, "bake", lambda session, *, consent: GOLDEN)
    monkeypatch.setattr(providers, "unknown_to_vagrant", lambda workspace: [])
    monkeypatch.setattr(Run, "remove", remove)
    monkeypatch.setattr(Run, "up", killed)
    with pytest.raises(KeyboardInterrupt):
        up.up(session, Request(consent=True, replacing=("w3",)), nobody)
    assert seen == [False, True]
    record = made.read(session.workspace)
    assert record is not None
    assert record.leaving == (), "the next `up` does not remove it once more"


def test_the_first_control_plane_that_has_a_kubeconfig_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    has: set[str] = set()

    def fetch(*words: Any) -> bool:
        asked.append(words[-1].name)
        return words[-1].name in has

    monkeypatch.setattr(Remote, "why_not_reachable", lambda self, node: "down" if node.name == "cp1" else None)
    monkeypatch.setattr(kubeconfig, "fetch", fetch)
    session = wanted(tmp_path)
    assert not up.keep_kubeconfig(session)
    assert asked == ["cp2", "cp3"]
    has, asked[:] = {"cp2"}, []
    assert up.keep_kubeconfig(session)
    assert asked == ["cp2"]


def test_a_lab_that_is_up_is_looked_at_once_and_nothing_else_is_done(
    carried_out: list[tuple[Any, ...]], complete: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bake, "bake", lambda *_, **__: pytest.fail("looked at the host"))
    up.up(complete, Request(), nobody)
    assert carried_out == []
    assert '"changed": false' in complete.workspace.report.read_text()


def test_probes_are_around_that_look_too(carried_out: list[tuple[Any, ...]], complete: Session) -> None:
    seen: list[object] = []

    def around(session: Session, change: object, leaving: object, work: Callable[[], None]) -> None:
        seen.extend((change, leaving))
        work()

    up.up(complete, Request(), nobody, around)
    assert seen == [Change(), ()]
    assert carried_out == []


@pytest.mark.parametrize(
    "why",
    ["not up", "not complete", "another manifest", "lost", "changed", "until", "replaced", "unasked"],
)
def test_every_step_is_done_where_anything_may_be_left(
    carried_out: list[tuple[Any, ...]], complete: Session, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    record = made.read(complete.workspace)
    assert record is not None
    session, wish = complete, Request()
    if why == "not up":
        monkeypatch.setattr(already, "is_up", lambda *_: False)
    elif why == "not complete":
        made.write(complete.workspace, record.model_copy(update={"complete": ()}))
    elif why == "another manifest":
        made.write(complete.workspace, record.model_copy(update={"manifest": "of another pod network"}))
    elif why == "lost":
        monkeypatch.setattr(providers, "unknown_to_vagrant", lambda _: ["w1"])
    elif why == "changed":
        session = wanted(complete.path.parent, LAB_YAML + "nodes: {workers: {count: 4}}\n")
    elif why == "until":
        wish = Request(until="joins")
    elif why == "replaced":
        wish = Request(consent=True, replacing=("w1",))
    else:

        def refuse(*_: object) -> bool:
            raise CommandFailed(["docker", "ps"], "ended with exit code 1")

        monkeypatch.setattr(already, "is_up", refuse)
    up.up(session, wish, nobody)
    assert len(carried_out) == 1
