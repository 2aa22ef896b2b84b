from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lab.config import Choice, choice, default
from lab.config.shape import File
from lab.host import Unknown, hypervisor
from lab.model import Lab, Libvirt
from lab.workspace import Workspace
from tests.unit.fakes import keep_made

DOCKER = default()
LIBVIRT = DOCKER.model_copy(update={"provider": "libvirt", "libvirt": Libvirt()})
EMULATED = LIBVIRT.model_copy(update={"libvirt": Libvirt(emulated=True)})


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / ".lab")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, bool | Unknown]:
    """A host that has what these say; KVM's device is there."""
    host: dict[str, bool | Unknown] = {"plugin": True, "libvirtd": True, "kvm": True}
    device = tmp_path / "kvm"
    device.touch()
    monkeypatch.setattr(hypervisor, "KVM", device)
    host["virtualbox"] = False
    monkeypatch.setattr(hypervisor, "virtualbox", lambda: host["virtualbox"])
    monkeypatch.setattr(hypervisor, "plugin", lambda: host["plugin"])
    monkeypatch.setattr(hypervisor, "libvirtd_answers", lambda: host["libvirtd"])
    monkeypatch.setattr(hypervisor, "kvm", lambda: host["kvm"])
    return host


def file(**data: object) -> File:
    return File.model_validate(data)


def test_auto_is_libvirt_where_all_of_it_works(asked: dict[str, bool | Unknown], workspace: Workspace) -> None:
    assert choice.settle(file(), workspace) == Choice("libvirt", False)


@pytest.mark.parametrize("missing", ["plugin", "libvirtd", "kvm"])
def test_auto_is_docker_where_any_of_it_is_missing(
    asked: dict[str, bool | Unknown], workspace: Workspace, missing: str
) -> None:
    asked[missing] = False
    assert choice.settle(file(), workspace) == Choice("docker", False)


def test_auto_is_virtualbox_before_docker_and_after_libvirt(
    asked: dict[str, bool | Unknown], workspace: Workspace
) -> None:
    asked["virtualbox"] = True
    assert choice.settle(file(), workspace).provider == "libvirt"
    asked["libvirtd"] = False
    assert choice.settle(file(), workspace) == Choice("virtualbox", False)


@pytest.mark.parametrize(("client", "driver"), [(True, False), (False, True)])
def test_virtualbox_is_here_with_its_client_and_its_driver(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, client: bool, driver: bool
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/VBoxManage" if client else None)
    if driver:
        (tmp_path / "vboxdrv").touch()
    assert not hypervisor.virtualbox(tmp_path / "vboxdrv")
    (tmp_path / "vboxdrv").touch()
    assert hypervisor.virtualbox(tmp_path / "vboxdrv") is client


def test_what_could_not_be_tried_is_not_taken_for_working(
    asked: dict[str, bool | Unknown], workspace: Workspace
) -> None:
    asked["kvm"] = Unknown("no kernel")
    assert choice.settle(file(), workspace).provider == "docker"
    assert choice.settle(file(provider="libvirt"), workspace) == Choice("libvirt", False)


def test_a_host_without_kvm_is_asked_nothing_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, workspace: Workspace
) -> None:
    monkeypatch.setattr(hypervisor, "KVM", tmp_path / "none")
    for name in ("plugin", "libvirtd_answers", "kvm_works"):
        monkeypatch.setattr(hypervisor, name, lambda *_: pytest.fail("asked"))
    assert choice.settle(file(), workspace) == Choice("docker", False)


@pytest.mark.parametrize(
    ("existing", "expected"),
    [
        (DOCKER, Choice("docker", False)),
        (EMULATED, Choice("libvirt", True)),
        (LIBVIRT, Choice("libvirt", False)),
    ],
)
def test_machines_that_exist_have_settled_it(
    asked: dict[str, bool | Unknown], workspace: Workspace, existing: Lab, expected: Choice
) -> None:
    asked["kvm"] = not expected.emulated if expected.provider == "libvirt" else True
    keep_made(workspace, existing)
    made = workspace.root / ".vagrant" / "machines" / "lb1" / expected.provider / "id"
    made.parent.mkdir(parents=True)
    made.write_text("1")
    asked["kvm"] = expected.emulated  # the opposite of what it was made with
    assert choice.settle(file(), workspace) == expected


def test_what_was_only_rendered_settles_nothing(asked: dict[str, bool | Unknown], workspace: Workspace) -> None:
    keep_made(workspace, DOCKER.model_copy(update={"provider": "virtualbox"}))
    asked["kvm"] = False
    assert choice.settle(file(), workspace) == Choice("docker", False)
    assert choice.settle(file(provider="libvirt"), workspace) == Choice("libvirt", True)


def test_the_files_own_words_come_before_everything(
    asked: dict[str, bool | Unknown], workspace: Workspace
) -> None:
    keep_made(workspace, LIBVIRT)
    assert choice.settle(file(provider="docker"), workspace) == Choice("docker", False)
    emulated = file(provider="libvirt", libvirt={"emulated": "true"})
    assert choice.settle(emulated, workspace) == Choice("libvirt", True)


def test_without_kvm_machines_are_emulated_and_on_another_host_that_is_not_known(
    asked: dict[str, bool | Unknown], workspace: Workspace
) -> None:
    asked["kvm"] = False
    assert choice.settle(file(provider="libvirt"), workspace) == Choice("libvirt", True)
    remote = file(provider="libvirt", libvirt={"uri": "qemu+ssh://ada@big/system"})
    assert choice.settle(remote, workspace) == Choice("libvirt", False)
