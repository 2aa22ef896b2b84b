"""A class: each seat has a lab that `./inv` reads, none overlaps another, every problem is reported at once."""

from __future__ import annotations

import itertools
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from lab import config
from lab.errors import ConfigError
from lab.model import Lab, Libvirt
from lab.workshop.handout.seats import Seat, seats
from tests.unit.fakes import MANIFEST

ALLOWED_BY_VIRTUALBOX = IPv4Network("192.168.56.0/21")


def class_of(tmp_path: Path, text: str, lab_yaml: str = "") -> tuple[Seat, ...]:
    file, lab_file = tmp_path / "class.csv", tmp_path / "lab.yaml"
    file.write_bytes(text.encode())
    lab_file.write_text(lab_yaml)
    return seats(file, lab_file, config.load(lab_file), tmp_path / "class")


def problems(tmp_path: Path, text: str, lab_yaml: str = "") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        class_of(tmp_path, text, lab_yaml)
    assert caught.value.hint
    return [each.removeprefix(f"{tmp_path}/class.csv:") for each in caught.value.problems]


def test_thirty_seats_have_thirty_labs_that_do_not_overlap(tmp_path: Path) -> None:
    found = class_of(tmp_path, "seat,name\n" + "".join(f"s{n:02},Ada {n}\n" for n in range(30)))
    shared = [Lab(nodes=config.default().nodes).network, *(each.lab.network for each in found)]
    networks = [each.subnet for each in shared]
    networks += [shared[0].pods, shared[0].services, Libvirt().management]
    assert not [(a, b) for a, b in itertools.combinations(networks, 2) if a.overlaps(b)]
    assert len({each.lab.name for each in found}) == 30
    first = [each.lab.network.subnet for each in found[:8]]
    assert [each.subnet_of(ALLOWED_BY_VIRTUALBOX) for each in first] == [True] * 7 + [False]


def test_no_seat_gets_the_network_that_most_homes_use(tmp_path: Path) -> None:
    found = class_of(tmp_path, "seat\n" + "".join(f"s{n:02}\n" for n in range(30)))
    at_home = IPv4Network("192.168.0.0/23")
    assert not [each.seat for each in found if each.lab.network.subnet.overlaps(at_home)]
    [asked] = class_of(tmp_path, "seat,subnet\na1,192.168.1.0/24\n")
    assert asked.lab.network.subnet == IPv4Network("192.168.1.0/24")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_line_ending_of_spreadsheets_is_accepted(tmp_path: Path, end: str) -> None:
    text = end.join(["\ufeffseat,name", 'a1,"Kim, Ada"', "", 'a2,"Bob ""B"" Lee"', ""])
    assert [each.name for each in class_of(tmp_path, text)] == ["Kim, Ada", 'Bob "B" Lee']


