"""Tables of which only some rows run each time."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def rows(table: Iterable[Any], usual: Collection[Any]) -> list[Any]:
    """All rows of a table, for parametrize: those that are not usual run with --whole only.

    A row that is usual and not in the table is an error: it would never run.
    """
    every = list(table)
    unknown = [row for row in usual if row not in every]
    assert unknown == [], f"rows that are not in the table: {unknown}"
    return [row if row in usual else _whole(row) for row in every]


def _whole(row: Any) -> Any:
    return pytest.param(*(row if isinstance(row, tuple) else (row,)), marks=pytest.mark.whole)
