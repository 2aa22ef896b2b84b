"""Builds minimal Debian root file systems, as tar files, one for each list of packages, and keeps them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from lab.host import cache_folder
from lab.model import Mirrors
from lab.system import process
from lab.system.paths import PROVISION
from lab.system.progress import Progress

SUITE = "trixie"
"""Debian 13: systemd 257, HAProxy 3.0, containerd 1.7."""

RELEASE = "13"
"""The number of SUITE, which scanners use."""


def packages(name: str = "packages.txt") -> list[str]:
    """The Debian packages of one of provision's lists, in its order."""
    lines = (PROVISION / name).read_text(encoding="utf-8").splitlines()
    return [word for line in lines if (word := line.partition("#")[0].strip())]


def root(wanted: Sequence[str], mirrors: Mirrors, folder: Path, progress: Progress) -> Path:
    """Return the tar of a Debian root with those packages; made if it isn't there, as root through sudo.

    It is created in `folder`, which the caller removes, since a killed mmdebstrap can't. If that is in a home
    folder that others can't read, apt downloads as root; downloads are still verified.
    """
    mark = hashlib.sha256(json.dumps([SUITE, list(wanted)]).encode()).hexdigest()[:16]
    tar = cache_folder() / "debian" / f"{SUITE}-{mark}.tar"
    if tar.exists():
        return tar
    tar.parent.mkdir(parents=True, exist_ok=True)
    partial = tar.with_suffix(".partial.tar")
    with progress.step("debian", f"make a Debian {SUITE} root (mmdebstrap{through_sudo()})") as step:
        include = f"--include={','.join(wanted)}"
        process.run(
            process.as_root(
                *("env", f"TMPDIR={folder}"),
                *("mmdebstrap", "--variant=minbase", "--mode=root", include, SUITE, str(partial)),
                *_sources(mirrors),
                online=True,
            ),
            log=step.log,
            timeout=1800,
            hint="Debian's package servers, or their mirrors, must be reachable for `bake`; then run it again",
        )
        own(partial)
        partial.rename(tar)
    return tar


def _sources(mirrors: Mirrors) -> list[str]:
    """Return apt's sources where they are not mmdebstrap's own, which are those of Debian's servers."""
    if not (mirrors.debian or mirrors.debian_security):
        return []
    archive = mirrors.debian or "http://deb.debian.org/debian"
    security = mirrors.debian_security or "http://deb.debian.org/debian-security"
    return [
        f"deb {archive} {SUITE} main",
        f"deb {archive} {SUITE}-updates main",
        f"deb {security} {SUITE}-security main",
    ]


def through_sudo() -> str:
    """The addition to the title of a step that needs root."""
    return "" if os.getuid() == 0 else ", through sudo"


def own(path: Path) -> None:
    """Change the owner of a file that root created to this user."""
    if os.getuid() != 0:
        process.run(process.as_root("chown", f"{os.getuid()}:{os.getgid()}", str(path)), timeout=120)
