"""etcd: each member asked for all of them, and the answers compared."""

from __future__ import annotations

from collections.abc import Mapping

from lab.health.checks.check import (
    Finding,
    LabCheck,
    MachineCheck,
    answers,
    expect,
    expect_none,
    only_if_all_answered,
)
from lab.health.checks.control_planes import metrics_problem
from lab.health.checks.workers_and_network import node_services
from lab.health.facts.gather import Facts
from lab.health.facts.machine import EtcdStatus
from lab.model import Lab, Node
from lab.model.selectors import etcd_machines, etcd_members

GAP = 1000
"""Entries that a member's log may be behind another's; they are asked some milliseconds apart."""


def member_healthy(lab: Lab, facts: Facts, node: Node) -> Finding:
    return expect("healthy", facts.machine(node).etcd_health)


def members(lab: Lab, facts: Facts, node: Node) -> Finding:
    found = {
        f"{member.name or '(never started)'} at {shown_urls(member.peer_urls)}"
        for member in facts.machine(node).etcd_members
    }
    return expect({f"{each.name} at https://{each.address}:2380" for each in lab.etcd_members}, found)


def shown_urls(urls: tuple[str, ...]) -> str:
    return " and ".join(urls) or "no address"


def no_learner(lab: Lab, facts: Facts) -> Finding:
    found, silent = answers(facts, lab.etcd_members, lambda machine: machine.etcd_members)
    learners = {
        member.name or shown_urls(member.peer_urls)
        for members in found.values()
        for member in members
        if member.learner
    }
    return only_if_all_answered(expect_none("every member votes", sorted(learners)), silent)


def same_members(lab: Lab, facts: Facts) -> Finding:
    found, silent = answers(facts, lab.etcd_members, lambda machine: machine.etcd_members)
    lists = {
        ", ".join(f"{member.id:x} {member.name or '(never started)'}" for member in each)
        for each in found.values()
    }
    verdict = Finding(
        "every member names the same members, with the same ids",
        " / ".join(sorted(lists)) or "no answer",
        "holds" if len(lists) <= 1 else "fails",
    )
    return only_if_all_answered(verdict, silent)


def leader(statuses: Mapping[str, EtcdStatus], known: Mapping[str, EtcdStatus] | None = None) -> str:
    """The member that those in the highest term follow; "" if they follow none, or one that is not known.

    A leader that is cut off says that it leads until it notices, in an older term than that of the others.
    `known` names the members by their ids, if more are known than were asked now.
    """
    names = {status.member: name for name, status in (known or statuses).items()}
    term = max((status.term for status in statuses.values()), default=0)
    followed = {status.leader for status in statuses.values() if status.term == term and status.leader}
    return names.get(followed.pop(), "") if len(followed) == 1 else ""


def one_leader(lab: Lab, facts: Facts) -> Finding:
    found, silent = answers(facts, lab.etcd_members, lambda machine: machine.etcd_status)
    views = {name: f"leader {status.leader:x} in term {status.term}" for name, status in found.items()}
    led = all(status.leader for status in found.values()) and len(set(views.values())) <= 1
    words = "; ".join(f"{name}: {view}" for name, view in views.items())
    verdict = Finding(
        "every member follows the same leader in the same term",
        words or "no answer",
        "holds" if led else "fails",
    )
    return only_if_all_answered(verdict, silent)


def in_step(lab: Lab, facts: Facts) -> Finding:
    found, silent = answers(facts, lab.etcd_members, lambda machine: machine.etcd_status.index)
    gap = max(found.values(), default=0) - min(found.values(), default=0)
    words = ", ".join(f"{name}: {index}" for name, index in found.items())
    verdict = Finding(
        f"logs within {GAP} entries of one another", words or "no answer", "holds" if gap <= GAP else "fails"
    )
    return only_if_all_answered(verdict, silent)


def no_alarm(lab: Lab, facts: Facts) -> Finding:
    found, silent = answers(facts, lab.etcd_members, lambda machine: machine.etcd_alarms)
    alarms = sorted({alarm for each in found.values() for alarm in each})
    return only_if_all_answered(expect_none("no alarm", alarms), silent)


