"""Downloads by hash: continued where they broke off, refused where a host gives something else, or nothing."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lab.errors import LabError
from lab.golden.supply import registry, web
from lab.golden.supply.hosts import Refused
from lab.golden.supply.web import Web
from lab.model import Mirrors
from lab.system import environment, process
from tests.supply.standins import Asked, Fault, Kind, Site, served, sha256

CONTENT = bytes(range(256)) * 4096
NAME = "/release/kubelet"
WHAT = "kubelet 1.36.3"
PASSWORD = "pa55word"  # noqa: S105  the tests' own


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    made.put(NAME, CONTENT)
    with served(made) as running:
        yield running


@pytest.fixture
def door(tmp_path: Path) -> Web:
    return Web(tmp_path / "blobs", tmp_path / "log")


def partial_of(door: Web) -> Path:
    return door.folder / f".{sha256(CONTENT)}.partial"


def get(door: Web, site: Site) -> Path:
    return door.download(f"{site.url}{NAME}", sha256(CONTENT), WHAT)


def refused(door: Web, site: Site, words: str) -> Refused:
    """What `get` raises: it says these words and what to do, and has left no file that anybody would take."""
    with pytest.raises(Refused, match=rf"^{WHAT} can't be had from {site.host}.*: {words}") as caught:
        get(door, site)
    assert caught.value.hint
    assert caught.value.log == door.log
    assert not door.path(sha256(CONTENT)).exists()
    return caught.value


def test_a_file_is_named_by_its_hash_and_not_asked_for_again(door: Web, site: Site) -> None:
    assert get(door, site).read_bytes() == CONTENT
    assert get(door, site) == door.path(sha256(CONTENT))
    assert len(site.asked) == 1
    assert [path.name for path in door.folder.iterdir()] == [sha256(CONTENT)]


def test_what_two_ask_for_at_once_is_downloaded_once(door: Web, site: Site) -> None:
    site.delay = 0.3
    with ThreadPoolExecutor(max_workers=4) as pool:
        assert len({each.result() for each in [pool.submit(get, door, site) for _ in range(4)]}) == 1
    assert len(site.asked) == 1


def test_what_an_earlier_run_left_is_continued(door: Web, site: Site) -> None:
    partial_of(door).parent.mkdir()
    partial_of(door).write_bytes(CONTENT[:100_000])
    assert get(door, site).read_bytes() == CONTENT
    assert [each.range for each in site.asked] == ["bytes=100000-"]


def test_a_complete_file_that_an_earlier_run_left_is_taken(door: Web, site: Site) -> None:
    partial_of(door).parent.mkdir()
    partial_of(door).write_bytes(CONTENT)
    assert get(door, site).read_bytes() == CONTENT


def test_a_damaged_file_that_an_earlier_run_left_is_downloaded_again(door: Web, site: Site) -> None:
    partial_of(door).parent.mkdir()
    partial_of(door).write_bytes(b"x" * 100_000)
    assert get(door, site).read_bytes() == CONTENT
    assert [each.range for each in site.asked] == ["bytes=100000-", ""]


def test_a_broken_connection_is_continued_where_it_broke(door: Web, site: Site) -> None:
    site.faults = [Fault("cut", times=2)]
    assert get(door, site).read_bytes() == CONTENT
    half = len(CONTENT) // 2
    assert [each.range for each in site.asked] == ["", f"bytes={half}-", f"bytes={half + half // 2}-"]


def test_a_host_that_falls_silent_in_the_middle_is_asked_for_the_rest(door: Web, site: Site) -> None:
    site.faults = [Fault("silent in body", times=1)]
    assert get(door, site).read_bytes() == CONTENT
    assert [each.range for each in site.asked] == ["", f"bytes={len(CONTENT) // 2}-"]


def test_a_host_without_ranges_sends_all_of_it_again(door: Web, site: Site) -> None:
    site.faults = [Fault("cut", times=1), Fault("no ranges")]
    assert get(door, site).read_bytes() == CONTENT
    assert [each.range for each in site.asked] == ["", f"bytes={len(CONTENT) // 2}-", ""]


def test_a_connection_that_always_breaks_is_given_up(
    door: Web, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "TRIES", 3)
    site.faults = [Fault("cut")]
    refused(door, site, "it ends the connection in the middle")
    assert len(site.asked) == 3
    assert partial_of(door).stat().st_size == len(CONTENT) * 7 // 8  # for the next try


def test_other_bytes_are_refused_and_not_kept(door: Web, site: Site) -> None:
    site.faults = [Fault("other")]
    error = refused(door, site, "what it has differs from the pinned hash")
    assert "do not use it" in error.hint
    assert list(door.folder.iterdir()) == []


def test_a_web_page_with_200_is_called_one(door: Web, site: Site) -> None:
    site.faults = [Fault("page")]
    refused(door, site, "it answers with a web page, as the login page of a network does")
    assert list(door.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "it wants a login"),
        (403, r"it refuses \(403\)"),
        (404, r"it has nothing at that place \(404\)"),
        (429, "it refuses, for too many requests"),
        (503, r"it has an error of its own \(5xx\)"),
    ],
)
def test_a_host_that_does_not_give_it_is_named(door: Web, site: Site, status: int, words: str) -> None:
    site.faults = [Fault("status", status=status)]
    refused(door, site, words)
    assert len(site.asked) == (2 if status == 503 else 1)


@pytest.mark.parametrize("kind", ["silent", "silent in headers"])
def test_a_host_that_says_nothing_is_given_up_soon_and_not_asked_again(
    door: Web, site: Site, kind: Kind
) -> None:
    site.faults = [Fault(kind)]
    started = time.monotonic()
    refused(door, site, "it does not answer")
    assert time.monotonic() - started < 8
    refused(door, site, "it does not answer")
    assert len(site.asked) == 1


def test_a_host_that_ends_the_connection_gets_one_more_try(door: Web, site: Site) -> None:
    site.faults = [Fault("closed")]
    refused(door, site, "it ends the connection without an answer")
    assert len(site.asked) == 2


def test_a_host_where_nothing_listens_is_named(door: Web) -> None:
    nowhere = Site(url="http://127.0.0.1:1")
    assert "proxy" in refused(door, nowhere, r"it can't be reached \(connection refused\)").hint


def test_a_host_without_an_address_is_named(door: Web) -> None:
    refused(door, Site(url="http://nowhere.invalid"), "its name can't be resolved")


def test_a_redirect_is_followed_and_both_hosts_are_named(door: Web, site: Site) -> None:
    site.put("/elsewhere", CONTENT)
    site.faults = [Fault("redirect", at=NAME, to=f"{site.url}/elsewhere")]
    assert get(door, site).read_bytes() == CONTENT


def test_redirects_without_end_are_given_up(door: Web, site: Site) -> None:
    site.faults = [Fault("redirect", to=f"{site.url}{NAME}")]
    refused(door, site, "it redirects without end")


def test_a_full_disk_is_no_fault_of_the_host(door: Web, site: Site) -> None:
    partial_of(door).parent.mkdir()
    partial_of(door).symlink_to("/dev/full")
    with pytest.raises(LabError, match="probably for lack of space") as caught:
        get(door, site)
    assert not isinstance(caught.value, Refused)
    assert "free some disk space" in caught.value.hint


def test_an_interrupted_run_asks_nobody(door: Web, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_stopped", type("Set", (), {"is_set": staticmethod(lambda: True)}))
    with pytest.raises(LabError, match="interrupted") as caught:
        get(door, site)
    assert not isinstance(caught.value, Refused)
    assert site.asked == []


# TLS, as with the authority of a company.


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The certificate of an authority, that of `localhost`, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("a company", "localhost")]
    now = datetime.now(UTC)
    for index, file in enumerate(("ca.crt", "server.crt")):
        made = x509.CertificateBuilder().subject_name(names[index]).issuer_name(names[0])
        made = made.public_key(keys[index].public_key()).serial_number(index + 1)
        made = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        made = made.add_extension(x509.BasicConstraints(ca=index == 0, path_length=None), critical=True)
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        signed = made.sign(keys[0], hashes.SHA256())
        (folder / file).write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    text = keys[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.key").write_bytes(text)
    return folder / "ca.crt", folder / "server.crt", folder / "server.key"


@pytest.fixture
def secure(authority: tuple[Path, Path, Path]) -> Iterator[Site]:
    made = Site()
    made.put(NAME, CONTENT)
    with served(made, authority[1:]) as running:
        yield running


@pytest.fixture(autouse=True)
def no_authorities_of_this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in environment.AUTHORITIES:
        monkeypatch.delenv(name, raising=False)


def test_an_unknown_authority_is_not_trusted(door: Web, secure: Site) -> None:
    error = refused(door, secure, "its certificate is not trusted here")
    assert "CA bundle" in error.hint
    assert secure.asked == []


def test_the_authority_of_a_company_is_trusted_where_the_system_says_so(
    door: Web, secure: Site, authority: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority[0]))
    assert get(door, secure).read_bytes() == CONTENT


def test_a_redirect_to_http_is_refused(
    door: Web, secure: Site, site: Site, authority: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority[0]))
    secure.faults = [Fault("redirect", to=f"{site.url}{NAME}")]
    error = refused(door, secure, "it redirects to http")
    assert "do not use it" in error.hint
    assert site.asked == []


def test_a_host_that_does_not_speak_tls_is_named(door: Web, site: Site) -> None:
    refused(door, Site(url=site.url.replace("http:", "https:")), "it does not answer in TLS")


@pytest.fixture
def mute() -> Iterator[Site]:
    """A host that takes the connection, and then says nothing, not even in TLS."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        yield Site(url=f"https://127.0.0.1:{door.getsockname()[1]}")


