"""docs/images/topology.svg: the handout's picture of the default lab, with colours of its own."""

from __future__ import annotations

import re
from pathlib import Path

from lab import config
from lab.workshop.handout import topology

NAME = "topology.svg"
STYLE = Path(__file__).with_name("picture.css")


def drawn() -> str:
    """Return the picture as a file that a page shows as an image, on a sheet of its own."""
    plain = str(topology.picture(config.default(), "en")).strip()
    # Without a size of its own, a page shows it as wide as itself.
    sized = re.sub(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', r'width="\1" height="\2" \g<0>', plain, count=1)
    head, tag, rest = sized.partition("<defs>")
    style = f"<style>\n{STYLE.read_text(encoding='utf-8')}</style>\n"
    return f'{head}{style}<rect class="paper" width="100%" height="100%"/>\n{tag}{rest}\n'
