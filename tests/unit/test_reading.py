"""Answers that can't be read: each is "could not ask" with its words, and none is an error of our own."""

from __future__ import annotations

import copy
import functools
import http.client
import json
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.errors import LabStateError
from lab.health.checks import cases
from lab.health.checks.check import Case, LabCheck
from lab.health.cluster import Api, ask_health, read_nodes, read_pods
from lab.health.facts.api import ask_api, read_endpoints, read_kube_proxy_server, read_leases, read_restarts
from lab.health.facts.gather import Facts, gather
from lab.health.facts.machine import Section, read_machine
from lab.health.facts.probes import read_why_not_ready
from lab.health.reading import UNREADABLE, read, server_in
from lab.unknown import CouldNotAsk, Unknown, known
from lab.workshop.task.catalogue import TASKS
from lab.workshop.task.kept import Kept
from lab.workshop.task.task import Sight
from lab.workspace import Workspace
from tests.unit.fakes import FakeRemote
from tests.unit.recorded_facts import FOLDER, Alter, api, clock, facts, files, lab, section, told

NO_CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
OTHER_WORDS = (
    *("", " ", "\n\n", "no such thing", "a = b", "a=b", "a b", "# /x", "-- after", "0", "null", "true", '"x"'),
    *("[]", "{}", "[1]", '["x"]', "[{}]", '[{"Status": {"header": []}}]', '{"members": [{"ID": "1"}]}'),
    *('{"members": {}}', '{"alarms": [{}]}', '{"alarms": [{"alarm": []}]}', "[" * 5000, "pxname,svname\n1"),
    f"# /x\n{NO_CERTIFICATE}",
    "pxname,svname,status,stot\napiserverbackend,cp1\n",
    "pxname,svname,status,stot\napiserverbackend,cp1,UP,many\n",
)
OF_EACH_ROLE = ("lb1", "cp1", "w1")
SECTIONS = [(name, part) for name in OF_EACH_ROLE for part in known(facts().machines[name]).sections]


