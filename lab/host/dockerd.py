"""Reads docker's daemon settings, with file and line, from its configuration file and its command line.

`docker info` has the effective value of most settings (`lab.host.docker`), but not of some (iptables, default
ulimits, options of new networks), and it never says where to change them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from lab.host import kernel
from lab.host.facts import Configured
from lab.unknown import Unknown

CONFIGURATION = Path("/etc/docker/daemon.json")
COMMAND_LINE = "dockerd's command line (`systemctl cat docker`)"

FLAGS = {
    "default-ulimit": "default-ulimits",
    "default-network-opt": "default-network-opts",
    "s": "storage-driver",
    "storage-driver": "storage-driver",
    "data-root": "data-root",
    "default-runtime": "default-runtime",
    "iptables": "iptables",
    "no-new-privileges": "no-new-privileges",
    "userns-remap": "userns-remap",
}
"""dockerd's options and the equivalent keys of its file (docs.docker.com, "dockerd")."""


def configured(root: Path) -> Mapping[str, Configured] | Unknown:
    """Read the settings by their daemon.json keys; from the command line, those in FLAGS."""
    words = kernel.dockerd_words(root)
    flags = dict(_flags(words))
    file = Path(next((each.value for key, each in flags.items() if key == "config-file"), CONFIGURATION))
    try:
        text = (root / file.relative_to("/")).read_text(encoding="utf-8")
    except FileNotFoundError:
        text = "{}"
    except (OSError, ValueError) as error:
        return Unknown(f"{file} can't be read: {error}")
    try:
        found = json.loads(text.strip() or "{}")
    except ValueError as error:
        return Unknown(f"{file} is not valid JSON: {error}")
    if not isinstance(found, dict):
        return Unknown(f"{file} is not a JSON object")
    return {key: Configured(value, f"{file}:{_line(text, key)}") for key, value in found.items()} | {
        FLAGS[key]: each for key, each in flags.items() if key in FLAGS
    }


def _line(text: str, key: str) -> int:
    found = re.search(rf'"{re.escape(key)}"\s*:', text)
    return text.count("\n", 0, found.start()) + 1 if found else 1


def _flags(words: Iterable[str]) -> Iterable[tuple[str, Configured]]:
    """Options with their values: `--name=value`, `--name value`, and `--name` alone, which means true."""
    rest = [*words][1:]
    gathered: dict[str, Any] = {}
    for word, following in pairwise([*rest, ""]):
        if not word.startswith("-"):
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if not equals:
            value = following if following and not following.startswith("-") else "true"
        gathered[name] = _merged(name, value, gathered.get(name))
    return [(name, Configured(value, COMMAND_LINE)) for name, value in gathered.items()]


def _merged(name: str, value: str, before: Any) -> Any:
    """An option's value with one more added, as daemon.json would have it."""
    if name == "default-ulimit":
        limit, _, amounts = value.partition("=")
        soft, _, hard = amounts.partition(":")
        return {**(before or {}), limit: {"Name": limit, "Soft": _number(soft), "Hard": _number(hard or soft)}}
    if name == "default-network-opt":
        driver, _, option = value.partition("=")
        key, _, setting = option.partition("=")
        drivers = before or {}
        return {**drivers, driver: {**drivers.get(driver, {}), key: setting}}
    return {"true": True, "false": False}.get(value, value)


def _number(text: str) -> int:
    return int(text) if re.fullmatch(r"-?[0-9]+", text) else 0
