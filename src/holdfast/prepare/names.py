"""Every name in a recipe that a registry knows, checked before a row is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from holdfast.augment.registry import asked_for, check_enrich, kind_of_rows
from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError
from holdfast.core.machine import refuse_too_many
from holdfast.core.records import Decision
from holdfast.methods.conflicts import refuse
from holdfast.methods.optimizers import OPTIMIZERS, SCHEDULES
from holdfast.methods.registry import check_methods
from holdfast.plan.defaults import asked_of
from holdfast.quality.clean.apply import choose
from holdfast.recipe import Recipe
from holdfast.training.listeners.alerts import address_of
from holdfast.training.listeners.trackers import check_trackers

REGISTRIES: Mapping[str, Mapping[str, Any]] = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES}
CODE = "code that runs"
LOSSES = (None, "refined_loss", "loss")


def notify_of_code(recipe: Recipe) -> None:
    """Say what of a recipe is code of its own, which runs with the rights of whoever trains by it.
    The words of a command are not repeated, since they may hold secrets."""
    metric = recipe.train.metric
    if metric and ".py:" in metric:
        because = "train.metric names this Python file, and it is run with your rights"
        notify(Decision(CODE, metric, because, prominent=True))
    if recipe.alert.command:
        because = "the recipe names a shell command, run with your rights when the verdict changes"
        notify(Decision(CODE, "alert.command", because, prominent=True))
    own = asked_for(recipe.enrich).get("own", {}).get("function")
    if own:
        because = "enrich.own names this function, which is run with your rights"
        notify(Decision(CODE, str(own), because, prominent=True))


def check_names(recipe: Recipe, find_metric: Callable[[str], object] | None = None) -> None:
    """Refuse an unknown optimizer, schedule, method, enrichment or treatment, methods that
    contradict each other, an absent tracker,
    an alert without an address, more threads than the machine can use, and with ``find_metric`` (of
    the recipe's task) an unknown criterion; what a recipe leaves open is passed over.

    Raises ``RecipeError``, or ``MachineError`` for a tracker that is not installed and for threads.
    """
    for setting, registry in REGISTRIES.items():
        name = getattr(recipe.train, setting)
        if name is not None:
            registry[name]
    refuse_too_many("train.threads", recipe.train.threads or 1)
    check_methods(recipe.methods)
    refuse(asked_of(recipe))
    check_enrich(recipe.enrich, kind_of_rows(recipe.task))
    choose(recipe.treat)
    check_trackers(recipe.track.to)
    if recipe.alert.webhook:
        address_of(recipe.alert.webhook)
    if find_metric is not None and recipe.train.metric not in LOSSES:
        find_metric(recipe.train.metric)


def refuse_meta(recipe: Recipe) -> None:
    """Raise ``RecipeError`` for a recipe of ``holdfast meta`` where another command is to follow
    it."""
    if recipe.meta.method is not None:
        raise RecipeError(
            "meta.method",
            "makes this a recipe of holdfast meta, which learns a start from many tasks",
            recipe.meta.method,
            "Repeat it with holdfast meta; to train on one task from its start, give that task's "
            "rows and --model RUN/model.",
        )
