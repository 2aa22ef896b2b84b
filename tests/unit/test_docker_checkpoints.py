"""Docker's checkpoints: what docker is asked, and what the helper's scripts do with files."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lab.config import default
from lab.errors import CommandFailed, LabStateError
from lab.model import Lab, Node
from lab.providers.docker import checkpoints
from lab.providers.protocol import Room
from lab.workspace import Workspace
from lab.workspace.checkpoints import Saved
from tests.unit.fakes import keep_made
from tests.unit.hosts import FakeRun

LAB = default()
CP1 = LAB.first
SAVED = Saved(mib=123, base="sha256:90")
UPPER = "/var/lib/docker/overlay2/5f2a/diff"


def container(*, running: bool = False, driver: dict[str, Any] | None = None) -> str:
    """What `docker inspect` says of cp1, as far as it matters here (dockerd 20.10.24)."""
    volumes = {"/var/lib/etcd": "e7cd", "/var/lib/containerd": "c0d1", "/var/lib/kubelet": "4b1e"}
    about = {
        "Id": "aaa",
        "Image": "sha256:90",
        "State": {"Status": "running" if running else "exited", "Running": running},
        "Driver": "overlay2",
        "GraphDriver": driver or {"Name": "overlay2", "Data": {"UpperDir": UPPER, "MergedDir": "/elsewhere"}},
        "Mounts": [
            *(
                {"Type": "volume", "Name": name, "Destination": place, "Driver": "local", "RW": True}
                for place, name in volumes.items()
            ),
            {"Type": "bind", "Source": "/yours", "Destination": "/mnt"},
        ],
    }
    return json.dumps([about])


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / ".lab")
    keep_made(made, LAB)
    return made


@pytest.fixture
def run(run: FakeRun) -> FakeRun:
    """docker, with one machine and no helper."""
    run.tell("docker rm --force ha-lab-cp1-checkpoint", code=1, stderr="Error: No such container")
    run.tell("docker inspect --type container ha-lab-cp1", container())
    return run


def asked(run: FakeRun, verb: str) -> list[str]:
    return [" ".join(words) for words in run.asked if words[:2] == ("docker", verb)]


def log(workspace: Workspace) -> Path:
    return workspace.logs / "01-save.log"


def test_a_machine_is_copied_to_the_checkpoint_s_own_volume(run: FakeRun, workspace: Workspace) -> None:
    run.tell("docker volume create")
    run.tell("docker run", "123\t/checkpoint/cp1\n")
    assert checkpoints.save(LAB, workspace, CP1, "start", log(workspace)) == SAVED
    [created] = asked(run, "volume")
    volume = created.split()[-1]
    assert volume.startswith("ha-lab-")
    assert volume.endswith("-checkpoint-start")
    assert f"--label ha-lab.workspace.checkpoint={workspace.root} " in created
    [copied] = asked(run, "run")
    for words in (
        "--rm --interactive --network none",
        "--cap-add SYS_ADMIN",
        f"type=bind,source={UPPER},target=/machine/layer",
        "type=volume,source=e7cd,target=/machine/var-lib-etcd",
        "type=volume,source=c0d1,target=/machine/var-lib-containerd",
        "type=volume,source=4b1e,target=/machine/var-lib-kubelet",
        f"type=volume,source={volume},target=/checkpoint sha256:90 -s ",
    ):
        assert words in copied
    assert "/yours" not in copied
    assert "--label ha-lab.workspace=" not in copied, "helpers would count as machines"
    assert copied.endswith(" -s cp1")


def test_a_helper_of_a_killed_run_is_ended_before_another_one_copies(
    run: FakeRun, workspace: Workspace
) -> None:
    run.tell("docker run", "1\t/checkpoint/cp1\n")
    checkpoints.load(LAB, workspace, CP1, "start", SAVED, log(workspace))
    verbs = [words[1] for words in run.asked]
    assert verbs.index("rm") < verbs.index("run")
    assert "--name ha-lab-cp1-checkpoint" in asked(run, "run")[0]


def load(lab: Lab, workspace: Workspace, node: Node, name: str, log: Path) -> None:
    checkpoints.load(lab, workspace, node, name, SAVED, log)


@pytest.mark.parametrize("act", [checkpoints.save, load])
def test_a_machine_that_runs_is_not_copied(run: FakeRun, workspace: Workspace, act: Any) -> None:
    run.tell("docker volume create")
    run.tell("docker inspect --type container ha-lab-cp1", container(running=True))
    with pytest.raises(LabStateError, match="cp1 runs again"):
        act(LAB, workspace, CP1, "start", log(workspace))
    run.tell("docker inspect --type container ha-lab-cp1", "[]", code=1, stderr="Error: No such container: x")
    with pytest.raises(LabStateError, match="cp1 does not exist"):
        act(LAB, workspace, CP1, "start", log(workspace))
    run.tell(
        "docker inspect --type container ha-lab-cp1", "[]", code=1, stderr="Cannot connect to the Docker daemon"
    )
    with pytest.raises(CommandFailed, match="Cannot connect"):
        act(LAB, workspace, CP1, "start", log(workspace))
    assert asked(run, "run") == []


@pytest.mark.parametrize("driver", [{"Name": "btrfs", "Data": None}, {"Name": "overlayfs"}])
def test_another_storage_driver_is_refused_before_anything(
    run: FakeRun, workspace: Workspace, driver: dict[str, Any]
) -> None:
    for node in LAB.nodes:
        run.tell(f"docker inspect --type container ha-lab-{node.name}", container(driver=driver))
    with pytest.raises(LabStateError, match=f"docker keeps machines with {driver['Name']}"):
        checkpoints.room(LAB, workspace)


def test_room_counts_the_machines_that_there_are(run: FakeRun, workspace: Workspace) -> None:
    for node in LAB.nodes:
        run.tell(
            f"docker inspect --type container ha-lab-{node.name}", "[]", code=1, stderr="No such container"
        )
    assert checkpoints.room(LAB, workspace) == Room(0, 0)
    run.tell("docker inspect --type container ha-lab-cp1", container(running=True))
    run.tell("docker run", "43210\n812\t/machines\n")
    assert checkpoints.room(LAB, workspace) == Room(taken=812, free=43210)
    [said] = asked(run, "run")
    assert f"type=bind,source={UPPER},target=/machines/cp1/layer,readonly" in said
    assert "lb1" not in said


def test_what_is_saved_is_asked_and_removed_by_its_volume(run: FakeRun, workspace: Workspace) -> None:
    run.tell("docker volume inspect", "ha-lab-x\n")
    assert checkpoints.problem(LAB, workspace, CP1, "start", SAVED) is None
    run.tell("docker volume inspect", code=1, stderr="Error: No such volume: x")
    assert "-checkpoint-start is gone" in (checkpoints.problem(LAB, workspace, CP1, "start", SAVED) or "")
    run.tell("docker volume inspect", code=1, stderr="Cannot connect to the Docker daemon")
    with pytest.raises(CommandFailed, match="Cannot connect"):
        checkpoints.problem(LAB, workspace, CP1, "start", SAVED)
    label = f"ha-lab.workspace.checkpoint={workspace.root}"
    run.tell(f"docker ps --all --quiet --filter label={label}", "hhh\n")
    run.tell("docker rm --force hhh")
    run.tell("docker volume rm --force")
    checkpoints.discard(LAB, workspace, "start", log(workspace))
    assert asked(run, "volume")[-1].endswith("-checkpoint-start")
    assert "docker rm --force hhh" in asked(run, "rm")


def test_a_state_is_not_loaded_onto_another_image(run: FakeRun, workspace: Workspace) -> None:
    other = SAVED.model_copy(update={"base": "sha256:91"})
    said = checkpoints.problem(LAB, workspace, CP1, "start", other)
    assert said == "the machine was created again since, from another golden machine"
    with pytest.raises(LabStateError, match="cp1: the machine was created again since"):
        checkpoints.load(LAB, workspace, CP1, "start", other, log(workspace))
    assert asked(run, "run") == []


def test_a_state_of_a_machine_that_is_gone_can_be_loaded_once_it_is_created(
    run: FakeRun, workspace: Workspace
) -> None:
    run.tell("docker inspect --type container ha-lab-cp1", "[]", code=1, stderr="No such container")
    run.tell("docker volume inspect", "ha-lab-x\n")
    assert checkpoints.problem(LAB, workspace, CP1, "start", SAVED) is None


def test_all_of_a_lab_s_checkpoints_go_with_it_and_refusals_are_reported(
    run: FakeRun, workspace: Workspace
) -> None:
    label = f"ha-lab.workspace.checkpoint={workspace.root}"
    run.tell(f"docker ps --all --quiet --filter label={label}")
    run.tell(f"docker volume ls --quiet --filter label={label}", "one\ntwo\n")
    run.tell("docker volume rm one", code=1, stderr="volume is in use")
    run.tell("docker volume rm two")
    [refused] = checkpoints.removal_failures(workspace, log(workspace))
    assert "volume is in use" in refused.message
    assert asked(run, "volume")[-1] == "docker volume rm two"
    run.fail(f"docker volume ls --quiet --filter label={label}", "did not end")
    [refused] = checkpoints.removal_failures(workspace, log(workspace))
    assert "did not end" in refused.message


def test_labs_of_one_name_have_volumes_of_their_own(run: FakeRun, workspace: Workspace, tmp_path: Path) -> None:
    run.tell("docker volume inspect")
    other = Workspace(tmp_path / "other" / ".lab")
    keep_made(other, LAB)
    for each in (workspace, other):
        checkpoints.problem(LAB, each, CP1, "start", SAVED)
    first, second = asked(run, "volume")
    assert first != second


# The helper's scripts, on files.


def script(text: str, folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the helper where its folders are below another one."""
    for place in ("/machines", "/machine", "/checkpoint"):
        text = text.replace(place, f"{folder}{place}") if f"{folder}{place}" not in text else text
    return subprocess.run(["sh", "-s", name], input=text, capture_output=True, text=True, check=False)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine's state: what an overlay's upper directory and etcd's folder may have."""
    layer = tmp_path / "machine" / "layer"
    (layer / "etc").mkdir(parents=True)
    (layer / "etc" / "machine-id").write_text("1234\n")
    os.link(layer / "etc" / "machine-id", layer / "etc" / "same-file")
    (layer / "link").symlink_to("nowhere")
    etcd = tmp_path / "machine" / "var-lib-etcd"
    etcd.mkdir(mode=0o700)
    (etcd / ".hidden").write_text("of then\n")
    with (etcd / "wal").open("wb") as file:
        file.write(b"entry")
        file.truncate(32 * 2**20)
    with socket.socket(socket.AF_UNIX) as listening:
        os.chdir(etcd)  # a socket's path has to be short
        listening.bind("socket")
    (tmp_path / "checkpoint").mkdir()
    return tmp_path


