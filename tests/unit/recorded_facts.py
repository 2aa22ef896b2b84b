"""The facts of a lab that was well, as tests/record_facts.py recorded it, and ways to alter it."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from lab import config
from lab.health.checks.security import KUBELET_SERVING
from lab.health.cluster import PodFact, read_nodes, read_pods
from lab.health.connecting import NO_SERVER_UP
from lab.health.facts.admission import (
    KINDS,
    AdmissionFacts,
    read_limits,
    read_namespaces,
    read_quotas,
    read_webhooks,
)
from lab.health.facts.api import ApiFacts, read_endpoints, read_kube_proxy_server, read_leases, read_restarts
from lab.health.facts.gather import OFF, Facts, HostFiles
from lab.health.facts.machine import Machine, Section, own_scripts, read_machine
from lab.health.facts.probes import ProbeFacts
from lab.model import Lab, Node
from lab.model.roles import Role
from lab.providers import MachineState
from lab.unknown import Unknown, known
from tests.unit.fakes import RECORDED

FOLDER = RECORDED / "facts"
Alter = Callable[[Facts], Facts]
YEAR = timedelta(days=365)


@functools.cache
def lab() -> Lab:
    """The lab that was recorded."""
    return config.load(FOLDER / "lab.yaml")


@functools.cache
def authority() -> tuple[str, dict[str, str]]:
    """A CA in the place of the recorded one, whose key is gone, and each kubelet's certificate by its machine.

    The lab was recorded before its kubelets had certificates that the cluster had signed.
    """
    since = datetime.fromisoformat(_read("api.json")["asked_at"]) - timedelta(days=1)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    key = ec.generate_private_key(ec.SECP256R1())
    ca = certificate(name, key.public_key(), name, key, since)
    return ca, {node.name: serving(node, name, key, since) for node in lab().kubernetes_nodes}


def serving(
    node: Node, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, since: datetime, *names: str
) -> str:
    """A kubelet's serving certificate; `names` are more DNS names than its node has."""
    said = [x509.DNSName(each) for each in (node.name, *names)]
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{node.name}"),
        ]
    )
    own = ec.generate_private_key(ec.SECP256R1()).public_key()
    san = x509.SubjectAlternativeName([*said, x509.IPAddress(node.address)])
    return certificate(subject, own, issuer, key, since, san)


def certificate(
    subject: x509.Name,
    public: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    since: datetime,
    *extensions: x509.ExtensionType,
) -> str:
    """A certificate as PEM: a CA's for ten years, others for one."""
    builder = x509.CertificateBuilder(issuer, subject, public, x509.random_serial_number())
    builder = builder.not_valid_before(since).not_valid_after(since + YEAR * (1 if extensions else 10))
    for each in extensions:
        builder = builder.add_extension(each, critical=False)
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


METRICS = """kube-controller-manager anonymous 403
kube-controller-manager certificate 200
kube-scheduler anonymous 403
kube-scheduler certificate 200
etcd anonymous 000 TLS connect error: error:0A00045C:SSL routines::tlsv13 alert certificate required
etcd certificate 200
kube-proxy anonymous 200
kube-proxy certificate 200
"""


def _since_recorded(name: str, text: str) -> str:
    """What a machine tells besides, since the lab was recorded."""
    ca, certificates = authority()
    text = text.replace(_read("files.json")["ca"].strip(), ca.strip())
    if name in certificates:
        own = f"# {KUBELET_SERVING}\n{certificates[name]}"
        text = text.replace("== certificates 0\n", f"== certificates 0\n{own}")
    if lab().node(name) in lab().control_planes:
        text = text.replace("== programs 0\n", f"== metrics 0\n{METRICS}\n== programs 0\n")
    return text


@functools.cache
def told(name: str) -> str:
    """What a machine printed, as this checkout's facts.sh would begin it."""
    text = _since_recorded(name, (FOLDER / f"{name}.txt").read_text(encoding="utf-8"))
    first, _, rest = text.partition("\n== here")
    assert first.startswith("== script 0\n")
    return f"== script 0\n{own_scripts()}  -\n\n== here{rest}"


def clock(name: str) -> float:
    """What a machine's clock showed."""
    return float(told(name).rpartition("== clock 0\n")[2])


@functools.cache
def facts() -> Facts:
    """Everything, as it was."""
    machines = {
        n.name: read_machine(n.name, told(n.name), clock(n.name) - 1, clock(n.name) + 0.1) for n in lab().nodes
    }
    files = {**_read("files.json"), "open_secrets": (), "ca": authority()[0]}
    probed = ProbeFacts(**{"volume": None} | _read("probes.json"))
    return Facts(machines, _api(), probed, HostFiles(**files), _admission())


