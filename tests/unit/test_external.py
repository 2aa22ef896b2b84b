"""An etcd on machines of its own: what differs from one on the control planes, from lab.yaml to the drills."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from lab import config, exit_codes
from lab.drill.catalogue import DRILLS
from lab.errors import ConfigError, LabStateError
from lab.golden import payload
from lab.golden.payload import GoldenImage
from lab.health import status, tolerance
from lab.health.checks import cases
from lab.health.facts.gather import Facts
from lab.health.facts.machine import Machine, Section
from lab.health.verify import _heading
from lab.model import Lab, Node
from lab.model.change import ETCD_COUNT, change
from lab.model.selectors import etcd_machines
from lab.plans import quorum, recover
from lab.plans.situation import JoinState, Situation, from_nothing, judge
from lab.plans.stop import STOP
from lab.plans.up import UP, provisioners
from lab.system.paths import REPOSITORY
from lab.unknown import Unknown
from lab.verbs import plan
from lab.verbs import up as bring_up
from lab.workshop.handout import topology
from lab.workspace import Workspace, backup, render
from lab.workspace.render import credentials
from lab.workspace.render.keys import etcd_ca_problem
from tests.unit.fakes import SITE
from tests.unit.recorded_facts import external_facts, external_lab, facts
from tests.unit.recorded_facts import lab as recorded_lab
from tests.unit.world import KilledError, World, lab_of, live

EXTERNAL: dict[str, Any] = {"etcd": 3, "control_planes": 3, "workers": 1}
RUN = credentials.RunSecrets("abcdef.0123456789abcdef", "00" * 32)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return live(World(tmp_path), monkeypatch)


def example(name: str = "external-etcd") -> Lab:
    return config.load(REPOSITORY / "examples" / f"{name}.yaml")


def names(nodes: Iterable[Node]) -> list[str]:
    return [node.name for node in nodes]


# lab.yaml and the model.


def test_the_examples_have_ten_machines_and_six() -> None:
    lab, small = example(), example("external-etcd-small")
    assert names(lab.nodes) == [
        *("lb1", "etcd1", "etcd2", "etcd3", "cp1", "cp2", "cp3", "w1", "w2", "w3"),
    ]
    addresses = [str(node.address) for node in lab.etcd_members]
    assert addresses == ["192.168.63.31", "192.168.63.32", "192.168.63.33"]
    assert [len(small.by_role(role)) for role in small.nodes[0].role.__class__] == [1, 3, 1, 1]


def test_machines_of_etcd_are_its_members_and_no_kubernetes_nodes() -> None:
    lab = example()
    assert names(lab.etcd_members) == names(etcd_machines(lab)) == ["etcd1", "etcd2", "etcd3"]
    assert not {*lab.etcd_members} & {*lab.kubernetes_nodes}
    assert {*lab.cluster_machines} == {*lab.nodes} - {*lab.balancers}
    assert (lab.topology, lab.external_etcd) == ("external", True)
    stacked = config.default()
    assert (stacked.topology, etcd_machines(stacked)) == ("stacked", ())
    assert stacked.etcd_members == stacked.control_planes
    assert [lab.is_etcd_member(node) for node in stacked.control_planes] == [False] * 3, "in the other topology"


def test_all_problems_of_a_bad_lab_file_are_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(
        "nodes:\n"
        "  etcd:\n"
        "    count: 2\n"
        "    memory_mib: 100\n"
        "  control_planes: {count: 4}\n"
        "  workers: {first_address: 192.168.57.21}\n"
    )
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    assert [problem.removeprefix(str(path)).partition(" (")[0] for problem in caught.value.problems] == [
        ":3: nodes.etcd.count: 2 is not possible",
        ":4: nodes.etcd.memory_mib: 100 is not possible",
        ":5: nodes.control_planes.count: 4 is not possible",
        ":6: nodes.workers.first_address: w1 would have 192.168.57.21, outside network.subnet, 192.168.56.0/24",
    ]
    assert "0, 1, 3 or 5: with 0 control planes run etcd" in caught.value.problems[0]


def test_addresses_of_etcd_s_machines_that_others_have_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text("nodes:\n  etcd: {count: 3, first_address: 192.168.56.19}\n  workers: {prefix: etcd}\n")
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    said = "\n".join(caught.value.problems)
    assert "nodes.etcd and nodes.workers would both have the address 192.168.56.21" in said
    assert "nodes.etcd and nodes.workers would both have the name etcd1" in said


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("0", "3", "no plan moves it"),
        ("3", "0", "no plan moves it"),
        ("1", "3", "is configured with the addresses"),
    ],
)
def test_neither_the_topology_nor_the_members_change(tmp_path: Path, before: str, after: str, why: str) -> None:
    labs = [lab_of(tmp_path, etcd=int(number)) for number in (before, after)]
    [found] = change(*labs, sizes_enforced=True).impossible
    assert found.key == ETCD_COUNT
    assert why in found.effect.why
    assert "in another folder" in found.effect.instead


def test_plan_says_why_a_stacked_lab_stays_stacked_and_up_refuses(world: World) -> None:
    world.up(lab_of(world.folder))
    world.touches.clear()
    wanted = lab_of(world.folder, etcd=3)
    forecast = plan.look(world.session(wanted))
    [impossible] = forecast.impossible
    assert (impossible.key, impossible.before, impossible.after) == (ETCD_COUNT, "0", "3")
    assert "no plan moves it while the API uses it" in impossible.message
    assert "lab.yaml:6: nodes.etcd.count" in impossible.message
    with pytest.raises(ConfigError):
        world.up(wanted)
    assert world.touches == []


# What is rendered.


def rendered() -> dict[str, str]:
    site = replace(SITE, etcd_ca_certificate="the CA of etcd\n")
    return render.render(example(), site, provisioners)


def test_control_planes_are_configured_with_the_members_as_external_etcd() -> None:
    text = rendered()["nodes/cp1/kubeadm-init.yaml"]
    assert "  local:" not in text
    assert "imageTag" not in text
    for member in example().etcd_members:
        assert f"      - https://{member.address}:2379\n" in text
    assert "certFile: /etc/kubernetes/pki/apiserver-etcd-client.crt" in text


def test_each_machine_has_the_ca_of_etcd_that_needs_it_and_no_other() -> None:
    files = rendered()
    has = {path.split("/")[1] for path in files if path.endswith("/etcd-ca.crt")}
    assert has == {"etcd1", "etcd2", "etcd3", "cp1", "cp2", "cp3"}
    assert not [path for path in render.render(config.default(), SITE, provisioners) if "etcd-client" in path]


def test_a_bare_vagrant_up_starts_etcd_beside_other_machines() -> None:
    lab = example()
    assert provisioners(lab, lab.etcd_members[0]) == ("node", "etcd")
    assert "systemd-run" in render.PROVISIONERS["etcd"]


def test_the_key_of_etcd_s_ca_goes_to_machines_that_sign_with_it_only() -> None:
    lab = example()
    has = {
        node.name: "etcd-ca.key" in credentials.secret_files(node, lab, RUN, "the CA's", "etcd's")
        for node in lab.nodes
    }
    assert {name for name, given in has.items() if given} == {
        node.name for node in (*lab.etcd_members, *lab.control_planes)
    }
    assert not [
        node
        for node in config.default().nodes
        if "etcd-ca.key" in credentials.secret_files(node, config.default(), RUN, "the CA's")
    ]


def test_etcd_has_a_ca_of_its_own_named_as_kubeadm_names_it(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / ".lab")
    pem = credentials.etcd_ca_certificate(workspace)
    assert pem != credentials.ca_certificate(workspace)
    assert x509.load_pem_x509_certificate(pem.encode()).subject.rfc4514_string() == "CN=etcd-ca"
    assert credentials.etcd_ca_certificate(workspace) == pem
    assert etcd_ca_problem(workspace) is None
    (workspace.secrets / "etcd-ca.key").unlink()
    problem = etcd_ca_problem(workspace)
    assert problem is not None
    assert "no machine has it" in problem.hint


# Plans.


def test_etcd_is_there_before_the_first_api_server_and_ends_after_the_last() -> None:
    steps = {step.name: step for step in UP}
    assert "etcd" in steps["control-plane-init"].after
    assert steps["etcd"].on is not None
    assert list(steps["etcd"].on(config.default(), from_nothing(config.default()))) == []
    lab = example()
    order = [[node.name for node in step.on(lab, from_nothing(lab))] for step in STOP if step.on]
    assert order == [["w1", "w2", "w3"], ["cp1", "cp2", "cp3"], ["etcd1", "etcd2", "etcd3"], ["lb1"]]
    assert [step.after for step in STOP if step.name == "stop-etcd"] == [
        ("stop-workers", "stop-control-planes")
    ]


def test_a_complete_etcd_is_no_reason_to_keep_half_a_control_plane() -> None:
    lab = example()
    found: dict[str, JoinState] = {node.name: "fresh" for node in lab.kubernetes_nodes}
    found |= {node.name: "joined" for node in lab.etcd_members}
    assert judge(lab, {**found, "cp1": "partial"}).alone
    assert judge(lab, found).etcd_exists(lab)
    assert not from_nothing(lab).etcd_exists(lab)


def test_a_cluster_is_not_begun_anew_on_the_data_of_another_one() -> None:
    lab = example("external-etcd-small")
    found = dict.fromkeys(("etcd1", "etcd2", "etcd3", "w1"), "joined") | {"cp1": "fresh"}
    problem = quorum.without_keys_problem(lab, found)
    assert problem
    assert problem.what.startswith("the keys that control planes share are lost with them, and pods on w1 ")
    # Of an interrupted first `up` nobody has used the keys; a control plane that has something keeps them.
    assert quorum.without_keys_problem(lab, found | {"w1": "fresh"}) is None
    assert quorum.without_keys_problem(lab, found | {"cp1": "partial"}) is None


def test_up_begins_no_cluster_where_pods_depend_on_lost_keys(world: World) -> None:
    lab = lab_of(world.folder, etcd=3, control_planes=1, workers=1)
    world.up(lab)
    world.lose("cp1")
    world.touches.clear()
    with pytest.raises(LabStateError, match="the keys that control planes share are lost with them"):
        world.up(lab)
    assert not any(touch.startswith("control-plane-init") for touch in world.touches)


def test_only_a_new_etcd_is_begun_without_data(world: World) -> None:
    lab = lab_of(world.folder, **EXTERNAL)
    world.up(lab)
    assert [world.words[f"etcd etcd{number}"] for number in (1, 2, 3)] == [(), (), ()]
    world.lose("etcd2")
    world.up(lab)
    assert world.words["etcd etcd2"] == ("--existing",)
    world.require_applied(lab)


def test_a_replaced_machine_of_etcd_leaves_by_another_one_and_no_pod_moves(world: World) -> None:
    lab = lab_of(world.folder, **EXTERNAL)
    world.up(lab)
    world.touches.clear()
    world.up(lab, replacing=("etcd1",))
    world.require_applied(lab)
    indices = [world.touches.index(each) for each in ("remove-member etcd1", "remove etcd1", "boot etcd1")]
    assert indices == sorted(indices)
    assert not [touch for touch in world.touches if touch.startswith(("drain ", "leave "))]


def test_a_second_machine_of_etcd_does_not_leave_while_the_first_is_away(world: World) -> None:
    lab = lab_of(world.folder, **EXTERNAL)
    world.up(lab)
    world.machine("etcd3").hangs = True
    world.touches.clear()
    with pytest.raises(LabStateError) as caught:
        world.up(lab, replacing=("etcd1",))
    assert "etcd1 can't leave now: of etcd's 3 members etcd3 does not answer" in caught.value.message
    assert not [touch for touch in world.touches if touch.startswith("remove")]


def test_etcd_that_has_lost_its_majority_for_good_is_not_begun_again(world: World) -> None:
    lab = lab_of(world.folder, **EXTERNAL)
    world.up(lab)
    for name in ("etcd1", "etcd2"):
        world.lose(name)
    found = plan.look(world.session(lab))
    with pytest.raises(LabStateError) as caught:
        world.up(lab)
    assert "etcd has lost its majority for good: 1 of its 3 members is left (etcd3)" in caught.value.message
    assert "sole-member.sh" in caught.value.hint
    assert found.refused is not None
    assert (found.refused.what, found.refused.next) == (caught.value.message, caught.value.hint)
    assert (found.exit_code, found.steps) == (exit_codes.IMPOSSIBLE, ())


def test_one_lost_machine_of_etcd_is_no_lost_majority(world: World) -> None:
    lab = lab_of(world.folder, **EXTERNAL)
    world.up(lab)
    world.lose("etcd2")
    assert plan.look(world.session(lab)).refused is None


def test_no_empty_etcd_is_begun_below_control_planes_that_used_another(world: World) -> None:
    lab = lab_of(world.folder, **EXTERNAL)
    world.up(lab)
    for node in lab.etcd_members:
        world.lose(node.name)
    world.touches.clear()
    before = plan.look(world.session(lab))
    with pytest.raises(LabStateError) as caught:
        world.up(lab)
    after = plan.look(world.session(lab))  # the machines exist again, and are empty
    for found in (before, after):
        assert found.refused is not None
        assert (found.refused.what, found.refused.next) == (caught.value.message, caught.value.hint)
    assert "etcd's data is lost: cp1, cp2, cp3 used it, and none of etcd1, etcd2, etcd3" in caught.value.message
    assert not [touch for touch in world.touches if touch.startswith("etcd ")]


def test_certificates_of_machines_of_etcd_are_renewed_before_those_of_control_planes(world: World) -> None:
    lab = lab_of(world.folder, **EXTERNAL)
    world.up(lab)
    world.ends_soon = {"etcd1", "etcd3", "cp2"}
    found = plan.look(world.session(lab))
    assert {step.name: step.machines for step in found.steps}["renew-certificates"] == ("etcd1", "etcd3", "cp2")
    world.touches.clear()
    world.up(lab)
    world.require_applied(lab)
    renewed = [touch for touch in world.touches if touch.startswith("renew-certificates")]
    assert renewed == [f"renew-certificates {name}" for name in ("etcd1", "etcd3", "cp2")]


def test_the_only_member_and_the_only_control_plane_are_not_replaced(world: World) -> None:
    lab = lab_of(world.folder, etcd=1, control_planes=1)
    world.up(lab)
    for name, why in (("etcd1", "is etcd's only member"), ("cp1", "only copy of the service accounts' key")):
        with pytest.raises(LabStateError, match=why):
            bring_up.require_replaceable(world.session(lab), name)


def test_an_upgrade_does_etcd_s_machines_first_their_leader_last_and_evicts_nothing_there(world: World) -> None:
    numbers: dict[str, Any] = {"etcd": 3, "control_planes": 3, "workers": 1}
    world.up(lab_of(world.folder, version="1.35.4", **numbers))
    world.leader = 2
    world.touches.clear()
    wanted = lab_of(world.folder, version="1.36.3", **numbers)
    world.up(wanted)
    world.require_applied(wanted)
    upgraded = [touch.removeprefix("upgrade ") for touch in world.touches if touch.startswith("upgrade ")]
    assert upgraded[:3] == ["etcd1", "etcd3", "etcd2"]
    assert sorted(upgraded[3:]) == ["cp1", "cp2", "cp3", "w1"]
    assert not [touch for touch in world.touches if touch.startswith("drain etcd")]


def test_an_upgrade_that_is_broken_off_at_a_machine_of_etcd_goes_on(world: World) -> None:
    numbers: dict[str, Any] = {"etcd": 3, "control_planes": 1, "workers": 1}
    world.up(lab_of(world.folder, version="1.35.4", **numbers))
    wanted = lab_of(world.folder, version="1.36.3", **numbers)
    world.break_at("upgrade etcd2", "after", KilledError())
    with pytest.raises(KilledError):
        world.up(wanted)
    world.up(wanted)
    world.require_applied(wanted)


def test_a_machine_of_etcd_gets_the_images_that_it_starts_only() -> None:
    lab = example()
    known = [GoldenImage(f"registry.k8s.io/{name}", ()) for name in ("etcd:3", "pause:3", "kube-proxy:v1")]
    assert [each.name for each in payload.missing(lab.etcd_members[0], known, ())] == [
        "registry.k8s.io/etcd:3",
        "registry.k8s.io/pause:3",
    ]


def test_a_recovery_restores_members_and_starts_what_uses_them_on_control_planes() -> None:
    lab = example()
    situation = Situation(lab.first, lab.nodes)
    on = {step.name: names(step.on(lab, situation)) for step in recover.RECOVER if step.on}
    members, planes = ["etcd1", "etcd2", "etcd3"], ["cp1", "cp2", "cp3"]
    assert on["recovery-restore"] == on["recovery-etcd"] == members
    assert on["recovery-api"] == on["recovery-scheduler"] == on["recovery-keys"] == planes
    assert on["recovery-stop"] == [*members, *planes]
    stacked = config.default()
    on = {
        s.name: names(s.on(stacked, Situation(stacked.first, stacked.nodes))) for s in recover.RECOVER if s.on
    }
    assert (on["recovery-keys"], on["recovery-restore"]) == ([], planes)


# Backups.


def tar_of(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_the_keys_of_a_control_plane_are_added_to_a_backup(tmp_path: Path) -> None:
    part = tar_of(tmp_path / "part", {"status.json": b"{}"})
    shared = tar_of(tmp_path / "shared", {"pki/ca.crt": b"the CA", "pki/sa.key": b"a key"})
    backup.add_pki(part, shared)
    with tarfile.open(part) as archive:
        assert archive.getnames() == ["status.json", "pki/ca.crt", "pki/sa.key"]
    shared.write_text("no tar")
    with pytest.raises(LabStateError, match="not a complete backup"):
        backup.add_pki(part, shared)


def test_a_backup_of_an_external_etcd_lacks_its_ca_which_is_on_the_host(tmp_path: Path) -> None:
    needed = {name for name in backup.SHARED_PKI if not name.startswith("etcd/")}
    files = {"status.json", "keys.json", "snapshot.db", *(f"pki/{name}" for name in needed)}
    there = dict.fromkeys(files, None)
    assert backup._missing(there, external=True) is None
    assert "pki/etcd/ca.key" in (backup._missing(there, external=False) or "")


# Checks, status, drills, the picture.


def test_checks_say_where_etcd_runs_and_have_more_to_say_of_its_machines() -> None:
    lab = example()
    of_machines = {case.check.name for case in cases(lab)} - {
        case.check.name for case in cases(config.default())
    }
    assert of_machines == {
        *("etcd-machine-services", "etcd-machine-files", "etcd-machine-metrics", "etcd-same-ca"),
    }
    [verdict] = [case.judge(facts()) for case in cases(recorded_lab()) if case.check.name == "etcd-no-learner"]
    assert (verdict.topology, verdict.outcome) == ("stacked", "holds")
    assert [_heading("etcd", "external"), _heading("security", "external")] == ["etcd (external)", "security"]


def test_a_further_loss_of_a_member_is_said_by_the_machine_s_name() -> None:
    """etcd3 is gone of three members on machines of their own: one more would stop the cluster."""
    found = external_facts()
    silent = machine_of(found, "etcd3")
    sections = {**silent.sections, "etcd-health": Section(1, "no answer")}
    machines = {**found.machines, "etcd3": replace(silent, sections=sections)}
    seen = status.judge(external_lab(), replace(found, machines=machines))
    assert seen.health == "degraded"
    assert "the loss of etcd1 or etcd2: etcd needs 2 of its 3 members to take writes" in seen.losses


def test_status_reads_the_leader_from_the_machines_of_etcd_and_says_what_the_loss_of_each_means() -> None:
    found = external_facts()
    planes = {name: without_etcd(machine_of(found, name)) for name in ("cp1", "cp2", "cp3")}
    found = replace(found, machines={**found.machines, **planes})
    seen = status.judge(external_lab(), found)
    by_name = {machine.name: machine for machine in seen.machines}
    assert (seen.health, seen.leader) == ("healthy", "etcd1")
    assert by_name["etcd1"].has == ("etcd's leader",)
    assert (by_name["cp1"].has, by_name["etcd1"].cluster) == ((), "-")
    assert seen.tolerance == (
        "etcd1 leads etcd; the lab tolerates the loss of any one of etcd1, etcd2, etcd3, cp1, cp2, cp3, w1, w2 "
        "and w3"
    )
    machines = {**found.machines, "etcd3": Unknown("etcd3 can't be asked: no answer within 15 s")}
    seen = status.judge(external_lab(), replace(found, machines=machines))
    assert {machine.name: machine.if_lost for machine in seen.machines if machine.if_lost != "works"} == {
        **dict.fromkeys(("lb1", "etcd1", "etcd2"), "stops"),
        "etcd3": None,
    }
    assert "the loss of etcd1 or etcd2: etcd needs 2 of its 3 members to take writes" in seen.losses


def test_members_that_are_not_known_are_called_what_they_are() -> None:
    found = external_facts()
    machines = {**found.machines, **{f"etcd{n}": Unknown("no answer") for n in (1, 2, 3)}}
    [loss, *_] = tolerance.sentences(external_lab(), replace(found, machines=machines))
    assert loss.startswith("the loss of any etcd machine: etcd needs 2 of its 3 members")


def without_etcd(machine: Machine) -> Machine:
    """A control plane that runs no etcd."""
    return replace(
        machine, sections={name: each for name, each in machine.sections.items() if "etcd" not in name}
    )


def test_the_picture_of_an_external_lab_marks_the_leader_among_the_machines_of_etcd() -> None:
    found = topology.Now(status.judge(external_lab(), external_facts()), "2026-11-30 14:50")
    drawn = unescape(str(topology.picture(external_lab(), "en", found)))
    assert (drawn.count('class="etcd leads"'), drawn.count('class="etcd"')) == (1, 2)
    [marked] = re.findall(r'class="etcd leads" x="([\d.]+)" y="([\d.]+)" width="80"', drawn)
    [box] = re.findall(r'class="machine etcd" x="([\d.]+)" y="([\d.]+)"[^>]*>\s*<text[^>]*>etcd1<', drawn)
    assert float(box[0]) < float(marked[0]) < float(box[0]) + topology.BOX_WIDTH
    assert float(box[1]) < float(marked[1]) < float(box[1]) + topology.MEMBER
    assert "lb1 has the API's address. etcd1 leads etcd. Any one of these may be lost: etcd1, etcd2," in drawn


def machine_of(found: Facts, name: str) -> Machine:
    machine = found.machines[name]
    assert isinstance(machine, Machine)
    return machine


def test_drills_of_etcd_fit_a_lab_with_three_members_and_one_control_plane() -> None:
    small = example("external-etcd-small")
    fits = {drill.name for drill in DRILLS if drill.lab_problem(small) is None}
    assert {"kill-etcd-member", "partition-etcd-from-control-planes", "kill-etcd-leader", "lose-quorum"} <= fits
    assert "kill-control-plane" not in fits
    only = next(drill for drill in DRILLS if drill.name == "partition-etcd-from-control-planes")
    says = "needs etcd on machines of its own, and ha-lab has it on its control planes"
    assert only.lab_problem(config.default()) == f"{only.name} {says}"


def test_the_picture_has_the_machines_of_etcd_below_the_control_planes() -> None:
    for language in ("en", "ko"):
        text = str(topology.picture(example(), language))
        assert text.count('class="machine etcd"') == 3
        assert text.count('class="etcd"') == 3, "each has the member that it runs, and no control plane has one"
        assert "etcd1 192.168.63.31" in topology.described(example(), language)
    assert "etcd" not in topology.described(config.default(), "en").replace("etcd members", "")


def test_plan_shows_etcd_s_step_in_json(world: World) -> None:
    forecast = json.loads(plan.to_json(plan.look(world.session(lab_of(world.folder, **EXTERNAL)))))
    steps = {step["name"]: step["machines"] for step in forecast["steps"]}
    assert steps["etcd"] == ["etcd1", "etcd2", "etcd3"]
    assert "etcd1" in steps["node"]
