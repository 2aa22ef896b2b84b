"""A lab that lives in memory: machines, etcd's members, Nodes and HAProxy, for `up`, `replace` and `plan`.

What verbs ask of Vagrant, docker, ssh and the API is played here as the scripts of provision/node/ would do it,
and refused where they would refuse it. Every change goes through `touch`, so that a test can let each one fail,
or the run be killed there.
"""

from __future__ import annotations

import copy
import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, TypeVar

import pytest

from lab import config, providers, session
from lab.errors import LabError, LabStateError
from lab.golden import image, payload
from lab.golden.payload import GoldenImage
from lab.golden.supply.releases import release
from lab.health.facts.gather import COMMAND
from lab.model import Kubernetes, Lab, Node
from lab.plans import already, ready, renew
from lab.plans.engine import Context
from lab.plans.situation import PROBE, UNFINISHED
from lab.plans.upgrade import PAYLOAD, SCRIPT, UPGRADED
from lab.providers import MachineState, docker
from lab.providers.protocol import Room
from lab.session import Session
from lab.system import process
from lab.verbs import backup, bake, render
from lab.verbs import up as bring_up
from lab.verbs.up import Request
from lab.workspace import Workspace, kubeconfig, made
from lab.workspace.backup import Backup, Manifest
from lab.workspace.made import Made
from lab.workspace.render import credentials
from tests.unit.fakes import FakeRemote, asked_of_machine, progress

T = TypeVar("T")
When = Literal["before", "after"]
WRITE = made.write
GOLDEN = "ha-lab/golden:0123456789abcdef"


ENDS_SOON = "valid until 2026-12-01: apiserver\nvalid until 2026-12-01: admin.conf\n"
OUTDATED = "started before its certificates were written: etcd\n"
"""What renew-certificates.sh lists where certificates have to be renewed, or are newer than a pod."""


class KilledError(BaseException):
    """The run was killed: from here on it can touch nothing."""


@dataclass
class Machine:
    """One machine. `has` is what it has of Kubernetes; a load balancer that is configured has `joined`.

    `delivered`: it has the kit's scripts. `names` are the machines whose names it knows. `version` is the
    Kubernetes that it runs, `payloads` are the versions whose programs and images it has, `etcd` its member's.
    `base` is the golden machine that it was created from.
    """

    state: MachineState = "absent"
    has: str = "fresh"
    delivered: bool = False
    names: tuple[str, ...] = ()
    cpus: int = 0
    hangs: bool = False
    api_aside: bool = False
    version: str = ""
    payloads: tuple[str, ...] = ()
    etcd: str = ""
    base: str = ""


def golden_of(lab: Lab) -> str:
    """The name of a lab's golden machine."""
    return GOLDEN if lab.kubernetes == Kubernetes() else f"ha-lab/golden:{lab.kubernetes.version}"


def lab_of(
    folder: Path,
    *,
    control_planes: int = 3,
    workers: int = 2,
    cpus: int = 2,
    profile: str = "tuned",
    balancer_cpus: int | None = None,
    load_balancers: int = 1,
    addons: Sequence[str] = (),
    version: str = "",
    etcd: int = 0,
) -> Lab:
    """A lab.yaml with these numbers, as the kit reads it."""
    path = folder / "lab.yaml"
    path.write_text(
        "provider: docker\n"
        f"load_balancer: {{profile: {profile}}}\n"
        "nodes:\n"
        f"  control_planes: {{count: {control_planes}}}\n"
        f"  workers: {{count: {workers}, cpus: {cpus}}}\n"
        + (f"  load_balancers: {{cpus: {balancer_cpus}}}\n" if balancer_cpus else "")
        + (f"  load_balancers: {{count: {load_balancers}}}\n" if load_balancers > 1 else "")
        + (f"  etcd: {{count: {etcd}}}\n" if etcd else "")
        + (f"addons: [{', '.join(addons)}]\n" if addons else "")
        + (f"kubernetes: {{version: {version}}}\n" if version else "")
    )
    return config.load(path)


