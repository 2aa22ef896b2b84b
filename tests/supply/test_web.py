"""Downloads by hash: continued where they broke off, refused where a host gives something else, or nothing."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

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
from tests.supply.standins import DOCKER, Asked, Fault, Kind, Site, served, sha256

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
    with pytest.raises(Refused, match=rf"^{WHAT} can't be downloaded from {site.host}.*: {words}") as caught:
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


def test_a_host_without_ranges_that_always_breaks_off_is_given_up(door: Web, site: Site) -> None:
    site.faults = [Fault("cut without ranges")]
    refused(door, site, "it closed the connection before the end")
    assert [each.range for each in site.asked] == ["", f"bytes={len(CONTENT) // 2}-"] * 2


def test_an_answer_without_content_is_not_the_file(door: Web, site: Site) -> None:
    site.faults = [Fault("status", status=304)]
    refused(door, site, "its file does not match the pinned hash")


def test_a_connection_that_always_breaks_is_given_up(
    door: Web, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "PAUSES", (0.1, 0.1))
    site.faults = [Fault("cut")]
    refused(door, site, "it closed the connection before the end")
    assert len(site.asked) == 3
    assert partial_of(door).stat().st_size == len(CONTENT) * 7 // 8  # for the next try


def test_tries_are_spaced(door: Web, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "PAUSES", (0.4, 0.8))
    site.faults = [Fault("cut", times=2)]
    started = time.monotonic()
    get(door, site)
    assert 1.2 < time.monotonic() - started < 3
    assert len(site.asked) == 3


def test_a_killed_runs_curl_writes_into_nothing(door: Web, site: Site) -> None:
    partial_of(door).parent.mkdir()
    with partial_of(door).open("ab") as still_open:
        still_open.write(CONTENT[:100_000])
        still_open.flush()
        file = get(door, site)
        still_open.write(b"more")
        still_open.flush()
    assert file.read_bytes() == CONTENT
    assert [each.range for each in site.asked] == ["bytes=100000-"]


def test_a_file_that_was_damaged_since_an_earlier_run_is_downloaded_again(door: Web, site: Site) -> None:
    get(door, site)
    with door.path(sha256(CONTENT)).open("ab") as file:
        file.write(b"more")
    assert get(Web(door.folder, door.log), site).read_bytes() == CONTENT
    assert len(site.asked) == 2


def test_a_host_that_sends_without_end_is_cut_off(
    door: Web, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "LARGEST", 1 << 20)
    monkeypatch.setattr(web, "SMALL", 1 << 20)
    site.faults = [Fault("endless")]
    refused(door, site, "it sends more than expected")
    assert partial_of(door).stat().st_size <= 1 << 20
    with pytest.raises(Refused, match="it sends more than expected"):
        door.read(f"{site.url}{NAME}", WHAT)
    door.require_answer(f"{site.url}{NAME}", WHAT, 3)
    assert sorted(path.name for path in door.folder.iterdir()) == [partial_of(door).name]


def test_a_host_that_is_slow_without_end_is_given_up(
    door: Web, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "LONGEST", 1.5)
    site.faults = [Fault("slow")]
    started = time.monotonic()
    refused(door, site, "it does not answer")
    assert time.monotonic() - started < 6, "one deadline for all tries"


def test_a_wait_for_the_next_try_ends_with_the_run(
    door: Web, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "PAUSES", (60.0, 60.0))
    site.faults = [Fault("cut")]
    with ThreadPoolExecutor(max_workers=1) as pool:
        got = pool.submit(get, door, site)
        while not site.asked:
            time.sleep(0.05)
        door.end()
        with pytest.raises(Refused):
            got.result(timeout=10)
    assert len(site.asked) == 1


def test_questions_at_once_do_not_share_a_file(door: Web, site: Site) -> None:
    site.put("/small", b"content")
    site.delay = 0.1
    with ThreadPoolExecutor(max_workers=4) as pool:
        asked = [pool.submit(door.read, f"{site.url}/small", WHAT) for _ in range(8)]
        assert [each.result() for each in asked] == [b"content"] * 8
    assert list(door.folder.iterdir()) == []


def test_other_bytes_are_refused_and_not_kept(door: Web, site: Site) -> None:
    site.faults = [Fault("other")]
    error = refused(door, site, "its file does not match the pinned hash")
    assert "do not use it" in error.hint
    assert list(door.folder.iterdir()) == []


def test_a_web_page_with_200_is_called_one(door: Web, site: Site) -> None:
    site.faults = [Fault("page")]
    refused(door, site, "it answers with a web page, probably a network's login page")
    assert list(door.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "it requires a login"),
        (403, r"it denies access \(403\)"),
        (404, r"it does not have it \(404\)"),
        (429, "it received too many requests"),
        (503, r"it reports a server error \(5xx\)"),
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
    refused(door, site, "it closed the connection without an answer")
    assert len(site.asked) == 2


def test_a_host_where_nothing_listens_is_named(door: Web) -> None:
    nowhere = Site(url="http://127.0.0.1:1")
    assert "proxy" in refused(door, nowhere, r"it can't be reached \(connection refused\)").hint


def test_a_host_without_an_address_is_named(door: Web) -> None:
    refused(door, Site(url="http://nowhere.invalid"), "its name can't be resolved")


def test_a_redirect_to_where_nobody_listens_names_both_hosts_and_no_login(door: Web, site: Site) -> None:
    site.put("/other", CONTENT + b"x")
    site.faults = [Fault("redirect", at=NAME, to=f"https://ada:{PASSWORD}@localhost:1{NAME}?sig={PASSWORD}")]
    error = refused(door, site, "it can't be reached")
    assert f"from {site.host} (localhost:1): " in error.message
    assert PASSWORD not in error.message + door.log.read_text()
    # The host that was asked has the rest.
    door.download(f"{site.url}/other", sha256(CONTENT + b"x"), WHAT)


def test_where_a_file_is_asked_for_is_in_no_arguments(
    door: Web, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = process.run
    words: list[str] = []

    def run(argv: Sequence[str | Path], **named: Any) -> process.Result:
        words.extend(map(str, argv))
        return ask(argv, **named)

    monkeypatch.setattr(process, "run", run)
    get(door, site)
    assert "curl" in words
    assert not any(site.host in word for word in words)


def test_what_is_no_url_is_asked_of_nobody(door: Web) -> None:
    url = 'http://127.0.0.1:1/"\noutput = "/etc/passwd'
    with pytest.raises(Refused, match="no URL"):
        door.download(url, sha256(CONTENT), WHAT)


def test_a_full_disk_is_no_fault_of_the_host(door: Web, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_adopt", lambda partial: False)
    partial_of(door).parent.mkdir()
    partial_of(door).symlink_to("/dev/full")
    with pytest.raises(LabError, match="probably because the disk is full") as caught:
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
    error = refused(door, secure, "its certificate is not trusted")
    assert "CA bundle" in error.hint
    assert secure.asked == []


def test_the_authority_of_a_company_is_trusted_where_the_system_says_so(
    door: Web, secure: Site, authority: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority[0]))
    assert get(door, secure).read_bytes() == CONTENT


@pytest.fixture
def trusted(secure: Site, authority: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> Site:
    """A host with TLS that is trusted here."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority[0]))
    return secure


