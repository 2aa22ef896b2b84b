"""This room makes the golden machine: everything slow or networked happens here, once.

Its name is the hash of all that went in: the Kubernetes modules' pins, the Debian packages' names, every
script and file under provision/ that ends up in it. What is whole is in docker under that name; what is
being made is in `CACHE/golden/KEY.partial/`, which no `up` ever looks at.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab import process
from lab.errors import CommandFailed, LabError, LabStateError
from lab.host import cache_folder
from lab.model import Lab
from lab.progress import Progress
from lab.render import PROVISION, REPOSITORY
from lab.supply import bom, images, modules, oci, shelf
from lab.supply.releases import release

SUITE = "trixie"
"""Debian 13: systemd 257, HAProxy 3.0, containerd 1.7."""

REPOSITORY_NAME = "ha-lab/golden"
ENTRYPOINT = "/usr/lib/ha-lab/container-entrypoint"


def key(lab: Lab) -> str:
    """Return the golden machine's content hash: 16 hex digits."""
    digest = hashlib.sha256()
    digest.update(json.dumps([modules.key(release(lab.kubernetes.version)), SUITE, packages()]).encode())
    for path in _own_files():
        digest.update(f"\0{path.relative_to(REPOSITORY)}\0{path.stat().st_mode & 0o100:o}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def name(lab: Lab) -> str:
    """Return the golden machine's name in docker."""
    return f"{REPOSITORY_NAME}:{key(lab)}"


def exists(golden: str) -> bool:
    """Whether docker has the golden machine of that name."""
    return process.run(["docker", "image", "inspect", "--format", "{{.Id}}", golden], accept=None).ok


def packages() -> list[str]:
    """The Debian packages of the golden machine, in the order of packages.txt."""
    lines = (PROVISION / "packages.txt").read_text(encoding="utf-8").splitlines()
    return [word for line in lines if (word := line.partition("#")[0].strip())]


def bake(lab: Lab, progress: Progress) -> str:
    """Make the golden machine if it isn't there, and return its name.

    Needs root for the Debian root and for containerd: through sudo, announced by its step. Raises
    LabError; nothing half-made is ever under the final name.
    """
    shelf_folder = cache_folder() / "golden"
    try:
        if not exists(name(lab)):
            shelf_folder.mkdir(parents=True, exist_ok=True)
            with shelf.alone(shelf_folder):
                if not exists(name(lab)):  # another run may just have made it
                    _make(lab, shelf_folder / f"{key(lab)}.partial", progress)
    except OSError as error:
        raise LabError(
            f"the golden machine could not be made: {error.strerror} ({error.filename})",
            hint="free some disk space (`./inv doctor` says how much) and run `./inv bake` again",
        ) from None
    return name(lab)


def _make(lab: Lab, folder: Path, progress: Progress) -> None:
    _clear(folder)
    folder.mkdir()
    wanted = release(lab.kubernetes.version)
    try:
        with ThreadPoolExecutor(max_workers=2) as pool:
            building = pool.submit(modules.build, wanted, cache_folder(), progress)
            debian = pool.submit(_debian_root, progress).result()
            built = building.result()
        _payload(folder, built, debian, lab, progress)
        _assemble(folder, debian, progress)
        _import(folder, lab, progress)
    finally:
        _clear(folder)


def bill_of_materials(golden: str) -> str:
    """Return the golden machine's own list of what went in, as JSON text."""
    words = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "cat"]
    return process.run([*words, golden, "/usr/share/ha-lab/bom.json"], timeout=60).stdout


def baked() -> list[str]:
    """The names of all golden machines on this host, newest first."""
    words = ["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", REPOSITORY_NAME]
    return process.run(words).stdout.split()


def prune(lab: Lab) -> list[str]:
    """Remove every golden machine but this lab's, and half-made ones; return the names removed.

    One that a container still uses stays: docker refuses, and that is right.
    """
    others = [old for old in baked() if old != name(lab)]
    removed = [old for old in others if process.run(["docker", "image", "rm", old], accept=None).ok]
    for partial in (cache_folder() / "golden").glob("*.partial"):
        _clear(partial)
        removed.append(partial.name)
    return removed


