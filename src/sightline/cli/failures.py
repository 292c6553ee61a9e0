"""How a failure is told: one line on stderr, an exit code, and a traceback only where it was asked for."""

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import typer

FAILED, MISUSED, STOPPED = 1, 2, 130
Failures = list[tuple[str, BaseException]]  # of a batch: which of it, and what is wrong with it
_SAMPLES = f"{Path(__file__).resolve().parents[1] / 'samples'}{os.sep}"


class Misuse(ValueError):
    """The command line asks for something that cannot be had; the message says what to give instead."""


def one_line(error: BaseException) -> str:
    """The message of any exception on one line, with its type where the message alone would not speak for
    itself."""
    if hasattr(error, "format_message"):  # the usage errors of typer's command line parser
        return " ".join(str(error.format_message()).split())
    text = " ".join(str(error).split())
    if isinstance(error, KeyError | IndexError | AssertionError) or not text:
        return f"{type(error).__name__}: {text}".rstrip(": ")
    if isinstance(error, ValueError | OSError | ImportError) or type(error) is RuntimeError:
        return text
    return f"{type(error).__name__}: {text}"


def code_of(error: BaseException) -> int:
    """2 where the user gave something unusable, 1 where something else failed."""
    unusable = (ValueError, FileNotFoundError, NotADirectoryError, IsADirectoryError, FileExistsError)
    return MISUSED if isinstance(error, unusable) else FAILED


def say(message: str) -> None:
    """One line on stderr, under the program's name."""
    typer.echo(f"sightline: {shown(message)}", err=True)


def shown(text: str) -> str:
    """Text for persons: photographs that come with sightline are named without the long folder of the package."""
    return text.replace(_SAMPLES, "")


def report(failures: Failures, source: str, error: BaseException) -> None:
    """Say what is wrong with one of a batch, and remember it; the rest goes on."""
    _trace_where_asked(error)
    message = one_line(error)
    say(message if source in message else f"{source}: {message}")
    failures.append((source, error))


def report_once(failures: Failures, source: str, error: BaseException, said: dict[str, int]) -> None:
    """The same, but a message that was `said` already is only counted; `say_counts` tells of these at the end."""
    message = one_line(error)
    if message in said:
        failures.append((source, error))
    else:
        report(failures, source, error)
    said[message] = said.get(message, -1) + 1


def say_counts(said: dict[str, int]) -> None:
    """Say for how many more the same was wrong."""
    for message, more in said.items():
        if more:
            say(f"the same for {more} more: {message[:60]}")


def told_failures(failures: Failures, key: str = "image") -> list[dict[str, Any]]:
    """The failures of a batch for the JSON document of a verb, each named under `key`."""
    return [{key: source, "error": one_line(error)} for source, error in failures]


def exit_with(failures: Failures) -> None:
    """End a batch with the highest exit code of what failed in it; where nothing failed, go on."""
    if failures:
        raise typer.Exit(max(code_of(error) for _, error in failures))


def _trace_where_asked(error: BaseException) -> None:
    if os.environ.get("SIGHTLINE_DEBUG", "0") not in ("", "0"):
        traceback.print_exception(error)


def _meant(error: BaseException, context: Any) -> str:
    """The option that names the weights, where a verb was given the word that other verbs have for it."""
    given = getattr(error, "option_name", None)
    other = {"--system": "--model", "--model": "--system"}.get(str(given))
    options = [] if context is None else [name for one in context.command.params for name in one.opts]
    if other not in options:
        return ""
    error.possibilities = []  # type: ignore[attr-defined] # what the parser guesses by the letters
    return f"; {context.info_name} takes {other}"


def exit_code(error: BaseException, as_json: bool = False) -> int:
    """Report what stopped a command line and return the exit code that goes with it."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else FAILED
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        say("stopped")
        return STOPPED
    if isinstance(error, BrokenPipeError):
        # whoever read the output has gone; Python must not complain again when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(str(error))
        return MISUSED
    _trace_where_asked(error)
    code = error.exit_code if hasattr(error, "exit_code") else code_of(error)
    hint = ""
    if hasattr(error, "format_message"):
        context = getattr(error, "ctx", None)
        hint = _meant(error, context) or f" (see `{context.command_path if context else 'sightline'} --help`)"
    elif code == FAILED:
        hint = " (SIGHTLINE_DEBUG=1 shows where)"
    say(one_line(error) + hint)
    if as_json:
        typer.echo(json.dumps({"error": one_line(error), "exit_code": code}, ensure_ascii=False))
    return code
