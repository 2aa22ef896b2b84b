"""Judges the files of the lab's own keys: whether each can be read, and is the other half of its pair.

Machines are created from them, so a file that was emptied or exchanged is reported before any program fails at
it, with the least that gets it back.
"""

from __future__ import annotations

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

READABLE = "make it a file of yours that you can read"
FORMS = (x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, UnsupportedAlgorithm)


@dataclass(frozen=True)
class Unusable:
    """Why a file can't be used, and how it can be had again."""

    what: str
    way_back: str


def ca_files(workspace: Workspace) -> tuple[Path, Path]:
    """The cluster's CA: its certificate and its private key."""
    return workspace.secrets / "ca.crt", workspace.secrets / "ca.key"


def ssh_key_files(workspace: Workspace) -> tuple[Path, Path]:
    """The lab's ssh key: its public and its private half."""
    return workspace.secrets / "id_ed25519.pub", workspace.secrets / "id_ed25519"


def ca_problem(workspace: Workspace) -> Unusable | None:
    """Why the cluster's CA can't be used; None where it can, or was not made yet."""
    certificate, key = ca_files(workspace)
    problem = _pair_problem(workspace, {certificate: _key_of_certificate, key: _key_of_pem})
    given = _given_ca(workspace) if workspace.has_machines() else None
    if problem or given is None:
        return problem
    if not certificate.exists():
        return _both_gone(workspace, certificate, key)
    if given[1].strip() != certificate.read_bytes().strip():
        what = f"{certificate} is another CA than the one that the machines were given ({given[0]})"
        return Unusable(what, file_way_back(workspace, certificate, key))
    return None


def ssh_key_problem(workspace: Workspace) -> Unusable | None:
    """Why the lab's ssh key can't be used; None where it can, or was not made yet."""
    public, private = ssh_key_files(workspace)
    problem = _pair_problem(workspace, {public: _key_of_ssh_line, private: _key_of_ssh})
    if not problem and not private.exists() and workspace.has_machines() and workspace.ssh_config.exists():
        return _both_gone(workspace, private, public)
    return problem


def certificate_problem(content: bytes) -> str | None:
    """Why a file with that content holds no certificate; None where it does."""
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
            # Another would lock the machines out that trust it.
            what = f"{path} is gone, and what was created from it is still in use"
            return Unusable(what, _restored(workspace, path))
        key, reason = _read(contents[path], reader)
        if reason:
            return Unusable(f"{path} {reason}", file_way_back(workspace, path))
        found.append(key)
    if found[0] != found[1]:
        first, second = readers
        return Unusable(f"{second} is not the key of {first}", file_way_back(workspace, first, second))
    return None


def _both_gone(workspace: Workspace, first: Path, second: Path) -> Unusable:
    what = f"{first} and {second} are gone, and the machines know no others"
    return Unusable(what, file_way_back(workspace, first, second))


def _read(
    content: bytes, reader: Callable[[bytes], PublicKeyTypes]
) -> tuple[PublicKeyTypes | None, str | None]:
    """The public key that a file stands for, or why there is none. What a library says may quote the file."""
    if not content.strip():
        return None, "is empty"
    try:
        return reader(content), None
    except TypeError:
        return None, "is protected by a passphrase, which the kit does not have"
    except (ValueError, *FORMS):
        return None, f"holds no {KINDS[reader]} that can be read"


def _key_of_certificate(content: bytes) -> PublicKeyTypes:
    # The extensions, too: what they hold is only read when it is asked for.
    certificate = x509.load_pem_x509_certificate(content)
    _ = certificate.extensions, certificate.not_valid_after_utc
    return certificate.public_key()


def _key_of_pem(content: bytes) -> PublicKeyTypes:
    # An RSA key's own checks take 40 ms, and what is asked for here is its public half.
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


def file_way_back(workspace: Workspace, *paths: Path) -> str:
    """What to do about these files of one pair; with no machine, another pair costs nothing."""
    if not workspace.has_machines():
        pair = ca_files(workspace) if paths[0] in ca_files(workspace) else ssh_key_files(workspace)
        files = " ".join(quoting.word(each) for each in pair)
        return f"no machine was made from it: `rm {files}`, and the next run makes another pair"
    ways = dict.fromkeys(_restored(workspace, path) for path in paths)
    return "; ".join(ways)


def _restored(workspace: Workspace, lost: Path) -> str:
    """How a file of a pair can be had again; the machines are made again only where it can't."""
    if lost.suffix == ".pub":
        private = lost.with_suffix("")
        return f"`ssh-keygen -y -f {quoting.word(private)} > {quoting.word(lost)}` makes it again"
    if lost.suffix in (".crt", ".key"):
        there = f"/etc/kubernetes/pki/{lost.name}"
        fetch = f"./inv ssh {_control_plane(workspace)} -- sudo cat {there} > {quoting.word(lost)}"
        return f"restore it: each control plane has it in {there} (`{fetch}`)"
    return "restore it; without it you can't log in to any machine, and need `./inv destroy`, then `./inv up`"


def _control_plane(workspace: Workspace) -> str:
    try:
        record = made.read(workspace)
    except LabStateError:
        record = None
    return record.lab.first.name if record else "NAME"


def _given_ca(workspace: Workspace) -> tuple[Path, bytes] | None:
    """The CA that a machine was given, as rendered last; None where there is none to compare with.

    A cluster's own says less: one that was created manually may have another CA, which is for `up` to refuse.
    """
    for path in sorted((workspace.root / "nodes").glob("*/ca.crt")):
        try:
            content = path.read_bytes()
        except OSError:
            continue
        if certificate_problem(content) is None:
            return path, content
    return None