def files(lab: Lab, facts: Facts, node: Node) -> Finding:
    machine = facts.machine(node)
    has = machine.membership
    found = [f"its member is {has}"] if has != "joined" else []
    return expect_none(
        "the files that etcd and its kubelet need are there and complete", machine.broken_files or found
    )


def metrics(lab: Lab, facts: Facts, node: Node) -> Finding:
    return expect_none(
        f"etcd gives metrics at {node.address} to authorised users, and to no one else",
        filter(None, [metrics_problem("etcd", facts.machine(node).metrics.get("etcd", {}))]),
    )


def same_ca(lab: Lab, facts: Facts) -> Finding:
    """Every member, and every API server as their client, trusts the same CA."""
    nodes = (*lab.etcd_members, *lab.control_planes)
    found, silent = answers(facts, nodes, lambda machine: machine.certificate(CA).sha256)
    views = {name: f"{sha256[:16]}…" for name, sha256 in found.items()}
    same = len(set(views.values())) <= 1
    words = "; ".join(f"{name}: {view}" for name, view in views.items()) or "no answer"
    return only_if_all_answered(Finding(f"the same CA in {CA}", words, "holds" if same else "fails"), silent)


CA = "/etc/kubernetes/pki/etcd/ca.crt"

_DEBUG = (
    "on a machine that runs etcd: `etcdctl` with the certificates of /etc/kubernetes/pki/etcd, `member list`"
)

CHECKS = (
    MachineCheck(
        "etcd-member-healthy",
        etcd_members,
        member_healthy,
        means="this member accepts no writes, so its API server can't either; of three members one may fail",
        hint="its log is in /var/log/pods/kube-system_etcd-*; `./inv up` brings back a lost machine",
    ),
    MachineCheck(
        "etcd-members",
        etcd_members,
        members,
        means="a missing member reduces the failure tolerance, and an extra one counts for the quorum",
        hint=f"{_DEBUG}, then `member remove ID` for one too many; `./inv up` joins a missing one",
    ),
    LabCheck(
        "etcd-same-members",
        same_members,
        means="members belong to different clusters, or some have missed a change: writes may be lost",
        hint=f"{_DEBUG} on each, and compare the ids; a member of another cluster must join again",
    ),
    LabCheck(
        "etcd-no-learner",
        no_learner,
        means="a learner has no vote, and while it exists no other member can be added",
        hint=f"{_DEBUG}, then `member remove ID`; `./inv up` joins the machine again",
    ),
    LabCheck(
        "etcd-one-leader",
        one_leader,
        means="without a common leader etcd accepts no writes: nothing in the cluster can change",
        hint=f"{_DEBUG}, or `endpoint status --cluster`; do the machines reach one another's port 2380?",
    ),
    LabCheck(
        "etcd-in-step",
        in_step,
        means="a member is far behind: it serves old data, and can't replace one that fails",
        hint="check that machine's disk and load (`./inv ssh NAME`, then `top`)",
    ),
    LabCheck(
        "etcd-no-alarm",
        no_alarm,
        means="with an alarm etcd rejects writes (NOSPACE), or its data can't be trusted (CORRUPT)",
        hint="NOSPACE: compact and defragment, then `etcdctl alarm disarm`; CORRUPT: replace that member",
    ),
    MachineCheck(
        "etcd-machine-services",
        etcd_machines,
        node_services,
        means="without these etcd is not started again here when it ends, or at the next boot",
        hint="`./inv up` starts them; on it: `journalctl -u kubelet` shows why not",
    ),
    MachineCheck(
        "etcd-machine-files",
        etcd_machines,
        files,
        means="etcd has read these files; its next start, or the next boot, fails",
        hint="`./inv up` restores them, or has the machine join etcd again",
    ),
    MachineCheck(
        "etcd-machine-metrics",
        etcd_machines,
        metrics,
        means="a Prometheus of yours has a red target here, or others read what is not for them",
        hint="docs/monitoring.md says who may read what; `./inv up` writes etcd's manifest again",
    ),
    LabCheck(
        "etcd-same-ca",
        same_ca,
        means="API servers and members that trust different CAs refuse one another's connections",
        hint="`./inv up` gives each machine the lab's own CA of etcd, and certificates that it has signed",
        external=True,
    ),
)
