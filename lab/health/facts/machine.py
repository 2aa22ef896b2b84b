"""Reading what provision/node/facts.sh printed on one machine.

Facts are read when a check asks for them, so that one answer that is missing or can't be read keeps only
those checks from being judged that need it. Every fact raises CouldNotAsk then, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from lab.health.cluster import BackendFact, MemberFact, read_backends, read_members
from lab.health.facts.certificates import CertificateFact, read_certificates
from lab.health.reading import UNREADABLE, listed, mapping, number, read, text
from lab.host.reach import read_reach
from lab.system.paths import PROVISION
from lab.system.redact import redacted
from lab.unknown import CouldNotAsk, Unknown

SCRIPTS = (PROVISION / "node" / "facts.sh", PROVISION / "node" / "pods.sh")
T = TypeVar("T")
MARK = re.compile(r"^== ([a-z0-9.-]+) ([0-9]{1,3})$", re.MULTILINE)
KLOG = re.compile(r"^[EF]\d{4} \S+ +\d+ \S+\] ")
"""Severity, date, time, process and place, which klog puts before a message (its klog.go, `formatHeader`)."""

TIMED_OUT = (124, 137)
"""timeout(1): ran out of time; killed after that."""

LOOP, STEADY = 3, 60.0
"""Restarts after which a unit dies again and again, unless its process has run for so many seconds by now."""


@dataclass(frozen=True)
class Section:
    """One answer: the command's exit code and what it printed."""

    code: int
    text: str


@dataclass(frozen=True)
class ServiceFact:
    """A systemd unit: whether it runs now, and whether it would after a reboot.

    `restarts` is how often systemd restarted it by itself, `started` when its process began, in seconds of the
    machine's clock; None for one that never had one.
    """

    name: str
    running: bool
    enabled: bool
    restarts: int
    started: float | None


@dataclass(frozen=True)
class Identity:
    """Values that must differ between machines; `product_uuid` is "none" if the kernel has no such file."""

    hostname: str
    machine_id: str
    product_uuid: str
    mac: str
    host_key: str


@dataclass(frozen=True)
class AddressFact:
    """Where a machine has the virtual address: `here`, or by its neighbour table at that MAC; "" if unknown."""

    here: bool
    mac: str


@dataclass(frozen=True)
class MetricsFact:
    """An answer to a question for metrics: HTTP's status, 0 without one, and curl's words why not."""

    status: int
    words: str


@dataclass(frozen=True)
class EtcdStatus:
    """An etcd member's own status: ids as numbers, `version` of the server.

    `revision` is that of its data, `size` that of the database in bytes. `storage` is the version of the
    database's format, "" before 3.6; `downgrading`: a downgrade of all members was enabled and is not complete.
    """

    member: int
    leader: int
    term: int
    index: int
    learner: bool
    version: str
    revision: int = 0
    size: int = 0
    storage: str = ""
    downgrading: bool = False


