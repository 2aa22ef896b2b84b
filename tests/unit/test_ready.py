from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lab.errors import LabStateError, WaitTimedOut
from lab.health.checks import cases, security
from lab.health.facts.gather import Facts
from lab.host.doctor.forwarding import LOOK
from lab.model import Libvirt
from lab.plans import ready
from lab.plans.engine import Context, Job
from lab.plans.situation import from_nothing
from lab.system.wait import wait_until
from lab.unknown import Unknown, known
from lab.workspace import Workspace
from lab.workspace.render import credentials
from tests.unit.fakes import FakeClock, FakeRemote, progress
from tests.unit.recorded_facts import (
    LOAD_FAILED,
    Alter,
    admission,
    apart,
    api,
    early,
    external_lab,
    facts,
    haproxy_stopped,
    kubelet_loops,
    lab,
    pair_lab,
    section,
    told_otherwise,
)
from tests.unit.test_admission import read_one

WAITS = {
    "nodes": ready.wait_for_nodes,
    "pods": ready.wait_for_pods,
    "health": ready.wait_for_health,
}


def without_machines(found: Facts) -> Facts:
    """What is known where the API alone was asked."""
    silent: dict[str, Any] = {name: Unknown(f"{name} was not asked") for name in found.machines}
    return replace(found, machines=silent, probes=Unknown("pods were not asked"))


def only_machines(found: Facts, of: Any) -> Facts:
    """What is known where these machines were asked beside the API; all for None."""
    names = [machine.name for machine in (lab().nodes if of is None else of)]
    asked = {name: machine for name, machine in found.machines.items() if name in names}
    unasked = without_machines(found)
    return found if of is None else replace(unasked, machines={**unasked.machines, **asked})


def node(name: str, **changes: Any) -> Alter:
    return api(nodes=tuple(replace(n, **changes) if n.name == name else n for n in known(facts().api.nodes)))


def pod(name: str, **changes: Any) -> Alter:
    return api(pods=tuple(replace(p, **changes) if p.name == name else p for p in known(facts().api.pods)))


class Lab:
    """The recorded lab, which answers with `found`, and is well after `until`; `asked` is how it was asked."""

    def __init__(self, folder: Path) -> None:
        workspace = Workspace(folder / ".lab")
        self.found = facts()
        self.until: tuple[float, FakeClock] | None = None
        self.asked: list[dict[str, Any]] = []
        self.hints: set[str] = set()
        self.notes: dict[str, str] = {}
        self.context = Context(
            lab(),
            workspace,
            FakeRemote(lab(), workspace),
            progress(workspace.logs),
            credentials.new_run_secrets(),
            from_nothing(lab()),
        )

    def gather(self, *words: object, **named: Any) -> Facts:
        self.asked.append(named)
        well = self.until is not None and self.until[1].now >= self.until[0]
        found = replace(facts() if well else self.found, probes=Unknown("pods were not asked"))
        return only_machines(found, named.get("of"))

    def log(self, name: str) -> str:
        """What the step of that name wrote."""
        return "".join(path.read_text() for path in self.context.workspace.logs.glob(f"*-{name}.log"))

    def wait(self, name: str) -> str | None:
        """Wait with no patience; return why it is not ready."""
        with self.context.progress.step(name, name) as shown:
            try:
                changed = WAITS[name](Job(self.context, shown, lambda step: False))
            except WaitTimedOut as timed_out:
                self.hints.add(timed_out.hint)
                return timed_out.reason
            finally:
                self.notes[name] = shown.note
        assert not changed
        return None


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    recorded = Lab(tmp_path)
    monkeypatch.setattr(ready, "gather", recorded.gather)
    monkeypatch.setattr(ready, "READY_TIMEOUT", 0.0)
    monkeypatch.setattr(ready, "HEALTHY_TIMEOUT", 0.0)
    return recorded