def _own_files() -> list[Path]:
    """Everything of ours that the golden machine is made of or by."""
    # How images are put together is no shell script, and counts as well.
    paths = [PROVISION / "packages.txt", Path(images.__file__), Path(oci.__file__)]
    for folder in ("files", "golden"):
        paths += [path for path in (PROVISION / folder).rglob("*") if path.is_file()]
    return sorted(paths)


def _debian_root(progress: Progress) -> Path:
    """Return the tar of a minimal Debian root, made once for one list of packages."""
    mark = hashlib.sha256(json.dumps([SUITE, packages()]).encode()).hexdigest()[:16]
    tar = cache_folder() / "debian" / f"{SUITE}-{mark}.tar"
    if tar.exists():
        return tar
    tar.parent.mkdir(parents=True, exist_ok=True)
    partial = tar.with_suffix(".partial.tar")
    with progress.step("debian", f"make a Debian {SUITE} root (mmdebstrap{_through_sudo()})") as step:
        include = f"--include={','.join(packages())}"
        process.run(
            process.as_root("mmdebstrap", "--variant=minbase", "--mode=root", include, SUITE, str(partial)),
            log=step.log,
            timeout=1800,
            hint="Debian's package servers must be reachable for `bake`; then run it again",
        )
        _own(partial)
        partial.rename(tar)
    return tar


def _payload(folder: Path, built: Path, debian: Path, lab: Lab, progress: Progress) -> None:
    """Lay out what make.sh puts into the root: our files, the binaries, the images."""
    payload = folder / "payload"
    shutil.copytree(PROVISION / "files", payload / "files")
    shutil.copytree(PROVISION / "golden", payload / "golden")
    for name_ in ("bin", "cni"):
        shutil.copytree(built / name_, payload / name_, copy_function=os.link)
    shutil.copy(built / "kube-flannel.yml", payload)
    with progress.step("images", "write the container images") as step:
        tools = folder / "tools.tar"
        script = PROVISION / "golden" / "tools-layer.sh"
        process.run(
            process.as_root(str(script), str(debian), str(folder / "tools"), str(tools)),
            log=step.log,
            timeout=300,
        )
        images.write_images(built, release(lab.kubernetes.version), tools, payload / "images")
    _write_bill(built, debian, payload / "bom.json")


def _assemble(folder: Path, debian: Path, progress: Progress) -> None:
    with progress.step("golden", f"make the golden machine's root{_through_sudo()}") as step:
        script = PROVISION / "golden" / "make.sh"
        words = [str(script), str(debian), str(folder / "payload"), str(folder / "work")]
        process.run(process.as_root(*words, str(folder / "root.tar")), log=step.log, timeout=900)


def _import(folder: Path, lab: Lab, progress: Progress) -> None:
    with progress.step("import", f"give it to docker as {name(lab)}") as step:
        process.run(
            [
                *("docker", "import"),
                *("--change", f'ENTRYPOINT ["{ENTRYPOINT}"]'),
                *("--change", "ENV container=docker"),
                *("--message", "the golden machine of the HA lab"),
                *(folder / "root.tar", name(lab)),
            ],
            log=step.log,
            timeout=600,
            hint="docker needs about 1.5 GiB where it keeps its data (`./inv doctor`)",
        )


def _write_bill(built: Path, debian: Path, target: Path) -> None:
    """List Go modules and Debian packages, with versions and licences, in one file."""
    status = process.run(["tar", "-xOf", str(debian), "./var/lib/dpkg/status"], timeout=60).stdout
    bom.write(target, bom.merge(bom.read(built / "bom.json"), bom.debian_packages(status)))


def _through_sudo() -> str:
    return "" if os.getuid() == 0 else ", through sudo"


def _own(path: Path) -> None:
    if os.getuid() != 0:
        process.run(process.as_root("chown", f"{os.getuid()}:{os.getgid()}", str(path)))


def _clear(folder: Path) -> None:
    """Remove a half-made golden machine; it holds files that belong to root."""
    if not folder.exists():
        return
    try:
        process.run(process.as_root("rm", "-rf", "--one-file-system", str(folder)), timeout=300)
    except CommandFailed as error:
        raise LabStateError(f"{folder} can't be removed", hint=f"remove it: sudo rm -rf {folder}") from error