@pytest.fixture(autouse=True)
def same_folder() -> Any:
    before = Path.cwd()
    yield
    os.chdir(before)


def everything(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Each path with its mode, its device numbers and its content."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        about = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(about.st_mode) else b""
        found[str(path.relative_to(folder))] = (about.st_mode, about.st_rdev, content)
    return found


def test_a_state_is_loaded_as_it_was_saved_and_what_came_later_is_gone(machine: Path) -> None:
    before = everything(machine / "machine")
    saved = script(checkpoints.SAVE, machine, "cp1")
    assert (saved.returncode, saved.stderr) == (0, "")
    assert int(saved.stdout.split()[0]) <= 2, "the rest of a preallocated file takes no space"
    layer, etcd = machine / "machine" / "layer", machine / "machine" / "var-lib-etcd"
    (layer / "etc" / "machine-id").unlink()
    (layer / "later").mkdir()
    (layer / "later" / "file").write_text("x")
    (etcd / ".later").write_text("x")
    (etcd / ".hidden").write_text("of now\n")
    etcd.chmod(0o755)
    loaded = script(checkpoints.LOAD, machine, "cp1")
    assert (loaded.returncode, loaded.stderr) == (0, "")
    assert everything(machine / "machine") == before
    assert (layer / "etc" / "machine-id").samefile(layer / "etc" / "same-file")


def test_what_an_interrupted_run_has_saved_is_replaced(machine: Path) -> None:
    before = everything(machine / "machine")
    torn = machine / "checkpoint" / "cp1" / "layer"
    torn.mkdir(parents=True)
    (torn / "half").write_text("x")
    assert script(checkpoints.SAVE, machine, "cp1").returncode == 0
    assert everything(machine / "checkpoint" / "cp1") == before


@pytest.mark.skipif(os.getuid() != 0, reason="devices and trusted attributes need root")
def test_marks_of_the_overlay_are_kept(machine: Path) -> None:
    layer = machine / "machine" / "layer"
    os.mknod(layer / "deleted", stat.S_IFCHR, os.makedev(0, 0))
    (layer / "opaque").mkdir()
    try:
        os.setxattr(layer / "opaque", "trusted.overlay.opaque", b"y")
    except OSError as error:
        pytest.skip(f"this file system has no trusted attributes: {error.strerror}")
    assert script(checkpoints.SAVE, machine, "cp1").returncode == 0
    (layer / "deleted").unlink()
    (layer / "opaque").rmdir()
    assert script(checkpoints.LOAD, machine, "cp1").returncode == 0
    deleted = (layer / "deleted").lstat()
    assert (stat.S_ISCHR(deleted.st_mode), deleted.st_rdev) == (True, 0)
    assert os.getxattr(layer / "opaque", "trusted.overlay.opaque") == b"y"


def test_a_machine_without_a_copy_keeps_what_it_has(machine: Path) -> None:
    before = everything(machine / "machine")
    (machine / "checkpoint" / "cp1" / "layer").mkdir(parents=True)
    refused = script(checkpoints.LOAD, machine, "cp1")
    assert refused.returncode == 1
    assert "the checkpoint has no copy of var-lib-etcd" in refused.stderr
    assert everything(machine / "machine") == before


def test_room_is_what_folders_take_and_what_is_free(machine: Path) -> None:
    (machine / "machines").mkdir()
    (machine / "machine").rename(machine / "machines" / "cp1")
    free, taken, *_ = script(checkpoints.ROOM, machine, "").stdout.split()
    assert int(taken) <= 2
    assert int(free) > 0
