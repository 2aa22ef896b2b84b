from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import CommandFailed
from lab.golden.supply import complaints, hosts
from lab.providers import explained
from lab.system.meaning import NO_SPACE, Meaning, meaning_of, printed_by

ROWS = (Meaning("No such host", "first", "a"), Meaning("such", "second", "b"))
ENDED = ("ended", "with", "exit", "code", "1")


@pytest.mark.parametrize(
    ("output", "sentence"),
    [("lookup x: no SUCH host", "first"), ("such", "second"), ("nothing known", None), ("", None)],
)
def test_the_first_sign_that_fits_counts_in_any_case_of_letters(output: str, sentence: str | None) -> None:
    found = meaning_of(output, ROWS)
    assert (found.sentence if found else None) == sentence


@pytest.mark.parametrize("rows", [explained.MEANINGS, complaints.MEANINGS, hosts.MEANINGS])
def test_every_table_has_a_full_disk_and_each_sign_once(rows: tuple[Meaning, ...]) -> None:
    assert set(NO_SPACE) <= set(rows)
    assert all(sign and sentence and hint for sign, sentence, hint in rows)
    signs = [row.sign.lower() for row in rows]
    hidden = [later for n, sign in enumerate(signs) for later in signs[n + 1 :] if sign in later]
    assert hidden == [], "an earlier row answers for these"


def test_one_sign_means_something_else_of_another_program() -> None:
    """Hence there is a table for each area, and not one for all."""
    said = "curl: (7) Failed to connect to dl.k8s.io port 443: Connection refused"
    of_go, of_mirrors = meaning_of(said, complaints.MEANINGS), meaning_of(said, hosts.MEANINGS)
    assert of_go is not None
    assert of_mirrors is not None
    assert "Go module proxy" in of_go.sentence
    assert "Go" not in of_mirrors.sentence


def test_a_command_s_own_words_and_those_before_it_are_not_its_output(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("$ first\nno space left on device\n$ docker timed-out\nE: odd\n")
    failed = CommandFailed(["docker", "timed-out"], "ended with exit code 1", tail="E: odd", log=log)
    assert printed_by(failed).split() == [*ENDED, "E:", "odd", "E:", "odd"]
    log.unlink()
    assert printed_by(failed).split() == [*ENDED, "E:", "odd"]
