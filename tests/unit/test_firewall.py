"""What this host's firewall does with packets between machines: asked, and judged by its rules."""

from __future__ import annotations

import json
import shutil
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from lab.host import firewall
from lab.host.doctor.forwarding import obstacle_of
from lab.host.facts import ForwardChain, Forwarding
from lab.system import process
from lab.unknown import Unknown
from tests.unit.hosts import FakeRun, recorded

SUBNET, DEVICE = IPv4Network("192.168.60.0/24"), "br-452e2d8da660"
RULES = tuple(recorded("iptables-rules.txt").splitlines())
OWN = f"-A FORWARD -i {DEVICE} -o {DEVICE} -j ACCEPT"

# moby 28.5, integration/network/bridge/iptablesdoc/generated/usernet-internal.md, for an internal network.
DOCKER_28 = """\
-P FORWARD DROP
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER-BRIDGE -o docker0 -j DOCKER
-A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -j DOCKER-CT
-A DOCKER-FORWARD -j DOCKER-INTERNAL
-A DOCKER-FORWARD -j DOCKER-BRIDGE
-A DOCKER-FORWARD -i docker0 -j ACCEPT
-A DOCKER-FORWARD -i bridgeICC -o bridgeICC -j ACCEPT
-A DOCKER-FORWARD -i bridgeNoICC -o bridgeNoICC -j DROP
-A DOCKER-INTERNAL ! -s 198.51.100.0/24 -o bridgeNoICC -j DROP
-A DOCKER-INTERNAL ! -d 198.51.100.0/24 -i bridgeNoICC -j DROP
-A DOCKER-INTERNAL ! -s 192.0.2.0/24 -o bridgeICC -j DROP
-A DOCKER-INTERNAL ! -d 192.0.2.0/24 -i bridgeICC -j DROP
"""

# As nft prints it on Debian 12 for an /etc/nftables.conf that drops what is forwarded. Not recorded.
NFT = """\
table inet filter {
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
	}
}
"""


def what(rules: Any, device: str = DEVICE, subnet: IPv4Network = SUBNET, services: tuple[str, ...] = ()) -> str:
    """What is in the way by rules of iptables; "" for nothing."""
    found = obstacle_of(Forwarding(True, tuple(rules), (), services), device, subnet, docker=True)
    return found.what if found else ""


def test_docker_s_rules_as_recorded_let_machines_through() -> None:
    assert what(RULES) == ""


def test_without_docker_s_rule_the_policy_drops_them() -> None:
    rules = [rule for rule in RULES if rule != OWN]
    assert len(rules) == len(RULES) - 1
    assert what(rules) == f"this host drops packets on {DEVICE}, by its rule `-P FORWARD DROP`"
    assert what(rules, services=("firewalld",)).endswith("(firewalld runs here)")


def test_a_flush_of_all_rules_leaves_the_policy() -> None:
    flushed = [rule for rule in RULES if not rule.startswith("-A")]
    assert "-P FORWARD DROP" in what(flushed)
    assert what(["-P FORWARD ACCEPT"]) == ""


def test_a_flush_of_forward_alone_leaves_docker_s_chains_that_nobody_asks() -> None:
    rules = [rule for rule in DOCKER_28.splitlines() if not rule.startswith("-A FORWARD")]
    assert what(rules, "bridgeICC", IPv4Network("192.0.2.0/24")) == (
        "this host drops packets on bridgeICC, by its rule `-P FORWARD DROP`"
    )


def test_docker_28_s_chains_are_followed() -> None:
    rules = DOCKER_28.splitlines()
    assert what(rules, "bridgeICC", IPv4Network("192.0.2.0/24")) == ""
    assert "`-A DOCKER-FORWARD -i bridgeNoICC -o bridgeNoICC -j DROP`" in what(
        rules, "bridgeNoICC", IPv4Network("198.51.100.0/24")
    )


@pytest.mark.parametrize(
    ("rule", "drops"),
    [
        ("-A FORWARD -j DROP", True),
        ("-A FORWARD -j REJECT --reject-with icmp-host-prohibited", True),
        ('-A FORWARD -m comment --comment "no one passes" -j DROP', True),
        ("-A FORWARD -i br+ -j DROP", True),
        ("-A FORWARD -s 192.168.0.0/16 -j DROP", True),
        ("-A FORWARD ! -o docker0 -j DROP", True),
        ("-A FORWARD -i eth0 -j DROP", False),
        ("-A FORWARD -i veth+ -j DROP", False),
        (f"-A FORWARD ! -i {DEVICE} -j DROP", False),
        ("-A FORWARD -s 192.168.60.128/25 -j DROP", False),
        ("-A FORWARD -m conntrack --ctstate INVALID -j DROP", False),
        ("-A FORWARD -p udp -m udp --dport 53 -j DROP", False),
        ("-A FORWARD -j LOG", False),
        ("-A FORWARD -j DOCKER-USER", False),
    ],
)
def test_a_rule_before_docker_s_own_drops_what_it_is_about(rule: str, drops: bool) -> None:
    found = what(["-P FORWARD ACCEPT", "-N DOCKER-USER", rule, "-A DOCKER-USER -j RETURN", OWN])
    assert (rule in found) is drops


def test_chains_that_ask_each_other_end() -> None:
    assert what(["-P FORWARD ACCEPT", "-A FORWARD -j A", "-A A -j B", "-A B -j A"]) == ""


