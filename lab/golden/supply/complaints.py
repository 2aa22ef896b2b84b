"""What error messages of go, gcc and pip mean, and what you can do about them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lab.errors import CommandFailed
from lab.system.meaning import NO_SPACE, Meaning, meaning_of, printed_by

COMPILER = "install a C compiler and its static library: apt-get install gcc libc6-dev"
SECCOMP = "install libseccomp for development and pkg-config: apt-get install libseccomp-dev pkgconf"
OTHER_BYTES = (
    "the download does not match the pins in supply/",
    "look at GOPROXY or pip's index, and at which host answers there",
)
NO_COMPILER = ("a C compiler or its library is missing", COMPILER)
NO_SECCOMP = ("libseccomp or pkg-config is missing, which runc is built with", SECCOMP)
NO_PROXY = ("the Go module proxy can't be reached", "try again with the network up, or set GOPROXY")
NO_INDEX = ("the Python package index can't be reached", "try again with the network up")

# The first that fits is reported.
MEANINGS = (
    *NO_SPACE,
    Meaning("checksum mismatch", *OTHER_BYTES),
    Meaning("do not match the hashes", *OTHER_BYTES),
    Meaning(
        "missing go.sum entry", "a pin in supply/ was changed manually", "restore it, or run supply/pin again"
    ),
    Meaning("package libseccomp was not found", *NO_SECCOMP),
    Meaning('"pkg-config": executable file not found', *NO_SECCOMP),
    Meaning("cannot find -lseccomp", *NO_SECCOMP),
    Meaning('"gcc": executable file not found', *NO_COMPILER),
    Meaning("cannot find -l", *NO_COMPILER),
    Meaning("fatal error: std", *NO_COMPILER),
    Meaning("max retries exceeded", *NO_INDEX),
    Meaning("newconnectionerror", *NO_INDEX),
    Meaning(
        "no matching distribution found",
        "the Python package index has no Go toolchain for this host",
        "look at pip's index, which may be a mirror that lacks it",
    ),
    Meaning(
        "module lookup disabled", "GOPROXY=off allows only what is in Go's module cache already", "unset it"
    ),
    Meaning("dial tcp", *NO_PROXY),
    Meaning("no such host", *NO_PROXY),
    Meaning("connection re", *NO_PROXY),
    Meaning("i/o timeout", "the Go module proxy does not answer", "try again, or set GOPROXY"),
    Meaning("reading https://", "the Go module proxy answered with an error", "try again, or set GOPROXY"),
    Meaning("signal: killed", "the kernel killed the compiler, probably for lack of memory", "free some"),
)
GOES_ON = "finished parts are kept, and the next try continues from there"


@contextmanager
def explained() -> Iterator[None]:
    """Give a command that fails inside a hint: what its output means, and what you can do about it."""
    try:
        yield
    except CommandFailed as error:
        found = meaning_of(printed_by(error), MEANINGS)
        hint = f"{found.sentence}: {found.hint}" if found else error.hint or "the log has the complete output"
        error.hint = f"{hint}; {GOES_ON}"
        raise
