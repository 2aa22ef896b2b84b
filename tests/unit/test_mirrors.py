from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lab.golden import debian
from lab.golden.supply.mirrors import Place, file_url, image_place, is_loopback
from lab.model import Mirrors

KUBELET = "https://dl.k8s.io/release/v1.36.3/bin/linux/amd64/kubelet"
ETCD = "registry.k8s.io/etcd:3.6.8-0"


def test_without_a_mirror_upstream_itself_is_asked() -> None:
    assert file_url(Mirrors(), KUBELET) == KUBELET
    assert image_place(Mirrors(), ETCD) == Place("registry.k8s.io/etcd", tls=True)
    assert debian._sources(Mirrors()) == []


def test_a_mirror_of_files_stands_for_their_host() -> None:
    mirror = Mirrors(files={"dl.k8s.io": "http://mirror.example/k8s"})
    assert file_url(mirror, KUBELET) == "http://mirror.example/k8s/release/v1.36.3/bin/linux/amd64/kubelet"
    assert file_url(mirror, "https://github.com/a/b.tgz") == "https://github.com/a/b.tgz"


@pytest.mark.parametrize(
    ("instead", "place"),
    [
        ("mirror.example", Place("mirror.example/etcd", tls=True)),
        ("mirror.example:5000/k8s/", Place("mirror.example:5000/k8s/etcd", tls=True)),
        ("http://127.0.0.1:5000/a/b", Place("127.0.0.1:5000/a/b/etcd", tls=False)),
    ],
)
def test_a_mirror_of_images_stands_for_their_registry(instead: str, place: Place) -> None:
    mirrors = Mirrors(images={"registry.k8s.io": instead})
    assert image_place(mirrors, ETCD) == place
    assert image_place(mirrors, "ghcr.io/flannel-io/flannel:v1") == Place(
        "ghcr.io/flannel-io/flannel", tls=True
    )


ARCHIVE, SECURITY = "https://mirror.example/debian", "http://mirror.example:8080/security"
OWN = (
    "deb http://archive.test/debian trixie main\n"
    "deb [ arch=amd64 ] http://archive.test/debian trixie-updates main\n"
    "deb http://archive.test/debian-security trixie-security main\n"
)
"""What mmdebstrap writes by itself, but for the host."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mirrors", "written"),
    [
        (Mirrors(), OWN),
        (Mirrors(debian=ARCHIVE), OWN.replace("http://archive.test/debian ", f"{ARCHIVE} ")),
        (Mirrors(debian_security=SECURITY), OWN.replace("http://archive.test/debian-security", SECURITY)),
        (
            Mirrors(debian=ARCHIVE, debian_security=SECURITY),
            OWN.replace("http://archive.test/debian-security", SECURITY).replace(
                "http://archive.test/debian ", f"{ARCHIVE} "
            ),
        ),
    ],
)
def test_a_mirror_of_debian_s_stands_in_what_mmdebstrap_has_written(
    tmp_path: Path, mirrors: Mirrors, written: str
) -> None:
    sources = tmp_path / "etc" / "apt" / "sources.list"
    sources.parent.mkdir(parents=True)
    sources.write_text(OWN)
    for hook in debian._sources(mirrors):
        command = hook.removeprefix("--setup-hook=")
        # As mmdebstrap calls a hook.
        subprocess.run(["sh", "-c", command, "exec", str(tmp_path)], check=True)
    assert sources.read_text() == written


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("localhost:5000", True),
        ("127.0.0.1", True),
        ("127.8.8.8:1", True),
        ("[::1]:5000", True),
        ("localhost.example", False),
        ("10.0.0.1:5000", False),
        ("mirror.example", False),
    ],
)
def test_loopback_is_this_machine(host: str, own: bool) -> None:
    assert is_loopback(host) is own
