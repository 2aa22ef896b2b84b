"""Screenshots for README.md and docs/, made from real runs of the commands on the default lab.

    .venv/bin/python -m tests.docs.screenshots [NAME…]

brings the lab of lab.yaml up, unless it is up, and removes it in the end if it did so. `up` is only shown where
it makes the lab. A terminal's output becomes an SVG, the page of a drill a PNG, through Chromium. Then each
picture is put below its comment in the pages:

    <!-- screenshot NAME: what it shows -->
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from lab.exit_codes import BEYOND_LIMIT, CHANGES, CHECKS_FAIL, DEGRADED, DONE, DOWN
from lab.system.paths import REPOSITORY
from lab.verbs.docs import site
from tests.browser import chromium

IMAGES = REPOSITORY / "docs" / "images"
NAMES = ("up", "verify-green", "plan", "verify-red", "status", "drill", "drill-page")
COLUMNS = 110
LINES = 45
"""How many lines of an output are shown: its first ones, and most of them from its end."""
FIRST = 12
PAGE_WIDTH, PAGE_HEIGHT = 880, 1000
DRILL = "kill-control-plane"
VICTIM = "w1"
LONGEST = 250_000
"""Bytes of a picture."""

COMMENT = re.compile(r"^<!-- screenshot ([a-z-]+): (.*) -->$", re.MULTILINE)
ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-ln-z]")
"""What a terminal is told besides colours."""

SVG = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "DejaVu Sans Mono", Consolas, monospace; }}
.{unique_id}-matrix {{ font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>{lines}</defs>
<rect width="{width}" height="{height}" rx="8" fill="#292929"/>
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""rich's picture of a terminal without a window's frame, and without the fonts that it asks of another host."""


class Comment(NamedTuple):
    """A place for a screenshot in a page."""

    name: str
    shows: str


def comments(page: str) -> list[Comment]:
    """The places for screenshots in a page."""
    return [Comment(*found) for found in COMMENT.findall(page)]


def file_of(name: str, images: Path = IMAGES) -> Path:
    """The file of a screenshot."""
    return images / f"{name}.{'png' if name.endswith('-page') else 'svg'}"


def placed(page: str, path: Path, images: Path = IMAGES) -> str:
    """A page with each screenshot that was made below its comment, and no other."""

    def shown(found: re.Match[str]) -> str:
        name, shows = found.groups()
        file = file_of(name, images)
        if not file.exists():
            return found[0]
        words = shows.replace("`", "")
        return f"{found[0]}\n![{words}]({os.path.relpath(file, path.parent)})"

    without = re.sub(rf"({COMMENT.pattern[:-1]})\n!\[[^\]]*\]\([^)]*\)", r"\1", page, flags=re.MULTILINE)
    return COMMENT.sub(shown, without)


def place() -> None:
    """Put the screenshots that are there into the pages."""
    for path in site.sources():
        if path.suffix == ".md":
            text = path.read_text(encoding="utf-8")
            if placed(text, path) != text:
                path.write_text(placed(text, path), encoding="utf-8")


def shortened(output: str) -> list[str]:
    """The lines of an output that a picture has room for."""
    known = output.replace(str(REPOSITORY), "~/ha-lab").replace(str(Path.home()), "~")
    lines = ESCAPES.sub("", known).rstrip().split("\n")
    if len(lines) <= LINES:
        return lines
    left = len(lines) - LINES + 1
    return [*lines[:FIRST], f"[… {left} lines]", *lines[len(lines) - (LINES - FIRST - 1) :]]


def terminal(command: str, output: str) -> str:
    """A terminal with a command and what it printed, colours included, as SVG."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, highlight=False)
        console.print(Text(f"$ {command}", style="bold"))
        for line in shortened(output):
            console.print(Text.from_ansi(line), overflow="ellipsis", no_wrap=True)
        return console.export_svg(title="", code_format=SVG, unique_id=f"t{len(command)}")


def keep(name: str, text: str) -> None:
    """Write a terminal's picture."""
    assert len(text) < LONGEST, f"{name} has {len(text)} bytes"
    file_of(name).write_text(text, encoding="utf-8")
    print(f"{file_of(name).relative_to(REPOSITORY)} is written")


