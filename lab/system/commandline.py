"""How a typed line is read: invoke's parser, with our words for what it can't make out."""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import re
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from types import TracebackType

from invoke.completion.complete import print_completion_script
from invoke.exceptions import Exit, ParseError
from invoke.parser.context import ParserContext
from invoke.parser.parser import ParseMachine, Parser, ParseResult
from invoke.program import Program

from lab import exit_codes
from lab.errors import ConfigError
from lab.system.paths import COMMAND
from lab.system.terminal import naming

_complete_context, _parse_argv = ParseMachine.complete_context, Parser.parse_argv
_see_positional_arg = ParseMachine.see_positional_arg
_parse_cleanup, _binary_names = Program.parse_cleanup, Program.binary_names


class UsageError(ParseError, Exit):  # type: ignore[misc]
    """A line that can't be read; invoke prints a ParseError, and takes the exit code of an Exit."""

    def __init__(self, said: str, context: ParserContext | None = None) -> None:
        """Keep what to print, and the context from which invoke completes words."""
        said = naming(said, "")
        super().__init__(said, context)
        self.args = (said,)
        self.message = None  # which would be printed, too
        self._code = exit_codes.USAGE


def speak_our_words() -> None:
    """Have invoke take what the verbs need; once, before it reads the line."""
    ParseMachine.complete_context = _without_optional_words
    ParseMachine.check_ambiguity = _never_ambiguous
    ParseMachine.see_positional_arg = _no_flag_for_a_word
    ParseMachine.error = _not_understood
    Parser.parse_argv = _with_ssh_at_the_end
    Program.parse_cleanup = _help_of_known_verbs
    Program.binary_names = property(_also_as_typed)
    sys.excepthook = _unless_the_reader_left
    atexit.register(_print_the_rest)


def completion(shell: str) -> str:
    """Return the script with which a shell completes verbs and flags. Raises ConfigError."""
    said, name = io.StringIO(), os.path.basename(COMMAND)
    try:
        with contextlib.redirect_stdout(said):
            print_completion_script(shell, [name])
    except ParseError as error:
        raise ConfigError([f"there is no completion for {shell!r}"], hint="bash, zsh or fish") from error
    # Shells know `./inv` by its last part, and no function of fish's may have a slash in its name.
    return re.sub(rf"(?<![\w-]){name}(?= (\S+ )?--complete )", COMMAND, said.getvalue())


def after_dashes() -> list[str]:
    """The words behind `--`: a command for a machine."""
    return sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []


def _also_as_typed(self: Program) -> list[str]:
    """What may begin a line that is to be completed: `./inv`, too, which invoke is not started as."""
    return [*_binary_names.fget(self), COMMAND]


def _without_optional_words(self: ParseMachine) -> None:
    """Let a word among a task's `optional` be left out, so that `./inv drill --list` can be typed.

    invoke itself knows words that must be given, and flags that may be.
    """
    for argument in self.context.positional_args if self.context else ():
        if argument.value is True:  # a flag without its word
            self.flag = argument
            self.error("needed value")
        if argument.optional and argument.value is None:
            argument.set_value("", cast=False)
    _complete_context(self)


def _never_ambiguous(self: ParseMachine, value: str) -> bool:
    """Let a word that may be left out be given by its flag too: `./inv task --number 3` is `./inv task 3`."""
    return False


def _no_flag_for_a_word(self: ParseMachine, value: str) -> None:
    """Take a word that a verb needs, such as a machine's name; what looks like a flag is an unknown one.

    So it can be completed, too.
    """
    if value.startswith("-"):
        self.error(f"No idea what {value!r} is!")
    _see_positional_arg(self, value)


def _not_understood(self: ParseMachine, message: str) -> None:
    """Say what can't be made out of a line, and what to do next, where invoke says the first alone."""
    verb = self.context.name if self.context else None
    known = f"`./inv --help {verb}` says what `{verb}` takes" if verb else "`./inv --list` has all verbs"
    unknown = re.fullmatch(r"No idea what '(.*)' is!", message)
    if unknown and unknown[1].startswith("-"):
        message = f"there is no flag {unknown[1]}"
        known = _near(unknown[1], self.context.flags, "{}") + known
    elif unknown:
        message = f"there is no verb {unknown[1]}"
        known = _near(unknown[1], self.contexts, "`./inv {}`") + "`./inv --list` has all verbs"
    elif self.flag and "needed value" in message:
        message = f"--{self.flag.name} needs a value"
    elif verb and "did not receive" in message:
        message = f"`{verb}` needs: {', '.join(each.name for each in self.context.missing_positional_args)}"
    raise UsageError(f"error: {message}\n  next: {known}", self.context)


def _unless_the_reader_left(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """End as the shell knows it of SIGPIPE where invoke itself prints, as for `./inv --list | head`."""
    if issubclass(kind, BrokenPipeError):
        os._exit(exit_codes.READER_LEFT)  # what is left to write has no reader
    sys.__excepthook__(kind, error, trace)


def _print_the_rest() -> None:
    """End in the same way where the reader has left before what was printed leaves Python's buffer."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os._exit(exit_codes.READER_LEFT)


def _help_of_known_verbs(self: Program) -> None:
    """Print help and lists, as invoke does; of a verb that there is not, say so in our words."""
    asked = self.args.help.value
    if isinstance(asked, str) and asked and asked not in self.parser.contexts:
        near = _near(asked, self.parser.contexts, "`./inv --help {}`")
        raise UsageError(f"error: there is no verb {asked}\n  next: {near}`./inv --list` has all verbs")
    _parse_cleanup(self)


def _near(word: str, known: Iterable[str], as_typed: str) -> str:
    found = get_close_matches(word, list(known), n=1)
    return f"did you mean {as_typed.format(found[0])}? " if found else ""


def _with_ssh_at_the_end(self: Parser, argv: list[str]) -> ParseResult:
    """Read a line whose last verb may be `ssh`: that becomes the session, and has what follows `--`."""
    found = _parse_argv(self, argv)
    verbs = [context.name for context in found if context.name]
    if "ssh" in verbs[:-1]:
        raise UsageError("error: nothing can follow `ssh` in one line\n  next: type it by itself")
    if verbs and verbs[-1] != "ssh" and after_dashes():
        what = f"words after `--` are a command for a machine, and `{verbs[-1]}` takes none"
        raise UsageError(f"error: {what}\n  next: ./inv ssh MACHINE -- COMMAND")
    return found
