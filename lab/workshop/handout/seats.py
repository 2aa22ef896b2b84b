"""Gives each seat of a class a lab of its own: class.csv → lab.yaml files, none overlapping another.

The file has a line for each seat under a head of columns: seat, and if wanted name (of a person) and subnet.
"""

from __future__ import annotations

import csv
import io
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from lab import config
from lab.config import Choice, shape, yamlfile
from lab.errors import ConfigError
from lab.host.doctor.addresses import CLUSTER_NETWORKS, SUBNETS, VIRTUALBOX_NAT, free_network
from lab.model import Lab, Libvirt, is_private
from lab.workshop.handout.page import OURS

COLUMNS = ("seat", "name", "subnet")
HINT = "correct it and try again: a head `seat,name`, then a line such as `a1,Kim Ada`"
LARGEST = 64 * 1024
"""Bytes; a class has some thirty lines."""
LONGEST_NAME = 30
"""Of a lab: what lab.yaml allows."""
LAB_FILE, MANIFEST = "lab.yaml", "pod-network.yaml"
AT_HOME = IPv4Network("192.168.0.0/23")
"""Where most routers of homes and offices put their own network, and so perhaps a student's host."""


@dataclass(frozen=True)
class Row:
    """One line of the file. `seat` is in lowercase; `subnet` is None where the kit is to choose.

    `kept` is the lab.yaml that an earlier class left in the seat's folder, where the subnet is from there.
    """

    line: int
    seat: str
    name: str
    subnet: IPv4Network | None
    kept: Path | None = None


@dataclass(frozen=True)
class Seat:
    """One seat: its lab, and what is written into its folder (name → text)."""

    seat: str
    name: str
    lab: Lab
    files: Mapping[str, str]


def seats(file: Path, lab_file: Path, lab: Lab, folder: Path) -> tuple[Seat, ...]:
    """Return every seat of a class, each with the lab of `lab_file` under a name and in a subnet of its own.

    A seat that has a lab.yaml in `folder` already keeps that one's subnet, where `file` has none for it; and as
    labs may be up from there, no seat is given the subnet of another one's, though it left the class.

    Raises ConfigError with everything that is wrong in the file, line by line.
    """
    rows, problems = _read(file)
    there = _subnets(folder)
    rows = [_keeping(row, folder / row.seat / LAB_FILE, there) for row in rows]
    problems += _clashes(rows, lab)
    given = [row.subnet for row in rows if row.subnet]
    taken = [*_reserved(lab), *given, *there.values(), AT_HOME]
    found = []
    for row in rows:
        subnet = row.subnet or _free(lab, taken)
        if subnet is None:
            problems.append((row.line, f"no network as large as {lab.network.subnet} is free for {row.seat!r}"))
            break
        taken.append(subnet)
        found.append((row, subnet))
    if problems:
        problems.sort(key=lambda problem: problem[0])
        raise ConfigError([f"{file}:{line}: {what}" for line, what in problems], hint=HINT)
    return tuple(_seat(row, subnet, lab_file, lab) for row, subnet in found)


def _subnets(folder: Path) -> dict[Path, IPv4Network]:
    """The subnet of each lab.yaml in the class's folder, but for what can't be read: no lab comes up so."""
    found = {}
    for path in folder.glob(f"*/{LAB_FILE}"):
        try:
            network = yamlfile.read(path, str(path), hint=config.HINT).data.get("network")
            if isinstance(network, dict) and "subnet" in network:
                found[path] = shape.network(network["subnet"])
        except (ConfigError, ValueError):
            continue
    return found


def _keeping(row: Row, path: Path, there: Mapping[Path, IPv4Network]) -> Row:
    if row.subnet or path not in there:
        return row
    return replace(row, subnet=there[path], kept=path)


Problem = tuple[int, str]


def _read(file: Path) -> tuple[list[Row], list[Problem]]:
    """The file's rows, and what is wrong with them one by one."""
    reader = csv.DictReader(_text(file), strict=True)
    try:
        head = [(name or "").strip().lower() for name in reader.fieldnames or ()]
        problems = list(_wrong_head(head))
        if problems:
            return [], problems
        reader.fieldnames = head
        rows = []
        for cells in reader:
            row, wrong = _row(reader.line_num, cells)
            problems += wrong
            rows += [row] if row else []
    except csv.Error as error:
        raise ConfigError([f"{file}:{reader.line_num}: is no CSV: {error}"], hint=HINT) from error
    if not rows and not problems:
        problems.append((1, "has no seats"))
    return rows, problems


def _text(file: Path) -> io.StringIO:
    """The file's text, whose lines end as the csv module wants them, and at no other sign."""
    try:
        with file.open("rb") as opened:
            content = opened.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ConfigError(
                [f"{file}: is larger than {LARGEST // 1024} KiB, which no class needs"], hint=HINT
            )
        return io.StringIO(content.decode("utf-8-sig"), newline="")
    except OSError as error:
        raise ConfigError([f"{file}: can't be read: {error.strerror}"], hint=HINT) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{file}: is not UTF-8 text"], hint="save it as CSV in UTF-8") from error


