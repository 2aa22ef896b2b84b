"""Renders the model as text files. Pure: the same lab and site give the same bytes.

Templates quote each value for their language (`ruby`, `shell`, `yaml`), so that no value from lab.yaml is
interpreted as Ruby, shell or YAML.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml

from lab.golden.supply.images import PROBE
from lab.golden.supply.releases import release
from lab.model import Lab, Node, machine_name, owner_label
from lab.model.addons import ADDONS
from lab.model.roles import (
    COREDNS_PATCH,
    ETCD_CLIENT,
    KEEPALIVED,
    NETWORK_POLICY,
    POD_NETWORK,
    PROBE_PATCHES,
    ROLES,
    RoleSpec,
)
from lab.system import quoting
from lab.system.paths import PROVISION, REPOSITORY
from lab.workspace.render import disc
from lab.workspace.render.credentials import ca_hash

FLANNEL = "/usr/share/ha-lab/kube-flannel.yml"
"""The manifest of the golden machine's flannel."""

# Container machines run without --privileged: these options lift docker's restrictions one by one.
UNCONFINED = (
    *("--security-opt", "seccomp=unconfined"),
    *("--security-opt", "apparmor=unconfined"),
    *("--security-opt", "systempaths=unconfined"),
    # A daemon's default could keep sudo from becoming root (moby's parseSecurityOpt: this option wins).
    *("--security-opt", "no-new-privileges=false"),
    # A daemon's default could run another init before systemd, which has to be process 1.
    "--init=false",
    *("--device-cgroup-rule", "a *:* rwm"),
    # A cgroup tree for each machine; with the host's, all kubelets would share one.
    "--cgroupns=private",
    *("--tmpfs", "/run:exec"),
    # The signal that asks systemd to shut down.
    *("--stop-signal", "SIGRTMIN+3"),
    # Not on docker's overlay: overlayfs can't be stacked on it, and etcd needs a plain disk.
    *(
        "--volume",
        "/var/lib/containerd",
        "--volume",
        "/var/lib/etcd",
        "--volume",
        "/var/lib/kubelet",
    ),
)


CREDENTIAL = "ha-lab.authorized_keys"
"""The credential that a virtual machine's unit ha-lab-authorize reads the lab's key from."""

COMMON_SCRIPTS = (
    *("lib", "kubernetes", "api-server", "node-files", "certificate", "cluster-objects"),
    *("etcd-certificates", "etcd-members", "haproxy", "keepalived"),
    "settle",
)
"""Scripts for every machine; those of each role are in ROLES."""

PROVISIONERS = {
    # They wait for machines that may not exist yet, so they run in the background.
    name: f"systemctl is-active --quiet ha-lab-{name} || "
    f"systemd-run --quiet --collect --unit ha-lab-{name} /opt/ha-lab/{name}.sh"
    for name in ("etcd", "kubelet-certificates", "revoke")
}
"""The provisioning commands of a bare `vagrant up` that are more than one script."""

LAB_NETWORK = "network.network.20-lab"
"""systemd-network-generator creates /run/systemd/network/20-lab.network from it at every boot."""

# libvirt's settings for a machine's CPU and disk cache. An emulated CPU has few features, since each costs
# time, and its disk never waits for the host's: after a power failure of the host, create the lab again.
HARDWARE_CPU = {"driver": "kvm", "mode": "host-passthrough", "model": "", "cache": "default"}
EMULATED_CPU = {"driver": "qemu", "mode": "custom", "model": "qemu64", "cache": "unsafe"}


@dataclass(frozen=True)
class Site:
    """What rendering needs besides the lab: its folder, and the public part of its credentials.

    `owner` is the value of the label on the lab's machines, `image` the golden machine, `capabilities` those of
    a container machine, `manifest` the text of the pod network's manifest that lab.yaml names (empty: the
    golden machine's flannel). `etcd_ca_certificate` is that of etcd's CA, where etcd has machines of its own;
    else empty.
    """

    workspace: Path
    owner: str
    control: Path
    image: str
    capabilities: tuple[str, ...]
    ca_certificate: str
    authorized_key: str
    manifest: str = ""
    etcd_ca_certificate: str = ""