def test_a_host_that_hangs_in_the_handshake_of_tls_is_given_up_soon(door: Web, mute: Site) -> None:
    started = time.monotonic()
    refused(door, mute, "it does not answer")
    assert time.monotonic() - started < 5


# Logins, proxies and registries.


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_login_comes_from_netrc_and_is_nowhere_else(door: Web, site: Site, home: Path) -> None:
    (home / ".netrc").write_text(f"machine 127.0.0.1 login ada password {PASSWORD}\n")
    get(door, site)
    assert site.asked == [Asked(NAME, "", f"ada:{PASSWORD}")]
    assert PASSWORD not in door.log.read_text()


def test_a_curlrc_of_the_user_changes_nothing(door: Web, site: Site, home: Path) -> None:
    (home / ".curlrc").write_text("fail-early\nurl = http://127.0.0.1:1/\noutput = /dev/null\n")
    assert get(door, site).read_bytes() == CONTENT


def test_a_proxy_is_used_and_its_password_is_in_no_log(
    door: Web, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", site.url.replace("://", f"://ada:{PASSWORD}@"))  # in capitals only
    door.download(f"http://dl.invalid{NAME}", sha256(CONTENT), WHAT)
    assert site.asked == [Asked(f"http://dl.invalid{NAME}", "", f"ada:{PASSWORD}")]
    assert PASSWORD not in door.log.read_text()


def test_a_proxy_that_wants_a_login_is_named(door: Web, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", site.url)
    site.faults = [Fault("status", status=407)]
    far = Site(url="http://dl.invalid")
    assert "http_proxy" in refused(door, far, "the proxy wants a login").hint


IMAGE = "registry.k8s.io/pause:3.10.2"


@pytest.fixture
def image(site: Site) -> str:
    return f"sha256:{site.put_image(IMAGE, {'/pause': b'pause'})}"


@pytest.fixture
def mirrors(site: Site) -> Mirrors:
    return Mirrors(images={"registry.k8s.io": f"{site.url}/registry.k8s.io"})


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_of_a_list_of_images_this_hosts_own_is_taken(
    door: Web, site: Site, image: str, mirrors: Mirrors, monkeypatch: pytest.MonkeyPatch, arch: str
) -> None:
    monkeypatch.setattr(registry, "architecture", lambda: arch)
    manifest = registry.fetch(door, IMAGE, image, mirrors)
    assert site.contents[f"/v2/registry.k8s.io/pause/manifests/sha256:{manifest}"]
    assert len(list(door.folder.iterdir())) == 5  # the list, a manifest, a configuration and two layers
    assert len(site.asked) == 5


def test_a_list_without_this_hosts_architecture_is_named(
    door: Web, image: str, mirrors: Mirrors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "architecture", lambda: "riscv64")
    with pytest.raises(Refused, match=r"none for this host's kind of processor"):
        registry.fetch(door, IMAGE, image, mirrors)


def test_an_image_without_a_list_is_taken_as_it_is(door: Web, site: Site, image: str, mirrors: Mirrors) -> None:
    manifest = registry.fetch(door, IMAGE, image, mirrors)
    assert registry.fetch(door, IMAGE, f"sha256:{manifest}", mirrors) == manifest


def test_an_image_of_another_digest_is_refused(door: Web, site: Site, image: str, mirrors: Mirrors) -> None:
    site.faults = [Fault("other", at="/manifests/")]
    with pytest.raises(Refused, match=r"the image registry\.k8s\.io/pause.*differs from the pinned hash"):
        registry.fetch(door, IMAGE, image, mirrors)
    site.faults = [Fault("other", at="/blobs/")]
    with pytest.raises(Refused, match=r"differs from the pinned hash"):
        registry.fetch(door, IMAGE, image, mirrors)


def test_an_image_that_is_not_there_is_named(door: Web, mirrors: Mirrors) -> None:
    with pytest.raises(Refused, match=r"the image registry\.k8s\.io/pause:3\.10\.2 .*nothing at that place"):
        registry.fetch(door, IMAGE, f"sha256:{'0' * 64}", mirrors)


def test_a_registry_that_wants_a_token_gets_it(door: Web, site: Site, image: str, mirrors: Mirrors) -> None:
    site.token = "t0ken"  # noqa: S105
    registry.fetch(door, IMAGE, image, mirrors)
    assert [each.path for each in site.asked][:3] == [
        f"/v2/registry.k8s.io/pause/manifests/{image}",
        "/token?service=stand-in&scope=repository%3Aa%3Apull",
        f"/v2/registry.k8s.io/pause/manifests/{image}",
    ]
    assert len(site.paths("/token")) == 1  # for all files of the repository
    assert site.token not in door.log.read_text()


def test_a_token_goes_to_no_other_host(door: Web, site: Site, image: str, mirrors: Mirrors) -> None:
    store = Site()
    with served(store):
        site.token = "t0ken"  # noqa: S105
        for path in [path for path in site.contents if "/blobs/" in path]:
            store.put("/store" + path, site.contents[path])
            site.faults.append(Fault("redirect", at=path, to=f"{store.url}/store{path}"))
        registry.fetch(door, IMAGE, image, mirrors)
        assert {each.authorization for each in store.asked} == {""}
        assert len(store.asked) == 3


def test_a_registry_that_demands_a_login_for_its_token_gets_that_of_netrc(
    door: Web, site: Site, image: str, mirrors: Mirrors, home: Path
) -> None:
    site.token, site.login = "t0ken", f"ada:{PASSWORD}"
    with pytest.raises(Refused, match="it wants a login") as caught:
        registry.fetch(door, IMAGE, image, mirrors)
    assert "~/.netrc" in caught.value.hint
    (home / ".netrc").write_text(f"machine 127.0.0.1 login ada password {PASSWORD}\n")
    registry.fetch(door, IMAGE, image, mirrors)


def test_a_registry_that_asks_for_a_login_itself_gets_it(
    door: Web, site: Site, image: str, mirrors: Mirrors
) -> None:
    site.token = 'no"token\n'  # noqa: S105  nothing that could be put into a header
    with pytest.raises(Refused, match="it wants a login"):
        registry.fetch(door, IMAGE, image, mirrors)


# Whether a host can be used at all.


def test_a_host_that_answers_is_asked_for_one_byte(door: Web, site: Site) -> None:
    door.require(f"{site.url}{NAME}", WHAT, 3)
    assert [each.range for each in site.asked] == ["bytes=0-0"]


def test_a_host_without_ranges_answers_too(door: Web, site: Site) -> None:
    site.put(NAME, CONTENT * 2)
    site.faults = [Fault("no ranges")]
    door.require(f"{site.url}{NAME}", WHAT, 3)


FAULTS = [
    (Fault("page"), "web page"),
    (Fault("status", status=404), r"\(404\)"),
    (Fault("silent"), "it does not answer"),
    (Fault("silent in headers"), "it does not answer"),
]


@pytest.mark.parametrize(("fault", "words"), FAULTS)
def test_a_host_that_gives_no_byte_in_time_is_named(door: Web, site: Site, fault: Fault, words: str) -> None:
    site.faults = [fault]
    started = time.monotonic()
    with pytest.raises(Refused, match=rf"^{WHAT} can't be had from {site.host}: .*{words}"):
        door.require(f"{site.url}{NAME}", WHAT, 1)
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(("fault", "words"), [(Fault("other"), "differs from the pinned hash"), *FAULTS[1:]])
def test_a_registry_that_does_not_give_a_pinned_image_in_time_is_named(
    door: Web, site: Site, image: str, mirrors: Mirrors, fault: Fault, words: str
) -> None:
    registry.require_pinned(door, IMAGE, image, mirrors, 3)
    site.faults = [Fault(fault.kind, status=fault.status)]
    with pytest.raises(Refused, match=words):
        registry.require_pinned(door, IMAGE, image, mirrors, 1)
