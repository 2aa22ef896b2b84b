"""Accesses a flat Debian repository with apt, as any user, separately from the host's own apt.

apt verifies that the index is signed by the pinned key, and that each package matches the index. It uses
separate folders and settings; of the host's, only the CA bundle and the logins (apt_auth.conf(5)).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from lab.errors import LabError
from lab.golden.supply import hosts
from lab.golden.supply.recipe import architecture
from lab.system import process

TIMEOUT = 900.0
"""Seconds for one command, while data arrives; for a silent host, apt itself times out much sooner."""

HELPER = "/usr/lib/apt/apt-helper"

SETTINGS = """\
Dir::Etc::Main "/dev/null";
Dir::Etc::Parts "/dev/null";
Dir::Etc::SourceList "{folder}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Trusted "/dev/null";
Dir::Etc::TrustedParts "{folder}/keys";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "{folder}";
Dir::State::Lists "{folder}/lists";
Dir::State::Status "{folder}/status";
Dir::Cache "{folder}/cache";
Dir::Cache::PkgCache "";
Dir::Cache::SrcPkgCache "";
Dir::Log "{folder}";
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Sandbox::User "";
APT::Get::AllowUnauthenticated "false";
APT::Update::Error-Mode "any";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
Acquire::Languages "none";
Acquire::Retries "0";
Acquire::http::Timeout "{patience}";
Acquire::https::Timeout "{patience}";
"""


@dataclass(frozen=True)
class Entry:
    """One package in a repository's index."""

    name: str
    version: str
    architecture: str
    sha256: str


@dataclass(frozen=True)
class Repository:
    """A flat repository at `url`, asked from `folder`; only what `fingerprint`'s key signed is believed."""

    url: str
    fingerprint: str
    folder: Path
    log: Path

    @property
    def host(self) -> str:
        """The host's name, for messages."""
        return urlsplit(self.url).netloc

    def trust(self, key: str) -> None:
        """Lay out apt's folder. `key` is ASCII-armoured; of the keys in it, only the pinned one counts."""
        for name in ("lists/partial", "cache/archives/partial", "keys"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        texts = {
            "status": "",
            "keys/release.asc": key,
            "sources.list": f"deb [arch={architecture()} signed-by={self.fingerprint}] {self.url} /\n",
            "apt.conf": SETTINGS.format(
                folder=self.folder, architecture=architecture(), patience=hosts.PATIENCE // 2
            ),
        }
        for name, text in texts.items():
            (self.folder / name).write_text(text, encoding="utf-8")

    def signing_key(self) -> str:
        """Fetch the key that the repository says it is signed with; it proves nothing by itself."""
        self.trust("")
        file = self.folder / "Release.key"
        self._apt(HELPER, "download-file", f"{self.url}Release.key", str(file), what="its signing key")
        return file.read_text(encoding="utf-8", errors="replace")

    def update(self, key: str) -> None:
        """Fetch the index and verify its signature. Raises LabError."""
        self.trust(key)
        self._apt("apt-get", "update", what="the index of Kubernetes' packages")

    def entries(self) -> tuple[Entry, ...]:
        """Return what the index lists, of all architectures."""
        listed = self._apt("apt-get", "indextargets", "--format", "$(FILENAME)", what="the index", logged=False)
        text = "\n\n".join(Path(name).read_text(encoding="utf-8") for name in listed.splitlines() if name)
        found = []
        for paragraph in text.split("\n\n"):
            wanted = r"^(Package|Version|Architecture|SHA256): (.*)$"
            fields = dict(re.findall(wanted, paragraph, re.MULTILINE))
            if len(fields) == 4:
                values = (fields[name] for name in ("Package", "Version", "Architecture", "SHA256"))
                found.append(Entry(*values))
        return tuple(found)

    def download(self, name: str, version: str, pinned: str) -> Path:
        """Return the file of one package, fetched if it isn't there. Raises LabError.

        `pinned` is its SHA-256 sum: the index, though signed, may name another file by the same version.
        """
        for file in self.folder.glob(f"{name}_*.deb"):
            if sha256(file) == pinned:
                return file
            file.unlink()
        self._apt("apt-get", "download", f"{name}={version}", what=f"the package {name} {version}")
        (file,) = self.folder.glob(f"{name}_*.deb")
        if sha256(file) != pinned:
            raise LabError(
                f"the package {name} {version} of {self.host} has another sum than the pinned one",
                hint=f"{hosts.PUBLISHED_AGAIN}; else {hosts.NOT_TO_TRUST}",
                log=self.log,
            )
        return file

    def unpack(self, package: Path) -> Path:
        """Unpack a package's files below a folder of its own, and return that."""
        target = self.folder / "unpacked" / package.stem
        target.mkdir(parents=True, exist_ok=True)
        process.run(["dpkg-deb", "--extract", package, target], log=self.log, timeout=300)
        return target

    def _apt(self, *words: str, what: str, logged: bool = True) -> str:
        with hosts.explained(what, self.host):
            return process.run(
                words,
                cwd=self.folder,
                env={"APT_CONFIG": str(self.folder / "apt.conf")},
                log=self.log if logged else None,
                timeout=TIMEOUT,
            ).stdout


def sha256(file: Path) -> str:
    """Return a file's SHA-256 sum, in hex."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
