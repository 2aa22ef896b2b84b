"""Gathers all facts once, in parallel: from machines, the API, test pods, and files on this host."""

from __future__ import annotations

import dataclasses
import stat
import time
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lab import providers
from lab.errors import LabError, LabStateError
from lab.health.cluster import Api
from lab.health.facts.admission import AdmissionFacts, ask_admission
from lab.health.facts.apart import ask_obstacle
from lab.health.facts.api import ANSWER_TIMEOUT, ApiFacts, ask_api, ask_restarts, open_api
from lab.health.facts.certificates import read_certificate
from lab.health.facts.machine import Machine, read_machine
from lab.health.facts.probes import ProbeFacts, ask_probes
from lab.health.reading import read, server_in
from lab.host import network
from lab.host.doctor.forwarding import Obstacle
from lab.model import Lab, Node
from lab.providers import MachineState
from lab.remote import SILENT_SSH, SSH_FAILED, Remote
from lab.unknown import CouldNotAsk, Unknown, asked, known
from lab.workspace import Workspace, made
from lab.workspace.kubeconfig import client_validity
from lab.workspace.render import credentials
from lab.workspace.render.credentials import Validity


class Asker(Protocol):
    """Runs COMMAND on a machine, as root, within MACHINE_TIMEOUT, and returns what it printed.

    That is nothing where there is no such script. Raises LabError when the machine does not answer.
    """

    def __call__(self, node: Node, *answers: str) -> str:
        """Ask for these answers, or for all that every machine of its role is asked."""


COMMAND = "/opt/ha-lab/facts.sh"
PROBES_TIMEOUT = 10.0
"""Seconds for one of the API's answers on which everything that pods report depends."""

MACHINE_TIMEOUT = 20.0
"""Seconds for a machine to report everything; 1 s is usual."""


OF_ONE = "unfinished"
"""An answer about the cluster that one control plane gives for all of them: it takes a second of CPU."""

NOT_ASKED = Unknown("what admits pods was not asked")
OFF: Mapping[MachineState, str] = {
    "paused": "is paused",
    "stopped": "is stopped",
    "incomplete": "was not made completely",
    "absent": "does not exist",
}
"""What is said of a machine that does not run, by its state."""


@dataclass(frozen=True)
class HostFiles:
    """What this host keeps of the lab: modes, and where the kubeconfig points. `open_secrets` are paths.

    Without a kubeconfig yet its mode is 0 and it points at "". `ca_valid` is when the CA's certificate is
    valid; None where there is no CA yet. `client_valid` is the same of the kubeconfig's client certificate.
    """

    kubeconfig_mode: int
    kubeconfig_server: str
    ca: str
    secrets_mode: int
    open_secrets: tuple[str, ...]
    ca_valid: Validity | Unknown | None = None
    client_valid: Validity | Unknown | None = None

    @property
    def ca_sha256(self) -> str:
        """The hash of the lab's CA certificate, in hex. Raises CouldNotAsk where that can't be read."""
        return read(".lab/secrets/ca.crt", self.ca, lambda pem: read_certificate("", pem).sha256)


@dataclass(frozen=True)
class Facts:
    """All that is known of a running lab, at one moment.

    `off` are machines that do not answer since they do not run, with the state in which the provider has them,
    `obstacle` is what on this host keeps machines from reaching one another, where they do not, `upgrading` the
    Kubernetes version that an upgrade under way leads to, "" if none is. `neighbour` is the MAC to which this
    host sends packets for the virtual address, "" if it knows none; None if there is no such address, the
    machines are on another host, or the API was not asked.
    """

    machines: Mapping[str, Machine | Unknown]
    api: ApiFacts
    probes: ProbeFacts | Unknown
    files: HostFiles | Unknown
    admission: AdmissionFacts | Unknown = NOT_ASKED
    off: Mapping[str, MachineState] = field(default_factory=dict)
    obstacle: Obstacle | None = None
    upgrading: str = ""
    neighbour: str | Unknown | None = None

    def machine(self, node: Node) -> Machine:
        """One machine's own answers. Raises CouldNotAsk when it gave none."""
        return known(self.machines[node.name])


