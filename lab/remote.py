"""Runs commands and scripts on the machines over OpenSSH, in parallel.

Check `route_problem` before sending anything to a lab address: while the lab's network is down, packets would
leave the host by its default route.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from lab.errors import CommandFailed, LabError, LabStateError, NodeFailed
from lab.model import Lab, Node
from lab.system import process, quoting
from lab.workspace import Workspace, made

T = TypeVar("T")
SOCKETS = Path("/tmp")  # noqa: S108  a folder in it is created with mode 0700, and its owner is checked
"""Where the folders for ssh's control sockets are; a socket's path has to be short."""

SSH_FAILED = 255
"""OpenSSH's exit code for "could not connect"; every other code is the command's own (ssh(1))."""

RUN = uuid.uuid4().hex[:8]
"""Identifies this process's scripts: `provision/lib.sh` kills those that a killed `up` left running."""

ROUTE_TIMEOUT = 10.0
"""Seconds for `ip route get`, which usually answers at once."""

SILENT_SSH = "ssh failed without a message"


class Remote:
    """The machines of one lab, reached by name through its `ssh_config`."""

    def __init__(self, lab: Lab, workspace: Workspace) -> None:
        """Connect to nothing yet."""
        self.lab = lab
        self.workspace = workspace

    def route_problem(self) -> str | None:
        """Why no packet may be sent to the lab now; None while packets would stay on the lab's own network.

        Asks only the kernel's routing table (ip-route(8), `get`); sends nothing.
        """
        if self.lab.remote_host:
            return self._remote_route_problem(self.lab.remote_host)
        words = ["ip", "-json", "route", "get", str(self.lab.route_target)]
        answer = process.run(words, accept=None, timeout=ROUTE_TIMEOUT)
        routes = (json.loads(answer.stdout) if answer.ok and answer.stdout.strip() else []) or [{}]
        source = routes[0].get("prefsrc", "")
        if "gateway" in routes[0] or source != str(self.lab.network.gateway):
            return f"the lab's network {self.lab.network.subnet} is not up on this host"
        return None

    def _remote_route_problem(self, uri: str) -> str | None:
        """The same where the machines are on another host: there must be a route other than the default one."""
        words = ["ip", "-4", "-json", "route", "show", "match", str(self.lab.route_target)]
        answer = process.run(words, accept=None, timeout=ROUTE_TIMEOUT)
        routes = json.loads(answer.stdout) if answer.ok and answer.stdout.strip() else []
        # VPNs split the default route into two halves.
        if any(route["dst"] != "default" and not route["dst"].endswith(("/0", "/1")) for route in routes):
            return None
        return f"no route of this host leads to {self.lab.network.subnet}, on the host of {uri}"

    def require_route(self) -> None:
        """Raise LabStateError unless the lab's network is up."""
        reason = self.route_problem()
        if reason:
            raise LabStateError(reason, hint="bring the lab up with `./inv up`")

    def why_not_reachable(self, node: Node) -> str | None:
        """Why you can't log in to a machine; None when you can."""
        reason = self.route_problem()
        if reason:
            return reason
        try:
            answer = self.run(node, ["true"], accept=None, timeout=20)
        except CommandFailed as error:
            return error.message
        return None if answer.ok else (answer.stderr.strip().splitlines() or [SILENT_SSH])[-1]

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
        """Run one command on a machine. The remote shell joins its arguments, as ssh does.

        `timeout` is for machines as fast as this host; emulated ones get more. With `gently`, ssh has
        the lowest CPU priority, on a connection of its own: the process that shares one keeps its priority.
        """
        own = ("-o", "ControlPath=none") if gently else ()
        return process.run(
            [*self._ssh(), *own, node.name, "--", *command],
            stdin=stdin,
            timeout=None if timeout is None else timeout * self.lab.patience,
            accept=accept,
            log=log,
            output=output,
            source=source,
            gently=gently,
            hint=f"`./inv ssh {node.name}` logs in; `./inv logs` collects what a report needs",
        )

    def follow(
        self,
        node: Node,
        command: Sequence[str],
        heard: Callable[[str], None],
        *,
        silence: float,
        over: Callable[[], bool],
    ) -> process.Result:
        """Run a command on a machine until `over()`, and give each line that it prints to `heard` as it comes.

        On a connection of its own, which is closed after `silence` seconds without a line: the shared one may
        be to a machine that is gone. Returns and raises what `lab.system.process.follow` does.
        """
        words = [*self._ssh(), "-o", "ControlPath=none", node.name, "--", *command]
        return process.follow(words, heard, silence=silence * self.lab.patience, over=over)

    def shell(self, node: Node, command: Sequence[str]) -> None:
        """Replace this process with an ssh session on a machine: a login shell, or a command."""
        words = [*self._ssh(), *([] if command else ["-t"]), node.name]
        # A single argument is a line for the remote shell, as with ssh itself; several are quoted one by one.
        line = [*command] if len(command) < 2 else [quoting.line(command)]
        process.replace([*words, *(["--", *line] if line else [])])

    def deliver(self, node: Node) -> None:
        """Copy a machine's rendered folder to /opt/ha-lab, as one archive on standard input."""
        archive = _folder_archive(self.workspace.node(node.name))
        self.run(
            node,
            ["sudo rm -rf /opt/ha-lab && sudo tar -xf - -C / --no-same-owner --overwrite-dir -p"],
            stdin=archive,
            timeout=60,
        )

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
        """Run one provisioning script as root; return whether it changed anything.

        `secrets` (name under /run/ha-lab → content) go to its standard input, and are 0600 there.
        """
        given = _secrets_archive(secrets) if secrets else None
        flag = ["--stdin"] if secrets else []
        argv = ["sudo", "env", f"HA_LAB_RUN={RUN}", f"/opt/ha-lab/{name}.sh", *flag, *words]
        self.run(node, argv, stdin=given, timeout=timeout, log=log)
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        return lines[-1:] != ["ha-lab: unchanged"]

    def _ssh(self) -> list[str]:
        """The ssh command. Creates the private folder for its sockets; refuses another user's."""
        folder = control_folder(self.workspace)
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise LabStateError(
                f"{folder} belongs to another user",
                hint=f"remove it, if that user agrees: `rm -r {quoting.word(folder)}`",
            )
        return ["ssh", "-F", str(self.workspace.ssh_config)]

    def close_connections(self, nodes: Iterable[Node] | None = None) -> None:
        """Close the shared ssh connections to some machines, or to all; no ssh process of the lab is left then.

        Raises NodeFailed with those that could not be closed; the others are closed.
        """

        def end(node: Node) -> None:
            words = ["ssh", "-F", str(self.workspace.ssh_config), "-O", "exit", node.name]
            # ssh refuses where there is no connection, which is fine.
            process.run(words, accept=None, timeout=10)

        side_by_side("to end the connection", self.lab.nodes if nodes is None else nodes, end)
        if nodes is None:
            self.remove_sockets()

    def remove_sockets(self) -> None:
        """Remove the folders of ssh's sockets, with any socket that its ssh has not removed yet."""
        for folder in {control_folder(self.workspace), *self._configured_folder()}:
            shutil.rmtree(folder, ignore_errors=True)

    def _configured_folder(self) -> list[Path]:
        """The socket folder that ssh_config names: a lab that was moved may have another one.

        Only a folder that is named like one of this user's socket folders.
        """
        try:
            text = self.workspace.ssh_config.read_text(encoding="utf-8")
        except OSError:
            return []
        found = re.search(r'^ *ControlPath "([^"]*)/%C"$', text, re.MULTILINE)
        folder = Path(found[1]) if found else SOCKETS
        is_ours = folder.parent == SOCKETS and re.fullmatch(
            rf"ha-lab-{os.getuid()}-[0-9a-f]{{12}}", folder.name
        )
        return [folder] if is_ours else []