def test_a_redirect_to_https_is_followed(door: Web, site: Site, trusted: Site) -> None:
    trusted.put("/elsewhere", CONTENT)
    site.faults = [Fault("redirect", at=NAME, to=f"{trusted.url}/elsewhere")]
    assert get(door, site).read_bytes() == CONTENT


def test_a_file_that_differs_after_a_redirect_names_both_hosts(door: Web, site: Site, trusted: Site) -> None:
    trusted.put("/elsewhere", b"other")
    site.faults = [Fault("redirect", at=NAME, to=f"{trusted.url}/elsewhere")]
    assert f"from {site.host} ({trusted.host}): its file" in refused(door, site, "its file").message


def test_redirects_without_end_are_given_up(door: Web, trusted: Site) -> None:
    trusted.faults = [Fault("redirect", to=f"{trusted.url}{NAME}")]
    refused(door, trusted, "it redirects too often")


def test_a_redirect_from_http_to_http_is_refused(door: Web, site: Site) -> None:
    site.faults = [Fault("redirect", to=f"{site.url}/elsewhere")]
    refused(door, site, "it redirects to http")
    assert len(site.asked) == 1


def test_a_redirect_to_http_is_refused(
    door: Web, secure: Site, site: Site, authority: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority[0]))
    secure.faults = [Fault("redirect", to=f"{site.url}{NAME}")]
    error = refused(door, secure, "it redirects to http")
    assert "do not use it" in error.hint
    assert site.asked == []