def _wrong_head(head: Sequence[str]) -> Iterator[Problem]:
    if any(";" in name for name in head):
        yield 1, "use commas between columns, not semicolons"
        return
    for name in head:
        if name not in COLUMNS:
            yield 1, f"unknown column {name!r}{shape.guess(name, COLUMNS)}"
        elif head.count(name) > 1:
            yield 1, f"column {name} is there twice"
    if "seat" not in head:
        yield 1, "there is no column seat"


def _row(line: int, cells: Mapping[Any, Any]) -> tuple[Row | None, list[Problem]]:
    """One row, or None with what is wrong with it."""
    said = {key: (value or "").strip() for key, value in cells.items() if key is not None}
    seat, name, subnet = said["seat"].lower(), said.get("name", ""), None
    problems = []
    if None in cells:
        problems.append((line, "has more cells than the head"))
    if not re.fullmatch(r"[a-z0-9-]+", seat):
        problems.append((line, f"seat {said['seat']!r} is not made of letters, digits and '-' alone"))
    elif seat.strip("-") != seat:
        problems.append((line, f"seat {said['seat']!r} does not begin and end with a letter or digit"))
    if not name.isprintable():
        problems.append((line, f"name {name!r} has a sign that can't be shown"))
    if said.get("subnet"):
        try:
            subnet = shape.network(said["subnet"])
        except ValueError as error:
            problems.append((line, f"subnet: {error}"))
    return (None if problems else Row(line, seat, name, subnet)), problems


def _clashes(rows: Sequence[Row], lab: Lab) -> list[Problem]:
    """What is wrong with rows together."""
    problems = []
    longest = LONGEST_NAME - len(lab.name) - 1
    for number, row in enumerate(rows):
        before = rows[:number]
        twin = next((each for each in before if each.seat == row.seat), None)
        if twin:
            problems.append((row.line, f"seat {row.seat!r} is there twice, first on line {twin.line}"))
        if len(row.seat) > longest:
            problems.append(
                (row.line, f"seat {row.seat!r} is too long for a lab's name, {lab.name}-… (at most {longest})")
            )
        if row.subnet:
            problems += [(row.line, what) for what in _overlaps(row, before, lab)]
    return problems


def _overlaps(row: Row, before: Sequence[Row], lab: Lab) -> Iterator[str]:
    subnet = row.subnet
    if subnet is None:
        return
    what = f"subnet {subnet} of {row.seat!r}" + (f", as in {row.kept}," if row.kept else "")
    for each in before:
        if each.seat != row.seat and each.subnet and each.subnet.overlaps(subnet):
            yield f"{what} overlaps {each.subnet} of {each.seat!r}, line {each.line}"
    for network in _reserved(lab):
        if network.overlaps(subnet):
            yield f"{what} overlaps {network}, which the labs use themselves"
    if not (is_private(subnet) or lab.network.public_addresses):
        yield f"{what} is not private; a lab.yaml with network.public_addresses: true allows it"
    if subnet.prefixlen > lab.network.subnet.prefixlen:
        yield f"{what} is smaller than the lab's own {lab.network.subnet}"


def _reserved(lab: Lab) -> list[IPv4Network]:
    """What no seat can have: the instructor's own lab, and what all labs share."""
    management = (lab.libvirt or Libvirt()).management
    network = lab.network
    return [network.subnet, network.pods, network.services, management, VIRTUALBOX_NAT]


def _free(lab: Lab, taken: Sequence[IPv4Network]) -> IPv4Network | None:
    """The first network of the lab's size that is free, where VirtualBox allows one before elsewhere."""
    size = lab.network.subnet.prefixlen
    within = [each for each in chain(SUBNETS, CLUSTER_NETWORKS) if each.prefixlen <= size]
    found = free_network(within, size, taken)
    return IPv4Network(found) if found else None


def _seat(row: Row, subnet: IPv4Network, lab_file: Path, lab: Lab) -> Seat:
    """A seat with its lab, which is read as `./inv` will read it."""
    files = {LAB_FILE: _lab_yaml(row, subnet, lab_file, lab)}
    if lab.network.pod_network != "flannel":
        files[MANIFEST] = Path(lab.network.pod_network).read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="ha-lab-seat-") as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        own = config.load(Path(folder) / LAB_FILE, lambda _: Choice(lab.provider, lab.emulated))
    return Seat(row.seat, row.name, own, files)


def _lab_yaml(row: Row, subnet: IPv4Network, lab_file: Path, lab: Lab) -> str:
    """The lab file, but for its name, its subnet, and what lies in that."""
    data = yamlfile.read(lab_file, str(lab_file), hint=config.HINT).data
    data = {"name": f"{lab.name}-{row.seat}"} | {key: value for key, value in data.items() if key != "name"}
    data["network"] = data.get("network", {}) | {"subnet": str(subnet)}
    if lab.network.pod_network != "flannel":
        data["network"]["pod_network"] = MANIFEST
    for group in data.get("nodes", {}).values():
        if "first_address" in group:
            moved = int(IPv4Address(group["first_address"])) - int(lab.network.subnet.network_address)
            group["first_address"] = str(subnet.network_address + moved)
    of = f"{row.seat}, {row.name}" if row.name else row.seat
    text = yaml.dump(data, Dumper=_Plain, sort_keys=False, allow_unicode=True)
    return f"# The lab of seat {of}.\n{text}# {OURS}\n"


class _Plain(yaml.SafeDumper):
    """Writes texts without quotes, as lab.yaml is read: a version or a number is a text to it."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  as pyyaml wants it
