"""This room is what the report says, in English and Korean: headings, figures, probes, marks.

A `Said` always has both, so that no text can exist in one language only. Names that are not known here
(a new figure, a lab's own machine) are told as they are.
"""

from __future__ import annotations

from typing import NamedTuple


class Said(NamedTuple):
    """One text in both languages."""

    en: str
    ko: str


PROBES = {
    "connections": Said("New connections", "새 연결"),
    "writes": Said("Writes", "쓰기"),
    "service": Said("Service", "서비스"),
    "watch": Said("Watch", "watch"),
    "pauses": Said("Host pauses", "호스트 멈춤"),
}
"""What asks, or is looked at; the first part of a figure's name."""

MEASURES = {
    "asked": Said("requests", "요청 수"),
    "failed": Said("failed", "실패"),
    "failed_after_5s": Said("failed later than 5 s after injection", "주입 5초 이후 실패"),
    "failed_before": Said("failed before injection", "주입 전 실패"),
    "in_flight_lost": Said("lost in flight at injection", "주입 순간 처리 중이던 요청 유실"),
    "slow": Said("slow (over 1 s)", "지연(1초 초과)"),
    "slow_paused": Said("slow while the host paused", "호스트 멈춤 중 지연"),
    "slowest_s": Said("slowest (s)", "최장 응답 시간(초)"),
    "longest_gap_s": Said("longest gap (s)", "최장 공백(초)"),
    "gap_paused_s": Said("host paused in the longest gap (s)", "최장 공백 중 호스트 멈춤(초)"),
    "longest_s": Said("longest (s)", "최장(초)"),
    "gap_s": Said("longest gap (s)", "최장 공백(초)"),
    "lost": Said("acknowledged but lost", "응답을 받고도 유실"),
    "missed": Said("events missed", "누락된 이벤트"),
    "repeated": Said("events repeated", "중복된 이벤트"),
    "out_of_order": Said("events out of order", "순서가 뒤바뀐 이벤트"),
    "cut": Said("connections cut", "연결 끊김"),
}
"""What is counted or timed; the second part of a figure's name."""

COLUMNS = MEASURES | {
    "slow": Said("slow", "지연"),
    "lost": Said("lost", "유실"),
    "missed": Said("missed", "누락"),
    "repeated": Said("repeated", "중복"),
}
"""The same, for the narrow columns of a table that says above them what asks."""

FIGURES = {
    "detect_s": Said("Time to detect (s)", "장애 감지 시간(초)"),
    "leader_changes": Said("etcd leader changes", "etcd 리더 변경"),
    "writes.lost": Said("Acknowledged writes lost", "응답받은 쓰기 유실"),
    "whole_s": Said("All whole (s)", "전체 정상 복귀(초)"),
}
"""Figures whose name has no two parts, or that deserve better words than their parts make."""

DETECT, WHOLE = "detect_s.", "whole_s."
"""What the figures of each thing noticed and of each component's return begin with."""

PHRASES = (
    ("HAProxy takes ", " out", "HAProxy가 {} 제외"),
    ("", " is not Ready", "{} NotReady 판정"),
    ("", " behind the load balancer", "{} 로드 밸런서 복귀"),
    ("", " API server", "{} API 서버"),
    ("the workload runs elsewhere", "", "워크로드 재배치"),
    ("the API", "", "API"),
)
"""What drills mark, by how it begins and ends, and in Korean; {} is the machine between."""

MARKS = {
    "inject": Said("inject", "주입"),
    "detect": Said("detect", "감지"),
    "heal": Said("heal", "해제"),
    "whole": Said("whole", "정상화"),
}

CHOSEN = {
    "worst": Said("the worst", "결과가 가장 나쁜 회차"),
    "median": Said("the median by its longest gap", "최장 공백이 중간인 회차"),
}
"""Why a run is the one that is shown."""

