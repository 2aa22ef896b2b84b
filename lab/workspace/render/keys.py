"""Checks the files of the lab's own keys: whether each can be parsed and matches the other half of its pair.

Machines are created with them, so an empty or replaced file is reported before any program fails on it, with
the simplest way to restore it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from lab.errors import LabStateError
from lab.system import quoting
from lab.workspace import Workspace, made

CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
"""One certificate in a text of several (PEM)."""

READABLE = "make it readable for you"
UNSUPPORTED = (
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    UnsupportedAlgorithm,
)


@dataclass(frozen=True)
class Unusable:
    """Why a file can't be used, and how to restore it."""

    what: str
    hint: str


def ca_files(workspace: Workspace) -> tuple[Path, Path]:
    """The cluster's CA: its certificate and its private key."""
    return workspace.secrets / "ca.crt", workspace.secrets / "ca.key"


def etcd_ca_files(workspace: Workspace) -> tuple[Path, Path]:
    """The same of etcd's own CA, which there is only where etcd has machines of its own."""
    return workspace.secrets / "etcd-ca.crt", workspace.secrets / "etcd-ca.key"


def ssh_key_files(workspace: Workspace) -> tuple[Path, Path]:
    """The lab's ssh key: its public and its private half."""
    return workspace.secrets / "id_ed25519.pub", workspace.secrets / "id_ed25519"


def ca_problem(workspace: Workspace) -> Unusable | None:
    """Why the cluster's CA can't be used; None if it can, or was not generated yet."""
    return _ca_problem(workspace, ca_files(workspace))


def etcd_ca_problem(workspace: Workspace) -> Unusable | None:
    """The same of etcd's own CA."""
    return _ca_problem(workspace, etcd_ca_files(workspace))


def _ca_problem(workspace: Workspace, files: tuple[Path, Path]) -> Unusable | None:
    certificate, key = files
    problem = _pair_problem(workspace, {certificate: _key_of_certificate, key: _key_of_pem})
    given = _given_ca(workspace, certificate.name) if workspace.has_machines() else None
    if problem or given is None:
        return problem
    if not certificate.exists():
        return _both_gone(workspace, certificate, key)
    if given[1].strip() != certificate.read_bytes().strip():
        what = f"{certificate} is not the CA that the machines were given ({given[0]})"
        return Unusable(what, restore_hint(workspace, certificate, key))
    return None


def ssh_key_problem(workspace: Workspace) -> Unusable | None:
    """Why the lab's ssh key can't be used; None if it can, or was not generated yet."""
    public, private = ssh_key_files(workspace)
    problem = _pair_problem(workspace, {public: _key_of_ssh_line, private: _key_of_ssh})
    if not problem and not private.exists() and workspace.has_machines() and workspace.ssh_config.exists():
        return _both_gone(workspace, private, public)
    return problem


def certificate_problem(content: bytes) -> str | None:
    """Why that content is not a certificate; None if it is one."""
    return _read(content, _key_of_certificate)[1]


def _pair_problem(
    workspace: Workspace, readers: Mapping[Path, Callable[[bytes], PublicKeyTypes]]
) -> Unusable | None:
    contents: dict[Path, bytes] = {}
    for path in readers:
        try:
            contents[path] = path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            return Unusable(
                f"{path} can't be read: {error.strerror}", f"{READABLE} (`ls -l {quoting.word(path)}`)"
            )
    if not contents:
        return None
    found = []
    for path, reader in readers.items():
        if path not in contents:
            # With a new one, machines that trust the old one would be locked out.
            what = f"{path} is missing, and the machines were created with it"
            return Unusable(what, _restored(workspace, path))
        key, reason = _read(contents[path], reader)
        if reason:
            return Unusable(f"{path} {reason}", restore_hint(workspace, path))
        found.append(key)
    if found[0] != found[1]:
        first, second = readers
        return Unusable(f"{second} is not the key of {first}", restore_hint(workspace, first, second))
    return None


