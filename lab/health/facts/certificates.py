"""Reading certificates: their names, who signed them, when they are valid."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.hashes import SHA256

FILE = re.compile(r"^# (/\S+)$", re.MULTILINE)
FORMS = (x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True)
class CertificateFact:
    """One certificate: its file, its names (DNS names and addresses), when it is valid, its hash in hex."""

    path: str
    names: frozenset[str]
    since: datetime
    until: datetime
    sha256: str


def read_certificates(text: str) -> tuple[CertificateFact, ...]:
    """Read PEM under `# PATH` lines, in their order; a file with several gives several.

    Raises ValueError where one can't be read, or where there is text and no such line.
    """
    parts = FILE.split(text)
    if parts[0].strip():
        raise ValueError("no file's name comes first")
    return tuple(
        read_certificate(path, pem)
        for path, body in zip(parts[1::2], parts[2::2], strict=True)
        for pem in PEM.findall(body)
    )


@functools.lru_cache(maxsize=512)  # every check and task that is about one reads all of its machine's again
def read_certificate(path: str, pem: str) -> CertificateFact:
    """Read one certificate. Raises ValueError where it can't be read."""
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        return CertificateFact(
            path,
            _names(certificate),
            certificate.not_valid_before_utc,
            certificate.not_valid_after_utc,
            certificate.fingerprint(SHA256()).hex(),
        )
    except (UnsupportedAlgorithm, *FORMS) as error:
        raise ValueError(f"no certificate that is known here: {error}") from error


def _names(certificate: x509.Certificate) -> frozenset[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    dns = found.get_values_for_type(x509.DNSName)
    addresses = found.get_values_for_type(x509.IPAddress)
    return frozenset([*dns, *(str(address) for address in addresses)])