def test_a_chain_of_nftables_that_drops_the_rest_is_in_the_way_unless_it_knows_the_network() -> None:
    chain = ForwardChain("inet", "filter", "forward", "drop", NFT)
    found = obstacle_of(Forwarding(True, RULES, (chain,), ("nftables",)), DEVICE, SUBNET, docker=True)
    assert found is not None
    assert found.what == f"nftables' chain inet filter forward drops packets on {DEVICE} (nftables runs here)"
    assert found.repair.startswith("sudo nft insert rule inet filter forward iifname ")
    for more in (
        f'iifname "{DEVICE}" accept',
        'iifname { "docker0", "br-*" } accept',
        f"ip saddr {SUBNET} accept",
        "ip saddr { 10.0.0.0/8, 192.168.0.0/16 } accept",
        "iifname @inside accept",
        "jump local_rules",
        "goto local_rules",
    ):
        text = NFT.replace("ct state", f"{more}\n\t\tct state")
        known = ForwardChain("inet", "filter", "forward", "drop", text)
        assert obstacle_of(Forwarding(True, RULES, (known,)), DEVICE, SUBNET, docker=True) is None
    for other in ('iifname "br-lan" accept', 'iifname "eth*" accept', "ip saddr 192.168.61.0/24 accept"):
        text = NFT.replace("ct state", f"{other}\n\t\tct state")
        unknown = ForwardChain("inet", "filter", "forward", "drop", text)
        assert obstacle_of(Forwarding(True, RULES, (unknown,)), DEVICE, SUBNET, docker=True) is not None
    accepts = ForwardChain("inet", "filter", "forward", "accept", NFT.replace("policy drop", "policy accept"))
    assert obstacle_of(Forwarding(True, RULES, (accepts,)), DEVICE, SUBNET, docker=True) is None


def test_where_bridges_bypass_the_rules_none_is_in_the_way() -> None:
    chain = ForwardChain("inet", "filter", "forward", "drop", NFT)
    found = Forwarding(False, ("-P FORWARD DROP",), (chain,))
    assert obstacle_of(found, DEVICE, SUBNET, docker=True) is None


def test_what_is_not_known_is_in_nobody_s_way() -> None:
    unknown = Unknown("only root can list the firewall's rules")
    assert obstacle_of(Forwarding(True, unknown, unknown), DEVICE, SUBNET, docker=True) is None


def test_docker_s_rules_come_back_with_docker_and_one_rule_is_enough_until_then() -> None:
    dropped = Forwarding(True, ("-P FORWARD DROP",))
    of_docker = obstacle_of(dropped, DEVICE, SUBNET, docker=True)
    of_libvirt = obstacle_of(dropped, "virbr1", SUBNET, docker=False)
    assert of_docker is not None
    assert of_docker.repair.startswith(f"sudo iptables -I FORWARD -i {DEVICE} -o {DEVICE} -j ACCEPT")
    assert "systemctl restart docker" in of_docker.repair
    assert of_libvirt is not None
    assert "docker" not in of_libvirt.repair


# Asking.


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host whose bridges ask the firewall."""
    bridge = tmp_path / "proc/sys/net/bridge"
    bridge.mkdir(parents=True)
    (bridge / "bridge-nf-call-iptables").write_text("1\n")
    return tmp_path


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    fake = FakeRun()
    monkeypatch.setattr(process, "run", fake)
    monkeypatch.setattr(shutil, "which", lambda name, **_: f"/usr/sbin/{name}")
    return fake


def chain(family: str, table: str, name: str, **more: Any) -> dict[str, Any]:
    """As libnftables-json(5) describes it."""
    return {"chain": {"family": family, "table": table, "name": name, "handle": 1, **more}}


def test_all_that_decides_is_asked(door: FakeRun, root: Path) -> None:
    hook = {"type": "filter", "hook": "forward", "prio": 0}
    said = [
        {"metainfo": {"version": "1.0.6", "release_name": "Lester Gooch #5", "json_schema_version": 1}},
        chain("ip", "filter", "FORWARD", policy="drop", **hook),
        chain("ip", "filter", "DOCKER-USER"),
        chain("ip", "docker-bridges", "filter-FORWARD", policy="drop", **hook),
        chain("ip6", "filter", "FORWARD", policy="drop", **hook),
        chain("inet", "filter", "input", type="filter", hook="input", prio=0, policy="drop"),
        chain("inet", "filter", "forward", policy="drop", **hook),
    ]
    door.tell("iptables --list-rules", recorded("iptables-rules.txt"))
    door.tell("nft --json list chains", json.dumps({"nftables": said}))
    door.tell("nft list chain inet filter forward", NFT)
    door.tell("systemctl is-active", "inactive\nactive\nactive\ninactive\nunknown\n", code=3)
    found = firewall.forwarding(root, uid=0, systemd=True)
    assert found == Forwarding(
        True, RULES, (ForwardChain("inet", "filter", "forward", "drop", NFT),), ("ufw", "nftables")
    )


def test_only_root_is_answered(door: FakeRun, root: Path) -> None:
    found = firewall.forwarding(root, uid=1000, systemd=False)
    assert isinstance(found.rules, Unknown)
    assert isinstance(found.chains, Unknown)
    assert door.asked == []


def test_nothing_is_asked_where_bridges_bypass_the_rules(door: FakeRun, root: Path) -> None:
    (root / "proc/sys/net/bridge/bridge-nf-call-iptables").write_text("0\n")
    assert firewall.forwarding(root, uid=0, systemd=True) == Forwarding()
    assert door.asked == []


def test_words_that_cannot_be_read_are_no_answer(door: FakeRun, root: Path) -> None:
    door.tell("iptables --list-rules", code=4, stderr="Fatal: can't open lock file")
    door.tell("nft --json list chains", "no JSON")
    found = firewall.forwarding(root, uid=0, systemd=False)
    assert isinstance(found.rules, Unknown)
    assert isinstance(found.chains, Unknown)


def test_a_host_without_either_program_has_no_rules(
    door: FakeRun, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, **_: None)
    assert firewall.forwarding(root, uid=0, systemd=False) == Forwarding(True)
