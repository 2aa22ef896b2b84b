"""Describes each drill in English and Korean: what is done, what to watch for, and why.

The texts are in stories.yaml.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from lab import texts
from lab.texts import Bilingual


class Story(NamedTuple):
    """A drill's description."""

    title: Bilingual
    text: Bilingual


STORIES = {name: Story(**parts) for name, parts in texts.read(Path(__file__).with_suffix(".yaml")).items()}
"""By the drill's name, in the order in which they are shown."""
