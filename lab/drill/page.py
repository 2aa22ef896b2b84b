"""Renders a report as one HTML page that needs no other file and no network. Pure.

The page has every text in both languages; its script shows one of them. All content is escaped, and a content
security policy allows only the page's own style and script.
"""

from __future__ import annotations

import itertools
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import jinja2

from lab.drill import onepage, words
from lab.drill.recording import Figure, Report, Result
from lab.drill.stories import STORIES, Story
from lab.drill.summary import Drill, Runs, profiles, summarise
from lab.drill.timeline import BINS, DECADES, DOWN, HELD, UP, Timeline, reach, timeline
from lab.drill.words import (
    CHANGE_HEADINGS,
    CHANGE_MARKS,
    CHANGE_MEASURES,
    DRILL_MARKS,
    HEADINGS,
    LANES,
    MARKS,
    MEASURES,
    PROBES,
)
from lab.texts import Bilingual

HERE = Path(__file__).parent

MAIN = (
    *("detect_s", "connections.longest_gap_s", "connections.failed", "connections.slow"),
    *("writes.longest_gap_s", "writes.failed", "writes.slow", "writes.lost"),
    *("service.longest_gap_s", "service.failed", "watch.missed", "watch.repeated"),
    *("leader_changes", "whole_s"),
)
"""The columns of the table at the top; columns without values are left out."""


def page(report: Report) -> str:
    """Return the report as the text of an HTML file."""
    drills = summarise(report)
    columns = [name for name in MAIN if any(runs.row(name) is not None for d in drills for runs in d.profiles)]
    change = any(drill.title for drill in drills)
    template = _environment(change=change).get_template("page.html.j2")
    return template.render(
        report=report,
        title=Bilingual(*(f"{said}: {report.lab}" for said in _headings(change)["title"])),
        headline=words.headline(sum(result.passed for result in report.results), len(report.results)),
        facts=_facts(report),
        profiles=profiles(report),
        groups=_groups(columns),
        drills=[_drill(drill, columns) for drill in drills],
        **onepage.parts(HERE),
    )


def _groups(columns: list[str]) -> list[tuple[Bilingual | None, list[str]]]:
    """The columns grouped by probe, in their order; columns without a probe are groups of their own."""
    found = itertools.groupby(columns, key=lambda name: name.partition(".")[0] if "." in name else "")
    return [(PROBES.get(probe), list(names)) for probe, names in found]


def _drill(drill: Drill, columns: list[str]) -> dict[str, Any]:
    """One drill's values for the template. The drawings of all its runs have the same scale."""
    story = _story(drill)
    reaches = [reach(result.recording) for runs in drill.profiles for result in runs.results]
    scale = max(before for before, _ in reaches), max(after for _, after in reaches)
    rows = [(name, [runs.row(name) for runs in drill.profiles]) for name in drill.names]
    return {
        "name": drill.name,
        "anchor": f"drill-{drill.name}",
        "title": story.title,
        "text": story.text,
        "profiles": [_runs(runs, story, columns, scale) for runs in drill.profiles],
        "rows": [
            (name, words.limit([row.limit for row in found if row is not None]), found) for name, found in rows
        ],
    }


def _story(drill: Drill) -> Story:
    """A drill's description; for a change, its title, with a general description where there is no other."""
    if drill.title:
        text = STORIES[drill.name].text if drill.name in STORIES else CHANGE_HEADINGS["unknown"]
        return Story(Bilingual(drill.title.en, drill.title.ko), text)
    return STORIES.get(drill.name, Story(Bilingual(drill.name, drill.name), HEADINGS["unknown"]))


def _headings(change: bool) -> dict[str, Bilingual]:
    return CHANGE_HEADINGS if change else HEADINGS


