"""The drill rotate-ca on a lab that lives in memory (world.py): at no moment does one part reject another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from lab.drill import catalogue, rotation, undo
from lab.drill.scene import Scene
from lab.errors import LabError
from lab.health.facts.certificates import is_signed_by
from lab.model import Lab, Node
from lab.remote import Remote
from lab.workspace import Workspace, kubeconfig
from lab.workspace.render import credentials
from lab.workspace.render.keys import CERTIFICATE, ca_problem
from tests.unit.world import KilledError, World, WorldRemote, lab_of, live


@dataclass
class Part:
    """A machine, the cluster's pods or the users: the CAs it was given, those it trusts, and who signed."""

    given: list[str] = field(default_factory=list)
    trusts: list[str] = field(default_factory=list)
    signed_by: set[str] = field(default_factory=set)


class Rolled:
    """A lab that is up, with what each part trusts and shows to others."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = live(World(folder), monkeypatch)
        self.world.up(lab_of(folder))
        self.world.touches.clear()
        self.lab = self.world.wanted
        self.marks: list[tuple[str, str]] = []
        self.read_again = 0
        [self.old] = self.host
        names = [*(node.name for node in self.lab.nodes), "pods", "users"]
        self.parts = {name: Part([self.old], [self.old], {self.old}) for name in names}
        self.parts["pods"].signed_by = self.parts["lb1"].signed_by = set()  # they show none of this CA
        self.serving = {node.name: self.old for node in self.lab.kubernetes_nodes}
        deliver, script, fetch = WorldRemote.deliver, WorldRemote.script, kubeconfig.fetch

        def delivered(remote: WorldRemote, node: Node) -> None:
            deliver(remote, node)
            self.parts[node.name].given = self.host

        def run(remote: WorldRemote, node: Node, name: str, words: Any = (), **options: Any) -> bool:
            changed = script(remote, node, name, words, **options)
            self.ran(node, name, tuple(words), options.get("secrets") or {})
            return changed

        def fetched(lab: Lab, workspace: Workspace, remote: Remote, node: Node) -> bool:
            fetch(lab, workspace, remote, node)
            part = self.parts[node.name]
            self.parts["users"] = Part(part.trusts, part.trusts, set(part.signed_by))
            self.require_all_accept_one_another()
            return True

        monkeypatch.setattr(kubeconfig, "fetch", fetched)
        monkeypatch.setattr(WorldRemote, "deliver", delivered)
        monkeypatch.setattr(WorldRemote, "script", run)
        monkeypatch.setattr(World, "_rotate_ca", lambda world, node, words: True, raising=False)

    @property
    def host(self) -> list[str]:
        """The CAs in the host's file."""
        return [f"{each}\n" for each in CERTIFICATE.findall(self.text("ca.crt"))]

    def text(self, name: str) -> str:
        """One of the lab's secrets."""
        return (self.world.workspace.secrets / name).read_text()

    def ran(self, node: Node, name: str, words: tuple[str, ...], secrets: Mapping[str, str]) -> None:
        """Let a script of this drill have done its work."""
        part = self.parts[node.name]
        if name == "load-balancer":
            part.trusts = part.given
        elif name == "rotate-ca" and not words:
            self.require_pairs(node, part.given[0], secrets)
            part.trusts, part.signed_by = part.given, {part.given[0]}
        elif name == "rotate-ca" and words == ("--restart",):
            assert self.world.touches[-2] == f"renew-certificates {node.name}", "static pods restart first"
        elif name == "rotate-ca" and words == ("--kubelet",):
            signing = set().union(*(self.parts[each.name].signed_by for each in self.lab.control_planes))
            assert len(signing) == 1, "which controller manager leads is not known"
            [self.serving[node.name]] = signing
        elif name == "rotate-ca" and "--objects" in words:
            trusted = [self.parts[each.name].trusts for each in self.lab.kubernetes_nodes]
            assert trusted == [part.given] * len(trusted), "not all machines are so far"
            if "--restart" in words:
                self.parts["pods"].trusts = part.given
        self.require_all_accept_one_another()

    def require_pairs(self, node: Node, ca: str, secrets: Mapping[str, str]) -> None:
        """What a machine is given is of the CA that signs, for itself, and a worker has not the CA's key."""
        assert set(secrets) == ({"ca.key", "kubelet.pem"} if node.spec.serves_api else {"kubelet.pem"})
        client = x509.load_pem_x509_certificate(secrets["kubelet.pem"].encode())
        assert client.subject.rfc4514_string() == f"CN=system:node:{node.name},O=system:nodes"
        usage = client.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
        key = serialization.load_pem_private_key(secrets["kubelet.pem"].encode(), None)
        assert key.public_key() == client.public_key()
        assert is_signed_by(secrets["kubelet.pem"], ca)
        if "ca.key" in secrets:
            signing = serialization.load_pem_private_key(secrets["ca.key"].encode(), None)
            assert signing.public_key() == x509.load_pem_x509_certificate(ca.encode()).public_key()

    def require_all_accept_one_another(self) -> None:
        """Each trusts whoever has signed for any other, and the users trust the API servers."""
        for shown, part in self.parts.items():
            for name, other in self.parts.items():
                assert part.signed_by <= set(other.trusts), f"{name} rejects {shown}"

    def users_read(self) -> None:
        """The probes read the kubeconfig again, which was fetched before."""
        self.read_again += 1
        assert self.parts["users"].trusts == self.parts["cp1"].trusts

    @property
    def scene(self) -> Scene:
        session = self.world.session(self.lab)
        return Scene(session, session.lab.nodes, lambda *mark: self.marks.append(mark), self.users_read)

    def require_over(self) -> None:
        """There is only the new CA, everywhere."""
        [new] = self.host
        assert new != self.old
        for name, part in self.parts.items():
            assert (part.trusts, part.signed_by <= {new}) == ([new], True), name
        assert set(self.serving.values()) == {new}
        assert ca_problem(self.world.workspace) is None
        assert not list(self.world.workspace.secrets.glob("next-ca*"))
        assert self.world.haproxy_drained == set()


