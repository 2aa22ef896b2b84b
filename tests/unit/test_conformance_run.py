"""A run of the suite: images in, tests, everything out again, whatever happens in between."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lab.conformance import delivery, leftovers, results, run, suite
from lab.conformance.tests import E2eTest, Request, Selection
from lab.errors import LabError, LabStateError
from lab.session import Session
from lab.system import process
from lab.system.process import Result
from tests.unit.fakes import printed, progress, recorded
from tests.unit.sessions import on_any_host, wanted

JUNIT, LOG = recorded("conformance/junit_01.xml"), recorded("conformance/suite.log")
"""Of a real run: three tests passed, one failed, in two processes."""

RUN = tuple(
    E2eTest(case.name.removeprefix(results.IT))
    for case in results.read(Path(__file__).parent / "recorded" / "conformance" / "junit_01.xml")
    if case.name.startswith(results.IT)
)
OTHER = E2eTest("[sig-apps] Job should delete a job [Conformance]")
SELECTION = Selection(RUN, {OTHER: "their names do not match --focus"})


class World:
    """A lab, and ginkgo; what was done is kept in order."""

    def __init__(self) -> None:
        """Let everything go well."""
        self.events: list[str] = []
        self.left: list[tuple[str, ...]] = [(), ()]
        self.ends: BaseException | None = None
        self.reports = True
        self.argv: list[str] = []
        self.env: dict[str, str] = {}

    def remove(self, *_: object) -> tuple[str, ...]:
        """Remove what the suite has left."""
        self.events.append("remove objects")
        return self.left.pop(0)

    def deliver(self, *_: object) -> None:
        """Import the images."""
        self.events.append("import images")

    def withdraw(self, *_: object) -> tuple[str, ...]:
        """Remove the images."""
        self.events.append("remove images")
        return ()

    def ginkgo(self, argv: Sequence[str | Path], **options: Any) -> Result:
        """Run the tests: print and report what a real run has."""
        self.events.append("run tests")
        self.argv, self.env = [str(word) for word in argv], options["env"]
        options["log"].write_text(LOG, encoding="utf-8")
        if self.ends:
            raise self.ends
        if self.reports:
            (options["cwd"] / "junit_01.xml").write_text(JUNIT, encoding="utf-8")
        return Result(tuple(self.argv), 1, "", "", 1.0)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    on_any_host(monkeypatch)
    found = World()
    monkeypatch.setattr(run, "_api", lambda session: None)
    monkeypatch.setattr(leftovers, "remove", found.remove)
    monkeypatch.setattr(delivery, "deliver", found.deliver)
    monkeypatch.setattr(delivery, "withdraw", found.withdraw)
    monkeypatch.setattr(process, "run", found.ginkgo)
    return found


@pytest.fixture
def opened(tmp_path: Path) -> Session:
    session = wanted(tmp_path)
    return dataclasses.replace(session, progress=progress(tmp_path / "logs"))


def carry_out(session: Session, junit: Path | None = None) -> results.Outcome:
    built = suite.Suite(Path("/cache/conformance/key"))
    return run.carry_out(session, built, session.lab.workers, SELECTION, Request(focus="x"), junit)


def test_images_come_and_go_around_the_tests(world: World, opened: Session) -> None:
    carry_out(opened)
    assert world.events == [
        *("remove objects", "import images", "run tests", "remove objects", "remove images"),
    ]


def test_what_came_of_it_is_counted_and_each_failure_has_its_file(world: World, opened: Session) -> None:
    found = carry_out(opened)
    assert len(found.passed) == 3
    [failure] = found.failures
    assert failure.log.read_text(encoding="utf-8").startswith(failure.test)
    assert failure.words in failure.log.read_text(encoding="utf-8")
    assert not found.green
    assert found.sentence == (
        "3 of 5 conformance tests passed, 1 failed, 1 not run because their names do not match --focus"
    )


def test_it_is_shown_by_area_with_the_suite_s_words(world: World, opened: Session) -> None:
    found = carry_out(opened)
    console, text = printed()
    console.print(results.shown(found))
    said = text.getvalue()
    assert found.sentence in said
    assert found.failures[0].words.splitlines()[0][:60] in said
    assert str(found.failures[0].log) in said
    assert "certified" not in said
    assert {"area", "passed", "failed"} <= set(said.split())


def test_as_json_it_has_every_test(world: World, opened: Session) -> None:
    found = json.loads(results.to_json(carry_out(opened)))
    assert (len(found["passed"]), len(found["failed"]), len(found["not_run"])) == (3, 1, 1)
    assert found["tests"] == 5
    assert found["green"] is False


def test_its_junit_file_is_written_where_it_was_asked_for(
    world: World, opened: Session, tmp_path: Path
) -> None:
    carry_out(opened, tmp_path / "mine.xml")
    assert (tmp_path / "mine.xml").read_text(encoding="utf-8") == JUNIT


def test_interrupted_it_removes_everything_and_stays_interrupted(world: World, opened: Session) -> None:
    world.ends = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        carry_out(opened)
    assert world.events[-2:] == ["remove objects", "remove images"]


def test_a_suite_that_reports_nothing_is_an_error_with_its_last_words(world: World, opened: Session) -> None:
    world.reports = False
    with pytest.raises(LabError, match="ended with exit code 1 before it could report") as caught:
        carry_out(opened)
    assert caught.value.log is not None
    assert world.events[-2:] == ["remove objects", "remove images"]


def test_what_an_earlier_run_left_and_can_t_be_removed_is_refused(world: World, opened: Session) -> None:
    world.left = [("namespaces pods-1234",)]
    with pytest.raises(LabStateError, match="namespaces pods-1234"):
        carry_out(opened)
    assert world.events == ["remove objects"]


def test_what_is_left_after_makes_it_fail(world: World, opened: Session) -> None:
    world.left = [(), ("namespaces pods-1234",)]
    found = carry_out(opened)
    assert found.left == ("namespaces pods-1234",)
    assert not dataclasses.replace(found, failures=()).green
    assert dataclasses.replace(found, failures=(), left=()).green


def test_a_run_of_nothing_is_not_green(world: World, opened: Session) -> None:
    assert not dataclasses.replace(carry_out(opened), passed=(), failures=()).green


def test_tests_without_a_result_are_not_run_and_none_is_forgotten() -> None:
    cases = tuple(case for case in results.read(_JUNIT_FILE) if RUN[0].name not in case.name)
    passed, failures, not_run = results.judge(SELECTION, cases, "the suite ended before", Path("/logs"))
    assert not_run[RUN[0]] == "the suite ended before"
    assert len(passed) + len(failures) + len(not_run) == SELECTION.total


def test_what_the_suite_itself_skips_is_not_run_with_its_reason() -> None:
    case = results.Case(f"{results.IT}{RUN[0].name}", "skipped", "needs at least 5 nodes\nat x.go:1")
    _, _, not_run = results.judge(Selection(RUN[:1], {}), (case,), "", Path("/logs"))
    assert not_run == {RUN[0]: "the suite skipped them: needs at least 5 nodes"}


def test_a_preparation_that_fails_is_a_failure_and_no_conformance_test(world: World, opened: Session) -> None:
    found = carry_out(opened)
    case = results.Case("[SynchronizedBeforeSuite]", "failed", "no nodes")
    _, failures, _ = results.judge(SELECTION, (case,), "it never began", Path("/logs"))
    broken = dataclasses.replace(found, failures=failures)
    assert [each.area for each in broken.failures] == [results.SUITE]
    assert "the suite's own preparations or checks failed" in broken.sentence
    assert broken.total == found.total - 1
    assert not broken.green


def test_the_suite_gets_no_proxy_and_the_lab_s_kubeconfig(world: World, opened: Session) -> None:
    carry_out(opened)
    assert {world.env[name] for name in ("http_proxy", "HTTPS_PROXY", "no_proxy")} == {""}
    assert f"--kubeconfig={opened.workspace.kubeconfig}" in world.argv
    assert world.argv[0] == "/cache/conformance/key/ginkgo"
    before, after = world.argv[: world.argv.index("--")], world.argv[world.argv.index("--") :]
    assert before[-1] == "/cache/conformance/key/e2e.test"
    assert [word for word in before if word.startswith("--focus=")] == [f"--focus={SELECTION.focus}"]
    assert "--kubectl-path=/cache/conformance/key/kubectl" in after


def test_a_file_that_is_no_junit_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "junit_01.xml").write_text("<testsuites>")
    with pytest.raises(LabError, match="no JUnit file that can be read"):
        results.read(tmp_path / "junit_01.xml")


_JUNIT_FILE = Path(__file__).parent / "recorded" / "conformance" / "junit_01.xml"


def test_a_cluster_that_can_t_be_reached_is_one_failure_of_the_preparations() -> None:
    """It was recorded with three processes, each of which fails; two of them only say that the first did."""
    cases = results.read(_JUNIT_FILE.with_name("junit_no_cluster.xml"))
    passed, failures, not_run = results.judge(SELECTION, cases, "the suite ended before", Path("/logs"))
    assert (passed, len(not_run)) == ((), SELECTION.total)
    [failure] = failures
    assert "error loading KubeConfig" in failure.words
    assert "\ufffd" not in failure.words
