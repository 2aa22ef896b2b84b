"""A lab in memory (tests/unit/world.py), with the data of etcd's members.

It does what recover.sh and backup.sh do on machines, and refuses what etcd would refuse or not survive.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import io
import json
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab.errors import CommandFailed, LabError
from lab.health.facts.gather import COMMAND
from lab.health.facts.machine import own_scripts
from lab.model import Lab, Node
from lab.plans import recover as plans
from lab.session import Session
from lab.system import process
from lab.verbs.backup import SCRIPT as BACKUP
from lab.workspace.backup import KEYS, SHARED_PKI, SNAPSHOT, STATUS
from lab.workspace.render import peer
from tests.unit.world import World, WorldRemote

PARTS = frozenset(("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"))
YEAR_2026 = 1767225600000
"""Its beginning, in milliseconds since 1970: a recovery leads to higher revisions."""


@dataclass
class Data:
    """What one member has stored: of which cluster, with which members at which addresses, and the keys."""

    cluster: str
    peers: dict[str, str]
    keys: dict[str, int]
    revision: int


@dataclass
class Plane:
    """One control plane, or etcd machine: which of its parts run or are aside, and what etcd has there."""

    data: Data | None
    parts: frozenset[str] = PARTS
    runs: set[str] = field(default_factory=lambda: set(PARTS))
    aside: set[str] = field(default_factory=set)
    token: str = "none"  # noqa: S105  no secret
    received: bytes = b""
    pki: dict[str, str] = field(default_factory=dict)


def subnet(name: str) -> str:
    """The subnet of a Node's pods."""
    return f"10.244.{ord(name[0])}{name[-1]}.0/24"


