"""Which tests make up conformance, and which of them a run carries out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.conformance import tests
from lab.conformance.tests import E2eTest, Request
from lab.errors import ConfigError, LabError
from tests.unit.fakes import recorded

LISTED = recorded("conformance/list-conformance-tests.yaml")
ALL = tuple(E2eTest(name) for name in tests.names_of(LISTED))
CANT = tests.unable()


def chosen(**wish: object) -> tests.Selection:
    return tests.select(ALL, Request(**wish), tests.quick(), CANT)  # type: ignore[arg-type]


def test_the_suite_s_own_list_is_read() -> None:
    assert len(ALL) == 446  # that of 1.36.3, which was recorded
    assert all(test.name.endswith("[Conformance]") for test in ALL)
    assert {test.area for test in ALL} >= {"sig-network", "sig-node", "sig-apps", "sig-api-machinery"}


def test_a_list_is_kept_as_names_one_a_line(tmp_path: Path) -> None:
    file = tmp_path / "tests.txt"
    file.write_text("\n".join(tests.names_of(LISTED)) + "\n", encoding="utf-8")
    assert tests.read(file) == ALL


@pytest.mark.parametrize("said", ["", "[]", "{", "- name: x", "panic: no such flag"])
def test_anything_else_is_no_list(said: str) -> None:
    with pytest.raises(LabError, match="list"):
        tests.names_of(said)


def test_by_default_all_but_serial_and_slow_ones_run() -> None:
    found = chosen()
    extra = [test for test in ALL if "[Serial]" in test.name or "[Slow]" in test.name]
    assert len(found.run) == len(ALL) - len(extra) - len(CANT)
    assert {found.not_run[test] for test in extra} == {tests.SERIAL_OR_SLOW}
    assert found.total == len(ALL)


def test_serial_runs_exactly_what_the_default_leaves_out() -> None:
    both = {*chosen().run, *chosen(serial=True).run}
    assert not set(chosen().run) & set(chosen(serial=True).run)
    assert {test.plain for test in ALL} - {test.plain for test in both} == set(CANT)


def test_quick_is_a_set_of_tests_that_there_are_none_of_them_serial_or_slow() -> None:
    found = chosen(quick=True)
    assert {test.plain for test in found.run} == tests.quick()
    assert not any(test.is_extra for test in found.run)
    assert {test.area for test in found.run} >= {test.area for test in ALL} - {"sig-instrumentation"}


def test_tests_that_can_t_pass_are_tests_that_there_are_and_have_a_reason() -> None:
    assert set(CANT) <= {test.plain for test in ALL}
    assert all(CANT.values())


def test_a_focus_finds_serial_ones_too() -> None:
    found = chosen(focus=r"Daemon set|should provide DNS for the cluster")
    assert {test.is_extra for test in found.run} == {True, False}
    assert set(found.not_run.values()) <= {tests.NO_MATCH}


def test_a_focus_on_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="matches none of the 446 conformance tests"):
        chosen(focus="no such test")


def test_a_focus_on_what_can_t_be_run_says_why() -> None:
    with pytest.raises(ConfigError, match="registry"):
        chosen(focus="ImageVolume")


def test_all_problems_of_what_was_typed_are_shown_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        tests.require_one_way(Request(quick=True, serial=True, focus="(DNS"))
    assert len(caught.value.problems) == 2
    assert "--quick and --serial and --focus" in caught.value.problems[0]
    assert "--focus (DNS" in caught.value.problems[1]


@pytest.mark.parametrize("wish", [Request(), Request(quick=True), Request(serial=True), Request(focus="DNS")])
def test_one_way_is_enough(wish: Request) -> None:
    tests.require_one_way(wish)


def test_the_expression_for_ginkgo_selects_these_tests_and_no_other() -> None:
    found = chosen(quick=True)
    expression = re.compile(found.focus)  # Go's and Python's mean the same here
    matched = {test for test in ALL if expression.search(f"Kubernetes e2e suite {test.name}")}
    assert matched == set(found.run)


def test_the_expression_for_all_fits_into_one_word_of_a_command() -> None:
    assert len(chosen().focus.encode()) < 2**17 - 100  # Linux: MAX_ARG_STRLEN


def test_plain_names_tell_tests_apart() -> None:
    assert len({test.plain for test in ALL}) == len(ALL)
    name = "[sig-node] Pods should be updated [NodeConformance] [Conformance]"
    assert E2eTest(name).plain == "[sig-node] Pods should be updated"
