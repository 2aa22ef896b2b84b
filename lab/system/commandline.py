"""Parses the command line: invoke's parser, with this kit's messages for what it can't parse."""

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
    """An invalid command line; invoke prints a ParseError, and uses the exit code of an Exit."""

    def __init__(self, said: str, context: ParserContext | None = None) -> None:
        """Keep what to print, and the context from which invoke completes words."""
        said = naming(said, "")
        super().__init__(said, context)
        self.args = (said,)
        self.message = None  # invoke would print it, too
        self._code = exit_codes.USAGE


def patch_invoke() -> None:
    """Patch invoke's parser for the verbs; once, before it parses the command line."""
    ParseMachine.complete_context = _fill_optional_arguments
    ParseMachine.check_ambiguity = _never_ambiguous
    ParseMachine.see_positional_arg = _no_flag_for_a_word
    ParseMachine.error = _usage_error
    Parser.parse_argv = _with_ssh_at_the_end
    Program.parse_cleanup = _help_for_known_verbs
    Program.binary_names = property(_also_as_typed)
    sys.excepthook = _exit_on_broken_pipe
    atexit.register(_flush_at_exit)


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
    """The arguments after `--`: a command for a machine."""
    return sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []


def _also_as_typed(self: Program) -> list[str]:
    """Return how a line to complete may begin: also with `./inv`, which is not the name of invoke's process."""
    return [*_binary_names.fget(self), COMMAND]


def _fill_optional_arguments(self: ParseMachine) -> None:
    """Let the arguments in a task's `optional` be left out, so that `./inv drill --list` works.

    invoke itself has only required arguments and optional flags.
    """
    for argument in self.context.positional_args if self.context else ():
        if argument.value is True:  # a flag without its value
            self.flag = argument
            self.error("needed value")
        if argument.optional and argument.value is None:
            argument.set_value("", cast=False)
    _complete_context(self)


def _never_ambiguous(self: ParseMachine, value: str) -> bool:
    """Accept an optional argument as a flag, too: `./inv task --number 3` is `./inv task 3`."""
    return False


def _no_flag_for_a_word(self: ParseMachine, value: str) -> None:
    """Accept an argument that a verb needs, such as a machine's name, unless it looks like a flag.

    So it can be completed, too.
    """
    if value.startswith("-"):
        self.error(f"No idea what {value!r} is!")
    _see_positional_arg(self, value)


def _usage_error(self: ParseMachine, message: str) -> None:
    """Report what can't be parsed and what to do next; invoke itself reports only the first."""
    verb = self.context.name if self.context else None
    known = f"`./inv --help {verb}` shows what `{verb}` takes" if verb else "`./inv --list` shows all verbs"
    unknown = re.fullmatch(r"No idea what '(.*)' is!", message)
    if unknown and unknown[1].startswith("-"):
        message = f"there is no flag {unknown[1]}"
        known = _near(unknown[1], self.context.flags, "{}") + known
    elif unknown:
        message, known = _no_verb(unknown[1], verb, _near(unknown[1], self.contexts, "`./inv {}`"), known)
    elif self.flag and "needed value" in message:
        message = f"--{self.flag.name} needs a value"
    elif verb and "did not receive" in message:
        message = f"`{verb}` needs: {', '.join(each.name for each in self.context.missing_positional_args)}"
    raise UsageError(f"error: {message}\n  next: {known}", self.context)


def _no_verb(word: str, after: str | None, near: str, known: str) -> tuple[str, str]:
    """The message and the next step for a word that is no verb; it may be meant for the verb `after`."""
    if near or not after:
        return f"there is no verb {word}", f"{near}`./inv --list` shows all verbs"
    runs = f"`./inv {after} MACHINE -- {word}` runs it on a machine; " if after == "ssh" else ""
    return f"`{after}` takes no {word} after that, and there is no verb of that name", f"{runs}{known}"


def _exit_on_broken_pipe(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Exit as after SIGPIPE where invoke itself prints into a closed pipe, as in `./inv --list | head`."""
    if issubclass(kind, BrokenPipeError):
        os._exit(exit_codes.READER_LEFT)  # flushing the rest would fail, too
    sys.__excepthook__(kind, error, trace)


def _flush_at_exit() -> None:
    """Exit in the same way where the pipe is closed before Python's buffer is flushed."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os._exit(exit_codes.READER_LEFT)


def _help_for_known_verbs(self: Program) -> None:
    """Print help and lists, as invoke does; report a verb that does not exist."""
    asked = self.args.help.value
    if isinstance(asked, str) and asked and asked not in self.parser.contexts:
        near = _near(asked, self.parser.contexts, "`./inv --help {}`")
        raise UsageError(f"error: there is no verb {asked}\n  next: {near}`./inv --list` shows all verbs")
    _parse_cleanup(self)


def _near(word: str, known: Iterable[str], as_typed: str) -> str:
    found = get_close_matches(word, list(known), n=1)
    return f"did you mean {as_typed.format(found[0])}? " if found else ""


def _with_ssh_at_the_end(self: Parser, argv: list[str]) -> ParseResult:
    """Parse a command line; its last verb may be `ssh`, which gets the arguments after `--`."""
    found = _parse_argv(self, argv)
    verbs = [context.name for context in found if context.name]
    if "ssh" in verbs[:-1]:
        raise UsageError("error: no other verb can follow `ssh`\n  next: run them as two commands")
    if verbs and verbs[-1] != "ssh" and after_dashes():
        what = f"arguments after `--` are a command for a machine, and `{verbs[-1]}` takes none"
        raise UsageError(f"error: {what}\n  next: ./inv ssh MACHINE -- COMMAND")
    return found
