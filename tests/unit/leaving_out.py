"""A plugin of pytest's that leaves out most tests without a word, for a test of `verify`."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = [item for item in items if "ready" in item.name]