@dataclass(frozen=True)
class Machine:
    """One machine's answers by name, and by how many seconds its clock is certainly off from this host's."""

    name: str
    sections: Mapping[str, Section]
    skew: float | Unknown

    def section(self, name: str) -> Section:
        """An answer, whatever its exit code. Raises CouldNotAsk when there was none in time."""
        section = self.sections.get(name)
        if section is None:
            raise CouldNotAsk(f"{self.name} said nothing of {name}")
        if section.code in TIMED_OUT:
            raise CouldNotAsk(f"{self.name} did not report {name} in time")
        return section

    def text(self, name: str) -> str:
        """What a command printed that ended well. Raises CouldNotAsk when it did not."""
        section = self.section(name)
        if section.code:
            said = (section.text.strip().splitlines() or ["nothing"])[-1]
            raise CouldNotAsk(f"{self.name} could not report {name} (exit code {section.code}): {said}")
        return section.text

    def _read(self, name: str, reader: Callable[[str], T]) -> T:
        """What a reader makes of an answer. Raises CouldNotAsk where there is none, or it can't be read."""
        return read(f"{self.name}'s answer to {name}", self.text(name), reader)

    @property
    def hostname(self) -> str:
        """What the machine calls itself."""
        return self._read("here", _hostname)

    @property
    def own_addresses(self) -> tuple[str, ...]:
        """What the machine's own name resolves to, there."""
        return tuple(" ".join(self.text("here").splitlines()[1:]).split())

    @property
    def identity(self) -> Identity:
        """The values that distinguish this machine from the others."""
        said = self._read("identity", _identity)
        return Identity(self.hostname, said["machine-id"], said["product-uuid"], said["mac"], said["host-key"])

    @property
    def services(self) -> dict[str, ServiceFact]:
        """The systemd units this machine's part needs, by name without `.service`."""
        return self._read("services", _services)

    @property
    def clock(self) -> float:
        """The time on the machine when it answered, in seconds since 1970."""
        return self._read("clock", _clock)

    def restart_loop(self, service: ServiceFact) -> str | None:
        """How often a service was restarted if it dies again and again; None where it does not.

        systemd counts the restarts that it makes by itself, and starts from 0 when a unit is started otherwise
        (systemd's service.c, `flush_n_restarts`). A unit that dies soon after each start is "active" meanwhile.
        """
        if service.restarts < LOOP or service.started is None:
            return None
        ago = self.clock - service.started
        if ago >= STEADY:
            return None
        return f"systemd has restarted {service.name} {service.restarts} times, last {ago:.0f} s ago"

    @property
    def membership(self) -> str:
        """What the machine has of a cluster, in a word of probe.sh: fresh, partial, damaged or joined."""
        return self._read("membership", lambda said: said.split()[0])

    @property
    def broken_files(self) -> tuple[str, ...]:
        """Which of its files are missing or broken, and how, a phrase each."""
        return tuple(self.text("membership").splitlines()[1:])

    @property
    def unfinished(self) -> tuple[str, ...]:
        """What `up` has still to do for the cluster, as this control plane sees it: lines of unfinished.sh."""
        return tuple(self.text("unfinished").splitlines())

    @property
    def kubelet_error(self) -> str:
        """The last error of a kubelet that systemd restarted several times, without klog's header; else ""."""
        return redacted(KLOG.sub("", self.text("kubelet-error").strip()))

    @property
    def certificates(self) -> tuple[CertificateFact, ...]:
        """Every certificate that the machine keeps for its part of the cluster."""
        return self._read("certificates", read_certificates)

    @property
    def reach(self) -> dict[str, str]:
        """The load balancers and the control planes but itself, and why each is not reached; "" where it is."""
        return self._read("reach", read_reach)

    @property
    def given(self) -> str:
        """The hash of all that `up` gave the machine for good, in hex: the kit's folder, and proxies."""
        return self._read("given", lambda said: said.split()[0])

    @property
    def pod_network_interface(self) -> frozenset[str]:
        """The flags of flannel's interface, such as `UP`."""
        return self._read("pod-network-interface", _link_flags)

    @property
    def policy_chains(self) -> tuple[str, ...]:
        """Chains that a kube-router which runs no more has left; asked only where lab.yaml wants none."""
        return tuple(self.text("policy-chains").split())

    @property
    def service_account_key(self) -> str:
        """The hash of the key by which service accounts' tokens are verified, in hex."""
        return self._read("service-account-key", lambda said: said.split()[0])

    def certificate(self, path: str) -> CertificateFact:
        """The first certificate of a file. Raises CouldNotAsk when there is no such file."""
        for certificate in self.certificates:
            if certificate.path == path:
                return certificate
        raise CouldNotAsk(f"{self.name} has no certificate in {path}")

    @property
    def backends(self) -> dict[str, BackendFact]:
        """HAProxy's view of each API server, by name; if it could be, while none was just being checked."""
        return self._read("backends", _by_name)

    @property
    def spread(self) -> dict[str, int]:
        """How many of a dozen new connections each API server took."""
        return self._read("spread", _spread)

    @property
    def virtual_address(self) -> AddressFact:
        """Where this machine has the address that two load balancers share; asked only where there are two."""
        return self._read("virtual-address", _address)

    @property
    def keepalived_files(self) -> tuple[str, ...]:
        """The files of keepalived's that are not the lab's; asked only where there are two load balancers."""
        return tuple(self.text("keepalived-files").splitlines())

    @property
    def etcd_members(self) -> tuple[MemberFact, ...]:
        """All of etcd's members as this machine's own one lists them, by id."""
        return self._read("etcd-members", read_members)

    @property
    def etcd_stored_members(self) -> tuple[MemberFact, ...]:
        """The same list as this machine's member has stored it, which needs no majority; only on request."""
        return self._read("etcd-stored-members", read_members)

    @property
    def etcd_status(self) -> EtcdStatus:
        """What this machine's etcd member says of itself."""
        return self._read("etcd-status", read_etcd_status)

    @property
    def etcd_health(self) -> str:
        """The word "healthy", or why this machine's etcd member is not: its word, or etcdctl's last line."""
        section = self.section("etcd-health")
        if not section.code:
            return self._read("etcd-health", _etcd_health)
        try:
            return _etcd_health(section.text)
        except UNREADABLE:  # etcdctl failed, so what it says is why
            return (section.text.strip().splitlines() or ["no answer"])[-1][:300]

    @property
    def etcd_alarms(self) -> tuple[str, ...]:
        """Alarms that are raised in etcd, such as NOSPACE (etcd's rpc.proto, AlarmType)."""
        return self._read("etcd-alarms", _alarms)

    @property
    def metrics(self) -> dict[str, dict[str, MetricsFact]]:
        """What parts of a control plane answer when their metrics are asked for, by name and by who asked."""
        return self._read("metrics", _metrics)

    @property
    def cgroup_drivers(self) -> dict[str, str]:
        """`containerd` and `kubelet`: who manages their cgroups, as each is configured."""
        return self._read("cgroup-drivers", _cgroup_drivers)

    @property
    def kernel(self) -> dict[str, str]:
        """Kernel settings by name."""
        return self._read("kernel", lambda said: _pairs(said, " = "))


