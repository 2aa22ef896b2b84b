"""A plugin of pytest's that runs no test here, as `pytest -n auto` does, for a test of `verify`."""

from __future__ import annotations


def pytest_runtestloop() -> bool:
    return True
