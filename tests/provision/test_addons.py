"""addons.sh and kubelet-certificates.sh, run for real on a machine of scratch folders, with real requests."""

from __future__ import annotations

import base64
import ipaddress
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AttributeOID, NameOID

from lab.model.addons import ADDONS
from tests.provision.world import World

BOTH = ("metrics-server", "local-path")
LEAVING = "Namespace local-path-storage is still being deleted\n"


@pytest.fixture
def cp1(tmp_path: Path) -> World:
    """The first control plane of a lab that is up."""
    world = World(tmp_path / "cp1", "cp1")
    admin = world.path("/etc/kubernetes/admin.conf")
    admin.parent.mkdir()
    admin.write_text("    server: https://192.168.56.10:6443\n")
    world.let(api="", own_api="", missing="", secrets="")
    return world


def wants(world: World, *addons: str) -> None:
    """Let lab.yaml ask for these."""
    env = world.root / "opt" / "node.env"
    lines = [line for line in env.read_text().splitlines() if not line.startswith("ADDONS=")]
    env.write_text("\n".join([*lines, f"ADDONS='{' '.join(addons)}'"]) + "\n")


def objects(world: World) -> list[str]:
    """What of add-ons is in the cluster."""
    found = world.root / "state" / "addon-objects"
    return sorted(found.read_text().splitlines()) if found.exists() else []


def listed(world: World, *addons: str) -> list[str]:
    """What the manifests of these have in them."""
    texts = [(world.root / "opt" / "addons" / f"{name}.objects").read_text() for name in addons]
    return sorted("".join(texts).splitlines())


def test_a_lab_without_add_ons_is_asked_once_and_left_alone(cp1: World) -> None:
    ran = cp1.run("addons")
    assert (ran.code, ran.last, ran.changes) == (0, "ha-lab: unchanged", [])
    assert len([call for call in ran.calls if call.startswith("kubectl ")]) == 1


def test_add_ons_are_applied_and_then_left_alone(cp1: World) -> None:
    wants(cp1, *BOTH)
    ran = cp1.run("addons")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert objects(cp1) == listed(cp1, *BOTH)
    again = cp1.run("addons")
    assert (again.code, again.last, again.changes) == (0, "ha-lab: unchanged", []), again.said
    assert len([call for call in again.calls if call.startswith("kubectl ")]) == 1


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ("workload_local_path", "0 map[containers:[map[]]]"),
        ("addon_objects", ""),
        ("ha_lab_addon_local_path", "local-path 0000 0000"),
    ],
    ids=["scaled to 0", "deleted", "another manifest"],
)
def test_an_add_on_that_was_changed_is_applied_again(cp1: World, state: str, text: str) -> None:
    wants(cp1, "local-path")
    cp1.run("addons")
    cp1.let(**{state: text})
    assert "addons local-path" in cp1.run("unfinished").said
    ran = cp1.run("addons")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert any(call.endswith("/addons/local-path.yaml") for call in ran.changes)


def test_what_is_missing_is_named(cp1: World) -> None:
    wants(cp1, *BOTH)
    cp1.run("addons")
    left = [line for line in objects(cp1) if line != "Service kube-system metrics-server"]
    cp1.let(addon_objects="\n".join(left) + "\n")
    said = cp1.run("unfinished").said.splitlines()
    assert said == ["pod-network", "addons metrics-server lacks its Service metrics-server"]


@pytest.mark.parametrize("name", ADDONS)
def test_an_add_on_that_lab_yaml_no_longer_has_is_removed_with_all_that_is_in_it(cp1: World, name: str) -> None:
    wants(cp1, *BOTH)
    cp1.run("addons")
    wants(cp1, *(each for each in BOTH if each != name))
    assert f"addons {name} is in the cluster, and lab.yaml does not ask for it" in cp1.run("unfinished").said
    cp1.let(leaving=LEAVING)
    ran = cp1.run("addons")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert objects(cp1) == listed(cp1, *(each for each in BOTH if each != name))
    assert cp1.run("addons").last == "ha-lab: unchanged"


def test_local_path_stays_while_claims_have_volumes_of_it(cp1: World) -> None:
    wants(cp1, "local-path")
    cp1.run("addons")
    wants(cp1)
    cp1.let(volumes="shop/data\nshop/logs\n")
    ran = cp1.run("addons")
    assert ran.code == 1
    assert "local-path was not removed, since these claims have volumes of it: shop/data shop/logs" in ran.said
    assert ran.changes == []
    cp1.let(volumes="")
    assert cp1.run("addons").last == "ha-lab: changed"


def test_the_volume_of_a_verify_that_has_just_ended_is_waited_for(cp1: World) -> None:
    wants(cp1, "local-path")
    cp1.run("addons")
    wants(cp1)
    cp1.let(volumes="ha-lab-verify-x2k9/volume\n", volumes_go="")
    ran = cp1.run("addons")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert len([call for call in ran.calls if "get persistentvolumes" in call]) == 3
    assert objects(cp1) == []


