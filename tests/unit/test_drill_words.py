from __future__ import annotations

import re

import pytest

from lab.drill import words
from lab.drill.figures import FIGURES
from lab.drill.stories import STORIES
from lab.texts import Bilingual

DRILLS = (
    *("kill-control-plane", "stop-api-server", "freeze-api-server", "stall-api-server"),
    *("kill-etcd-leader", "kill-etcd-member", "partition-etcd-from-control-planes", "slow-etcd-disk"),
    *("partition-control-plane", "partition-from-peers", "lose-quorum"),
    *("lose-quorum-for-good", "etcd-no-space", "replace-etcd-member", "downgrade-etcd"),
    *(
        "reload-load-balancer",
        "restart-load-balancer",
        "kill-load-balancer",
        "stop-haproxy-on-holder",
        "split-brain",
        "flap",
        "move-address",
        "kill-worker",
    ),
    *("power-off-all", "renew-certificates", "certificates-expire", "rotate-ca", "upgrade"),
)
HANGUL = re.compile("[가-힣]")

SPOKEN = {
    **{f"{name} title": story.title for name, story in STORIES.items()},
    **{f"{name} text": story.text for name, story in STORIES.items()},
    **{
        f"{table} {name}": said
        for table in (
            "PROBES",
            "MEASURES",
            "COLUMNS",
            "FIGURES",
            "MARKS",
            "LANES",
            "FACTS",
            "HEADINGS",
            "CHOSEN",
            "CHANGE_HEADINGS",
            "CHANGE_MEASURES",
            "CHANGE_PARTS",
        )
        for name, said in getattr(words, table).items()
    },
    **{f"figure {name}": words.figure(name) for name in FIGURES},
    "mark": words.mark("heal", 1),
    "headline": words.headline(1, 2),
    "chosen": words.chosen(1, 2, "worst"),
    "only": words.chosen(1, 1, "median"),
    "over": words.over(1, 2),
    "unseen": words.unseen(1, 2),
    "counts": words.counts("writes", 1, 2, 3),
    "watched": words.counts("watch", 1, 2, 3),
    "whole": words.figure("whole_s.etcd cp2"),
    "change": words.SENTENCES["change"],
    "only balancer": words.only_balancer("lb1"),
    "only control plane": words.only_control_plane("cp1"),
    "no change": words.SENTENCES["no_change"],
}
SAME_IN_BOTH = {"PROBES watch"}
"""Words that Koreans leave in English letters."""


@pytest.mark.parametrize("name", SPOKEN)
def test_every_text_is_there_in_both_languages(name: str) -> None:
    said = SPOKEN[name]
    assert said.en.strip()
    assert not HANGUL.search(said.en)
    assert HANGUL.search(said.ko) or (name in SAME_IN_BOTH and said.ko)


def test_every_drill_has_a_story() -> None:
    assert tuple(STORIES) == DRILLS


@pytest.mark.parametrize("name", DRILLS)
def test_a_story_is_a_title_and_some_sentences_in_both_languages(name: str) -> None:
    title, text = STORIES[name]
    assert len(title.en) <= 40
    assert len(title.ko) <= 40
    assert len(re.findall(r"[.] |[.]$", text.en)) >= 3
    assert len(re.findall(r"[.] |[.]$", text.ko)) >= 3


def test_pauses_of_the_host_are_not_called_excluded() -> None:
    """They are shown beside the figures, and never subtracted."""
    assert "제외" not in words.HEADINGS["pause"].ko


def test_stories_say_whom_a_drill_hits() -> None:
    assert "does not lead" in STORIES["kill-control-plane"].text.en, "the drill never picks the leader"
    assert "workers turn NotReady" in STORIES["kill-load-balancer"].text.en, (
        "control planes ask their own server"
    )
    assert "워커 노드가 NotReady" in STORIES["kill-load-balancer"].text.ko


def test_stories_name_no_path_of_the_health_check() -> None:
    """Profiles ask different ones."""
    assert not [name for name, each in STORIES.items() if "/healthz" in "".join(each.text)]


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_called_by_words_and_not_by_its_name(name: str) -> None:
    assert name not in words.figure(name)


def test_a_figure_or_component_that_is_not_known_is_called_by_its_name() -> None:
    assert words.figure("shadows.cast") == Bilingual("shadows.cast", "shadows.cast")
    assert words.figure("connections.shadows") == Bilingual("connections.shadows", "connections.shadows")
    assert words.figure("whole_s.shadow cp9").en == "shadow cp9 healthy again (s)"


@pytest.mark.parametrize(
    ("value", "said"), [(0, "0"), (1200, "1,200"), (0.413, "0.41"), (12.34, "12.3"), (3.0, "3")]
)
def test_numbers_are_told_with_the_digits_that_matter(value: float, said: str) -> None:
    assert words.number(value) == said


def test_a_limit_is_told_once_where_all_profiles_have_the_same() -> None:
    assert words.limit([2, 2]) == "≤ 2"
    assert words.limit([2, None]) == "≤ 2 / –"
    assert words.limit([None]) == "–"
