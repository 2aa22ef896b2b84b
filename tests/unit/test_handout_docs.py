"""The chapters themselves: both languages alike, each with its task, valid commands, and facts that hold."""

from __future__ import annotations

import functools
import re

import pytest

from lab import config
from lab.drill.catalogue import DRILLS
from lab.drill.recording import Report
from lab.health.status import EXIT_CODES
from lab.model import Lab
from lab.system.paths import REPOSITORY
from lab.workshop.handout import chapters, prose
from lab.workshop.handout.chapters import Chapter
from lab.workshop.handout.context import asks_its_own_server, context, detection
from lab.workshop.handout.page import Cover, page
from lab.workshop.handout.prose import Command
from lab.workshop.task.catalogue import TASKS
from lab.workspace import render
from tests.unit import drills
from tests.unit.test_handout_page import SIZES, sized
from tests.unit.test_readme import parse
from tests.walk.test_walk import SAME_BY_HAND
from tests.whole import rows

LAB = config.default()
NAMES = {
    language: sorted(path.name for path in (chapters.FOLDER / language).glob("*.md"))
    for language in chapters.LANGUAGES
}
PLACES = r"\b(?:\d{1,3}\.){3}\d{1,3}\b"
"""An address; only those of loopback may be written in a chapter."""
VERSIONS = re.compile(r"\bv?(?:1\.3\d(?:\.\d+)?|3\.\d\.\d+|0\.28\.\d+)\b")
PLAIN_HOSTS = re.compile(r"\b(?:[a-z0-9-]+\.)+(?:org|com|io|dev|net|cloud)\b")
KNOWN_HOSTS = {"kubernetes.io", "etcd.io", "haproxy.org", "docs.haproxy.org", "k8s.io"}
KUBERNETES_OWN = re.compile(r".*\.(kubernetes\.io|config\.k8s\.io)|(kubeadm|coordination)\.k8s\.io")
"""Names of labels, finalizers and API groups, which are never resolved."""


@functools.cache
def read(language: str) -> tuple[Chapter, ...]:
    return read_for(LAB, language)


def read_for(lab: Lab, language: str) -> tuple[Chapter, ...]:
    return chapters.read(language, context(lab, language, found=measured()), chapters.FOLDER)


@functools.cache
def measured() -> Report:
    return drills.whole_report(runs=1, count=50)


def test_every_chapter_is_there_in_both_languages_and_every_task_has_one() -> None:
    assert NAMES["en"] == NAMES["ko"]
    assert [int(name[:2]) for name in NAMES["en"]] == [task.number for task in TASKS]
    for language in chapters.LANGUAGES:
        assert [each.task for each in read(language)] == [task.number for task in TASKS]


def test_both_languages_have_the_same_commands_boxes_and_times() -> None:
    for english, korean in zip(read("en"), read("ko"), strict=True):
        assert english.minutes == korean.minutes, english.path.name
        ways = [
            [
                (each.on, each.text, each.way, each.instructor, each.exits)
                for each in prose.commands(chapter, LAB)
            ]
            for chapter in (english, korean)
        ]
        assert ways[0] == ways[1], english.path.name
        boxes = [re.findall(r"^\s*:{3,}\s*(\w+)$", each.text, re.MULTILINE) for each in (english, korean)]
        assert boxes[0] == boxes[1], english.path.name


def test_a_lab_with_two_load_balancers_is_written_about_in_both_languages() -> None:
    pair = config.load(REPOSITORY / "examples" / "two-load-balancers.yaml")
    english, korean = (read_for(pair, language) for language in ("en", "ko"))
    for one, other in zip(english, korean, strict=True):
        mine, yours = ([(c.on, c.text, c.way) for c in prose.commands(each, pair)] for each in (one, other))
        assert mine == yours, one.path.name
    third = [(c.on, c.text.strip()) for c in prose.commands(english[2], pair)]
    script = "/opt/ha-lab/load-balancer.sh"
    assert [on for on, text in third if text == script] == ["lb1", "lb2"]
    assert "192.168.62.5" in english[0].text
    assert "lb2" in korean[0].text
    small = with_control_planes(pair, 1)
    ninth = "".join(c.text for c in prose.commands(read_for(small, "en")[8], small))
    assert "kill-load-balancer" not in ninth, "whose loss would not stop the API"
    assert script not in "".join(c.text for chapter in read("en") for c in prose.commands(chapter, LAB))


TOPOLOGIES = ("external-etcd", "external-etcd-small", "two-load-balancers")
"""The examples that differ from the default lab in more than numbers."""