def test_an_add_on_is_applied_once_what_was_deleted_of_it_is_gone(cp1: World) -> None:
    wants(cp1, "local-path")
    cp1.let(leaving=LEAVING * 2)
    ran = cp1.run("addons")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert objects(cp1) == listed(cp1, "local-path")


def test_a_machine_without_the_image_says_what_to_do(cp1: World) -> None:
    wants(cp1, "metrics-server")
    cp1.let(images="registry.k8s.io/pause:3.10\n")
    ran = cp1.run("addons")
    assert ran.code == 1
    assert "cp1 has no image registry.k8s.io/metrics-server/metrics-server:v" in ran.said
    assert "`./inv replace NAME` makes one machine after the other again" in ran.said
    assert ran.changes == []


# Kubelets' serving certificates.

KEY = ec.generate_private_key(ec.SECP256R1())
NODES = '["system:nodes" "system:authenticated"]'
SERVER = '["digital signature" "server auth"]'
W1 = "192.168.56.21"


def csr(
    name: str = "system:node:w1",
    group: str = "system:nodes",
    *,
    dns: Sequence[str] = ("w1",),
    addresses: Sequence[str] = (W1,),
    more: Sequence[x509.ExtensionType] = (),
    attribute: str = "",
) -> bytes:
    """A request as a kubelet makes it, in PEM."""
    parts = [(NameOID.ORGANIZATION_NAME, group), (NameOID.COMMON_NAME, name)]
    subject = x509.Name([x509.NameAttribute(oid, text) for oid, text in parts if text])
    builder = x509.CertificateSigningRequestBuilder(subject)
    names: list[x509.GeneralName] = [x509.DNSName(each) for each in dns]
    names += [x509.IPAddress(ipaddress.ip_address(each)) for each in addresses]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for each in more:
        builder = builder.add_extension(each, critical=False)
    if attribute:
        builder = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, attribute.encode())
    return builder.sign(KEY, SHA256()).public_bytes(Encoding.PEM)


def with_another_signature() -> bytes:
    """A request whose last bytes are those of another one's signature."""
    own, other = (x509.load_pem_x509_csr(csr(dns=[each])).public_bytes(Encoding.DER) for each in ("w1", "w2"))
    text = base64.encodebytes(own[:-8] + other[-8:]).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n".encode()


def request(
    name: str, pem: bytes, username: str = "system:node:w1", groups: str = NODES, usages: str = SERVER
) -> str:
    """A request as kubectl prints it for kubelet-certificates.sh."""
    text = base64.b64encode(pem).decode()
    return (
        f"name {name}\nusername {json.dumps(username)}\ngroups {groups}\nusages {usages}\nrequest {text}\nend\n"
    )


def lacks(world: World, *addresses: str) -> None:
    """Let these kubelets have no certificate; request csr-ADDRESS is for it."""
    urls = [f"https://{address}:10250/healthz" for address in addresses]
    world.let(
        uncertified="".join(f"{url}\n" for url in urls),
        asks_for="".join(f"csr-{a} {url}\n" for a, url in zip(addresses, urls, strict=True)),
        secrets="",
        requests="",
    )


def approved(calls: Sequence[str]) -> list[str]:
    return [name for call in calls if " certificate approve " in call for name in call.split()[7:]]


def test_where_all_kubelets_have_certificates_only_their_requests_are_looked_at(cp1: World) -> None:
    lacks(cp1)
    ran = cp1.run("kubelet-certificates")
    assert (ran.code, ran.last, ran.changes) == (0, "ha-lab: unchanged", []), ran.said
    assert len([call for call in ran.calls if "certificatesigningrequests" in call]) == 1


def test_a_kubelet_that_asks_for_its_next_certificate_gets_it_while_it_still_has_one(cp1: World) -> None:
    lacks(cp1)
    cp1.let(requests=request("csr-next", csr()))
    ran = cp1.run("kubelet-certificates")
    assert (ran.code, ran.last, approved(ran.calls)) == (0, "ha-lab: changed", ["csr-next"]), ran.said


def test_requests_of_the_lab_s_own_nodes_are_approved(cp1: World) -> None:
    lacks(cp1, W1, "192.168.56.11")
    old = csr(dns=(), addresses=(W1,))
    cp1.let(
        requests=request(f"csr-{W1}", csr())
        + request("csr-2", old, usages='["digital signature" "key encipherment" "server auth"]')
        + request(
            "csr-192.168.56.11",
            csr("system:node:cp1", dns=["cp1"], addresses=["192.168.56.11"]),
            "system:node:cp1",
        )
    )
    ran = cp1.run("kubelet-certificates")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert approved(ran.calls) == [f"csr-{W1}", "csr-2", "csr-192.168.56.11"]


