"""Security: no credentials to add a machine are left, secrets are private, certificates are correct."""

from __future__ import annotations

from datetime import datetime, timedelta

from lab.health.checks.check import (
    Finding,
    LabCheck,
    MachineCheck,
    answers,
    expect,
    expect_none,
    only_if_all_answered,
)
from lab.health.facts.certificates import is_signed_by
from lab.health.facts.gather import Facts
from lab.health.facts.machine import Machine
from lab.health.reading import read
from lab.model import Lab, Node
from lab.model.roles import ROLES
from lab.model.selectors import every_machine, kubernetes_nodes
from lab.unknown import known
from lab.workspace.render.keys import CERTIFICATE

PKI = "/etc/kubernetes/pki"
KUBELET_SERVING = "/var/lib/kubelet/pki/kubelet-server-current.pem"
SOON = timedelta(days=30)


def _holders_of_keys(lab: Lab) -> tuple[Node, ...]:
    """The machines with keys of the cluster's own: of API servers, of etcd."""
    return tuple(node for node in lab.nodes if node in lab.control_planes or node in lab.etcd_members)


def _keepers_of_the_ca(lab: Lab) -> tuple[Node, ...]:
    """Every machine that trusts the cluster's CA; HAProxy of the reference profile checks no certificate."""
    nodes = lab.nodes if lab.load_balancer.profile == "tuned" else lab.kubernetes_nodes
    return tuple(node for node in nodes if node.spec.cluster_ca)


def no_bootstrap_token(lab: Lab, facts: Facts) -> Finding:
    found = [name for name, kind in known(facts.api.secrets) if kind == "bootstrap.kubernetes.io/token"]
    return expect_none("no bootstrap token", [f"{len(found)} of them"] if found else [])


def no_uploaded_certificates(lab: Lab, facts: Facts) -> Finding:
    found = [name for name, _ in known(facts.api.secrets) if name == "kubeadm-certs"]
    return expect_none("no Secret kubeadm-certs", found)


def no_run_secret(lab: Lab, facts: Facts, node: Node) -> Finding:
    left = facts.machine(node).text("left-by-runs").split()
    return expect_none("nothing left of a bring-up's secrets", left)


def open_keys(lab: Lab, facts: Facts, node: Node) -> Finding:
    return expect_none("keys and kubeconfigs for root only", facts.machine(node).text("open-keys").split())


def logins(lab: Lab, facts: Facts, node: Node) -> Finding:
    keys = [line for line in facts.machine(node).text("logins").splitlines() if line.strip()]
    known_to_all = ", among them the one that everybody has" if any("insecure" in k for k in keys) else ""
    good = len(keys) == 1 and not known_to_all
    return Finding(
        "one key, the lab's own", f"{len(keys)} keys{known_to_all}" if not good else "one key, the lab's own",
        "holds" if good else "fails",
    )  # fmt: skip


def kubeconfig_private(lab: Lab, facts: Facts) -> Finding:
    files = known(facts.files)
    return expect(
        f"mode 600, pointing at {lab.api.url}",
        f"mode {files.kubeconfig_mode:o}, pointing at {files.kubeconfig_server}",
    )


def secrets_private(lab: Lab, facts: Facts) -> Finding:
    files = known(facts.files)
    bad = [] if files.secrets_mode == 0o700 else [f".lab/secrets has mode {files.secrets_mode:o}"]
    return expect_none(".lab/secrets and all in it for its owner only", [*bad, *files.open_secrets])


def cluster_ca(lab: Lab, facts: Facts, node: Node) -> Finding:
    path = ROLES[node.role].cluster_ca
    own = known(facts.files).ca_sha256
    return expect(
        f"the lab's CA ({own[:16]}…)",
        f"the lab's CA ({facts.machine(node).certificate(path).sha256[:16]}…)"
        if facts.machine(node).certificate(path).sha256 == own
        else f"another one in {path} ({facts.machine(node).certificate(path).sha256[:16]}…)",
    )


