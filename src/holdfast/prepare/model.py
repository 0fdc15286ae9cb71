"""Prepare what all fits on the same rows and model share: rows, encoded examples, the loaded
network, and decisions about the machine.

Also removes layers from the loaded model as the recipe says.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from holdfast.contract.fit import PreparedData
from holdfast.core.decisions import decisions_and_findings, record_decisions
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Finding, Ints
from holdfast.core.tasks import IMAGE_TASKS, LABELLED_TEXT_TASKS
from holdfast.data.table import Splits, Table
from holdfast.models.adapters.quantize import compute_in
from holdfast.models.base import LoadedModel
from holdfast.models.layers import count_parameters
from holdfast.plan.adapters import (
    default_adapter,
    resolve_adapter,
    resolve_dtype,
    resolve_quantize,
    with_adapter,
)
from holdfast.plan.control import resolve_policy
from holdfast.plan.language import language_findings, sample_texts
from holdfast.plan.task import resolve_task
from holdfast.prepare.base_model import MeasureGains, prepare_best
from holdfast.prepare.canaries import with_canaries
from holdfast.prepare.general import with_general
from holdfast.prepare.pseudo_labels import with_unlabelled
from holdfast.prepare.sharding import choose_sharding
from holdfast.prepare.signals import with_signals
from holdfast.prepare.synthetic import with_synthetic
from holdfast.recipe import Recipe
from holdfast.recipe.parts import AUTO_MODEL
from holdfast.tasks import task_definition
from holdfast.tasks.generation.base_model import check_probes
from holdfast.training.machine.machine import MachineChoice, choose_machine

STATIC = "model.static"


def prepare(
    recipe: Recipe,
    rows: Table,
    *,
    units: Ints | None = None,
    findings: Sequence[Finding] = (),
    train: Ints | None = None,
    texts: Sequence[str] = (),
    choose_by: Ints | None = None,
    measure: MeasureGains | None = None,
) -> PreparedData:
    """Choose the machine's settings, choose the base model if the recipe leaves it open
    (``prepare/base_model.py``), load it, and encode the rows.

    ``rows`` are all that a fit may learn from or be evaluated on, as the task reads them
    (``task_definition(recipe.task).read``). ``units`` [n] are equal for duplicates and rows of one
    group, as a split found them; without them each row is its own unit. ``findings`` are those of
    the rows so far. The model is chosen by the rows at ``choose_by`` and by what ``measure`` gives
    for the embedded one; a static model's phrases are those of the rows at ``train`` and of the
    unlabelled ``texts``. By default both are all rows.

    Raises ``ModelError`` and ``RecipeError`` where the model does not fit the task.
    """
    recipe, _ = resolve_task(recipe)
    recipe, _ = resolve_policy(recipe, rows.columns)
    units = np.arange(len(rows)) if units is None else units
    everything = np.arange(len(rows))
    learned = everything if train is None else train

    # Once for all base models: what the first of them has in its recipe was not set by the user.
    machine = choose_machine(
        recipe.train.threads,
        recipe.train.precision,
        recipe.train.matmul,
        one_size=recipe.task in IMAGE_TASKS,
        float16=recipe.task != "seq2seq",
    )

    def prepare_with(recipe: Recipe) -> PreparedData:
        return _prepare(recipe, rows, units, tuple(findings), learned, texts, machine)

    if recipe.model.name != AUTO_MODEL:
        return prepare_with(recipe)
    return prepare_best(
        recipe, prepare_with, everything if choose_by is None else choose_by, measure
    )


def _prepare(
    recipe: Recipe,
    rows: Table,
    units: Ints,
    findings: tuple[Finding, ...],
    learned: Ints,
    texts: Sequence[str],
    machine: MachineChoice,
) -> PreparedData:
    """The rows for the model that the recipe names."""
    definition, pictures = task_definition(recipe.task), recipe.task in IMAGE_TASKS
    recipe = resolve_dtype(resolve_quantize(resolve_adapter(recipe)))
    with record_decisions() as log:
        shard = choose_sharding(recipe)
    machine = replace(machine, decisions=(*machine.decisions, *decisions_and_findings(log)[0]))
    check_probes(recipe)
    label_type = recipe.data.label_kind or rows.columns.label_kind
    definition.refuse(
        recipe if label_type is None else recipe.with_changes(data={"label_kind": label_type})
    )
    refuse_static(recipe, label_type)
    loaded = with_layers(definition.load(recipe, rows), recipe)
    loaded, recipe = default_adapter(loaded, recipe)
    loaded = with_adapter(loaded, recipe)
    loaded = with_static(loaded, recipe, rows, learned, texts)
    compute_in(loaded.network, machine.precision)
    start = time.perf_counter()
    machine_settings = {
        "threads": machine.threads,
        "precision": machine.precision,
        "matmul": machine.matmul,
        "shard": shard,
    }
    recipe = recipe.with_changes(train=machine_settings)
    return PreparedData(
        recipe=recipe,
        definition=definition,
        rows=rows,
        examples=definition.encode(rows, loaded, recipe),
        loaded=loaded,
        machine=machine,
        units=units,
        findings=findings,
        seconds=time.perf_counter() - start,
        # Once for all fits that follow.
        preparation_findings=()
        if pictures
        else language_findings(recipe.model.name, sample_texts(rows, recipe.seed)),
    )


def concatenate(*tables: Table) -> tuple[Table, tuple[Ints, ...]]:
    """The rows of several tables of one schema as one, and the positions of each table's rows."""
    import datasets

    non_empty = [table for table in tables if len(table)] or [tables[0]]
    offsets = np.cumsum([0, *map(len, tables)])
    places = tuple(np.arange(offsets[i], offsets[i + 1]) for i in range(len(tables)))
    if len(non_empty) == 1:
        return non_empty[0], places
    # A file of validation rows may lack columns that only a split reads, such as the groups.
    shared = [
        name
        for name in non_empty[0].rows.column_names
        if all(name in table.rows.column_names for table in non_empty)
    ]
    rows = datasets.concatenate_datasets([table.rows.select_columns(shared) for table in non_empty])
    return replace(tables[0], rows=rows), places


