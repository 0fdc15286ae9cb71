"""What the table of defaults fills in, and what it leaves alone."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.errors import RecipeError
from holdfast.data.memory.texts import table_from_texts
from holdfast.methods import conflicts
from holdfast.methods.balance import Balance
from holdfast.methods.contrast import ClassBatches, ContrastTerm
from holdfast.methods.losses import LabelSmoothing
from holdfast.methods.sam import Sam
from holdfast.plan import defaults
from holdfast.plan.defaults import SENTENCE_ENCODER, conflict_query, plan_phases, resolve_settings
from holdfast.recipe import Recipe
from holdfast.tasks.classes.task import load
from holdfast.training.plan import EveryRow, OnePass, Phase


@pytest.mark.parametrize(
    ("task", "given", "share"),
    [
        ("text-classification", None, 0.1),
        ("image-classification", None, 0.1),
        ("seq2seq", None, 0.0),
        ("causal-lm", None, 0.0),
        ("seq2seq", 0.2, 0.2),
    ],
)
def test_a_model_that_writes_has_no_warm_up_unless_it_is_asked_for(
    task: Any, given: float | None, share: float
) -> None:
    recipe = Recipe(task=task).with_changes(train={"warmup": given, "epochs": 8})
    resolved, _ = resolve_settings(recipe, 5_000_000, 600)
    (phase,) = [p for p in plan_phases(resolved, 5_000_000, 600) if p.name == "finetune"]
    assert phase.warmup == share
    assert phase.warmup_steps == math.ceil(share * phase.steps)


def planned(rows: int, **methods: Any) -> dict[str, Phase]:
    """The phases of a small classifier by name, with label smoothing and these methods."""
    recipe = Recipe(task="text-classification", methods=methods)
    recipe = recipe.with_changes(train={"label_smoothing": 0.2, "epochs": 8})
    complete, _ = resolve_settings(recipe, 5_000_000, rows)
    return {phase.name: phase for phase in plan_phases(complete, 5_000_000, rows)}


def test_what_methods_bring_stands_in_the_phases_that_it_is_for() -> None:
    """A way to step in all of them, rows and losses in the fine-tuning, a stage before it."""
    phases = planned(150, sam={"rho": 0.3}, balance=True, contrast={"steps": 9, "classes": 3})
    before, after = phases["contrast"], phases["finetune"]
    assert before.stepper == after.stepper == Sam(0.3)
    assert (before.source, before.terms) == (ClassBatches(3), (ContrastTerm(0.1),))
    assert (after.source, after.terms) == (Balance(1.0), (LabelSmoothing(0.2),))
    assert (before.head, after.head) == ("refit", "train")
    assert before.steps == 9


@pytest.mark.parametrize(
    ("task", "found"), [("causal-lm", 0), ("seq2seq", 0), ("text-classification", 1)]
)
def test_a_progressive_start_repeats_the_probe_only_where_there_is_one(
    task: Any, found: int
) -> None:
    """``probe_first`` is on by default; of what writes no head is fitted."""
    recipe = Recipe(task=task, methods={"probe_first": True, "progressive": True})
    assert len(conflicts.useless_settings(conflict_query(recipe))) == found


def test_without_methods_the_phases_are_the_ordinary_ones() -> None:
    phases = planned(600, contrast=False)
    assert list(phases) == ["finetune"]
    assert phases["finetune"].stepper == OnePass()
    assert phases["finetune"].source == EveryRow()


@pytest.mark.parametrize("task", ["seq2seq", "causal-lm", "token-classification"])
@pytest.mark.parametrize("name", ["balance", "contrast"])
def test_what_needs_classes_is_refused_where_a_row_has_none(task: Any, name: str) -> None:
    with pytest.raises(RecipeError, match=f"does not apply to {task}"):
        resolve_settings(Recipe(task=task, methods={name: True}), 5_000_000, 600, "small decoder")


@pytest.mark.parametrize("rows", [80, 316, 400])
def test_many_classes_are_contrasted_in_larger_batches_and_few_are_as_before(rows: int) -> None:
    def planned(classes: int) -> Any:
        complete, why = resolve_settings(Recipe(), 5_000_000, rows, None, classes)
        return plan_phases(complete, 5_000_000, rows, None, classes), why[0].because

    phases, because = planned(77)
    (phase,) = phases
    assert (phase.name, phase.steps, phase.head) == ("contrast", 40, "refit")
    assert phase.batch_size == 64
    assert phase.source.classes == 32
    assert "of 77 classes" in because
    for few in (2, 6, 31):
        assert planned(few) == planned(0)


@pytest.mark.parametrize(
    ("parameters", "model", "learning_rate", "phases"),
    [
        (22_000_000, None, None, {"contrast": 1e-4}),
        (22_000_000, None, 7e-5, {"contrast": 7e-5}),
        (109_000_000, SENTENCE_ENCODER, None, {"contrast": 6e-5}),
        (109_000_000, None, None, {"finetune": 3e-5}),
    ],
)
def test_few_rows_are_contrasted_where_that_was_measured(
    parameters: int, model: str | None, learning_rate: float | None, phases: dict[str, float]
) -> None:
    recipe = Recipe(task="text-classification").with_changes(train={"learning_rate": learning_rate})
    complete, _ = resolve_settings(recipe, parameters, 82, model)
    planned = plan_phases(complete, parameters, 82, model)
    assert {phase.name: phase.learning_rate for phase in planned} == phases
    assert complete.model.freeze == "words"


@pytest.mark.parametrize(
    ("rows", "epochs", "told"),
    [(82, None, False), (82, 8.0, False), (82, 40.0, True), (2000, None, True)],
    ids=["contrast alone", "fewer epochs of it", "contrast, then fine-tuning", "fine-tuning alone"],
)
def test_the_batch_size_of_fine_tuning_is_told_where_there_is_some(
    rows: int, epochs: float | None, told: bool
) -> None:
    recipe = Recipe(task="text-classification").with_changes(train={"epochs": epochs})
    complete, (decision, *_) = resolve_settings(recipe, 5_000_000, rows)
    batches = {phase.name: phase.batch_size for phase in plan_phases(complete, 5_000_000, rows)}
    assert ("finetune" in batches) is told
    assert ("batch_size" in decision.chosen) is told


def test_no_frozen_layer_is_a_choice_and_not_the_default() -> None:
    complete, _ = resolve_settings(
        Recipe(task="text-classification").with_changes(model={"freeze": 0}), 22_000_000, 82
    )
    assert complete.model.freeze == 0


@pytest.mark.parametrize("rate", [None, 1e-3])
def test_an_adapter_is_contrasted_at_its_own_rate(rate: float | None) -> None:
    """LoRA trains at ten times the rate of all weights, whoever says so."""
    recipe = Recipe(task="text-classification").with_changes(
        model={"adapter": {"kind": "lora"}}, train={"learning_rate": rate}
    )
    complete, _ = resolve_settings(recipe, 22_000_000, 82)
    (phase,) = plan_phases(complete, 22_000_000, 82)
    assert (phase.name, phase.learning_rate) == ("contrast", pytest.approx(1e-3))


def test_an_encoder_of_sentences_is_known_by_its_modules(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Sentence Transformers save them; the tiny model counts as one of base size here."""
    table = table_from_texts([f"text {i}" for i in range(8)], ["a", "b"] * 4)
    monkeypatch.setattr(defaults, "SMALL_PARAMETERS", 1000)
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    recipe = Recipe(task="text-classification").with_changes(model={"name": str(folder)})
    (folder / "modules.json").unlink(missing_ok=True)
    assert load(recipe, table).defaults is None
    (folder / "modules.json").write_text("[]", "utf-8")
    assert load(recipe, table).defaults == SENTENCE_ENCODER