def same_keys(lab: Lab, facts: Facts) -> Finding:
    found, silent = answers(facts, lab.control_planes, _common)
    bad = [
        f"{what} differs: {', '.join(f'{name} has {each[what][:16]}…' for name, each in found.items())}"
        for what in next(iter(found.values()), {})
        if len({each[what] for each in found.values()}) > 1
    ]
    expected = "the same etcd CA, front-proxy CA and service-account key on every control plane"
    return only_if_all_answered(expect_none(expected, bad), silent)


def _common(machine: Machine) -> dict[str, str]:
    return {
        "etcd's CA": machine.certificate(f"{PKI}/etcd/ca.crt").sha256,
        "the front-proxy CA": machine.certificate(f"{PKI}/front-proxy-ca.crt").sha256,
        "the service-account key": machine.service_account_key,
    }


def certificate_names(lab: Lab, facts: Facts, node: Node) -> Finding:
    own = {node.name, str(node.address)}
    services = {
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    }
    first = str(lab.network.services.network_address + 1)
    wanted = {}
    if node in lab.control_planes:
        wanted[f"{PKI}/apiserver.crt"] = own | services | {first, *lab.api.certificate_names}
    if node in lab.etcd_members:
        wanted |= {f"{PKI}/etcd/{name}.crt": own | {"localhost", "127.0.0.1"} for name in ("server", "peer")}
    machine = facts.machine(node)
    bad = [
        f"{path} lacks {', '.join(sorted(names - machine.certificate(path).names))}"
        for path, names in wanted.items()
        if names - machine.certificate(path).names
    ]
    return expect_none("the API server's and etcd's certificates have every name they are asked by", bad)


def kubelet_certificate(lab: Lab, facts: Facts, node: Node) -> Finding:
    expected = f"for {node.name} and {node.address}, signed by the cluster's CA"
    found = [each for each in facts.machine(node).certificates if each.path == KUBELET_SERVING]
    if not found:
        return Finding(expected, "the kubelet has none", "fails")
    certificate, ca = found[0], known(facts.files).ca
    cas = CERTIFICATE.findall(ca) or [ca]  # two while the CA is rotated
    names = ", ".join(sorted(certificate.names)) or "no name"
    bad = [] if certificate.names == {node.name, str(node.address)} else [f"it is for {names}"]
    title = f"{node.name}'s {KUBELET_SERVING}"
    if not read(title, certificate.pem, lambda pem: any(is_signed_by(pem, each) for each in cas)):
        bad.append("the cluster's CA has not signed it")
    return expect_none(expected, bad)


def certificate_expiry(lab: Lab, facts: Facts, node: Node) -> Finding:
    now = facts.api.asked_at
    found = facts.machine(node).certificates
    ends = sorted((each.until, each.path) for each in found)
    expected = f"every certificate valid now, and for {SOON.days} days or more"
    early = [f"{each.path} is valid from {_moment(each.since)} on" for each in found if each.since > now]
    soon = [f"{path} ends on {until:%Y-%m-%d}" for until, path in ends if until - now < SOON]
    over = any(until <= now for until, _ in ends)
    if not ends:
        return Finding(expected, "no certificate was found", "fails")
    if early or over:
        return Finding(expected, f"{'; '.join([*early, *soon])}; it is {_moment(now)}", "fails")
    if soon:
        return Finding(expected, "; ".join(soon), "warns")
    return Finding(expected, f"the first ends on {ends[0][0]:%Y-%m-%d}", "holds")


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def kubeconfig_expiry(lab: Lab, facts: Facts) -> Finding:
    found = known(facts.files).client_valid
    expected = f"a client certificate that is valid now, and for {SOON.days} days or more"
    if found is None:
        return Finding(expected, "a user without a client certificate", "holds")
    validity, now = known(found), facts.api.asked_at
    problem = validity.problem(now)
    if problem:
        return Finding(expected, problem, "fails")
    ends = f"ends on {validity.until:%Y-%m-%d}"
    return Finding(expected, ends, "warns" if validity.until - now < SOON else "holds")