@pytest.mark.parametrize("sign", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_only_a_line_ending_starts_another_row(tmp_path: Path, sign: str) -> None:
    [found] = problems(tmp_path, f"seat,name\na1,Kim{sign}ada\n")
    assert "a character that can't be shown" in found


@pytest.mark.parametrize("seat", ["..", ".", "a/b", "/", "", "a_b", "a.b", "김", "\x00"])
def test_a_seats_name_can_t_be_a_path(tmp_path: Path, seat: str) -> None:
    [found] = problems(tmp_path, f"seat,name\n{seat},Ada\n")
    assert "may have only letters" in found


@pytest.mark.parametrize("seat", ["B-", "-x", "-"])
def test_a_seat_begins_and_ends_with_a_letter_or_digit(tmp_path: Path, seat: str) -> None:
    assert problems(tmp_path, f"seat\n{seat}\n") == [
        f"2: seat {seat!r} does not begin and end with a letter or digit"
    ]


def test_a_seat_has_the_labs_other_settings(tmp_path: Path) -> None:
    lab_yaml = (
        "name: kurs\nkubernetes: {version: 1.35.4}\nnetwork: {subnet: 10.1.0.0/22, pod_network: net.yaml}\n"
        "nodes: {workers: {count: 1, first_address: 10.1.1.7}}\n"
    )
    (tmp_path / "net.yaml").write_text(MANIFEST)
    [found] = class_of(tmp_path, "\ufeffSeat\r\nA-1\r\n", lab_yaml)
    assert found.seat == "a-1"
    assert found.lab.name == "kurs-a-1"
    assert found.lab.kubernetes.version == "1.35.4"
    assert [str(node.address) for node in found.lab.workers] == ["192.168.57.7"]
    assert found.lab.network.subnet == IPv4Network("192.168.56.0/22")
    assert found.files["pod-network.yaml"] == MANIFEST
    folder = tmp_path / "a-1"
    folder.mkdir()
    for name, text in found.files.items():
        (folder / name).write_text(text)
    assert config.load(folder / "lab.yaml").nodes == found.lab.nodes


def test_the_kits_own_lab_file_can_be_a_classs(tmp_path: Path) -> None:
    own = (Path(__file__).parents[2] / "lab.yaml").read_text(encoding="utf-8")
    [found] = class_of(tmp_path, "seat,name\na1,김아다\n", own)
    assert found.files["lab.yaml"].startswith("# The lab of seat a1, 김아다.\nname: ha-lab-a1\n")
    assert "'" not in found.files["lab.yaml"].replace("''", "")


def test_a_seat_may_bring_its_own_subnet(tmp_path: Path) -> None:
    found = class_of(tmp_path, "seat,subnet\na1,192.168.57.0/24\na2,\n")
    assert [str(each.lab.network.subnet) for each in found] == ["192.168.57.0/24", "192.168.58.0/24"]


def left_behind(tmp_path: Path, seat: str, text: str) -> None:
    """Put a lab.yaml into a seat's folder, as left by an earlier run."""
    (tmp_path / "class" / seat).mkdir(parents=True)
    (tmp_path / "class" / seat / "lab.yaml").write_text(text)


def test_a_seat_keeps_the_subnet_of_its_folder_and_others_leave_it_alone(tmp_path: Path) -> None:
    for each in class_of(tmp_path, "seat\na1\na2\na3\n"):
        left_behind(tmp_path, each.seat, each.files["lab.yaml"])
    left_behind(tmp_path, "broken", "network: [\n")
    left_behind(tmp_path, "odd", "network: {subnet: somewhere}\n")
    left_behind(tmp_path, "flat", "network: none\n")
    found = class_of(tmp_path, "seat,subnet\nnew,\na3,192.168.61.0/24\na2,\nbroken,\n")
    assert {each.seat: str(each.lab.network.subnet) for each in found if not each.problem} == {
        "new": "192.168.60.0/24",
        "a3": "192.168.59.0/24",
        "a2": "192.168.58.0/24",
    }
    assert found[1].kept == ("lab.yaml",), "the file's new subnet would change a lab that may be up"
    assert found[-1].problem.startswith(f"{tmp_path}/class/broken/lab.yaml:")


def test_a_subnet_kept_from_a_seats_own_file_is_reported_when_it_overlaps_and_keeps_no_seat_out(
    tmp_path: Path,
) -> None:
    left_behind(tmp_path, "a1", "network: {subnet: 192.168.57.0/24}\n")
    left_behind(tmp_path, "a2", "network: {subnet: 192.168.56.0/24}\n")
    where = tmp_path / "class"
    found = class_of(tmp_path, "seat,subnet\na1,\na2,\na3,192.168.57.0/24\na4,\n")
    assert {each.seat: each.warnings for each in found} == {
        "a1": (f"subnet 192.168.57.0/24 in {where}/a1/lab.yaml overlaps 192.168.57.0/24 of 'a3', line 4",),
        "a2": (
            f"subnet 192.168.56.0/24 in {where}/a2/lab.yaml overlaps 192.168.56.0/24, "
            "which the labs use themselves",
        ),
        "a3": (),
        "a4": (),
    }
    assert str(found[-1].lab.network.subnet) == "192.168.58.0/24"


def test_a_seats_changed_lab_is_kept_and_is_the_seats_lab(tmp_path: Path) -> None:
    for each in class_of(tmp_path, "seat\na1\na2\na3\n"):
        left_behind(tmp_path, each.seat, each.files["lab.yaml"])
    changed = tmp_path / "class" / "a2" / "lab.yaml"
    changed.write_text(changed.read_text() + "nodes: {workers: {count: 1}}\n")
    (tmp_path / "class" / "a3" / "lab.yaml").write_text("nodes: {workers: {count: many}}\n")
    found = {each.seat: each for each in class_of(tmp_path, "seat\na1\na2\na3\na4\n")}
    assert {name: (each.kept, sorted(each.files)) for name, each in found.items()} == {
        "a1": ((), ["lab.yaml"]),
        "a2": (("lab.yaml",), []),
        "a3": (("lab.yaml",), []),
        "a4": ((), ["lab.yaml"]),
    }
    assert [len(each.lab.workers) for each in found.values()] == [3, 1, 3, 3]
    assert [name for name, each in found.items() if each.problem] == ["a3"]
    assert "nodes.workers.count" in found["a3"].problem


@pytest.mark.parametrize(
    "text",
    [
        "sep=,\nseat,name\na1,Kim\n",
        "sep=;\r\nseat;name\r\na1;Kim\r\n",
        '"sep=\t"\nseat\tname\na1\tKim\n',
        "\ufeffSEP=;\rseat;name\ra1;Kim\r",
        "seat\tname\na1\tKim\n",
        "seat;name\na1;Kim\n",
        "seat,name,\na1,Kim,\n",
        "seat,name,,\na1,Kim\n",
        "seat,name\na1,Kim,,,\n",
        ",,\nseat,name\n,\n\n , \t\na1,Kim\n,,,\n",
        "seat,name\n\u3000a1\u00a0,\u00a0Kim\u3000\n",
    ],
)
def test_a_file_is_taken_as_spreadsheets_write_it(tmp_path: Path, text: str) -> None:
    assert [(each.seat, each.name) for each in class_of(tmp_path, text)] == [("a1", "Kim")]


def test_wide_and_no_break_spaces_in_a_name_become_ordinary_ones(tmp_path: Path) -> None:
    [found] = class_of(tmp_path, "seat,name\na1,김\u3000아다\u00a0Ada\u202fKim\n")
    assert found.name == "김 아다 Ada Kim"
    assert found.files["lab.yaml"].startswith("# The lab of seat a1, 김 아다 Ada Kim.\n")


def test_lines_are_counted_below_a_sep_line_and_blank_rows(tmp_path: Path) -> None:
    assert problems(tmp_path, "sep=;\n\nseat;name\n;;\na1;Ada\na_2;Bob\n") == [
        "6: seat 'a_2' may have only letters, digits and '-'"
    ]


def test_a_cell_beyond_the_header_is_refused_only_when_it_has_something(tmp_path: Path) -> None:
    assert problems(tmp_path, "seat,,\na1,,\na2,,x\n") == ["3: has more cells than the header"]


def test_everything_wrong_is_reported_at_once_with_its_line(tmp_path: Path) -> None:
    text = (
        "seat,name,subnet\n"
        "a1,Ada,192.168.60.0/24\n"
        "a 2,Bob,\n"
        "A1,Cem,\n"
        "\n"
        "a3,Dan,192.168.60.128/25\n"
        "a4,Eva,10.244.1.0/24\n"
        "a5,Fay,somewhere\n"
        f"{'x' * 40},Gus,\n"
        "a6,Ho\x07,\n"
        "a7,Ida,,more\n"
    )
    found = problems(tmp_path, text)
    assert [each.partition(": ")[0] for each in found] == ["3", "4", "6", "6", "7", "8", "9", "10", "11"]
    for what, each in zip(
        (
            *("'a 2' may have only", "'a1' is there twice, first on line 2"),
            "overlaps 192.168.60.0/24 of 'a1'",
            *("is smaller than", "overlaps 10.244.0.0/16", "has no prefix length", "too long for a lab's name"),
            *("a character that can't be shown", "more cells than the header"),
        ),
        found,
        strict=True,
    ):
        assert what in each


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["1: there is no column seat"]),
        ("seat\n", ["1: has no seats"]),
        ("name\nAda\n", ["1: there is no column seat"]),
        ("seat,sead\na1,\n", ["1: unknown column 'sead', did you mean seat? (seat, name, subnet)"]),
        (
            "seat|name\na1|Ada\n",
            [
                "1: unknown column 'seat|name', did you mean seat? (seat, name, subnet)",
                "1: there is no column seat",
            ],
        ),
        ("seat,seat\na1,a2\n", ["1: column seat is there twice"] * 2),
    ],
)
def test_a_file_that_is_not_a_class_is_refused(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert problems(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("content", "what"), [(b"seat\n\xff\n", "not UTF-8"), (b'seat\n"a', "not CSV"), (b"x" * 70_000, "larger")]
)
def test_a_file_that_is_not_text_is_refused(tmp_path: Path, content: bytes, what: str) -> None:
    file = tmp_path / "class.csv"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=what):
        seats(file, tmp_path / "lab.yaml", config.default(), tmp_path)
    with pytest.raises(ConfigError, match="can't be read"):
        seats(tmp_path / "none.csv", tmp_path / "lab.yaml", config.default(), tmp_path)


def test_a_public_subnet_of_a_seat_is_refused_with_its_line(tmp_path: Path) -> None:
    rows = "seat,subnet\na1,172.32.5.0/24\n"
    [found] = problems(tmp_path, rows)
    assert found.startswith("2: subnet 172.32.5.0/24 of 'a1' is not private")
    [seat] = class_of(tmp_path, rows, "network: {public_addresses: true}\n")
    assert seat.lab.network.subnet == IPv4Network("172.32.5.0/24")


def test_it_is_reported_that_no_network_is_left(tmp_path: Path) -> None:
    lab_yaml = "network: {subnet: 11.0.0.0/8, public_addresses: true}\n"
    [found] = problems(tmp_path, "seat\na1\n", lab_yaml)
    assert found == "2: no network as large as 11.0.0.0/8 is free for 'a1'"