def read_machine(name: str, text: str, asked: float, answered: float) -> Machine:
    """Read what facts.sh printed; `asked` and `answered` are this host's clock around that, in seconds.

    Raises CouldNotAsk when the machine ran another checkout's script, or none at all.
    """
    sections = read_sections(text)
    if "script" not in sections or sections["script"].text.split(" ")[0] != own_scripts():
        raise CouldNotAsk(f"{name} has another checkout's facts.sh: `./inv up` gives it this one's")
    return Machine(name, sections, _skew(name, sections, asked, answered))


def own_scripts() -> str:
    """The hash of this checkout's scripts, as facts.sh reports that of a machine's own."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in SCRIPTS)).hexdigest()


def read_sections(text: str) -> dict[str, Section]:
    """Read `== NAME CODE` and what follows it: name → section."""
    parts = MARK.split(text)
    return {
        name: Section(int(code), body.removeprefix("\n").removesuffix("\n"))
        for name, code, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)
    }


def _pairs(said: str, between: str) -> dict[str, str]:
    """Lines of a name and what it has. Raises ValueError of any other line, and where there is none."""
    found = dict(line.split(between, 1) for line in said.splitlines() if line.strip())
    if not found:
        raise ValueError("nothing is in it")
    return found


def _hostname(said: str) -> str:
    return said.splitlines()[0].strip()


def _identity(said: str) -> dict[str, str]:
    found = _pairs(said, " ")
    missing = [name for name in ("machine-id", "product-uuid", "mac", "host-key") if not found.get(name)]
    if missing:
        raise ValueError(f"no {', '.join(missing)}")
    return found


def _services(said: str) -> dict[str, ServiceFact]:
    found = {}
    for block in said.strip().split("\n\n"):
        unit = _pairs(block, "=")
        name = unit["Id"].removesuffix(".service")
        found[name] = ServiceFact(
            name,
            unit["ActiveState"] == "active",
            unit["UnitFileState"] == "enabled",
            int(unit["NRestarts"]),
            _started(unit["ExecMainStartTimestamp"]),
        )
    return found


def _started(said: str) -> float | None:
    """Read a timestamp of `systemctl show --timestamp=unix`; it is empty where there was none."""
    return float(said.removeprefix("@")) if said.startswith("@") else None


def _by_name(stat: str) -> dict[str, BackendFact]:
    return {backend.name: backend for backend in read_backends(stat)}


def _spread(said: str) -> dict[str, int]:
    before, after = (_by_name(each) for each in said.split("-- after\n"))
    return {name: backend.sessions - before[name].sessions for name, backend in after.items() if name in before}


def _address(said: str) -> AddressFact:
    word, _, mac = said.strip().partition(" ")
    if word not in ("holds", "sees"):
        raise ValueError("neither held nor seen")
    return AddressFact(word == "holds", mac)


def read_etcd_status(said: str) -> EtcdStatus:
    """Read `etcdctl endpoint status --write-out json` of one member.

    Raises one of UNREADABLE where it is none.
    """
    status = mapping(json.loads(said)[0]["Status"])
    return EtcdStatus(
        number(status["header"]["member_id"]),
        number(status.get("leader", 0)),
        number(status.get("raftTerm", 0)),
        number(status.get("raftIndex", 0)),
        bool(status.get("isLearner", False)),
        text(status.get("version", "")),
        number(status["header"].get("revision", 0)),
        number(status.get("dbSize", 0)),
        text(status.get("storageVersion", "")),
        bool(mapping(status.get("downgradeInfo", {})).get("enabled", False)),
    )


def _etcd_health(said: str) -> str:
    answer = mapping(json.loads(said)[0])
    return "healthy" if answer["health"] is True else text(answer.get("error", "not healthy"))


def _alarms(said: str) -> tuple[str, ...]:
    kinds = {1: "NOSPACE", 2: "CORRUPT"}
    alarms: Any = json.loads(said).get("alarms") or []
    return tuple(kinds.get(code, str(code)) for code in (number(alarm["alarm"]) for alarm in listed(alarms)))


def _metrics(said: str) -> dict[str, dict[str, MetricsFact]]:
    found: dict[str, dict[str, MetricsFact]] = {}
    for line in said.splitlines():
        name, who, status, *words = line.split()
        found.setdefault(name, {})[who] = MetricsFact(int(status), " ".join(words))
    if not found:
        raise ValueError("nothing is in it")
    return found


def _link_flags(text: str) -> frozenset[str]:
    """Of `flannel.1 UNKNOWN 56:cf:ef:57:f9:92 <BROADCAST,MULTICAST,UP,LOWER_UP>`, which is a link in brief."""
    found = re.search(r"<([A-Z,_-]*)>", text)
    if not found:
        raise ValueError("no flags of an interface")
    return frozenset(found[1].split(","))


def _cgroup_drivers(said: str) -> dict[str, str]:
    found = {}
    for line in said.splitlines():
        name, value = line.split()
        found[name] = value
    if "containerd" in found:
        found["containerd"] = "systemd" if found["containerd"] == "true" else "cgroupfs"
    return found


def _skew(name: str, sections: Mapping[str, Section], asked: float, answered: float) -> float | Unknown:
    """How far the machine's clock lies outside the time in which it was asked; 0 when it lies within."""
    if "clock" not in sections:
        return Unknown(f"{name} said nothing of clock")
    try:
        clock = read(f"{name}'s answer to clock", sections["clock"].text, _clock)
    except CouldNotAsk as error:
        return Unknown(error.message, answered=True)
    return max(asked - clock, clock - answered, 0.0)


def _clock(said: str) -> float:
    clock = float(said)
    if not math.isfinite(clock):
        raise ValueError("no time")
    return clock