def _runs(runs: Runs, story: Story, columns: list[str], scale: tuple[float, float]) -> dict[str, Any]:
    shown, reason = runs.shown
    count = len(runs.results)
    others = [result for result in runs.results if result is not shown]
    return {
        "profile": runs.profile,
        "count": count,
        "passed": runs.passed,
        "summary": [runs.row(name) for name in columns],
        "shown": _drawn(shown, story, words.chosen(shown.recording.run, count, reason), scale),
        "numbers": [result.recording.run for result in runs.results],
        "each": [(row.name, [_figure(result, row.name) for result in runs.results]) for row in runs.rows],
        "others": [_drawn(r, story, words.nth(r.recording.run, count), scale) for r in others],
    }


def _drawn(result: Result, story: Story, chosen: Bilingual, scale: tuple[float, float]) -> dict[str, Any]:
    recording = result.recording
    line = timeline(recording, *scale)
    zero = recording.started or 0.0
    lanes = [
        {"name": PROBES[lane.name], "counts": words.counts(lane.name, *lane.counts)} for lane in line.lanes
    ]
    return {
        "line": line,
        "profile": recording.profile,
        "chosen": chosen,
        "passed": result.passed,
        "problem": result.problem,
        "exemptions": [Bilingual(each.en, each.ko) for each in result.exemptions],
        "victims": ", ".join(recording.victims),
        "title": words.picture(story.title, recording.profile, chosen),
        "description": _description(line, lanes, [words.held(each.machine) for each in line.holders]),
        "lanes": lanes,
        "holders": [words.held(each.machine) for each in line.holders],
        "marks": [
            (each.at - zero, each.kind, words.phrase(each.what))
            for each in sorted(recording.marks, key=lambda mark: mark.at)
        ],
    }


def _description(line: Timeline, lanes: list[dict[str, Bilingual]], holders: list[Bilingual]) -> Bilingual:
    """A timeline's text alternative: the labelled marks in order of time, the lanes, the address's holders."""
    marks = sorted((each for each in line.lines if each.labelled), key=lambda each: each.seconds)
    said = [words.mark(each.mark.kind, each.seconds) for each in marks]
    said += [
        Bilingual(*(": ".join(both) for both in zip(each["name"], each["counts"], strict=True)))
        for each in lanes
    ]
    said += holders
    return Bilingual(". ".join(each.en for each in said) + ".", ". ".join(each.ko for each in said) + ".")


def _figure(result: Result, name: str) -> Figure | None:
    return next((figure for figure in result.figures if figure.name == name), None)


def _facts(report: Report) -> list[tuple[Bilingual, str]]:
    """The conditions that figures depend on, with their names in both languages."""
    facts = {
        "lab": report.lab,
        "kubernetes": report.kubernetes,
        "provider": report.provider,
        "began": _date(report.began),
        **report.host,
    }
    return [(words.FACTS.get(name, Bilingual(name, name)), text) for name, text in facts.items()]


def _date(text: str) -> str:
    """A time in a format for both languages; unchanged if it can't be parsed."""
    try:
        return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:
        return text


def _environment(*, change: bool) -> jinja2.Environment:
    environment = onepage.environment(HERE)
    environment.filters["place"] = lambda place: f"{place:.2f}".rstrip("0").rstrip(".")
    environment.globals |= {
        "H": _headings(change),
        "lanes": LANES,
        "marks": {kind: MARKS[kind] for kind in (CHANGE_MARKS if change else DRILL_MARKS)},
        "probes": PROBES,
        "both": onepage.both,
        "tspans": partial(onepage.both, element="tspan"),
        "figure": partial(words.figure, measures=CHANGE_MEASURES if change else MEASURES),
        "mark": words.mark,
        "measure": lambda name: words.COLUMNS[name.partition(".")[2]],
        "over": words.over,
        "unseen": words.unseen,
        "number": words.number,
        "spread": words.spread,
        "bins": BINS,
        "up": UP,
        "held": HELD,
        "second": round(UP - UP * 3 / DECADES),
        "lane_height": UP + DOWN,
    }
    return environment
