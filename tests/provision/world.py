"""One machine for the provisioning scripts: folders of its own in place of the real ones.

A script runs in a mount namespace in which /etc, /run, /var/lib and /usr/share are scratch folders, so it
touches nothing of this host. Programs that would change a machine are one fake, first on PATH: it keeps its
words and its environment, plays a small cluster from files, and refuses what it was not told of.
"""

from __future__ import annotations

import copy
import functools
import io
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lab.config import default, load
from lab.golden.supply.images import addon_images
from lab.golden.supply.releases import release
from lab.model import Lab
from lab.plans.up import provisioners
from lab.system.paths import REPOSITORY
from lab.workspace import render
from tests.unit.fakes import CA, SITE

HERE = Path(__file__).parent
FAKED = (
    "systemctl",
    "sysctl",
    "kubeadm",
    "kubectl",
    "etcdctl",
    "curl",
    "haproxy",
    "keepalived",
    "iptables",
    "ip",
    "crictl",
    "ctr",
    "ps",
    "socat",
    "ss",
    "pgrep",
    "pkill",
    "iptables-save",
    "iptables-restore",
    "ipset",
    "etcdutl",
    *("kubelet", "mv", "install"),
    "openssl",  # for each certificate it takes more CPU than a look at all files: refused
)
TOKEN = "abcdef.0123456789abcdef"  # noqa: S105  nobody's
CERTIFICATE_KEY = "c0ffee" + "0" * 58
CA_KEY = "-----BEGIN RSA PRIVATE KEY-----\nnobody's\n-----END RSA PRIVATE KEY-----\n"

READING = re.compile(
    r"openssl (x509|req|verify|pkey) "
    r"|systemctl (is-|show )|sysctl --values |ps |pgrep |haproxy -c |keepalived --config-test |curl "
    r"|ctr .* tasks list$|crictl (pods|inspectp) "
    r"|ip -(brief|oneline|json -4 address show|4 neighbour show) "
    r"|iptables -w -C "
    r"|kubectl kustomize |kubectl config view |ss "
    r"|ctr .* images list |iptables-save |ipset list |kubelet --version|kubeadm version "
    r"|socat |admin.sock show "
    r"|kubectl create .*--dry-run=client"
    r"|kubectl .*--request-timeout \d+s (--(namespace|server) \S+ )?(get|rollout status) "
    r"|etcdctl .* (member list|endpoint (health|status)|get /|alarm list)"
    r"|etcdutl (version|snapshot status )"
)

ENTER = """
set -eu
mount --all --fstab "$WORLD/fstab"
export PATH="$WORLD/bin:$PATH"
exec bash "$@"
"""


MOUNTS = {"etc": "/etc", "run": "/run", "root": "/root"} | {
    "var-lib": "/var/lib",
    "var-log": "/var/log",
    "usr-share": "/usr/share",
}
"""Where each scratch folder is mounted: all by one process, of which there would be thousands otherwise."""


@dataclass(frozen=True)
class Ran:
    """One run of a script: its exit code, what it said, and the fakes' command lines, in order."""

    code: int
    said: str
    calls: list[str]

    @property
    def last(self) -> str:
        """The last line, which tells the kit whether anything was touched."""
        return self.said.splitlines()[-1]

    @property
    def changes(self) -> list[str]:
        """The calls that change a machine or a cluster."""
        return [call for call in self.calls if not READING.match(call)]


METRICS = """# HELP volume_manager_total_volumes [ALPHA] Number of volumes in Volume Manager
# TYPE volume_manager_total_volumes gauge
volume_manager_total_volumes{plugin_name="kubernetes.io/configmap",state="actual_state_of_world"} 2
volume_manager_total_volumes{plugin_name="kubernetes.io/configmap",state="desired_state_of_world"} 2
volume_manager_total_volumes{plugin_name="kubernetes.io/host-path",state="actual_state_of_world"} 21
volume_manager_total_volumes{plugin_name="kubernetes.io/host-path",state="desired_state_of_world"} 21
volume_manager_total_volumes{plugin_name="kubernetes.io/projected",state="actual_state_of_world"} 3
volume_manager_total_volumes{plugin_name="kubernetes.io/projected",state="desired_state_of_world"} 3
"""
"""Of a control plane's kubelet 1.37.2, recorded on 2026-11-30; only what is read."""


