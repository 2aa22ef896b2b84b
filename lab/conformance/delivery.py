"""The images of the suite's tests on the lab's machines: imported before a run, removed after it.

etcd's image is on every machine, in the lab's own version; the suite's name for it is a second one meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab.conformance.suite import ARCHIVE, Suite
from lab.errors import LabError, LabStateError
from lab.model import Node
from lab.remote import Remote, side_by_side

CTR = ("sudo", "ctr", "--namespace", "k8s.io", "images")
FACTOR = 3
"""How many times its archive an import takes: the archive's layers, those unpacked, and room to run pods."""


def deliver(remote: Remote, nodes: Sequence[Node], suite: Suite, log: Path) -> None:
    """Import the images on machines, side by side. Raises LabError, also where a machine has no room."""
    archive = suite.folder / ARCHIVE
    _require_room(remote, nodes, archive.stat().st_size * FACTOR // 2**20)

    def load(node: Node) -> None:
        words = [*CTR, "import", "--snapshotter", "overlayfs", "-"]
        # A log for each machine: they run side by side.
        remote.run(node, words, source=archive, log=log.with_name(f"images-{node.name}.log"), timeout=900)
        for name, source in lacking(_listed(remote, node), suite.images_of_machines).items():
            remote.run(node, [*CTR, "tag", source, name], timeout=60)

    side_by_side("importing the images of the tests", nodes, load)


def withdraw(remote: Remote, nodes: Sequence[Node], suite: Suite) -> tuple[str, ...]:
    """Remove the images from machines; return what is still there, or could not be asked."""

    def remove(node: Node) -> str:
        given = second_names(_listed(remote, node), suite.images_of_machines)
        if given:
            remote.run(node, [*CTR, "remove", *given], timeout=60)
        names = _names_of(remote, node, suite)
        if names:
            remote.run(node, [*CTR, "remove", "--sync", *names], timeout=300)
        left = _names_of(remote, node, suite)
        return f"{len(left)} images of the tests on {node.name}, such as {left[0]}" if left else ""

    left = []
    for node in nodes:
        try:
            left.append(remove(node))
        except LabError as error:
            left.append(f"images of the tests on {node.name}: {error.message}")
    return tuple(each for each in left if each)


def names(listed: str, suite_images: Sequence[str]) -> tuple[str, ...]:
    """The names that the suite's images have in what `ctr images list` prints.

    The kubelet's side of containerd gives each image a second name, the hash of its configuration, which would
    keep it. Both have the same digest, in the third column.
    """
    digests = _digests(listed)
    own = {digest for name, digest in digests.items() if name in suite_images}
    return tuple(sorted(name for name, digest in digests.items() if digest in own))


def lacking(listed: str, wanted: Sequence[str]) -> dict[str, str]:
    """The wanted names that a machine does not have, each with a name of the same image in another version."""
    there = sorted(_digests(listed))
    found = {name: [each for each in there if _repository(each) == _repository(name)] for name in wanted}
    return {name: others[-1] for name, others in found.items() if others and name not in others}


def second_names(listed: str, wanted: Sequence[str]) -> tuple[str, ...]:
    """The wanted names of images that have another name as well: those were given for the run."""
    digests = _digests(listed)
    return tuple(
        name
        for name in wanted
        for other, digest in digests.items()
        if other != name and _repository(other) == _repository(name) and digest == digests.get(name)
    )


def _digests(listed: str) -> dict[str, str]:
    rows = [line.split() for line in listed.splitlines()[1:]]
    return {row[0]: row[2] for row in rows if len(row) > 2}


def _repository(name: str) -> str:
    return name.rpartition(":")[0]


def _listed(remote: Remote, node: Node) -> str:
    return remote.run(node, [*CTR, "list"], timeout=60).stdout


def _names_of(remote: Remote, node: Node, suite: Suite) -> tuple[str, ...]:
    return names(_listed(remote, node), suite.images)


def _require_room(remote: Remote, nodes: Sequence[Node], needed_mib: int) -> None:
    """Raise LabStateError where a machine has too little room for the images."""

    def free(node: Node) -> int:
        words = ["df", "--output=avail", "--block-size=1M", "/var/lib/containerd"]
        return int(remote.run(node, words, timeout=60).stdout.split()[-1])

    short = [
        f"{name} has {mib} MiB"
        for name, mib in side_by_side("asking for room", nodes, free).items()
        if mib < needed_mib
    ]
    if short:
        raise LabStateError(
            f"the images of the tests take {needed_mib} MiB on each machine, and there is no room: "
            f"{', '.join(short)}",
            hint="free some disk space: `./inv bake --prune`, `docker system df`",
        )
