"""Thaws processes of a container that would never end otherwise, on hosts with cgroup v1.

runc freezes a container for a moment when it sets its devices (opencontainers/cgroups, `freezeBeforeSet`).
Killed just then, as when its machine is removed, it leaves the container frozen, and a frozen process does
not even end by SIGKILL, so docker can't remove the machine.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from lab.errors import LabError
from lab.system import quoting

ROOT = Path("/sys/fs/cgroup/freezer")

DID_NOT_END = "did not receive an exit event"
"""Part of docker's error for a container whose processes did not end."""


def thaw(container: str) -> bool:
    """Thaw what is frozen in a container, by its id; return whether there was anything.

    Raises LabError if only root can write there.
    """
    # docker's two cgroup drivers name its folder differently.
    folders = (ROOT / "docker" / container, ROOT / "system.slice" / f"docker-{container}.scope")
    frozen = [state for folder in folders for state in folder.rglob("freezer.state") if _is_frozen(state)]
    try:
        for state in frozen:
            with suppress(FileNotFoundError):  # it ended by itself
                state.write_text("THAWED", encoding="ascii")
    except PermissionError as error:
        raise LabError(
            f"a process in container {container[:12]} is frozen and does not end; only root can thaw it",
            hint=f"echo THAWED | sudo tee {quoting.line(frozen)}; then repeat this command",
        ) from error
    return bool(frozen)


def _is_frozen(state: Path) -> bool:
    with suppress(FileNotFoundError):
        return state.read_text(encoding="ascii").strip() != "THAWED"
    return False