def gather(
    lab: Lab,
    workspace: Workspace,
    remote: Remote,
    asker: Asker,
    *,
    probes: bool,
    answers: Collection[str] = (),
    of: Collection[Node] | None = None,
    cluster: bool = True,
    admission: bool = False,
) -> Facts:
    """Ask everything once. Never raises LabError: what can't be asked is Unknown.

    The caller has made sure that the lab's network is up. Machines are asked for these answers; for all where
    none is named, OF_ONE then of one control plane only, and not where `cluster` is false. With `probes`,
    pods are run on every node, which takes most of the time; without, what they would report is Unknown. So
    is what other machines than `of` would, and what the API would where `cluster` is false. With `admission`,
    the API is also asked what may keep pods from being created. Whether a machine that does not answer runs,
    the provider is asked; what keeps machines from reaching one another, where they do not, this host's
    firewall.
    """
    files = _host_files(workspace)
    unasked = Unknown("the API was not asked")
    api = open_api(workspace.kubeconfig, ANSWER_TIMEOUT * lab.patience) if cluster else unasked
    ca = unasked if not cluster else files if isinstance(files, Unknown) else files.ca
    nodes = lab.nodes if of is None else [node for node in lab.nodes if node in of]
    with ThreadPoolExecutor(max_workers=lab.at_once(len(lab.nodes) + 3)) as pool:
        asked = {node: pool.submit(_ask_machine, node, asker, answers) for node in nodes}
        of_api = pool.submit(ask_api, lab, api, ca)
        admits = pool.submit(_ask_admission, lab, api) if admission else None
        patient = open_api(workspace.kubeconfig, PROBES_TIMEOUT * lab.patience)
        machines: dict[str, Machine | Unknown] = {n.name: Unknown(f"{n.name} was not asked") for n in lab.nodes}
        machines |= {node.name: future.result() for node, future in asked.items()}
        silent = [node.name for node, future in asked.items() if _is_silent(future.result())]
        off = _off(lab, workspace, silent)
        machines |= {name: Unknown(f"{name} {OFF[state]}") for name, state in off.items()}
        said = of_api.result()
        # Pods start once the machines have answered: both at once keep etcd from answering on two cores.
        seen = pool.submit(_probe, lab, patient, remote, asked) if probes else None
        if cluster and not answers:
            machines |= _ask_one(pool, lab, asker, machines)
        found = seen.result() if seen else Unknown("pods were not asked")
        admitted = admits.result() if admits else NOT_ASKED
    obstacle = ask_obstacle(lab, machines)
    upgrading = _upgrading(workspace)
    # The API was asked at that address, so the entry is one that is in use.
    near = lab.pair and cluster and not lab.remote_host
    neighbour = network.neighbour(lab.api.address) if near else None
    return Facts(machines, _complete(said, api), found, files, admitted, off, obstacle, upgrading, neighbour)


def by_ssh(remote: Remote) -> Asker:
    """The asker of everything but verify: OpenSSH, over the kept connection."""

    def ask(node: Node, *answers: str) -> str:
        answer = remote.run(node, ["sudo", COMMAND, *answers], timeout=MACHINE_TIMEOUT, accept=None)
        if answer.returncode == SSH_FAILED:
            raise LabStateError((answer.stderr.strip().splitlines() or [SILENT_SSH])[-1])
        return answer.stdout

    return ask


def ask_machine(remote: Remote, node: Node, *answers: str) -> Machine:
    """Ask one machine for a few of its answers only. Raises LabError when it gives none."""
    asked = time.time()
    said = remote.run(node, ["sudo", COMMAND, *answers], timeout=MACHINE_TIMEOUT, accept=None).stdout
    return read_machine(node.name, said, asked, time.time())


def _upgrading(workspace: Workspace) -> str:
    try:
        record = made.read(workspace)
    except LabError:  # verbs report it
        return ""
    return record.upgrading if record else ""