def prepare_divided(
    recipe: Recipe,
    splits: Splits,
    findings: Sequence[Finding] = (),
    unlabelled: Sequence[str] = (),
    known: Sequence[Table] = (),
    *,
    extend: bool = True,
    choose_by_all: bool = False,
    measure: MeasureGains | None = None,
) -> tuple[PreparedData, Ints, Ints]:
    """The training and validation rows of a split, prepared, and their positions.

    Class names, ``unlabelled`` texts and synthetic texts are added as training rows, and general
    rows are attached; none is a duplicate of a row of the ``known`` tables. Without ``extend``,
    nothing is added. A base model is chosen by the training rows, or by all of these, and by what
    ``measure`` gives for the embedded one."""
    rows, (train, valid) = concatenate(splits.train.table, splits.valid.table)
    prepared = prepare(
        recipe,
        rows,
        units=splits.units,
        findings=findings,
        train=train,
        texts=unlabelled,
        choose_by=None if choose_by_all else train,
        measure=measure,
    )
    if extend:
        prepared = with_general(prepared, known or (rows,))
        prepared = with_added(prepared, train, valid, unlabelled, known)
    return prepared, train, valid


def with_added(
    prepared: PreparedData,
    train: Ints,
    valid: Ints,
    unlabelled: Sequence[str],
    known: Sequence[Table],
) -> PreparedData:
    """The prepared data with the added training rows: derived from the rows at ``train``; whether
    they help is decided with those at ``valid`` too. See ``prepare_divided``."""
    with record_decisions() as log:
        prepared = with_signals(prepared, train, known)
        if not prepared.recipe.distill.teacher:
            prepared = with_unlabelled(prepared, train, valid, unlabelled)
        prepared = with_synthetic(prepared, train, valid, known or (prepared.rows,))
        prepared = with_canaries(prepared)
    return with_log(prepared, log)


def with_log(prepared: PreparedData, log: Iterable[Decision | Finding]) -> PreparedData:
    """The prepared data with later decisions and findings appended."""
    decisions, findings = decisions_and_findings(log)
    return replace(
        prepared,
        decisions=(*prepared.decisions, *decisions),
        preparation_findings=(*prepared.preparation_findings, *findings),
    )


L = TypeVar("L", bound=LoadedModel)


def with_layers(loaded: L, recipe: Recipe) -> L:
    """The loaded model with as many blocks as ``model.layers`` says; for a static classifier these
    are not the model's."""
    if recipe.model.layers is None or recipe.model.static:
        return loaded
    from holdfast.models.depth import shorten

    decision = shorten(loaded.network, recipe.model.layers, recipe.model.layers_kept)
    total, trainable = count_parameters(loaded.network)
    facts = {
        **loaded.facts,
        "parameters": total,
        "trainable": trainable,
        "layers": len(loaded.network.layers()),
    }
    return replace(loaded, facts=facts, decisions=(*loaded.decisions, decision))


def refuse_static(recipe: Recipe, label_type: str | None) -> None:
    """Refuse ``model.static`` where a static classifier is not possible."""
    model = recipe.model
    if not model.static:
        return
    fault = None
    if recipe.task not in (None, *LABELLED_TEXT_TASKS):
        fault = f"is not supported for {recipe.task}: it needs texts with one class each"
    elif label_type not in (None, "class"):
        fault = f"is not supported where data.label_kind is {label_type}: it needs one class a text"
    elif model.adapter.method is not None:
        fault = (
            f"trains all of its weights, so model.adapter.kind={model.adapter.method} has no use"
        )
    elif model.layers_kept != "spread":
        fault = (
            f"keeps no blocks of the encoder, so model.layers_kept={model.layers_kept} has no use"
        )
    if fault is not None:
        raise RecipeError(STATIC, fault, None, "Leave it out.")


def with_static(
    loaded: LoadedModel, recipe: Recipe, rows: Table, learned: Ints, texts: Sequence[str]
) -> LoadedModel:
    """The static classifier with the token vectors of ``loaded``, where the recipe asks for it; its
    phrases are those of the rows at ``learned`` and of ``texts``."""
    if not recipe.model.static:
        return loaded
    from holdfast.models.encoders.classifier import LoadedClassifier
    from holdfast.models.encoders.static import static_classifier

    assert isinstance(loaded, LoadedClassifier)
    known: list[str] = rows.take(learned).column("text")
    return static_classifier(loaded, [*known, *texts], recipe.seed, recipe.model.layers)
