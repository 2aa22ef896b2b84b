"""The box: what VirtualBox's importer reads and refuses (its ovfreader.cpp and manifest2.cpp), asked of ours.

DMTF's schema of OVF (dsp8023) is in no package that could be pinned here, so it is not what judges.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lab import config
from lab.golden import build, disk, image
from lab.providers import boxes
from lab.providers.virtualbox import golden as virtualbox
from lab.system import process
from lab.system.process import Result
from tests.unit.fakes import RECORDED, progress

LAB = config.default().model_copy(update={"provider": "virtualbox"})
VMDK = gzip.decompress((RECORDED / "streamoptimized.vmdk.gz").read_bytes())
"""What qemu-img 7.2 makes of an empty disk of 4 MiB."""

OVF = "{http://schemas.dmtf.org/ovf/envelope/1}"
RASD = "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData}"
VSSD = "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData}"
VBOX = "{http://www.virtualbox.org/ovf/machine}"
MARK = "0123456789abcdef"


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """What is in a box, but for the list of what went in."""
    (tmp_path / virtualbox.VMDK).write_bytes(VMDK)
    virtualbox.describe(tmp_path, MARK)
    return tmp_path


@pytest.fixture
def envelope(box: Path) -> ElementTree.Element:
    return ElementTree.parse(box / virtualbox.OVF).getroot()  # noqa: S314  it is ours


def the(parent: ElementTree.Element, path: str) -> ElementTree.Element:
    """The one element at a path below another."""
    found = parent.findall(path)
    assert len(found) == 1, f"{len(found)} of {path}"
    return found[0]


def items(envelope: ElementTree.Element) -> dict[str, dict[str, str]]:
    """The hardware, by its instance ids: rasd's words of each item."""
    found = envelope.findall(f"{OVF}VirtualSystem/{OVF}VirtualHardwareSection/{OVF}Item")
    rows = [{child.tag.removeprefix(RASD): child.text or "" for child in item} for item in found]
    assert len({row["InstanceID"] for row in rows}) == len(rows), "each has an id of its own"
    return {row["InstanceID"]: row for row in rows}


def of_type(rows: Mapping[str, dict[str, str]], kind: int) -> dict[str, str]:
    found = [row for row in rows.values() if row["ResourceType"] == str(kind)]
    assert len(found) == 1
    return found[0]


def test_the_envelope_s_parts_stand_in_the_order_of_the_standard(envelope: ElementTree.Element) -> None:
    assert envelope.tag == f"{OVF}Envelope"
    assert envelope.get(f"{OVF}version") == "1.0"
    names = [child.tag.removeprefix(OVF) for child in envelope]
    assert names == ["References", "DiskSection", "NetworkSection", "VirtualSystem"]
    machine = envelope.find(f"{OVF}VirtualSystem")
    assert machine is not None
    assert [child.tag for child in machine] == [
        *(f"{OVF}Info", f"{OVF}OperatingSystemSection", f"{OVF}VirtualHardwareSection", f"{VBOX}Machine")
    ]
    for section in envelope.iter():
        if section.tag.endswith("Section"):
            assert section[0].tag == f"{OVF}Info", "every section begins with one"


def test_the_disk_is_the_file_that_is_there(box: Path, envelope: ElementTree.Element) -> None:
    file = the(envelope, f"{OVF}References/{OVF}File")
    drive = the(envelope, f"{OVF}DiskSection/{OVF}Disk")
    assert drive.get(f"{OVF}fileRef") == file.get(f"{OVF}id")
    assert (box / str(file.get(f"{OVF}href"))).stat().st_size == int(str(file.get(f"{OVF}size")))
    assert drive.get(f"{OVF}capacity") == str(disk.VIRTUAL_GIB * 2**30)
    assert str(drive.get(f"{OVF}format")).endswith("vmdk.html#streamOptimized")


