"""``holdfast chat``: chat with a run's language model and its base model."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.options import Helps, Output
from holdfast.core.decisions import notify
from holdfast.core.errors import DataError, HoldfastError, RecipeError
from holdfast.core.printable import printable, printable_json
from holdfast.core.shapes import count, record, text
from holdfast.terminal.layout import width
from holdfast.training.machine.signals import ending_signals

if TYPE_CHECKING:
    from holdfast.plugins.chat.talk import Reply, Talk

HELP = """/help          show this list
/start         turn the base model's answers on or off
/reset         clear the conversation
/save FILE     write the conversation as JSON lines
/quit          end the chat, like Ctrl-D; Ctrl-C stops an answer"""
YOU, TUNED, START = "you", "tuned", "base"
NAME_WIDTH, MAX_MESSAGE_LENGTH = 8, 1_000_000


# A line of the output.
DOCUMENT = record(
    {"message": text, "answer": text, "start": text, "forgotten": count}, ("message", "answer")
)


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """How answers are generated."""

    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Maximum new tokens (default: the run's, else 128).")
    ] = None
    temperature: Annotated[
        float, typer.Option(min=0.0, help="0: greedy decoding; above 0: sampling.")
    ] = 0.0
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0
    system: Annotated[str, typer.Option(help="A system turn before the conversation.")] = ""


OUTPUT = Helps(
    as_json="Print one JSON object per message, on one line.", quiet="Print only the answers."
)


def command(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A finished run of a generative model.")
    ],
    message: Annotated[
        list[str] | None, typer.Option(help="Send this message and exit; repeat for more turns.")
    ] = None,
    start: Annotated[
        bool | None,
        typer.Option(
            "--start/--no-start", help="Also run the base model (the default on a terminal)."
        ),
    ] = None,
    *,
    answers: AnswerOptions,
    output: Annotated[Output, OUTPUT],
) -> None:
    """Chat with the model of RUN and with its base model.

    If standard input is not a terminal, each of its lines is a message.
    """
    from holdfast.plugins.chat.talk import ChatOptions, Talk

    interactive = sys.stdin.isatty() and not message and not output.as_json
    manner = ChatOptions(*astuple(answers))
    talk = Talk.of(run, manner, start=interactive if start is None else start)
    with output.heard():
        notify(*talk.decisions)
    if interactive:
        _chat_loop(talk)
        return
    for line in message or _lines():
        if output.as_json:
            typer.echo(_line(talk.ask(line)))
            continue
        _answer(talk, line, labelled=talk.start_model is not None)


def _lines() -> Iterator[str]:
    """The piped messages, one per line; empty lines are skipped."""
    stream = io.TextIOWrapper(sys.stdin.buffer, "utf-8-sig", newline="\n")
    try:
        while line := stream.readline(MAX_MESSAGE_LENGTH + 1):
            if len(line) > MAX_MESSAGE_LENGTH:
                rule = f"is longer than {MAX_MESSAGE_LENGTH:,} characters"
                raise DataError("a message", rule, None, "Put one message on each line.")
            if line.strip():
                yield line.strip()
    except UnicodeError as error:
        raise DataError("standard input", "is not UTF-8", str(error), "Convert it first.") from None
    finally:
        with contextlib.suppress(OSError, ValueError):
            stream.detach()


def _line(reply: Reply) -> str:
    """A reply as a JSON object on one line."""
    record: dict[str, Any] = {"message": reply.message, "answer": reply.answer}
    if reply.start is not None:
        record["start"] = reply.start
    if reply.forgotten:
        record["forgotten"] = reply.forgotten
    return printable_json(json.dumps(record, ensure_ascii=False))


def _chat_loop(talk: Talk) -> None:
    """Read and answer messages until the user ends the chat."""
    import importlib.util

    if importlib.util.find_spec("readline") is not None:
        # Importing it gives ``input`` line editing and a history.
        importlib.import_module("readline")
    # An interrupt stops only an answer here; other ending signals still end the process.
    for number in ending_signals():
        signal.signal(number, _leave)
    typer.echo("/help lists the commands; Ctrl-D ends the chat.")
    while True:
        try:
            line = input(f"\n{YOU:>{NAME_WIDTH - 3}} > ").strip()
        except EOFError:
            typer.echo()
            return
        except KeyboardInterrupt:
            typer.echo("\n(Ctrl-D ends the chat)")
            continue
        if line in ("/quit", "/exit"):
            return
        if line.startswith("/"):
            typer.echo(printable(_run_slash_command(talk, line)))
        elif line:
            _answer(talk, line, labelled=True)


def _leave(number: int, frame: object) -> None:
    raise SystemExit(130)


def _answer(talk: Talk, line: str, *, labelled: bool) -> None:
    """Print both answers as they are generated; an interrupt stops them."""
    tuned, other = _Column(TUNED if labelled else ""), _Column(START)

    def start_second() -> None:
        tuned.end()
        other.begin()

    try:
        tuned.begin()
        reply = talk.ask(line, tuned.add, other.add, start_second)
    except KeyboardInterrupt:
        if not sys.stdin.isatty():
            raise
        typer.echo(" (stopped)")
        return
    (tuned if reply.start is None else other).end()
    if reply.forgotten:
        typer.echo(f"({reply.forgotten} earlier messages no longer fit and were left out)")


def _run_slash_command(talk: Talk, line: str) -> str:
    """Run a line that begins with a slash; return what to print."""
    name, _, rest = line.partition(" ")
    match name:
        case "/help":
            return HELP
        case "/start":
            if talk.start_model is None:
                return "The base model is not loaded."
            talk.start = not talk.start
            return f"The base model's answers are {'on' if talk.start else 'off'}."
        case "/reset":
            talk.reset()
            return "The conversation is cleared."
        case "/save":
            return _save(talk, rest.strip())
    return f"{name} is not a command.\n{HELP}"


def _save(talk: Talk, name: str) -> str:
    """Write the messages and answers as JSON lines."""
    from holdfast.core.files import write_text

    if not name:
        return "Name a file: /save talk.jsonl"
    path = Path(name)
    try:
        if path.exists() or path.is_symlink():
            raise RecipeError(str(path), "already exists", None, "Name another file.")
        write_text(path, "".join(f"{_line(reply)}\n" for reply in talk.replies))
    except (HoldfastError, OSError, ValueError) as error:
        return str(error)
    return f"{len(talk.replies)} messages were written to {name}."


def columns(text: str) -> int:
    """The number of terminal columns that a text takes."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)


