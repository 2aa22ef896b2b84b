"""Creates the lock: asks upstream, or a mirror, for the parts of a Kubernetes version.

The packages' index must be signed by the pinned key. An image's digest is trusted as the registry reports it,
so that is only asked over connections that nobody in between can alter.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lab.errors import LabError
from lab.golden.supply import flannel, hosts, images, registry
from lab.golden.supply.apt import Entry, Repository
from lab.golden.supply.lock import Lock, Package
from lab.golden.supply.mirrors import image_place, is_loopback, packages_url
from lab.golden.supply.recipe import ARCHITECTURES, architecture
from lab.golden.supply.releases import Release
from lab.golden.supply.upstream import PROGRAMS
from lab.model import Mirrors
from lab.system.progress import Progress

OF_KUBERNETES = ("kubeadm", "kubelet", "kubectl")
"""The packages that have Kubernetes' version; of the others the newest in its repository is taken."""


def make(release: Release, mirrors: Mirrors, signed_by: str, progress: Progress) -> Lock:
    """Return the lock of a version, as the hosts have it now. `signed_by` is the key's fingerprint.

    Raises LabError.
    """
    with tempfile.TemporaryDirectory(prefix="ha-lab-lock-") as folder:
        whole = Path(folder) / "whole"
        with progress.step("packages", f"look at the packages of Kubernetes {release.kubernetes}") as step:
            url = packages_url(mirrors, release.kubernetes)
            repository = Repository(url, signed_by, Path(folder) / "apt", step.log)
            key = repository.signing_key()
            repository.update(key)
            packages = _packages(release, repository)
            _lay_out_kubeadm(release, repository, packages["kubeadm"], whole)
        with progress.step("images", "ask for the images' digests") as step:
            digests = {}
            for name in (*images.image_names(whole, release), flannel.plugin_image(release)):
                if name != images.PROBE:
                    step.note = name
                    digests[name] = _digest(name, mirrors)
            step.note = ""
    return Lock(
        kubernetes=release.kubernetes,
        signed_by=signed_by,
        packages=packages,
        images=digests,
        key=_own_block(key),
    )


def _packages(release: Release, repository: Repository) -> dict[str, Package]:
    entries = repository.entries()
    found = {}
    for name in PROGRAMS:
        ours = [entry for entry in entries if entry.name == name and entry.architecture == architecture()]
        if name in OF_KUBERNETES:
            wanted = [entry for entry in ours if entry.version.startswith(f"{release.kubernetes}-")]
        else:
            wanted = ours
        if not wanted:
            has = ", ".join(sorted({entry.version for entry in ours}, key=_by_numbers)[-5:]) or "none at all"
            version = f" {release.kubernetes}" if name in OF_KUBERNETES else ""
            raise LabError(
                f"{repository.host} has no package {name}{version} for {architecture()} (it has: {has})",
                hint=f"set kubernetes.version to one that it has; {hosts.MIRROR}",
            )
        found[name] = _package(max(wanted, key=lambda entry: _by_numbers(entry.version)), entries)
    return found


def _package(chosen: Entry, entries: Sequence[Entry]) -> Package:
    """Pin a version for each architecture that the kit knows and the repository has."""
    alike = [each for each in entries if (each.name, each.version) == (chosen.name, chosen.version)]
    sums = {each.architecture: each.sha256 for each in alike if each.architecture in ARCHITECTURES.values()}
    return Package(version=chosen.version, sha256=dict(sorted(sums.items())))


def _lay_out_kubeadm(release: Release, repository: Repository, package: Package, whole: Path) -> None:
    """Give `images.image_names` what it asks: kubeadm itself, and flannel's manifest."""
    file = repository.download("kubeadm", package.version, package.sha256[architecture()])
    program = repository.unpack(file) / "usr" / "bin" / "kubeadm"
    (whole / "bin").mkdir(parents=True)
    program.rename(whole / "bin" / "kubeadm")
    (whole / "kube-flannel.yml").write_text(flannel.manifest(release), encoding="utf-8")


def _digest(name: str, mirrors: Mirrors) -> str:
    place = image_place(mirrors, name)
    if not place.tls and not is_loopback(place.host):
        raise LabError(
            f"{place.host} is asked without TLS, so anyone on the way could answer for it: its digests are not "
            "pinned",
            hint="run `./inv lock` with an https mirror, or with upstream; `bake` may use the mirror as it is",
        )
    return registry.digest(name, mirrors)


def _by_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def _own_block(key: str) -> str:
    """The key's armoured block, with none of what may stand around it."""
    block = re.search(
        r"-----BEGIN PGP PUBLIC KEY BLOCK-----.*?-----END PGP PUBLIC KEY BLOCK-----", key, re.DOTALL
    )
    if block is None:  # then nothing can have been verified by it
        raise LabError("the signing key is not ASCII-armoured", hint="ask that host's operator")
    return "\n".join(line.rstrip() for line in block.group().splitlines()) + "\n"
