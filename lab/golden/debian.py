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
"""Debian 13: systemd 257, HAProxy 3.0."""

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
                *("mmdebstrap", "--variant=minbase", "--mode=root", include, *_sources(mirrors)),
                *(SUITE, str(partial)),
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
    """Return what has mmdebstrap write other URLs into apt's sources, before it fetches anything.

    It knows Debian's servers itself: the archive with its updates, and the archive of security updates.
    """
    return [
        f"--setup-hook=sed -Ei '/ {SUITE}-security /{lines}{_url_becomes(url)}' \"$1\"/etc/apt/sources.list"
        for lines, url in (("!", mirrors.debian), ("", mirrors.debian_security))
        if url
    ]


def _url_becomes(url: str) -> str:
    """Return sed's command for a line of apt's sources; lab.yaml takes no URL with a sign of sed's in it."""
    return rf"s|^(deb (\[[^]]*\] )?)[^ ]+|\1{url}|"


def through_sudo() -> str:
    """The addition to the title of a step that needs root."""
    return "" if os.getuid() == 0 else ", through sudo"


def own(path: Path) -> None:
    """Change the owner of a file that root created to this user."""
    if os.getuid() != 0:
        process.run(process.as_root("chown", f"{os.getuid()}:{os.getgid()}", str(path)), timeout=120)