class _Column:
    """Streamed words after a name, wrapped to the terminal's width."""

    def __init__(self, name: str) -> None:
        self._name, self._width = name, width() - (NAME_WIDTH if name else 0)
        self._column, self._word = 0, ""

    def begin(self) -> None:
        if self._name:
            self._write(f"{self._name:>{NAME_WIDTH - 3}} | ")

    def add(self, text: str) -> None:
        """Write complete words; the last word is held back until it is complete."""
        for character in printable(text):
            if character in " \n":
                self._write_word(self._word)
                self._word = ""
                if character == "\n":
                    self._break_line()
                elif 0 < self._column < self._width:
                    self._write(" ")
                    self._column += 1
            else:
                self._word += character
                # A script without spaces, or a word that fills a line, is written at once.
                if columns(character) > 1 or columns(self._word) >= self._width:
                    self._write_word(self._word)
                    self._word = ""

    def end(self) -> None:
        self._write_word(self._word)
        self._word, self._column = "", 0
        self._write("\n")

    def _write_word(self, word: str) -> None:
        if self._name and self._column and self._column + columns(word) > self._width:
            self._break_line()
        self._write(word)
        self._column += columns(word)

    def _break_line(self) -> None:
        self._write("\n" + (" " * (NAME_WIDTH - 2) + "| " if self._name else ""))
        self._column = 0

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