@pytest.mark.parametrize(("emulated", "interval"), [(False, 0.5), (True, 5.0)])
def test_emulated_machines_are_asked_less_often_and_waited_for_longer(
    recorded: Lab, monkeypatch: pytest.MonkeyPatch, emulated: bool, interval: float
) -> None:
    libvirt = Libvirt(emulated=emulated)
    context = replace(recorded.context, lab=recorded.context.lab.model_copy(update={"libvirt": libvirt}))
    waits: list[tuple[float, float]] = []

    def wait(*words: object, interval: float, timeout: float, **others: object) -> None:
        waits.append((interval, timeout))

    monkeypatch.setattr("lab.plans.engine.wait_until", wait)
    with context.progress.step("nodes", "nodes") as shown:
        Job(context, shown, lambda step: False).wait_until(lambda: None, what="it", timeout=7)
    assert waits == [(interval, 7.0 * libvirt.patience)]


def test_every_name_is_a_check_s() -> None:
    names = {case.check.name for case in cases(lab())}
    assert names >= ready.PODS >= ready.NODES


@pytest.mark.parametrize("name", sorted(ready.PODS))
def test_the_api_alone_answers_what_is_waited_for_first(name: str) -> None:
    asked = [case for case in cases(lab()) if case.check.name == name]
    assert asked
    assert {case.judge(without_machines(facts())).outcome for case in asked} == {"holds"}
    assert not any(case.check.probes for case in asked)


@pytest.mark.parametrize("name", WAITS)
def test_a_lab_that_is_well_is_waited_for_no_longer(recorded: Lab, name: str) -> None:
    assert recorded.wait(name) is None


def test_machines_are_asked_last_and_pods_never(recorded: Lab) -> None:
    for name in WAITS:
        recorded.wait(name)
    assert recorded.asked == [
        {"probes": False, "of": ()},
        {"probes": False, "of": ()},
        {"probes": False},
    ]


@pytest.mark.parametrize(
    ("alter", "waits"),
    [
        (node("w1", ready=False, reason="Kubelet stopped posting node status."), ("nodes", "pods", "health")),
        (pod("kube-scheduler-cp2", ready=False), ("pods", "health")),
        (told_otherwise("w2", "services", "ActiveState=active", "ActiveState=inactive"), ("health",)),
    ],
)
def test_each_wait_is_for_its_own_checks_and_those_before(
    recorded: Lab, alter: Alter, waits: tuple[str, ...]
) -> None:
    recorded.found = alter(facts())
    assert {name for name in WAITS if recorded.wait(name)} == set(waits)
    assert recorded.hints == {"`./inv verify` explains the failing checks"}


CORDON = "node.kubernetes.io/unschedulable"


def test_a_cordoned_node_is_named_and_not_waited_for(recorded: Lab) -> None:
    recorded.found = node("w1", taints=(CORDON,))(facts())
    for name in WAITS:
        assert recorded.wait(name) is None
    assert recorded.notes == {
        "nodes": "",
        "pods": "",
        "health": "w1 is cordoned: no new pods start there until `kubectl uncordon w1`",
    }


@pytest.mark.parametrize("taints", [("mine",), ("mine", CORDON)])
def test_a_user_s_taint_ends_up_at_once_and_after_all_else(recorded: Lab, taints: tuple[str, ...]) -> None:
    recorded.found = node("w1", taints=taints)(facts())
    assert (recorded.wait("nodes"), recorded.wait("pods")) == (None, None)
    with pytest.raises(LabStateError, match=r"^the lab is up, but .*: node-taints\[w1\]: mine") as caught:
        recorded.wait("health")
    assert "`kubectl taint node NAME KEY-`" in caught.value.hint


def test_a_control_plane_that_takes_all_pods_is_a_user_s_doing(recorded: Lab) -> None:
    recorded.found = node("cp2", taints=())(facts())
    with pytest.raises(LabStateError, match=r"node-taints\[cp2\]: none"):
        recorded.wait("health")


def test_a_machine_that_was_restarted_is_not_waited_for_because_of_taints(recorded: Lab) -> None:
    w1 = lab().node("w1")
    assert w1 is not None
    recorded.found = node("w1", taints=("mine",))(facts())
    assert ready.why_not_well(recorded.context, w1, drained=False) is None
    recorded.found = node("w1", ready=False, reason="no")(facts())
    assert ready.why_not_well(recorded.context, w1, drained=False) == "node-ready[w1]: not Ready: no"