def inv(*words: str, codes: tuple[int, ...] = (DONE,)) -> str:
    """Type a command as a user would; return what it printed. Ends the script where it ends otherwise."""
    print(f"$ ./inv {' '.join(words)}", flush=True)
    done = subprocess.run(
        ["./inv", *words],
        cwd=REPOSITORY,
        env={**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(COLUMNS)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode not in codes:
        sys.exit(f"{done.stdout}\n./inv {' '.join(words)} ended with {done.returncode}, not {codes}")
    return done.stdout


def show(name: str, *words: str, codes: tuple[int, ...] = (DONE,)) -> None:
    """Type a command and keep its picture."""
    keep(name, terminal(f"./inv {' '.join(words)}", inv(*words, codes=codes)))


def plan() -> None:
    """The plan of one worker less, with lab.yaml as it was afterwards."""
    file = REPOSITORY / "lab.yaml"
    before = file.read_text(encoding="utf-8")
    head, workers, rest = before.partition("  workers:\n")
    changed = re.sub(r"^    count: 3$", "    count: 2", rest, count=1, flags=re.MULTILINE)
    assert changed != rest, "lab.yaml has not three workers"
    try:
        file.write_text(f"{head}{workers}{changed}", encoding="utf-8")
        show("plan", "plan", codes=(CHANGES,))
    finally:
        file.write_text(before, encoding="utf-8")


@contextmanager
def kubelet_stopped() -> Iterator[None]:
    """Stop a worker's kubelet, and have `up` repair that."""
    inv("ssh", VICTIM, "--", "sudo", "systemctl", "stop", "kubelet")
    try:
        deadline = time.monotonic() + 120
        # The API takes 40 s to notice.
        while time.monotonic() < deadline and "NotReady" not in inv("status", codes=(DONE, DEGRADED)):
            time.sleep(5)
        yield
    finally:
        inv("up", "--yes")


def red() -> None:
    """`verify` and `status` where a kubelet was stopped."""
    with kubelet_stopped():
        show("verify-red", "verify", codes=(CHECKS_FAIL,))
        show("status", "status", codes=(DEGRADED,))


def drill_page() -> None:
    """The upper part of the page of the newest drill."""
    reports = sorted(
        (REPOSITORY / ".lab" / "drills").glob("*/report.html"), key=lambda path: path.stat().st_mtime
    )
    if not reports:
        sys.exit("there is no report of a drill: name `drill` as well")
    with (
        tempfile.TemporaryDirectory() as folder,
        chromium.started(Path(folder) / "profile") as browser,
        chromium.opened(browser, reports[-1], width=PAGE_WIDTH) as page,
    ):
        page.photograph(file_of("drill-page"), height=PAGE_HEIGHT)
    size = file_of("drill-page").stat().st_size
    assert size < LONGEST, f"the page of a drill has {size} bytes"
    print(f"{file_of('drill-page').relative_to(REPOSITORY)} is written")


STEPS: dict[str, Callable[[], None]] = {
    "verify-green": lambda: show("verify-green", "verify"),
    "plan": plan,
    "verify-red": red,
    "drill": lambda: show("drill", "drill", DRILL, codes=(DONE, BEYOND_LIMIT)),
    "drill-page": drill_page,
}
"""In this order. `status` is made with `verify-red`."""


def main(names: list[str]) -> None:
    """Make the screenshots of these names, or all."""
    wanted = [("verify-red" if name == "status" else name) for name in names or NAMES]
    unknown = sorted(set(wanted) - set(NAMES))
    if unknown:
        sys.exit(f"there is no screenshot {', '.join(unknown)} ({', '.join(NAMES)})")
    IMAGES.mkdir(exist_ok=True)
    made_here = not (REPOSITORY / ".lab" / "kubeconfig").exists()
    if made_here:
        inv("bake", "--yes")
        inv("status", codes=(DOWN,))
        output = inv("up", "--yes")
        if "up" in wanted:
            keep("up", terminal("./inv up", output))
    else:
        inv("up", "--yes")
        if "up" in wanted:
            print("up: the lab was up already; destroy it first to show how it is made")
    try:
        for name, step in STEPS.items():
            if name in wanted:
                step()
    finally:
        if made_here:
            inv("destroy", "--yes")
    place()


if __name__ == "__main__":
    main(sys.argv[1:])