class World:
    """What there is of a lab. `touches` are all changes so far, such as `drain w2` or `record`."""

    def __init__(self, folder: Path) -> None:
        """Let there be nothing."""
        self.folder = folder
        self.workspace = Workspace(folder / ".lab")
        credentials.ca_certificate(self.workspace)
        self.wanted = lab_of(folder)
        self.machines: dict[str, Machine] = {}
        self.members: set[str] = set()
        self.indices: Counter[str] = Counter()  # of each member's log
        self.nodes: dict[str, str] = {}  # name → who cordoned it: "", "up" or "user"
        self.haproxy_drained: set[str] = set()
        self.holder = ""  # which of two load balancers has the API's address
        self.pod_network = False
        self.token = False  # what could add a machine to the cluster
        self.addons: tuple[str, ...] = ()
        self.certified: set[str] = set()  # nodes whose kubelets have serving certificates
        self.ends_soon: set[str] = set()  # control planes whose certificates have to be renewed
        self.outdated: set[str] = set()  # those whose static pods are older than their certificates
        self.blocked: set[str] = set()  # nodes that a PodDisruptionBudget keeps from being drained
        self.broken: dict[str, str] = {}  # what probe.sh says of machines that are damaged or partial
        self.lacks: tuple[str, ...] = ()  # objects that were deleted
        self.touches: list[str] = []
        self.asked: list[str] = []
        self.failing: tuple[str, ...] = ()
        self.words: dict[str, tuple[str, ...]] = {}
        self.fault: tuple[str, int, When, BaseException] | None = None
        self.dead = False
        self.enforces_sizes = False
        self.baked = True
        self.free: int | None = 10_000  # MiB where machines are kept; None where docker can't say
        self.silent_etcd = ""  # the control plane whose member does not answer
        self.leader = 1  # the number of the control plane whose member leads etcd
        self._lock = threading.RLock()

    # What tests do.

    def up(
        self, lab: Lab, *, replacing: tuple[str, ...] = (), consent: bool = True, answer: bool = False
    ) -> None:
        """Run `up`, or `replace`, with a lab.yaml that says this; a person answers so."""
        self.wanted, self.dead = lab, False

        def confirm(question: str) -> bool:
            self.asked.append(question)
            return answer

        bring_up.up(self.session(lab), Request(consent=consent, replacing=replacing), confirm)

    def session(self, lab: Lab) -> Session:
        """The lab as the verbs have it."""
        remote = WorldRemote(lab, self.workspace, self)
        record = made.read(self.workspace)
        return Session(
            self.folder / "lab.yaml", lab, self.workspace, remote, progress(self.workspace.logs), record
        )

    def room(self, lab: Lab, workspace: Workspace) -> Room:
        """What is free for checkpoints and upgrades."""
        if self.free is None:
            raise LabStateError("docker keeps machines with overlayfs")
        return Room(0, self.free)

    def break_at(self, touch: str, when: When, error: BaseException, *, nth: int = 1) -> None:
        """Let the nth change of that name raise, before it is done or after."""
        self.fault = (touch, nth, when, error)

    def remember(self) -> Callable[[], None]:
        """Return what brings back the world as it is now."""
        machines, members, nodes = copy.deepcopy(self.machines), set(self.members), dict(self.nodes)
        drained, files = set(self.haproxy_drained), self._files()
        pod_network, token, addons = self.pod_network, self.token, self.addons
        certified, ends_soon, outdated = set(self.certified), set(self.ends_soon), set(self.outdated)

        def restore() -> None:
            self.machines, self.members, self.nodes = copy.deepcopy(machines), set(members), dict(nodes)
            self.haproxy_drained, self.touches, self.asked, self.fault = set(drained), [], [], None
            self.pod_network, self.token, self.addons = pod_network, token, addons
            self.certified, self.ends_soon, self.outdated = set(certified), set(ends_soon), set(outdated)
            for path in self._files().keys() - files.keys():
                path.unlink()
            for path, content in files.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)

        return restore

    def _files(self) -> dict[Path, bytes]:
        root = self.workspace.root
        ids = (root / ".vagrant").rglob("id")
        kept = (self.workspace.identity, self.workspace.kubeconfig, *ids)
        return {path: path.read_bytes() for path in kept if path.exists()}

    def lose(self, name: str) -> None:
        """Let a machine be gone, with all that was on it."""
        self.machines[name] = Machine()

    @property
    def record(self) -> Made:
        """What `.lab/lab.json` says."""
        found = made.read(self.workspace)
        assert found is not None
        return found

    def problems(self, lab: Lab) -> list[str]:
        """In which ways the lab is not what a lab.yaml says."""
        running = {name for name, machine in self.machines.items() if machine.state == "running"}
        joined = {name for name in running if self.machines[name].has == "joined"}
        found = []
        runs = {node.name: self.machine(node.name).version for node in lab.kubernetes_nodes}
        found += [f"{name} runs {each}" for name, each in runs.items() if each != lab.kubernetes.version]
        if self.addons != lab.addons:
            found.append(f"add-ons: {self.addons} instead of {lab.addons}")
        for what, is_now, should_be in (
            (
                "machines",
                {n for n, m in self.machines.items() if m.state != "absent"},
                {n.name for n in lab.nodes},
            ),
            ("running", running, {n.name for n in lab.nodes}),
            ("joined", joined, {n.name for n in lab.nodes}),
            ("etcd", self.members, {n.name for n in lab.etcd_members}),
            ("Nodes", set(self.nodes), {n.name for n in lab.kubernetes_nodes}),
            ("cordoned", {n for n, by in self.nodes.items() if by == "up"}, set()),
            ("certificates that end soon", self.ends_soon | self.outdated, set()),
            ("no API server", {n for n, m in self.machines.items() if m.api_aside}, set()),
            ("drained in HAProxy", self.haproxy_drained, set()),
        ):
            if is_now != should_be:
                found.append(f"{what}: {sorted(is_now)} instead of {sorted(should_be)}")
        if self.enforces_sizes:
            found += [f"{n.name} has {self.machines[n.name].cpus} CPUs" for n in lab.nodes if self._differs(n)]
        return found

    def require_applied(self, lab: Lab) -> None:
        """Assert that lab and record are what lab.yaml says, with nothing left over."""
        assert self.problems(lab) == []
        record = self.record
        assert record.lab == lab
        assert set(record.machines) == {node.name for node in lab.nodes}
        assert (record.leaving, record.upgrading) == ((), "")
        assert {machine.kubernetes for machine in record.machines.values()} == {lab.kubernetes.version}
        assert (self.pod_network, self.token) == (True, False)
        goldens = {record.machines[node.name].golden for node in lab.kubernetes_nodes}
        assert goldens == {golden_of(lab)}

    def _differs(self, node: Node) -> bool:
        return node.name in self.machines and self.machines[node.name].cpus != node.cpus

    # What the kit does.

    def touch(self, name: str, effect: Callable[[], T]) -> T:
        """Change something; where a test says so, fail or die before or after it."""
        with self._lock:
            self.require_alive()
            self.touches.append(name)
            self._break(name, "before")
            done = effect()
            self._break(name, "after")
            return done

    def require_alive(self) -> None:
        """A run that was killed asks and does nothing more."""
        if self.dead:
            raise KilledError

    def _break(self, name: str, when: When) -> None:
        if self.fault and self.fault[:3] == (name, self.touches.count(name), when):
            error, self.fault = self.fault[3], None
            self.dead = isinstance(error, KilledError)
            raise error

    def machine(self, name: str) -> Machine:
        """What there is of a machine."""
        return self.machines.setdefault(name, Machine())

    def answers(self, name: str) -> bool:
        """Whether one can log in."""
        machine = self.machine(name)
        return machine.state == "running" and not machine.hangs

    def healthy_members(self) -> set[str]:
        """Members that run, where they are a majority; none otherwise."""
        up = {name for name in self.members if self.answers(name) and self.machine(name).has == "joined"}
        return up if len(up) > len(self.members) // 2 else set()

    def require_api(self, of: str | None = None) -> None:
        """Refuse what needs the API: through the load balancer, or at one machine's own server."""
        serving = {name for name in self._with_etcd() if not self.machine(name).api_aside}
        balancers = [n.name for n in self.wanted.balancers if self.answers(n.name)]
        configured = any(self.machine(name).has == "joined" for name in balancers)
        if of is not None and of not in serving:
            raise LabError(f"{of}: its API server does not answer")
        if of is None and not (configured and serving):
            raise LabError("the API does not answer")

    def _with_etcd(self) -> set[str]:
        """Control planes whose API server has an etcd that answers: its own member, or a majority elsewhere."""
        if not self.wanted.external_etcd:
            return self.healthy_members()
        joined = {n.name for n in self.wanted.control_planes if self.machine(n.name).has == "joined"}
        return {name for name in joined if self.answers(name)} if self.healthy_members() else set()

    # Vagrant and docker.

    def states(self, lab: Lab, workspace: Workspace) -> dict[str, MachineState]:
        """As docker says."""
        self.require_alive()
        return {node.name: self.machine(node.name).state for node in lab.nodes}

    def boot(self, workspace: Workspace, log: Path, names: Sequence[str] | None = None) -> None:
        """Make machines, one after the other."""
        assert names is not None
        record = self.record
        for name in names:
            node = self.wanted.node(name)
            assert node is not None
            assert name in record.machines, f"{name} is made and not recorded"
            cpus = node.cpus

            def make(name: str = name, cpus: int = cpus) -> None:
                assert self.machine(name).state == "absent"
                version = self.wanted.kubernetes.version
                base = record.machines[name].golden
                self.machines[name] = Machine(
                    "running", cpus=cpus, version=version, etcd=release(version).etcd, base=base
                )
                workspace.write(workspace.root / f".vagrant/machines/{name}/docker/id", "1")

            self.touch(f"boot {name}", make)

    def power_on(self, lab: Lab, nodes: Sequence[Node]) -> None:
        """Start machines that exist."""
        for node in nodes:
            assert self.machine(node.name).state in ("stopped", "running"), f"{node.name} can't be started"
            self.touch(f"start {node.name}", lambda name=node.name: self._set(name, "running"))  # type: ignore[misc]

    def resume(self, lab: Lab, node: Node) -> None:
        """Let a paused machine go on."""
        if self.machine(node.name).state == "paused":
            self.touch(f"resume {node.name}", lambda: self._set(node.name, "running"))

    def stop(self, lab: Lab, node: Node, timeout: float) -> bool:
        """Shut a machine down."""
        self.touch(f"stop {node.name}", lambda: self._set(node.name, "stopped"))
        return True

    def resize(self, lab: Lab, node: Node) -> None:
        """Give a stopped machine another size."""
        assert self.machine(node.name).state == "stopped"
        self.touch(f"resize {node.name}", lambda: setattr(self.machine(node.name), "cpus", node.cpus))

    def remove_machines(self, lab: Lab, workspace: Workspace, names: Sequence[str], log: Path) -> None:
        """Remove machines with their disks."""
        for name in names:

            def remove(name: str = name) -> None:
                self.lose(name)
                (workspace.root / f".vagrant/machines/{name}/docker/id").unlink(missing_ok=True)

            self.touch(f"remove {name}", remove)

    def _set(self, name: str, state: MachineState) -> None:
        self.machine(name).state = state

    # The scripts of provision/node/.

    def script(self, node: Node, name: str, words: tuple[str, ...]) -> bool:
        """Run one on a machine that answers."""
        if not self.answers(node.name):
            raise LabError(f"ssh to {node.name} failed")
        subject = next((word for word in words if not word.startswith("-")), "")
        label = f"{name} {subject if name in ('drain', 'remove-member') else node.name}"
        label += "".join(f" {flag}" for flag in ("--node-only", "--undo", "--etcd") if flag in words)
        self.words[label] = words
        work: Callable[[Node, tuple[str, ...]], bool] = getattr(self, f"_{name.replace('-', '_')}")
        return self.touch(label, lambda: work(node, words))

    def _node(self, node: Node, words: tuple[str, ...]) -> bool:
        machine = self.machine(node.name)
        before = (machine.api_aside, machine.names)
        machine.api_aside, machine.names = False, self._names()
        return before != (machine.api_aside, machine.names)

    def _names(self) -> tuple[str, ...]:
        return tuple(node.name for node in self.wanted.nodes)

    def _load_balancer(self, node: Node, words: tuple[str, ...]) -> bool:
        machine = self.machine(node.name)
        before = (self.haproxy_drained, machine.has, machine.names)
        self.haproxy_drained = set(words[words.index("--drain") + 1 :] if "--drain" in words else ())
        machine.has = "joined"
        self.holder = self.holder or node.name
        machine.names = tuple(each.name for each in self.wanted.control_planes)
        return before != (self.haproxy_drained, machine.has, machine.names)

    def _give_up_address(self, node: Node, words: tuple[str, ...]) -> bool:
        if self.holder == node.name:
            others = [each.name for each in self.wanted.pair if each != node and self.answers(each.name)]
            self.holder = next(iter(others), "")
        return True

    def _control_plane_init(self, node: Node, words: tuple[str, ...]) -> bool:
        machine = self.machine(node.name)
        if machine.has == "damaged":
            machine.has = "joined"  # it makes its own files again
        if machine.has == "joined":
            self.require_api(node.name)
            changed, self.lacks = bool(self.lacks), ()
            for name in words:
                if self._runs_kubelet(name) and name in self._names():
                    self.token = changed = True
                if name in self.nodes and self.machine(name).has != "joined":
                    del self.nodes[name]  # what a lost machine left behind
            for name, by in self.nodes.items():
                if by == "up":
                    self.nodes[name] = ""
                    changed = True
            return changed
        others = [n for n, m in self.machines.items() if m.has == "joined" and self._runs_kubelet(n)]
        assert not others, f"a second cluster beside that of {others}"
        assert machine.has == "fresh" or "--alone" in words
        machine.has = "joined"
        if self.wanted.external_etcd:
            assert self.healthy_members(), "kubeadm init asks etcd before anything else"
        else:
            self.members = {node.name}
        self.nodes = {node.name: ""}
        self.pod_network, self.token = False, True
        return True

    def _etcd(self, node: Node, words: tuple[str, ...]) -> bool:
        machine = self.machine(node.name)
        before = (machine.has, set(self.members))
        if "--existing" not in words:
            machines = {each.name for each in self.wanted.etcd_members}
            assert not self.members - machines, "a second etcd beside the first"
            assert not self.members or machine.has != "fresh" or node.name in machines
            machine.has = "joined"
            self.members.add(node.name)
            return before != (machine.has, self.members)
        if machine.has in ("fresh", "partial"):
            if node.name in self.members:
                self._leave_etcd(node.name)
            if self.members and not self.healthy_members():
                raise LabError("etcd's other members do not answer")
        machine.has = "joined"
        self.members = {*self.members, node.name}
        return before != (machine.has, self.members)

    def _repair(self, node: Node, words: tuple[str, ...]) -> bool:
        machine = self.machine(node.name)
        assert machine.has == "damaged", f"{node.name} has nothing to repair"
        machine.has = "joined"
        return True

    def _runs_kubelet(self, name: str) -> bool:
        node = self.wanted.node(name)
        return node is None or node.spec.runs_kubelet

    def _pod_network(self, node: Node, words: tuple[str, ...]) -> bool:
        self.require_api()
        before, self.pod_network = self.pod_network, True
        return not before

    def _policy_rules(self, node: Node, words: tuple[str, ...]) -> bool:
        return False

    def _worker_join(self, node: Node, words: tuple[str, ...]) -> bool:
        self.require_api()
        return self._joined(node)

    def _control_plane_join(self, node: Node, words: tuple[str, ...]) -> bool:
        self.require_api()
        machine = self.machine(node.name)
        if machine.has in ("damaged", "joined"):
            assert not machine.api_aside, f"{node.name} would be reset"
        elif node.name in self.members:
            if "--former" not in words:
                raise LabError(f"etcd has a member of an earlier {node.name}")
            self._leave_etcd(node.name)
        if not self.wanted.external_etcd:
            self.members.add(node.name)
        return self._joined(node)

    def _joined(self, node: Node) -> bool:
        machine = self.machine(node.name)
        changed = machine.has != "joined" or node.name not in self.nodes
        machine.has = "joined"
        self.nodes.setdefault(node.name, "")
        return changed

    def _addons(self, node: Node, words: tuple[str, ...]) -> bool:
        self.require_api()
        before, self.addons = self.addons, self.wanted.addons
        return before != self.addons

    def _kubelet_certificates(self, node: Node, words: tuple[str, ...]) -> bool:
        self.require_api()
        joined = {name for name in self.nodes if self.machine(name).has == "joined"}
        assert joined == {each.name for each in self.wanted.kubernetes_nodes}, "it would wait for the others"
        before, self.certified = self.certified, joined
        return before != joined

    def _revoke(self, node: Node, words: tuple[str, ...]) -> bool:
        self.require_api()
        before, self.token = self.token, False
        return before

    def _drain(self, node: Node, words: tuple[str, ...]) -> bool:
        self.require_api(node.name)
        name = words[0]
        if name not in self.nodes:
            return False
        if "--undo" in words:
            was, self.nodes[name] = self.nodes[name], "" if self.nodes[name] == "up" else self.nodes[name]
            return was == "up"
        if name in self.blocked:
            raise LabError(f"{name}: not drained after 120 s: blocked by PodDisruptionBudget shop/web")
        self.nodes[name] = self.nodes[name] or "up"
        return True

    def _upgrade(self, node: Node, words: tuple[str, ...]) -> bool:
        machine, control_planes = self.machine(node.name), self.wanted.control_planes
        if node not in self.wanted.kubernetes_nodes:
            return self._upgrade_etcd_machine(node, words)
        self.require_api()
        version = words[1] if words[0] == "--etcd" else words[0]
        payload = f"etcd-{version}" if words[0] == "--etcd" else version
        assert self.record.upgrading or words[0] == "--etcd", "the upgrade is not recorded"
        own = version in (machine.version, release(machine.version).etcd_tag)
        assert payload in machine.payloads or own, f"{node.name} has no {payload}"
        if node in control_planes and len(control_planes) > 1:
            assert self.haproxy_drained == (set() if "--plain" in words else {node.name})
            assert self.healthy_members() >= self.members - {node.name}, "two members would be away"
        if words[0] == "--etcd":
            before, machine.etcd = machine.etcd, version.removesuffix("-0")
            return before != machine.etcd
        assert self.nodes[node.name], f"{node.name} is upgraded with its pods"
        if node not in control_planes:
            there = [self.machine(each.name) for each in control_planes]
            assert {each.version for each in there if each.state != "absent"} == {version}
        before, machine.version = machine.version, version
        machine.etcd = release(version).etcd
        return before != version

    def _upgrade_etcd_machine(self, node: Node, words: tuple[str, ...]) -> bool:
        machine = self.machine(node.name)
        assert self.healthy_members() >= self.members - {node.name}, "two members would be away"
        assert {self.machine(each.name).version for each in self.wanted.control_planes} != {words[0]}, (
            "too late"
        )
        before, machine.version, machine.etcd = machine.version, words[0], release(words[0]).etcd
        return before != words[0]

    def _payload(self, node: Node, words: tuple[str, ...]) -> str:
        machine = self.machine(node.name)
        if words[0] == "--present":
            program = "program\n" if words[1] in (*machine.payloads, machine.version) else ""
            etcd = (each for each in machine.payloads if each.startswith("etcd-"))
            return program + "".join(f"image registry.k8s.io/{each.replace('-', ':', 1)}\n" for each in etcd)

        def take() -> str:
            machine.payloads = (*machine.payloads, words[0])
            return ""

        return self.touch(f"payload {node.name}", take)

    def _leave(self, node: Node, words: tuple[str, ...]) -> bool:
        self.machine(node.name).api_aside = True
        return True

    def _renew_certificates(self, node: Node, words: tuple[str, ...]) -> bool:
        if "--files" in words:
            self.outdated |= self.ends_soon & {node.name}
            self.ends_soon -= {node.name}
            return True
        others = self.members - {node.name}
        assert len(self.healthy_members() & others) >= min(len(self.members) // 2 + 1, len(others)), (
            f"etcd loses its majority while {node.name} restarts"
        )
        drained = {node.name} if node.spec.serves_api else set()
        assert self.haproxy_drained == drained, "connections to its API server would fail"
        self.ends_soon -= {node.name}
        self.outdated -= {node.name}
        return True

    def _remove_member(self, node: Node, words: tuple[str, ...]) -> bool:
        if node.spec.serves_api:
            self.require_api(node.name)
        else:
            assert node.name in self.members, "only another member may remove one"
        [name] = [word for word in words if not word.startswith("-")][:1]
        assert name != node.name, f"{name} can't remove itself"
        if "--node-only" not in words and name in self.members:
            self._leave_etcd(name)
        return self.nodes.pop(name, None) is not None

    def _leave_etcd(self, name: str) -> None:
        healthy, stay = self.healthy_members(), self.members - {name}
        if not healthy or len(healthy & stay) <= len(stay) // 2:
            raise LabError(f"only {len(healthy & stay)} of the {len(stay)} members that stay are healthy")
        self.members = stay

    # What is asked.

    def ask(self, node: Node, command: tuple[str, ...]) -> str:
        """Answer what machines are asked besides. Raises LabError where that command fails."""
        machine = self.machine(node.name)
        if command == ("sudo", PROBE):
            if not machine.delivered:
                return ""
            return f"{'joined' if node.spec.balances else machine.has}\n"
        if command == ("sudo", UNFINISHED):
            if not machine.delivered:
                raise LabError("sudo: /opt/ha-lab/unfinished.sh: command not found")
            if not node.spec.runs_kubelet:
                return "" if machine.has == "joined" else "load-balancer HAProxy does not run\n"
            self.require_api()
            lacks = "".join(f"control-plane-init the cluster lacks its {each}\n" for each in self.lacks)
            return lacks + "pod-network\n" * (not self.pod_network) + "revoke\n" * self.token
        if command == ("sudo", COMMAND, "virtual-address"):
            assert node in self.wanted.pair
            word = "holds" if self.holder == node.name else "sees"
            return asked_of_machine("virtual-address", f"{word} 02:00:00:00:00:01") if machine.delivered else ""
        if command == ("sudo", COMMAND, "etcd-health", "etcd-members"):
            health = json.dumps([{"health": node.name in self.healthy_members()}])
            return f"== etcd-health 0\n{health}\n== etcd-members 0\n{self._listed()}\n"
        if command == ("sudo", COMMAND, "etcd-status", "etcd-stored-members"):
            if node.name not in self.members:
                return "== etcd-status 1\nno member\n== etcd-stored-members 1\nno member\n"
            status = json.dumps(
                [{"Status": {"header": {"member_id": 1}, "raftIndex": self.indices[node.name]}}]
            )
            return f"== etcd-status 0\n{status}\n== etcd-stored-members 0\n{self._listed()}\n"
        if command == ("sudo", COMMAND, "etcd-status"):
            if node.name == self.silent_etcd:
                return "== etcd-status 1\nno member answers\n"
            said = {
                "header": {"member_id": int(node.name[-1])},
                "leader": self.leader,
                "version": machine.etcd,
            }
            return f"== etcd-status 0\n{json.dumps([{'Status': said}])}\n"
        if PAYLOAD in command:
            return self._payload(node, command[command.index(PAYLOAD) + 1 :])
        if command[:3] == ("sudo", SCRIPT, "--asked"):
            return UPGRADED if machine.version == command[3] else ""
        if command[:3] == ("sudo", renew.SCRIPT, "--list"):
            if not machine.delivered:
                raise LabError(f"sudo: {renew.SCRIPT}: command not found")
            ends = (node.name in self.ends_soon and command[3] == "30") or int(command[3]) > 30
            outdated = node.name in self.outdated | self.ends_soon
            return ENDS_SOON * ends + OUTDATED * outdated
        raise AssertionError(f"not told of {command}")

    def _listed(self) -> str:
        members = [
            {"ID": number, "name": name, "peerURLs": [f"https://{name}:2380"]}
            for number, name in enumerate(sorted(self.members))
        ]
        return json.dumps({"members": members})


