from __future__ import annotations

import base64
import traceback
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.config import default
from lab.errors import LabStateError
from lab.model import Node
from lab.remote import Remote
from lab.system import process
from lab.workspace import Workspace, kubeconfig
from lab.workspace.render import credentials

LAB = default()
CA = "-----BEGIN CERTIFICATE-----\nQ0E=\n-----END CERTIFICATE-----\n"
NEXT_CA = CA.replace("Q0E=", "bmV4dA==")
THEIRS = """\
apiVersion: v1
kind: Config
preferences: {colors: true}
clusters:
  - name: work
    cluster: {server: "https://work.example:6443", extra: kept}
users:
  - name: work
    user: {token: theirs}
contexts:
  - name: work
    context: {cluster: work, user: work, namespace: theirs}
current-context: work
"""


def admin_conf(server: str = LAB.api.url) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "kubernetes", "cluster": {"server": server, "certificate-authority-data": "Y2E="}}
            ],
            "users": [{"name": "kubernetes-admin", "user": {"client-certificate-data": "Yw=="}}],
            "contexts": [{"name": "x", "context": {"cluster": "kubernetes", "user": "kubernetes-admin"}}],
            "current-context": "x",
        }
    )


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / ".lab")
    fetch(made, admin_conf())
    return made


def fetch(workspace: Workspace, text: str, code: int = 0) -> bool:
    class Serving(Remote):
        """A control plane with that admin.conf."""

        def run(self, node: Node, command: Any, **options: Any) -> process.Result:
            """Give the one file that is asked for."""
            assert (node, command) == (LAB.first, ["sudo", "cat", "/etc/kubernetes/admin.conf"])
            return process.Result(tuple(command), code, text, "", 0.0)

    return kubeconfig.fetch(LAB, workspace, Serving(LAB, workspace), LAB.first)


NOBODY = admin_conf().partition("users:")[0]


@pytest.mark.parametrize(
    "text", ["", "{", "- x", "kind: Config", "clusters: []", "clusters: [{cluster: x}]", NOBODY]
)
def test_half_an_admin_conf_is_refused_and_no_fault_of_the_kit(tmp_path: Path, text: str) -> None:
    workspace = Workspace(tmp_path / ".lab")
    with pytest.raises(LabStateError, match="does not point at the load balancer"):
        fetch(workspace, text)
    assert not workspace.kubeconfig.exists()


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_the_lab_s_kubeconfig_bears_its_name_and_is_private(workspace: Workspace) -> None:
    found = load(workspace.kubeconfig)
    for kind in ("clusters", "users", "contexts"):
        assert [each["name"] for each in found[kind]] == ["ha-lab"]
    assert found["contexts"][0]["context"] == {"cluster": "ha-lab", "user": "ha-lab"}
    assert found["current-context"] == "ha-lab"
    assert mode(workspace.kubeconfig) == 0o600


def test_the_same_kubeconfig_is_not_written_again(workspace: Workspace) -> None:
    before = workspace.kubeconfig.stat().st_ino
    assert fetch(workspace, admin_conf())
    assert workspace.kubeconfig.stat().st_ino == before


def test_a_control_plane_without_one_gives_none(workspace: Workspace) -> None:
    before = workspace.kubeconfig.read_text()
    assert not fetch(workspace, "", code=1)
    assert workspace.kubeconfig.read_text() == before


@pytest.mark.parametrize("text", [admin_conf("https://192.168.56.11:6443"), "", "nothing"])
def test_a_kubeconfig_that_passes_by_the_load_balancer_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(LabStateError, match="does not point at the load balancer"):
        fetch(Workspace(tmp_path / ".lab"), text)


def test_merging_keeps_all_that_was_there(workspace: Workspace, tmp_path: Path) -> None:
    target = tmp_path / "home" / "config"
    target.parent.mkdir()
    target.write_text(THEIRS)
    assert kubeconfig.merge(LAB, workspace, target) == target
    before, after = yaml.safe_load(THEIRS), load(target)
    for kind in ("clusters", "users", "contexts"):
        assert after[kind][0] == before[kind][0]
        assert [each["name"] for each in after[kind]] == ["work", "ha-lab"]
    assert after["preferences"] == {"colors": True}
    assert after["current-context"] == "work"


