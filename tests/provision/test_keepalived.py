"""keepalived on two load balancers that share an address, by the scripts that configure, ask and stop it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.drill.scene import FAULTS
from tests.provision.world import World

CONF, CHECK = "/etc/keepalived/keepalived.conf", "/etc/keepalived/check.sh"


@pytest.fixture
def lb1(tmp_path: Path) -> World:
    """A load balancer of two that has just booted."""
    return World(tmp_path, "lb1", "two-load-balancers")


@pytest.fixture
def runs(lb1: World) -> World:
    """The same once it is configured."""
    ran = lb1.run("load-balancer")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    return lb1


def facts(world: World, *names: str) -> dict[str, str]:
    """What facts.sh says of these."""
    said = world.run("facts", *names).said
    found = {}
    for part in said.split("== ")[1:]:
        head, _, text = part.partition("\n")
        found[head.split()[0]] = text.strip()
    return found


def test_keepalived_is_configured_for_the_interface_with_the_lab_s_address(lb1: World) -> None:
    ran = lb1.run("load-balancer")
    text = lb1.path(CONF).read_text()
    assert "\tinterface lo\n" in text
    assert "@" not in text
    assert lb1.path(CHECK).stat().st_mode & 0o777 == 0o755
    assert lb1.path(CONF).stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in lb1.path(CONF).parent.iterdir()) == ["check.sh", "keepalived.conf"]
    changes = [call for call in ran.changes if "keepalived" in call]
    assert changes == ["systemctl enable --quiet keepalived", "systemctl restart keepalived"]
    assert ran.changes.index("systemctl restart haproxy") < ran.changes.index("systemctl restart keepalived")


def test_a_second_run_changes_nothing_of_keepalived(runs: World) -> None:
    ran = runs.run("load-balancer")
    assert (ran.code, ran.last, ran.changes) == (0, "ha-lab: unchanged", [])


@pytest.mark.parametrize("file", ["keepalived.conf", "keepalived-check.sh"])
def test_keepalived_is_reloaded_once_when_its_files_changed(runs: World, file: str) -> None:
    rendered = runs.root / "opt" / file
    rendered.write_text(rendered.read_text() + "# more\n")
    ran = runs.run("load-balancer")
    assert ran.changes == ["systemctl reload keepalived"]
    assert runs.run("load-balancer").changes == []


def test_a_configuration_that_keepalived_refuses_leaves_the_old_one_in_use(runs: World) -> None:
    before = runs.path(CONF).read_text()
    rendered = runs.root / "opt/keepalived.conf"
    rendered.write_text(rendered.read_text() + "BROKEN\n")
    ran = runs.run("load-balancer")
    assert ran.code == 1
    assert "Unknown keyword 'BROKEN'" in ran.said
    assert "ERROR: keepalived refuses the rendered configuration" in ran.said
    assert runs.path(CONF).read_text() == before
    assert ran.changes == []


def test_a_check_that_runs_as_root_is_no_reason_to_refuse_a_configuration(lb1: World) -> None:
    rendered = lb1.root / "opt/keepalived.conf"
    rendered.write_text(rendered.read_text().replace("vrrp_instance api", "vrrp_instance VI_1"))
    assert lb1.run("load-balancer").code == 0


def test_keepalived_that_was_stopped_is_started(runs: World) -> None:
    (runs.root / "state/active-keepalived").unlink()
    ran = runs.run("load-balancer")
    assert ran.changes == ["systemctl restart keepalived"]


def test_files_that_keepalived_has_not_read_are_read(runs: World) -> None:
    runs.let(keepalived_since="2000-01-01 00:00:00.5 UTC")
    assert runs.run("load-balancer").changes == ["systemctl reload keepalived"]


def test_the_step_ends_only_once_a_load_balancer_has_the_address(lb1: World) -> None:
    lb1.let(apart="")
    ran = lb1.run("load-balancer")
    assert ran.code == 1
    assert "waiting for a load balancer to take the API's address, 192.168.62.5: ERROR: apart" in ran.said


def test_a_load_balancer_reports_what_keepalived_lacks(lb1: World) -> None:
    said = [line for line in lb1.run("unfinished").said.splitlines() if "keepalived" in line]
    assert said == [
        "load-balancer /etc/keepalived/check.sh differs from the lab's",
        "load-balancer /etc/keepalived/keepalived.conf differs from the lab's",
        "load-balancer keepalived does not run",
        "load-balancer keepalived does not start at boot",
    ]
    lb1.run("load-balancer")
    assert lb1.run("unfinished").said == ""
    lb1.let(keepalived_since="2000-01-01 00:00:00.5 UTC")
    assert lb1.run("unfinished").said == "load-balancer keepalived has not read its files since they changed\n"


def test_one_load_balancer_has_no_keepalived(tmp_path: Path) -> None:
    world = World(tmp_path, "lb1")
    ran = world.run("load-balancer")
    assert ran.code == 0, ran.said
    assert not any("keepalived" in call for call in ran.calls)
    assert world.run("unfinished").said == ""
    assert set(facts(world, "virtual-address", "keepalived-files")) == {"script", "clock"}


def test_it_is_told_where_the_address_is(runs: World) -> None:
    runs.let(holds="", sessions="1")
    assert facts(runs, "virtual-address")["virtual-address"] == "holds 00:00:00:00:00:00"
    (runs.root / "state/holds").unlink()
    assert facts(runs, "virtual-address")["virtual-address"] == "sees"
    runs.let(neighbour="192.168.62.5 dev eth0 lladdr 02:42:c0:a8:3e:07 REACHABLE \n")
    assert facts(runs, "virtual-address")["virtual-address"] == "sees 02:42:c0:a8:3e:07"
    runs.let(neighbour="192.168.62.5 dev eth0  FAILED \n")
    assert facts(runs, "virtual-address")["virtual-address"] == "sees"
    runs.let(apart="")  # nobody has it
    assert facts(runs, "virtual-address")["virtual-address"] == "sees"


def test_files_of_keepalived_s_that_are_not_the_lab_s_are_named(runs: World) -> None:
    before = facts(runs, "keepalived-files", "keepalived-configuration")
    assert (before["keepalived-files"], before["keepalived-configuration"]) == ("", "")
    conf = runs.path(CONF)
    conf.write_text(conf.read_text().replace("192.168.62.7", "192.168.62.99") + "BROKEN\n")
    found = facts(runs, "keepalived-files", "keepalived-configuration")
    assert found["keepalived-files"] == CONF
    assert "Unknown keyword" in found["keepalived-configuration"]


def test_the_address_is_given_up_once_new_connections_have_waited(runs: World) -> None:
    runs.let(holds="", sessions="1")
    ran = runs.run("give-up-address")
    assert (ran.code, ran.last) == (0, "ha-lab: changed"), ran.said
    assert [call.split(" -d ")[0] for call in ran.changes] == [
        "iptables -w -I INPUT",
        "admin.sock shutdown sessions server apiserverbackend/cp2",
        "admin.sock shutdown sessions server apiserverbackend/cp3",
        "systemctl stop keepalived",
        "iptables -w -D INPUT",
    ]
    assert not (runs.root / "state/new-connections-dropped").exists()
    again = runs.run("give-up-address")
    assert (again.last, again.changes) == ("ha-lab: unchanged", [])


def test_a_machine_without_the_address_only_stops_keepalived(runs: World) -> None:
    assert runs.run("give-up-address").changes == ["systemctl stop keepalived"]


def fault(world: World, name: str, action: str) -> list[str]:
    """Run a drill's fault; return what it changed."""
    (world.root / "opt/fault.sh").write_text(FAULTS.read_text().replace("/opt/ha-lab/", f"{world.root}/opt/"))
    ran = world.run("fault", name, action)
    assert ran.code == 0, ran.said
    return ran.changes