@functools.cache
def example(name: str) -> Lab:
    return config.load(REPOSITORY / "examples" / f"{name}.yaml")


def typed(lab: Lab, language: str) -> list[tuple[int, Command]]:
    """Each command of a lab's handout, with the number of its chapter."""
    return [(each.number, c) for each in read_for(lab, language) for c in prose.commands(each, lab)]


@pytest.mark.parametrize("language", chapters.LANGUAGES)
@pytest.mark.parametrize("name", ["", *TOPOLOGIES])
def test_etcdctl_is_typed_only_where_etcd_runs(name: str, language: str) -> None:
    lab = example(name) if name else LAB
    of_etcd = [(number, c) for number, c in typed(lab, language) if "etcdctl" in c.text]
    assert {number for number, _ in of_etcd} >= {2, 6, 8, 9, 10}
    members = [node.name for node in lab.etcd_members]
    assert [(number, c.on) for number, c in of_etcd if c.on not in members] == []
    assert [number for number, c in of_etcd if "kubectl" in c.text] == []


@pytest.mark.parametrize("control_planes", [1, 3])
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_both_languages_have_the_same_commands_for_every_topology(name: str, control_planes: int) -> None:
    lab = with_control_planes(example(name), control_planes)
    english, korean = (
        [(n, c.on, c.text, c.way, c.instructor, c.exits) for n, c in typed(lab, language)]
        for language in ("en", "ko")
    )
    assert english == korean


@pytest.mark.parametrize("language", chapters.LANGUAGES)
@pytest.mark.parametrize("name", TOPOLOGIES[:2])
def test_a_control_plane_without_etcd_is_not_said_to_have_it(name: str, language: str) -> None:
    text = "".join(chapter.text for chapter in read_for(example(name), language))
    stacked = (
        *("etcd.local.dataDir", "`etcd/ca.key`", "too many learner", "/var/log/pods/kube-system_etcd-cp1"),
        *("eight files", "four static", "four files", "여덟", "파일 네 개", "파드 네 개", "파드 넷"),
    )
    assert [words for words in stacked if words in text] == []
    assert "etcd.external" in text
    assert "`/etc/kubernetes/pki/apiserver-etcd-client.crt`" in text


@pytest.mark.parametrize("language", chapters.LANGUAGES)
def test_a_stacked_lab_s_handout_is_about_stacked_etcd(language: str) -> None:
    text = "".join(chapter.text for chapter in read(language))
    words = ("etcd.local.dataDir", "`etcd/ca.key`", "too many learner", "/var/log/pods/kube-system_etcd-cp1")
    assert [each for each in words if each not in text] == []
    assert "etcd.external" not in text
    assert "apiserver-etcd-client.crt" not in text
    assert {c.on for _, c in typed(LAB, language)} == {"host", *(node.name for node in LAB.nodes)}


def test_etcd_s_losses_are_counted_by_its_members() -> None:
    small, stacked = example("external-etcd-small"), sized(1, 1)
    said = "This lab has 1 control plane and {}; etcd survives the loss of {}."
    assert said.format("3 etcd members", 1) in read_for(small, "en")[8].text
    assert said.format("1 etcd member", 0) in read_for(stacked, "en")[8].text
    assert "잃어도 되는 멤버는 1개" in " ".join(read_for(small, "ko")[8].text.split())


def with_control_planes(lab: Lab, most: int) -> Lab:
    left_out = lab.control_planes[most:]
    return lab.model_copy(update={"nodes": tuple(node for node in lab.nodes if node not in left_out)})


@pytest.mark.parametrize("control_planes", [1, 3])
@pytest.mark.parametrize("name", ["", *TOPOLOGIES])
def test_chapter_nine_leaves_a_fault_in_that_chapter_ten_removes(name: str, control_planes: int) -> None:
    lab = with_control_planes(example(name) if name else LAB, control_planes)
    ninth, tenth = ([c for n, c in typed(lab, "en") if n == number] for number in (9, 10))
    (kept,) = [c.text.split()[2] for c in ninth if c.text.endswith("--keep")]
    (drill,) = [each for each in DRILLS if each.name == kept]
    assert drill.lab_problem(lab) is None
    assert tenth[0].text == "./inv drill --heal"


@pytest.mark.parametrize("language", chapters.LANGUAGES)
def test_haproxy_s_page_is_read_where_the_api_s_address_is(language: str) -> None:
    pair = example("two-load-balancers")
    asked = [c.text for _, c in typed(pair, language) if ":8404/" in c.text]
    assert len(asked) == 3
    assert [each for each in asked if "http://192.168.62.5:8404/" not in each] == []


