"""What chapters 1 to 3 result in: machines, the parts of control planes, the load balancer."""

from __future__ import annotations

from collections.abc import Iterator

from lab.golden.supply.releases import release
from lab.model.selectors import Selector
from lab.unknown import Unknown
from lab.workshop.task.task import Found, Part, Sight

PROGRAMS = ("kubeadm", "kubelet", "kubectl", "etcdctl")
MADE_AGAIN = "`./inv destroy` and `./inv up --until load-balancer` create the machines again"


def answer(of: Selector) -> Part:
    """The part of a task that its machines answer: one that does not respond counts as missing."""

    def part(sight: Sight) -> Iterator[Found]:
        hint = "`./inv up --until load-balancer` creates and starts what is missing, and changes nothing else"
        for node in of(sight.lab):
            machine = sight.facts.machines[node.name]
            if isinstance(machine, Unknown):
                yield Found("not yet", node.name, "it answers", machine.reason, hint)

    return part


def container_runtime(sight: Sight) -> Iterator[Found]:
    for node in sight.lab.kubernetes_nodes:
        service = sight.facts.machine(node).services.get("containerd")
        if service is None or not service.running:
            hint = "on it: `systemctl enable --now containerd`; `journalctl -u containerd` shows why it fails"
            yield Found("broken", node.name, "containerd runs", "it does not", hint)


def programs_there(sight: Sight) -> Iterator[Found]:
    for node in sight.lab.control_planes:
        found = {path.rpartition("/")[2] for path in sight.facts.machine(node).section("programs").text.split()}
        missing = [name for name in PROGRAMS if name not in found]
        if missing:
            yield Found("broken", node.name, ", ".join(PROGRAMS), f"no {', '.join(missing)}", MADE_AGAIN)


def images_there(sight: Sight) -> Iterator[Found]:
    versions = release(sight.lab.kubernetes.version)
    for node in sight.lab.control_planes:
        wanted = [f"/kube-apiserver:v{versions.kubernetes}"]
        if node in sight.lab.etcd_members:
            wanted.append(f"/etcd:{versions.etcd_tag}")
        images = sight.facts.machine(node).text("images").split()
        missing = [name[1:] for name in wanted if not any(image.endswith(name) for image in images)]
        if missing:
            shown = ", ".join(name[1:] for name in wanted)
            yield Found("broken", node.name, f"images {shown}", f"no {', '.join(missing)}", MADE_AGAIN)


def ca_there(sight: Sight) -> Iterator[Found]:
    machine = sight.facts.machine(sight.lab.first)
    paths = {certificate.path for certificate in machine.certificates}
    paths |= set(machine.section("ca-key").text.split())
    wanted = ("/etc/kubernetes/pki/ca.crt", "/etc/kubernetes/pki/ca.key")
    missing = [path for path in wanted if path not in paths]
    if missing:
        hint = "`./inv up --until control-plane` puts it there, also after a `kubeadm reset`"
        yield Found("not yet", sight.lab.first.name, "the lab's CA", f"no {', '.join(missing)}", hint)


def configured(sight: Sight) -> Iterator[Found]:
    for node in sight.lab.balancers:
        said = sight.facts.machine(node).text("lab-configuration").strip()
        if said == "packaged":
            expected = "the lab's part in /etc/haproxy/haproxy.cfg, after the packaged one"
            yield Found("not yet", node.name, expected, "only the packaged one")


def as_the_lab_s(sight: Sight) -> Iterator[Found]:
    for node in sight.lab.balancers:
        said = sight.facts.machine(node).text("lab-configuration").strip()
        if said != "the lab's":
            hint = (
                "`<` lines are missing, `>` lines do not belong there: build the file again as in the chapter"
            )
            yield Found("broken", node.name, "/etc/haproxy/haproxy.cfg is the lab's", said, hint)


def was_read(sight: Sight) -> Iterator[Found]:
    for node in sight.lab.balancers:
        unread = sight.facts.machine(node).text("unread").split()
        if unread:
            hint = "on it: `systemctl restart haproxy`"
            found = f"{', '.join(unread)} changed after HAProxy had read its files"
            yield Found("not yet", node.name, "HAProxy runs with the current files", found, hint)


def listens(sight: Sight) -> Iterator[Found]:
    port = sight.lab.load_balancer.port
    for node in sight.lab.balancers:
        if not sight.facts.machine(node).text("listening").strip():
            hint = "on it: `journalctl -u haproxy`, then `systemctl restart haproxy`"
            yield Found("broken", node.name, f"HAProxy listens on port {port}", "no process does", hint)
