"""What ``train`` is asked, and every command that takes its options: each in one place.

``RUN [RUN]... DATA``: the arguments of the commands that use finished runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli.words import TASKS, complete_tasks
from holdfast.core.errors import RecipeError

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
Task = Annotated[
    str | None,
    typer.Option(
        metavar="TASK",
        autocompletion=complete_tasks,
        help=f"{', '.join(TASKS)}; worked out from the rows and the model where left out.",
    ),
]
Text = Annotated[list[str] | None, typer.Option(help="The text column; twice for pairs.")]
Label = Annotated[str | None, typer.Option(help="The label column.")]
Group = Annotated[str | None, typer.Option(help="Rows of one group stay together.")]
Test = Annotated[str | None, typer.Option(help="Test rows, used as they are.")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.")]
EngineName = Annotated[
    str,
    typer.Option("--engine", help="Who carries the fits out: local, or ray (several at a time)."),
]
Address = Annotated[
    str | None,
    typer.Option(metavar="A", help="Of a Ray cluster, HOST:PORT; else one on this machine."),
]
Verbose = Annotated[
    bool, typer.Option("--verbose", help="Every choice and finding, with its reason.")
]


def check_how(quiet: bool, verbose: bool, task: str | None) -> None:
    """Refuse both of ``--quiet`` and ``--verbose``, and a task that is none."""
    if quiet and verbose:
        raise RecipeError("--quiet and --verbose", "exclude each other", None, "Leave one out.")
    check_known([] if task is None else [task], "--task", "task", TASKS)


def check_known(given: list[str], option: str, what: str, known: Sequence[str]) -> set[str]:
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
