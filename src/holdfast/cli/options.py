"""Options that several commands share, as records, and how Typer reads them.

A command is a function of records. ``flatten_options`` shows the fields of each record to Typer as
options, in the order of the function's parameters, and builds the records from what was typed.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, get_args, get_origin, get_type_hints

import typer

from holdfast.core.errors import RecipeError
from holdfast.core.labels import VERDICTS, Label, is_requested
from holdfast.core.machine import refuse_low_memory
from holdfast.core.printable import printable
from holdfast.core.tasks import TASKS
from holdfast.terminal.colour import coloured
from holdfast.terminal.layout import width
from holdfast.terminal.streams import json_text

if TYPE_CHECKING:
    from holdfast.contract.request import TrainingRequest
    from holdfast.terminal.messages import MessagePrinter


def complete_tasks(incomplete: str) -> list[str]:
    """Shell completion: the tasks that begin with ``incomplete``."""
    return [task for task in TASKS if task.startswith(incomplete)]


def complete_verdicts(incomplete: str) -> list[str]:
    """Shell completion: the verdicts that begin with ``incomplete``."""
    return [label for label in VERDICTS if label.startswith(incomplete)]


def set_option(help: str) -> Any:
    """The option ``--set``, which may be repeated."""
    return typer.Option("--set", metavar="KEY=VALUE", help=help)


Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A recipe (.yaml), a data file, a folder of images by class, or a hub data set.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        help="The base model: a Hugging Face name, a folder, embedded (MiniLM), or auto "
        "(default): the fastest encoder on this machine within half a point of the best expected "
        "score; for language models SmolLM2."
    ),
]
Test = Annotated[
    str | None, typer.Option(help="A file of test rows. Default: some rows of SOURCE.")
]
Seed = Annotated[int | None, typer.Option(help="The random seed.")]
Out = Annotated[Path | None, typer.Option(help="The folder to write the run to.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")]
Address = Annotated[str | None, typer.Option(help="The address of a Ray cluster.")]


@dataclass(frozen=True, slots=True)
class LabelledRowOptions:
    """The task and the columns of SOURCE. Raises ``RecipeError`` for an unknown task."""

    task: Annotated[
        str | None,
        # Typer 0.27 takes a metavar that is the name in capitals for the option's own name.
        typer.Option(
            "--task",
            metavar="TASK",
            autocompletion=complete_tasks,
            help=f"{', '.join(TASKS)}. Default: worked out from the rows and the model.",
        ),
    ] = None
    text: Annotated[
        list[str] | None, typer.Option(help="The text column; give it twice for pairs of texts.")
    ] = None
    label: Annotated[str | None, typer.Option(help="The label column.")] = None

    def __post_init__(self) -> None:
        check_known([] if self.task is None else [self.task], "--task", "task", TASKS)

    def request(self, source: str, **more: Any) -> TrainingRequest:
        """The request for training on these rows of ``source``, with the fields of ``more``. Raises
        ``DataError`` for a missing file, before modules that take seconds are imported."""
        from holdfast.contract.request import TrainingRequest
        from holdfast.data.source import refuse_missing

        for name in filter(None, (source, getattr(self, "test", None))):
            refuse_missing(name)
        given = {one.name: getattr(self, one.name) for one in fields(self)}
        return TrainingRequest(source, **given, **more)


@dataclass(frozen=True, slots=True)
class TrainingRowOptions(LabelledRowOptions):
    """The same, with a column of groups and a file of test rows."""

    group: Annotated[
        str | None, typer.Option(help="A column of groups; the rows of a group stay in one split.")
    ] = None
    test: Test = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """SOURCE, the base model, and the task and columns of the rows."""

    source: Source
    model: Model = None
    download: Annotated[
        bool,
        typer.Option(
            "--download",
            help="With --model auto, also download and compare a few models of the hub.",
        ),
    ] = False
    rows: TrainingRowOptions

    def request(self, **more: Any) -> TrainingRequest:
        """See ``TrainingRowOptions.request``."""
        own = {"model": self.model, "download": self.download}
        return self.rows.request(self.source, **own, **more)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The folder of a run, and its settings."""

    out: Out = None
    set_: Annotated[
        list[str] | None, set_option("Set a key of the recipe, e.g. train.epochs=5.")
    ] = None
    seed: Seed = None


FailOn = Annotated[
    list[str] | None,
    typer.Option(
        metavar="VERDICT",
        autocompletion=complete_verdicts,
        help=f"Exit 3 on this verdict; repeatable: {', '.join(VERDICTS)}.",
    ),
]


@dataclass(frozen=True, slots=True)
class EndOptions:
    """How a run starts and ends. Raises ``RecipeError`` for an unknown verdict."""

    resume: Resume = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; write nothing.")] = (
        False
    )
    fail_on: FailOn = None

    def __post_init__(self) -> None:
        check_known(self.fail_on or [], "--fail-on", "verdict", VERDICTS)

    def leave(self, labels: Sequence[Label], whose: str, quiet: bool) -> None:
        """Exit with 3 if one of ``labels`` was named with ``--fail-on``. The message begins with
        ``whose`` verdict it is."""
        requested: Any = set(self.fail_on or ())
        matching = [label for label in labels if is_requested(label, requested)]
        if not matching:
            return
        exit_on_request(f"{whose} verdict is {matching[0]}", quiet)


