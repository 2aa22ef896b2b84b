from __future__ import annotations

import base64
import hashlib
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from lab.config import default
from lab.errors import LabStateError
from lab.system import proxies
from lab.workspace import Workspace
from lab.workspace.render import credentials
from lab.workspace.render.credentials import RunSecrets
from tests.unit.fakes import keep_made
from tests.whole import rows

LAB = default()
RUN = RunSecrets("abcdef.0123456789abcdef", "c0ffee" + "0" * 58)


@pytest.fixture
def keys_for_tests() -> None:
    """Keys are made here as for a lab."""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / ".lab")


@pytest.fixture(scope="module")
def minted(tmp_path_factory: pytest.TempPathFactory) -> tuple[x509.Certificate, Workspace]:
    made = Workspace(tmp_path_factory.mktemp("lab") / ".lab")
    return x509.load_pem_x509_certificate(credentials.ca_certificate(made).encode()), made


def given(name: str) -> dict[str, str]:
    node = LAB.node(name)
    assert node is not None
    return credentials.secret_files(node, LAB, RUN, "the key")


def test_a_token_and_a_key_have_kubeadm_s_formats() -> None:
    run = credentials.new_run_secrets()
    assert re.fullmatch(r"[a-z0-9]{6}\.[a-z0-9]{16}", run.token)
    assert re.fullmatch(r"[0-9a-f]{64}", run.certificate_key)


def test_every_run_has_secrets_of_its_own() -> None:
    runs = [credentials.new_run_secrets() for _ in range(20)]
    assert len({run.token for run in runs}) == 20
    assert len({run.certificate_key for run in runs}) == 20


def test_secrets_are_never_shown() -> None:
    assert repr(RUN) == str(RUN) == "RunSecrets()"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*proxies.NAMES, *(name.upper() for name in proxies.NAMES)):
        monkeypatch.delenv(name, raising=False)