def shorter(text: str) -> Iterator[str]:
    """The beginnings of a text: a connection may break anywhere."""
    yield from (text[: len(text) * part // 7] for part in range(7))
    yield text[:-1]


class Watched(dict[str, Section]):
    """A machine's answers, which keep the names of those that are asked for."""

    def __init__(self, answers: Mapping[str, Section]) -> None:
        """Nothing was asked for yet."""
        super().__init__(answers)
        self.asked: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        """Keep the name."""
        self.asked.add(name)
        return super().get(name, default)


@functools.cache
def judges() -> Mapping[tuple[str, str], Sequence[Callable[[Facts], object]]]:
    """Every check and task that needs an answer, by its machine and its name. Others can't differ by it."""
    every: list[Callable[[Facts], object]] = [case.judge for case in cases(lab())]
    every += [functools.partial(_task, number) for number in range(7)]  # the eighth is all checks again
    found: dict[tuple[str, str], list[Callable[[Facts], object]]] = {part: [] for part in SECTIONS}
    for judge in every:
        watched = {name: Watched(known(machine).sections) for name, machine in facts().machines.items()}
        machines = {name: replace(known(facts().machines[name]), sections=s) for name, s in watched.items()}
        judge(replace(facts(), machines=machines))
        for part in SECTIONS:
            if part[1] in watched[part[0]].asked:
                found[part].append(judge)
    return found


def _task(number: int, altered: Facts) -> object:
    return TASKS[number].judge(Sight(lab(), altered, Kept()))


@pytest.mark.slow
@pytest.mark.parametrize(("machine", "name"), SECTIONS)
def test_whatever_a_machine_answers_no_error_escapes(machine: str, name: str) -> None:
    text = known(facts().machines[machine]).sections[name].text
    for other in (*OTHER_WORDS, *shorter(text)):
        altered = section(machine, name, other)(facts())
        for judge in judges()[machine, name]:
            judge(altered)


def test_every_answer_is_judged_by_something() -> None:
    unjudged = {name for (_, name), found in judges().items() if not found}
    # Read with the machine itself, by `up` (plans.already), or for the cause where a kubelet does not run.
    assert unjudged == {"script", "clock", "given", "kubelet-error"}


@pytest.mark.parametrize(
    "text", ["", "== ", "== script 0", "== a 99999999999999999999\n", "\0", "== clock 0\nnan"]
)
def test_a_machine_whose_answers_are_torn_is_unknown(text: str) -> None:
    with pytest.raises(CouldNotAsk):
        read_machine("w1", text, 0.0, 1.0)


@pytest.mark.parametrize("text", ["", "noon", "nan", "inf", "1e999"])
def test_a_clock_that_can_t_be_read_keeps_only_the_clock_from_being_judged(text: str) -> None:
    before, _, _ = told("w1").rpartition("== clock 0\n")
    machine = read_machine("w1", f"{before}== clock 0\n{text}", 0.0, 1.0)
    altered = replace(facts(), machines={**facts().machines, "w1": machine})
    assert [v.title for v in judged(altered) if v.outcome == "could-not-ask"] == ["clock[w1]"]
    assert [v.title for v in judged(altered) if v.outcome == "fails"] == []


def test_a_machine_that_says_nothing_of_its_clock_is_not_taken_for_punctual() -> None:
    before, _, _ = told("w1").rpartition("== clock 0\n")
    machine = read_machine("w1", before, clock("w1"), clock("w1"))
    assert machine.skew == Unknown("w1 said nothing of clock")


def judged(altered: Facts) -> list[Any]:
    return [case.judge(altered) for case in cases(lab())]


def test_an_answer_that_can_t_be_read_is_named_with_its_machine_and_its_beginning() -> None:
    altered = section("cp2", "etcd-status", "Error: " + "x" * 200)(facts())
    with pytest.raises(CouldNotAsk) as caught:
        _ = known(altered.machines["cp2"]).etcd_status
    assert caught.value.message == (
        f"cp2's answer to etcd-status can't be read (JSONDecodeError): Error: {'x' * 73}…"
    )
    assert isinstance(caught.value.__cause__, json.JSONDecodeError)


def test_no_secret_is_quoted_of_an_answer_that_can_t_be_read() -> None:
    with pytest.raises(CouldNotAsk) as caught:
        read("it", "abcdef.0123456789abcdef", json.loads)
    assert caught.value.message == "it can't be read (JSONDecodeError): [bootstrap token]"
    with pytest.raises(CouldNotAsk) as caught:
        read(
            "it", {"items": [{"data": "S3CRET"}]}, lambda answer: int(answer["items"][0]["data"]), quoted=False
        )
    assert "S3CRET" not in "".join(traceback.format_exception(caught.value))


def test_only_a_reader_s_errors_are_taken_for_an_answer_that_can_t_be_read() -> None:
    def broken(*_: object) -> Any:
        raise KeyError("a fault of the kit")

    with pytest.raises(KeyError):
        Case("group", LabCheck("name", broken, "means", "hint"), lab()).judge(facts())


# The API's answers.


MISSING = object()


def paths(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there is something in a JSON value, of each list in its first element."""
    if here:
        yield here
    inside = (
        value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    )
    for key, each in inside:
        yield from paths(each, (*here, key))


def otherwise(answer: Any) -> Iterator[Any]:
    """The answer with one thing missing, or of another type."""
    others: tuple[Any, ...] = (MISSING, None, 5, True, "x", [], {}, ["x"], [{}])
    for path in paths(answer):
        for other in others:
            yield with_another(answer, path, other)


def with_another(answer: Any, path: Sequence[Any], other: Any) -> Any:
    """The answer with another value at a path, or none there. What is beside the path is shared, not copied."""
    first, *rest = path
    copied = copy.copy(answer)
    if rest:
        copied[first] = with_another(answer[first], rest, other)
    elif other is MISSING:
        del copied[first]
    else:
        copied[first] = other
    return copied


def recorded(name: str) -> Any:
    """A recorded answer, of whose list two are enough: of leases, those of leaders."""
    answer = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    if "items" in answer:
        items = sorted(
            answer["items"], key=lambda item: item["metadata"]["name"], reverse=name == "leases.json"
        )
        answer["items"] = items[:2]
    return answer


READERS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Alter]]] = {
    "nodes.json": (read_nodes, lambda found: api(nodes=found)),
    "pods.json": (read_pods, lambda found: api(pods=found)),
    "leases.json": (read_leases, lambda found: api(leases=found)),
    "endpoints.json": (read_endpoints, lambda found: api(endpoints=found)),
    "kube-proxy.json": (read_kube_proxy_server, lambda found: api(kube_proxy_server=found)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_whatever_the_api_answers_no_error_escapes(name: str) -> None:
    reader, alter = READERS[name]
    unread, seen = 0, [reader(recorded(name))]
    for answer in ({}, {"items": None}, *otherwise(recorded(name))):
        try:
            found = reader(answer)
        except CouldNotAsk:
            unread += 1
            continue
        if found not in seen:  # most of what is altered is not read
            seen.append(found)
            for case in API_CASES:
                case.judge(alter(found)(facts()))
    assert unread > 2


API_CASES = [case for case in cases(lab()) if case.node in (None, lab().first)]


def test_whatever_the_list_of_pods_is_restarts_are_counted_or_unknown() -> None:
    for answer in otherwise(recorded("pods.json")):
        try:
            assert all(isinstance(count, int) for count in read_restarts(answer).values())
        except CouldNotAsk:
            continue


def test_a_time_without_its_offset_can_t_be_compared_and_so_not_be_read() -> None:
    answer = recorded("leases.json")
    answer["items"][0]["spec"]["renewTime"] = "2026-11-24T22:32:15"
    with pytest.raises(CouldNotAsk, match="list of leases can't be read"):
        read_leases(answer)


def test_a_probe_pod_that_is_no_pod_is_for_its_reader_to_refuse() -> None:
    for item in otherwise({"status": {"conditions": [{"type": "Ready", "status": "True"}], "phase": "x"}}):
        try:
            read_why_not_ready(item)
        except UNREADABLE:
            continue


class Babbling(Api):
    """An API that answers everything with the same words."""

    def __init__(self, words: str) -> None:
        """Connect to nothing."""
        self.words = words

    def request(
        self, method: str, path: str, body: object = None, content_type: str = "application/json"
    ) -> tuple[int, str]:
        """Answer."""
        return 200, self.words


@pytest.mark.parametrize(
    "words", ["", "S3CRET", "[]", "null", '{"items": "S3CRET"}', '{"items": [{"data": "S3CRET"}]}']
)
def test_an_api_that_babbles_is_unknown_and_not_quoted_where_secrets_are(words: str) -> None:
    found = ask_api(lab(), Babbling(words), Unknown("no CA"))
    for fact in (
        found.nodes,
        found.pods,
        found.leases,
        found.endpoints,
        found.kube_proxy_server,
        found.restarts,
    ):
        assert isinstance(fact, Unknown)
        assert "can't be read" in fact.reason
    assert isinstance(found.secrets, Unknown)
    assert "S3CRET" not in found.secrets.reason


# This host's files.


@pytest.mark.parametrize("ca", ["", " ", "no certificate", NO_CERTIFICATE])
def test_a_ca_that_can_t_be_read_keeps_its_checks_from_being_judged(
    ca: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = [v for v in judged(files(ca=ca)(facts())) if v.outcome != "holds"]
    assert {(v.name, v.outcome) for v in bad} == {
        ("cluster-ca", "could-not-ask"),
        ("kubelet-certificate", "could-not-ask"),
    }
    monkeypatch.delattr(http.client, "HTTPSConnection")  # nothing may be sent
    with pytest.raises(LabStateError, match="certificate can't be read"):
        ask_health(lab().first.address, 6443, "/readyz", ca)


def test_files_that_are_no_text_are_unknown(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.write(workspace.kubeconfig, b"\xff")
    found = gather(lab(), workspace, FakeRemote(lab(), workspace), lambda node, *_: "", probes=False, of=())
    assert isinstance(found.files, Unknown)
    assert isinstance(found.api.nodes, Unknown)


@pytest.mark.parametrize(
    "line",
    [
        "server: https://192.168.56.10:6443",
        'server: "https://192.168.56.10:6443"',
        "server:  'https://192.168.56.10:6443' # the load balancer",
    ],
)
def test_a_kubeconfig_s_server_is_read_by_its_value(line: str) -> None:
    url = "https://192.168.56.10:6443"
    text = f"clusters:\n- cluster:\n    {line}\n    server: another\n"
    assert server_in(text) == url
    assert read_kube_proxy_server({"data": {"kubeconfig.conf": text}}) == url
    assert server_in("clusters: []\n") == server_in("server:\n") == ""