@functools.cache
def pair_lab() -> Lab:
    """The recorded lab, had it had two load balancers: they share the address that its only one had."""
    only = lab().balancers[0]
    two = [only.model_copy(update={"name": name, "address": only.address - ago}) for name, ago in MOVED.items()]
    network = lab().network.model_copy(update={"virtual_address": only.address})
    return lab().model_copy(update={"network": network, "nodes": (*two, *lab().nodes[1:])})


MOVED = {"lb1": 2, "lb2": 1}
MACS = {"lb1": "02:42:c0:a8:39:08", "lb2": "02:42:c0:a8:39:09"}
KEEPALIVED = """NRestarts=0
ExecMainStartTimestamp=@1796013924
Id=keepalived.service
ActiveState=active
UnitFileState=enabled
"""


@functools.cache
def pair_facts() -> Facts:
    """What that lab's machines and this host would have told: lb1 has the address, and all others know."""
    first = known(facts().machines["lb1"])
    machines = dict(facts().machines)
    for name, mac in MACS.items():
        texts = {"here": first.text("here").replace("lb1", name)}
        texts["identity"] = first.text("identity").replace("02:42:c0:a8:39:0a", mac)
        texts["services"] = f"{first.text('services').rstrip()}\n\n{KEEPALIVED}"
        texts |= {"keepalived-configuration": "", "keepalived-files": ""}
        sections = {**first.sections, **{each: Section(0, text) for each, text in texts.items()}}
        machines[name] = replace(first, name=name, sections=sections)
    found = replace(facts(), machines=machines, neighbour=MACS["lb1"])
    for node in pair_lab().nodes:
        word = "holds" if node.name == "lb1" else "sees"
        found = section(node.name, "virtual-address", f"{word} {MACS['lb1']}\n")(found)
    return found


@functools.cache
def external_lab() -> Lab:
    """The recorded lab, had its etcd had machines of its own."""
    etcd = tuple(
        Node(
            name=node.name.replace("cp", "etcd"),
            role=Role.ETCD,
            address=node.address + 20,
            cpus=1,
            memory_mib=1024,
        )
        for node in lab().control_planes
    )
    return lab().model_copy(update={"nodes": (*lab().balancers, *etcd, *lab().kubernetes_nodes)})


@functools.cache
def external_facts() -> Facts:
    """What that lab's machines would have told: members as those beside the API servers were."""
    machines = dict(facts().machines)
    for node in lab().control_planes:
        machine = known(machines[node.name])
        listed = machine.text("etcd-members").replace('"cp', '"etcd')
        for other in lab().control_planes:
            listed = listed.replace(f"//{other.address}:", f"//{other.address + 20}:")
        name = node.name.replace("cp", "etcd")
        sections = {**machine.sections, "etcd-members": Section(0, listed), "membership": Section(0, "joined")}
        machines[name] = replace(machine, name=name, sections=sections)
    return replace(facts(), machines=machines)


def _admission() -> AdmissionFacts:
    """Nothing stood in the way: no webhook, and no owner of a pod that was refused lacked one any more."""
    kinds = dict(zip(KINDS, ("validating.json", "mutating.json"), strict=True))
    return AdmissionFacts(
        tuple(hook for kind, name in kinds.items() for hook, _ in read_webhooks(kind, _read(name))),
        read_namespaces(_read("namespaces.json")),
        read_quotas(_read("quotas.json")),
        read_limits(_read("limits.json")),
        (),
    )


def _api() -> ApiFacts:
    said = _read("api.json")
    pods = _read("pods.json")
    return ApiFacts(
        datetime.fromisoformat(said["asked_at"]),
        {path: tuple(answer) for path, answer in said["health"].items()},
        {
            name: {path: tuple(answer) for path, answer in answers.items()}
            for name, answers in said["direct"].items()
        },
        read_nodes(_read("nodes.json")),
        read_pods(pods),
        read_leases(_read("leases.json")),
        read_endpoints(_read("endpoints.json")),
        tuple((name, kind) for name, kind in said["secrets"]),
        read_kube_proxy_server(_read("kube-proxy.json")),
        (read_restarts(pods), read_restarts(pods)),
        frozenset(node.name for node in lab().kubernetes_nodes),
    )


def _read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def api(**changes: Any) -> Alter:
    """The API says something else."""
    return lambda facts: replace(facts, api=replace(facts.api, **changes))


def admission(**changes: Any) -> Alter:
    """What may keep pods from being created is otherwise."""
    return lambda facts: replace(facts, admission=replace(known(facts.admission), **changes))


def early(pod: PodFact) -> PodFact:
    """Ready 2 s after its start, which was a moment ago, though its startup probe first asks after 10 s."""
    began = facts().api.asked_at - timedelta(seconds=20)
    since = began + timedelta(seconds=2)
    return replace(pod, started=began, ready_since=since, startup_delay=10, ready=True)


