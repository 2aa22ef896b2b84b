"""This room is one lab opened for work: what each verb does, in order, with the rooms doing it.

It decides nothing that a room could: `tasks.py` calls it, it calls the rooms.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from lab import config, doctor, host, render
from lab import plans as provision
from lab import providers as machines
from lab.config import choice
from lab.errors import ConfigError, LabError, LabStateError
from lab.golden import bundle, disk, image
from lab.golden.supply import lock, pinning, releases
from lab.model import Lab, Node
from lab.remote import Remote, control_folder
from lab.render import Site, credentials, disc
from lab.system.progress import Progress
from lab.verbs import kubeconfig, report
from lab.workspace import Workspace


@dataclass(frozen=True)
class Session:
    """A lab and the file it was read from, its `.lab/` folder, the way to its machines, and the one printer."""

    path: Path
    lab: Lab
    workspace: Workspace
    remote: Remote
    progress: Progress

    def bake(self, *, consent: bool) -> str:
        """Make sure that the golden machine is there; return its name.

        Machines that exist keep the one they were made from, whatever has changed since.
        """
        own = self._own_image()
        if own:
            self.make_fit({"up"}, consent=consent)
            return own
        baked = self.is_baked()
        if not baked:
            image.key(self.lab)  # without upstream's lock nothing else need be looked at
        self.make_fit({"up"} if baked else {"up", "bake"}, consent=consent)
        return image.bake(self.lab, self.progress)

    def export(self, target: Path, *, consent: bool) -> bundle.Manifest:
        """Pack this checkout's golden machine for hosts without a network, made first where it isn't there."""
        bundle.require_new(target)
        self.make_fit({"up"} if self.is_baked() else {"up", "bake"}, consent=consent)
        image.bake(self.lab, self.progress)
        return bundle.write(self.lab, target, self.progress)

    def take_in(self, file: Path, *, consent: bool) -> bundle.Manifest:
        """Give this host the golden machine that `export` packed; nothing is touched before it is checked."""
        with self.progress.step("check", f"check {file.name}"):
            manifest = bundle.check(self.lab, file)
        self.make_fit({"up"}, consent=consent)
        bundle.take(self.lab, file, manifest, self.progress)
        return manifest

    @property
    def golden_disk(self) -> Path:
        """Where the golden disk is, once it is baked."""
        return disk.folder(disk.key(self.lab)) / disk.DISK

    def make_fit(self, purposes: set[str], *, consent: bool) -> None:
        """Let the doctor look at this host, and mend it where that was consented to."""
        doctor.make_fit(
            self.lab,
            self.workspace,
            purposes=frozenset(purposes),
            baked="bake" not in purposes,
            consent=consent,
            progress=self.progress,
        )

    def pin(self, *, consent: bool) -> Path:
        """Write the lock of upstream's parts of the lab's Kubernetes version, and return its path."""
        self.make_fit({"lock"}, consent=consent)
        signed_by = releases.upstream().signed_by
        wanted = releases.release(self.lab.kubernetes.version)
        return lock.write(pinning.make(wanted, self.lab.mirrors, signed_by, self.progress))

    def is_baked(self) -> bool:
        """Whether the golden machine is there; False also where docker can't be asked."""
        try:
            return image.exists(self.lab, image.name(self.lab))
        except LabError:
            return False

    def render(self, golden: str = "") -> None:
        """Write everything that is rendered into `.lab/`, and what must be secret into its folder."""
        self.require_same_lab()
        golden = golden or self._own_image() or image.name(self.lab)
        for path, text in render.render(self.lab, self._site(golden)).items():
            self.workspace.write(self.workspace.root / path, text)
        self._render_disc()
        self.workspace.shut_secrets()
        run = credentials.new_run_secrets()
        key = credentials.ca_key(self.workspace)
        for node in self.lab.nodes:
            folder = self.workspace.secrets / node.name
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name, text in credentials.secret_files(node, self.lab, run, key).items():
                self.workspace.write_secret(folder / name, text)
        self.workspace.write_identity(self._identity() | {"image": golden})

    def with_profile(self, name: str) -> Session:
        """The same lab, its load balancer having another profile."""
        balancer = self.lab.load_balancer.model_copy(update={"profile": name})
        lab = self.lab.model_copy(update={"load_balancer": balancer})
        return replace(self, lab=lab, remote=Remote(lab, self.workspace))

    def configure_load_balancer(self) -> None:
        """Give running load balancers this lab's configuration, and nothing else to anyone."""
        texts = render.render(self.lab, self._site(self._own_image()))
        for balancer in self.lab.balancers:
            for path, text in texts.items():
                if path.startswith(f"nodes/{balancer.name}/"):
                    self.workspace.write(self.workspace.root / path, text)
            self.remote.deliver(balancer)
            with self.progress.step("load-balancer", "HAProxy's configuration", balancer.name) as step:
                self.remote.script(balancer, "load-balancer", log=step.log)

    def up(self, *, consent: bool, until: str = "") -> None:
        """Take the lab from whatever state it is in to six Ready nodes, and say what was done.

        `until` is one of provision.STOPS, before which to stop.
        """
        with self.workspace.lock():
            self.workspace.rotate_logs()
            self.require_same_lab()
            golden = self.bake(consent=consent)
            self._settled()._bring_up(golden, until)

    def _settled(self) -> Session:
        """The same lab, now that baking has left a kernel by which KVM can be tried."""
        if self.lab.provider != "libvirt":
            return self
        lab = config.load(self.path, lambda file: choice.settle(file, self.workspace))
        return replace(self, lab=lab, remote=Remote(lab, self.workspace))

    def _bring_up(self, golden: str, until: str) -> None:
        if self.lab.emulated:
            self.progress.say(report.EMULATED)
        self._require_own_machines()
        self.render(golden)
        with self.progress.live():
            changed = provision.bring_up(self.lab, self.workspace, self.remote, self.progress, until)
        self.keep_kubeconfig()
        self._keep_bill_of_materials(golden)
        report.write(self.lab, self.workspace, self.progress, changed=changed)
        if until:
            done = provision.before(until)
            self.progress.say(report.stopped(self.lab, self.workspace, self.progress, until, done))
        else:
            self.progress.say(report.closing(self.lab, self.workspace, self.progress, changed=changed))

    def destroy(self) -> bool:
        """Remove machines, network, connections and `.lab/`; False when there was nothing."""
        if not self.workspace.root.exists():
            return False
        with self.workspace.lock():
            with self.progress.step("destroy", "remove machines, network and files") as step:
                if self.workspace.ssh_config.exists():
                    self.remote.hang_up()
                machines.remove(self.workspace, step.log)
            self.workspace.remove()
        return True

    def keep_kubeconfig(self) -> bool:
        """Fetch the kubeconfig of the first control plane that has one; False where none has."""
        return any(
            kubeconfig.fetch(self.lab, self.workspace, self.remote, node)
            for node in self.lab.control_planes
            if not self.remote.unreachable(node)
        )

    def node(self, name: str) -> Node:
        """The machine of that name. Raises ConfigError naming those there are."""
        node = self.lab.node(name)
        if node is None:
            names = ", ".join(each.name for each in self.lab.nodes)
            raise ConfigError([f"there is no machine {name!r} in this lab"], hint=f"its machines: {names}")
        return node

    def require_up(self) -> None:
        """Raise LabStateError unless the lab was brought up and its network is there."""
        if not self.workspace.kubeconfig.exists():
            raise LabStateError(
                f"the lab {self.lab.name} has not been brought up", hint="bring it up with `./inv up`"
            )
        self.require_same_lab()
        self.remote.require_route()

    def require_same_lab(self) -> None:
        """Raise LabStateError when `.lab/` holds machines made from another lab.yaml than this one."""
        before = self.workspace.read_identity()
        if not before or not machines.known_to_vagrant(self.workspace):
            return
        was = _made_from(before)
        changed = sorted(key for key, now in _made_from(self._identity()).items() if was.get(key) != now)
        if not changed:
            return
        raise LabStateError(
            f"{self.workspace.root} holds the machines of lab {before.get('name')!r}, made from another "
            f"lab.yaml than this one (what differs: {', '.join(changed)})",
            hint="change lab.yaml back, or remove those machines first: `./inv destroy`",
        )

    def _render_disc(self) -> None:
        """Write the disc with the lab's key where machines take it from one; it has its date in it."""
        key = credentials.authorized_key(self.workspace)
        target = self.workspace.root / disc.name(key)
        if self.lab.provider == "virtualbox" and not target.exists():
            self.workspace.write(target, disc.image(key))

    def _site(self, golden: str) -> Site:
        return Site(
            workspace=self.workspace.root,
            control=control_folder(self.workspace),
            image=golden,
            capabilities=host.node_capabilities(),
            ca_certificate=credentials.ca_certificate(self.workspace),
            authorized_key=credentials.authorized_key(self.workspace),
            manifest=_manifest(self.lab),
        )

    def _own_image(self) -> str:
        """The golden machine that the machines here were made from; "" when there are none."""
        own = str(self.workspace.read_identity().get("image", ""))
        return own if own and machines.known_to_vagrant(self.workspace) and image.exists(self.lab, own) else ""

    def _identity(self) -> dict[str, object]:
        """The lab as data, as `.lab/lab.json` keeps it."""
        data: dict[str, object] = json.loads(self.lab.model_dump_json())
        return data

    def _require_own_machines(self) -> None:
        lost = machines.lost_sight_of(self.workspace)
        if lost and self.workspace.read_identity():
            machines.adopt(self.lab, self.workspace)
        elif lost:
            raise LabStateError(
                f"{len(lost)} containers of this lab run that {self.workspace.root}/.vagrant does not know",
                hint="`./inv destroy` removes them; then bring the lab up again",
            )

    def _keep_bill_of_materials(self, golden: str) -> None:
        target = self.workspace.root / "bom.json"
        if not target.exists():
            self.workspace.write(target, image.bill_of_materials(self.lab, golden))


def _made_from(identity: dict[str, object]) -> dict[str, object]:
    """What machines are made from; a change of any of it needs other machines.

    How HAProxy checks and what it does then is not among it: `up` gives it another configuration. Nor is
    whence things were fetched: they are the same from everywhere.
    """
    balancer = identity.get("load_balancer")
    kept = {key: balancer[key] for key in balancer if key == "port"} if isinstance(balancer, dict) else balancer
    return {key: value for key, value in identity.items() if key != "mirrors"} | {"load_balancer": kept}


def open_session(path: Path, console: Console) -> Session:
    """Read lab.yaml and name what belongs to it; touches nothing."""
    path = path.resolve()
    workspace = Workspace(path.parent / ".lab")
    lab = config.load(path, lambda file: choice.settle(file, workspace))
    return Session(path, lab, workspace, Remote(lab, workspace), Progress(console, workspace.logs))


def _manifest(lab: Lab) -> str:
    """The text of a pod network that lab.yaml brings itself; empty for flannel."""
    if lab.network.pod_network == "flannel":
        return ""
    return Path(lab.network.pod_network).read_text(encoding="utf-8")