def test_the_hardware_is_what_the_importer_takes(envelope: ElementTree.Element) -> None:
    rows = items(envelope)
    memory, controller, drive = of_type(rows, 4), of_type(rows, 20), of_type(rows, 17)
    assert memory["AllocationUnits"] in ("MegaBytes", "MB", "byte * 2^20")
    assert controller["ResourceSubType"] == "AHCI"
    assert rows[drive["Parent"]] is controller
    disk_id = the(envelope, f"{OVF}DiskSection/{OVF}Disk").get(f"{OVF}diskId")
    assert drive["HostResource"] == f"/disk/{disk_id}"
    assert int(of_type(rows, 3)["VirtualQuantity"]) > 1, "with one, there is no I/O APIC"
    card = of_type(rows, 10)
    networks = [each.get(f"{OVF}name") for each in envelope.findall(f"{OVF}NetworkSection/{OVF}Network")]
    assert card["Connection"] in networks
    assert card["ResourceSubType"] == "E1000"


def test_it_is_a_debian_of_64_bits_to_both_readers(envelope: ElementTree.Element) -> None:
    system = the(envelope, f"{OVF}VirtualSystem/{OVF}OperatingSystemSection")
    assert system.get(f"{OVF}id") == "96", "Debian 64-Bit (CIM_OperatingSystem)"
    assert the(system, f"{VBOX}OSType").text == "Debian_64"
    kind = the(envelope, f".//{VSSD}VirtualSystemType")
    assert kind.text == "virtualbox-2.2"


def test_virtualbox_s_own_words_say_the_same(envelope: ElementTree.Element) -> None:
    machine = the(envelope, f"{OVF}VirtualSystem/{VBOX}Machine")
    assert machine.get(f"{OVF}required") == "false", "others pass it over"
    drive = the(envelope, f"{OVF}DiskSection/{OVF}Disk")
    attached = the(machine, f".//{OVF}StorageController/{OVF}AttachedDevice/{OVF}Image")
    assert attached.get("uuid") == "{" + str(drive.get(f"{VBOX}uuid")) + "}"
    assert the(machine, f".//{OVF}IOAPIC").get("enabled") == "true"
    assert the(machine, f".//{OVF}Adapter").get("type") == "82540EM"
    assert machine.findall(f".//{OVF}UART") == [], "no serial port"


def test_the_lab_s_key_goes_on_a_controller_that_the_box_has(envelope: ElementTree.Element) -> None:
    controller = the(envelope, f".//{OVF}StorageController")
    text = (Path(__file__).parents[2] / "provision/templates/_one.virtualbox.rb.j2").read_text()
    named = re.search(r'"--storagectl", "([^"]+)", "--port", "(\d)"', text)
    assert named is not None
    assert controller.get("name") == named[1]
    assert int(named[2]) < int(str(controller.get("PortCount")))


def test_the_sums_are_those_that_virtualbox_reads(box: Path) -> None:
    lines = (box / virtualbox.SUMS).read_text().splitlines()
    found = [re.fullmatch(r"SHA256 \((.+)\) = ([0-9a-f]{64})", line) for line in lines]
    assert [match and match[1] for match in found] == [virtualbox.OVF, virtualbox.VMDK]
    for match in found:
        assert match is not None
        assert hashlib.sha256((box / match[1]).read_bytes()).hexdigest() == match[2]


def test_the_same_disk_gives_the_same_box_whatever_number_qemu_img_made_up(box: Path, tmp_path: Path) -> None:
    assert VMDK.count(b"\nCID=9798ce2d\n") == 1
    other = tmp_path / "other"
    other.mkdir()
    (other / virtualbox.VMDK).write_bytes(VMDK.replace(b"\nCID=9798ce2d\n", b"\nCID=00c0ffee\n"))
    virtualbox.describe(other, MARK)
    for each in (virtualbox.OVF, virtualbox.SUMS, virtualbox.VMDK, "metadata.json", "Vagrantfile"):
        assert (other / each).read_bytes() == (box / each).read_bytes()


def test_qemu_img_still_takes_the_disk_for_whole(box: Path) -> None:
    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-img is not on PATH; the tests of virtual machines have it")
    words = ["qemu-img", "info", "--output", "json", str(box / virtualbox.VMDK)]
    found = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    assert found["format-specific"]["data"]["create-type"] == "streamOptimized"
    assert found["format-specific"]["data"]["cid"] == int(MARK[:8], 16)