@functools.cache
def _rendered(example: str) -> tuple[Lab, Mapping[str, str]]:
    """A lab, the default one or an example, and what the kit renders for it: the same for all tests."""
    lab = load(REPOSITORY / "examples" / f"{example}.yaml") if example else default()
    site = replace(SITE, etcd_ca_certificate=CA) if lab.external_etcd else SITE
    return lab, render.render(lab, site, provisioners)


class World:
    """One machine of the default lab, or of an example's, by name."""

    def __init__(self, root: Path, name: str, example: str = "") -> None:
        """Lay out a machine that was booted and given its folder, and nothing else."""
        self.root, self.name = root, name
        lab, rendered = _rendered(example)
        node = lab.node(name)
        assert node is not None
        self.node = node
        for folder in (
            "etc/alternatives",
            "etc/haproxy",
            "etc/keepalived",
            "etc/ha-lab",
            "run",
            "root",
            "var-lib",
            "var-log",
            "usr-share/ha-lab",
            "state",
            "bin",
            "opt",
        ):
            (root / folder).mkdir(parents=True)
        for kept in ("passwd", "group", "nsswitch.conf", "ld.so.cache"):
            if (Path("/etc") / kept).exists():
                shutil.copy(Path("/etc") / kept, root / "etc" / kept)
        (root / "usr-share/ha-lab/haproxy.packaged.cfg").write_text("global\ndefaults\n")
        for path, text in rendered.items():
            if path.startswith(f"nodes/{name}/"):
                target = root / "opt" / path.removeprefix(f"nodes/{name}/")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)
        # No packet leaves these tests: `apart` says that the load balancer is not reached.
        (root / "opt" / "reach.sh").rename(root / "opt" / "real-reach.sh")
        (root / "opt" / "reach.sh").write_text(
            '#!/bin/bash\n[[ ! -e $WORLD/state/apart ]] || { echo "ERROR: apart" >&2; exit 1; }\n'
        )
        (root / "opt" / "reach.sh").chmod(0o755)
        for program in FAKED:
            (root / "bin" / program).symlink_to(HERE / "fake.sh")
        self.given: dict[str, str] = {}
        built = release(lab.kubernetes.version)
        self.let(
            names=" ".join(each.name for each in lab.kubernetes_nodes),
            haproxy_since="2100-01-01 00:00:00.5 UTC",
            keepalived_since="2100-01-01 00:00:00.5 UTC",
            named="",
            running="",
            kube_proxy="    server: https://192.168.56.10:6443\n",
            images="\n".join((built.kube_router_image, *addon_images(built))) + "\n",
        )

    def copy(self, root: Path) -> World:
        """Return this machine as it is now, with a folder of its own."""
        shutil.copytree(self.root, root, symlinks=True)
        other = copy.copy(self)
        other.root, other.given = root, dict(self.given)
        return other

    def let(self, **state: str) -> None:
        """Set what the fakes play by: a file of that name with that text."""
        for name, text in state.items():
            (self.root / "state" / name.replace("_", "-")).write_text(text)

    def without_policies(self) -> None:
        """Give the machine what the kit renders where lab.yaml has `network.policy: none`."""
        env = self.root / "opt" / "node.env"
        env.write_text(env.read_text().replace("NETWORK_POLICY=kube-router", "NETWORK_POLICY=none"))
        (self.root / "opt/pod-network/kube-router.yaml").unlink(missing_ok=True)

    def has(self, path: str) -> bool:
        """Whether the machine has something at an absolute path."""
        return self.path(path).exists()

    def path(self, path: str) -> Path:
        """Where an absolute path of the machine lies."""
        for outside, inside in MOUNTS.items():
            if path.startswith(f"{inside}/"):
                return self.root / outside / path.removeprefix(f"{inside}/")
        raise AssertionError(f"{path} is not one of the machine's own folders")

    def run(self, script: str, *words: str, secrets: bool = False, up: str = "", given: bytes = b"") -> Ran:
        """Run one script as root; with secrets as the kit gives them, on standard input.

        `up` marks the run of `up` that it belongs to; `given` is what it gets on standard input instead.
        """
        flags = ["--stdin"] if secrets else []
        ran = self._ran([script, *flags, *words], self._secrets() if secrets else given, subprocess.STDOUT, up)
        return self._read(ran.returncode, ran.stdout.decode())

    def stream(self, script: str, *words: str, stdin: bytes = b"") -> tuple[Ran, bytes]:
        """Run one script that reads or prints bytes: what it said on standard error, and its output."""
        ran = self._ran([script, *words], stdin, subprocess.PIPE)
        return self._read(ran.returncode, ran.stderr.decode()), ran.stdout

    def _ran(
        self, words: Sequence[str], stdin: bytes, stderr: int, up: str = ""
    ) -> subprocess.CompletedProcess[bytes]:
        state = self.root / "state"
        for file in ("calls", "environments", "refused"):
            (state / file).write_text("")
        (self.root / "fstab").write_text(self._mounts())
        namespace = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
        script, *rest = words
        path = str(self.root / "opt" / f"{script}.sh")
        return subprocess.run(
            [*namespace, "sh", "-c", ENTER, "enter", path, *rest],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={"PATH": os.environ["PATH"], "WORLD": str(self.root), "BASH_ENV": str(HERE / "time.sh")}
            | ({"HA_LAB_RUN": up} if up else {}),
            timeout=60,
            check=False,
        )

    def _read(self, code: int, said: str) -> Ran:
        """What came of a run: no call was refused, and no secret is in sight."""
        state = self.root / "state"
        calls = (state / "calls").read_text().splitlines()
        refused = (state / "refused").read_text()
        assert refused == "", f"a call that this test was not told of: {refused}"
        for place in (said, (state / "calls").read_text(), (state / "environments").read_text()):
            for secret in (TOKEN, TOKEN[7:], CERTIFICATE_KEY, CA_KEY.splitlines()[1]):
                assert secret not in place, f"a secret in sight:\n{place}"
        return Ran(code, said, calls)

    def secrets_left(self) -> list[str]:
        """Every file of the machine's scratch folders that still holds one of this run's secrets."""
        files = [path for part in ("etc", "run", "root", "var-lib") for path in (self.root / part).rglob("*")]
        return [
            str(path.relative_to(self.root))
            for path in files
            if path.is_file()
            and any(secret in path.read_bytes() for secret in (TOKEN.encode(), CERTIFICATE_KEY.encode()))
        ]

    def _mounts(self) -> str:
        """What mount(8) reads. awk and others are found through /etc/alternatives, which stays the host's."""
        alternatives = f"/etc/alternatives {self.root}/etc/alternatives none bind\n"
        return alternatives + "".join(
            f"{self.root}/{folder} {place} none rbind\n" for folder, place in MOUNTS.items()
        )

    def _secrets(self) -> bytes:
        texts = {"secrets": f"BOOTSTRAP_TOKEN={TOKEN}\nCERTIFICATE_KEY={CERTIFICATE_KEY}\n"}
        if self.name == "cp1":
            texts["ca.key"] = CA_KEY
        texts |= self.given
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, text in texts.items():
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(text), 0o600
                archive.addfile(member, io.BytesIO(text.encode()))
        return buffer.getvalue()
