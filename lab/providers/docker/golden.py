"""The golden machine as a docker image, named by its content hash."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab.golden import build, debian
from lab.model import Lab
from lab.providers.docker import client
from lab.system import process
from lab.system.progress import Progress

REPOSITORY_NAME = "ha-lab/golden"
PACKED = "image.tar.gz"
ENTRYPOINT = "/usr/lib/ha-lab/container-entrypoint"


def key(lab: Lab) -> str:
    """Return the image's content hash."""
    return build.key(lab, debian.packages())


def name(lab: Lab) -> str:
    """Return the golden machine's name in docker."""
    return f"{REPOSITORY_NAME}:{key(lab)}"


def exists(image: str) -> bool:
    """Whether docker has the golden machine of that name."""
    return client.run(
        *("image", "inspect", "--format", "{{.Id}}", image), accept=None, timeout=client.ASK_TIMEOUT
    ).ok


def make(lab: Lab, progress: Progress) -> None:
    """Build the golden machine; an incomplete one never gets its name. Raises LabError."""
    with build.workshop(key(lab), lambda: not exists(name(lab)), progress) as folder:
        if folder is not None:
            _import(build.root(lab, folder, debian.packages(), progress), lab, progress)


# By default docker's log has all that a container prints, as JSON: reading files took three times as long.
_RUN_ONCE = ("run", "--rm", "--network", "none", "--log-driver", "none", "--entrypoint")


def bill_of_materials(image: str) -> str:
    """Return the golden machine's bill of materials, as JSON text."""
    return client.run(*_RUN_ONCE, "cat", image, f"/{build.BILL}", timeout=60).stdout


PRINT_FILES = 'cd / && exec tar -cf - --numeric-owner $(ls -d -- "$@" 2>/dev/null)'
"""A tar of those of these files that exist, on standard output."""


def files(image: str, paths: Sequence[str], target: Path) -> None:
    """Write files and folders of the golden machine's root to a tar, at the lowest priority: labs run."""
    words = (*_RUN_ONCE, "sh", "--cpu-shares", "2", image, "-c", PRINT_FILES, "sh")
    client.run(*words, *paths, timeout=900, output=target, gently=True)


def baked() -> list[str]:
    """The names of all golden machines in docker, newest first."""
    words = ("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", REPOSITORY_NAME)
    return client.run(*words, timeout=client.ASK_TIMEOUT).stdout.split()


def prune(lab: Lab) -> list[str]:
    """Remove every golden machine except this lab's; return the removed names.

    docker keeps those that a container still uses.
    """
    others = [old for old in baked() if old != name(lab)]
    return [
        old for old in others if client.run("image", "rm", old, accept=None, timeout=client.CHANGE_TIMEOUT).ok
    ]


def size(lab: Lab) -> int:
    """Return the golden machine's size in docker, in MiB."""
    words = ("image", "inspect", "--format", "{{.Size}}", name(lab))
    return int(client.run(*words, timeout=client.ASK_TIMEOUT).stdout) // 2**20 + 1


def pack(lab: Lab, folder: Path, progress: Progress) -> None:
    """Export the golden machine to a file in that folder, for another host's docker."""
    with progress.step("pack", f"pack {name(lab)}") as step:
        plain = folder / PACKED.removesuffix(".gz")
        client.run("save", "--output", plain, name(lab), log=step.log, timeout=900)
        # gzip's fastest level compresses nearly as well, in a quarter of the time.
        process.run(["gzip", "-1", "--no-name", plain], log=step.log, timeout=900)


def unpack(lab: Lab, folder: Path, progress: Progress) -> None:
    """Import the golden machine from a folder that `pack` has filled."""
    with progress.step("import", f"import {name(lab)} into docker") as step:
        hint = "docker needs about 1.5 GiB where it keeps its data (`./inv doctor`)"
        client.run("load", "--input", folder / PACKED, log=step.log, timeout=900, hint=hint)


def _import(root: Path, lab: Lab, progress: Progress) -> None:
    with progress.step("import", f"import it into docker as {name(lab)}") as step:
        client.run(
            "import",
            *("--change", f'ENTRYPOINT ["{ENTRYPOINT}"]'),
            *("--change", "ENV container=docker"),
            *("--message", "the golden machine of the HA lab"),
            *(root, name(lab)),
            log=step.log,
            timeout=600,
            hint="docker needs about 1.5 GiB where it keeps its data (`./inv doctor`)",
        )
