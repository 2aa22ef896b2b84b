"""This room is the verb `handout`: which handouts, for whom, and where they lie."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import ConfigError, LabStateError
from lab.handout import chapters, pdf
from lab.handout.context import context, newest_report
from lab.handout.page import OURS, Cover, index, page
from lab.handout.prose import EDITIONS, Edition
from lab.handout.seats import Seat, seats
from lab.host import ROOT, Cgroups, kernel
from lab.model import Lab
from lab.shape import guess

if TYPE_CHECKING:
    from lab.session import Session

FORMATS = ("html", "pdf")
FOLDER, CLASS, INDEX = "handouts", "class", "index.html"


@dataclass(frozen=True)
class Wish:
    """What was asked for. `folder` is where it goes; `lab_file` is "" for the lab that commands mean anyway."""

    language: str
    edition: Edition
    form: str
    folder: Path
    lab_file: str = ""

    @property
    def name(self) -> str:
        """The handout's file, without its ending."""
        return f"{self.edition}-{self.language}"


def wish(session: Session, lang: str, edition: str, form: str, out: str, lab_file: str, *, of: str) -> Wish:
    """Return what was asked for. Raises ConfigError with everything that is not known here.

    Where nothing is said, handouts lie beside the lab file and not in `.lab/`, which `destroy` removes.
    """
    problems = [
        f"--{flag} {value}: not known here{guess(value, known)}"
        for flag, value, known in (
            ("lang", lang, chapters.LANGUAGES),
            ("for", edition, EDITIONS),
            ("format", form, FORMATS),
        )
        if value not in known
    ]
    if problems:
        raise ConfigError(problems, hint="`./inv --help handout` says what each is for")
    folder = Path(out) if out else session.path.parent / FOLDER / (CLASS if of else session.lab.name)
    known: Edition = "instructor" if edition == "instructor" else "student"
    return Wish(lang, known, form, folder, lab_file)


def write(session: Session, asked: Wish, *, consent: bool) -> Path:
    """Write one handout and return its file. Raises LabStateError where something else is in its place."""
    cover = Cover(made=date.today().isoformat(), up=_is_up(session), lab_file=asked.lab_file)
    text = handout(session, session.lab, asked, cover)
    _require_ours(asked.folder / f"{asked.name}.{form}" for form in _forms(asked))
    written = asked.folder / f"{asked.name}.html"
    session.workspace.write(written, text)
    return _printed(session, asked, [written], consent=consent)[0]


def write_class(session: Session, asked: Wish, file: Path, *, consent: bool) -> Path:
    """Write a folder for each seat of a class, and the instructor's list of them; return that.

    Raises ConfigError with all that is wrong with the class's file, before anything is written.
    """
    found = seats(file, session.path, session.lab)
    texts = {each.seat: handout(session, each.lab, asked, _cover(each)) for each in found}
    endings = [f"{asked.name}.{form}" for form in _forms(asked)]
    _require_ours(asked.folder / each.seat / name for each in found for name in (*each.files, *endings))
    _require_ours([asked.folder / INDEX])
    pages = []
    for each in found:
        folder = asked.folder / each.seat
        for name, text in each.files.items():
            session.workspace.write(folder / name, text)
        pages.append(folder / f"{asked.name}.html")
        session.workspace.write(pages[-1], texts[each.seat])
    listed = index(found, ("lab.yaml", *endings), session.lab, asked.language)
    session.workspace.write(asked.folder / INDEX, listed)
    _printed(session, asked, pages, consent=consent)
    return asked.folder / INDEX


def handout(session: Session, lab: Lab, asked: Wish, cover: Cover) -> str:
    """Return a handout's HTML."""
    groups = kernel.cgroups(ROOT)
    told = context(
        lab,
        asked.language,
        # Drills were run in this lab file's own lab at most, and a report has megabytes.
        found=newest_report(session.workspace.root) if lab is session.lab else None,
        cgroups=groups.version if isinstance(groups, Cgroups) else 2,
    )
    read = chapters.read(asked.language, told, chapters.FOLDER, lab_file=asked.lab_file)
    return page(lab, asked.language, asked.edition, read, cover)


def _is_up(session: Session) -> bool:
    """Whether there are machines, made from this lab file: of another one's a handout says nothing."""
    try:
        session.require_same_lab()
    except LabStateError:
        return False
    return session.workspace.has_machines()


def _cover(seat: Seat) -> Cover:
    return Cover(made=date.today().isoformat(), up=False, seat=seat.seat, name=seat.name)


def _forms(asked: Wish) -> tuple[str, ...]:
    return ("html", "pdf") if asked.form == "pdf" else ("html",)


def _printed(session: Session, asked: Wish, pages: Sequence[Path], *, consent: bool) -> Sequence[Path]:
    """The pages as they were asked for; what a PDF needs is looked at once their HTML is there."""
    if asked.form != "pdf":
        return pages
    session.progress.say(f"the HTML is written: {pages[0]}")
    session.make_fit({"pdf", "korean"} if asked.language == "ko" else {"pdf"}, consent=consent)
    printed = [each.with_suffix(".pdf") for each in pages]
    for each, target in zip(pages, printed, strict=True):
        with session.progress.step("pdf", f"print {target.parent.name}/{target.name}"):
            pdf.write(each, target, mark=OURS)
    return printed


def _require_ours(paths: Iterable[Path]) -> None:
    """Raise LabStateError naming what is in the way that we did not write."""
    foreign = [str(path) for path in paths if path.exists() and not _is_ours(path)]
    if foreign:
        raise LabStateError(
            f"not written by this kit, and so not overwritten: {', '.join(foreign)}",
            hint="move it away, or name another folder: --out FOLDER",
        )


def _is_ours(path: Path) -> bool:
    return path.is_file() and OURS.encode() in path.read_bytes()[-64:]
