"""The environment of every process that the kit starts: built here by name, never inherited as it is.

A variable that is set for other work must not change what the kit does: VAGRANT_CWD would make `destroy` act on
another project, PYTEST_ADDOPTS could make tests skip, DOCKER_CONTENT_TRUST would make `up` ask a server for
signatures. `base` is what every program gets; callers add what only one program needs (`GO`, `PIP`, ...).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from lab.system import proxies

LOCALE = {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
"""Output is parsed and quoted in messages, so all of it is in English and UTF-8."""

USER = (
    *("PATH", "HOME", "USER", "LOGNAME", "TERM"),
    # Where the user's files are, besides HOME.
    *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"),
)
"""The user's identity, programs and files."""

INTENDED = (
    # Which docker daemon; the doctor shows it. docker's other variables would change what its commands do.
    *("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY"),
    # Where Vagrant keeps its boxes, and VirtualBox its machines: the kit looks there, too.
    *("VAGRANT_HOME", "VBOX_USER_HOME"),
    # libvirt on another host (qemu+ssh://) is reached with the user's key; the lab's machines never are.
    "SSH_AUTH_SOCK",
    # Without these, WSL can't start Windows programs, and Vagrant refuses VirtualBox there.
    *("WSL_DISTRO_NAME", "WSL_INTEROP", "WSLENV"),
    *("VAGRANT_WSL_ENABLE_WINDOWS_ACCESS", "VAGRANT_WSL_WINDOWS_ACCESS_USER_HOME_PATH"),
)
"""Settings of other programs that are intended for the kit as well."""

AUTHORITIES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
"""Certificate authority files, for networks that have their own; only those that exist."""

OWN = "HA_LAB_"
"""The prefix of the kit's own variables."""

GO = ("GOPROXY", "GOPRIVATE", "GONOSUMDB", "GOPATH", "GOMODCACHE", "GOCACHE", "GOTMPDIR")
"""Where Go downloads and keeps modules; go.sum verifies their content."""

PIP = (
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_TRUSTED_HOST"),
    *("PIP_CERT", "PIP_CLIENT_CERT", "PIP_PROXY", "PIP_DEFAULT_TIMEOUT", "PIP_TIMEOUT", "PIP_RETRIES"),
    *("PIP_CACHE_DIR", "PIP_CONFIG_FILE"),
)
"""Where pip downloads packages; the lock files' hashes verify their content. `inv` has the same list."""

COLOURS = ("NO_COLOR", "FORCE_COLOR", "COLORTERM")
"""For programs that print on the user's terminal; never for those whose output is parsed."""

TESTS = (*GO, *PIP, *COLOURS, "CI", "UPDATE_GOLDEN")
"""For the project's own tests, which use all parts of the kit."""

TERMINALS = frozenset(
    (
        *("Eterm", "Eterm-color", "ansi", "cygwin", "dumb", "hurd", "linux", "mach", "pcansi", "sun"),
        *("rxvt", "rxvt-basic", "rxvt-unicode", "rxvt-unicode-256color"),
        *("screen", "screen-256color", "screen-256color-bce", "screen-bce", "screen-s", "screen-w"),
        *("screen.xterm-256color", "tmux", "tmux-256color"),
        *("vt52", "vt100", "vt102", "vt220", "wsvt25", "wsvt25m"),
        *("xterm", "xterm-256color", "xterm-color", "xterm-debian", "xterm-mono", "xterm-r5", "xterm-r6"),
        *("xterm-vt220", "xterm-xfree86"),
    )
)
"""The terminal types that machines know: those of Debian's package ncurses-base, which every machine has."""

FALLBACK_TERMINAL = "xterm-256color"
"""A type that terminals unknown to the machines (kitty, alacritty, foot, ghostty, ...) can display."""


def base(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what every program gets: the user's identity, proxies, CA files, intended settings, English.

    `environ` is the user's environment, by default this process's.
    """
    given = os.environ if environ is None else environ
    made = chosen((*USER, *INTENDED), given)
    made |= {name: value for name, value in chosen(AUTHORITIES, given).items() if Path(value).exists()}
    made |= {name: given[name] for name in list(given) if name.startswith(OWN)}
    if is_usable(given.get("TMPDIR", "")):
        made["TMPDIR"] = given["TMPDIR"]
    return made | proxies.environment(given) | LOCALE


def chosen(names: Iterable[str], environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return those of these variables that the user has set, such as GO; an empty value counts as not set."""
    given = os.environ if environ is None else environ
    return {name: given[name] for name in names if given.get(name)}


def is_usable(folder: str) -> bool:
    """Whether files can be created in a folder; its path must be absolute, since commands run elsewhere."""
    return os.path.isabs(folder) and os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)


def terminal_of_machines(name: str) -> str:
    """Return a terminal type that machines know: the same one, or a compatible one.

    Empty where there is none.
    """
    return name if not name or name in TERMINALS else FALLBACK_TERMINAL


@contextlib.contextmanager
def in_this_process() -> Iterator[None]:
    """Give this process `base` and nothing else, for libraries that read its environment or pass it on."""
    before, made = dict(os.environ), base()
    try:
        for name in before.keys() - made.keys():
            del os.environ[name]
        os.environ.update(made)
        yield
    finally:
        for name in list(os.environ):
            if name not in before:
                del os.environ[name]
        os.environ.update(before)
