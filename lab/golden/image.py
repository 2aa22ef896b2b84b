"""This room makes the golden machine: everything slow or networked happens here, once.

    debian.py    a minimal Debian root
    build.py     the golden machine's root, and its name: the hash of all that went in
    docker.py    that root as docker's image
    disk.py      that root, with a kernel, on a disk that boots by itself
    libvirt.py  virtualbox.py      that disk as a box of Vagrant's; boxes.py is its shelf of them

What the other rooms ask is here, and answered for the lab's provider.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from lab.errors import LabError
from lab.golden import build, docker, libvirt, virtualbox
from lab.golden.supply import source
from lab.golden.supply.releases import release
from lab.model import Lab
from lab.system.progress import Progress

__all__ = [
    *("bake", "bill_of_materials", "exists", "key", "name", "pack", "prune", "settled", "size"),
    *("unpack", "with_key"),
]

FORMS: dict[str, ModuleType] = {"docker": docker, "libvirt": libvirt, "virtualbox": virtualbox}
"""The golden machine as each provider takes it: modules with the same functions."""


def key(lab: Lab) -> str:
    """Return the golden machine's content hash: 16 hex digits."""
    return str(FORMS[lab.provider].key(settled(lab)))


def name(lab: Lab) -> str:
    """Return the golden machine's name: docker's for an image, Vagrant's for a box."""
    return str(FORMS[lab.provider].name(settled(lab)))


def exists(lab: Lab, golden_machine: str) -> bool:
    """Whether the lab's provider has the golden machine of that name."""
    return bool(FORMS[lab.provider].exists(golden_machine))


def bake(lab: Lab, progress: Progress) -> str:
    """Make the golden machine if it isn't there, and return its name.

    Needs root for the Debian root and for containerd: through sudo, announced by its step. Raises
    LabError; nothing half-made is ever under the final name.
    """
    form, wanted = FORMS[lab.provider], settled(lab)
    if not form.exists(form.name(wanted)):
        chosen = source.choose(release(lab.kubernetes.version), lab.kubernetes.source, lab.mirrors, progress)
        wanted = _with_source(lab, chosen)
        form.make(wanted, progress)
    return str(form.name(wanted))


def bill_of_materials(lab: Lab, golden_machine: str) -> str:
    """Return the golden machine's own list of what went in, as JSON text."""
    return str(FORMS[lab.provider].bill_of_materials(golden_machine))


def prune(lab: Lab) -> list[str]:
    """Remove every golden machine of this provider but the lab's, and half-made ones; return their names."""
    return [*FORMS[lab.provider].prune(settled(lab)), *build.partials()]


def size(lab: Lab) -> int:
    """Return what the lab's golden machine, which must be there, takes on this host, in MiB."""
    return int(FORMS[lab.provider].size(settled(lab)))


def pack(lab: Lab, folder: Path, progress: Progress) -> None:
    """Put the lab's golden machine, which must be there, into an empty folder. Raises LabError."""
    FORMS[lab.provider].pack(settled(lab), folder, progress)


def unpack(lab: Lab, folder: Path, progress: Progress) -> None:
    """Take the lab's golden machine from a folder that `pack` has filled. Raises LabError."""
    FORMS[lab.provider].unpack(settled(lab), folder, progress)


def settled(lab: Lab) -> Lab:
    """Return the lab with what `kubernetes.source: auto` comes to: where its golden machine came from.

    Where there is none, only `bake` asks whether upstream can be reached. So what `auto` came to once
    stays so, with or without a network, for as long as that golden machine is kept.
    """
    form, choices = FORMS[lab.provider], _choices(lab)
    if len(choices) == 1:
        return choices[0]
    return next((each for each in choices if _is_there(form, each)), choices[-1])


def with_key(lab: Lab, wanted: str) -> Lab | None:
    """Return the lab with the source whose golden machine has that key; None where no source has it."""
    return next((each for each in _choices(lab) if FORMS[lab.provider].key(each) == wanted), None)


def _choices(lab: Lab) -> list[Lab]:
    """The lab with each source that `kubernetes.source` may come to."""
    possible = source.possible(release(lab.kubernetes.version), lab.kubernetes.source)
    return [_with_source(lab, each) for each in possible]


def _is_there(form: ModuleType, lab: Lab) -> bool:
    """Whether the golden machine is there; where the provider can't be asked, it is none to settle by."""
    try:
        return bool(form.exists(form.name(lab)))
    except LabError:
        return False


def _with_source(lab: Lab, chosen: source.Source) -> Lab:
    return lab.model_copy(update={"kubernetes": lab.kubernetes.model_copy(update={"source": chosen})})
