"""The list of drills: what each breaks, for how long, how it is reverted, and the limits of its figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from lab.drill import certificates, downgrade, rehearsal, rotation, survivor, workload
from lab.drill.scene import Scene, etcd, holder
from lab.model import Lab, Node
from lab.model.selectors import Selector, balancers, control_planes, etcd_members, every_machine
from lab.plans import pair
from lab.session import Session
from lab.system.wait import wait_until

ALWAYS = {"writes.lost": 0.0, "watch.missed": 0.0, "watch.out_of_order": 0.0}
"""Limits of every drill: no acknowledged write is lost, and a watch sees all of them in order."""

SILENT = {
    "connections.failed_after_5s": 0.0,
    "connections.slowest_s": 5.0,
    "writes.longest_gap_s": 6.0,
    "watch.gap_s": 6.0,
}
"""Limits for an API server that accepts connections but does not respond."""


FLAPS = 3
"""How often the drill `flap` has the address move."""

MOVED = 60.0
"""Seconds until the address has moved: two with the profile `tuned`, half a minute with `reference`."""

NOTICED = 3.0
"""Seconds until keepalived, which asks each second, has noticed that HAProxy answers again."""


@dataclass(frozen=True)
class Drill:
    """One drill. `seconds` pass between fault and revert, unless `until` (why not yet, or None) ends it sooner.

    `prepares` is how many seconds it takes at most until the fault is in. `heal` reverts the fault, and is safe
    if there is none. `limits`: figure → its maximum in the profile `tuned`. `unfit` is why a lab that is large
    enough does not fit, or None. `in_all`: it belongs to `drill all`, so it must fit every lab of that size.
    `pair_limits` are the limits of a lab whose load balancers share an address, `external_limits` those where
    etcd has machines of its own, if they differ. `of_etcd`: there as many of its machines are needed as of
    control planes elsewhere. `external`: it needs them. `loss` is what is lost in the lab, which is asked about
    first; None for nothing.
    """

    name: str
    victims: Callable[[Session], tuple[Node, ...]]
    inject: Callable[[Scene], None]
    heal: Callable[[Scene], None]
    seconds: float = 15.0  # the write-up's load balancer takes up to 12 to notice
    until: Callable[[Scene], str | None] | None = None
    prepares: float = 0.0
    load_balancers: int = 1
    control_planes: int = 3
    workers: int = 0
    of_etcd: bool = False
    external: bool = False
    limits: Mapping[str, float] = field(default_factory=dict)
    pair_limits: Mapping[str, float] | None = None
    external_limits: Mapping[str, float] | None = None
    unfit: Callable[[Lab], str | None] = lambda lab: None
    in_all: bool = True
    loss: Callable[[Session], str] | None = None

    def lab_problem(self, lab: Lab) -> str | None:
        """Why this lab does not fit the drill; None if it does."""
        if self.external and not lab.external_etcd:
            return f"{self.name} needs etcd on machines of its own, and {lab.name} has it on its control planes"
        planes = ("control planes", self.control_planes, len(lab.control_planes))
        if self.of_etcd and lab.external_etcd:
            planes = ("etcd machines", self.control_planes, len(lab.etcd_members))
        for role, needed, there in (
            ("load balancers", self.load_balancers, len(lab.balancers)),
            planes,
            ("workers", self.workers, len(lab.workers)),
        ):
            if there < needed:
                return f"{self.name} needs {needed} {role}, and {lab.name} has {there}"
        return self.unfit(lab)

    def limits_in(self, lab: Lab) -> Mapping[str, float]:
        """The limits of its figures in this lab."""
        if lab.pair and self.pair_limits is not None:
            return self.pair_limits
        if lab.external_etcd and self.external_limits is not None:
            return self.external_limits
        return self.limits


def _holder(session: Session) -> tuple[Node, ...]:
    """The load balancer that has the API's address."""
    return (holder(session),)


def _follower(session: Session) -> tuple[Node, ...]:
    """The last control plane that is not the etcd leader."""
    leader = etcd(session).leader
    return ([node for node in session.lab.control_planes if node != leader][-1],)


def _etcd_follower(session: Session) -> tuple[Node, ...]:
    """The last member of etcd that is not its leader."""
    leader = etcd(session).leader
    return ([node for node in session.lab.etcd_members if node != leader][-1],)


def _leader(session: Session) -> tuple[Node, ...]:
    return (etcd(session).leader,)


