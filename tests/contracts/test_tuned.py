"""The default space of every task: ``train``'s own settings lie in it, its corners are fitted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from holdfast.core.errors import RecipeError
from holdfast.recipe import override
from holdfast.search.context import SearchContext, make_trial_folds, run_job
from holdfast.search.default_space import default_point, default_space, has_one_class, is_unset
from holdfast.search.job import FitJob
from holdfast.search.trial_plan import CUT_TASKS, SearchPart, plan_trials, space_facts, study_metric

SMALL = (
    "train.max_steps=2",
    "train.threads=1",
    "train.precision=float32",
    "train.matmul=default",
    "train.evaluations=2",
    "generate.rows=0",
)


@pytest.fixture
def bench(sample: Any) -> SearchContext:
    recipe = override(sample.recipe, SMALL)
    rows = sample.table
    everything = np.arange(len(rows))
    train, valid = everything[: len(rows) - 5], everything[len(rows) - 5 :]
    return SearchContext(recipe, rows, everything, (), train, valid, 0, (rows,), ())


def test_the_default_space_holds_the_default_and_its_corners_can_be_fitted(
    bench: SearchContext,
) -> None:
    facts, passed = space_facts(bench)
    space = default_space(facts)
    assert passed > 0
    assert {"train.learning_rate", "train.schedule"} <= set(space.by_key)
    assert facts.contrast_only or "train.epochs" in space.by_key
    assert all(one.because and is_unset(bench.recipe, one.key) for one in space)
    point = default_point(space, facts.default)
    plain = facts.default.model_dump(mode="json")
    assert point is not None, (str(space), plain["train"], plain["model"], plain["methods"])
    assert space.contains(point)
    assert study_metric(facts) == ("accuracy" if facts.has_head_of_classes else "loss")
    # The last value of each key: what an adapter, other rows' forms or a schedule bring together.
    corner: dict[str, Any] = {}
    for one in space:
        if one in space.active(corner):
            corner[one.key] = one.grid()[-1]
    assert space.contains(corner)
    none = bench.train[:0]
    done = run_job(bench, FitJob("corner", bench.train, bench.valid, none, corner, may_fail=True))
    assert done.failed is None
    # Plain texts are cut into pieces.
    assert len(done.losses) >= len(bench.valid)
    assert done.refined is not None
    assert done.refined.mean() <= done.losses.mean() + 1e-9


def test_what_the_recipe_says_is_not_searched(bench: SearchContext) -> None:
    fixed = replace(bench, recipe=override(bench.recipe, ["train.learning_rate=1e-4"]))
    facts, _ = space_facts(fixed)
    assert "train.learning_rate" not in default_space(facts).by_key


def test_the_folds_of_a_trial_hold_each_row_once(bench: SearchContext) -> None:
    folds, judging = make_trial_folds(bench, 3, 0), len(bench.rows)
    held = np.concatenate([fold.valid for fold in folds])
    assert sorted(held.tolist()) == list(range(judging))
    for fold in folds:
        assert not np.intersect1d(fold.train, fold.valid).size


def test_a_length_that_cuts_what_is_scored_is_not_searched(bench: SearchContext) -> None:
    """Trials would be scored on different words."""
    if space_facts(bench)[0].default.task not in CUT_TASKS:
        pytest.skip("its rows are scored whole")
    with pytest.raises(RecipeError, match=r"model\.max_length: cuts the words"):
        plan_trials({"model.max_length": {"choices": [8, 16]}}, SearchPart(), bench)


def test_only_rows_of_one_class_have_an_accuracy(bench: SearchContext) -> None:
    """Sizes and trials of the others are compared by the loss, whatever a correct row may be."""
    task, kind = bench.recipe.task, bench.recipe.data.label_kind
    classes = task in ("text-classification", "image-classification") and kind in (None, "class")
    assert has_one_class(bench.prepared({}).recipe) == classes