Order = Callable[[Lab, Node], Sequence[str]]
"""The scripts of provision/node/ that a bare `vagrant up` runs on a machine, by name, in order."""


@dataclass(frozen=True)
class Provisioner:
    """One named step of a bare `vagrant up` on one machine."""

    name: str
    command: str


def render(lab: Lab, site: Site, order: Order, leaving: Sequence[Node] = ()) -> dict[str, str]:
    """Return every rendered file: path below `.lab/` → text. Each machine's files include its scripts.

    `order` returns the scripts that a bare `vagrant up` runs on a machine, in order. Machines that are
    `leaving` stay in Vagrant's and ssh's files, and are in no others.
    """
    nodes = (*lab.nodes, *leaving)
    texts = {
        "Vagrantfile": _vagrantfile(lab, site, order, nodes),
        "ssh_config": _ssh_config(lab, site, nodes),
    }
    for node in lab.nodes:
        for name, text in _node_files(lab, node, site).items():
            texts[f"nodes/{node.name}/{name}"] = text
    return texts


def _provisioners(names: Sequence[str]) -> tuple[Provisioner, ...]:
    return tuple(Provisioner(name, PROVISIONERS.get(name, f"bash /opt/ha-lab/{name}.sh")) for name in names)


def _vagrantfile(lab: Lab, site: Site, order: Order, nodes: Sequence[Node]) -> str:
    machines = [
        {
            "node": node,
            "container": machine_name(lab, node),
            "create_args": _create_args(site),
            "credentials": _credentials(lab, node, site),
            "steps": _provisioners(order(lab, node)),
        }
        for node in nodes
    ]
    return template(
        "Vagrantfile.j2",
        lab=lab,
        machines=machines,
        image=site.image,
        authorized_key=site.authorized_key,
        label=owner_label(site.owner),
        disc=disc.name(site.authorized_key),
        cpu=EMULATED_CPU if lab.emulated else HARDWARE_CPU,
    )


def _credentials(lab: Lab, node: Node, site: Site) -> list[str]:
    """What a virtual machine's firmware passes to systemd as credentials.

    systemd.io, "System and Service Credentials": SMBIOS type 11 strings, in base64. For how systemd uses a
    hostname and a network file, see systemd.system-credentials(7).
    """
    network = template("lab.network.j2", lab=lab, node=node)
    texts = {CREDENTIAL: f"{site.authorized_key}\n", "system.hostname": node.name, LAB_NETWORK: network}
    return [
        f"type=11,value=io.systemd.credential.binary:{name}={base64.b64encode(text.encode()).decode()}"
        for name, text in texts.items()
    ]


def _create_args(site: Site) -> list[str]:
    words = ["--label", owner_label(site.owner), *UNCONFINED]
    for capability in site.capabilities:
        words += ["--cap-add", capability]
    return words


def _ssh_config(lab: Lab, site: Site, nodes: Sequence[Node]) -> str:
    return template(
        "ssh_config.j2",
        lab=lab,
        nodes=nodes,
        path=site.workspace / "ssh_config",
        identity=site.workspace / "secrets" / "id_ed25519",
        control=site.control,
    )


def _node_files(lab: Lab, node: Node, site: Site) -> dict[str, str]:
    known = template_values(lab, node) | {
        "ca_hash": ca_hash(site.ca_certificate),
        "ca_base64": base64.b64encode(site.ca_certificate.encode()).decode(),
        "manifest": "manifest.yaml" if site.manifest else FLANNEL,
    }
    spec = ROLES[node.role]
    left_out = {
        COREDNS_PATCH: not known["apart"],
        NETWORK_POLICY: lab.network.policy != "kube-router",
        **dict.fromkeys(PROBE_PATCHES, not lab.emulated),
        **dict.fromkeys(KEEPALIVED, not lab.pair),
        ETCD_CLIENT: not lab.external_etcd,
    }
    files = {
        path: template(name.format(profile=lab.load_balancer.profile), **known)
        for path, name in spec.templates.items()
        if not left_out.get(path)
    }
    if POD_NETWORK in files and site.manifest:
        files["pod-network/manifest.yaml"] = site.manifest
    if spec.serves_api:
        files |= _addons(known)
    files["ca.crt"] = site.ca_certificate
    if site.etcd_ca_certificate and (spec.etcd_member or spec.serves_api):
        files["etcd-ca.crt"] = site.etcd_ca_certificate
    return files | _copies(spec)


