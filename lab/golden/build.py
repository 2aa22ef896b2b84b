"""Builds the golden machine's root file system, which is the same for every provider except for its packages.

Its name is the hash of all that went in: the Kubernetes modules' pins or upstream's lock, the container
runtime's pins, the Debian packages' names, every script and file under provision/ that ends up in it. What is
being made is in `CACHE/golden/KEY.partial/`, which no `up` ever looks at.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from lab.errors import CommandFailed, LabError, LabStateError
from lab.golden import debian
from lab.golden.supply import bom, images, oci, runtime, shelf, source
from lab.golden.supply.releases import release
from lab.host import cache_folder
from lab.model import Lab
from lab.system import paths, process, quoting
from lab.system.paths import PROVISION
from lab.system.progress import Progress

BILL = "usr/share/ha-lab/bom.json"
"""The bill of materials on every machine."""


def key(lab: Lab, packages: Sequence[str], others: Iterable[Path] = ()) -> str:
    """Return the content hash of a root with those packages: 16 hex digits.

    `others` are additional files that it contains.
    """
    digest = hashlib.sha256()
    wanted = release(lab.kubernetes.version)
    parts = [source.key(wanted, source_of(lab)), runtime.key(wanted)]
    digest.update(json.dumps([parts, debian.SUITE, packages]).encode())
    for path in sorted([*_own_files(), *others], key=paths.in_repository):
        digest.update(f"\0{paths.in_repository(path)}\0{path.stat().st_mode & 0o100:o}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def source_of(lab: Lab) -> source.Source:
    """Return the source of this golden machine's Kubernetes; an unresolved `auto` means modules."""
    return source.possible(release(lab.kubernetes.version), lab.kubernetes.source)[-1]


@contextmanager
def workshop(mark: str, missing: Callable[[], bool], progress: Progress | None = None) -> Iterator[Path | None]:
    """Yield a folder to build a golden machine in, to one run at a time; it is always removed afterwards.

    Yields None if another run has just built what was `missing`. Raises LabError for a full disk.
    """
    shelf_folder = cache_folder() / "golden"
    try:
        shelf_folder.mkdir(parents=True, exist_ok=True)
        with shelf.alone(shelf_folder, progress):
            if not missing():
                yield None
                return
            folder = shelf_folder / f"{mark}.partial"
            clear(folder)
            folder.mkdir()
            try:
                yield folder
            finally:
                # Also after Ctrl-C, when no command may start otherwise.
                with process.defer_interrupts():
                    clear(folder)
    except OSError as error:
        raise LabError(
            f"the golden machine could not be built: {error.strerror} ({error.filename})",
            hint="free some disk space (`./inv doctor` shows how much) and run `./inv bake` again",
        ) from error


def root(lab: Lab, folder: Path, packages: Sequence[str], progress: Progress) -> Path:
    """Make the root in that folder and return its tar.

    Needs root for Debian and for containerd: through sudo, announced by its step. Raises LabError.
    """
    wanted, cache = release(lab.kubernetes.version), cache_folder()
    with ThreadPoolExecutor(max_workers=1) as pool:
        # The longest first; the others wait for the network, or fill a core while Go links on the other.
        building = pool.submit(source.build, wanted, source_of(lab), lab.mirrors, cache, progress)
        base = debian.root(packages, lab.mirrors, folder, progress)
        of_runtime = runtime.build(wanted, lab.mirrors, cache, progress)
        built = building.result()
    _payload(folder, built, of_runtime, base, lab, progress)
    return _assemble(folder, base, progress)


def partials() -> list[str]:
    """Remove incomplete golden machines that killed runs left; return the names."""
    found = sorted((cache_folder() / "golden").glob("*.partial"))
    for partial in found:
        clear(partial)
    return [partial.name for partial in found]


def clear(folder: Path) -> None:
    """Remove an incomplete golden machine; it contains files that belong to root."""
    if not folder.exists():
        return
    try:
        process.run(process.as_root("rm", "-rf", "--one-file-system", str(folder)), timeout=300)
    except CommandFailed as error:
        raise LabStateError(
            f"{folder} can't be removed", hint=f"remove it: sudo rm -rf {quoting.word(folder)}"
        ) from error


def _own_files() -> list[Path]:
    """All files of the kit that affect every golden machine."""
    # The Python code that assembles images counts as well.
    own = [PROVISION / "packages.txt", Path(images.__file__), Path(oci.__file__)]
    for folder in ("files", "golden"):
        own += [path for path in (PROVISION / folder).rglob("*") if path.is_file()]
    return own


def _payload(folder: Path, built: Path, of_runtime: Path, base: Path, lab: Lab, progress: Progress) -> None:
    """Collect what make.sh copies into the root: the kit's files, the binaries, the images."""
    payload = folder / "payload"
    shutil.copytree(PROVISION / "files", payload / "files")
    shutil.copytree(PROVISION / "golden", payload / "golden")
    for programs, name in ((built / "bin", "bin"), (built / "cni", "cni"), (of_runtime / "bin", "runtime")):
        shutil.copytree(programs, payload / name, copy_function=os.link)
    shutil.copy(built / "kube-flannel.yml", payload)
    with progress.step("images", "write the container images") as step:
        tools = folder / "tools.tar"
        script = PROVISION / "golden" / "tools-layer.sh"
        process.run(
            process.as_root(str(script), str(base), str(folder / "tools"), str(tools)),
            log=step.log,
            timeout=300,
        )
        images.write_images(built, release(lab.kubernetes.version), tools, payload / "images")
    _write_bill((built, of_runtime), base, payload / "bom.json")


def _assemble(folder: Path, base: Path, progress: Progress) -> Path:
    out = folder / "root.tar"
    with progress.step("golden", f"make the golden machine's root{debian.through_sudo()}") as step:
        script = PROVISION / "golden" / "make.sh"
        words = [str(script), str(base), str(folder / "payload"), str(folder / "work")]
        process.run(process.as_root(*words, str(out)), log=step.log, timeout=900)
    return out


def _write_bill(built: Iterable[Path], base: Path, target: Path) -> None:
    """List the programs' parts and Debian's packages, with versions and licences, in one file."""
    status = process.run(["tar", "-xOf", str(base), "./var/lib/dpkg/status"], timeout=60).stdout
    bills = [bom.read(folder / "bom.json") for folder in built]
    bom.write(target, bom.merge(*bills, bom.debian_packages(status, debian.RELEASE)))