class WorldRemote(FakeRemote):
    """ssh to the machines of a world."""

    def __init__(self, lab: Lab, workspace: Workspace, world: World) -> None:
        """Reach its machines."""
        super().__init__(lab, workspace)
        self.world = world

    def why_not_reachable(self, node: Node) -> str | None:
        """Say whether it runs."""
        self.world.require_alive()
        return None if self.world.answers(node.name) else "No route to host"

    def deliver(self, node: Node) -> None:
        """Give a machine its folder."""
        machine = self.world.machine(node.name)
        self.world.touch(f"deliver {node.name}", lambda: setattr(machine, "delivered", True))

    def run(
        self,
        node: Node,
        command: Sequence[str],
        *,
        stdin: str | bytes | None = None,
        timeout: float | None = None,
        accept: Sequence[int] | None = (0,),
        log: Path | None = None,
        output: Path | None = None,
        source: Path | None = None,
        gently: bool = False,
    ) -> process.Result:
        """Ask a machine, which does not answer where it does not run."""
        self.world.require_alive()
        assert gently or source is None, "files are sent to a lab that is in use"
        if not self.world.answers(node.name):
            if accept is None:
                return process.Result(tuple(command), 255, "", "No route to host", 0.0)
            raise LabError(f"ssh to {node.name} failed")
        try:
            said = self.world.ask(node, tuple(command))
        except LabError as error:
            if accept is None:
                return process.Result(tuple(command), 1, "", error.message, 0.0)
            raise
        problems = self.world.broken.get(node.name, "") if PROBE in command else ""
        return process.Result(tuple(command), 0, said, problems, 0.0)

    def script(
        self,
        node: Node,
        name: str,
        words: Sequence[str] = (),
        *,
        secrets: Mapping[str, str] | None = None,
        log: Path,
        timeout: float = 1800,
    ) -> bool:
        """Run a script."""
        return self.world.script(node, name, tuple(words))