def _addons(known: dict[str, Any]) -> dict[str, str]:
    """Every known add-on's manifest, and a list of what is in it: `KIND NAMESPACE NAME`, "-" for no namespace.

    Also of those that lab.yaml does not ask for, since that is what `up` removes an add-on by.
    """
    files = {}
    for name, addon in ADDONS.items():
        image = addon.image.format(release=known["release"])
        text = template(f"addons/{name}.yaml.j2", **known, image=image, probe_image=PROBE)
        files[f"addons/{name}.yaml"] = text
        files[f"addons/{name}.objects"] = "".join(f"{each}\n" for each in _objects(text))
    return files


def _objects(manifest: str) -> list[str]:
    found = [(each["kind"], each["metadata"]) for each in yaml.safe_load_all(manifest) if each]
    return [f"{kind} {metadata.get('namespace', '-')} {metadata['name']}" for kind, metadata in found]


def template_values(lab: Lab, node: Node) -> dict[str, Any]:
    """The values for a machine's templates that come from lab.yaml only, not from the CA."""
    return {
        "lab": lab,
        "node": node,
        "release": release(lab.kubernetes.version),
        "runs_kubernetes": node in lab.kubernetes_nodes,
        "previous": _previous(lab, node),
        "etcd_endpoints": ",".join(f"https://{n.address}:2379" for n in lab.etcd_members),
        "initial_cluster": initial_cluster(lab.etcd_members),
        "flannel": FLANNEL,
        "apart": len(lab.kubernetes_nodes) > 1,
    }


def peer(node: Node) -> str:
    """The URL at which an etcd member's peers reach it, as kubeadm has it."""
    return f"https://{node.address}:2380"


def initial_cluster(members: Sequence[Node]) -> str:
    """All members, as etcd's --initial-cluster names them."""
    return ",".join(f"{node.name}={peer(node)}" for node in members)


def _previous(lab: Lab, node: Node) -> str:
    """The control plane that joins before this one; empty for the first and for others."""
    if node not in lab.control_planes[1:]:
        return ""
    return lab.control_planes[lab.control_planes.index(node) - 1].name


def _copies(spec: RoleSpec) -> dict[str, str]:
    paths = [PROVISION / f"{name}.sh" for name in COMMON_SCRIPTS]
    paths += [PROVISION / "node" / f"{name}.sh" for name in spec.scripts]
    paths += [PROVISION / "node" / name for name in spec.copies]
    return {path.name: path.read_text(encoding="utf-8") for path in paths}


def template(name: str, **known: Any) -> str:
    """Render a template; an undefined variable is an error."""
    return _environment().get_template(name).render(**known)


@functools.cache
def _environment() -> jinja2.Environment:
    """One environment for all templates: it caches them compiled, and reloads one whose file has changed."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([REPOSITORY, PROVISION / "templates"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  no HTML here; each template quotes for its own language
    )
    environment.filters |= {"ruby": _ruby, "shell": _shell, "yaml": _yaml, "ssh": _ssh}
    return environment


def _ruby(value: object) -> str:
    """Quote for Ruby: a single-quoted literal, where only backslash and quote are special."""
    text = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


def _shell(value: object) -> str:
    return quoting.word(value)


def _ssh(value: object) -> str:
    """Quote a path for ssh_config(5): a double-quoted word, with % escaped."""
    text = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"'


def _yaml(value: object) -> str:
    """Quote for YAML: a JSON string is one of its double-quoted scalars."""
    return json.dumps(str(value))