def test_merging_keeps_the_file_before_beside_it(workspace: Workspace, tmp_path: Path) -> None:
    target = tmp_path / "config"
    target.write_text(THEIRS)
    kubeconfig.merge(LAB, workspace, target)
    copy = tmp_path / "config.before-ha-lab"
    assert copy.read_text() == THEIRS
    assert mode(copy) == mode(target) == 0o600


def test_merging_twice_is_merging_once(workspace: Workspace, tmp_path: Path) -> None:
    target = tmp_path / "config"
    target.write_text(THEIRS)
    kubeconfig.merge(LAB, workspace, target)
    once = target.read_text()
    kubeconfig.merge(LAB, workspace, target)
    assert target.read_text() == once


def test_merging_replaces_the_lab_s_own_former_entries(workspace: Workspace, tmp_path: Path) -> None:
    target = tmp_path / "config"
    target.write_text(THEIRS.replace("work", "ha-lab"))
    kubeconfig.merge(LAB, workspace, target)
    assert [each["name"] for each in load(target)["clusters"]] == ["ha-lab"]
    assert load(target)["clusters"][0]["cluster"]["server"] == LAB.api.url


@pytest.mark.parametrize(
    "text", ["", "apiVersion: v1\nkind: Config\n", 'current-context: ""\nclusters: null\n']
)
def test_the_current_context_is_set_where_there_was_none(
    workspace: Workspace, tmp_path: Path, text: str
) -> None:
    target = tmp_path / "config"
    target.write_text(text)
    kubeconfig.merge(LAB, workspace, target)
    assert load(target)["current-context"] == "ha-lab"


def test_merging_makes_the_file_that_is_missing(workspace: Workspace, tmp_path: Path) -> None:
    target = tmp_path / ".kube" / "config"
    kubeconfig.merge(LAB, workspace, target)
    assert load(target) == load(workspace.kubeconfig)
    assert [path.name for path in target.parent.iterdir()] == ["config"]


def test_a_link_stays_a_link(workspace: Workspace, tmp_path: Path) -> None:
    real, link = tmp_path / "dotfiles", tmp_path / "config"
    real.write_text(THEIRS)
    link.symlink_to(real)
    kubeconfig.merge(LAB, workspace, link)
    assert link.is_symlink()
    assert load(real)["current-context"] == "work"


@pytest.mark.parametrize(
    "content",
    [b"- a list", b"a word", b"clusters: {a: b}", b"clusters: [word]", b"clusters: [{}]", b"{", b"\xff\xfe"],
)
def test_a_file_that_is_no_kubeconfig_is_refused_and_untouched(
    workspace: Workspace, tmp_path: Path, content: bytes
) -> None:
    target = tmp_path / "config"
    target.write_bytes(content)
    with pytest.raises(LabStateError, match="can't be read as a kubeconfig") as caught:
        kubeconfig.merge(LAB, workspace, target)
    assert f"KUBECONFIG={workspace.kubeconfig}" in caught.value.hint
    assert target.read_bytes() == content


def test_what_the_user_s_broken_kubeconfig_holds_is_in_no_error(workspace: Workspace, tmp_path: Path) -> None:
    target = tmp_path / "config"
    target.write_text("users:\n- user:\n    token: S3CRET: S3CRET\n")
    with pytest.raises(LabStateError, match="can't be read as a kubeconfig") as caught:
        kubeconfig.merge(LAB, workspace, target)
    assert "S3CRET" not in "".join(traceback.format_exception(caught.value))


def test_a_folder_in_the_file_s_place_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(LabStateError, match="can't be read as a kubeconfig") as caught:
        kubeconfig.merge(LAB, workspace, tmp_path)
    assert isinstance(caught.value.__cause__, IsADirectoryError)


