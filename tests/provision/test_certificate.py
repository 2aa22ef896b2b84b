"""What bash reads of a certificate (provision/certificate.sh), against Python's own reading of it."""

from __future__ import annotations

import base64
import datetime
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lab.system.paths import PROVISION

KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(
    ends: str,
    name: str = "kubernetes",
    begins: str = "1995-03-01",
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
) -> str:
    """A certificate as PEM that is valid from and until then, UTC."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime.fromisoformat(begins))
        .not_valid_after(datetime.datetime.fromisoformat(ends))
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .sign(KEY, hashes.SHA256())
    )
    return built.public_bytes(serialization.Encoding.PEM).decode()


def read(folder: Path, text: str) -> str:
    """The end that bash reads, in seconds since 1970, or `no`."""
    file = folder / "read.pem"
    file.write_text(text)
    script = (
        f"set -Eeuo pipefail; source {PROVISION / 'certificate.sh'}; "
        'if certificate_dates "$(<"$1")"; then echo "$ends"; else echo no; fi'
    )
    ran = subprocess.run(["bash", "-c", script, "read", str(file)], capture_output=True, text=True, check=True)
    assert ran.stderr == ""
    return ran.stdout.strip()


@pytest.mark.parametrize(
    "ends",
    [
        "1999-12-31T23:59:59",
        "2000-02-29T00:00:00",
        "2027-03-01T12:34:56",
        "2028-02-29T23:00:01",
        "2049-12-31T23:59:59",  # the last UTCTime
        "2050-01-01T00:00:00",  # the first GeneralizedTime
        "2100-03-01T00:00:00",
        "9999-12-31T23:59:59",
    ],
)
def test_the_end_of_a_certificate_is_read_to_the_second(tmp_path: Path, ends: str) -> None:
    at = datetime.datetime.fromisoformat(ends).replace(tzinfo=datetime.UTC)
    assert read(tmp_path, certificate(ends)) == str(int(at.timestamp()))


def test_the_beginning_of_a_certificate_is_read_as_well(tmp_path: Path) -> None:
    (tmp_path / "read.pem").write_text(certificate("2030-01-01T00:00:00", begins="2028-02-29T23:00:01"))
    script = (
        f"set -Eeuo pipefail; source {PROVISION / 'certificate.sh'}; "
        'for _ in 1 2; do begins=0 ends=0; certificate_dates "$(<"$1")"; echo "$begins $ends"; done'
    )
    words = ["bash", "-c", script, "read", str(tmp_path / "read.pem")]
    ran = subprocess.run(words, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["1835478001 1893456000"] * 2


@pytest.mark.parametrize("letters", range(1, 60, 7))
def test_it_is_read_whatever_the_length_of_the_issuer_s_name(tmp_path: Path, letters: int) -> None:
    assert read(tmp_path, certificate("2030-01-01T00:00:00", "a" * letters)) == "1893456000"


def test_text_around_it_and_lines_of_another_system_do_not_matter(tmp_path: Path) -> None:
    text = certificate("2030-01-01T00:00:00")
    assert read(tmp_path, f"a word before\n{text}{certificate('2040-01-01T00:00:00')}") == "1893456000"
    assert read(tmp_path, text.replace("\n", "\r\n")) == "1893456000"


def test_a_certificate_is_read_once_and_another_one_has_its_own_end(tmp_path: Path) -> None:
    names = ["2030-01-01T00:00:00", "2040-01-01T00:00:00", "2050-01-01T00:00:00"]
    for number, ends in enumerate(names):
        (tmp_path / str(number)).write_text(certificate(ends))
    script = (
        f"set -Eeuo pipefail; source {PROVISION / 'certificate.sh'}; cd {tmp_path}; "
        'show() { ends=0; if certificate_dates "$(<"$1")"; then echo "$ends"; else echo no; fi; }; '
        "show 0; show 1; show 0; der_value() { return 1; }; show 1; show 0; show 2"
    )
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["1893456000", "2208988800", "1893456000", "2208988800", "1893456000", "no"]


def test_no_certificate_that_was_cut_short_is_complete(tmp_path: Path) -> None:
    lines = certificate("2030-01-01T00:00:00").splitlines()
    begin, body, end = lines[0], lines[1:-1], lines[-1]
    der = base64.b64decode("".join(body))
    half = base64.b64encode(der[: len(der) // 2]).decode()
    more = base64.b64encode(der + b"0").decode()
    for text in (
        "",
        "\n".join(lines[:4]),
        "\n".join([begin, *body]),  # no end
        "\n".join([begin, end]),
        "\n".join([begin, *body[:2], *body[3:], end]),  # a line is gone
        "\n".join([begin, *body[:2], body[2][:-1] + "!", *body[3:], end]),
        "\n".join([begin, *body[:2], body[2][:-1] + "=", *body[3:], end]),
        "\n".join([begin, *body[:2], body[2][:-1], *body[3:], end]),
        "\n".join([begin, half, end]),
        "\n".join([begin, more, end]),
        "\n".join([begin, base64.b64encode(b"0" * len(der)).decode(), end]),
        "\n".join([begin, "====", end]),
    ):
        assert read(tmp_path, text) == "no", text


def test_a_complete_structure_that_is_no_certificate_is_none(tmp_path: Path) -> None:
    public = KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert read(tmp_path, public.decode().replace("PUBLIC KEY", "CERTIFICATE")) == "no"
    for bytes_ in (b"\x30\x84\xff\xff\xff\xff", b"\x30\x80", b"\x30\xff", b"\x30", b"\x30\x02\x30\x00"):
        text = base64.b64encode(bytes_).decode()
        assert read(tmp_path, f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n") == "no"
