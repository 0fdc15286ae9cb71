"""The options that several commands take, each record in one place, and how typer sees them.

A command is a function of records: ``flat`` gives typer the fields of each as options, in the order
of the function's parameters, and makes the records of what was typed.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from holdfast.cli.words import VERDICTS, complete_tasks, complete_verdicts
from holdfast.core.errors import RecipeError
from holdfast.core.printable import printable
from holdfast.core.tasks import TASKS
from holdfast.terminal.streams import json_text

if TYPE_CHECKING:
    from holdfast.contract.inference import Options
    from holdfast.contract.request import Request
    from holdfast.core.records import Label
    from holdfast.terminal.say import Teller

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A recipe (.yaml), a data file, a folder of pictures by class, or a hub data set.",
    ),
]
Model = Annotated[
    str | None, typer.Option(help="A Hugging Face name or folder; else the embedded MiniLM.")
]
Test = Annotated[str | None, typer.Option(help="Test rows, used as they are.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", help="Every choice and finding, with its reason.")
]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.")]
Out = Annotated[Path | None, typer.Option(help="The run's folder.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any key of a recipe, e.g. train.epochs=5."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")]
Force = Annotated[bool, typer.Option("--force", help="Write over a file that exists.")]
Address = Annotated[str | None, typer.Option(help="Of a Ray cluster.")]


@dataclass(frozen=True, slots=True)
class LabelledRowOptions:
    """What the rows of SOURCE are. Raises ``RecipeError`` for a task that is none."""

    task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK",
            autocompletion=complete_tasks,
            help=f"{', '.join(TASKS)}; worked out from the rows and the model where left out.",
        ),
    ] = None
    text: Annotated[list[str] | None, typer.Option(help="The text column; twice for pairs.")] = None
    label: Annotated[str | None, typer.Option(help="The label column.")] = None

    def __post_init__(self) -> None:
        check_known([] if self.task is None else [self.task], "--task", "task", TASKS)

    def request(self, source: str, **more: Any) -> Request:
        """What ``train`` and its like are asked: these rows of ``source``, and ``more``."""
        from holdfast.contract.request import Request

        given = {one.name: getattr(self, one.name) for one in fields(self)}
        return Request(source, **given, **more)


@dataclass(frozen=True, slots=True)
class RowOptions(LabelledRowOptions):
    """The same, with what must not be parted, and rows to test on."""

    group: Annotated[str | None, typer.Option(help="Rows of one group stay together.")] = None
    test: Test = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """SOURCE, what learns from it, and what its rows are."""

    source: Source
    model: Model = None
    rows: RowOptions

    def request(self, **more: Any) -> Request:
        """See ``RowOptions.request``."""
        return self.rows.request(self.source, model=self.model, **more)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Where a run is written, and its settings."""

    out: Out = None
    set_: Settings = None
    seed: Seed = None


@dataclass(frozen=True, slots=True)
class EndOptions:
    """How a run begins and ends. Raises ``RecipeError`` for a verdict that is none."""

    resume: Resume = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, write nothing.")] = (
        False
    )
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VERDICT",
            autocompletion=complete_verdicts,
            help=f"Exit 3 on this verdict, once each: {', '.join(VERDICTS)}.",
        ),
    ] = None

    def __post_init__(self) -> None:
        check_known(self.fail_on or [], "--fail-on", "verdict", VERDICTS)

    def leave(self, labels: Sequence[Label], whose: str, quiet: bool) -> None:
        """Exit with 3 where one of ``labels`` was named with ``--fail-on``; ``whose`` verdict it
        is begins the line."""
        from holdfast.core.records import is_asked

        asked: Any = set(self.fail_on or ())
        feared = [label for label in labels if is_asked(label, asked)]
        if not feared:
            return
        if not quiet:
            told = f"{whose} verdict is {feared[0]} (--fail-on), so the exit code is 3"
            typer.echo(f"holdfast: {told}", err=True)
        raise typer.Exit(3)


@dataclass(frozen=True, slots=True)
class DataOptions:
    """How the rows of DATA are read, for a run that is there."""

    text: Annotated[
        list[str] | None,
        typer.Option(help="The text column, where DATA calls it otherwise; twice for pairs."),
    ] = None
    label: Annotated[
        str | None, typer.Option(help="The label column, where DATA calls it otherwise.")
    ] = None
    encoding: Annotated[
        str | None, typer.Option(help="Of DATA, where it is not UTF-8, e.g. cp1252.")
    ] = None

    def options(self, *more: Any, **others: Any) -> Options:
        """The same as ``contract.inference.Options``."""
        from holdfast.contract.inference import Options

        return Options(tuple(self.text or ()) or None, self.label, self.encoding, *more, **others)


