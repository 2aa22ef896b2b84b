"""The golden machine: everything that is slow or needs the network happens here, once.

    debian.py    a minimal Debian root
    build.py     the golden machine's root, and its name: the hash of its contents
    disk.py      that root, with a kernel, on a disk that boots by itself

Each provider's folder converts that root or disk to the provider's format (`lab/providers/NAME/golden.py`).
Other modules call the functions here, which call the lab's provider.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab.errors import CommandTimedOut, LabError
from lab.golden import build
from lab.golden.supply import source
from lab.golden.supply.releases import release
from lab.host import cache_folder
from lab.model import Lab
from lab.providers import provider_of
from lab.providers.protocol import GoldenForm
from lab.system.progress import Progress

__all__ = [
    *("bake", "bill_of_materials", "exists", "files", "key", "name", "pack", "prune", "settled"),
    *("size", "unpack", "with_key"),
]


def key(lab: Lab) -> str:
    """Return the golden machine's content hash: 16 hex digits."""
    return _form(lab).key(settled(lab))


def name(lab: Lab) -> str:
    """Return the golden machine's name: docker's for an image, Vagrant's for a box."""
    return _form(lab).name(settled(lab))


def exists(lab: Lab, golden_machine: str) -> bool:
    """Whether the lab's provider has the golden machine of that name."""
    return _form(lab).exists(golden_machine)


def bake(lab: Lab, progress: Progress) -> str:
    """Build the golden machine if it does not exist, and return its name.

    Needs root for the Debian root and for containerd: through sudo, announced by its step. Raises
    LabError; an incomplete one never gets the final name.
    """
    form, wanted = _form(lab), settled(lab)
    if not form.exists(form.name(wanted)):
        version = release(lab.kubernetes.version)
        chosen = source.choose(version, lab.kubernetes.source, lab.mirrors, cache_folder(), progress)
        wanted = _with_source(lab, chosen)
        form.make(wanted, progress)
    return form.name(wanted)


def bill_of_materials(lab: Lab, golden_machine: str) -> str:
    """Return the golden machine's bill of materials, as JSON text."""
    return _form(lab).bill_of_materials(golden_machine)


def files(lab: Lab, golden_machine: str, paths: Sequence[str], target: Path) -> None:
    """Write files and folders of a golden machine's root, those that it has, to the file `target`, as a tar."""
    _form(lab).files(golden_machine, paths, target)


def prune(lab: Lab) -> list[str]:
    """Remove every golden machine of this provider except the lab's, and incomplete ones; return the names."""
    return [*_form(lab).prune(settled(lab)), *build.partials()]


def size(lab: Lab) -> int:
    """Return what the lab's golden machine, which must be there, takes on this host, in MiB."""
    return _form(lab).size(settled(lab))


def pack(lab: Lab, folder: Path, progress: Progress) -> None:
    """Put the lab's golden machine, which must be there, into an empty folder. Raises LabError."""
    _form(lab).pack(settled(lab), folder, progress)


def unpack(lab: Lab, folder: Path, progress: Progress) -> None:
    """Take the lab's golden machine from a folder that `pack` has filled. Raises LabError."""
    _form(lab).unpack(settled(lab), folder, progress)


def settled(lab: Lab) -> Lab:
    """Return the lab with `kubernetes.source: auto` resolved to the source of its golden machine.

    If there is none, only `bake` asks whether upstream can be reached. So the result stays the same, with or
    without a network, as long as that golden machine is kept.
    """
    form, choices = _form(lab), _choices(lab)
    if len(choices) == 1:
        return choices[0]
    for each in choices:
        try:
            if form.exists(form.name(each)):
                return each
        except CommandTimedOut:
            break  # a provider that hangs would not answer the next question either
        except LabError:
            continue  # the provider can't be asked
    return choices[-1]


def with_key(lab: Lab, wanted: str) -> Lab | None:
    """Return the lab with the source whose golden machine has that key; None where no source has it."""
    return next((each for each in _choices(lab) if _form(lab).key(each) == wanted), None)


def _form(lab: Lab) -> GoldenForm:
    """The golden machine as the lab's provider takes it."""
    return provider_of(lab).golden


def _choices(lab: Lab) -> list[Lab]:
    """The lab with each source that `kubernetes.source` may come to."""
    possible = source.possible(release(lab.kubernetes.version), lab.kubernetes.source)
    return [_with_source(lab, each) for each in possible]


def _with_source(lab: Lab, chosen: source.Source) -> Lab:
    return lab.model_copy(update={"kubernetes": lab.kubernetes.model_copy(update={"source": chosen})})