def side_by_side(what: str, nodes: Iterable[Node], work: Callable[[Node], T]) -> dict[str, T]:
    """Do `work` for all nodes in parallel: node name → result. Raises NodeFailed with every failure."""
    nodes = list(nodes)
    results: dict[str, T] = {}
    failures: dict[str, LabError] = {}
    with ThreadPoolExecutor(max_workers=max(1, len(nodes))) as pool:
        futures = {node.name: pool.submit(work, node) for node in nodes}
    for name, future in futures.items():
        try:
            results[name] = future.result()
        except LabError as error:
            failures[name] = error
    if failures:
        raise NodeFailed(what, failures)
    return results


def control_folder(workspace: Workspace) -> Path:
    """Where ssh's sockets are: a short path that stays the same when the lab is moved."""
    mark = hashlib.sha256(made.owner(workspace).encode()).hexdigest()[:12]
    return SOCKETS / f"ha-lab-{os.getuid()}-{mark}"


def _folder_archive(folder: Path) -> bytes:
    files = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return _archive(
        (f"opt/ha-lab/{name}", path.read_bytes(), 0o755 if path.suffix == ".sh" else 0o644)
        for name, path in files.items()
    )


def _secrets_archive(secrets: Mapping[str, str]) -> bytes:
    return _archive((name, text.encode(), 0o600) for name, text in secrets.items())


def _archive(members: Iterable[tuple[str, bytes, int]]) -> bytes:
    """A tar of (name, content, mode), built in memory so that no secret is written to a file here."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content, mode in members:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