def test_vagrant_is_told_whose_box_it_is(box: Path) -> None:
    assert json.loads((box / "metadata.json").read_text())["provider"] == "virtualbox"
    assert "base_mac" not in (box / "Vagrantfile").read_text()


# Making it, and taking it along


class Vagrant:
    """qemu-img and Vagrant: a box that is added lies on the shelf."""

    def __init__(self, shelf: Path) -> None:
        """Have no box."""
        self.shelf = shelf
        self.asked: list[list[str]] = []

    def __call__(self, argv: list[str | Path], **_: object) -> Result:
        """Do what a command would."""
        words = [str(word) for word in argv]
        self.asked.append(words)
        if words[:2] == ["qemu-img", "convert"]:
            assert words[2:6] == ["-O", "vmdk", "-o", "subformat=streamOptimized"]
            Path(words[-1]).write_bytes(VMDK)
        elif words[:3] == ["vagrant", "box", "add"]:
            name = words[words.index("--name") + 1].replace("/", "-VAGRANTSLASH-")
            folder = self.shelf / "boxes" / name / "0" / "virtualbox"
            folder.mkdir(parents=True)
            shutil.unpack_archive(words[-1], folder, "tar")
        elif words[:3] == ["vagrant", "box", "remove"]:
            shutil.rmtree(self.shelf / "boxes" / words[3].replace("/", "-VAGRANTSLASH-"))
        elif words[:2] == ["VBoxManage", "unregistervm"]:
            return Result(tuple(words), 1, "", "Cannot unregister the machine: it has linked clones", 0.0)
        else:
            raise AssertionError(f"a command that this test was not told of: {words}")
        return Result(tuple(words), 0, "", "", 0.0)


@pytest.fixture
def vagrant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Vagrant:
    made = tmp_path / "disk"
    made.mkdir()
    (made / disk.BILL).write_text('{"what": "went in"}')
    stand_in = Vagrant(tmp_path / "vagrant")
    monkeypatch.setenv("VAGRANT_HOME", str(tmp_path / "vagrant"))
    monkeypatch.setattr(process, "run", stand_in)
    monkeypatch.setattr(build, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(disk, "make", lambda *_: made / disk.DISK)
    monkeypatch.setattr(disk, "prune", lambda _: [])
    monkeypatch.setattr(build, "clear", lambda folder: shutil.rmtree(folder, ignore_errors=True))
    return stand_in


def test_a_box_is_made_and_added_once(vagrant: Vagrant, tmp_path: Path) -> None:
    assert not image.exists(LAB, image.name(LAB))
    image.bake(LAB, progress(tmp_path))
    assert image.exists(LAB, image.name(LAB))
    assert json.loads(image.bill_of_materials(LAB, image.name(LAB))) == {"what": "went in"}
    before = len(vagrant.asked)
    image.bake(LAB, progress(tmp_path))
    assert len(vagrant.asked) == before


def test_a_box_is_taken_along_without_qemu(vagrant: Vagrant, tmp_path: Path) -> None:
    image.bake(LAB, progress(tmp_path))
    (tmp_path / "taken").mkdir()
    image.pack(LAB, tmp_path / "taken", progress(tmp_path))
    assert {path.name for path in (tmp_path / "taken").iterdir()} == set(virtualbox.FILES)
    boxes.remove(image.name(LAB), "virtualbox")
    vagrant.asked.clear()
    image.unpack(LAB, tmp_path / "taken", progress(tmp_path))
    assert image.exists(LAB, image.name(LAB))
    assert {words[0] for words in vagrant.asked} == {"vagrant"}


def test_an_old_box_stays_while_machines_stand_on_it(
    vagrant: Vagrant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/VBoxManage")
    for mark in ("aaaa", "bbbb"):
        folder = tmp_path / "vagrant/boxes" / f"ha-lab-VAGRANTSLASH-golden-{mark}" / "0/virtualbox"
        folder.mkdir(parents=True)
        (folder / "metadata.json").touch()
    (folder / "master_id").write_text("1234\n")
    assert image.prune(LAB)[:1] == ["ha-lab/golden-aaaa"]
    assert boxes.baked("virtualbox") == ["ha-lab/golden-bbbb"]