def live(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Put a world in the place of Vagrant, docker, the golden machine and the API."""

    def record(workspace: Workspace, record: Made) -> None:
        world.touch("record", lambda: WRITE(workspace, record))

    def keep_backup(session: Session, target: Path, member: Node) -> Backup:
        versions = {world.machine(node.name).version for node in session.lab.kubernetes_nodes}
        assert versions == {session.lab.kubernetes.version}, "too late"
        about = Manifest(session.lab.name, "", "", "cp1", session.lab.kubernetes.version, "")
        return world.touch("backup", lambda: Backup(target, about, {}, {}, "", ""))

    def configure(session: Session) -> None:
        for balancer in session.lab.balancers:
            session.remote.script(balancer, "load-balancer", log=world.workspace.logs)

    def why_not(context: Context, names: object = None) -> str | None:
        world.require_alive()
        problems = world.problems(context.lab)
        assert not world.dead
        # Add-ons are applied beside the waits for nodes and pods; only the wait for health comes after them.
        later = ("drained",) if names is None else ("drained", "add-ons")
        assert not [each for each in problems if not each.startswith(later)], problems
        return None

    def fetch(lab: Lab, workspace: Workspace, remote: object, node: Node) -> bool:
        return (
            bool(world.touch("kubeconfig", lambda: workspace.write_secret(workspace.kubeconfig, "yes"))) or True
        )

    def is_up(lab: Lab, workspace: Workspace, remote: object) -> bool:
        world.require_alive()
        return not (world.problems(lab) or world.lacks) and (world.pod_network, world.token) == (True, False)

    def row(lab: Lab) -> providers.Provider:
        return replace(docker.PROVIDER, enforces_sizes=world.enforces_sizes)

    for name in ("boot", "states", "power_on", "resume", "stop", "resize", "remove_machines"):
        monkeypatch.setattr(providers, name, getattr(world, name))
    monkeypatch.setattr(providers, "state", lambda lab, node: world.machine(node.name).state)
    monkeypatch.setattr(providers, "unknown_to_vagrant", lambda workspace: [])
    monkeypatch.setattr(providers, "checkpoints_of", lambda lab: world)
    monkeypatch.setattr(session, "provider_of", row)
    monkeypatch.setattr(kubeconfig, "fetch", fetch)
    monkeypatch.setattr(bake, "bake", lambda session, consent: golden_of(session.lab))
    monkeypatch.setattr(image, "bake", lambda lab, progress: golden_of(lab))
    monkeypatch.setattr(bake, "is_baked", lambda session: world.baked)
    monkeypatch.setattr(image, "exists", lambda lab, golden: world.baked)
    monkeypatch.setattr(image, "bill_of_materials", lambda lab, golden: "{}")
    monkeypatch.setattr(made, "write", record)
    # Only that of `up`: others are about backups themselves.
    own = SimpleNamespace(write=keep_backup, healthy_member=backup.healthy_member)
    monkeypatch.setattr(bring_up, "backup", own)
    monkeypatch.setattr(render, "write", lambda session, record, golden: None)
    monkeypatch.setattr(render, "configure_load_balancers", configure)
    monkeypatch.setattr(already, "is_up", is_up)
    monkeypatch.setattr(already, "problems", lambda lab, workspace, remote: world.failing)
    monkeypatch.setattr(ready, "_why_not", why_not)
    monkeypatch.setattr(ready, "why_not_healthy", lambda job: why_not(job.context))
    monkeypatch.setattr(ready, "why_not_well", lambda context, node, drained: _unwell(world, node, drained))
    monkeypatch.setattr(payload, "images", lambda lab, golden: IMAGES)
    monkeypatch.setattr(payload, "write", write_payload)
    return world


IMAGES = tuple(
    GoldenImage(f"registry.k8s.io/{name}", ())
    for name in ("etcd:3.6.16-0", "kube-apiserver:v1", "kube-proxy:v1")
)


def write_payload(lab: Lab, golden: str, wanted: Sequence[GoldenImage], target: Path) -> None:
    """Write what would be taken from a golden machine."""
    target.parent.mkdir(exist_ok=True)
    target.write_text(" ".join([golden, *(each.name for each in wanted)]))


def _unwell(world: World, node: Node, drained: bool) -> str | None:
    if node.spec.runs_kubelet and world.machine(node.name).has != "joined":
        raise LabStateError(f"{node.name} will never be a Ready node")
    if node.spec.serves_api:
        if drained:
            plain = "--plain" in world.words.get(f"upgrade {node.name}", ())
            assert plain or node.name in world.haproxy_drained, f"HAProxy gives {node.name} connections"
        elif node.name in world.haproxy_drained:
            return f"backend-takes-connections[{node.name}]: HAProxy has drained it"
    return None
