"""Checks whether machines reach one another, and which firewall rule of this host prevents it.

If br_netfilter is loaded, packets between machines on one bridge pass the host's rules for forwarded packets.
docker and libvirt add rules that accept theirs; a firewall service that is started or reloaded later may remove
them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Network
from typing import Literal

from lab.host import ForwardChain, Forwarding, Unknown
from lab.host.doctor.addresses import own_device
from lab.host.doctor.case import Case
from lab.host.doctor.finding import Finding, fit, note, unfit
from lab.system import quoting

TITLE = "Packets between machines"
WHY = "Machines could not reach the API through the load balancer, and etcd members not one another."
LOOK = (
    "sudo iptables --list-rules FORWARD; sudo nft list ruleset   # which rule drops packets between machines?"
)


@dataclass(frozen=True)
class Obstacle:
    """What separates the machines, as a sentence, and the commands that remove it."""

    what: str
    repair: str


def between_machines(case: Case) -> Iterator[Finding]:
    """Do running machines reach one another, and do this host's rules allow it?"""
    device = own_device(case)
    if case.lab.remote_host or device is None:
        return
    found = case.host.forwarding
    obstacle = obstacle_of(found, device, case.lab.network.subnet, docker=case.bridges_with_docker)
    reach = case.own.reach
    if reach is not None and reach.pairs and not reach.broken:
        yield fit("forwarding", TITLE, "machines reach one another")
    elif reach is not None and reach.broken:
        what = f"{reach.described()}{f': {obstacle.what}' if obstacle else ''}"
        repair = obstacle.repair if obstacle else LOOK
        # If some do, the host accepts packets, and one of the machines may be the cause: `up` may help.
        of_host = reach.all_broken and (obstacle or len(reach.machines) > 2)
        judged = unfit if of_host else note
        yield judged("forwarding", TITLE, what, WHY, repair)
    elif obstacle:
        yield unfit("forwarding", TITLE, obstacle.what, WHY, obstacle.repair)
    elif not found.bridged:
        yield fit("forwarding", TITLE, "this host's rules don't apply to them (bridge-nf-call-iptables is off)")
    elif isinstance(found.rules, Unknown):
        yield note("forwarding", TITLE, found.rules.reason, "They might drop packets between machines.")
    else:
        yield fit("forwarding", TITLE, "this host's rules accept packets")


def obstacle_of(found: Forwarding, device: str, subnet: IPv4Network, *, docker: bool) -> Obstacle | None:
    """Return what on this host drops packets on the bridge `device`; None if nothing does.

    `docker`: the bridge is docker's, which restores its rules when it is restarted.
    """
    if not found.bridged:
        return None
    if not isinstance(found.rules, Unknown):
        verdict, rule = _verdict(found.rules, device, subnet)
        if verdict == "drop":
            what = f"this host drops packets on {device}, by its rule `{rule}`{_of_services(found.services)}"
            return Obstacle(what, _let_pass(device, docker=docker))
    if not isinstance(found.chains, Unknown):
        for chain in found.chains:
            if _drops(chain, device, subnet):
                what = f"nftables' chain {chain} drops packets on {device}{_of_services(found.services)}"
                return Obstacle(what, _insert(chain, device))
    return None


def _of_services(services: Sequence[str]) -> str:
    return f" ({', '.join(services)} runs here)" if services else ""


def _let_pass(device: str, *, docker: bool) -> str:
    interfaces = ("-i", device, "-o", device)
    now = quoting.line(("sudo", "iptables", "-I", "FORWARD", *interfaces, "-j", "ACCEPT"))
    until = "   # until the host's rules are loaded again"
    if not docker:
        return f"{now}{until}"
    again = "sudo systemctl restart docker, then ./inv up"
    return f"{now}{until}\n# or restore all of docker's rules, which stops containers: {again}"


