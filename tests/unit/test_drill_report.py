from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from lab.drill.page import page
from lab.drill.recording import Figure, Mark, Report, Result
from lab.drill.report import read, shown, write
from lab.workspace import Workspace
from tests.unit.drills import recording, report, result, whole_report
from tests.unit.fakes import printed


def said(found: Report) -> list[str]:
    console, text = printed(width=160)
    console.print(shown(found))
    return text.getvalue().splitlines()


def line(lines: list[str], begins: str) -> str:
    return next(each for each in lines if each.strip().startswith(begins))


@pytest.mark.slow
def test_a_report_is_kept_as_json_that_reads_back_equal_and_as_a_page(tmp_path: Path) -> None:
    found = whole_report(runs=2, count=40, profiles=("tuned", "reference"))
    data, text = write(found, Workspace(tmp_path / ".lab"), tmp_path / "drills")
    assert (data.name, text.name) == ("report.json", "report.html")
    assert read(data) == found
    assert text.read_text(encoding="utf-8") == page(found)


def test_what_is_no_report_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text('{"lab": "ha-lab"}')
    with pytest.raises(ValidationError):
        read(path)


def test_the_table_tells_each_drill_its_figures_and_the_verdict() -> None:
    lines = said(report(result(recording()), result(recording(run=2, down=4))))
    assert "✗ 1 of 2 passed" in line(lines, "kill-control-plane")
    detect = line(lines, "Time to detect (s)")
    assert "✗ 2.50 (0.70–4.30)" in detect
    assert detect.rstrip().endswith("≤ 3")
    assert "✓ 0" in line(lines, "Acknowledged writes lost")
    assert "etcd cp2 healthy again (s)" in "\n".join(lines)
    assert lines[-1].strip() == "ha-lab: 1 of 2 runs passed."


def test_what_failed_more_often_than_it_may_is_told_with_its_time_and_cause() -> None:
    lines = said(report(result(recording()), result(recording(run=2, down=4))))
    (told,) = [each for each in lines if "connection refused" in each and "New connections" in each]
    count = sum(bool(sample.error) for sample in recording(run=2, down=4).connections)
    assert told.startswith("kill-control-plane (tuned, run 2): New connections: ")
    assert f": {count} × connection refused, 0." in told
    assert told.endswith("s after the start, after the event: cp2 killed")


def test_the_event_before_a_failure_is_the_latest_in_whatever_order_they_were_noticed() -> None:
    run = recording(down=4)
    run = run.model_copy(update={"marks": (*run.marks, Mark(at=1.0, kind="step", what="noticed late"))})
    (told,) = [each for each in said(report(result(run))) if "New connections: " in each and "refused" in each]
    assert told.endswith("after the event: cp2 killed")


def test_what_failed_before_a_drill_began_is_no_failure_of_the_drill() -> None:
    run = recording(down=4).model_copy(update={"marks": ()})
    missing = Result(
        recording=run, figures=(Figure(name="connections.failed", value=None, limit=0),), problem="no"
    )
    lines = said(report(missing))
    assert not any("connection refused" in each for each in lines)


def test_the_table_leaves_out_what_has_no_limit_and_does_not_matter() -> None:
    lines = said(report())
    assert not any("Writes: requests" in each for each in lines)
    assert any("Writes: slow" in each for each in lines)


def test_two_profiles_are_two_columns_tuned_first() -> None:
    found = whole_report(runs=1, count=100, profiles=("reference", "tuned"))
    lines = said(found)
    assert lines[0].split() == ["figure", "tuned", "reference", "limit"]
    assert line(lines, "Time to detect (s)").split()[4:] == ["✓", "0.45", "✗", "3.30", "≤", "3"]


def test_a_drill_that_one_profile_was_not_given_has_no_figures_there() -> None:
    lines = said(report(result(recording()), result(recording("kill-worker", "reference"))))
    assert line(lines, "kill-worker").split() == ["kill-worker", "-", "✓", "1", "of", "1", "passed"]


def test_a_judged_figure_that_was_not_seen_is_said_to_be_so() -> None:
    missing = Result(recording=recording(), figures=(Figure(name="detect_s", value=None, limit=3),))
    seen = Result(recording=recording(run=2), figures=(Figure(name="detect_s", value=1, limit=3),))
    assert "✗ not seen" in line(said(report(missing)), "Time to detect")
    assert "✗ 1, not seen in 1 of 2" in line(said(report(missing, seen)), "Time to detect")


def test_runs_that_were_not_carried_through_are_named_with_the_reason() -> None:
    lines = said(report(Result(recording=recording(run=3), problem="[red]cp2[/red] did not start")))
    assert "kill-control-plane (tuned, run 3): [red]cp2[/red] did not start" in lines
    assert "✗ 0 of 1 passed" in line(lines, "kill-control-plane")