LANES = {
    "connections": Said("New connections through the load balancer", "로드 밸런서를 거친 새 연결"),
    "writes": Said("Writes on one connection", "한 연결에서 이어지는 쓰기"),
    "watch": Said("Watch: each write as it was seen", "watch: 쓰기가 이벤트로 도착한 시점"),
    "service": Said("Service of the cluster, asked at the workers", "워커 노드에서 호출한 클러스터 서비스"),
}

FACTS = {
    "lab": Said("Lab", "랩"),
    "kubernetes": Said("Kubernetes", "쿠버네티스"),
    "provider": Said("Provider", "프로바이더"),
    "began": Said("Began", "시작"),
    "cores": Said("Cores", "CPU 코어"),
    "cpus": Said("Cores", "CPU 코어"),
    "memory": Said("Memory", "메모리"),
    "kernel": Said("Kernel", "커널"),
    "load": Said("Load", "부하"),
}

HEADINGS = {
    "title": Said("Failure drills", "장애 훈련 보고서"),
    "summary": Said("At a glance", "한눈에 보기"),
    "summary_note": Said(
        "Medians over the runs of a drill, with least and most where runs differ; "
        "below them the limit, with ✓ where every run kept it and ✗ where one did not.",
        "각 훈련을 반복한 결과의 중앙값이며, 회차마다 다르면 최솟값과 최댓값을 함께 적었습니다. "
        "그 아래는 기준이며, 모든 회차가 기준을 지켰으면 ✓, 하나라도 넘었으면 ✗로 표시했습니다.",
    ),
    "drill": Said("Drill", "훈련"),
    "profile": Said("Profile", "프로파일"),
    "verdict": Said("Verdict", "판정"),
    "figure": Said("Figure", "지표"),
    "value": Said("Median", "중앙값"),
    "limit": Said("Limit", "기준"),
    "run": Said("Run", "회차"),
    "passed": Said("passed", "통과"),
    "failed": Said("failed", "실패"),
    "unseen": Said("not seen", "미관측"),
    "no_results": Said("No drill was run.", "실행한 훈련이 없습니다."),
    "reading": Said("How to read the timelines", "타임라인 읽는 법"),
    "figures": Said("Figures", "측정 지표"),
    "all_runs": Said("Every run", "모든 회차"),
    "problem": Said("Not carried through", "끝까지 진행하지 못함"),
    "victims": Said("Machines hit", "장애를 주입한 머신"),
    "unknown": Said(
        "This kit has no description of this drill.", "이 훈련에 대한 설명이 등록되어 있지 않습니다."
    ),
    "answered": Said("answered", "정상 응답"),
    "slow": Said("slow (over 1 s)", "지연(1초 초과)"),
    "cut": Said("failed or cut", "실패 또는 끊김"),
    "pause": Said("host paused (nobody's fault)", "호스트 멈춤(측정 제외 구간)"),
    "height": Said(
        "The height of a bar is the slowest answer of its moment, from 1 ms to 10 s on a logarithmic scale; "
        "the dotted line is 1 s. Blank means that nothing was asked or nothing came. The numbers beside a row "
        "count the whole run; those in the tables count from the injection.",
        "막대의 높이는 해당 구간에서 가장 느린 응답 시간이며, 1ms부터 10초까지 로그 눈금입니다. "
        "점선은 1초를 나타냅니다. 빈 곳은 요청이나 이벤트가 없던 구간입니다. 타임라인 옆의 숫자는 실행 전체를, "
        "표의 숫자는 장애를 주입한 이후를 집계한 것입니다.",
    ),
    "axis": Said("seconds from injection", "장애 주입 후 경과 시간(초)"),
    "axis_start": Said(
        "seconds from the start (nothing was injected)", "시작 후 경과 시간(초, 장애 주입 없음)"
    ),
    "nothing": Said("nothing recorded", "기록 없음"),
    "components": Said("Components whole again", "구성 요소 정상 복귀"),
    "top": Said("Back to the top", "맨 위로"),
}