SHOWN = "Requested Extensions:\nX509v3 Subject Alternative Name:"
FOREIGN = "which is no node of this lab"
REFUSED = {
    "of a node that is not the lab's": (
        request("csr-bad", csr("system:node:x9", dns=["x9"]), "system:node:x9"),
        f'it comes from "system:node:x9", {FOREIGN}',
    ),
    "of two names of nodes at once": (
        request("csr-bad", csr(), "system:node:cp1 cp2"),
        FOREIGN,
    ),
    "of a user": (
        request("csr-bad", csr(), "kubernetes-admin", '["system:nodes"]'),
        f'it comes from "kubernetes-admin", {FOREIGN}',
    ),
    "of a node for another node": (
        request("csr-bad", csr("system:node:w2", dns=["w2"], addresses=["192.168.56.22"])),
        "its subject is not that of w1: CN=system:node:w2,O=system:nodes",
    ),
    "of no member of system:nodes": (
        request("csr-bad", csr(), groups='["system:authenticated"]'),
        "it comes from no member of the group system:nodes",
    ),
    "for a client's certificate": (
        request("csr-bad", csr(), usages='["client auth" "digital signature"]'),
        "and not only for a server's",
    ),
    "for a server's and a client's": (
        request("csr-bad", csr(), usages='["client auth" "digital signature" "server auth"]'),
        "and not only for a server's",
    ),
    "with another group": (
        request("csr-bad", csr(group="system:masters")),
        "its subject is not that of w1: CN=system:node:w1,O=system:masters",
    ),
    "without a group": (
        request("csr-bad", csr(group="")),
        "its subject is not that of w1: CN=system:node:w1",
    ),
    "with another node's name besides": (
        request("csr-bad", csr(dns=["w1", "w2"])),
        "it is not for w1 and 192.168.56.21 alone: DNS:w1, DNS:w2, IP Address:192.168.56.21",
    ),
    "with the load balancer's address besides": (
        request("csr-bad", csr(addresses=[W1, "192.168.56.10"])),
        "it is not for w1 and 192.168.56.21 alone",
    ),
    "with the NAT address only": (
        request("csr-bad", csr(addresses=["10.0.2.15"])),
        "it is not for w1 and 192.168.56.21 alone",
    ),
    "with a name only": (
        request("csr-bad", csr(addresses=[])),
        "it is not for w1 and 192.168.56.21 alone",
    ),
    "without any name": (
        request("csr-bad", csr(dns=[], addresses=[])),
        "it is not for w1 and 192.168.56.21 alone",
    ),
    "with more than names": (
        request("csr-bad", csr(more=[x509.BasicConstraints(ca=True, path_length=None)])),
        "it is not for w1 and 192.168.56.21 alone",
    ),
    "with an attribute that looks like other names": (
        request(
            "csr-bad",
            csr(
                dns=["w1", "cp1"],
                attribute=f"x\n{SHOWN}\nDNS:w1, IP Address:{W1}",
            ),
        ),
        "it is not for w1 and 192.168.56.21 alone",
    ),
    "that is none": (
        request("csr-bad", b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"),
        "it can't be read, or is not signed with its own key",
    ),
    "with a signature of another key": (
        request("csr-bad", with_another_signature()),
        "it can't be read, or is not signed with its own key",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_request_that_does_not_fit_is_left_as_it_is_and_the_reason_is_shown(cp1: World, what: str) -> None:
    said, why = REFUSED[what]
    lacks(cp1, W1)
    # Once the other request is approved, all is well: the bad one is in no one's way.
    cp1.let(requests=said + request(f"csr-{W1}", csr()))
    problem = request_problem(cp1, said)
    assert why in problem
    ran = cp1.run("kubelet-certificates")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert approved(ran.calls) == [f"csr-{W1}"]


def request_problem(world: World, said: str) -> str:
    """What the rule says of a request."""
    fields = dict(line.split(" ", 1) for line in said.splitlines() if " " in line)
    script = (world.root / "opt" / "kubelet-certificates.sh").read_text().replace("\nmain\n", "\n")
    own = world.root / "opt" / "rule.sh"
    own.write_text(f'{script}\nrequest_problem "$@"\n')
    words = [fields[key] for key in ("username", "groups", "usages", "request")]
    done = subprocess.run(["bash", str(own), *words], capture_output=True, text=True, check=False, timeout=30)
    return done.stdout


def test_the_rule_has_nothing_against_a_request_that_fits(cp1: World) -> None:
    assert request_problem(cp1, request("csr-1", csr())) == ""


def test_a_kubelet_that_gets_no_certificate_is_named_with_its_request(cp1: World) -> None:
    lacks(cp1, W1)
    cp1.let(requests=REFUSED["with another node's name besides"][0])
    ran = cp1.run("kubelet-certificates")
    assert ran.code == 1
    assert "gave up after 120 s waiting for each kubelet to serve with a certificate" in ran.said
    assert f"https://{W1}:10250/healthz TLS connect error: tlsv1 alert internal error" in ran.said
    assert "the request csr-bad is not approved: it is not for w1 and 192.168.56.21 alone" in ran.said
    assert approved(ran.calls) == []


def test_it_waits_until_all_nodes_have_joined(cp1: World) -> None:
    lacks(cp1)
    cp1.let(names="cp1 cp2")
    ran = cp1.run("kubelet-certificates")
    assert (ran.code, "cp3 has not joined yet" in ran.said) == (1, True)