def test_a_host_that_does_not_speak_tls_is_named(door: Web, site: Site) -> None:
    refused(door, Site(url=site.url.replace("http:", "https:")), "the TLS connection failed")


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
    assert "http_proxy" in refused(door, far, "the proxy requires a login").hint


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
    with pytest.raises(Refused, match=r"it has no image for this host's architecture"):
        registry.fetch(door, IMAGE, image, mirrors)


def test_an_image_without_a_list_is_taken_as_it_is(door: Web, site: Site, image: str, mirrors: Mirrors) -> None:
    manifest = registry.fetch(door, IMAGE, image, mirrors)
    assert registry.fetch(door, IMAGE, f"sha256:{manifest}", mirrors) == manifest


def test_an_image_of_another_digest_is_refused(door: Web, site: Site, image: str, mirrors: Mirrors) -> None:
    site.faults = [Fault("other", at="/manifests/")]
    with pytest.raises(Refused, match=r"the image registry\.k8s\.io/pause.*does not match the pinned hash"):
        registry.fetch(door, IMAGE, image, mirrors)
    site.faults = [Fault("other", at="/blobs/")]
    with pytest.raises(Refused, match=r"does not match the pinned hash"):
        registry.fetch(door, IMAGE, image, mirrors)


def test_an_image_that_is_not_there_is_named(door: Web, mirrors: Mirrors) -> None:
    with pytest.raises(Refused, match=r"the image registry\.k8s\.io/pause:3\.10\.2 .*does not have it"):
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


def test_a_token_goes_to_no_other_host(
    door: Web, site: Site, image: str, mirrors: Mirrors, trusted: Site
) -> None:
    site.token = "t0ken"  # noqa: S105
    for path in [path for path in site.contents if "/blobs/" in path]:
        trusted.put("/store" + path, site.contents[path])
        site.faults.append(Fault("redirect", at=path, to=f"{trusted.url}/store{path}"))
    registry.fetch(door, IMAGE, image, mirrors)
    assert {each.authorization for each in trusted.asked} == {""}
    assert len(trusted.asked) == 3


def test_the_token_of_a_host_that_was_redirected_to_stays_there(
    door: Web, site: Site, image: str, mirrors: Mirrors, trusted: Site
) -> None:
    trusted.token = "t0ken"  # noqa: S105
    for path, content in site.contents.items():
        trusted.put(path, content, site.kinds[path])
    site.faults = [
        Fault("redirect", at=path, to=f"{trusted.url}{path}") for path in site.contents if "/blobs/" in path
    ]
    registry.fetch(door, IMAGE, image, mirrors)
    assert {each.authorization for each in site.asked} == {""}
    assert f"Bearer {trusted.token}" in {each.authorization for each in trusted.asked}


@pytest.mark.parametrize(
    "realm",
    [
        "http://[::1",
        "-V",
        "file:///etc/passwd",
        "http://localhost:{port}/t",  # another host, without TLS: it would be given a login of ~/.netrc
        "http://127.0.0.1:{port}/t/[1-40]/x",  # curl's globbing
        "http://127.0.0.1:{port}/deep",
        "",
    ],
)
def test_a_challenge_leads_nowhere_but_to_a_token(
    door: Web, site: Site, image: str, mirrors: Mirrors, home: Path, realm: str
) -> None:
    (home / ".netrc").write_text(f"machine localhost login ada password {PASSWORD}\n")
    site.token = "t0ken"  # noqa: S105
    site.put("/deep", b"[" * 200_000)
    site.challenge = f'Bearer realm="{realm.format(port=site.url.rpartition(":")[2])}"'
    with pytest.raises(Refused, match="it requires a login"):
        registry.fetch(door, IMAGE, image, mirrors)
    assert len(site.asked) <= 2
    assert {each.authorization for each in site.asked} == {""}


def test_a_realm_may_have_a_query(door: Web, site: Site, image: str, mirrors: Mirrors) -> None:
    site.token = "t0ken"  # noqa: S105
    site.challenge = f'Bearer realm="{site.url}/token?a=b",service="s"'
    registry.fetch(door, IMAGE, image, mirrors)
    assert site.paths("/token") == ["/token?a=b&service=s"]


