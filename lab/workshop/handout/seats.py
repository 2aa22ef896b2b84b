"""Gives each seat of a class a lab of its own: class.csv → lab.yaml files, none overlapping another.

The file has a row for each seat below a header: `seat`, and optionally `name` (of a person) and `subnet`. It is
taken as spreadsheets write it: commas, semicolons or tabs, a `sep=` line, blank rows, blank columns at the end.
"""

from __future__ import annotations

import csv
import io
import re
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from itertools import chain
from pathlib import Path

import yaml

from lab import config
from lab.config import Choice, shape, yamlfile
from lab.errors import ConfigError
from lab.host.doctor.addresses import CLUSTER_NETWORKS, SUBNETS, VIRTUALBOX_NAT, free_network
from lab.model import Lab, Libvirt, is_private
from lab.workshop.handout.page import OURS

COLUMNS = ("seat", "name", "subnet")
SEPARATORS = ",\t;"
SEP_LINE = re.compile(r'"?sep=(.)"?(?:\r\n|\r|\n|$)', re.IGNORECASE)
"""A line that tells Excel the separator; it is not a row."""

HINT = "correct it and try again: a header `seat,name`, then a row such as `a1,Kim Ada`"
SIZE_LIMIT = 64 * 1024
"""Bytes; a class has some thirty rows."""
LONGEST_NAME = 30
"""Of a lab: what lab.yaml allows."""
LAB_FILE, MANIFEST = "lab.yaml", "pod-network.yaml"
AT_HOME = IPv4Network("192.168.0.0/23")
"""Where most routers of homes and offices put their own network, and so perhaps a student's host."""


@dataclass(frozen=True)
class Row:
    """One row of the file. `seat` is in lowercase; `subnet` is None where the kit has to choose.

    `kept` is the lab.yaml that an earlier run left in the seat's folder, where the subnet is from there.
    """

    line: int
    seat: str
    name: str
    subnet: IPv4Network | None
    kept: Path | None = None


@dataclass(frozen=True)
class Seat:
    """One seat: its lab, and what to write into its folder (name → text).

    `kept` are files that the folder has with another text: they stay, and the lab is that of the folder's
    lab.yaml. `warnings` are overlaps that come from such a file. `problem` is why that lab.yaml can't be used;
    the seat's lab is then only what the class would have given it.
    """

    seat: str
    name: str
    lab: Lab
    files: Mapping[str, str]
    kept: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    problem: str = ""


def seats(file: Path, lab_file: Path, lab: Lab, folder: Path) -> tuple[Seat, ...]:
    """Return every seat of a class, each with the lab of `lab_file` under a name and in a subnet of its own.

    A seat whose folder has a lab.yaml keeps the subnet of that file unless `file` names one. No seat is given
    the subnet of any lab.yaml in `folder`, even of a seat that has left the class, since its lab may be up.

    Raises ConfigError with everything that is wrong in the file, row by row. What is wrong with a lab.yaml in a
    seat's folder concerns that seat only.
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
    return tuple(
        replace(_seat(row, subnet, lab_file, lab, folder), warnings=tuple(_kept_overlaps(row, rows, lab)))
        for row, subnet in found
    )


def _subnets(folder: Path) -> dict[Path, IPv4Network]:
    """The subnet of each lab.yaml in the class's folder, except where it can't be read: no lab comes up."""
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
    text = _text(file)
    sep = SEP_LINE.match(text)
    text = text[sep.end() :] if sep else text
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=sep[1] if sep else _separator(text), strict=True
    )
    before = 1 if sep else 0
    try:
        filled = ((reader.line_num + before, cells) for cells in reader if any(map(str.strip, cells)))
        first, names = next(filled, (1 + before, []))
        header = [name.strip().lower() for name in _without_blank_end(names)]
        problems = [(first, what) for what in _header_problems(header)]
        if problems:
            return [], problems
        rows = []
        for line, cells in filled:
            row, wrong = _row(line, header, _without_blank_end(cells))
            problems += wrong
            rows += [row] if row else []
    except csv.Error as error:
        raise ConfigError([f"{file}:{reader.line_num + before}: is not CSV: {error}"], hint=HINT) from error
    if not rows and not problems:
        problems.append((first, "has no seats"))
    return rows, problems


def _text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            content = opened.read(SIZE_LIMIT + 1)
        if len(content) > SIZE_LIMIT:
            raise ConfigError(
                [f"{file}: is larger than {SIZE_LIMIT // 1024} KiB, which no class needs"], hint=HINT
            )
        return content.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError([f"{file}: can't be read: {error.strerror}"], hint=HINT) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{file}: is not UTF-8 text"], hint="save it as CSV in UTF-8") from error


def _separator(text: str) -> str:
    """What the first row that has a separator at all uses."""
    return next((sign for sign in text if sign in SEPARATORS), ",")


def _without_blank_end(cells: Sequence[str]) -> list[str]:
    """The cells up to the last one that is not blank: spreadsheets also write columns that were emptied."""
    filled = [number for number, cell in enumerate(cells, start=1) if cell.strip()]
    return list(cells[: filled[-1]]) if filled else []


def _header_problems(header: Sequence[str]) -> Iterator[str]:
    for name in header:
        if name not in COLUMNS:
            yield f"unknown column {name!r}{shape.guess(name, COLUMNS)}"
        elif header.count(name) > 1:
            yield f"column {name} is there twice"
    if "seat" not in header:
        yield "there is no column seat"


def _row(line: int, header: Sequence[str], cells: Sequence[str]) -> tuple[Row | None, list[Problem]]:
    """One row, or None with what is wrong with it."""
    given = dict.fromkeys(COLUMNS, "") | dict(zip(header, map(_plain_spaces, cells), strict=False))
    seat, name, subnet = given["seat"].lower(), given["name"], None
    problems = []
    if len(cells) > len(header):
        problems.append((line, "has more cells than the header"))
    if not re.fullmatch(r"[a-z0-9-]+", seat):
        problems.append((line, f"seat {given['seat']!r} may have only letters, digits and '-'"))
    elif seat.strip("-") != seat:
        problems.append((line, f"seat {given['seat']!r} does not begin and end with a letter or digit"))
    if not name.isprintable():
        problems.append((line, f"name {name!r} has a character that can't be shown"))
    if given["subnet"]:
        try:
            subnet = shape.network(given["subnet"])
        except ValueError as error:
            problems.append((line, f"subnet: {error}"))
    return (None if problems else Row(line, seat, name, subnet)), problems


def _plain_spaces(cell: str) -> str:
    """The cell with an ordinary space for each wide (U+3000), no-break or other space, and none around it."""
    return "".join(" " if unicodedata.category(sign) == "Zs" else sign for sign in cell).strip()


def _clashes(rows: Sequence[Row], lab: Lab) -> list[Problem]:
    """What is wrong with the file's rows together."""
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
        if row.subnet and not row.kept:
            problems += [(row.line, what) for what in _asked_overlaps(row, row.subnet, before, lab)]
    return problems