@pytest.mark.parametrize("language", chapters.LANGUAGES)
def test_every_line_of_haproxy_that_is_explained_for_two_load_balancers_is_there(language: str) -> None:
    complete, *parts = fences(read_for(example("two-load-balancers"), language)[2].text, "haproxy")
    lines = {line.strip() for line in complete.splitlines()}
    explained = {line.strip() for part in parts for line in part.splitlines() if line.strip()}
    assert explained <= lines
    assert {"bind 192.168.62.5:8404 transparent", "stats show-node lb1"} <= explained


def test_chapters_walked_only_by_hand_have_no_command_of_the_other_way() -> None:
    ways = {
        c.way for chapter in read("en") if chapter.number in SAME_BY_HAND for c in prose.commands(chapter, LAB)
    }
    assert "" in ways
    assert "watch" not in ways


def test_every_chapter_ends_with_the_command_that_asks_for_its_task() -> None:
    for language in chapters.LANGUAGES:
        for chapter in read(language):
            last = prose.commands(chapter, LAB)[-1]
            assert (last.on, last.text, last.way) == ("host", f"./inv task {chapter.task}", ""), chapter.path


def test_each_way_begins_with_its_command() -> None:
    first = prose.commands(read("en")[0], LAB)
    assert next(each.text for each in first if each.way == "watch") == "./inv up"
    assert next(each.text for each in first if each.way == "hand") == "./inv up --until load-balancer"


@pytest.mark.slow
@pytest.mark.parametrize("language", rows(chapters.LANGUAGES, usual=["ko"]))
@pytest.mark.parametrize(("control_planes", "workers"), SIZES)
def test_chapters_make_sense_for_labs_of_every_size(language: str, control_planes: int, workers: int) -> None:
    lab = sized(control_planes, workers)
    for edition in prose.EDITIONS:
        text = page(lab, language, edition, read_for(lab, language), Cover("2025-11-24", up=False))
        assert "192.168.56." not in text, "an address is written in the chapter"
    values = context(lab, language)
    assert values["measured"] is None
    assert chapters.read(language, values, chapters.FOLDER)


@pytest.mark.parametrize("language", chapters.LANGUAGES)
def test_every_command_of_the_kit_is_one_that_it_understands(language: str) -> None:
    for chapter in read(language):
        for command in prose.commands(chapter, LAB):
            for line in re.findall(r"\./inv [^|;&\n>]*", command.text):
                parse(line.split(" -- ")[0].strip())
        for span in re.findall(r"`(\./inv [^`]+)`", chapter.text):
            parse(" ".join(span.split()).split(" -- ")[0].split(" | ")[0])


@pytest.mark.parametrize("language", chapters.LANGUAGES)
def test_no_version_is_written_and_no_registry_is_named(language: str) -> None:
    for name in NAMES[language]:
        text = (chapters.FOLDER / language / name).read_text(encoding="utf-8")
        addresses = [each for each in re.findall(PLACES, text) if not each.startswith(("127.", "0."))]
        assert addresses == [], name
        assert VERSIONS.findall(re.sub(r"\{\{.*?\}\}", "", text)) == [], name
        hosts = set(PLAIN_HOSTS.findall(text.lower())) - KNOWN_HOSTS
        assert sorted(each for each in hosts if not KUBERNETES_OWN.fullmatch(each)) == [], name


@pytest.mark.parametrize("language", chapters.LANGUAGES)
def test_no_secret_and_nothing_that_looks_like_one_is_in_a_chapter(language: str) -> None:
    for chapter in read(language):
        assert not re.search(r"\b[a-z0-9]{6}\.[a-z0-9]{16}\b", chapter.text), chapter.path
        assert not re.search(r"\b[0-9a-f]{64}\b", chapter.text), chapter.path
        assert "PRIVATE KEY-----" not in chapter.text, chapter.path


# Facts that were wrong once.


def with_version(version: str) -> Lab:
    return LAB.model_copy(update={"kubernetes": LAB.kubernetes.model_copy(update={"version": version})})