class Recoveries(World):
    """A lab whose etcd can be backed up and recovered. `keys` are what a healthy etcd has."""

    def __init__(self, folder: Path) -> None:
        """Let there be nothing."""
        super().__init__(folder)
        self.planes: dict[str, Plane] = {}
        self.undying: set[str] = set()  # machines whose API server does not end
        self.etcd, self.free = "3.6.8", 10**10
        self.troubles: dict[str, str] = {}
        self.without_keys: set[str] = set()  # control planes that can't give the shared keys
        self.made_again: set[str] = set()  # machines that have nothing of a cluster
        self.restarted: list[str] = []
        self.given: dict[str, dict[str, str]] = {}
        self.sent: bytes | None = None  # instead of the true backup
        self.refuses_backup = ""  # what backup.sh prints when it fails

    def begin(self, lab: Lab) -> None:
        """Let a lab be up whose etcd has a few keys."""
        self.up(lab)
        peers = {node.name: peer(node) for node in lab.etcd_members}
        keys = {"/registry/deployments/shop/web": 5, "/registry/configmaps/shop/prices": 7}
        for node in (*lab.etcd_members, *lab.control_planes):
            of_etcd = {"etcd"} if lab.is_etcd_member(node) else set()
            parts = frozenset(of_etcd | (PARTS - {"etcd"} if node.spec.serves_api else set()))
            data = Data("first", peers, dict(keys), 12) if of_etcd else None
            self.planes[node.name] = Plane(data, parts, set(parts))
        self.touches.clear()

    def write(self, **keys: int | None) -> None:
        """Let a user change keys of the namespace shop, or delete those that are None."""
        for plane in self.planes.values():
            if plane.data is not None:
                for name, revision in keys.items():
                    key = f"/registry/configmaps/shop/{name}"
                    if revision is None:
                        plane.data.keys.pop(key)
                    else:
                        plane.data.keys[key] = revision
                        plane.data.revision = revision

    def wipe(self, *names: str) -> None:
        """Let members lose their data; their etcd ends."""
        for name in names:
            self.planes[name].data = None
            self.planes[name].runs.discard("etcd")

    def keys(self, name: str) -> dict[str, int]:
        """What a member has."""
        data = self.planes[name].data
        assert data is not None
        return data.keys

    def healthy_members(self) -> set[str]:
        """Members of one cluster that run and are a majority of it; none otherwise."""
        if not self.planes:
            return super().healthy_members()
        clusters: dict[str, set[str]] = {}
        for name, plane in self.planes.items():
            if self.answers(name) and "etcd" in plane.runs and plane.data:
                clusters.setdefault(f"{plane.data.cluster} {sorted(plane.data.peers)}", set()).add(name)
        return {
            name
            for names in clusters.values()
            for name in names
            if len(names) > len(self._data(name).peers) // 2
        }

    def require_api(self, of: str | None = None) -> None:
        """Refuse as it is refused where the API server of a machine does not run."""
        for name, plane in self.planes.items():
            if self.machine(name).state == "running" and "kube-apiserver" in plane.parts:
                self.machine(name).api_aside = "kube-apiserver" not in plane.runs
        super().require_api(of)

    def recovered(self, *names: str) -> None:
        """Assert that these are one cluster, with everything running and nothing left of a recovery."""
        planes = {name: self.planes[name] for name in names}
        clusters = {self._data(name).cluster for name in names}
        assert len(clusters) == 1
        assert clusters != {"first"}
        assert {tuple(sorted(self._data(name).peers)) for name in names} == {tuple(sorted(names))}
        assert [name for name, plane in self.planes.items() if plane.runs != plane.parts] == []
        assert not any(plane.aside or plane.received for plane in self.planes.values())
        assert {plane.token for plane in planes.values()} == {"none"}
        assert not self.workspace.recovery.exists()
        assert {self._data(name).revision > YEAR_2026 for name in names} == {True}

    def revision(self, name: str) -> int:
        """The newest revision of a member."""
        return self._data(name).revision

    def _data(self, name: str) -> Data:
        data = self.planes[name].data
        assert data is not None
        return data

    # What the kit does.

    def session(self, lab: Lab) -> Session:
        """The lab as the verbs have it."""
        found = super().session(lab)
        object.__setattr__(found, "remote", RecoveryRemote(lab, self.workspace, self))
        return found

    def lose(self, name: str) -> None:
        """Let a machine be gone."""
        super().lose(name)
        self.planes.pop(name, None)

    def part(self, node: Node, words: tuple[str, ...], secrets: dict[str, str]) -> bool:
        """Run one part of recover.sh."""
        part, *rest = words
        plane = self.planes[node.name]
        self.given[node.name] = secrets

        def stop() -> bool:
            ends = plane.parts - {"kube-apiserver"} if node.name in self.undying else plane.parts
            changed = bool(plane.runs & ends)
            plane.aside |= plane.runs & ends
            plane.runs -= ends
            return changed

        def restore() -> bool:
            token, cluster, bump = rest
            if plane.token == token:
                return False
            assert not plane.runs, f"a restore beside {plane.runs} on {node.name}"
            with tarfile.open(fileobj=io.BytesIO(plane.received)) as tar:
                keys = tar.extractfile(KEYS)
                assert keys is not None
                found = json.load(keys)["kvs"]
            peers = dict(each.split("=", 1) for each in cluster.split(","))
            assert node.name in peers, "etcdutl refuses a member that is not in --initial-cluster"
            stored = {base64.b64decode(kv["key"]).decode(): kv["mod_revision"] for kv in found}
            # A new cluster for each list of members and each token.
            plane.data = Data(
                f"{token} {sorted(peers.items())}", peers, stored, max(stored.values()) + int(bump)
            )
            plane.token, plane.received = token, b""
            plane.pki |= {name: text for name, text in secrets.items() if name.startswith("pki/")}
            return True

        def keys() -> bool:
            assert not plane.runs, f"other keys beside {plane.runs} on {node.name}"
            plane.pki |= {name: text for name, text in secrets.items() if name.startswith("pki/")}
            return True

        def start() -> bool:
            assert rest[0] in plane.parts
            if rest[0] == "kube-apiserver":
                own = {node.name} if "etcd" in plane.parts else set()
                assert self.healthy_members(), "an API server without etcd"
                assert own <= self.healthy_members(), "an API server without its own etcd"
            elif rest[0] != "etcd":
                assert "kube-apiserver" in plane.runs
            changed = rest[0] not in plane.runs
            plane.runs.add(rest[0])
            plane.aside.discard(rest[0])
            return changed

        def finish() -> bool:
            plane.token, plane.received = "none", b""
            plane.aside.clear()
            return True

        def nodes() -> bool:
            self.require_api(node.name)
            return False

        done = {
            "stop": stop,
            "restore": restore,
            "keys": keys,
            "start": start,
            "finish": finish,
            "nodes": nodes,
        }[part]
        named = f"start {rest[0]}" if part == "start" else part
        return self.touch(f"{named} {node.name}", done)

    def _restart_kubelet(self, node: Node, words: tuple[str, ...]) -> bool:
        assert self.machine(node.name).delivered
        assert words == (subnet(node.name),)
        self.restarted.append(node.name)
        return True

    def receive(self, node: Node, content: bytes) -> None:
        """Let a machine get the snapshot."""
        self.touch(f"receive {node.name}", lambda: setattr(self.planes[node.name], "received", content))

    def ask(self, node: Node, command: tuple[str, ...]) -> str:
        """Answer what recover and backup ask."""
        if command[:3] == ("sudo", plans.SCRIPT, "subnet"):
            self.require_api(node.name)
            return subnet(command[3])
        plane = self.planes.get(node.name)
        if plane is None:
            return super().ask(node, command)
        if command == ("sudo", plans.SCRIPT, "check"):
            trouble = f"problem {self.troubles[node.name]}\n" if node.name in self.troubles else ""
            member = "no" if node.name in self.made_again else "yes"
            return f"member {member}\netcd {self.etcd}\nfree {self.free}\n{trouble}token {plane.token}\n"
        if command == ("sudo", plans.SCRIPT, "quiet"):
            if plane.runs:
                raise LabError(f"{', '.join(sorted(plane.runs))} still on {node.name}")
            return ""
        if command == plans.KEYS:
            if "etcd" not in plane.runs or plane.data is None:
                raise LabError("connection refused")
            return listed(plane.data.keys)
        if command[:2] == ("sudo", COMMAND):
            return self._facts(node, plane, command[2:])
        return super().ask(node, command)

    def _facts(self, node: Node, plane: Plane, names: Sequence[str]) -> str:
        """What facts.sh says of this machine's member."""
        said = f"== script 0\n{own_scripts()}  -\n"
        data = plane.data if "etcd" in plane.runs else None
        if data is None:
            return said + "".join(f"== {name} 1\nconnection refused\n" for name in names) + _clock()
        # A member's id is a hash of its peer's address and the token.
        peers = {name: (_id(data.cluster, url), url) for name, url in data.peers.items()}
        members = [{"ID": ident, "name": n, "peerURLs": [url]} for n, (ident, url) in sorted(peers.items())]
        header = {"member_id": peers[node.name][0], "revision": data.revision}
        status = {"header": header, "raftIndex": data.revision, "version": "3.6.8", "dbSize": 20480}
        healthy = node.name in self.healthy_members()
        answers = {
            "etcd-health": json.dumps([{"health": healthy, "error": "no majority"}]),
            "etcd-members": json.dumps({"members": members}),
            "etcd-stored-members": json.dumps({"members": members}),
            "etcd-status": json.dumps([{"Status": status}]),
        }
        return said + "".join(f"== {name} 0\n{answers[name]}\n" for name in names) + _clock()

    def tar(self, node: Node) -> bytes:
        """What backup.sh prints on this machine."""
        if self.sent is not None:
            return self.sent
        data = self._data(node.name)
        pages = f"pages of revision {data.revision}".encode().ljust(512, b".")
        status = {"hash": 7, "revision": data.revision, "totalKey": len(data.keys), "totalSize": 512}
        files = {
            STATUS: json.dumps(status).encode(),
            KEYS: listed(data.keys).encode(),
            **({} if self.wanted.external_etcd else self.pki(SHARED_PKI)),
            SNAPSHOT: pages + hashlib.sha256(pages).digest(),
        }
        return archive(files)

    def pki(self, names: Sequence[str]) -> dict[str, bytes]:
        """The keys that control planes share."""
        own = {"ca.crt": (self.workspace.secrets / "ca.crt").read_text()}
        return {f"pki/{name}": own.get(name, f"{name} of then\n").encode() for name in names}

    def remember_planes(self) -> dict[str, Plane]:
        """A copy of what control planes have."""
        return copy.deepcopy(self.planes)