def figure(name: str) -> Said:
    """Return what a figure is called; one that is not known is called by its name."""
    if name in FIGURES:
        return FIGURES[name]
    if name.startswith(WHOLE):
        component = phrase(name.removeprefix(WHOLE))
        return Said(f"{component.en} whole again (s)", f"{component.ko} 정상 복귀(초)")
    if name.startswith(DETECT):
        noticed = phrase(name.removeprefix(DETECT))
        return Said(f"until {noticed.en} (s)", f"{noticed.ko}까지(초)")
    probe, _, measure = name.partition(".")
    if probe in PROBES and measure in MEASURES:
        first, second = PROBES[probe], MEASURES[measure]
        return Said(f"{first.en}: {second.en}", f"{first.ko}: {second.ko}")
    return Said(name, name)


def phrase(what: str) -> Said:
    """Return what a drill marked; as it is in both languages where it is not known."""
    for begins, ends, korean in PHRASES:
        if what.startswith(begins) and what.endswith(ends):
            return Said(what, korean.format(what[len(begins) : len(what) - len(ends)]))
    return Said(what, what)


def number(value: float) -> str:
    """Return a figure as people read it: counts whole, seconds with as many digits as matter."""
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:,.1f}"


def spread(low: float | None, high: float | None) -> str:
    """Return the least and the most; "" where they would be told alike."""
    if low is None or high is None or number(low) == number(high):
        return ""
    return f"{number(low)}–{number(high)}"


def limit(limits: list[float | None]) -> str:
    """Return a figure's limit; that of each profile, in their order, where they differ."""
    told = ["–" if most is None else f"≤ {number(most)}" for most in limits]
    return " / ".join(told) if len(set(told)) > 1 else told[0]


def mark(kind: str, seconds: float) -> Said:
    """Return the short words beside a mark of a timeline."""
    said = MARKS[kind]
    return Said(f"{said.en} {seconds:.1f} s", f"{said.ko} {seconds:.1f}초")


def headline(passed: int, runs: int) -> Said:
    """Return the verdict over everything."""
    ran = "run" if runs == 1 else "runs"
    return Said(f"{passed} of {runs} {ran} passed", f"전체 {runs}회 중 {passed}회 통과")


def chosen(run: int, runs: int, reason: str) -> Said:
    """Return which run a timeline shows, and why that one."""
    if runs == 1:
        return Said("the only run", "1회 실행")
    which, why = nth(run, runs), CHOSEN[reason]
    return Said(f"{which.en}: {why.en}", f"{which.ko}({why.ko})")


def nth(run: int, runs: int) -> Said:
    """Return which run of how many."""
    return Said(f"run {run} of {runs}", f"{runs}회 중 {run}회차")


def counts(probe: str, asked: int, slow: int, failed: int) -> Said:
    """Return what a lane of a timeline adds up to; of the watch, what failed are connections that were cut."""
    if probe == "watch":
        return Said(
            f"{asked:,} events · {slow:,} slow · {failed:,} cut",
            f"이벤트 {asked:,} · 지연 {slow:,} · 끊김 {failed:,}",
        )
    return Said(
        f"{asked:,} asked · {slow:,} slow · {failed:,} failed",
        f"요청 {asked:,} · 지연 {slow:,} · 실패 {failed:,}",
    )


def picture(title: Said, profile: str, run: Said) -> Said:
    """Return the name of a timeline."""
    return Said(f"Timeline: {title.en}, {profile}, {run.en}", f"타임라인: {title.ko}, {profile}, {run.ko}")


def over(broken: int, runs: int) -> Said:
    """Return in how many runs a figure did not hold."""
    return Said(f"failed in {broken} of {runs}", f"{runs}회 중 {broken}회 실패")


def unseen(count: int, runs: int) -> Said:
    """Return in how many runs a figure was not seen at all."""
    return Said(f"not seen in {count} of {runs}", f"{runs}회 중 {count}회 미관측")
