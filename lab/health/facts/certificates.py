"""Reading certificates: their names, who signed them, when they are valid."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.hashes import SHA256

from lab.workspace.render.keys import CERTIFICATE

FILE = re.compile(r"^# (/\S+)$", re.MULTILINE)
FORMS = (x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)


@dataclass(frozen=True)
class CertificateFact:
    """One certificate: its file, its names (DNS, addresses), when it is valid, its hash in hex, its PEM."""

    path: str
    names: frozenset[str]
    since: datetime
    until: datetime
    sha256: str
    pem: str = field(default="", repr=False)


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
        for pem in CERTIFICATE.findall(body)
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
            pem,
        )
    except (UnsupportedAlgorithm, *FORMS) as error:
        raise ValueError(f"no certificate that is known here: {error}") from error


@functools.lru_cache(maxsize=64)
def is_signed_by(pem: str, ca: str) -> bool:
    """Whether the key of this CA has signed a certificate. Raises ValueError where either can't be read."""
    try:
        signed, signer = (x509.load_pem_x509_certificate(each.encode()) for each in (pem, ca))
        signed.verify_directly_issued_by(signer)
    except InvalidSignature:
        return False
    except TypeError as error:
        raise ValueError(f"no key that is known here: {error}") from error
    except ValueError as error:
        if "issuer" in str(error).lower():  # the issuer's name is another one
            return False
        raise
    return True


def _names(certificate: x509.Certificate) -> frozenset[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    dns = found.get_values_for_type(x509.DNSName)
    addresses = found.get_values_for_type(x509.IPAddress)
    return frozenset([*dns, *(str(address) for address in addresses)])