def _majority(session: Session) -> tuple[Node, ...]:
    """More members than etcd can lose, including the leader."""
    leader = etcd(session).leader
    others = [node for node in session.lab.etcd_members if node != leader]
    return (leader, *others[: len(session.lab.etcd_members) // 2])


def _majority_of_followers(session: Session) -> tuple[Node, ...]:
    """As many members as end etcd's quorum, but not the leader, which has every acknowledged write."""
    leader = etcd(session).leader
    others = [node for node in session.lab.etcd_members if node != leader]
    return tuple(others[: len(session.lab.etcd_members) // 2 + 1])


def _worker(session: Session) -> tuple[Node, ...]:
    return (session.lab.workers[-1],)


def _all(of: Selector) -> Callable[[Session], tuple[Node, ...]]:
    return lambda session: of(session.lab)


def _nothing(scene: Scene) -> None:
    """There is nothing to revert."""


def _power(scene: Scene) -> None:
    scene.power_off()


def _power_on(scene: Scene) -> None:
    scene.power_on()


def _fault(name: str, action: str) -> Callable[[Scene], None]:
    return lambda scene: scene.fault(name, action)


def _cut_off(scene: Scene) -> None:
    """Cut off from every other machine; this host still reaches it, to revert the fault."""
    others = [str(node.address) for node in scene.session.lab.nodes if node not in scene.victims]
    scene.fault("partitioned", "inject", *others)


def _cut_off_from_peers(scene: Scene) -> None:
    """Cut off from the other etcd members."""
    others = [str(node.address) for node in scene.session.lab.etcd_members if node not in scene.victims]
    scene.fault("partitioned", "inject", *others)


def _cut_off_from_control_planes(scene: Scene) -> None:
    """Members still reach one another, and API servers no member."""
    scene.fault("partitioned", "inject", *(str(node.address) for node in scene.session.lab.control_planes))


def _lose_data(scene: Scene) -> None:
    scene.injected()
    scene.fault("etcd_data_lost", "inject")


def _flap(scene: Scene) -> None:
    """HAProxy is stopped where the address is, until the other load balancer has that; FLAPS times."""
    scene.injected()
    for _ in range(FLAPS):
        first = holder(scene.session)
        there = replace(scene, victims=(first,))
        there.fault("haproxy_stopped", "inject")
        wait_until(
            partial(_why_not_moved, scene, first),
            what=f"the API's address to leave {first.name}",
            timeout=MOVED * scene.session.lab.patience,
        )
        there.fault("haproxy_stopped", "heal")
        time.sleep(NOTICED * scene.session.lab.patience)


def _why_not_moved(scene: Scene, first: Node) -> str | None:
    holding = pair.holding(scene.session.lab, scene.session.remote)
    return None if holding and first.name not in holding else f"at {', '.join(holding) or 'no load balancer'}"


def _release_address(scene: Scene) -> None:
    """The address has moved when this returns."""
    scene.injected()
    scene.fault("address_given_up", "inject")


def _stall(scene: Scene) -> None:
    """The fault lasts two seconds, and is over when this returns."""
    scene.injected()
    scene.fault("api_server_stalled", "inject")


def _fill(scene: Scene) -> None:
    """One member with a small quota is enough: its alarm stops the writes of the whole cluster."""
    scene.fault("etcd_quota_small", "inject")
    scene.injected()
    scene.fault("etcd_space_filled", "inject")


def _make_space(scene: Scene) -> None:
    scene.fault("etcd_space_filled", "heal")
    scene.fault("etcd_quota_small", "heal")


def _why_not_rescheduled(scene: Scene) -> str | None:
    """Why the workload does not run completely on the remaining machines."""
    nodes = {node.name: node for node in scene.api.nodes()}
    if nodes[scene.victim.name].ready:
        return f"{scene.victim.name} still counts as Ready"
    scene.mark("detect", f"{scene.victim.name} is not Ready")
    here = [pod for pod in scene.api.pods(workload.NAMESPACE) if pod.node != scene.victim.name and pod.ready]
    wanted = workload.wanted(scene.api)
    if len(here) < wanted:
        return f"{len(here)} of {wanted} pods are Ready on other machines"
    scene.mark("detect", "the workload runs elsewhere")
    return None


DRILLS = (
    Drill(
        "kill-control-plane",
        _follower,
        _power,
        _power_on,
        limits={
            "connections.failed": 0,
            "connections.slowest_s": 2,
            "writes.longest_gap_s": 3,
            "watch.gap_s": 3,
        },
    ),
    Drill(
        "stop-api-server",
        _follower,
        _fault("api_server_stopped", "inject"),
        _fault("api_server_stopped", "heal"),
        limits={
            "connections.failed": 0,
            "connections.longest_gap_s": 2,
            "connections.slowest_s": 2,
            "writes.longest_gap_s": 3,
            "watch.gap_s": 3,
        },
    ),
    Drill(
        "freeze-api-server",
        _follower,
        _fault("api_server_frozen", "inject"),
        _fault("api_server_frozen", "heal"),
        limits=SILENT,
    ),
    Drill(
        "stall-api-server",
        _follower,
        _stall,
        _fault("api_server_stalled", "heal"),
        seconds=5,
        limits={
            "connections.failed": 0,
            "connections.slowest_s": 4,
            "writes.failed": 0,
            "writes.longest_gap_s": 4,
            "watch.cut": 0,
        },
    ),
    Drill(
        "kill-etcd-leader",
        _leader,
        _power,
        _power_on,
        of_etcd=True,
        limits={"connections.slowest_s": 4, "writes.longest_gap_s": 6, "watch.gap_s": 6},
        external_limits={"connections.longest_gap_s": 4, "writes.longest_gap_s": 15, "watch.gap_s": 20},
    ),
    Drill(
        "kill-etcd-member",
        _etcd_follower,
        _power,
        _power_on,
        of_etcd=True,
        limits={"connections.longest_gap_s": 2, "writes.longest_gap_s": 6, "watch.gap_s": 6},
        # All API servers have connections to this member. What was sent on them waits until they are given up
        # after ten seconds, and is tried again elsewhere: slow, a few failed, none lost.
        external_limits={"connections.longest_gap_s": 2, "writes.longest_gap_s": 15, "watch.gap_s": 20},
    ),
    Drill(
        "partition-etcd-from-control-planes",
        _all(etcd_members),
        _cut_off_from_control_planes,
        _fault("partitioned", "heal"),
        of_etcd=True,
        external=True,
        control_planes=1,
        # No API server can read or write meanwhile; etcd itself keeps its leader.
        limits={"whole_s.the API": 60},
    ),
    Drill(
        "slow-etcd-disk",
        _leader,
        _fault("etcd_disk_slowed", "inject"),
        _fault("etcd_disk_slowed", "heal"),
        of_etcd=True,
        seconds=20,
        limits={"connections.slowest_s": 10},
    ),
    Drill(
        "partition-control-plane",
        _follower,
        _cut_off,
        _fault("partitioned", "heal"),
        limits=SILENT,
    ),
    Drill(
        "partition-from-peers",
        _etcd_follower,
        _cut_off_from_peers,
        _fault("partitioned", "heal"),
        of_etcd=True,
        limits=SILENT,
    ),
    Drill("lose-quorum", _majority, _power, _power_on, of_etcd=True, limits={"whole_s.the API": 30}),
    Drill(
        "lose-quorum-for-good",
        _majority_of_followers,
        _lose_data,
        survivor.recover,
        of_etcd=True,
        # The rest is ALWAYS: what the survivor has acknowledged is not lost, and a watch sees all of it.
        limits={"whole_s.the API": 180},
    ),
    Drill(
        "etcd-no-space",
        _etcd_follower,
        _fill,
        _make_space,
        of_etcd=True,
        prepares=180,
        # Reads go on, and so do connections. The member restarts for its quota, and its API server answers with
        # errors until HAProxy has noticed, so failures have no limit.
        limits={"connections.longest_gap_s": 2, "connections.slowest_s": 4},
    ),
    Drill(
        "replace-etcd-member",
        _etcd_follower,
        _fault("etcd_member_replaced", "inject"),
        _fault("etcd_member_replaced", "heal"),
        of_etcd=True,
        seconds=5,
        limits={
            "connections.longest_gap_s": 2,
            "connections.slowest_s": 4,
            "writes.longest_gap_s": 6,
            "watch.gap_s": 6,
        },
    ),
    Drill(
        "downgrade-etcd",
        downgrade.members,
        downgrade.downgrade,
        downgrade.finish,
        of_etcd=True,
        seconds=5,
        prepares=480,
        limits={"connections.failed": 0, "writes.longest_gap_s": 6, "watch.gap_s": 6},
        unfit=downgrade.lab_problem,
        in_all=False,
    ),
    Drill(
        "reload-load-balancer",
        _all(balancers),
        lambda scene: scene.haproxy("reload"),
        _nothing,
        control_planes=1,
        limits={"connections.failed": 0, "writes.failed": 0, "watch.cut": 0},
    ),
    Drill(
        "restart-load-balancer",
        _all(balancers),
        lambda scene: scene.haproxy("restart"),
        _nothing,
        seconds=10,
        control_planes=1,
        limits={"connections.longest_gap_s": 3, "writes.longest_gap_s": 5, "watch.gap_s": 5},
    ),
    Drill(
        "kill-load-balancer",
        _holder,
        _power,
        _power_on,
        seconds=10,
        control_planes=1,
        limits={"whole_s.the API": 30},
        # A connection that is opened while the address is nowhere is asked for again by the kernel, after one
        # second and three: it is slow, and does not fail. What was in flight is lost, and counted for itself.
        pair_limits={
            "connections.longest_gap_s": 2,
            "connections.slowest_s": 4,
            "writes.longest_gap_s": 5,
            "watch.gap_s": 6,
        },
    ),
    Drill(
        "stop-haproxy-on-holder",
        _holder,
        _fault("haproxy_stopped", "inject"),
        _fault("haproxy_stopped", "heal"),
        seconds=40,  # kubeadm's keepalived, ten failures at intervals of 3 s
        load_balancers=2,
        control_planes=1,
        # keepalived asks once a second, and believes the second answer.
        limits={"connections.longest_gap_s": 3, "writes.longest_gap_s": 5, "watch.gap_s": 5},
    ),
    Drill(
        "split-brain",
        _holder,
        _fault("vrrp_blocked", "inject"),
        _fault("vrrp_blocked", "heal"),
        load_balancers=2,
        control_planes=1,
        # Both serve, so hardly anything fails: connections end where the last gratuitous ARP came from.
        limits={
            "connections.longest_gap_s": 2,
            "connections.slowest_s": 4,
            "writes.longest_gap_s": 5,
            "watch.gap_s": 6,
        },
    ),
    Drill(
        "flap",
        _all(balancers),
        _flap,
        _fault("haproxy_stopped", "heal"),
        seconds=5,
        prepares=FLAPS * (MOVED + NOTICED),
        load_balancers=2,
        control_planes=1,
        limits={
            "connections.longest_gap_s": 3,
            "writes.longest_gap_s": 5,
            "watch.gap_s": 6,
            "address.moves": FLAPS,
        },
    ),
    Drill(
        "move-address",
        _holder,
        _release_address,
        _fault("address_given_up", "heal"),
        seconds=10,
        load_balancers=2,
        control_planes=1,
        limits={
            "connections.failed": 0,
            "connections.slowest_s": 2,
            "writes.longest_gap_s": 3,
            "watch.gap_s": 3,
            "address.moves": 1,
        },
    ),
    Drill(
        "kill-worker",
        _worker,
        _power,
        _power_on,
        seconds=120,
        until=_why_not_rescheduled,
        control_planes=1,
        workers=2,
        limits={"connections.failed": 0, "writes.longest_gap_s": 3, "detect_s.the workload runs elsewhere": 90},
    ),
    Drill(
        "power-off-all",
        _all(every_machine),
        _power,
        _power_on,
        seconds=5,
        control_planes=1,
        limits={"whole_s.verify": 90},
    ),
    Drill(
        "renew-certificates",
        _all(control_planes),
        certificates.renew_all,
        certificates.finish,
        seconds=5,
        prepares=240,
        limits={"connections.failed": 0, "writes.longest_gap_s": 6, "watch.gap_s": 6},
    ),
    Drill(
        "certificates-expire",
        _all(control_planes),
        certificates.expire,
        certificates.bring_back,
        seconds=30,
        prepares=300,
        # The API responds again long before the revert is complete, so the time counts that users were refused.
        limits={"connections.longest_gap_s": 60},
    ),
    Drill(
        "rotate-ca",
        _all(every_machine),
        rotation.rotate,
        rotation.finish,
        seconds=5,
        prepares=480,
        limits={"connections.failed": 0, "writes.longest_gap_s": 6, "watch.gap_s": 6},
    ),
    # Measured by lab.drill.measured_upgrade, whose report is that of a change.
    Drill(
        rehearsal.NAME,
        rehearsal.machines,
        rehearsal.upgrade,
        rehearsal.put_back,
        control_planes=1,
        unfit=rehearsal.lab_problem,
        in_all=False,
        loss=rehearsal.loss,
    ),
)