def _insert(chain: ForwardChain, device: str) -> str:
    names = ("iifname", f'"{device}"', "oifname", f'"{device}"', "accept")
    rule = quoting.line(("sudo", "nft", "insert", "rule", chain.family, chain.table, chain.name, *names))
    return f"{rule}\n# to keep it, add it to the firewall's configuration too, such as /etc/nftables.conf"


# What happens to the first packet of a connection that enters and leaves through one device. Conditions other
# than devices and addresses (-p, --ctstate, …) count as not met: such rules are for other packets, or only for
# some.

Verdict = Literal["accept", "drop", "none"]
WORD = re.compile(r'"(?:[^"\\]|\\.)*"|\S+')
ENDS: Mapping[str, Verdict] = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "drop"}


def _verdict(rules: Sequence[str], device: str, subnet: IPv4Network) -> tuple[Verdict, str]:
    chains: dict[str, list[str]] = {}
    policy = "accept", ""
    for rule in rules:
        words = rule.split()
        if words[:2] == ["-P", "FORWARD"]:
            policy = ENDS.get(words[2], "none"), rule
        elif words[:1] == ["-A"]:
            chains.setdefault(words[1], []).append(rule)
    found = _of_chain("FORWARD", chains, device, subnet, seen=())
    verdict, rule = found if found[0] != "none" else policy
    return ("drop", rule) if verdict == "drop" else ("accept", rule)


def _of_chain(
    name: str, chains: Mapping[str, list[str]], device: str, subnet: IPv4Network, seen: tuple[str, ...]
) -> tuple[Verdict, str]:
    for rule in chains.get(name, ()):
        target = _target(rule, device, subnet)
        if target in ENDS:
            return ENDS[target], rule
        if target == "RETURN":
            return "none", ""
        if target in chains and target not in seen:
            found = _of_chain(target, chains, device, subnet, (*seen, name))
            if found[0] != "none":
                return found
    return "none", ""


def _target(rule: str, device: str, subnet: IPv4Network) -> str:
    """The target of a rule for the packet; "" if the rule does not match it."""
    words = iter(WORD.findall(rule)[2:])
    negated = False
    for word in words:
        if word == "!":
            negated = True
            continue
        if word in ("-j", "-g"):
            return next(words, "")
        value = next(words, "")
        if word in ("-i", "-o"):
            met = device.startswith(value[:-1]) if value.endswith("+") else device == value
        elif word in ("-s", "-d"):
            met = subnet.subnet_of(IPv4Network(value, strict=False))
        elif (word, value) == ("-m", "comment") or word == "--comment":
            continue
        else:
            return ""
        if met == negated:
            return ""
        negated = False
    return ""


def _drops(chain: ForwardChain, device: str, subnet: IPv4Network) -> bool:
    """Whether a chain of nftables drops such packets, judged by its own text.

    It does if its policy or its last rule is to drop, and it mentions neither the device nor the network.
    Chains and sets that it refers to (`jump`, `goto`, `@name`) may accept the packets, so a chain with
    references does not count.
    """
    lines = [line.strip() for line in chain.text.splitlines()]
    rules = [line for line in lines if line and not line.startswith(("type ", "table ", "chain ", "}"))]
    ends = chain.policy == "drop" or any(rule.split()[0] in ("drop", "reject") for rule in rules)
    return ends and not any(_may_name(rule, device, subnet) for rule in rules)


def _may_name(rule: str, device: str, subnet: IPv4Network) -> bool:
    """Whether a rule of nftables mentions the device or the network, or refers to something that may."""
    if re.search(r"\b(jump|goto)\b|@\w", rule):
        return True
    # `iifname "br-*"` matches each device with that prefix (nft(8), "Data types").
    devices = re.findall(r'"([^"]+)"', rule)
    networks = re.findall(r"\b\d+\.\d+\.\d+\.\d+/\d+", rule)
    return any(fnmatchcase(device, each) for each in devices) or any(
        subnet.subnet_of(IPv4Network(each, strict=False)) for each in networks
    )
