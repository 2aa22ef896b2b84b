"""etcd: each member asked for all of them, and the answers compared."""

from __future__ import annotations

from lab.health.checks.check import (
    Finding,
    LabCheck,
    MachineCheck,
    answers,
    expect,
    expect_none,
    only_if_all_answered,
)
from lab.health.facts.gather import Facts
from lab.model import Lab, Node
from lab.model.selectors import etcd_members

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


_DEBUG = "on a control plane: `etcdctl` with the certificates of /etc/kubernetes/pki/etcd, `member list`"

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
        means="a learner has no vote, and while it exists no other control plane can join",
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
)
