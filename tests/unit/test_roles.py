"""The table of roles: complete, and true of the files that it names."""

from __future__ import annotations

import ast

import pytest

from lab import config
from lab.config.shape import Nodes
from lab.model.roles import ROLES, Role, RoleSpec
from lab.plans.situation import from_nothing
from lab.plans.stop import STOP
from lab.plans.up import UP
from lab.system.paths import PROVISION, REPOSITORY

LABS = (config.default(), config.load(REPOSITORY / "examples" / "external-etcd.yaml"))
"""etcd on the control planes, and on machines of its own."""

ROWS = pytest.mark.parametrize("spec", ROLES.values(), ids=ROLES)


def test_every_role_has_a_row_in_the_order_of_the_roles() -> None:
    assert list(ROLES) == list(Role)


def test_every_role_has_a_section_of_lab_yaml_and_every_section_a_role() -> None:
    assert [spec.config_key for spec in ROLES.values()] == list(Nodes.model_fields)


@ROWS
def test_a_row_names_only_files_that_exist(spec: RoleSpec) -> None:
    templates = {
        name.format(profile=profile) for name in spec.templates.values() for profile in ("tuned", "reference")
    }
    paths = [PROVISION / "templates" / name for name in templates]
    paths += [PROVISION / "node" / name for name in spec.copies]
    paths += [PROVISION / "node" / f"{name}.sh" for name in spec.scripts]
    assert [path for path in paths if not path.is_file()] == []


def test_every_machine_is_given_the_scripts_that_up_runs_on_it() -> None:
    missing = [
        f"{step.name} on {node.name}"
        for step in UP
        if step.script and step.on
        for lab in LABS
        for node in step.on(lab, from_nothing(lab))
        if step.name not in ROLES[node.role].scripts
    ]
    assert missing == []


def test_every_script_of_a_machine_belongs_to_a_role() -> None:
    named = {name for spec in ROLES.values() for name in spec.scripts}
    assert named == {path.stem for path in (PROVISION / "node").glob("*.sh")}


def test_every_copied_file_of_a_machine_belongs_to_a_role() -> None:
    named = {name for spec in ROLES.values() for name in spec.copies}
    assert named == {path.name for path in (PROVISION / "node").iterdir() if path.suffix != ".sh"}


def test_only_the_model_tells_one_role_from_another() -> None:
    """Everywhere else a machine is asked for by what it runs, or its role's row is."""
    branches = [
        f"{path.relative_to(REPOSITORY)}:{each.lineno}"
        for path in sorted((REPOSITORY / "lab").rglob("*.py"))
        if path.parent.name != "model" and "Role" in (text := path.read_text())
        for each in ast.walk(ast.parse(text))
        if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == "Role"
    ]
    assert branches == []


@ROWS
def test_a_row_says_what_its_machines_run_as_its_files_do(spec: RoleSpec) -> None:
    assert spec.balances == ("load-balancer" in spec.scripts)
    assert spec.serves_api == ("kubeadm-init.yaml" in spec.templates)
    assert spec.serves_api == ("leave" in spec.scripts)
    assert spec.etcd_member == ("remove-member" in spec.scripts)
    assert spec.runs_kubelet == ("restart-kubelet" in spec.scripts)
    assert (spec.balances or spec.etcd_member) == ("follow" in spec.scripts)
    assert (spec.runs_kubelet or spec.etcd_member) == ("node" in spec.scripts)


def test_every_machine_is_stopped_in_one_step() -> None:
    for lab in LABS:
        steps = [[node.name for node in step.on(lab, from_nothing(lab))] for step in STOP if step.on]
        assert sorted(name for names in steps for name in names) == sorted(node.name for node in lab.nodes)


def test_addresses_of_two_roles_do_not_begin_at_the_same_place() -> None:
    assert len({spec.first_offset for spec in ROLES.values()}) == len(ROLES)
