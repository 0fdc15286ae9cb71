"""Arguments that name finished runs and the data to predict or score."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.core.errors import DataError, RecipeError

if TYPE_CHECKING:
    from holdfast.contract.inference import InferenceOptions
    from holdfast.core.outputs import OutputFile

ENSEMBLE = "predict.ensemble"
# Settings that limit the size of the data.
LIMITS = "data.limits."


Text = Annotated[
    list[str] | None,
    typer.Option(help="The text column of DATA, if named differently; twice for pairs of texts."),
]
Label = Annotated[str | None, typer.Option(help="The label column of DATA, if named differently.")]
Encoding = Annotated[
    str | None, typer.Option(help="The encoding of DATA if not UTF-8, e.g. cp1252.")
]


@dataclass(frozen=True, slots=True)
class DataOptions:
    """How the rows of DATA are read, for an existing run."""

    text: Text = None
    label: Label = None
    encoding: Encoding = None

    def options(self, *more: Any, **others: Any) -> InferenceOptions:
        """The same as ``contract.inference.InferenceOptions``."""
        from holdfast.contract.inference import InferenceOptions

        return InferenceOptions(
            tuple(self.text or ()) or None, self.label, self.encoding, *more, **others
        )


@dataclass(frozen=True, slots=True)
class TextOptions:
    """The same for DATA without labels."""

    text: Text = None
    encoding: Encoding = None

    def options(self, *more: Any, **others: Any) -> InferenceOptions:
        """See ``DataOptions.options``."""
        return DataOptions(self.text, None, self.encoding).options(*more, **others)


def check_target(
    out: Path, endings: Sequence[str], command: str, runs: Sequence[Path], data: str, force: bool
) -> OutputFile:
    """Refuse a file that cannot be written as requested, before any work. The data and the runs'
    own files are never overwritten."""
    from holdfast.contract.run_folder import run_files_in
    from holdfast.core.outputs import check_output
    from holdfast.data.raw import source_path

    if out.suffix.lower() not in endings:
        rule = f"has a file type that {command} does not write"
        raise RecipeError("--out", rule, str(out), f"Choose {' or '.join(endings)}.")
    source = 0 if data == "-" else source_path(data)
    return check_output(out, [source, *(p for run in runs for p in run_files_in(run))], force=force)


def runs_and_data(command: str, given: Sequence[str]) -> tuple[list[Path], str]:
    """The runs and the data, which come last.

    Raises ``RecipeError`` if one of them is not given or the data come first, ``RunError`` for a
    folder that is not a finished run, and ``DataError`` for a missing file.
    """
    from holdfast.contract.run_folder import need_run
    from holdfast.data.source import refuse_missing

    example = f"E.g. holdfast {command} runs/reviews-1 new.csv."
    if len(given) < 2:
        raise RecipeError(f"holdfast {command}", "needs a run and the data", list(given), example)
    *runs, data = given
    if (Path(data) / "result.json").is_file():
        raise RecipeError(f"holdfast {command}", "takes the data last", data, example)
    folders = [Path(run) for run in runs]
    for run in folders:
        need_run(run)
    if data != "-":
        refuse_missing(data)
    return folders, data


def split_ensemble(settings: Sequence[str]) -> tuple[str, list[str]]:
    """The value of ``predict.ensemble`` (the last one counts; default ``average``), and the other
    settings."""
    method, others = "average", []
    for setting in settings:
        key, _, value = setting.partition("=")
        if key.strip() == ENSEMBLE:
            method = value.strip()
        else:
            others.append(setting)
    return method, others


def piped_texts(run: Path, options: InferenceOptions) -> list[str]:
    """One text per line of standard input, within the limits that the run sets for files."""
    from holdfast.contract.advice import advising
    from holdfast.contract.inference import data_part, within_limits

    with advising(), within_limits(data_part(run), options.limits):
        return _stdin(options.encoding)


def _stdin(encoding: str | None) -> list[str]:
    from holdfast.data.limits import check_row, current_limits
    from holdfast.data.readers.text import find_codec, refuse_nul

    codec = find_codec(encoding)
    # Only "\n" ends a line: a form feed or U+2028 may be part of a text.
    stream = io.TextIOWrapper(sys.stdin.buffer, codec, newline="\n")
    texts: list[str] = []
    try:
        longest = current_limits().cell
        while line := stream.readline(longest + 1):
            where = f"standard input, line {len(texts) + 1}"
            check_row(where, len(line))
            refuse_nul(where, line)
            texts.append(line.removesuffix("\n").removesuffix("\r"))
    except UnicodeError as error:
        rule = f"is not {encoding or 'UTF-8'}"
        remedy = "Give its encoding with --encoding, or convert it first."
        raise DataError("standard input", rule, str(error), remedy) from None
    finally:
        with contextlib.suppress(OSError):
            stream.detach()
    if not texts:
        raise DataError("standard input", "is empty", None, "Give one text per line.")
    return texts
