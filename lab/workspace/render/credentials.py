"""Makes what must not be guessed: the cluster's CA, the lab's ssh key, one run's secrets.

The CA and the ssh key are made once for each lab, the bootstrap token and the certificate key for each run.
Keys stay in `.lab/secrets/` (0600 in 0700) and reach machines by standard input only.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.x509.oid import NameOID

from lab.errors import LabStateError
from lab.model import Lab, Node
from lab.model.roles import ROLES
from lab.system import proxies, quoting
from lab.workspace import Workspace
from lab.workspace.render.keys import (
    READABLE,
    Unusable,
    ca_files,
    ca_problem,
    certificate_problem,
    file_way_back,
    ssh_key_files,
    ssh_key_problem,
)

CA_YEARS = 10
"""kubeadm's own (kubernetes.io, "Certificate Management with kubeadm")."""

CLOCK = "date -u   # is that right? If not, set it: sudo timedatectl set-ntp true"
"""What to do first about a certificate that is not valid now."""


@dataclass(frozen=True)
class RunSecrets:
    """One bring-up's bootstrap token (`id.secret`) and certificate key (64 hex digits)."""

    token: str = field(repr=False)
    certificate_key: str = field(repr=False)


def new_run_secrets() -> RunSecrets:
    """Make a new token and a new key (kubeadm-token and kubeadm-init give the formats)."""
    alphabet = string.ascii_lowercase + string.digits
    part = ["".join(secrets.choice(alphabet) for _ in range(length)) for length in (6, 16)]
    return RunSecrets(".".join(part), secrets.token_hex(32))


def secret_files(node: Node, lab: Lab, run: RunSecrets, ca_key: str) -> dict[str, str]:
    """What one machine is given besides its rendered files: name under /run/ha-lab → content.

    Each gets what its role's row in ROLES says and no more. A proxy's URL may hold a password, so it is one
    of them.
    """
    spec = ROLES[node.role]
    its = spec.secrets | spec.first_secrets if node == lab.first else spec.secrets
    lines = {
        "bootstrap-token": f"BOOTSTRAP_TOKEN={run.token}\n",
        "certificate-key": f"CERTIFICATE_KEY={run.certificate_key}\n",
    }
    files = {}
    if text := "".join(line for name, line in lines.items() if name in its):
        files["secrets"] = text
    if "proxy" in its:
        files["proxy.env"] = _proxy_env(lab)
    if "cluster-ca-key" in its:
        files["ca.key"] = ca_key
    return files


def ca_certificate(workspace: Workspace) -> str:
    """Return the cluster CA's certificate (PEM), minting the CA the first time.

    Raises LabStateError where its files can't be used: machines trust it, and another would lock them out.
    """
    certificate, key = ca_files(workspace)
    _require(ca_problem(workspace))
    if not certificate.exists():
        key_text, certificate_text = _mint_ca()
        workspace.write_secret(key, key_text)
        workspace.write_secret(certificate, certificate_text)
    return certificate.read_text(encoding="utf-8")


@dataclass(frozen=True)
class Validity:
    """When a certificate of this host's is valid, in UTC."""

    path: Path
    since: datetime
    until: datetime
    whose: str = "the lab's CA"

    def problem(self, now: datetime) -> str | None:
        """Why it is not valid at that moment: the file, its dates, and the clock; None where it is."""
        if self.since <= now < self.until:
            return None
        dates = f"{self.path} is valid from {_moment(self.since)} to {_moment(self.until)}"
        what = "not yet valid" if now < self.since else "expired"
        return f"{self.whose} is {what}: {dates}, and this host's clock says {_moment(now)}"


def ca_validity(workspace: Workspace) -> Validity | None:
    """When the cluster CA's certificate is valid; None where it was not made yet. Makes nothing.

    Raises LabStateError where there is a file that can't be read as one.
    """
    path, _ = ca_files(workspace)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LabStateError(f"the lab's CA can't be read: {path}: {error.strerror}", hint=READABLE) from error
    reason = certificate_problem(content)
    if reason:
        raise LabStateError(f"the lab's CA can't be read: {path} {reason}", hint=file_way_back(workspace, path))
    certificate = x509.load_pem_x509_certificate(content)
    return Validity(path, certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def ca_way_out(validity: Validity, *, has_machines: bool) -> str:
    """What to do about a CA that is not valid now: commands, as a person would paste them.

    Without machines another CA costs nothing; it is not made by itself, since the clock may be wrong now.
    """
    if has_machines:
        return f"{CLOCK}\n# if it is, the machines need another CA: ./inv destroy, then ./inv up"
    files = " ".join(quoting.word(validity.path.with_suffix(suffix)) for suffix in (".crt", ".key"))
    return f"{CLOCK}\nrm {files}   # if it is; no machine was made, and the next run makes another CA"


def require_valid_ca(workspace: Workspace) -> None:
    """Raise LabStateError where the cluster's CA can't be used, or is not valid now: no machine could."""
    _require(ca_problem(workspace))
    validity = ca_validity(workspace)
    problem = validity.problem(datetime.now(UTC)) if validity else None
    if validity and problem:
        raise LabStateError(problem, hint=ca_way_out(validity, has_machines=workspace.has_machines()))


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def ca_key(workspace: Workspace) -> str:
    """Return the cluster CA's private key (PEM)."""
    return (workspace.secrets / "ca.key").read_text(encoding="utf-8")


def ca_hash(certificate_pem: str) -> str:
    """Return the hash of the CA's public key as kubeadm's discovery wants it: `sha256:HEX`."""
    public = x509.load_pem_x509_certificate(certificate_pem.encode()).public_key()
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"sha256:{hashlib.sha256(der).hexdigest()}"


def authorized_key(workspace: Workspace) -> str:
    """Return the public half of the lab's own ssh key, made the first time.

    Raises LabStateError where its files can't be used: the machines know no other.
    """
    public, private = ssh_key_files(workspace)
    _require(ssh_key_problem(workspace))
    if not private.exists():
        key = ed25519.Ed25519PrivateKey.generate()
        openssh = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
        line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        workspace.write_secret(private, openssh.decode())
        workspace.write_secret(public, line.decode() + " ha-lab\n")
    return public.read_text(encoding="utf-8").strip()


def _proxy_env(lab: Lab) -> str:
    """This host's proxies for systemd's EnvironmentFile, quoted as systemd.exec(5) says; may be empty.

    Nothing of the lab goes through them: not its machines, not its pods, not its services.
    """
    network = lab.network
    own = (str(network.subnet), str(network.pods), str(network.services), ".svc", ".cluster.local")
    given = proxies.for_nodes((*own, *(node.name for node in lab.nodes)))
    quoted = {name: re.sub(r'(["\\$`])', r"\\\1", value) for name, value in given.items() if "\n" not in value}
    return "".join(f'{name}="{value}"\n' for name, value in quoted.items())


def _require(problem: Unusable | None) -> None:
    if problem:
        raise LabStateError(problem.what, hint=problem.way_back)


def _mint_ca() -> tuple[str, str]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    # A machine's clock may be a little behind the host's.
    start = datetime.now(UTC) - timedelta(hours=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=365 * CA_YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_ca_usage(), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("kubernetes")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    return pem.decode(), certificate.public_bytes(serialization.Encoding.PEM).decode()


def _ca_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=True,
        key_cert_sign=True,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
