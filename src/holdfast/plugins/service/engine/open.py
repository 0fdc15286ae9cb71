"""Open a finished run as an engine that predicts rows."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import cast

from holdfast.contract.inference import run_recipe
from holdfast.core.decisions import DecisionListener
from holdfast.core.machine import refuse_too_many_threads, usable_cores
from holdfast.core.records import Decision
from holdfast.core.tasks import GENERATIVE_TASKS
from holdfast.plugins.export.measurements import FLOAT32
from holdfast.plugins.service.engine.engine import ModelEngine, RowHandler
from holdfast.plugins.service.engine.precision import PrecisionChoice, choose_precision
from holdfast.plugins.service.engine.request_queue import QueueLimits
from holdfast.plugins.service.engine.rows import required_columns
from holdfast.plugins.service.engine.tables import TableHandler
from holdfast.plugins.service.engine.texts import TextHandler
from holdfast.plugins.service.records import EngineFacts
from holdfast.recipe import Recipe
from holdfast.runs.predictor import Predictor
from holdfast.runs.threshold import served_name
from holdfast.tasks.classes.answers import TextPredictor, TextWithExtraFeatures
from holdfast.training.machine.machine import KERNEL_CACHE_SIZE, KERNEL_CACHES, use_threads

SWITCH_S = 0.0005
# Generated answers take longer, and so may waiting for them.
MAX_WAIT_S, MAX_WAIT_GENERATION_S = 1.0, 30.0


def open_engine(
    run: Path,
    precision: str = FLOAT32,
    *,
    threads: int | None = None,
    share_with: ModelEngine | None = None,
    notify: DecisionListener = lambda _: None,
) -> ModelEngine:
    """The engine of a finished run; not warm yet. ``notify`` receives the decisions with their
    reasons.

    Parameters
    ----------
    precision : ``float32``, with the predictions of ``predict``, or ``auto``, the form that
        ``export`` measured and kept (created at first use, in up to a minute).
    threads : of the model; by default one core is left to requests where there are several.
    share_with : an engine whose thread is shared; the new engine runs when that one has no work.

    Raises
    ------
    RunError : the run is not finished, or was changed since.
    RecipeError : an unknown precision, or more threads than there are cores.
    """
    # Switch threads often: the threads that parse requests wait for the interpreter often, and the
    # model's thread seldom needs it.
    sys.setswitchinterval(SWITCH_S)
    # Rows of many lengths make many shapes; each would cache a kernel with its memory.
    for name in KERNEL_CACHES:
        os.environ.setdefault(name, KERNEL_CACHE_SIZE)
    if share_with is None:
        notify(_choose_threads(threads))
    predictor = Predictor.load(run)
    for decision in predictor.decisions:
        notify(decision)
    recipe = run_recipe(run)
    choice = choose_precision(run, predictor, precision, notify)
    notify(Decision("precision", choice.precision, choice.because, prominent=True))
    return engine_of(predictor, recipe, choice, run, served_name(run), share_with=share_with)


def engine_of(
    predictor: Predictor,
    recipe: Recipe,
    choice: PrecisionChoice,
    run: Path,
    model: str,
    *,
    share_with: ModelEngine | None = None,
) -> ModelEngine:
    """The engine of a loaded predictor; its ``recipe`` says how texts are cleaned."""
    task = str(recipe.task)
    use, network = choice.use, choice.network
    facts = EngineFacts(
        task,
        model,
        run,
        required_columns(predictor),
        predictor.names or None,
        choice.precision,
        choice.because,
        use.label_kind if isinstance(use, TextPredictor) else None,
    )
    form: RowHandler = TableHandler(predictor, use)
    text_only = isinstance(use, TextPredictor) and not isinstance(
        use.models[0], TextWithExtraFeatures
    )
    if text_only and network is not None:
        form = TextHandler(predictor, cast(TextPredictor, use), recipe, network, network.multiple)
    return ModelEngine(
        form,
        facts,
        predictor,
        QueueLimits(max_wait_s=MAX_WAIT_GENERATION_S if task in GENERATIVE_TASKS else MAX_WAIT_S),
        thread=None if share_with is None else share_with.thread,
        rank=0 if share_with is None else 1,
    )


def _choose_threads(requested: int | None) -> Decision:
    """Set the number of threads that the model computes with, and give the reason."""
    environment_value, cores = os.environ.get("OMP_NUM_THREADS", ""), usable_cores()
    if requested is not None:
        refuse_too_many_threads("--threads", requested)
        count, because = requested, "requested"
    elif environment_value.isdigit() and int(environment_value) > 0:
        refuse_too_many_threads("OMP_NUM_THREADS", int(environment_value))
        count, because = int(environment_value), "OMP_NUM_THREADS is set"
    else:
        count = max(1, cores - 1)
        because = f"{cores} usable cores; one is left to requests" if cores > 1 else "one core"
    use_threads(count)
    return Decision("threads", str(count), because)