def let_the_clock_say(moment: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return moment

    monkeypatch.setattr(credentials, "datetime", Clock)


def test_a_ca_is_refused_before_and_after_its_days(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials.require_valid_ca(workspace)  # none was made yet, and none is made by asking
    assert not workspace.secrets.exists()
    credentials.ca_certificate(workspace)
    credentials.require_valid_ca(workspace)
    validity = credentials.ca_validity(workspace)
    assert validity is not None
    for moment, word in (
        (validity.since - timedelta(minutes=1), "not yet valid"),
        (validity.until, "expired"),
    ):
        let_the_clock_say(moment, monkeypatch)
        with pytest.raises(LabStateError, match=f"the lab's CA is {word}: ") as caught:
            credentials.require_valid_ca(workspace)
        for date in (validity.since, validity.until, moment):
            assert f"{date:%Y-%m-%d %H:%M} UTC" in caught.value.message
        assert str(workspace.secrets / "ca.crt") in caught.value.message
        assert f"rm {workspace.secrets}/ca.crt {workspace.secrets}/ca.key" in caught.value.hint
    (workspace.root / ".vagrant/machines/cp1/docker").mkdir(parents=True)
    (workspace.root / ".vagrant/machines/cp1/docker/id").write_text("c0ffee")
    with pytest.raises(LabStateError) as caught:
        credentials.require_valid_ca(workspace)
    assert "./inv destroy" in caught.value.hint


def test_another_ca_is_made_once_the_useless_one_is_removed(workspace: Workspace) -> None:
    before = credentials.ca_certificate(workspace)
    for name in ("ca.crt", "ca.key"):
        (workspace.secrets / name).unlink()
    assert credentials.ca_certificate(workspace) != before


@pytest.mark.parametrize("text", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_ca_s_file_that_is_no_certificate_is_named(workspace: Workspace, text: str) -> None:
    workspace.write_secret(workspace.secrets / "ca.crt", text)
    with pytest.raises(LabStateError, match=r"the lab's CA can't be read: .*ca\.crt"):
        credentials.ca_validity(workspace)


def test_the_first_control_plane_is_given_the_ca_s_key() -> None:
    assert given("cp1") == {
        "proxy.env": "",
        "secrets": f"BOOTSTRAP_TOKEN={RUN.token}\nCERTIFICATE_KEY={RUN.certificate_key}\n",
        "ca.key": "the key",
    }


@pytest.mark.parametrize("name", ["cp2", "cp3"])
def test_other_control_planes_are_given_no_ca_key(name: str) -> None:
    assert set(given(name)) == {"secrets", "proxy.env"}
    assert RUN.certificate_key in given(name)["secrets"]


@pytest.mark.parametrize("name", ["w1", "w2", "w3"])
def test_workers_are_given_no_certificate_key(name: str) -> None:
    assert given(name) == {"secrets": f"BOOTSTRAP_TOKEN={RUN.token}\n", "proxy.env": ""}


def test_nodes_are_given_the_hosts_proxies_and_none_for_the_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", 'http://ada:a"b$c@proxy.example:3128')
    monkeypatch.setenv("no_proxy", "intern.example")
    lines = given("w1")["proxy.env"].splitlines()
    assert 'https_proxy="http://ada:a\\"b\\$c@proxy.example:3128"' in lines
    (exempt,) = [line for line in lines if line.startswith("NO_PROXY=")]
    assert {"intern.example", "192.168.56.0/24", "10.244.0.0/16", "10.96.0.0/16", ".svc", "cp1"} < set(
        exempt.partition("=")[2].strip('"').split(",")
    )
    monkeypatch.setenv("HTTPS_PROXY", "http://localhost:3128")  # a machine could not reach it
    assert given("w1")["proxy.env"] == ""


def test_the_load_balancer_is_given_nothing() -> None:
    assert given("lb1") == {}


def test_the_ca_is_a_ca_and_nothing_else(minted: tuple[x509.Certificate, Workspace]) -> None:
    certificate, _ = minted
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert basic.value == x509.BasicConstraints(ca=True, path_length=None)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.crl_sign
    assert certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    assert len(list(certificate.extensions)) == 4


def test_the_ca_is_called_as_kubeadm_calls_it_and_signed_by_itself(
    minted: tuple[x509.Certificate, Workspace],
) -> None:
    certificate, _ = minted
    assert certificate.subject.rfc4514_string() == "CN=kubernetes"
    assert certificate.issuer == certificate.subject
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == ["kubernetes"]
    key = certificate.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    assert certificate.signature_hash_algorithm is not None
    key.verify(
        certificate.signature,
        certificate.tbs_certificate_bytes,
        padding.PKCS1v15(),
        certificate.signature_hash_algorithm,
    )


def test_the_ca_holds_for_ten_years_also_where_clocks_are_behind(
    minted: tuple[x509.Certificate, Workspace],
) -> None:
    certificate, _ = minted
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert life == timedelta(days=3650)
    assert certificate.not_valid_before_utc < datetime.now(UTC) - timedelta(minutes=55)


def test_the_ca_s_key_is_the_certificate_s(minted: tuple[x509.Certificate, Workspace]) -> None:
    certificate, workspace = minted
    text = credentials.ca_key(workspace)
    assert text.startswith("-----BEGIN RSA PRIVATE KEY-----")
    assert load_pem_private_key(text.encode(), None).public_key() == certificate.public_key()


def test_the_ca_s_hash_is_that_of_the_public_key_inside_the_certificate(
    minted: tuple[x509.Certificate, Workspace],
) -> None:
    certificate, _ = minted
    key = certificate.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    # RFC 3279 2.3.1, by hand: SEQUENCE { rsaEncryption NULL } and a BIT STRING of the two numbers.
    numbers = key.public_numbers()
    pair = der(0x30, integer(numbers.n) + integer(numbers.e))
    algorithm = bytes.fromhex("300d06092a864886f70d0101010500")
    info = der(0x30, algorithm + der(0x03, b"\0" + pair))
    pem = credentials.ca_certificate(minted[1])
    assert credentials.ca_hash(pem) == f"sha256:{hashlib.sha256(info).hexdigest()}"


def der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def integer(number: int) -> bytes:
    return der(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def test_what_was_made_once_is_kept(workspace: Workspace) -> None:
    first = credentials.ca_certificate(workspace), credentials.authorized_key(workspace)
    assert (credentials.ca_certificate(workspace), credentials.authorized_key(workspace)) == first


def other(folder: Path, name: str) -> bytes:
    """That file of another lab."""
    lab = Workspace(folder / "other" / ".lab")
    credentials.ca_certificate(lab)
    credentials.authorized_key(lab)
    return (lab.secrets / name).read_bytes()


def locked(path: Path) -> bytes:
    """The private key in a file, encrypted with a passphrase."""
    if path.name == "ca.key":
        key = load_pem_private_key(path.read_bytes(), None)
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"a passphrase"))
    subprocess.run(["ssh-keygen", "-q", "-p", "-f", path, "-P", "", "-N", "a passphrase"], check=True)
    return path.read_bytes()


SECRET_WORDS = b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"
FETCH = "./inv ssh cp1 -- sudo cat /etc/kubernetes/pki/"


@pytest.mark.parametrize(
    ("name", "damage", "says", "back"),
    [
        ("ca.crt", b"", "ca.crt is empty", FETCH + "ca.crt > "),
        ("ca.crt", b" \n", "ca.crt is empty", FETCH + "ca.crt > "),
        ("ca.crt", SECRET_WORDS, "ca.crt is not a valid certificate", FETCH + "ca.crt > "),
        ("ca.crt", b"\xff\x00", "ca.crt is not a valid certificate", FETCH + "ca.crt > "),
        ("ca.crt", other, "ca.key is not the key of ", FETCH + "ca.key > "),
        ("ca.key", b"", "ca.key is empty", FETCH + "ca.key > "),
        ("ca.key", SECRET_WORDS, "ca.key is not a valid private key", FETCH + "ca.key > "),
        ("ca.key", locked, "ca.key is protected by a passphrase", FETCH + "ca.key > "),
        ("ca.key", other, "ca.key is not the key of ", FETCH + "ca.crt > "),
        ("id_ed25519", b"", "id_ed25519 is empty", "restore it; without it you can't log in"),
        ("id_ed25519", SECRET_WORDS, "id_ed25519 is not a valid private ssh key", "restore it; without it"),
        ("id_ed25519", locked, "id_ed25519 is protected by a passphrase", "restore it; without it"),
        ("id_ed25519", other, "id_ed25519 is not the key of ", "`ssh-keygen -y -f "),
        ("id_ed25519.pub", b"", "id_ed25519.pub is empty", "`ssh-keygen -y -f "),
        ("id_ed25519.pub", b"ssh-ed25519 AAAA ha-lab\n", "is not a valid public ssh key", "`ssh-keygen -y -f "),
        ("id_ed25519.pub", other, "id_ed25519 is not the key of ", "`ssh-keygen -y -f "),
    ],
)
@pytest.mark.parametrize("has_machines", rows([True, False], usual=[True]))
def test_a_key_s_file_that_is_damaged_is_named_with_the_least_that_helps(
    workspace: Workspace, tmp_path: Path, name: str, damage: Any, says: str, back: str, has_machines: bool
) -> None:
    credentials.ca_certificate(workspace)
    credentials.authorized_key(workspace)
    if has_machines:
        keep_made(workspace, LAB)
        workspace.write(workspace.root / ".vagrant/machines/cp1/docker/id", "c0ffee")
    path = workspace.secrets / name
    content = (
        damage if isinstance(damage, bytes) else damage(path) if damage is locked else other(tmp_path, name)
    )
    path.write_bytes(content)
    made = credentials.ca_certificate if name.startswith("ca") else credentials.authorized_key
    with pytest.raises(LabStateError) as caught:
        made(workspace)
    assert str(path.parent) in caught.value.message
    assert says in caught.value.message
    assert "c2VjcmV0" not in f"{caught.value.message} {caught.value.hint} {caught.value.__cause__}"
    pair = [each for each in ("ca.crt", "ca.key", "id_ed25519.pub", "id_ed25519") if each[:2] == name[:2]]
    remove = f"`rm {' '.join(str(path.parent / each) for each in pair)}`"
    assert (back in caught.value.hint) is has_machines
    assert (remove in caught.value.hint) is not has_machines
    if name.startswith("ca"):
        assert "destroy" not in caught.value.hint
        with pytest.raises(LabStateError, match=re.escape(says)):
            credentials.require_valid_ca(workspace)


@pytest.mark.parametrize(
    ("names", "back"),
    [
        (("ca.crt", "ca.key"), FETCH + "ca.key > "),
        (("id_ed25519", "id_ed25519.pub"), "restore it; without it you can't log in"),
    ],
)
def test_a_pair_that_machines_know_is_not_made_again(
    workspace: Workspace, names: tuple[str, str], back: str
) -> None:
    workspace.write(workspace.node("cp1") / "ca.crt", credentials.ca_certificate(workspace))
    workspace.write(workspace.ssh_config, "# rendered\n")
    credentials.authorized_key(workspace)
    for name in names:
        (workspace.secrets / name).unlink()
    made = credentials.ca_certificate if "ca.crt" in names else credentials.authorized_key
    keep_made(workspace, LAB)
    workspace.write(workspace.root / ".vagrant/machines/cp1/docker/id", "c0ffee")
    with pytest.raises(LabStateError, match="are missing, and the machines accept no others") as caught:
        made(workspace)
    assert back in caught.value.hint
    (workspace.root / ".vagrant/machines/cp1/docker/id").unlink()
    made(workspace)


def test_a_folder_in_a_key_s_place_is_named(workspace: Workspace) -> None:
    credentials.ca_certificate(workspace)
    (workspace.secrets / "ca.key").unlink()
    (workspace.secrets / "ca.key").mkdir()
    with pytest.raises(LabStateError, match=r"ca\.key can't be read: Is a directory") as caught:
        credentials.ca_certificate(workspace)
    assert "make it readable for you" in caught.value.hint


def test_a_ca_of_another_lab_is_no_ca_for_this_one(workspace: Workspace, tmp_path: Path) -> None:
    given = workspace.node("cp1") / "ca.crt"
    workspace.write(given, credentials.ca_certificate(workspace))
    keep_made(workspace, LAB)
    workspace.write(workspace.root / ".vagrant/machines/cp1/docker/id", "c0ffee")
    credentials.require_valid_ca(workspace)
    for name in ("ca.crt", "ca.key"):
        (workspace.secrets / name).write_bytes(other(tmp_path, name))
    with pytest.raises(LabStateError, match=r"ca\.crt is not the CA that the machines") as caught:
        credentials.require_valid_ca(workspace)
    assert FETCH + "ca.crt > " in caught.value.hint
    assert FETCH + "ca.key > " in caught.value.hint
    workspace.write(given, "no certificate")
    credentials.require_valid_ca(workspace)


@pytest.mark.parametrize("lost", ["ca.crt", "ca.key"])
def test_half_a_ca_is_never_made_again_silently(workspace: Workspace, lost: str) -> None:
    credentials.ca_certificate(workspace)
    kept = {path: path.read_text() for path in workspace.secrets.iterdir() if path.name != lost}
    (workspace.secrets / lost).unlink()
    with pytest.raises(LabStateError, match=f"{lost} is missing") as caught:
        credentials.ca_certificate(workspace)
    assert f"each control plane has it in /etc/kubernetes/pki/{lost}" in caught.value.hint
    assert "destroy" not in caught.value.hint
    assert {path: path.read_text() for path in workspace.secrets.iterdir()} == kept


def test_a_public_key_that_is_lost_can_be_had_from_the_private_one(workspace: Workspace) -> None:
    credentials.authorized_key(workspace)
    (workspace.secrets / "id_ed25519.pub").unlink()
    with pytest.raises(LabStateError, match=r"id_ed25519\.pub is missing") as caught:
        credentials.authorized_key(workspace)
    private = workspace.secrets / "id_ed25519"
    assert caught.value.hint == f"`ssh-keygen -y -f {private} > {private}.pub` creates it again"


def test_only_a_private_key_that_is_lost_costs_the_machines(workspace: Workspace) -> None:
    credentials.authorized_key(workspace)
    (workspace.secrets / "id_ed25519").unlink()
    with pytest.raises(LabStateError, match="id_ed25519 is missing") as caught:
        credentials.authorized_key(workspace)
    assert caught.value.hint.startswith("restore it; without it you can't log in")


def test_the_ssh_key_is_a_pair(workspace: Workspace) -> None:
    line = credentials.authorized_key(workspace)
    kind, blob, comment = line.split(" ")
    assert (kind, comment) == ("ssh-ed25519", "ha-lab")
    private = load_ssh_private_key((workspace.secrets / "id_ed25519").read_bytes(), None)
    assert base64.b64decode(blob).endswith(private.public_key().public_bytes_raw())  # type: ignore[union-attr]


def test_keys_are_private_files_in_a_private_folder(workspace: Workspace) -> None:
    credentials.ca_certificate(workspace)
    credentials.authorized_key(workspace)
    assert workspace.secrets.stat().st_mode & 0o777 == 0o700
    names = {path.name: path.stat().st_mode & 0o777 for path in workspace.secrets.iterdir()}
    assert names == dict.fromkeys(("ca.crt", "ca.key", "id_ed25519", "id_ed25519.pub"), 0o600)