@pytest.fixture
def rolled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rolled:
    return Rolled(tmp_path, monkeypatch)


def test_no_part_rejects_another_at_any_moment_and_the_new_ca_is_alone_at_the_end(rolled: Rolled) -> None:
    rolled.require_all_accept_one_another()
    rotation.rotate(rolled.scene)
    rolled.require_over()
    stages = [("detect", stage.mark) for stage in rotation.STAGES]
    assert rolled.marks == [("inject", "the fault"), *stages]
    assert rolled.read_again == len(rotation.STAGES)


def test_the_test_above_would_notice_a_stage_that_is_left_out(
    rolled: Rolled, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stages in (rotation.STAGES[1:], rotation.STAGES[::2]):
        monkeypatch.setattr(rotation, "STAGES", stages)
        with pytest.raises(AssertionError, match="rejects"):
            rotation.rotate(rolled.scene)


def test_control_planes_are_drained_changed_restarted_and_given_back_one_by_one(rolled: Rolled) -> None:
    rotation.rotate(rolled.scene)
    first = [touch for touch in rolled.world.touches if not touch.startswith(("deliver", "kubeconfig"))]
    one = ["load-balancer lb1", "rotate-ca {}", "renew-certificates {}", "rotate-ca {}", "load-balancer lb1"]
    of_control_planes = [each.format(f"cp{number}") for number in (1, 2, 3) for each in one]
    assert sorted(first[:3]) == ["load-balancer lb1", "rotate-ca w1", "rotate-ca w2"]
    assert first[3:18] == of_control_planes
    assert first[18:20] == ["kubelet-certificates cp1", "rotate-ca cp1"]


TOUCHES = (
    "deliver w1",
    "load-balancer lb1",
    "rotate-ca w1",
    "rotate-ca cp2",
    "renew-certificates cp1",
    "kubeconfig",
)


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("touch", TOUCHES)
def test_a_rotation_that_is_interrupted_anywhere_is_completed(rolled: Rolled, touch: str, stage: int) -> None:
    world = rolled.world
    [drill] = (each for each in catalogue.DRILLS if each.name == "rotate-ca")
    nth = 1 if stage == 1 else (stage - 1) * _times(touch, stage) + 1
    world.break_at(touch, "after", KilledError(), nth=nth)
    undo.remember(rolled.scene, drill)
    with pytest.raises(KilledError):
        drill.inject(rolled.scene)
    world.dead = False
    world.fault = None
    assert undo.leftovers(world.session(rolled.lab)) == (
        f"rotate-ca on {', '.join(n.name for n in rolled.lab.nodes)}",
    )
    rolled.require_over()


def _times(touch: str, stage: int) -> int:
    """How often this happens in a stage."""
    return 7 if touch == "load-balancer lb1" else 1


@pytest.mark.parametrize("file", ["ca.crt", "ca.key", "next-ca.key"])
def test_a_kill_between_the_host_s_files_leaves_no_pair_that_can_t_be_completed(
    rolled: Rolled, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each stage: after a file was written, or removed at the end, nothing else was."""
    workspace = type(rolled.world.workspace)
    write, unlink = workspace.write_secret, Path.unlink
    seen: Counter[str] = Counter()

    def stop(path: Path) -> None:
        seen[path.name] += 1
        if path.name == file and seen[file] == stop_at:
            raise KilledError

    def written(self: Any, path: Path, text: str) -> bool:
        changed = write(self, path, text)
        stop(path)
        return changed

    def unlinked(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok)
        stop(path)

    monkeypatch.setattr(workspace, "write_secret", written)
    monkeypatch.setattr(Path, "unlink", unlinked)
    for stop_at in (1, 2, 3):
        seen.clear()
        try:
            rotation.rotate(rolled.scene)
        except KilledError:
            monkeypatch.setattr(rolled, "marks", [])
            stop_at = 0
            rotation.rotate(rolled.scene)
        rolled.old = ""
        rolled.require_over()


def test_a_lab_without_a_rotation_under_way_is_left_as_it_is(rolled: Rolled) -> None:
    rotation.finish(rolled.scene)
    assert (rolled.world.touches, rolled.host) == ([], [rolled.old])


def test_a_failed_stage_is_not_marked_and_its_error_is_shown(rolled: Rolled) -> None:
    rolled.world.break_at("rotate-ca cp2", "before", LabError("the disk is full"))
    with pytest.raises(LabError, match="the disk is full"):
        rotation.rotate(rolled.scene)
    assert rolled.marks == [("inject", "the fault")]
    assert rolled.world.touches.count("rotate-ca cp3") == 0
    rotation.finish(rolled.scene)
    rolled.require_over()


def test_a_new_ca_is_one_that_kubeadm_accepts_and_differs_each_time() -> None:
    one, other = credentials.new_ca(), credentials.new_ca()
    assert one.certificate != other.certificate
    for pair in (one, other):
        ca = x509.load_pem_x509_certificate(pair.certificate.encode())
        assert ca.subject.rfc4514_string() == "CN=kubernetes"
        assert ca.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert pair.key not in repr(pair)