def test_a_registry_that_demands_a_login_for_its_token_gets_that_of_netrc(
    door: Web, site: Site, image: str, mirrors: Mirrors, home: Path
) -> None:
    site.token, site.login = "t0ken", f"ada:{PASSWORD}"
    with pytest.raises(Refused, match="it requires a login") as caught:
        registry.fetch(door, IMAGE, image, mirrors)
    assert "~/.netrc" in caught.value.hint
    (home / ".netrc").write_text(f"machine 127.0.0.1 login ada password {PASSWORD}\n")
    registry.fetch(door, IMAGE, image, mirrors)


def test_what_is_no_token_is_put_into_no_header(door: Web, site: Site, image: str, mirrors: Mirrors) -> None:
    site.token = 'no"token\n'  # noqa: S105
    with pytest.raises(Refused, match="it requires a login"):
        registry.fetch(door, IMAGE, image, mirrors)


# Whether a host can be used at all.


def test_a_host_that_answers_is_asked_for_one_byte(door: Web, site: Site) -> None:
    door.require_answer(f"{site.url}{NAME}", WHAT, 3)
    assert [each.range for each in site.asked] == ["bytes=0-0"]
    assert list(door.folder.iterdir()) == []


@pytest.mark.parametrize(
    "fault",
    [
        *(Fault("status", status=status) for status in (401, 403, 404, 429)),
        Fault("other"),
        Fault("no ranges"),
    ],
)
def test_a_host_answers_whatever_it_says_of_a_file(
    door: Web, site: Site, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "SMALL", len(CONTENT) // 2)
    site.faults = [fault]
    door.require_answer(f"{site.url}{NAME}", WHAT, 3)
    assert len(site.asked) == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault("page"), "web page"),
        (Fault("status", status=407), "the proxy requires a login"),
        (Fault("status", status=503), r"\(5xx\)"),
        (Fault("closed"), "it closed the connection without an answer"),
        (Fault("redirect", to="https://localhost:1/"), "it can't be reached"),
        (Fault("redirect", to="http://127.0.0.1:1/"), "it redirects to http"),
        (Fault("silent"), "it does not answer"),
        (Fault("silent in headers"), "it does not answer"),
        (Fault("silent in body"), "it does not answer"),
    ],
)
def test_a_host_that_does_not_answer_in_time_is_named(door: Web, site: Site, fault: Fault, words: str) -> None:
    site.faults = [fault]
    started = time.monotonic()
    with pytest.raises(Refused, match=rf"^{WHAT} can't be downloaded from {site.host}.*: .*{words}"):
        door.require_answer(f"{site.url}{NAME}", WHAT, 1)
    assert time.monotonic() - started < 3


def test_a_registry_that_wants_a_token_answers_without_one(door: Web, site: Site) -> None:
    site.token, site.login = "secret", "ada:nothing"
    site.faults = [Fault("silent", at="/token")]
    started = time.monotonic()
    door.require_answer(f"{site.url}/v2/pause/manifests/1", WHAT, 1)
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (403, r"the proxy denies access to it \(403\)"),
        (407, "the proxy requires a login"),
        (401, "the proxy can't connect to it"),
        (200, "the TLS connection failed"),
    ],
)
def test_what_a_proxy_says_is_no_answer_of_the_host(
    door: Web, site: Site, monkeypatch: pytest.MonkeyPatch, status: int, words: str
) -> None:
    monkeypatch.setenv("https_proxy", site.url)
    site.faults = [Fault("status", status=status)] if status != 200 else []
    for ask in (
        lambda: door.require_answer("https://dl.invalid/kubelet", WHAT, 3),
        lambda: door.download("https://dl.invalid/kubelet", sha256(CONTENT), WHAT),
    ):
        with pytest.raises(Refused, match=words):
            ask()
    assert {each.path for each in site.asked} == {"dl.invalid:443"}, "no token is asked for"


# What a tag is now.


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (b"<html>", "text/html", "web page"),
        (b"{}", DOCKER, "no list of an image"),
        (b"[" * 99999, DOCKER, "no list of an image"),
    ],
)
def test_a_tag_is_what_a_list_says_and_nothing_else(
    door: Web, site: Site, image: str, mirrors: Mirrors, content: bytes, kind: str, words: str
) -> None:
    assert registry.tagged(door, IMAGE, mirrors) == image.removeprefix("sha256:")
    site.put("/v2/registry.k8s.io/pause/manifests/3.10.2", content, kind)
    with pytest.raises(Refused, match=words):
        registry.tagged(door, IMAGE, mirrors)