@dataclass(frozen=True, slots=True)
class TextOptions:
    """The same for DATA without labels."""

    text: Annotated[
        list[str] | None,
        typer.Option(help="The text column, where DATA calls it otherwise; twice for pairs."),
    ] = None
    encoding: Annotated[
        str | None, typer.Option(help="Of DATA, where it is not UTF-8, e.g. cp1252.")
    ] = None

    def options(self, *more: Any, **others: Any) -> Options:
        """See ``DataOptions.options``."""
        return DataOptions(self.text, None, self.encoding).options(*more, **others)


@dataclass(frozen=True, slots=True)
class Output:
    """What is printed: the result on standard output, what a person reads on standard error."""

    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing beside the result.")] = False

    @contextlib.contextmanager
    def heard(self, title: str = "", verbose: bool | None = None) -> Iterator[Teller]:
        """Decisions inside are printed, below the ``title``, unless ``--quiet`` is given: all of
        them where ``verbose`` or ``--verbose`` is."""
        from holdfast.core.decisions import decisions_to
        from holdfast.terminal.say import Teller

        teller = Teller(self.quiet, getattr(self, "verbose", True) if verbose is None else verbose)
        if title:
            teller.title(title)
        with decisions_to(teller):
            yield teller

    def show(self, document: Any, text: Callable[[int], str]) -> None:
        """Print the JSON document, or the text for so many columns."""
        from holdfast.terminal.say import width

        typer.echo(json_text(document) if self.as_json else printable(text(width())))


@dataclass(frozen=True, slots=True)
class ResultOutput(Output):
    """The same of a command with many decisions on its way. Raises ``RecipeError`` where both
    ``--quiet`` and ``--verbose`` are given."""

    quiet: Annotated[
        bool, typer.Option("--quiet", help="The result alone: nothing of the way to it.")
    ] = False
    verbose: Verbose = False

    def __post_init__(self) -> None:
        if self.quiet and self.verbose:
            raise RecipeError("--quiet and --verbose", "exclude each other", None, "Leave one out.")


@dataclass(frozen=True, slots=True)
class RunOutput(ResultOutput):
    """The same of a command that makes a run."""

    as_json: Annotated[bool, typer.Option("--json", help="Print result.json.")] = False
    quiet: Annotated[
        bool, typer.Option("--quiet", help="The result alone: no plan, no progress.")
    ] = False


def flat(command: Callable[..., None]) -> Callable[..., None]:
    """The command as typer reads it: the fields of its records are its options."""

    @functools.wraps(command)
    def called(**given: Any) -> None:
        command(**_made(command, given))

    parameters = list(_parameters(command))
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {one.name: one.annotation for one in parameters}
    del called.__wrapped__
    return called


def _parameters(taker: Any) -> Iterator[inspect.Parameter]:
    for name, hint, default in _taken(taker):
        if is_dataclass(hint):
            yield from _parameters(hint)
        else:
            yield inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint
            )


def _made(taker: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: hint(**_made(hint, given))
        if isinstance(hint, type) and is_dataclass(hint)
        else given[name]
        for name, hint, _ in _taken(taker)
    }


@functools.cache
def _taken(taker: Any) -> tuple[tuple[str, Any, Any], ...]:
    """Name, type and default of what a function or a record takes."""
    hints, empty = get_type_hints(taker, include_extras=True), inspect.Parameter.empty
    if is_dataclass(taker):
        found = [(x.name, empty if x.default is MISSING else x.default) for x in fields(taker)]
    else:
        found = [(x.name, x.default) for x in inspect.signature(taker).parameters.values()]
    return tuple((name, hints[name], default) for name, default in found)


def check_known(given: list[str], option: str, what: str, known: Collection[str]) -> set[str]:
    """Refuse a name that is not known, before anything is read."""
    from holdfast.core.discovery import nearest

    for name in given:
        if name not in known:
            raise RecipeError(option, f"is not a {what}", name, nearest(name, list(known)))
    return set(given)


DIR_OF_RUN = "result.json"
ENSEMBLE = "predict.ensemble"


def runs_and_data(command: str, given: Sequence[str]) -> tuple[list[Path], str]:
    """The runs, and the data, which come last.

    Raises ``RecipeError`` where one of the two is missing, or they stand the other way round.
    """
    example = f"E.g. holdfast {command} runs/reviews-1 new.csv."
    if len(given) < 2:
        raise RecipeError(f"holdfast {command}", "needs a run and the data", list(given), example)
    *runs, data = given
    if (Path(data) / DIR_OF_RUN).is_file():
        raise RecipeError(f"holdfast {command}", "takes the data last", data, example)
    return [Path(run) for run in runs], data


def ensemble_of(settings: Sequence[str]) -> tuple[str, list[str]]:
    """What ``predict.ensemble`` is set to (the last one counts; ``average`` where it is not), and
    the other settings."""
    way, others = "average", []
    for setting in settings:
        key, _, value = setting.partition("=")
        if key.strip() == ENSEMBLE:
            way = value.strip()
        else:
            others.append(setting)
    return way, others
