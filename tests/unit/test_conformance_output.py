"""What ginkgo prints while tests run is read as it comes."""

from __future__ import annotations

import pytest

from lab.conformance.output import Ended, Output
from tests.unit.fakes import recorded

LOG = recorded("conformance/suite.log")


def test_every_test_that_has_ended_is_found_once() -> None:
    output = Output()
    output.read(LOG)
    assert len(output.ended) == 4
    assert (output.count("passed"), output.count("failed")) == (3, 1)
    assert all(each.name.endswith("[Conformance]") for each in output.ended)
    assert all(each.seconds > 0 for each in output.ended)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_it_may_come_in_pieces(size: int) -> None:
    whole, pieces = Output(), Output()
    whole.read(LOG)
    for start in range(0, len(LOG), size):
        pieces.read(LOG[start : start + size])
    assert pieces.ended == whole.ended


def test_tests_that_take_long_are_known_while_they_run() -> None:
    output, seen = Output(), set()
    for line in LOG.splitlines(keepends=True):
        output.read(line)
        seen |= set(output.running)
    assert seen
    assert seen <= {each.name for each in output.ended}
    assert output.running == {}


FOR_GINKGO = "S" * 40
"""Each `S` is a test that was not chosen, in one line with others, sometimes with what comes next."""


@pytest.mark.parametrize(
    ("headline", "expected"),
    [
        ("• [0.345 seconds]", "passed"),
        ("• [FAILED] [10.123 seconds]", "failed"),
        ("• [TIMEDOUT] [300.000 seconds]", "failed"),
        ("• [PANICKED!] [0.001 seconds]", "failed"),
        ("• [INTERRUPTED] [3.000 seconds]", "failed"),
        ("S [SKIPPED] [0.020 seconds]", "skipped"),
        (f"{FOR_GINKGO}• [0.345 seconds]", "passed"),
    ],
)
def test_each_way_to_end_is_known(headline: str, expected: str) -> None:
    found = Output().read(f"{headline}\n[sig-node] Pods should be updated [Conformance]\n/pods.go:1\n")
    assert [(each.name, each.ending) for each in found] == [
        ("[sig-node] Pods should be updated [Conformance]", expected)
    ]


@pytest.mark.parametrize(
    "line",
    [
        "  • a list",
        "[0.345 seconds]",
        "• [0.345 seconds] and more",
        "S [SKIPPED]",
        "Ran 1 of 7000 Specs in 3.000 seconds",
    ],
)
def test_other_lines_are_no_headlines(line: str) -> None:
    assert Output().read(f"{line}\n[sig-node] Pods\n") == []


def test_colours_are_ignored() -> None:
    text = "\x1b[38;5;10m• [1.000 seconds]\x1b[0m\n\x1b[0m[sig-node] Pods \x1b[0m[Conformance]\x1b[0m\n"
    assert Output().read(text) == [Ended("[sig-node] Pods [Conformance]", "passed", 1.0)]


def test_one_process_prints_names_before_headlines() -> None:
    """It was recorded with --dry-run: which tests run is known from the first line of each."""
    output, seen = Output(), set()
    for line in recorded("conformance/one-process.log").splitlines(keepends=True):
        output.read(line)
        seen |= set(output.running)
    assert {each.name for each in output.ended} == seen
    assert (len(output.ended), output.count("passed")) == (3, 3)
    assert "[sig-network] DNS should provide DNS for the cluster [Conformance]" in seen