CHECKS = (
    LabCheck(
        "no-bootstrap-token",
        no_bootstrap_token,
        means="anyone with such a token can add a machine to the cluster",
        hint="on a control plane: `kubeadm token list`, `kubeadm token delete ID`; `./inv up` revokes its own",
    ),
    LabCheck(
        "no-uploaded-certificates",
        no_uploaded_certificates,
        means="it has the cluster's keys, encrypted, and anyone who gets the certificate key can read them",
        hint="`kubectl -n kube-system delete secret kubeadm-certs`; `./inv up` does it too",
    ),
    MachineCheck(
        "no-run-secret",
        every_machine,
        no_run_secret,
        means="a secret of `up` stays on the machine longer than needed",
        hint="remove the files named; an interrupted `./inv up` leaves them, the next one removes them",
    ),
    MachineCheck(
        "open-keys",
        _holders_of_keys,
        open_keys,
        means="anyone who logs in to this machine can read a key and act as cluster administrator",
        hint="on the machine: `chmod 600` those named",
    ),
    MachineCheck(
        "logins",
        every_machine,
        logins,
        means="another key opens this machine; anyone has Vagrant's well-known one",
        hint="/home/vagrant/.ssh/authorized_keys should have the same key as .lab/secrets/id_ed25519.pub",
    ),
    LabCheck(
        "kubeconfig-private",
        kubeconfig_private,
        means="others on this host can administer the cluster, or you depend on one API server instead of all",
        hint="`./inv up` writes .lab/kubeconfig again",
    ),
    LabCheck(
        "kubeconfig-expiry",
        kubeconfig_expiry,
        means="outside that period the API rejects users of .lab/kubeconfig, and so this kit",
        hint="compare the clock (`date -u`). If it is right: `./inv up` renews control planes' certificates "
        "and fetches the kubeconfig again",
    ),
    LabCheck(
        "secrets-private",
        secrets_private,
        means="others on this host can read the CA key, and so can act as cluster administrator",
        hint="in the lab's folder: `chmod -R go= .lab/secrets`; destroy the lab if anyone may have read it",
    ),
    MachineCheck(
        "cluster-ca",
        _keepers_of_the_ca,
        cluster_ca,
        means="this machine trusts another CA than the lab's: it rejects the API, or trusts another one",
        hint="`./inv up` gives the load balancer its copy again; a node with another CA must join again",
    ),
    LabCheck(
        "same-keys",
        same_keys,
        means="tokens that one API server signs are rejected by another one, so that some requests fail",
        hint="copy them from a correct control plane, or let that machine join again (`./inv up`)",
    ),
    MachineCheck(
        "certificate-names",
        _holders_of_keys,
        certificate_names,
        means="clients that use a name that is not in the certificate reject the server",
        hint="`kubeadm init phase certs apiserver` (or etcd-server, etcd-peer) there, once it is removed",
    ),
    MachineCheck(
        "kubelet-certificate",
        kubernetes_nodes,
        kubelet_certificate,
        means="`kubectl logs` and `exec` may fail here, and metrics-server has no figures of this node",
        hint="`kubectl get certificatesigningrequests` shows what the kubelet asks for; `./inv up` approves it "
        "if it is for this node alone",
    ),
    MachineCheck(
        "certificate-expiry",
        every_machine,
        certificate_expiry,
        means="outside that period all others reject this machine's part of the cluster",
        hint="compare the clocks (`date -u`, there and on this host). If they are right: `./inv up` renews a "
        "control plane's certificates. The lab's CA: `./inv drill rotate-ca`. A worker: `./inv replace NODE`",
    ),
)  # fmt: skip