def section(machine: str, name: str, text: str, code: int = 0) -> Alter:
    """A machine answers one question otherwise."""

    def alter(facts: Facts) -> Facts:
        other = known(facts.machines[machine])
        sections = {**other.sections, name: Section(code, text)}
        return _with(facts, replace(other, sections=sections))

    return alter


def told_otherwise(machine: str, name: str, before: str, after: str) -> Alter:
    """A machine's answer has other words in it."""

    def alter(facts: Facts) -> Facts:
        text = known(facts.machines[machine]).sections[name].text
        assert before in text, f"{before!r} is not in what {machine} told of {name}"
        return section(machine, name, text.replace(before, after))(facts)

    return alter


def silent(machine: str) -> Alter:
    """A machine can't be asked."""
    why = Unknown(f"{machine} can't be asked: no answer within 15 s")
    return lambda facts: replace(facts, machines={**facts.machines, machine: why})


def not_running(state: MachineState, *machines: str) -> Alter:
    """Machines do not run, and the provider says so."""

    def alter(facts: Facts) -> Facts:
        gone = {name: Unknown(f"{name} {OFF[state]}") for name in machines}
        return replace(facts, machines={**facts.machines, **gone}, off=dict.fromkeys(machines, state))

    return alter


def unreached(why: str) -> Alter:
    """Nothing that is asked of the API through the load balancer is answered, for that reason."""
    url = lab().api.url
    gone: Any = Unknown(f"the API at {url} can't be asked: {why}")
    asked = ("nodes", "pods", "leases", "endpoints", "secrets", "kube_proxy_server", "restarts")

    def alter(facts: Facts) -> Facts:
        health = {path: Unknown(f"{url}{path} can't be asked: {why}") for path in facts.api.health}
        said = api(health=health, **dict.fromkeys(asked, gone))(facts)
        return replace(said, probes=Unknown(f"pods could not be asked: {gone.reason}"), admission=gone)

    return alter


def haproxy_stopped(facts: Facts) -> Facts:
    """`systemctl stop haproxy` on lb1; socat's words are those of a lab."""
    refused = (
        '2026/11/28 13:43:42 socat[1841] E connect(5, AF=1 "/run/haproxy/admin.sock", 25): Connection refused'
    )
    runs = "Id=haproxy.service\nActiveState=active"
    facts = told_otherwise("lb1", "services", runs, runs.replace("=active", "=inactive"))(facts)
    for name in ("backends", "spread"):
        facts = section("lb1", name, refused, 1)(facts)
    return unreached("nothing listens there")(section("lb1", "listening", "")(facts))


LOAD_FAILED = "failed to load kubelet config file, path: /var/lib/kubelet/config.yaml, error: unknown field"


def kubelet_loops(name: str) -> Alter:
    """A kubelet that has ended again and again: its node is no longer Ready, and its last error is known."""

    def alter(facts: Facts) -> Facts:
        there = known(facts.machines[name])
        began = there.services["kubelet"].started
        assert began is not None
        before = f"NRestarts=0\nExecMainStartTimestamp=@{began:.0f}\nId=kubelet.service"
        after = f"NRestarts=12\nExecMainStartTimestamp=@{there.clock - 4:.0f}\nId=kubelet.service"
        error = f'E1128 13:43:42.123456    1841 run.go:72] "command failed" err="{LOAD_FAILED}"'
        nodes = tuple(
            replace(node, ready=False, reason="Kubelet stopped posting node status.")
            if node.name == name
            else node
            for node in known(facts.api.nodes)
        )
        looping = told_otherwise(name, "services", before, after)(facts)
        return api(nodes=nodes)(section(name, "kubelet-error", error)(looping))

    return alter


def apart(facts: Facts) -> Facts:
    """No machine reaches another one, so HAProxy has no API server that is up."""
    for node in lab().nodes:
        others = known(facts.machines[node.name]).reach
        said = "\n".join(f"{name} no answer within 3 s" for name in others)
        facts = section(node.name, "reach", said)(facts)
    return unreached(NO_SERVER_UP)(facts)


def off(machine: str, seconds: float) -> Alter:
    """A machine's clock is off."""
    return lambda facts: _with(facts, replace(known(facts.machines[machine]), skew=seconds))


def seen(node: str, question: str, answer: str) -> Alter:
    """A pod sees something else."""

    def alter(facts: Facts) -> Facts:
        probes = known(facts.probes)
        others = {**probes.seen, node: {**known(probes.seen[node]), question: answer}}
        return replace(facts, probes=replace(probes, seen=others))

    return alter


def probes(**changes: Any) -> Alter:
    """What was asked of pods came out otherwise."""
    return lambda facts: replace(facts, probes=replace(known(facts.probes), **changes))


def files(**changes: Any) -> Alter:
    """This host's own files are otherwise."""
    return lambda facts: replace(facts, files=replace(known(facts.files), **changes))


def _with(facts: Facts, machine: Machine) -> Facts:
    return replace(facts, machines={**facts.machines, machine.name: machine})
