"""The verb `handout`: which handouts are written, for whom, and where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path

from lab.config.shape import guess
from lab.errors import ConfigError, LabStateError
from lab.health import status
from lab.host import ROOT, Cgroups, kernel
from lab.model import Lab
from lab.session import Session, change_of
from lab.verbs import bake
from lab.workshop.handout import chapters, pdf
from lab.workshop.handout.chapters import Chapter
from lab.workshop.handout.context import context, newest_report
from lab.workshop.handout.page import OURS, Cover, index, page
from lab.workshop.handout.prose import EDITIONS, Edition
from lab.workshop.handout.seats import LAB_FILE, Seat, seats
from lab.workshop.handout.topology import Now

FORMATS = ("html", "pdf")
ENDINGS = tuple(f"{language}.{form}" for language in chapters.LANGUAGES for form in FORMATS)
FOLDER, CLASS, INDEX = "handouts", "class", "index.html"


@dataclass(frozen=True)
class Request:
    """What was asked for. `folder` is where it goes; `lab_file` is "" where commands need not name the lab."""

    language: str
    edition: Edition
    form: str
    folder: Path
    lab_file: str = ""

    @property
    def name(self) -> str:
        """The handout's file, without its ending."""
        return f"{self.edition}-{self.language}"


def request(
    session: Session, lang: str, edition: str, form: str, out: str, lab_file: str, *, of: str
) -> Request:
    """Return what was asked for; `of` is the class's file, if any. Raises ConfigError with every unknown value.

    By default handouts are beside the lab file rather than in `.lab/`, which `destroy` removes.
    """
    problems = [
        f"--{flag} {value}: unknown{guess(value, known)}"
        for flag, value, known in (
            ("lang", lang, chapters.LANGUAGES),
            ("for", edition, EDITIONS),
            ("format", form, FORMATS),
        )
        if value not in known
    ]
    if problems:
        raise ConfigError(problems, hint="`./inv --help handout` explains each")
    folder = Path(out) if out else session.path.parent / FOLDER / (CLASS if of else session.lab.name)
    known: Edition = "instructor" if edition == "instructor" else "student"
    return Request(lang, known, form, folder, lab_file)


def write(session: Session, asked: Request, *, consent: bool) -> Path:
    """Write one handout and return its file. Raises LabStateError if another file is in its place."""
    return _write_own(session, asked, consent=consent)[0]


def write_class(session: Session, asked: Request, file: Path, *, consent: bool) -> Path:
    """Write a class's handouts and labs, and the instructor's list of them; return that list.

    Each seat has a folder with its lab and, for students, its handout. The instructor's handout is about the
    lab of `session` and beside the list, since students are given the seats' folders.

    Raises, before anything is written, ConfigError with everything that is wrong with the class's file. Raises
    LabStateError, once all others are written, with each seat that could not be.
    """
    listed = asked.folder / INDEX
    _require_ours([listed])
    found = seats(file, session.path, session.lab, asked.folder)
    with session.progress.step("class", f"handouts for {len(found)} seats"):
        problems = {each.seat: _write_seat(session, asked, each) for each in found}
    usable = [each for each in found if not each.problem]
    _write_index(session, asked, usable)
    if asked.edition == "instructor":
        _write_own(session, asked, consent=consent)
    else:
        pages = [asked.folder / seat / f"{asked.name}.html" for seat, why in problems.items() if not why]
        _printed(session, asked, pages, consent=consent)
    _write_index(session, asked, usable)
    if any(problems.values()):
        raise LabStateError(
            "\n".join(filter(None, problems.values())),
            hint=f"correct it or move it away, then repeat the command; all other seats are in {listed}",
        )
    return listed


def _write_own(session: Session, asked: Request, *, consent: bool) -> Sequence[Path]:
    """Write the handout about the lab of `session` itself."""
    up = _is_up(session)
    now = _now(session) if up else None
    cover = Cover(made=date.today().isoformat(), up=up, lab_file=asked.lab_file, now=now)
    text = handout(session, session.lab, asked, cover)
    written = asked.folder / f"{asked.name}.html"
    _require_ours(written.with_suffix(f".{form}") for form in _forms(asked))
    session.workspace.write(written, text)
    return _printed(session, asked, [written], consent=consent)


