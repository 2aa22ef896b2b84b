from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path

import pytest

from lab.config import default
from lab.golden import debian, disk, image
from lab.host import places
from lab.model import Libvirt
from lab.system import process
from tests.unit.fakes import progress
from tests.unit.hosts import FakeRun

LAB = default().model_copy(update={"provider": "libvirt", "libvirt": Libvirt()})
VIRSH = "virsh --connect qemu:///system"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VAGRANT_HOME", str(tmp_path / "vagrant.d"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def add_box(home: Path, name: str, bill: str = "{}") -> None:
    folder = home / "vagrant.d" / "boxes" / name.replace("/", "-VAGRANTSLASH-") / "0" / "libvirt"
    folder.mkdir(parents=True)
    (folder / "metadata.json").write_text("{}")
    (folder / disk.BILL).write_text(bill)


def add_disk(mark: str) -> Path:
    folder = places.disks_folder() / mark
    folder.mkdir(parents=True)
    (folder / disk.DISK).write_text("a disk")
    (folder / disk.BILL).write_text('{"bill": 1}')
    return folder


def test_the_box_is_named_by_all_that_is_on_the_disk() -> None:
    assert re.fullmatch(r"ha-lab/golden-[0-9a-f]{16}", image.name(LAB))
    assert image.key(LAB) != image.key(default())
    assert {"linux-image-amd64", "haproxy"} <= set(disk.packages())


def test_what_only_disks_have_changes_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    before = image.name(default()), image.name(LAB)
    plain = debian.packages
    monkeypatch.setattr(debian, "packages", lambda name="packages.txt": [*plain(name), name])
    assert image.name(LAB) != before[1]
    monkeypatch.setattr(debian, "packages", lambda name="packages.txt": plain(name))
    assert image.name(default()) == before[0]


def test_a_box_is_there_when_vagrant_has_it_for_libvirt(home: Path) -> None:
    assert not image.exists(LAB, image.name(LAB))
    add_box(home, image.name(LAB))
    assert image.exists(LAB, image.name(LAB))
    assert not image.exists(LAB, "ha-lab/golden-0")


def test_a_box_is_added_from_the_disk_under_its_hash_and_nothing_is_downloaded(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_disk(image.key(LAB))
    seen: list[list[str]] = []
    packed: dict[str, bytes] = {}
    really = process.run

    def door(argv: list[str | Path], **options: object) -> process.Result:
        words = [str(word) for word in argv]
        if words[0] != "vagrant":
            return really(words, timeout=60)
        seen.append(words)
        with tarfile.open(words[-1]) as box:
            packed.update({m.name: file.read() for m in box if (file := box.extractfile(m))})
        add_box(home, words[-2])
        return process.Result(tuple(words), 0, "", "", 0.0)

    monkeypatch.setattr(process, "run", door)
    assert image.bake(LAB, progress(home)) == image.name(LAB)
    (words,) = seen
    assert words[:7] == ["vagrant", "box", "add", "--provider", "libvirt", "--name", image.name(LAB)]
    assert (packed["box.img"], packed[disk.BILL]) == (b"a disk", b'{"bill": 1}')
    about = json.loads(packed["metadata.json"])
    assert about == {"provider": "libvirt", "format": "qcow2", "virtual_size": disk.VIRTUAL_GIB}
    assert not list((home / "cache" / "ha-lab" / "golden").iterdir())


def test_the_bill_of_materials_is_in_the_box(home: Path) -> None:
    add_box(home, "ha-lab/golden-0123", '{"bill": 1}')
    assert image.bill_of_materials(LAB, "ha-lab/golden-0123") == '{"bill": 1}'


def test_pruning_keeps_this_labs_and_what_machines_stand_on(home: Path, run: FakeRun) -> None:
    for mark in (image.key(LAB), "old", "used"):
        add_disk(mark)
        add_box(home, f"ha-lab/golden-{mark}")
    base = "ha-lab-VAGRANTSLASH-golden-{}_vagrant_box_image_0_1700000000_box.img"
    rows = [base.format("old"), base.format("used"), "x-cp1.img"]
    table = " Name   Path\n-----\n" + "".join(f" {row}   /pool/{row}\n" for row in rows)
    run.tell(f"{VIRSH} vol-list --pool default", table)
    for row in rows:
        run.tell(f"{VIRSH} vol-dumpxml --pool default {row}", f"<target><path>/pool/{row}</path></target>")
    backing = f"<target/><backingStore><path>/pool/{base.format('used')}</path></backingStore>"
    run.tell(f"{VIRSH} vol-dumpxml --pool default x-cp1.img", backing)
    run.tell(f"{VIRSH} vol-delete --pool default {base.format('old')}")
    run.tell("vagrant box remove ha-lab/golden-old")
    assert image.prune(LAB) == ["ha-lab/golden-old", base.format("old"), "disks/old", "disks/used"]
    assert [path.name for path in places.disks_folder().iterdir()] == [image.key(LAB)]
    assert sum("vol-list" in words for words in run.asked) == 1


def test_pruning_works_where_there_is_no_pool_yet(home: Path, run: FakeRun) -> None:
    add_box(home, "ha-lab/golden-old")
    run.tell(f"{VIRSH} vol-list --pool default", code=1, stderr="no storage pool")
    run.tell("vagrant box remove ha-lab/golden-old")
    assert image.prune(LAB) == ["ha-lab/golden-old"]
