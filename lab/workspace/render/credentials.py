"""Generates the credentials: the cluster's CA, the lab's ssh key, each run's secrets.

The CA and the ssh key are generated once for each lab, the bootstrap token and the certificate key for each
run. Keys are kept in `.lab/secrets/` (0600 in 0700) and sent to machines on standard input only.
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
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

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
    etcd_ca_files,
    etcd_ca_problem,
    restore_hint,
    ssh_key_files,
    ssh_key_problem,
)

CA_YEARS = 10
"""kubeadm's own (kubernetes.io, "Certificate Management with kubeadm")."""

CLUSTER_CA, ETCD_CA = "kubernetes", "etcd-ca"
"""The names that kubeadm gives its CAs."""

BACKDATE = timedelta(hours=1)
"""How long before now certificates are valid from: a machine's clock may be slightly behind the host's."""

CLOCK = "date -u   # is this correct? If not, set the clock: sudo timedatectl set-ntp true"
"""The first thing to check when a certificate is not valid now."""


@dataclass(frozen=True)
class RunSecrets:
    """One run's bootstrap token (`id.secret`) and certificate key (64 hex digits)."""

    token: str = field(repr=False)
    certificate_key: str = field(repr=False)


def new_run_secrets() -> RunSecrets:
    """Generate a token and a key, in the formats of kubeadm-token and kubeadm-init."""
    alphabet = string.ascii_lowercase + string.digits
    part = ["".join(secrets.choice(alphabet) for _ in range(length)) for length in (6, 16)]
    return RunSecrets(".".join(part), secrets.token_hex(32))


def secret_files(node: Node, lab: Lab, run: RunSecrets, ca_key: str, etcd_ca_key: str = "") -> dict[str, str]:
    """One machine's secret files: name under /run/ha-lab → content.

    A machine gets only those that its role has in ROLES. `etcd_ca_key` is "" where control planes run etcd.
    Proxy settings are among them, since a proxy's URL may contain a password.
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
    if "etcd-ca-key" in its and etcd_ca_key:
        files["etcd-ca.key"] = etcd_ca_key
    return files


def ca_certificate(workspace: Workspace) -> str:
    """Return the cluster CA's certificate (PEM); generate the CA the first time.

    Raises LabStateError if its files can't be used: machines trust this CA and would reject another one.
    """
    _require(ca_problem(workspace))
    return _certificate(workspace, ca_files(workspace), CLUSTER_CA)


def etcd_ca_certificate(workspace: Workspace) -> str:
    """The same of etcd's own CA, which only a lab has whose etcd runs on machines of its own."""
    _require(etcd_ca_problem(workspace))
    return _certificate(workspace, etcd_ca_files(workspace), ETCD_CA)


def _certificate(workspace: Workspace, files: tuple[Path, Path], name: str) -> str:
    certificate, key = files
    if not certificate.exists():
        pair = new_ca(name)
        workspace.write_secret(key, pair.key)
        workspace.write_secret(certificate, pair.certificate)
    return certificate.read_text(encoding="utf-8")


@dataclass(frozen=True)
class Validity:
    """When a certificate on this host is valid, in UTC."""

    path: Path
    since: datetime
    until: datetime
    whose: str = "the lab's CA"

    def problem(self, now: datetime) -> str | None:
        """Why it is not valid at that time: the file, its dates, and the clock; None if it is valid."""
        if self.since <= now < self.until:
            return None
        dates = f"{self.path} is valid from {_moment(self.since)} to {_moment(self.until)}"
        what = "not yet valid" if now < self.since else "expired"
        return f"{self.whose} is {what}: {dates}, and this host's clock says {_moment(now)}"