def _write_seat(session: Session, asked: Request, seat: Seat) -> str:
    """Write a seat's lab and its student's handout; return why that could not be written, or "".

    The files of a lab belong to the person on that seat: they edit them, and machines come from them.
    """
    folder = asked.folder / seat.seat
    for name, text in seat.files.items():
        session.workspace.write(folder / name, text)
    for name in seat.kept:
        session.progress.say(f"kept, since it differs from what this class would write: {folder / name}")
    for warning in seat.warnings:
        session.progress.say(f"warning: {warning}")
    for path in sorted(folder.glob("instructor-*")):
        session.progress.say(
            f"warning: {path} has the answers; remove it before you give {folder} to a student"
        )
    if seat.problem:
        return f"seat {seat.seat}: no handout was written, since its lab.yaml can't be used: {seat.problem}"
    if asked.edition == "student":
        foreign = _foreign(folder / f"{asked.name}.{form}" for form in _forms(asked))
        if foreign:
            return f"seat {seat.seat}: not overwritten, since this kit did not write it: {', '.join(foreign)}"
        text = handout(session, seat.lab, replace(asked, lab_file=""), _cover(seat))
        session.workspace.write(folder / f"{asked.name}.html", text)
    return ""


def _write_index(session: Session, asked: Request, found: Sequence[Seat]) -> None:
    """Write the list of what is there now, in both languages, whatever this run has made of it."""
    files = {each.seat: _listed(asked.folder / each.seat, "student") for each in found}
    own = _listed(asked.folder, "instructor")
    text = index(found, files, own, session.lab, asked.language)
    session.workspace.write(asked.folder / INDEX, text)


def _listed(folder: Path, edition: Edition) -> tuple[str, ...]:
    names = [f"{edition}-{ending}" for ending in ENDINGS if _is_ours(folder / f"{edition}-{ending}")]
    return tuple([LAB_FILE, *names] if (folder / LAB_FILE).exists() else names)


def handout(session: Session, lab: Lab, asked: Request, cover: Cover) -> str:
    """Return a handout's HTML."""
    read = read_chapters(session, lab, asked.language, asked.lab_file)
    return page(lab, asked.language, asked.edition, read, cover)


def read_chapters(session: Session, lab: Lab, language: str, lab_file: str) -> tuple[Chapter, ...]:
    """Return the chapters with the values of a lab, this host and the newest report. Raises ChapterError."""
    own = lab is session.lab
    groups = kernel.cgroups(ROOT)
    # A seat's lab comes up on another host, about which nothing is known: what version 1 needs works on both.
    version = 1 if not own else groups.version if isinstance(groups, Cgroups) else 2
    values = context(
        lab,
        language,
        # Only this lab file's own lab can have reports of drills, and a report has megabytes.
        found=newest_report(session.workspace.root) if own else None,
        cgroups=version,
    )
    return chapters.read(language, values, chapters.FOLDER, lab_file=lab_file)


def _is_up(session: Session) -> bool:
    """Whether there are machines, and they were made from this lab file as it is now."""
    change = change_of(session, session.lab)
    return session.workspace.has_machines() and not (change.added or change.removed or change.settings)


def _now(session: Session) -> Now | None:
    """What status finds of the lab; None if it is down, and a picture would be out of date at once."""
    with session.progress.asking("answers from the machines and the API, for the picture"):
        found = status.look(session)
    at = datetime.now().strftime("%Y-%m-%d %H:%M")
    return None if found.health == "down" else Now(found, at)


def _cover(seat: Seat) -> Cover:
    return Cover(made=date.today().isoformat(), up=False, seat=seat.seat, name=seat.name)


def _forms(asked: Request) -> tuple[str, ...]:
    return ("html", "pdf") if asked.form == "pdf" else ("html",)


def _printed(session: Session, asked: Request, pages: Sequence[Path], *, consent: bool) -> Sequence[Path]:
    """The pages in the form that was asked for. What a PDF needs is checked only once their HTML is written."""
    if asked.form != "pdf" or not pages:
        return pages
    session.progress.say(f"the HTML is written: {pages[0]}")
    bake.make_fit(session, {"pdf", "korean"} if asked.language == "ko" else {"pdf"}, consent=consent)
    printed = [each.with_suffix(".pdf") for each in pages]
    for each, target in zip(pages, printed, strict=True):
        with session.progress.step("pdf", f"print {target.parent.name}/{target.name}"):
            pdf.write(each, target, mark=OURS)
    return printed


def _require_ours(paths: Iterable[Path]) -> None:
    """Raise LabStateError with the files that are in the way: those that this kit did not write."""
    foreign = _foreign(paths)
    if foreign:
        raise LabStateError(
            f"not overwritten, since this kit did not write it: {', '.join(foreign)}",
            hint="move it away, or choose another folder: --out FOLDER",
        )


def _foreign(paths: Iterable[Path]) -> list[str]:
    return [str(path) for path in paths if path.exists() and not _is_ours(path)]


def _is_ours(path: Path) -> bool:
    return path.is_file() and OURS.encode() in path.read_bytes()[-64:]
