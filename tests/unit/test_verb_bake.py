"""Which golden machine a lab gets, and which purposes the host is made fit for first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab.conformance import suite
from lab.errors import HostNotFit, LabError, LabStateError
from lab.golden import bundle, disk, image
from lab.golden.supply import comparison, parts
from lab.golden.supply.releases import release
from lab.host.doctor import examination
from lab.session import Session
from lab.verbs import bake, render
from tests.unit.sessions import GOLDEN, let_exist, on_any_host, wanted

OLD = "ha-lab/golden:old"


class Host:
    """A host that has some golden machines, and keeps what was done on it."""

    def __init__(self) -> None:
        """Have none."""
        self.has: set[str] = set()
        self.events: list[str] = []
        self.fit: LabError | None = None
        self.starts: set[str] = set()
        """What can only be seen once the host was made fit."""

    def exists(self, lab: object, golden: str) -> bool:
        """Whether it has that one."""
        return golden in self.has

    def bake(self, *_: object) -> str:
        """Make the one of this checkout."""
        self.events.append("bake")
        self.has.add(GOLDEN)
        return GOLDEN

    def make_fit(self, lab: object, workspace: object, **words: Any) -> None:
        """Keep for what the host was made fit."""
        consent = " with consent" if words["consent"] else ""
        self.events.append(f"fit for {'+'.join(sorted(words['purposes']))}{consent}")
        assert words["baked"] is ("bake" not in words["purposes"])
        if self.fit:
            raise self.fit
        self.has |= self.starts


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    on_any_host(monkeypatch)
    found = Host()
    monkeypatch.setattr(image, "exists", found.exists)
    monkeypatch.setattr(image, "bake", found.bake)
    monkeypatch.setattr(image, "key", lambda lab: found.events.append("key"))
    monkeypatch.setattr(examination, "make_fit", found.make_fit)
    return found


@pytest.fixture
def opened(host: Host, tmp_path: Path) -> Session:
    return wanted(tmp_path)


@pytest.fixture
def lived(opened: Session, tmp_path: Path) -> Session:
    """A lab whose machines are clones of an older golden machine."""
    render.record_and_write(opened, OLD)
    let_exist(opened.workspace)
    return wanted(tmp_path)


def test_what_is_not_there_is_made_on_a_host_that_is_fit_for_it(opened: Session, host: Host) -> None:
    assert bake.bake(opened, consent=False) == GOLDEN
    assert host.events == ["key", "fit for bake+up", "bake"]


def test_what_is_there_needs_a_host_that_is_fit_to_run_it(opened: Session, host: Host) -> None:
    host.has = {GOLDEN}
    assert bake.bake(opened, consent=True) == GOLDEN
    assert host.events == ["fit for up with consent", "bake"]


def test_without_upstream_s_lock_nothing_else_is_looked_at(
    opened: Session, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_lock(lab: object) -> str:
        raise LabStateError("upstream is not pinned")

    monkeypatch.setattr(image, "key", no_lock)
    with pytest.raises(LabStateError, match="not pinned"):
        bake.bake(opened, consent=True)
    assert host.events == []


def test_a_host_that_is_not_fit_bakes_nothing(opened: Session, host: Host) -> None:
    host.fit = HostNotFit("docker is missing")
    with pytest.raises(HostNotFit):
        bake.bake(opened, consent=False)
    assert "bake" not in host.events


def test_machines_keep_the_golden_machine_they_were_made_from(lived: Session, host: Host) -> None:
    host.has = {OLD}
    assert bake.own_golden(lived) == OLD
    assert bake.bake(lived, consent=False) == OLD
    assert host.events == ["fit for up"]


def test_an_edited_lab_yaml_changes_nothing_about_that(lived: Session, host: Host, tmp_path: Path) -> None:
    host.has = {OLD}
    text = "name: mine\nprovider: docker\nkubernetes: {source: modules}\nnodes: {workers: {count: 9}}\n"
    assert bake.bake(wanted(tmp_path, text), consent=False) == OLD


def test_a_golden_machine_that_is_gone_is_made_as_this_checkout_has_it(lived: Session, host: Host) -> None:
    assert bake.own_golden(lived) == ""
    assert bake.bake(lived, consent=False) == GOLDEN


def test_one_that_could_not_be_seen_while_docker_was_off_is_kept(lived: Session, host: Host) -> None:
    host.starts = {OLD}
    assert bake.bake(lived, consent=True) == OLD
    assert "bake" not in host.events


def test_what_was_only_rendered_binds_nobody(opened: Session, host: Host, tmp_path: Path) -> None:
    render.record_and_write(opened, OLD)
    host.has = {OLD, GOLDEN}
    assert bake.own_golden(wanted(tmp_path)) == ""
    assert bake.bake(wanted(tmp_path), consent=False) == GOLDEN


def test_a_provider_that_can_t_be_asked_has_no_golden_machine(
    opened: Session, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.has = {GOLDEN}
    assert bake.is_baked(opened)

    def unknown(*_: object) -> bool:
        raise LabError("vagrant is missing")

    monkeypatch.setattr(image, "exists", unknown)
    assert not bake.is_baked(opened)


def test_an_export_is_of_this_checkout_s_golden_machine(
    opened: Session, host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    built: list[Path] = []
    monkeypatch.setattr(suite, "folder", lambda lab: tmp_path / "suite")
    monkeypatch.setattr(suite, "is_built", lambda lab: bool(built))

    def write(lab: object, target: Path, progress: object, with_suite: Path | None) -> None:
        host.events.append(f"pack {target.name}{f' and {with_suite.name}' if with_suite else ''}")

    monkeypatch.setattr(bundle, "write", write)
    bake.export(opened, tmp_path / "lab.tar", consent=False)
    assert host.events == ["fit for bake+up", "bake", "pack lab.tar"]
    host.events.clear()
    bake.export(opened, tmp_path / "lab.tar", consent=False)
    assert host.events == ["fit for up", "bake", "pack lab.tar"]
    host.events.clear()
    built.append(tmp_path)
    bake.export(opened, tmp_path / "lab.tar", consent=False)
    assert host.events == ["fit for up", "bake", "pack lab.tar and suite"]


def test_an_export_over_a_file_is_refused_before_anything(opened: Session, host: Host, tmp_path: Path) -> None:
    (tmp_path / "lab.tar").write_text("mine")
    with pytest.raises(LabError, match="exists already"):
        bake.export(opened, tmp_path / "lab.tar", consent=False)
    assert host.events == []


def test_an_import_is_checked_before_the_host_is_touched(
    opened: Session, host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    manifest = bundle.Manifest.model_construct()
    monkeypatch.setattr(
        bundle, "take", lambda lab, file, found, progress: host.events.append(f"take {file.name}")
    )
    with pytest.raises(LabError, match="there is no file"):
        bake.import_(opened, tmp_path / "none.tar", consent=True)
    assert host.events == []
    monkeypatch.setattr(bundle, "check", lambda lab, file: manifest)
    assert bake.import_(opened, tmp_path / "lab.tar", consent=True) is manifest
    assert host.events == ["fit for up with consent", "take lab.tar"]


def test_comparing_makes_the_host_fit_for_that_only(
    opened: Session, host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = next(iter(parts.files(release(opened.lab.kubernetes.version))))
    found = (comparison.Compared(file, "amd64", "0" * 64, "1" * 64),)
    monkeypatch.setattr(comparison, "compare", lambda wanted, mirrors, progress: found)
    assert bake.compare(opened, None, consent=False) == found
    assert bake.compare(opened, tmp_path / "records.yaml", consent=False) == found
    assert host.events == ["fit for lock", "fit for lock"]
    assert "1" * 64 in (tmp_path / "records.yaml").read_text()
    with pytest.raises(LabError, match="exists already"):
        bake.compare(opened, tmp_path / "records.yaml", consent=False)
    with pytest.raises(LabError, match="not a folder that you can write to"):
        bake.compare(opened, tmp_path / "none" / "records.yaml", consent=False)
    assert host.events == ["fit for lock", "fit for lock"], "nobody is asked in vain"


def test_the_golden_disk_has_its_folder_by_its_key(opened: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "key", lambda lab: "0123")
    monkeypatch.setattr(disk, "folder", lambda key: Path("/builds") / key)
    assert bake.golden_disk(opened) == Path("/builds/0123") / disk.DISK
