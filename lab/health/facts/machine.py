"""This room reads what provision/node/facts.sh printed on one machine.

Facts are read when a check asks for them, so that one answer that is missing or can't be read keeps only
those checks from being judged that need it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lab.health.cluster import BackendFact, MemberFact, read_backends, read_members
from lab.health.facts.certificates import CertificateFact, read_certificates
from lab.paths import PROVISION
from lab.unknown import CouldNotAsk

SCRIPTS = (PROVISION / "node" / "facts.sh", PROVISION / "node" / "pods.sh")
MARK = re.compile(r"^== ([a-z0-9.-]+) (\d+)$", re.MULTILINE)
TIMED_OUT = (124, 137)
"""timeout(1): ran out of time; killed after that."""


@dataclass(frozen=True)
class Section:
    """One answer: the command's exit code and what it printed."""

    code: int
    text: str


@dataclass(frozen=True)
class ServiceFact:
    """A systemd unit: whether it runs now, and whether it would after a reboot."""

    name: str
    running: bool
    enabled: bool


@dataclass(frozen=True)
class Identity:
    """What must tell machines apart; `product_uuid` is "none" where the kernel shows no such file."""

    hostname: str
    machine_id: str
    product_uuid: str
    mac: str
    host_key: str


@dataclass(frozen=True)
class EtcdStatus:
    """One etcd member of itself: ids as numbers, `version` of the server."""

    member: int
    leader: int
    term: int
    index: int
    learner: bool
    version: str


@dataclass(frozen=True)
class Machine:
    """One machine's answers by name, and by how many seconds its clock is certainly off from this host's."""

    name: str
    sections: Mapping[str, Section]
    skew: float

    def section(self, name: str) -> Section:
        """An answer, whatever its exit code. Raises CouldNotAsk when there was none in time."""
        section = self.sections.get(name)
        if section is None:
            raise CouldNotAsk(f"{self.name} said nothing of {name}")
        if section.code in TIMED_OUT:
            raise CouldNotAsk(f"{self.name} did not tell {name} in time")
        return section

    def text(self, name: str) -> str:
        """What a command printed that ended well. Raises CouldNotAsk when it did not."""
        section = self.section(name)
        if section.code:
            said = (section.text.strip().splitlines() or ["nothing"])[-1]
            raise CouldNotAsk(f"{self.name} could not tell {name} (exit code {section.code}): {said}")
        return section.text

    @property
    def hostname(self) -> str:
        """What the machine calls itself."""
        return self.text("here").splitlines()[0].strip()

    @property
    def own_addresses(self) -> tuple[str, ...]:
        """What the machine's own name resolves to, there."""
        return tuple(" ".join(self.text("here").splitlines()[1:]).split())

    @property
    def identity(self) -> Identity:
        """What tells this machine from the others."""
        said = dict(line.split(" ", 1) for line in self.text("identity").splitlines() if " " in line)
        try:
            return Identity(
                self.hostname, said["machine-id"], said["product-uuid"], said["mac"], said["host-key"]
            )
        except KeyError as missing:
            raise CouldNotAsk(f"{self.name} did not tell its {missing.args[0]}") from None

    @property
    def services(self) -> dict[str, ServiceFact]:
        """The systemd units this machine's part needs, by name without `.service`."""
        found = {}
        for block in self.text("services").strip().split("\n\n"):
            said = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            name = said.get("Id", "").removesuffix(".service")
            found[name] = ServiceFact(
                name, said.get("ActiveState") == "active", said.get("UnitFileState") == "enabled"
            )
        return found

    @property
    def certificates(self) -> tuple[CertificateFact, ...]:
        """Every certificate that the machine keeps for its part of the cluster."""
        return read_certificates(self.text("certificates"))

    def certificate(self, path: str) -> CertificateFact:
        """The first certificate of a file. Raises CouldNotAsk when there is no such file."""
        for certificate in self.certificates:
            if certificate.path == path:
                return certificate
        raise CouldNotAsk(f"{self.name} has no certificate in {path}")

    @property
    def backends(self) -> dict[str, BackendFact]:
        """HAProxy's view of each API server, by name; if it could be, while none was just being checked."""
        return _by_name(self.text("backends"))

    @property
    def spread(self) -> dict[str, int]:
        """How many of a dozen new connections each API server took."""
        before, _, after = self.text("spread").partition("-- after\n")
        earlier = _by_name(before)
        return {
            name: backend.sessions - earlier[name].sessions
            for name, backend in _by_name(after).items()
            if name in earlier
        }

    @property
    def etcd_members(self) -> tuple[MemberFact, ...]:
        """All of etcd's members as this machine's own one lists them, by id."""
        return read_members(self.text("etcd-members"))

    @property
    def etcd_status(self) -> EtcdStatus:
        """What this machine's etcd member says of itself."""
        status = json.loads(self.text("etcd-status"))[0]["Status"]
        header: dict[str, Any] = status["header"]
        return EtcdStatus(
            header["member_id"],
            status.get("leader", 0),
            status.get("raftTerm", 0),
            status.get("raftIndex", 0),
            bool(status.get("isLearner", False)),
            status.get("version", ""),
        )

    @property
    def etcd_alarms(self) -> tuple[str, ...]:
        """Alarms that are raised in etcd, such as NOSPACE (etcd's rpc.proto, AlarmType)."""
        kinds = {1: "NOSPACE", 2: "CORRUPT"}
        alarms = json.loads(self.text("etcd-alarms")).get("alarms") or []
        return tuple(kinds.get(alarm.get("alarm", 0), str(alarm.get("alarm"))) for alarm in alarms)

    @property
    def cgroup_drivers(self) -> dict[str, str]:
        """`containerd` and `kubelet`: who manages their cgroups, as each is configured."""
        said = dict(line.split() for line in self.text("cgroup-drivers").splitlines() if len(line.split()) == 2)
        if "containerd" in said:
            said["containerd"] = "systemd" if said["containerd"] == "true" else "cgroupfs"
        return said

    @property
    def kernel(self) -> dict[str, str]:
        """Kernel settings by name."""
        return dict(line.split(" = ", 1) for line in self.text("kernel").splitlines() if " = " in line)


def read_machine(name: str, text: str, asked: float, answered: float) -> Machine:
    """Read what facts.sh printed; `asked` and `answered` are this host's clock around that, in seconds.

    Raises CouldNotAsk when the machine ran another checkout's script, or none at all.
    """
    sections = read_sections(text)
    if "script" not in sections or sections["script"].text.split(" ")[0] != own_scripts():
        raise CouldNotAsk(f"{name} has another checkout's facts.sh: `./inv up` gives it this one's")
    return Machine(name, sections, _skew(sections, asked, answered))


def own_scripts() -> str:
    """The hash of this checkout's scripts, as facts.sh tells that of a machine's own."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in SCRIPTS)).hexdigest()


def read_sections(text: str) -> dict[str, Section]:
    """Read `== NAME CODE` and what follows it: name → section."""
    parts = MARK.split(text)
    return {
        name: Section(int(code), body.removeprefix("\n").removesuffix("\n"))
        for name, code, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)
    }


def _by_name(stat: str) -> dict[str, BackendFact]:
    return {backend.name: backend for backend in read_backends(stat)}


def _skew(sections: Mapping[str, Section], asked: float, answered: float) -> float:
    """How far the machine's clock lies outside the time in which it was asked; 0 when it lies within."""
    clock = float(sections["clock"].text) if "clock" in sections else asked
    return max(asked - clock, clock - answered, 0.0)