def test_a_machine_that_was_restarted_is_not_waited_for_because_of_what_waiting_can_t_fix(
    recorded: Lab,
) -> None:
    cp2 = lab().node("cp2")
    assert cp2 is not None
    recorded.found = told_otherwise("cp2", "etcd-members", '"name":"cp3"', '"name":""')(facts())
    verdicts = {verdict.title: verdict.outcome for verdict in ready._verdicts(lab(), recorded.found, None)}
    assert verdicts["etcd-members[cp2]"] == "fails"
    assert ready.why_not_well(recorded.context, cp2, drained=False) is None


def test_haproxy_s_view_counts_only_of_a_machine_that_it_gives_connections(recorded: Lab) -> None:
    cp2 = lab().node("cp2")
    assert cp2 is not None
    recorded.found = told_otherwise("lb1", "backends", ",UP,1,1,0,", ",DOWN,1,1,0,")(facts())
    assert ready.why_not_well(recorded.context, cp2, drained=True) is None
    found = ready.why_not_well(recorded.context, cp2, drained=False)
    assert found is not None
    assert found.startswith("backend-up[cp2]: DOWN")


def test_a_taint_that_goes_by_itself_is_waited_for(recorded: Lab) -> None:
    recorded.found = node("w1", taints=("mine", "node.kubernetes.io/not-ready"))(facts())
    reason = recorded.wait("health")
    assert reason is not None
    assert reason.startswith("node-taints[w1]: mine, node.kubernetes.io/not-ready")


def test_beside_a_user_s_taint_all_else_is_waited_for(recorded: Lab) -> None:
    both = replace(node("w1", taints=("mine",))(facts()), machines=facts().machines)
    recorded.found = told_otherwise("w2", "services", "ActiveState=active", "ActiveState=inactive")(both)
    reason = recorded.wait("health")
    assert reason is not None
    assert "node-services[w2]" in reason


def test_files_that_no_step_changes_end_up_at_once_with_what_to_do_about_each(recorded: Lab) -> None:
    recorded.found = section("w2", "kubelet-server", "https://192.168.57.99:6443")(facts())
    assert (recorded.wait("nodes"), recorded.wait("pods")) == (None, None)
    with pytest.raises(LabStateError, match=r"kubelet-server\[w2\]: https://192\.168\.57\.99:6443") as caught:
        recorded.wait("health")
    assert caught.value.hint.startswith("kubelet-server[w2]: ")