def state(world: World, prefix: str) -> list[str]:
    return sorted(path.name for path in (world.root / "state").glob(f"{prefix}*"))


def test_vrrp_is_blocked_both_ways_once_and_reverted_where_it_never_was(runs: World) -> None:
    for _ in range(2):
        fault(runs, "vrrp_blocked", "inject")
        assert state(runs, "vrrp-dropped") == ["vrrp-dropped-INPUT", "vrrp-dropped-OUTPUT"]
    for _ in range(2):
        fault(runs, "vrrp_blocked", "heal")
        assert state(runs, "vrrp-dropped") == []


def test_haproxy_is_stopped_and_started(runs: World) -> None:
    assert fault(runs, "haproxy_stopped", "inject") == ["systemctl stop haproxy"]
    assert fault(runs, "haproxy_stopped", "heal") == ["systemctl start haproxy"]
    assert fault(runs, "haproxy_stopped", "heal") == ["systemctl start haproxy"]


def test_an_address_that_was_given_up_may_come_back(runs: World) -> None:
    runs.let(holds="", sessions="1")
    for script in ("give-up-address", "load-balancer"):
        (runs.root / f"opt/{script}.sh").chmod(0o755)
    assert "systemctl stop keepalived" in fault(runs, "address_given_up", "inject")
    assert state(runs, "active-keepalived") == []
    assert fault(runs, "address_given_up", "heal") == ["systemctl restart keepalived"]


def test_keepalived_is_restarted_where_its_check_runs_as_another_user(runs: World) -> None:
    """A reload would lose the check."""
    conf = runs.path("/etc/keepalived/keepalived.conf")
    conf.write_text(conf.read_text().replace("enable_script_security", ""))
    assert "systemctl restart keepalived" in runs.run("load-balancer").changes


def test_new_connections_are_answered_after_a_give_up_that_was_killed(runs: World) -> None:
    runs.let(new_connections_dropped="")
    ran = runs.run("load-balancer")
    assert (ran.last, [call.split(" -d ")[0] for call in ran.changes]) == (
        "ha-lab: changed",
        ["iptables -w -D INPUT"],
    )
    assert state(runs, "new-connections-dropped") == []


def test_the_only_load_balancer_can_t_give_its_address_up(tmp_path: Path) -> None:
    ran = World(tmp_path, "lb1").run("give-up-address")
    assert ran.code == 1
    assert "ERROR: this lab has one load balancer, whose address can't move" in ran.said
    assert ran.calls == []
