"""The images of the suite's tests: what each is made of, and one archive of all for the lab's machines.

Upstream builds them on Alpine, BusyBox, nginx and Debian images of registries. Here they are the module's own
programs and files on Debian's packages, under the names that the suite asks for.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.golden.supply import oci
from lab.golden.supply.images import short_name
from lab.system import process

PACKAGES = "packages-conformance.txt"
"""The list of Debian packages in the images, in provision/."""

ON_MACHINES = ("etcd", "pause")
"""Images that every machine of the lab has anyway, under the names that the suite asks for."""

LEFT_OUT = (
    "dev",
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "var/cache",
    "var/lib/apt",
)
"""Folders of the Debian root that no test needs: they would make up half of the image."""

NGINX = """\
events {}
http {
    access_log /dev/stdout;
    error_log /dev/stderr;
    server {
        listen 80;
        root /usr/share/nginx/html;
    }
}
"""
"""Debian's own configuration also listens on IPv6, which a host may not have."""


@dataclass(frozen=True)
class File:
    """A file of a layer: where its content is, and its mode."""

    source: Path | bytes
    mode: int = 0o644


@dataclass(frozen=True)
class Link:
    """A symbolic link of a layer."""

    to: str


Entry = File | Link | None
"""What lies at a path; None is an empty folder that anyone can write to."""


@dataclass(frozen=True)
class Recipe:
    """One image: its layers from the bottom, and how it starts, as in the module's Dockerfile for it."""

    layers: tuple[str, ...]
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: str = ""


AGNHOST = ("debian", "agnhost")
SERVES = ("test-webserver",)

RECIPES: Mapping[str, Recipe] = {
    "agnhost": Recipe(AGNHOST, ("/agnhost",), ("pause",)),
    "busybox": Recipe(("busybox",), (), ("sh",)),
    "glibc-dns-testing": Recipe(("debian",), (), ("bash",)),
    "jessie-dnsutils": Recipe(("debian",), (), ("bash",)),
    "kitten": Recipe((*AGNHOST, "kitten"), ("/agnhost",), SERVES),
    "nautilus": Recipe((*AGNHOST, "nautilus"), ("/agnhost",), SERVES),
    "nginx": Recipe(("debian", "nginx"), (), ("nginx", "-g", "daemon off;")),
    "nonewprivs": Recipe(("debian", "nonewprivs"), (), ("nnp",)),
    "nonroot": Recipe(("debian",), (), ("bash",), user="1234"),
    "sample-apiserver": Recipe(("sample-apiserver",), ("/sample-apiserver",)),
}
"""The images of the conformance tests, by the last part of their names."""


def made(names: Iterable[str]) -> tuple[str, ...]:
    """Those of the suite's images that are made here."""
    return tuple(sorted(name for name in names if short_name(name) in RECIPES and not _private(name)))


def on_machines(names: Iterable[str]) -> tuple[str, ...]:
    """Those of the suite's images that every machine has, maybe with another tag."""
    return tuple(sorted(name for name in names if short_name(name) in ON_MACHINES and not _private(name)))


def not_made(names: Iterable[str]) -> tuple[str, ...]:
    """Those that are neither made here nor on the machines: no conformance test uses them."""
    known = {*made(names), *on_machines(names)}
    return tuple(sorted(set(names) - known))


def write(archive: Path, names: Sequence[str], programs: Path, sources: Path, root: Path, folder: Path) -> None:
    """Write one archive of all images that are made here.

    `programs` is the folder of the built programs, `sources` test/images of the module, `root` the tar of the
    Debian root; layers are made in `folder`. Raises OSError, and CommandFailed where busybox can't be asked.
    """
    wanted = made(names)
    layers = {layer for name in wanted for layer in RECIPES[short_name(name)].layers}
    paths = {layer: folder / f"{layer}.layer.tar" for layer in layers}
    for layer, path in paths.items():
        LAYERS[layer](path, Parts(programs, sources, root))
    images = []
    for name in wanted:
        recipe = RECIPES[short_name(name)]
        own = [paths[layer] for layer in recipe.layers]
        # Two tags of one image must be two images: tests compare the name that the kubelet reports.
        labels = {"org.opencontainers.image.ref.name": name}
        images.append(oci.Image(name, own, recipe.entrypoint, recipe.command, recipe.user, labels))
    oci.write_images(archive, images)


@dataclass(frozen=True)
class Parts:
    """Where the parts of layers are: built programs, test/images of the module, the tar of the Debian root."""

    programs: Path
    sources: Path
    root: Path


def _debian(target: Path, parts: Parts) -> None:
    """The Debian root without what LEFT_OUT names."""
    with tarfile.open(parts.root) as source, tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as out:
        for member in source:
            path = member.name.removeprefix("./").strip("/")
            if path and not any(path == each or path.startswith(f"{each}/") for each in LEFT_OUT):
                out.addfile(member, source.extractfile(member) if member.isreg() else None)