@pytest.fixture
def known(workspace: Workspace) -> Workspace:
    """A lab whose kubeconfig trusts its own CA."""
    workspace.write_secret(workspace.secrets / "ca.crt", CA)
    own = load(workspace.kubeconfig)
    own["clusters"][0]["cluster"]["certificate-authority-data"] = base64.b64encode(CA.encode()).decode()
    workspace.write_secret(workspace.kubeconfig, yaml.safe_dump(own))
    return workspace


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own kubeconfig, which there is not yet."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KUBECONFIG", "")
    return tmp_path / "home" / ".kube" / "config"


def test_what_was_merged_is_removed_wherever_it_was(known: Workspace, tmp_path: Path, home: Path) -> None:
    files = (tmp_path / "one", tmp_path / "other", home)
    home.parent.mkdir(parents=True)
    for file in files:
        file.write_text(THEIRS)
        kubeconfig.merge(LAB, known, file)
    with_the_lab = [file.read_text() for file in files]
    assert kubeconfig.unmerge(LAB, known) == tuple(sorted(files))
    for file, before in zip(files, with_the_lab, strict=True):
        assert load(file) == yaml.safe_load(THEIRS)
        kept = file.with_name(f"{file.name}.with-ha-lab")
        assert kept.read_text() == before
        assert mode(kept) == mode(file) == 0o600
    assert kubeconfig.unmerge(LAB, known) == ()


def test_what_the_user_wrote_since_stays_byte_for_byte(known: Workspace, home: Path) -> None:
    kubeconfig.merge(LAB, known, home)
    merged = home.read_text()
    own = "# mine\n- name: mine   # kept\n  context: {cluster: mine, user: mine}\n"
    home.write_text(merged.replace("contexts:\n", f"contexts:\n{own}") + "# the end\n")
    kubeconfig.unmerge(LAB, known)
    said = home.read_text()
    assert own in said
    assert said.endswith('current-context: ""\n# the end\n')
    assert "ha-lab" not in said


def present(workspace: Workspace, ca: str, client: str) -> None:
    """Let the lab's own kubeconfig have this CA and this client certificate."""
    own = load(workspace.kubeconfig)
    own["clusters"][0]["cluster"]["certificate-authority-data"] = base64.b64encode(ca.encode()).decode()
    own["users"][0]["user"]["client-certificate-data"] = base64.b64encode(client.encode()).decode()
    workspace.write_secret(workspace.kubeconfig, yaml.safe_dump(own))


