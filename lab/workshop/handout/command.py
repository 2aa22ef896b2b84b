"""The verb `handout`: which handouts, for whom, and where they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from lab.config.shape import guess
from lab.errors import ConfigError, LabStateError
from lab.host import ROOT, Cgroups, kernel
from lab.model import Lab
from lab.session import Session, change_of
from lab.verbs import bake
from lab.workshop.handout import chapters, pdf
from lab.workshop.handout.chapters import Chapter
from lab.workshop.handout.context import context, newest_report
from lab.workshop.handout.page import OURS, Cover, index, page
from lab.workshop.handout.prose import EDITIONS, Edition
from lab.workshop.handout.seats import Seat, seats

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

    Raises, before anything is written, ConfigError with all that is wrong with the class's file, and
    LabStateError with all files that are in the way.
    """
    found = seats(file, session.path, session.lab, asked.folder)
    with session.progress.step("class", f"handouts for {len(found)} seats"):
        texts = {each.seat: handout(session, each.lab, asked, _cover(each)) for each in found}
    endings = [f"{asked.name}.{form}" for form in _forms(asked)]
    handouts = [asked.folder / each.seat / name for each in found for name in endings]
    labs = {asked.folder / each.seat / name: text for each in found for name, text in each.files.items()}
    _require_ours([*handouts, asked.folder / INDEX], labs)
    for path, text in labs.items():
        session.workspace.write(path, text)
    pages = {asked.folder / each.seat / f"{asked.name}.html": texts[each.seat] for each in found}
    for path, text in pages.items():
        session.workspace.write(path, text)
    listed = index(found, ("lab.yaml", *endings), session.lab, asked.language)
    session.workspace.write(asked.folder / INDEX, listed)
    _printed(session, asked, [*pages], consent=consent)
    return asked.folder / INDEX


def handout(session: Session, lab: Lab, asked: Wish, cover: Cover) -> str:
    """Return a handout's HTML."""
    read = read_chapters(session, lab, asked.language, asked.lab_file)
    return page(lab, asked.language, asked.edition, read, cover)


def read_chapters(session: Session, lab: Lab, language: str, lab_file: str) -> tuple[Chapter, ...]:
    """Return the chapters with a lab's values, this host's and the newest report's. Raises ChapterError."""
    own = lab is session.lab
    groups = kernel.cgroups(ROOT)
    # A seat's lab comes up on another host, of which nothing is known: version 1 asks for what works with both.
    version = 1 if not own else groups.version if isinstance(groups, Cgroups) else 2
    told = context(
        lab,
        language,
        # Drills were run in this lab file's own lab at most, and a report has megabytes.
        found=newest_report(session.workspace.root) if own else None,
        cgroups=version,
    )
    return chapters.read(language, told, chapters.FOLDER, lab_file=lab_file)


def _is_up(session: Session) -> bool:
    """Whether there are machines, made from this lab file: of another one's a handout says nothing."""
    change = change_of(session, session.lab)
    return session.workspace.has_machines() and not (change.added or change.removed or change.settings)


def _cover(seat: Seat) -> Cover:
    return Cover(made=date.today().isoformat(), up=False, seat=seat.seat, name=seat.name)


def _forms(asked: Wish) -> tuple[str, ...]:
    return ("html", "pdf") if asked.form == "pdf" else ("html",)


def _printed(session: Session, asked: Wish, pages: Sequence[Path], *, consent: bool) -> Sequence[Path]:
    """The pages as they were asked for; what a PDF needs is looked at once their HTML is there."""
    if asked.form != "pdf":
        return pages
    session.progress.say(f"the HTML is written: {pages[0]}")
    bake.make_fit(session, {"pdf", "korean"} if asked.language == "ko" else {"pdf"}, consent=consent)
    printed = [each.with_suffix(".pdf") for each in pages]
    for each, target in zip(pages, printed, strict=True):
        with session.progress.step("pdf", f"print {target.parent.name}/{target.name}"):
            pdf.write(each, target, mark=OURS)
    return printed


def _require_ours(handouts: Iterable[Path], labs: Mapping[Path, str] | None = None) -> None:
    """Raise LabStateError naming what is in the way: handouts that we did not write, labs that would change.

    Once written, a lab's files belong to whoever has the seat: they edit them, and machines come from them.
    """
    foreign = [path for path in handouts if path.exists() and not _is_ours(path)]
    foreign += [path for path, text in (labs or {}).items() if path.exists() and not _has(path, text)]
    if foreign:
        raise LabStateError(
            "not written by this kit, or not as it would be now, and so not overwritten: "
            + ", ".join(map(str, foreign)),
            hint="move it away, or name another folder: --out FOLDER",
        )


def _has(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def _is_ours(path: Path) -> bool:
    return path.is_file() and OURS.encode() in path.read_bytes()[-64:]
