"""Opening a lab: as lab.yaml has it, and as its machines were made, whatever lab.yaml says by now."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from lab import config
from lab.config import default
from lab.errors import ConfigError, LabStateError
from lab.model.change import Change
from lab.remote import Remote
from lab.session import (
    Session,
    change_of,
    has_machines,
    machine,
    of_lab,
    open_made,
    open_wanted,
    require_up,
    with_profile,
)
from lab.system import paths
from lab.workspace import Workspace, made
from tests.unit.fakes import keep_made, printed
from tests.unit.sessions import LAB_YAML, as_made, let_exist, wanted

FEWER = LAB_YAML + "nodes: {workers: {count: 1}}\n"


@pytest.fixture
def opened(tmp_path: Path) -> Session:
    return wanted(tmp_path)


@pytest.fixture
def lived(opened: Session, tmp_path: Path) -> Session:
    """A lab whose machines exist."""
    keep_made(opened.workspace, opened.lab)
    let_exist(opened.workspace)
    return as_made(tmp_path)


def test_opening_touches_nothing(opened: Session, tmp_path: Path) -> None:
    as_made(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["lab.yaml"]
    assert opened.workspace.root == tmp_path / ".lab"
    assert (opened.made, opened.differs) == (None, None)


def test_a_lab_file_that_is_wrong_opens_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        wanted(tmp_path, "bogus: 1\n")
    with pytest.raises(ConfigError):
        as_made(tmp_path)


def test_a_folder_that_can_t_hold_a_lab_is_refused_with_all_that_is_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "a:b"
    folder.mkdir()
    with pytest.raises(ConfigError, match="a:b has a colon in its path") as caught:
        wanted(folder)
    assert caught.value.hint == "rename that folder, or keep the lab file in another one and name it with --lab"
    with pytest.raises(ConfigError) as caught:
        wanted(folder, "bogus: 1\n")
    colon, bogus = caught.value.problems
    assert colon.startswith("the lab's folder")
    assert "bogus" in bogus
    assert [path.name for path in folder.iterdir()] == ["lab.yaml"]


def test_scripts_with_line_ends_of_windows_are_refused_before_a_machine_gets_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert paths.line_end_problem() is None
    provision = tmp_path / "provision"
    (provision / "node").mkdir(parents=True)
    (provision / "node" / "a.sh").write_bytes(b"#!/bin/sh\nprintf '\\r' # no line's end\n")
    assert paths.line_end_problem(provision) is None
    for name in ("b.sh", "c.sh"):
        (provision / "node" / name).write_bytes(b"#!/bin/sh\r\ntrue\r\n")
    found = paths.line_end_problem(provision)
    assert found == "provision/node/b.sh and 1 more: lines end with CR LF, which machines' shells can't read"
    monkeypatch.setattr(paths, "line_end_problem", lambda *_: found)
    with pytest.raises(ConfigError, match=r"b.sh and 1 more") as caught:
        wanted(tmp_path)
    assert caught.value.hint.startswith(f"find {paths.PROVISION} -type f -exec sed -i 's/\\r$//' {{}} +")
    line = caught.value.hint.replace(str(paths.PROVISION), str(provision))
    monkeypatch.undo()
    subprocess.run(["sh", "-c", line], check=True)
    assert paths.line_end_problem(provision) is None


def test_a_lab_that_is_in_such_a_folder_all_the_same_can_be_looked_at_and_removed(tmp_path: Path) -> None:
    folder = tmp_path / "a:b"
    folder.mkdir()
    (folder / "lab.yaml").write_text(LAB_YAML)
    workspace = Workspace(folder / ".lab")
    keep_made(workspace, default())
    let_exist(workspace)
    assert as_made(folder).made is not None


@pytest.mark.parametrize("opening", [open_wanted, open_made])
def test_a_missing_lab_file_is_the_default_lab(tmp_path: Path, opening: object) -> None:
    assert callable(opening)
    assert opening(tmp_path / "none.yaml", printed()[0]).lab == config.default()


def test_a_link_to_a_lab_file_opens_the_lab_beside_the_file_itself(opened: Session, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link.yaml").symlink_to(opened.path)
    assert (
        open_wanted(tmp_path / "elsewhere" / "link.yaml", printed()[0]).workspace.root == opened.workspace.root
    )


# As it was made.


def test_a_lab_that_is_as_lab_yaml_has_it_differs_in_nothing(lived: Session) -> None:
    assert lived.differs is None
    assert lived.made is not None
    assert lived.lab == lived.made.lab


def test_an_edited_lab_yaml_is_noted_and_changes_nothing_on_what_is_opened(
    lived: Session, tmp_path: Path
) -> None:
    text = "name: yours\nprovider: docker\nnodes: {workers: {count: 1}}\n"
    found = as_made(tmp_path, text)
    assert found.lab == lived.lab
    assert found.differs == (
        "lab.yaml differs from it in name, nodes.workers.count. `./inv plan` shows what `up` would change"
    )
    assert found.remote.lab == lived.lab
    assert wanted(tmp_path, text).lab.name == "yours"
    assert wanted(tmp_path, text).differs is None


def test_another_lab_file_is_called_by_its_name(lived: Session, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("name: yours\nprovider: docker\n")
    assert open_made(tmp_path / "other.yaml", printed()[0]).differs == (
        "other.yaml differs from it in name. `./inv plan` shows what `up` would change"
    )
    (tmp_path / "other.yaml").write_text("bogus: 1\n")
    found = open_made(tmp_path / "other.yaml", printed()[0])
    assert found.differs is not None
    assert found.differs.startswith("other.yaml can't be used now (")


@pytest.mark.parametrize("text", ["bogus: 1\n", "{", "network: {pods: x}\n", "provider: docker\nname: A B\n"])
def test_a_lab_yaml_that_became_invalid_is_no_obstacle(lived: Session, tmp_path: Path, text: str) -> None:
    found = as_made(tmp_path, text)
    assert found.lab == lived.lab
    assert found.differs is not None
    assert found.differs.startswith("lab.yaml can't be used now (")
    assert "lab.yaml:" in found.differs.removeprefix("lab.yaml")
    with pytest.raises(ConfigError):
        wanted(tmp_path, text)


def test_a_lab_yaml_that_was_removed_is_compared_as_the_default(lived: Session, tmp_path: Path) -> None:
    lived.path.unlink()
    assert as_made(tmp_path).differs == (
        "lab.yaml differs from it in name. `./inv plan` shows what `up` would change"
    )


def test_where_no_machine_was_made_lab_yaml_is_the_lab(opened: Session, tmp_path: Path) -> None:
    keep_made(opened.workspace, opened.lab)
    found = as_made(tmp_path, FEWER)
    assert len(found.lab.workers) == 1
    assert found.differs is None


def test_what_was_rendered_is_opened_where_lab_yaml_became_invalid(opened: Session, tmp_path: Path) -> None:
    """So that `destroy` finds machines that a killed Vagrant never wrote down."""
    keep_made(opened.workspace, opened.lab)
    found = as_made(tmp_path, "bogus: 1\n")
    assert found.lab == opened.lab
    assert found.differs is not None


def test_a_record_without_machines_is_no_lab_to_open(opened: Session, tmp_path: Path) -> None:
    record = keep_made(opened.workspace, opened.lab)
    made.write(opened.workspace, record.model_copy(update={"machines": {}}))
    let_exist(opened.workspace)
    assert len(as_made(tmp_path, FEWER).lab.workers) == 1
    with pytest.raises(ConfigError):
        as_made(tmp_path, "bogus: 1\n")


@pytest.mark.parametrize("opening", [wanted, as_made])
def test_a_damaged_record_opens_nothing(opened: Session, tmp_path: Path, opening: object) -> None:
    opened.workspace.write(opened.workspace.identity, "{")
    assert callable(opening)
    with pytest.raises(LabStateError, match=r"lab\.json can't be read"):
        opening(tmp_path)


# What differs.


def test_of_a_lab_without_machines_everything_is_added(opened: Session, tmp_path: Path) -> None:
    assert not has_machines(opened)
    assert change_of(opened, opened.lab) == Change(added=opened.lab.nodes)
    keep_made(opened.workspace, opened.lab)
    other = wanted(tmp_path, "name: yours\nprovider: docker\n")
    assert not has_machines(other), "only rendered"
    assert change_of(other, other.lab) == Change(added=other.lab.nodes), "what was only rendered is no obstacle"


def test_a_lab_with_machines_changes_by_what_differs(lived: Session, tmp_path: Path) -> None:
    other = wanted(tmp_path, FEWER)
    assert has_machines(other)
    assert [node.name for node in change_of(other, other.lab).removed] == ["w2", "w3"]
    assert change_of(lived, lived.lab) == Change()


@pytest.mark.parametrize(("provider", "resized"), [("docker", []), ("virtualbox", ["w1", "w2", "w3"])])
def test_whether_sizes_are_enforced_is_the_provider_s(
    opened: Session, tmp_path: Path, provider: str, resized: list[str]
) -> None:
    text = f"name: mine\nprovider: {provider}\n"
    keep_made(opened.workspace, wanted(tmp_path, text).lab)
    let_exist(opened.workspace)
    other = wanted(tmp_path, text + "nodes: {workers: {memory_mib: 1024}}\n")
    assert [node.name for node in change_of(other, other.lab).resized] == resized


# What verbs ask of it.


def test_a_machine_is_found_by_name_or_refused_with_the_names(opened: Session) -> None:
    assert machine(opened, "w2").name == "w2"
    with pytest.raises(ConfigError, match="no machine 'w9'") as caught:
        machine(opened, "w9")
    assert caught.value.hint == "its machines: lb1, cp1, cp2, cp3, w1, w2, w3"


def test_a_lab_with_another_profile_is_otherwise_the_same(opened: Session) -> None:
    other = with_profile(opened, "reference")
    assert other.lab.load_balancer.profile == "reference"
    assert other.remote.lab == other.lab
    assert with_profile(other, "tuned").lab == opened.lab
    assert opened.lab.load_balancer.profile == "tuned"


def test_another_form_of_the_lab_has_the_same_files(opened: Session) -> None:
    other = of_lab(opened, config.default())
    assert (other.lab, other.remote.lab) == (config.default(), config.default())
    assert other.workspace is opened.workspace
    assert other.remote.workspace is opened.workspace


def test_a_kubeconfig_that_was_removed_is_missing_and_the_lab_is_there(
    lived: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Remote, "route_problem", lambda self: None)
    assert lived.made is not None
    made.write(lived.workspace, lived.made.model_copy(update={"complete": lived.lab.nodes}))
    with pytest.raises(LabStateError, match="the kubeconfig of the lab mine is missing: ") as caught:
        require_up(replace(lived, made=made.read(lived.workspace)))
    assert caught.value.hint == "`./inv up` fetches it again"


def test_a_lab_is_up_once_it_has_a_kubeconfig_and_its_network(
    opened: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem: list[str | None] = [None]
    monkeypatch.setattr(Remote, "route_problem", lambda self: problem[0])
    with pytest.raises(LabStateError, match="the lab mine has not been brought up") as caught:
        require_up(opened)
    assert caught.value.hint == "bring it up with `./inv up`"
    opened.workspace.write_secret(opened.workspace.kubeconfig, "server")
    require_up(opened)
    problem[0] = "the lab's network is not up on this host"
    with pytest.raises(LabStateError, match="network is not up"):
        require_up(opened)