def _asked_overlaps(row: Row, subnet: IPv4Network, before: Iterable[Row], lab: Lab) -> Iterator[str]:
    """What is wrong with a subnet that the file asks for."""
    asked = [each for each in before if each.seat != row.seat and not each.kept]
    yield from _overlaps(f"subnet {subnet} of {row.seat!r}", subnet, asked, lab)
    if not (is_private(subnet) or lab.network.public_addresses):
        allowed = "network.public_addresses: true in lab.yaml allows it"
        yield f"subnet {subnet} of {row.seat!r} is not private; {allowed}"
    if subnet.prefixlen > lab.network.subnet.prefixlen:
        yield f"subnet {subnet} of {row.seat!r} is smaller than the lab's own {lab.network.subnet}"


def _kept_overlaps(row: Row, rows: Sequence[Row], lab: Lab) -> Iterator[str]:
    """What the subnet of a seat's own lab.yaml overlaps: labs that can't be up on one host at the same time."""
    if row.kept and row.subnet:
        others = [each for each in rows if each.seat != row.seat]
        yield from _overlaps(f"subnet {row.subnet} in {row.kept}", row.subnet, others, lab)


def _overlaps(what: str, subnet: IPv4Network, others: Iterable[Row], lab: Lab) -> Iterator[str]:
    for each in others:
        if each.subnet and each.subnet.overlaps(subnet):
            yield f"{what} overlaps {each.subnet} of {each.seat!r}, line {each.line}"
    for network in _reserved(lab):
        if network.overlaps(subnet):
            yield f"{what} overlaps {network}, which the labs use themselves"


def _reserved(lab: Lab) -> list[IPv4Network]:
    """What no seat can have: the network of the instructor's own lab, and those that all labs share."""
    management = (lab.libvirt or Libvirt()).management
    network = lab.network
    return [network.subnet, network.pods, network.services, management, VIRTUALBOX_NAT]


def _free(lab: Lab, taken: Sequence[IPv4Network]) -> IPv4Network | None:
    """The first free network of the lab's size; those that VirtualBox allows come first."""
    size = lab.network.subnet.prefixlen
    within = [each for each in chain(SUBNETS, CLUSTER_NETWORKS) if each.prefixlen <= size]
    found = free_network(within, size, taken)
    return IPv4Network(found) if found else None


def _seat(row: Row, subnet: IPv4Network, lab_file: Path, lab: Lab, folder: Path) -> Seat:
    """A seat with its lab, which is read as `./inv` will read it."""
    files = {LAB_FILE: _lab_yaml(row, subnet, lab_file, lab)}
    if lab.network.pod_network != "flannel":
        files[MANIFEST] = Path(lab.network.pod_network).read_text(encoding="utf-8")
    own = folder / row.seat
    kept = tuple(name for name, text in files.items() if (own / name).exists() and not _has(own / name, text))
    written = {name: text for name, text in files.items() if name not in kept}
    choice = Choice(lab.provider, lab.emulated)
    if LAB_FILE in kept:
        try:
            return Seat(row.seat, row.name, config.load(own / LAB_FILE, lambda _: choice), written, kept)
        except ConfigError as error:
            return Seat(row.seat, row.name, lab, written, kept, problem="; ".join(error.problems))
    with tempfile.TemporaryDirectory(prefix="ha-lab-seat-") as name:
        for each, text in files.items():
            (Path(name) / each).write_text(text, encoding="utf-8")
        found = config.load(Path(name) / LAB_FILE, lambda _: choice)
    return Seat(row.seat, row.name, found, written, kept)


def _has(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def _lab_yaml(row: Row, subnet: IPv4Network, lab_file: Path, lab: Lab) -> str:
    """The lab file with another name, another subnet, and its addresses moved into that."""
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
    """Writes text without quotes. lab.yaml is read so, and takes a version or a number as text."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  pyyaml requires a plain dict