def _ask_machine(node: Node, asker: Asker, answers: Collection[str]) -> Machine | Unknown:
    asked = time.time()
    try:
        return read_machine(node.name, asker(node, *answers), asked, time.time())
    except CouldNotAsk as error:
        return Unknown(error.message, answered=True)
    except LabError as error:
        return Unknown(f"{node.name} can't be asked: {error.message}")


def _ask_one(
    pool: ThreadPoolExecutor, lab: Lab, asker: Asker, machines: Mapping[str, Machine | Unknown]
) -> dict[str, Machine]:
    """Control planes with OF_ONE: one whose API server answers; all the others where that one can't say it."""
    said_all = {node: machines[node.name] for node in lab.control_planes}
    there = {node: machine for node, machine in said_all.items() if isinstance(machine, Machine)}
    first = next((node for node, machine in there.items() if _code(machine, "endpoint") == 0), None)
    found: dict[str, Machine] = {}
    for nodes in ([first] if first else [], [node for node in there if node != first]):
        said = {node: pool.submit(_ask_machine, node, asker, (OF_ONE,)) for node in nodes}
        for node, future in said.items():
            found[node.name] = _with_section(there[node], OF_ONE, future.result())
        if any(_code(machine, OF_ONE) == 0 for machine in found.values()):
            break
    return found


def _code(machine: Machine, answer: str) -> int | None:
    section = machine.sections.get(answer)
    return None if section is None else section.code


def _with_section(machine: Machine, answer: str, said: Machine | Unknown) -> Machine:
    sections = {} if isinstance(said, Unknown) else said.sections
    also = {answer: sections[answer]} if answer in sections else {}
    return dataclasses.replace(machine, sections={**machine.sections, **also})


def _ask_admission(lab: Lab, api: Api | Unknown) -> AdmissionFacts | Unknown:
    return api if isinstance(api, Unknown) else ask_admission(lab, api)


def _is_silent(said: Machine | Unknown) -> bool:
    return isinstance(said, Unknown) and not said.answered


def _off(lab: Lab, workspace: Workspace, silent: Collection[str]) -> dict[str, MachineState]:
    """Which of the machines that do not answer do not run; none where the provider can't be asked either."""
    if not silent:
        return {}
    try:
        states = providers.states(lab, workspace)
    except LabError:
        return {}
    return {name: states[name] for name in silent if states.get(name) in OFF}


def _probe(
    lab: Lab, api: Api | Unknown, remote: Remote, asked: dict[Node, Future[Machine | Unknown]]
) -> ProbeFacts | Unknown:
    if isinstance(api, Unknown):
        return api

    def someone() -> Node:
        """The control plane that answered first, so that none that hangs is waited for."""
        waiting = {asked[node]: node for node in lab.control_planes}
        for future in as_completed(waiting):
            if not isinstance(future.result(), Unknown):
                return waiting[future]
        raise CouldNotAsk("no control plane answers")

    return ask_probes(lab, api, remote, someone)


def _complete(said: ApiFacts, api: Api | Unknown) -> ApiFacts:
    """Add the restarts as they are now that everything else is known."""
    if isinstance(api, Unknown) or isinstance(said.restarts, Unknown):
        return said
    now = ask_restarts(api)
    return dataclasses.replace(said, restarts=now if isinstance(now, Unknown) else (said.restarts[0], now))


def _host_files(workspace: Workspace) -> HostFiles | Unknown:
    try:
        there = workspace.kubeconfig.exists()
        text = workspace.kubeconfig.read_text(encoding="utf-8") if there else ""
        return HostFiles(
            _mode(workspace.kubeconfig) if there else 0,
            server_in(text),
            (workspace.secrets / "ca.crt").read_text(encoding="utf-8"),
            _mode(workspace.secrets),
            tuple(str(path) for path in workspace.secrets.rglob("*") if path.stat().st_mode & 0o077),
            asked(lambda: credentials.ca_validity(workspace)),
            asked(lambda: client_validity(workspace)),
        )
    except OSError as error:
        return Unknown(f"{error.filename} can't be read: {error.strerror}")
    except UnicodeDecodeError:
        return Unknown("the lab's kubeconfig, or its CA's certificate, is not UTF-8 text")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
