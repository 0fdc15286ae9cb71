"""``RUN [RUN]... DATA``: the arguments of the commands that use finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from holdfast.core.errors import RecipeError

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
