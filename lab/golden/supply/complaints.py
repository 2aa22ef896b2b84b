"""This room knows what the complaints of go, gcc and pip mean for the person who waits for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lab.errors import CommandFailed

COMPILER = "install a C compiler and its static library: apt-get install gcc libc6-dev"
OTHER_BYTES = "what came isn't what supply/ pins: look at GOPROXY or pip's index, and at who answers there"
NO_PROXY = "the Go module proxy can't be reached: try again with the network up, or set GOPROXY"
NO_INDEX = "the Python package index can't be reached: try again with the network up"

# What is found in the output, in small letters, and what to do then. The first that fits is said.
MEANINGS = (
    ("no space left on device", "free some disk space (`./inv doctor` says how much is needed)"),
    ("disk quota exceeded", "free some disk space, or ask for a larger quota"),
    ("checksum mismatch", OTHER_BYTES),
    ("do not match the hashes", OTHER_BYTES),
    ("missing go.sum entry", "a pin in supply/ was changed by hand: restore it, or run supply/pin anew"),
    ('"gcc": executable file not found', COMPILER),
    ("cannot find -l", COMPILER),
    ("fatal error: std", COMPILER),
    ("max retries exceeded", NO_INDEX),
    ("newconnectionerror", NO_INDEX),
    ("no matching distribution found", "the Python package index has no Go toolchain for this host"),
    ("module lookup disabled", "GOPROXY=off allows only what is in Go's module cache already: unset it"),
    ("dial tcp", NO_PROXY),
    ("no such host", NO_PROXY),
    ("connection re", NO_PROXY),
    ("i/o timeout", "the Go module proxy does not answer: try again, or set GOPROXY"),
    ("reading https://", "the Go module proxy answered with an error: try again, or set GOPROXY"),
    ("signal: killed", "the kernel ended the compiler, mostly for want of memory: free some"),
)
GOES_ON = "what is built already is kept, and the next try goes on from there"


@contextmanager
def explained() -> Iterator[None]:
    """Give a command that fails inside a hint: what a person can do about what it said."""
    try:
        yield
    except CommandFailed as error:
        error.hint = f"{meaning(_said(error)) or error.hint or 'the log has all it said'}; {GOES_ON}"
        raise


def meaning(said: str) -> str:
    """Return what to do about a build tool's output; empty where nothing in it is known."""
    small = said.lower()
    return next((hint for sign, hint in MEANINGS if sign in small), "")


def _said(error: CommandFailed) -> str:
    if error.log is None or not error.log.exists():
        return error.tail
    return error.log.read_text(encoding="utf-8", errors="replace")