def fences(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("language", chapters.LANGUAGES)
def test_every_line_of_haproxy_that_is_explained_is_in_the_configuration(language: str) -> None:
    complete, *parts = fences(read(language)[2].text, "haproxy")
    lines = {line.strip() for line in complete.splitlines()}
    explained = [line.strip() for part in parts for line in part.splitlines() if line.strip()]
    assert "clitcpka-idle 60s" in explained
    assert [line for line in explained if line not in lines] == []


@pytest.mark.parametrize("language", chapters.LANGUAGES)
@pytest.mark.parametrize("emulated", [False, True])
def test_chapters_three_and_nine_have_the_same_detection_time(language: str, emulated: bool) -> None:
    lab = LAB.model_copy(update={"emulated": emulated})
    least, most = detection(lab)
    expected = f"{least} to {most} s" if language == "en" else f"{least}~{most}초"
    found = read_for(lab, language)
    assert expected in found[2].text
    assert expected in " ".join(found[8].text.split())


def test_detection_is_what_haproxy_is_configured_for() -> None:
    haproxy = render.template("haproxy.tuned.cfg.j2", **render.template_values(LAB, LAB.balancers[0]))
    connect, fast, interval = (
        int(re.findall(rf"{name} (\d+)(?:ms|s)", haproxy)[0]) for name in ("connect", "fastinter", " inter")
    )
    least = (2 * connect + fast) / 1000
    assert detection(LAB) == (least, least + interval)


@pytest.mark.parametrize("language", chapters.LANGUAGES)
def test_no_command_hides_its_exit_code(language: str) -> None:
    for chapter in read(language):
        assert not [each.text for each in prose.commands(chapter, LAB) if "$? -eq" in each.text], chapter.path


def test_status_ends_with_the_code_that_chapters_nine_and_eleven_name() -> None:
    found = [
        (chapter.number, each.exits)
        for chapter in read("en")
        for each in prose.commands(chapter, LAB)
        if each.text == "./inv status" and each.exits != (0,)
    ]
    assert found == [(9, (EXIT_CODES["degraded"],)), (11, (EXIT_CODES["down"],))]


@pytest.mark.parametrize("language", chapters.LANGUAGES)
def test_no_command_asks_the_deprecated_health_endpoint(language: str) -> None:
    for chapter in read(language):
        assert not [each.text for each in prose.commands(chapter, LAB) if "/healthz" in each.text], chapter.path
        assert ("/healthz" in chapter.text) == (chapter.number == 3), "chapter 3 says that it is deprecated"


@pytest.mark.parametrize("language", chapters.LANGUAGES)
def test_no_umask_stays_in_the_readers_shell(language: str) -> None:
    for chapter in read(language):
        assert not re.search(r"^\s*umask", chapter.text, re.MULTILINE), chapter.path


@pytest.mark.parametrize(
    ("version", "own"),
    [
        ("1.35.4", False),
        ("1.35.5", True),
        ("1.36.0", False),
        ("1.36.1", True),
        ("1.36.3", True),
        ("1.37.2", True),
    ],
)
def test_which_kubeadm_init_asks_its_own_server(version: str, own: bool) -> None:
    assert asks_its_own_server(version) is own


def test_chapter_four_is_about_the_lab_s_own_kubeadm() -> None:
    own, through = (read_for(with_version(version), "en")[3].text for version in ("1.36.3", "1.35.4"))
    assert "asks the API server that it has just started" in own
    assert "uses `admin.conf`, and so the load balancer" in through
    assert "asks the API server that it has just started" not in through
    assert "May 2026" not in own + through


@pytest.mark.parametrize("language", chapters.LANGUAGES)
def test_a_survivor_s_write_ahead_log_is_saved_too(language: str) -> None:
    answer = read(language)[9].text
    assert "`etcdctl snapshot save`" in answer
    assert "`wal`" in answer


# Words.


@pytest.mark.parametrize("word", ["공백", "스택형", "디폴트 라우트", "워커 노드 노드"])
def test_korean_chapters_use_the_field_s_words(word: str) -> None:
    found = [chapter.path.name for chapter in read("ko") if word in " ".join(chapter.text.split())]
    assert found == []


def test_static_pods_have_the_name_of_kubernetes_io_in_korean() -> None:
    text = "".join(chapter.text for chapter in read("ko"))
    assert text.count("정적 파드") == 1, "once, beside the term"
    assert "스태틱 파드(static pod, 정적 파드)" in text


@pytest.mark.parametrize(
    "word", ["anew", "amiss", "whoever", "mend", "mends", "nobody", "is whole", "stands still"]
)
def test_english_chapters_use_ordinary_words(word: str) -> None:
    found = [
        chapter.path.name
        for chapter in read("en")
        if re.search(rf"\b{word}\b", " ".join(chapter.text.split()), re.IGNORECASE)
    ]
    assert found == []
