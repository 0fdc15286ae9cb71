"""A finished run → an engine that answers its rows."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import cast

from holdfast.contract.run_folder import RECIPE
from holdfast.core.decisions import DecisionListener
from holdfast.core.machine import refuse_too_many_threads, usable_cores
from holdfast.core.records import Decision
from holdfast.core.tasks import GENERATIVE_TASKS
from holdfast.plugins.export.measurements import FLOAT32
from holdfast.plugins.service.engine.engine import ModelEngine, RowForm
from holdfast.plugins.service.engine.line import QueueBounds
from holdfast.plugins.service.engine.precision import Computing, computing
from holdfast.plugins.service.engine.rows import columns_of
from holdfast.plugins.service.engine.tables import TableForm
from holdfast.plugins.service.engine.texts import TextForm
from holdfast.plugins.service.records import EngineFacts
from holdfast.recipe import Recipe, read_recipe
from holdfast.runs.predictor import Predictor
from holdfast.runs.threshold import served_name
from holdfast.tasks.classes.answers import TextWithExtraFeatures, TextPredictor
from holdfast.training.machine.machine import KERNEL_CACHES, KERNEL_CACHE_SIZE, use_threads

SWITCH_S = 0.0005
# An answer that is written takes its time, and so does waiting for it.
SECONDS, SECONDS_WRITING = 1.0, 30.0


def open_engine(
    run: Path,
    precision: str = FLOAT32,
    *,
    threads: int | None = None,
    beside: ModelEngine | None = None,
    notify: DecisionListener = lambda _: None,
) -> ModelEngine:
    """The engine of a finished run; not warm yet. ``notify`` hears what was decided, and why.

    Parameters
    ----------
    precision : ``float32``, whose answers are those of ``predict``, or ``auto``, the form that
        ``export`` measured and kept (made at the first time, in up to a minute).
    threads : of the model; one core is left to requests where there are several.
    beside : an engine whose thread is shared; this one is asked when that one has nothing to do.

    Raises
    ------
    RunError : no finished run, or one that was changed since.
    RecipeError : another word for the precision, or more threads than there are cores.
    """
    # A thread that wants the interpreter waits for so long while another computes in it; those that
    # read requests wait often, for a model's thread that seldom needs it.
    sys.setswitchinterval(SWITCH_S)
    # Rows of many lengths make many shapes, and each would keep a kernel with its memory.
    for name in KERNEL_CACHES:
        os.environ.setdefault(name, KERNEL_CACHE_SIZE)
    if beside is None:
        notify(_choose_threads(threads))
    predictor = Predictor.load(run)
    for decision in predictor.decisions:
        notify(decision)
    recipe = read_recipe(run / RECIPE)
    made = computing(run, predictor, precision, notify)
    notify(Decision("precision", made.precision, made.because, prominent=True))
    return engine_of(predictor, recipe, made, run, served_name(run), beside=beside)


def engine_of(
    predictor: Predictor,
    recipe: Recipe,
    made: Computing,
    run: Path,
    model: str,
    *,
    beside: ModelEngine | None = None,
) -> ModelEngine:
    """The engine of a predictor that is loaded, whose ``recipe`` says how texts are treated."""
    task = str(recipe.task)
    facts = EngineFacts(
        task,
        model,
        run,
        columns_of(predictor),
        predictor.names or None,
        made.precision,
        made.because,
    )
    form: RowForm = TableForm(predictor, made.use)
    use, network = made.use, made.network
    plain = isinstance(use, TextPredictor) and not isinstance(use.models[0], TextWithExtraFeatures)
    if plain and network is not None:
        form = TextForm(predictor, cast(TextPredictor, use), recipe, network, network.multiple)
    return ModelEngine(
        form,
        facts,
        predictor,
        QueueBounds(seconds=SECONDS_WRITING if task in GENERATIVE_TASKS else SECONDS),
        thread=None if beside is None else beside.thread,
        rank=0 if beside is None else 1,
    )


def _choose_threads(wanted: int | None) -> Decision:
    """Set how many threads the model computes with, and say why."""
    given, cores = os.environ.get("OMP_NUM_THREADS", ""), usable_cores()
    if wanted is not None:
        refuse_too_many_threads("--threads", wanted)
        count, because = wanted, "asked for"
    elif given.isdigit() and int(given) > 0:
        refuse_too_many_threads("OMP_NUM_THREADS", int(given))
        count, because = int(given), "OMP_NUM_THREADS is set"
    else:
        count = max(1, cores - 1)
        because = f"of {cores} usable cores one is left to requests" if cores > 1 else "one core"
    use_threads(count)
    return Decision("threads", str(count), because)