def exit_on_request(found: str, quiet: bool) -> NoReturn:
    """Exit with 3, because what was ``found`` was named with ``--fail-on``."""
    if not quiet:
        typer.echo(f"holdfast: {found} (--fail-on), so the exit code is 3", err=True)
    raise typer.Exit(3)


@dataclass(frozen=True, slots=True)
class JsonOutput:
    """The result on standard output, as text or JSON."""

    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False

    def show(self, document: Any, text: Callable[[int], str]) -> None:
        """Print the JSON document, or ``text(columns)``, coloured on a terminal."""
        if self.as_json:
            typer.echo(json_text(document))
        else:
            typer.echo(coloured(printable(text(width())), sys.stdout))


@dataclass(frozen=True, slots=True)
class Output(JsonOutput):
    """The same, with progress and decisions on standard error."""

    quiet: Annotated[bool, typer.Option("--quiet", help="Print only the result.")] = False

    @contextlib.contextmanager
    def heard(
        self, title: str = "", verbose: bool | None = None, *, progress: bool = False
    ) -> Iterator[MessagePrinter]:
        """Print the decisions made inside, below the ``title``, unless ``--quiet`` is given; all
        of them with ``verbose`` or ``--verbose``. With ``progress`` also what is being done: not
        for a command with a display of its own, or that prints meanwhile."""
        from holdfast.core.decisions import decisions_to, report_progress_to
        from holdfast.terminal.messages import MessagePrinter
        from holdfast.terminal.progress import ProgressLine

        printer = MessagePrinter(
            self.quiet, getattr(self, "verbose", True) if verbose is None else verbose
        )
        line = ProgressLine(self.quiet or not progress)
        if title:
            printer.title(title)
        try:
            with report_progress_to(line), decisions_to(line.before(printer)):
                yield printer
        finally:
            line.close()


@dataclass(frozen=True, slots=True)
class ResultOutput(Output):
    """The same for a command that makes many decisions. Raises ``RecipeError`` if both
    ``--quiet`` and ``--verbose`` are given."""

    quiet: Annotated[bool, typer.Option("--quiet", help="Print only the result.")] = False
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Print every decision and finding with its reason.")
    ] = False

    def __post_init__(self) -> None:
        if self.quiet and self.verbose:
            raise RecipeError(
                "--quiet and --verbose", "exclude each other", None, "Give one of them."
            )


@dataclass(frozen=True, slots=True)
class RunOutput(ResultOutput):
    """The same for a command that makes a run."""

    as_json: Annotated[bool, typer.Option("--json", help="Print result.json.")] = False
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Print only the result: no plan, no progress.")
    ] = False


class Helps(dict[str, str]):
    """Help texts of one command for the options of a shared record, by the names of their fields:
    ``Annotated[EndOptions, Helps(dry_run="Print the folds.")]``."""

    def __init__(self, **texts: str) -> None:
        super().__init__(texts)


def flatten_options(command: Callable[..., None], imports: str | None) -> Callable[..., None]:
    """The command as Typer reads it: the fields of its records are its options. It is refused where
    a limit leaves less memory than the library that it ``imports`` needs."""

    @functools.wraps(command)
    def called(**given: Any) -> None:
        if imports is not None:
            refuse_low_memory(imports)
        command(**_build_arguments(command, given))

    parameters = list(_parameters(command, Helps()))
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {one.name: one.annotation for one in parameters}
    del called.__wrapped__
    return called


def _parameters(callable_or_record: Any, helps: Helps) -> Iterator[inspect.Parameter]:
    for name, hint, default in _accepted_parameters(callable_or_record):
        record, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        if is_dataclass(record):
            helps_of_record = [mark for mark in marks if isinstance(mark, Helps)]
            yield from _parameters(record, helps_of_record[0] if helps_of_record else helps)
            continue
        if name in helps:
            option = copy.copy(marks[0])
            option.help = helps[name]
            hint = Annotated[record, option]
        yield inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint
        )


def _build_arguments(callable_or_record: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    arguments = {}
    for name, hint, _ in _accepted_parameters(callable_or_record):
        record = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        known = isinstance(record, type) and is_dataclass(record)
        arguments[name] = record(**_build_arguments(record, given)) if known else given[name]
    return arguments


@functools.cache
def _accepted_parameters(callable_or_record: Any) -> tuple[tuple[str, Any, Any], ...]:
    """Name, type and default of each parameter of a function or field of a record."""
    hints, empty = get_type_hints(callable_or_record, include_extras=True), inspect.Parameter.empty
    if is_dataclass(callable_or_record):
        parameters = [
            (x.name, empty if x.default is MISSING else x.default)
            for x in fields(callable_or_record)
        ]
    else:
        parameters = [
            (x.name, x.default) for x in inspect.signature(callable_or_record).parameters.values()
        ]
    # Typer takes a parameter without an annotation for a string.
    return tuple((name, hints.get(name, str), default) for name, default in parameters)


def check_known(names: list[str], option: str, noun: str, known: Collection[str]) -> set[str]:
    """Refuse an unknown name, before anything is read."""
    from holdfast.core.discovery import suggest_name

    for name in names:
        if name not in known:
            raise RecipeError(option, f"is not a {noun}", name, suggest_name(name, list(known)))
    return set(names)