def _both_gone(workspace: Workspace, first: Path, second: Path) -> Unusable:
    what = f"{first} and {second} are missing, and the machines accept no others"
    return Unusable(what, restore_hint(workspace, first, second))


def _read(
    content: bytes, reader: Callable[[bytes], PublicKeyTypes]
) -> tuple[PublicKeyTypes | None, str | None]:
    """A file's public key, or why it has none. A library's message may quote the file, so it is not used."""
    if not content.strip():
        return None, "is empty"
    try:
        return reader(content), None
    except TypeError:
        return None, "is protected by a passphrase"
    except (ValueError, *UNSUPPORTED):
        return None, f"is not a valid {KINDS[reader]}"


def _key_of_certificate(content: bytes) -> PublicKeyTypes:
    # The extensions, too: they are parsed only on access.
    certificate = x509.load_pem_x509_certificate(content)
    _ = certificate.extensions, certificate.not_valid_after_utc
    return certificate.public_key()


def _key_of_pem(content: bytes) -> PublicKeyTypes:
    # Validating an RSA key takes 40 ms, and only its public half is needed here.
    return serialization.load_pem_private_key(content, None, unsafe_skip_rsa_key_validation=True).public_key()


def _key_of_ssh(content: bytes) -> PublicKeyTypes:
    return serialization.load_ssh_private_key(content, None).public_key()


def _key_of_ssh_line(content: bytes) -> PublicKeyTypes:
    return serialization.load_ssh_public_key(content.strip())


KINDS: Mapping[Callable[[bytes], PublicKeyTypes], str] = {
    _key_of_certificate: "certificate",
    _key_of_pem: "private key",
    _key_of_ssh: "private ssh key",
    _key_of_ssh_line: "public ssh key",
}


def restore_hint(workspace: Workspace, *paths: Path) -> str:
    """How to restore these files of one pair; without machines, a new pair costs nothing."""
    if not workspace.has_machines():
        pairs = (ca_files(workspace), etcd_ca_files(workspace), ssh_key_files(workspace))
        pair = next(each for each in pairs if paths[0] in each)
        files = " ".join(quoting.word(each) for each in pair)
        return f"no machine was created with it: `rm {files}`, and the next run generates a new pair"
    ways = dict.fromkeys(_restored(workspace, path) for path in paths)
    return "; ".join(ways)


def _restored(workspace: Workspace, lost: Path) -> str:
    """How to restore a file of a pair; if that is impossible, the lab has to be created again."""
    if lost.suffix == ".pub":
        private = lost.with_suffix("")
        return f"`ssh-keygen -y -f {quoting.word(private)} > {quoting.word(lost)}` creates it again"
    if lost == etcd_ca_files(workspace)[1]:
        return (
            "restore it: no machine has it. Without it no certificate of etcd can be made or renewed; you need "
            "`./inv destroy`, then `./inv up`, before those end"
        )
    if lost.suffix in (".crt", ".key"):
        there = f"/etc/kubernetes/pki/{lost.name.replace('etcd-', 'etcd/')}"
        fetch = f"./inv ssh {_control_plane(workspace)} -- sudo cat {there} > {quoting.word(lost)}"
        return f"restore it: each control plane has it in {there} (`{fetch}`)"
    return "restore it; without it you can't log in to any machine, and need `./inv destroy`, then `./inv up`"


def _control_plane(workspace: Workspace) -> str:
    try:
        record = made.read(workspace)
    except LabStateError:
        record = None
    return record.lab.first.name if record else "NAME"


def _given_ca(workspace: Workspace, name: str) -> tuple[Path, bytes] | None:
    """The CA that a machine was given as the file `name`, as last rendered; None if there is none.

    The cluster's own CA is not used: a cluster that was created manually may have another one, and `up` refuses
    it.
    """
    for path in sorted((workspace.root / "nodes").glob(f"*/{name}")):
        try:
            content = path.read_bytes()
        except OSError:
            continue
        if certificate_problem(content) is None:
            return path, content
    return None