def test_certificates_that_end_soon_are_named_with_what_to_do_and_not_waited_for(
    recorded: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(security, "SOON", timedelta(days=400))
    recorded.found = node("w1", taints=(CORDON,))(facts())
    assert recorded.wait("health") is None
    cordoned, *expiry, more, hint = recorded.notes["health"].split("; ")
    assert cordoned.startswith("w1 is cordoned")
    assert more.startswith("and ")
    assert {each.partition("[")[0] for each in expiry if "[" in each} == {"certificate-expiry"}
    assert "`./inv up` renews a control plane's certificates" in hint
    recorded.found = api(secrets=(("bootstrap-token-abcdef", "bootstrap.kubernetes.io/token"),))(facts())
    with pytest.raises(LabStateError, match="no-bootstrap-token"):
        recorded.wait("health")
    assert "`./inv up` renews" in recorded.notes["health"], "beside what `up` fails for"


def test_a_user_s_bootstrap_token_ends_up_at_once(recorded: Lab) -> None:
    recorded.found = api(secrets=(("bootstrap-token-abcdef", "bootstrap.kubernetes.io/token"),))(facts())
    with pytest.raises(LabStateError, match="no-bootstrap-token: 1 of them") as caught:
        recorded.wait("health")
    assert "`kubeadm token delete ID`" in caught.value.hint


def test_only_checks_of_the_lab_are_called_steady() -> None:
    labs = (lab(), pair_lab(), external_lab())
    assert {case.check.name for each in labs for case in cases(each)} >= ready.STEADY


def test_a_reason_is_what_the_check_found(recorded: Lab) -> None:
    recorded.found = node("w1", ready=False, reason="Kubelet stopped posting node status.")(facts())
    assert recorded.wait("nodes") == "node-ready[w1]: not Ready: Kubelet stopped posting node status."


def test_a_reason_names_a_few_checks_and_how_many_more(recorded: Lab) -> None:
    found = facts()
    for name in ("cp1", "cp2", "cp3", "w1", "w2"):
        if any(each.name == name for each in known(found.api.nodes)):
            nodes = tuple(replace(n, ready=False, reason="no") for n in known(found.api.nodes))
            found = api(nodes=nodes)(found)
    recorded.found = found
    count = len(known(found.api.nodes))
    reason = recorded.wait("nodes")
    assert reason is not None
    first = "; ".join(f"node-ready[{n.name}]: not Ready: no" for n in known(found.api.nodes)[: ready.NAMED])
    assert reason == f"{first}; and {count - ready.NAMED} more"


def test_an_api_that_does_not_answer_is_not_taken_for_a_lab_that_is_ready(recorded: Lab) -> None:
    gone: Any = Unknown("the API at https://192.168.57.10:6443 can't be asked: timed out")
    recorded.found = api(nodes=gone, pods=gone, leases=gone, endpoints=gone)(facts())
    for name in WAITS:
        reason = recorded.wait(name)
        assert reason is not None
        assert "can't be asked: timed out" in reason


def test_a_static_pod_that_is_ready_too_early_is_not_believed(recorded: Lab) -> None:
    found = known(facts().api.pods)
    alter: Callable[[Facts], Facts] = api(
        pods=tuple(early(p) if p.name == "kube-apiserver-cp3" else p for p in found)
    )
    recorded.found = alter(facts())
    assert recorded.wait("nodes") is None
    assert recorded.wait("pods") == "static-pods-ready[cp3]: kube-apiserver-cp3 is not Ready"


PROXIED = [p for p in known(facts().api.pods) if p.name.startswith("kube-proxy-") and p.node == "w2"]
NO_PROXY = api(pods=tuple(p for p in known(facts().api.pods) if p not in PROXIED))
WEBHOOK = replace(read_one()[0], problem="its Service default/gate does not exist")
NAMED = "the webhook pods.gate.example.com in the ValidatingWebhookConfiguration gate"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """Time that passes only while `up` waits."""
    clock = FakeClock()
    monkeypatch.setattr(ready, "time", clock)
    monkeypatch.setattr(ready, "READY_TIMEOUT", 300.0)
    monkeypatch.setattr(ready, "HEALTHY_TIMEOUT", 120.0)
    monkeypatch.setattr(Job, "wait_until", with_clock(clock))
    return clock


def with_clock(clock: FakeClock) -> Callable[..., None]:
    def wait(job: Job, check: Callable[[], str | None], *, what: str, timeout: float, hint: str) -> None:
        wait_until(check, what=what, timeout=timeout, hint=hint, log=job.log, clock=clock)

    return wait


@pytest.mark.slow
@pytest.mark.parametrize(("name", "of"), [("pods", ()), ("health", None)])
def test_a_cause_that_waiting_does_not_cure_ends_the_wait_within_a_minute(
    recorded: Lab, clock: FakeClock, name: str, of: Any
) -> None:
    recorded.found = admission(webhooks=(WEBHOOK,))(NO_PROXY(facts()))
    with pytest.raises(LabStateError, match=f"waiting does not help: {NAMED}") as caught:
        recorded.wait(name)
    assert clock.now - FakeClock.START < 40
    assert caught.value.message.endswith("(so these checks fail: kube-proxy[w2])")
    assert "delete validatingwebhookconfiguration gate` removes it; then `./inv up` again" in caught.value.hint
    assert "destroy" not in caught.value.hint
    looked = [asked for asked in recorded.asked if asked.get("admission")]
    assert looked[0].get("of") == of
    assert len(looked) < 8, "a look for a cause costs more than one at the checks"


def test_a_kubelet_that_ends_again_and_again_ends_the_wait_for_nodes_within_a_minute(
    recorded: Lab, clock: FakeClock
) -> None:
    recorded.found = kubelet_loops("w1")(facts())
    with pytest.raises(LabStateError) as caught:
        recorded.wait("nodes")
    assert clock.now - FakeClock.START < 60
    message = caught.value.message
    assert message.startswith(
        "all nodes to be Ready: waiting does not help: the kubelet on w1 ends soon after each start: "
    )
    assert message.endswith(f'err="{LOAD_FAILED}" (so these checks fail: node-ready[w1])')
    assert caught.value.hint.startswith("`./inv ssh w1 -- sudo journalctl -u kubelet -n 50` shows why; ")
    assert caught.value.hint.endswith("then `./inv up` again")
    machines = [asked["of"] for asked in recorded.asked if asked.get("cluster") is False]
    assert set(machines) == {(lab().node("w1"),)}, "only the machine whose node is not Ready"


def test_a_kubelet_whose_count_differs_at_each_look_is_the_same_cause(recorded: Lab, clock: FakeClock) -> None:
    counted = iter(range(12, 100))

    def gather(*words: object, **named: Any) -> Facts:
        recorded.found = kubelet_loops("w1")(facts())
        text = known(recorded.found.machines["w1"]).sections["services"].text
        more = text.replace("NRestarts=12", f"NRestarts={next(counted)}")
        recorded.found = section("w1", "services", more)(recorded.found)
        return recorded.gather(*words, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ready, "gather", gather)
        with pytest.raises(LabStateError, match="waiting does not help: the kubelet on w1"):
            recorded.wait("nodes")
    assert clock.now - FakeClock.START < 60


def test_where_the_api_is_not_reached_all_machines_are_asked_why(recorded: Lab, clock: FakeClock) -> None:
    recorded.found = haproxy_stopped(facts())
    with pytest.raises(LabStateError, match="waiting does not help: HAProxy does not run on lb1"):
        recorded.wait("nodes")
    assert clock.now - FakeClock.START < 60


def test_commands_with_a_comment_stay_lines_that_can_be_pasted(recorded: Lab, clock: FakeClock) -> None:
    recorded.found = apart(facts())
    with pytest.raises(LabStateError, match="waiting does not help: no machine reaches another one") as caught:
        recorded.wait("health")
    assert caught.value.hint == f"{LOOK}\nthen `./inv up` again"


def test_a_cause_of_a_moment_is_waited_for(recorded: Lab, clock: FakeClock) -> None:
    recorded.found = admission(webhooks=(WEBHOOK,))(NO_PROXY(facts()))
    recorded.until = FakeClock.START + 20, clock
    assert recorded.wait("pods") is None
    assert 20 <= clock.now - FakeClock.START < 25


@pytest.mark.slow
def test_a_cause_that_may_pass_is_the_reason_when_time_is_up(recorded: Lab, clock: FakeClock) -> None:
    recorded.found = admission(webhooks=(replace(WEBHOOK, recovers=True),))(NO_PROXY(facts()))
    reason = recorded.wait("pods")
    assert reason is not None
    assert reason.startswith(NAMED)
    assert clock.now - FakeClock.START >= 300
    assert f"waiting for all system pods to be Ready (20 s): {reason}" in recorded.log("pods")


@pytest.mark.slow
def test_without_a_cause_the_checks_are_the_reason(recorded: Lab, clock: FakeClock) -> None:
    recorded.found = NO_PROXY(facts())
    assert recorded.wait("pods") == "kube-proxy[w2]: no pod kube-proxy-… of kube-system is on this node"
    assert clock.now - FakeClock.START >= 300


@pytest.mark.parametrize(("emulated", "first"), [(False, 5), (True, 5 * 10 * 7)])
def test_a_search_that_takes_long_begins_late_and_is_repeated_after_a_pause_twice_as_long(
    recorded: Lab, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, emulated: bool, first: int
) -> None:
    """Emulated machines are asked one after another, for minutes that what is waited for needs as well."""
    model = recorded.context.lab.model_copy(update={"libvirt": Libvirt(emulated=emulated)})
    recorded.context = replace(recorded.context, lab=model)
    monkeypatch.setattr(ready, "READY_TIMEOUT", first + 300.0)
    recorded.found = NO_PROXY(facts())
    began: list[float] = []

    def gather(*words: object, **named: Any) -> Facts:
        if named.get("admission"):
            began.append(clock.now - FakeClock.START)
            clock.now += 40 * model.patience
        return recorded.gather(*words, **named)

    monkeypatch.setattr(ready, "gather", gather)
    assert recorded.wait("pods") is not None
    assert first <= began[0] < first + 2 * model.patience
    assert all(later - earlier >= 120 * model.patience for earlier, later in pairwise(began))
    assert emulated or len(began) == 3


def test_a_lab_that_is_ready_at_once_is_asked_for_no_cause(recorded: Lab, clock: FakeClock) -> None:
    for name in WAITS:
        assert recorded.wait(name) is None
    assert not any(asked.get("admission") for asked in recorded.asked)