def ca_validity(workspace: Workspace) -> Validity | None:
    """When the cluster CA's certificate is valid; None if it was not generated yet. Changes nothing.

    Raises LabStateError if the file can't be parsed as a certificate.
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
        raise LabStateError(f"the lab's CA can't be read: {path} {reason}", hint=restore_hint(workspace, path))
    certificate = x509.load_pem_x509_certificate(content)
    return Validity(path, certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def ca_hint(validity: Validity, *, has_machines: bool) -> str:
    """The commands for a CA that is not valid now.

    Without machines, a new CA costs nothing; it is not generated automatically, since the clock may be wrong.
    """
    if has_machines:
        return f"{CLOCK}\n# if it is correct, the machines need a new CA: ./inv destroy, then ./inv up"
    files = " ".join(quoting.word(validity.path.with_suffix(suffix)) for suffix in (".crt", ".key"))
    return (
        f"{CLOCK}\nrm {files}   # if it is correct; no machine exists yet, and the next run generates a new CA"
    )


def require_valid_ca(workspace: Workspace) -> None:
    """Raise LabStateError if the cluster's CA can't be used or is not valid now: no machine could use it."""
    _require(ca_problem(workspace))
    _require(etcd_ca_problem(workspace))
    validity = ca_validity(workspace)
    problem = validity.problem(datetime.now(UTC)) if validity else None
    if validity and problem:
        raise LabStateError(problem, hint=ca_hint(validity, has_machines=workspace.has_machines()))


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def ca_key(workspace: Workspace) -> str:
    """Return the cluster CA's private key (PEM)."""
    return (workspace.secrets / "ca.key").read_text(encoding="utf-8")


def etcd_ca_key(workspace: Workspace) -> str:
    """Return the private key of etcd's own CA (PEM); "" if the lab has none."""
    key = etcd_ca_files(workspace)[1]
    return key.read_text(encoding="utf-8") if key.exists() else ""


def ca_hash(certificate_pem: str) -> str:
    """Return the hash of the CA's public key, in the format of kubeadm's discovery: `sha256:HEX`."""
    public = x509.load_pem_x509_certificate(certificate_pem.encode()).public_key()
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"sha256:{hashlib.sha256(der).hexdigest()}"


def authorized_key(workspace: Workspace) -> str:
    """Return the public half of the lab's own ssh key; generate the key the first time.

    Raises LabStateError if its files can't be used: the machines accept no other key.
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
    """This host's proxy settings for systemd's EnvironmentFile, quoted for systemd.exec(5); may be empty.

    Traffic to the lab's machines, pods and services bypasses the proxies.
    """
    network = lab.network
    own = (str(network.subnet), str(network.pods), str(network.services), ".svc", ".cluster.local")
    given = proxies.for_nodes((*own, *(node.name for node in lab.nodes)))
    quoted = {name: re.sub(r'(["\\$`])', r"\\\1", value) for name, value in given.items() if "\n" not in value}
    return "".join(f'{name}="{value}"\n' for name, value in quoted.items())


def _require(problem: Unusable | None) -> None:
    if problem:
        raise LabStateError(problem.what, hint=problem.hint)


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key (PEM)."""

    certificate: str
    key: str = field(repr=False)


def new_ca(common_name: str = CLUSTER_CA) -> Pair:
    """Generate a CA, for the cluster or for etcd, in no file yet."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    start = datetime.now(UTC) - BACKDATE
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
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(common_name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    return Pair(certificate.public_bytes(serialization.Encoding.PEM).decode(), pem.decode())


def kubelet_client(name: str, ca: Pair) -> Pair:
    """Generate a node's client certificate for its kubelet, as the controller manager signs it.

    The names are those that the node authorizer asks for (kubernetes.io, "Using Node Authorization").
    """
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.load_pem_x509_certificate(ca.certificate.encode())
    signing = serialization.load_pem_private_key(ca.key.encode(), None)
    assert isinstance(signing, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    start = datetime.now(UTC) - BACKDATE
    usage = x509.KeyUsage(True, *[False] * 8)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(
            x509.Name(
                [
                    x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
                    x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{name}"),
                ]
            )
        )
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
            ),
            critical=False,
        )
        .sign(signing, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    return Pair(certificate.public_bytes(serialization.Encoding.PEM).decode(), pem.decode())


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