def _agnhost(target: Path, parts: Parts) -> None:
    """What agnhost's Dockerfile adds, without CoreDNS and the fake registry, which no conformance test uses."""
    certificates = parts.sources / "agnhost" / "porter"
    _write_layer(
        target,
        {
            "agnhost": File(parts.programs / "agnhost", 0o755),
            "agnhost-2": Link("agnhost"),
            "localhost.crt": File(certificates / "localhost.crt"),
            "localhost.key": File(certificates / "localhost.key"),
            "uploads": None,
            "usr/local/bin/iperf": Link("/usr/bin/iperf"),
            "etc/passwd": File(
                _text_of(parts.root, "etc/passwd") + b"user-defined-in-image:x:1000:1000::/:/bin/sh\n"
            ),
            "etc/group": File(
                _text_of(parts.root, "etc/group")
                + b"user-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n"
            ),
        },
    )


def _busybox(target: Path, parts: Parts) -> None:
    """Debian's static busybox with a link for each of its programs but `sh`.

    The shell of Debian's busybox drops variables whose names are none of a shell, such as `data-1`; that of the
    suite's own image and bash pass them on.
    """
    program, shell = target.with_name("busybox"), target.with_name("sh")
    for file, name in ((program, "busybox"), (shell, "bash-static")):
        file.write_bytes(_text_of(parts.root, f"usr/bin/{name}"))
        file.chmod(0o755)
    applets = process.run([program, "--list"], timeout=60).stdout.split()
    links: dict[str, Entry] = {
        f"bin/{name}": Link("busybox") for name in applets if name not in ("busybox", "sh")
    }
    folders: dict[str, Entry] = {name: None for name in ("tmp", "root", "var/www", "home")}
    _write_layer(
        target,
        {
            **links,
            **folders,
            "bin/busybox": File(program, 0o755),
            "bin/sh": File(shell, 0o755),
            "usr/bin/env": Link("/bin/busybox"),
            "etc/passwd": File(
                b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n"
            ),
            "etc/group": File(b"root:x:0:\nnobody:x:65534:\n"),
        },
    )


def _html(name: str) -> Callable[[Path, Parts], None]:
    def write_layer(target: Path, parts: Parts) -> None:
        files = (parts.sources / name / "html").iterdir()
        _write_layer(target, {path.name: File(path) for path in files})

    return write_layer


def _nginx(target: Path, parts: Parts) -> None:
    page = (
        b"<html><head><title>Welcome to nginx!</title></head><body><h1>Welcome to nginx!</h1></body></html>\n"
    )
    _write_layer(
        target,
        {"etc/nginx/nginx.conf": File(NGINX.encode()), "usr/share/nginx/html/index.html": File(page)},
    )


def _nonewprivs(target: Path, parts: Parts) -> None:
    """The program with the setuid bit, which is what its test is about."""
    _write_layer(target, {"usr/local/bin/nnp": File(parts.programs / "nonewprivs", 0o6755)})


def _sample_apiserver(target: Path, parts: Parts) -> None:
    _write_layer(target, {"sample-apiserver": File(parts.programs / "sample-apiserver", 0o755), "tmp": None})


LAYERS: Mapping[str, Callable[[Path, Parts], None]] = {
    "agnhost": _agnhost,
    "busybox": _busybox,
    "debian": _debian,
    "kitten": _html("kitten"),
    "nautilus": _html("nautilus"),
    "nginx": _nginx,
    "nonewprivs": _nonewprivs,
    "sample-apiserver": _sample_apiserver,
}


def _private(name: str) -> bool:
    """Whether an image is one of a registry that wants a login, for a test of exactly that."""
    return name.startswith("gcr.io/k8s-authenticated-test/") or name.startswith("invalid.registry.")


def _text_of(root: Path, path: str) -> bytes:
    """The content of one file of the Debian root."""
    with tarfile.open(root) as source:
        content = source.extractfile(f"./{path}")
        assert content is not None, path
        return content.read()


def _write_layer(target: Path, entries: Mapping[str, Entry]) -> None:
    """Write a tar of entries with the folders they are in: no times, no owners, a fixed order."""
    folders = {str(parent) for path in entries for parent in Path(path).parents if str(parent) != "."}
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as out:
        for path in sorted(folders - set(entries)):
            _add_folder(out, path, 0o755)
        for path, entry in sorted(entries.items()):
            if entry is None:
                _add_folder(out, path, 0o1777)
            elif isinstance(entry, Link):
                member = tarfile.TarInfo(path)
                member.type, member.linkname, member.mode = tarfile.SYMTYPE, entry.to, 0o777
                out.addfile(member)
            else:
                _add_file(out, path, entry)


def _add_folder(out: tarfile.TarFile, path: str, mode: int) -> None:
    member = tarfile.TarInfo(path)
    member.type, member.mode = tarfile.DIRTYPE, mode
    out.addfile(member)


def _add_file(out: tarfile.TarFile, path: str, entry: File) -> None:
    member = tarfile.TarInfo(path)
    member.mode = entry.mode
    if isinstance(entry.source, bytes):
        member.size = len(entry.source)
        out.addfile(member, io.BytesIO(entry.source))
        return
    member.size = entry.source.stat().st_size
    with entry.source.open("rb") as content:
        out.addfile(member, content)