def test_a_kubeconfig_that_the_lab_was_merged_into_gets_its_renewed_certificate(
    known: Workspace, home: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    for file in (home, other):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(THEIRS)
        kubeconfig.merge(LAB, known, file)
    other.unlink()
    assert kubeconfig.refresh(LAB, known) == ()
    present(known, CA, "renewed")
    assert kubeconfig.refresh(LAB, known) == (home,)
    assert load(known.kubeconfig)["users"][0] in load(home)["users"]
    assert (load(home)["current-context"], load(home)["users"][0]["name"]) == ("work", "work")
    assert kubeconfig.refresh(LAB, known) == ()


def test_a_merged_kubeconfig_follows_a_ca_that_is_rotated_and_can_still_be_removed(
    known: Workspace, home: Path
) -> None:
    kubeconfig.merge(LAB, known, home)
    for ca in (CA + NEXT_CA, NEXT_CA):
        known.write_secret(known.secrets / "ca.crt", ca)
        present(known, ca, "mine")
        assert kubeconfig.refresh(LAB, known) == (home,)
        assert load(home)["clusters"] == load(known.kubeconfig)["clusters"]
    assert kubeconfig.unmerge(LAB, known) == (home,)


def test_a_kubeconfig_that_now_has_another_lab_of_that_name_is_not_refreshed(
    known: Workspace, home: Path
) -> None:
    kubeconfig.merge(LAB, known, home)
    before = home.read_text()
    known.write_secret(known.secrets / "ca.crt", NEXT_CA)
    present(known, NEXT_CA, "mine")
    assert kubeconfig.refresh(LAB, known) == ()
    assert home.read_text() == before


def test_another_lab_of_the_same_name_is_left_alone(known: Workspace, tmp_path: Path, home: Path) -> None:
    kubeconfig.merge(LAB, known, home)
    before = home.read_text()
    known.write_secret(known.secrets / "ca.crt", "ANOTHER CA")
    assert kubeconfig.unmerge(LAB, known) == ()
    assert home.read_text() == before


@pytest.mark.parametrize("content", [b"- a list", b"a word", b"{", b"\xff\xfe", b"clusters: {a: b}", b""])
def test_a_file_that_is_no_kubeconfig_any_more_is_left_alone(
    known: Workspace, home: Path, content: bytes
) -> None:
    kubeconfig.merge(LAB, known, home)
    home.write_bytes(content)
    assert kubeconfig.unmerge(LAB, known) == ()
    assert home.read_bytes() == content


@pytest.mark.parametrize("record", ["", "{", "3", "[3]", '["/nowhere/config"]'])
def test_a_lab_whose_notes_are_lost_is_still_found_where_kubectl_looks(
    known: Workspace, home: Path, record: str
) -> None:
    kubeconfig.merge(LAB, known, home)
    known.merged.write_text(record)
    assert kubeconfig.unmerge(LAB, known) == (home,)


def test_a_file_that_can_t_be_written_is_named_after_the_others(
    known: Workspace, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tmp_path / "a"
    for file in (first, home):
        kubeconfig.merge(LAB, known, file)
    write = Workspace.write_secret

    def denied(self: Workspace, path: Path, text: str) -> bool:
        if path.parent == first.parent:
            raise LabStateError("Permission denied")
        return write(self, path, text)

    monkeypatch.setattr(Workspace, "write_secret", denied)
    with pytest.raises(LabStateError, match=f"the context ha-lab could not be removed from {first}$") as caught:
        kubeconfig.unmerge(LAB, known)
    assert f"`kubectl --kubeconfig {first} config delete-context ha-lab`" in caught.value.hint
    assert load(home)["contexts"] == []


def test_the_user_s_kubeconfig_is_where_kubectl_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", ":/a/first:/b/second")
    assert kubeconfig.user_kubeconfig() == Path("/a/first")
    monkeypatch.setenv("KUBECONFIG", "")
    monkeypatch.setenv("HOME", "/home/ada")
    assert kubeconfig.user_kubeconfig() == Path("/home/ada/.kube/config")


def test_the_client_certificate_has_its_dates(workspace: Workspace) -> None:
    pem = credentials.ca_certificate(workspace)
    config = yaml.safe_load(workspace.kubeconfig.read_text())
    config["users"][0]["user"] = {"client-certificate-data": base64.b64encode(pem.encode()).decode()}
    workspace.write_secret(workspace.kubeconfig, yaml.safe_dump(config))
    found, ca = kubeconfig.client_validity(workspace), credentials.ca_validity(workspace)
    assert found is not None
    assert ca is not None
    assert (found.path, found.since, found.until) == (workspace.kubeconfig, ca.since, ca.until)
    assert (found.problem(ca.until) or "").startswith(
        "the client certificate of the lab's kubeconfig is expired: "
    )
    config["users"][0]["user"] = {"token": "c2VjcmV0"}
    workspace.write_secret(workspace.kubeconfig, yaml.safe_dump(config))
    assert kubeconfig.client_validity(workspace) is None
    workspace.kubeconfig.unlink()
    assert kubeconfig.client_validity(workspace) is None


@pytest.mark.parametrize("text", [admin_conf(), "", "c2VjcmV0: [", "users: []", "users: c2VjcmV0"])
def test_a_kubeconfig_without_a_readable_certificate_is_no_fault_of_the_kit(
    workspace: Workspace, text: str
) -> None:
    workspace.write_secret(workspace.kubeconfig, text)
    with pytest.raises(LabStateError, match="has no valid client certificate") as caught:
        kubeconfig.client_validity(workspace)
    assert "c2VjcmV0" not in "".join(traceback.format_exception(caught.value))