def _id(cluster: str, url: str) -> int:
    return int(hashlib.sha256(f"{cluster} {url}".encode()).hexdigest()[:12], 16)


def _clock() -> str:
    return f"== clock 0\n{time.time()}\n"


def listed(keys: dict[str, int]) -> str:
    """The keys as etcdctl prints them."""
    kvs = [
        {"key": base64.b64encode(key.encode()).decode(), "mod_revision": revision}
        for key, revision in keys.items()
    ]
    return json.dumps({"kvs": kvs, "count": len(kvs)})


def archive(files: dict[str, bytes]) -> bytes:
    """A tar of these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


class RecoveryRemote(WorldRemote):
    """ssh to these machines, with what is sent and received."""

    world: Recoveries

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
        """Send a snapshot, receive a backup, or ask."""
        self.world.require_alive()
        if command[1:2] == ["env"] and command[-1] == BACKUP:
            assert output is not None
            assert output.stat().st_mode & 0o077 == 0, "another user could read what is received"
            if self.world.refuses_backup:
                raise CommandFailed(command, "failed", tail=self.world.refuses_backup, hint="log in there")
            output.write_bytes(self.world.tar(node))
            return process.Result(tuple(command), 0, "", "", 0.0)
        if tuple(command) == ("sudo", BACKUP, "--pki"):
            assert node in self.lab.control_planes
            if node.name in self.world.without_keys:
                raise CommandFailed(command, "failed", tail="ERROR: pki/sa.key is missing", hint="log in there")
            assert output is not None
            assert output.stat().st_mode & 0o077 == 0, "another user could read what is received"
            names = [name for name in SHARED_PKI if not name.startswith("etcd/")]
            output.write_bytes(archive(self.world.pki(names)))
            return process.Result(tuple(command), 0, "", "", 0.0)
        if tuple(command[:3]) == ("sudo", plans.SCRIPT, "receive"):
            assert source is not None
            self.world.receive(node, source.read_bytes())
            return process.Result(tuple(command), 0, "", "", 0.0)
        return super().run(node, command, stdin=stdin, timeout=timeout, accept=accept, log=log, output=output)

    def script(
        self,
        node: Node,
        name: str,
        words: Sequence[str] = (),
        *,
        secrets: object = None,
        log: Path,
        timeout: float = 1800,
    ) -> bool:
        """Run a part of a recovery, or another script."""
        if name == "recover":
            if not self.world.answers(node.name):
                raise LabError(f"ssh to {node.name} failed")
            assert isinstance(secrets, dict)
            return self.world.part(node, tuple(words), secrets)
        return super().script(node, name, words, log=log)
