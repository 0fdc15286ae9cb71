"""Answers by tuned features: no row is answered by a fit that saw it, and the ranking gains."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import holdfast.analyses.audit.fold_predictions as module
from holdfast.analyses.audit.fold_predictions import (
    refuse_untunable,
    split_folds,
    tuned_log_probabilities,
)
from holdfast.core.decisions import record_decisions
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Floats, Ints
from holdfast.data.memory.texts import table_from_texts
from holdfast.quality.views import TableRows
from holdfast.recipe import Recipe, override

SUBJECTS = ("train", "hotel", "soup", "film", "phone", "song", "road", "garden")
PRAISE = ("was lovely", "made me happy", "is worth every cent", "I would buy it again")
BLAME = ("was awful", "made me angry", "is a waste of money", "I sent it back")


def opinions(n: int) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(0)
    texts, labels = [], []
    for i in range(n):
        words = (PRAISE, BLAME)[i % 2]
        texts.append(f"The {rng.choice(SUBJECTS)} {rng.choice(words)}, visit {i}.")
        labels.append(("good", "bad")[i % 2])
    return texts, labels


def test_every_row_is_in_one_fold_or_in_no_fit() -> None:
    labels = np.array([0, 1, 2] * 40 + [3, -1, -1])
    folds, outside = split_folds(labels, 5)
    assert outside.tolist() == [120, 121, 122]
    held = np.concatenate([fold.held_out for fold in folds])
    assert sorted(held.tolist()) == list(range(120))
    for fold in folds:
        parts = [set(part.tolist()) for part in (fold.train, fold.valid, fold.held_out, outside)]
        assert sum(map(len, parts)) == len(labels) == len(set.union(*parts))
        # Evenly by class, and under one pass over what is learned.
        assert (
            np.bincount(labels[fold.held_out]).max() - np.bincount(labels[fold.held_out]).min() <= 1
        )
        assert fold.steps * fold.batch < len(fold.train)


@pytest.mark.slow
def test_no_fit_sees_the_rows_that_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, labels = opinions(72)
    table = table_from_texts(texts, labels)
    seen: list[tuple[set[int], set[int]]] = []
    phases: list[list[str]] = []

    def watched(prepared, train, valid, settings):
        fitted = fit(prepared, train, valid, settings)
        phases.append([phase.name for phase in fitted.training_plan.plan.phases])

        class Watched:
            def measure(self, examples, asked):
                seen.append(({*train.tolist(), *valid.tolist()}, {*asked.tolist()}))
                return fitted.measure(examples, asked)

        return Watched()

    fit = module.fit
    monkeypatch.setattr(module, "fit", watched)
    recipe = override(Recipe(), ["audit.tuned=true", "train.threads=1", "train.precision=float32"])
    with record_decisions() as told:
        answers = tuned_log_probabilities(
            TableRows(table), recipe, "embedded", 2.0, lambda *_: None
        )
    assert len(seen) == 3
    assert all(not learned & asked for learned, asked in seen)
    assert sorted(row for _, asked in seen for row in asked) == list(range(72))
    assert phases == [["contrast"]] * 3
    assert np.allclose(np.exp(answers).sum(axis=1), 1)
    truth = np.asarray(table.column("label"))
    assert (answers.argmax(axis=1) == truth).mean() > 0.9
    (cost,) = told
    assert isinstance(cost, Decision)
    assert "3 fits" in cost.chosen
    assert "the 2.0 s that reading" in cost.because
    assert cost.prominent


def test_a_row_without_a_label_is_answered_by_every_fit_and_any_other_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels = np.array([0, 1] * 30 + [-1, -1])
    asked = np.zeros(len(labels), dtype=int)

    class Fitted:
        """It knows the class of each row, and takes rows without a label for the second."""

        def measure(self, examples: object, positions: Ints) -> tuple[None, Floats]:
            asked[positions] += 1
            return None, np.where(labels[positions, None] == 0, [4.0, 0.0], [0.0, 4.0])

    loaded = SimpleNamespace(network=torch.nn.Linear(1, 1), defaults=None)
    rows: Any = SimpleNamespace(labels=labels, table=SimpleNamespace(classes=("good", "bad")))
    monkeypatch.setattr(module, "prepare", lambda *_: SimpleNamespace(loaded=loaded, examples=None))
    monkeypatch.setattr(module, "class_count", lambda _: 2)
    monkeypatch.setattr(module, "fit", lambda *_: Fitted())
    answers = tuned_log_probabilities(rows, Recipe(), "embedded", 2.0, lambda *_: None)
    assert asked.tolist() == [1] * 60 + [3, 3]
    assert answers.argmax(axis=1).tolist() == [0, 1] * 30 + [1, 1]


def test_rows_that_cannot_be_tuned_for_are_refused() -> None:
    texts, labels = opinions(40)
    table = table_from_texts(texts, labels)
    recipe = override(Recipe(), ["task=text-classification", "audit.tuned=true"])
    with pytest.raises(RecipeError, match="needs 60 labelled rows"):
        refuse_untunable(recipe, table)
    with pytest.raises(RecipeError, match="one class"):
        refuse_untunable(recipe, dataclasses.replace(table, classes=("good",)))
    with pytest.raises(RecipeError, match="reads the rows"):
        refuse_untunable(override(recipe, ["audit.rows=0"]), table)
