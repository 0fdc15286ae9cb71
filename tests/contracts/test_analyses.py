"""Every analysis of a fitted run, of every kind of task: what it finds is found before
the test rows are opened, is plain and finite, and is the same when it is made again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest

from holdfast.analyses.analysis import Candidates, all_analyses, confirm_all, find_all
from holdfast.analyses.robustness.analysis import changed_rows, find, unavailable_changes
from holdfast.contract.fit import FittedModel, ScoringResult
from holdfast.core.records import to_json
from holdfast.core.tasks import GENERATIVE_TASKS
from holdfast.fits.fit import fit
from holdfast.prepare.model import prepare
from holdfast.recipe import Recipe, override
from holdfast.runs.finished_run import ANSWERS
from holdfast.runs.predictor import Predictor

SMALL = [
    "train.max_steps=4",
    "train.batch_size=4",
    "train.threads=1",
    "train.precision=float32",
    "train.matmul=default",
    "generate.rows=0",
    "generate.max_new_tokens=4",
]


@pytest.fixture(scope="module")
def asked(
    make_sample: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Any, FittedModel, dict[str, Any], Path, Candidates]]:
    """A small fit of each sample and what every analysis found of it."""
    made: dict[str, Any] = {}

    def make(name: str) -> Any:
        if name not in made:
            sample, run = make_sample(name), tmp_path_factory.mktemp("asked")
            recipe: Recipe = override(sample.recipe, SMALL)
            fitted = fit(prepare(recipe, sample.table), np.arange(4, 11), np.arange(4))
            saved = fitted.training_plan.definition.save(run / "model", fitted)
            found = find_all(run, fitted, saved)
            made[name] = (sample, fitted, saved, run, found)
        return made[name]

    return make


def scored_by(sample: Any, fitted: FittedModel, saved: dict[str, Any]) -> ScoringResult:
    """The last three rows as test rows, answered as training and validation rows are."""
    from holdfast.contract.fit import SplitRows

    columns = fitted.training_plan.definition.prediction_columns(
        SplitRows(fitted, saved, "train", np.array([4, 5, 6]))
    )
    rows = fitted.training_plan.splits.train_rows.table.take([4, 5, 6])
    return ScoringResult({}, (), {}, predictions=dict(columns), table=rows)


@pytest.mark.slow
def test_what_the_kept_state_says_is_what_the_fit_measured(
    request: pytest.FixtureRequest, sample: Any, asked: Any
) -> None:
    _, fitted, _, run, found = asked(request.node.callspec.params["sample"])
    ready, told = fitted.training_plan, found.session
    stored = parquet.read_table(run / ANSWERS)
    assert stored["split"].to_pylist() == ["train"] * len(told.train) + ["valid"] * len(told.valid)
    for side, examples in ((told.train, ready.train), (told.valid, ready.valid)):
        # A row of which nothing can be learned has no loss.
        learnt = np.isin(side.rows, np.asarray(examples.rows))
        np.testing.assert_array_equal(np.isfinite(side.losses), learnt)
        if side.probabilities is not None and ready.recipe.task != "token-classification":
            assert side.names == ready.task.classes
            held = np.asarray(side.probabilities)
            assert ((held >= 0) & (held <= 1)).all()


def test_an_analysis_gives_plain_values_and_the_same_again(
    request: pytest.FixtureRequest, sample: Any, asked: Any
) -> None:
    sample, fitted, saved, run, found = asked(request.node.callspec.params["sample"])
    scored = confirm_all(found, scored_by(sample, fitted, saved))
    again = find_all(run, fitted, saved)
    twice = confirm_all(again, scored_by(sample, fitted, saved))
    text = json.dumps(to_json(dict(scored.analysis_blocks)), allow_nan=False, sort_keys=True)
    assert text == json.dumps(to_json(dict(twice.analysis_blocks)), allow_nan=False, sort_keys=True)


def test_an_analysis_leaves_the_fit_as_it_was(
    request: pytest.FixtureRequest, sample: Any, asked: Any
) -> None:
    _, fitted, saved, run, _ = asked(request.node.callspec.params["sample"])
    before = {name: value.clone() for name, value in fitted.network.state_dict().items()}
    find_all(run, fitted, saved)
    for name, value in fitted.network.state_dict().items():
        assert (value.cpu() == before[name].cpu()).all(), name


def test_changed_rows_are_rows_that_the_kept_state_answers(
    request: pytest.FixtureRequest, sample: Any, asked: Any, tmp_path: Path
) -> None:
    """What ``holdfast errors --robustness`` asks: as many answers as rows, of rows that differ."""
    sample, fitted, _, _, found = asked(request.node.callspec.params["sample"])
    if sample.definition.name in GENERATIVE_TASKS:
        pytest.skip("a model that writes is not asked")
    table = fitted.training_plan.splits.train_rows.table
    names = find(found.session)
    left_out = unavailable_changes(names, table)
    assert set(left_out) <= {"contractions", "synonyms", "noise words", "end marks"}
    answered = Predictor.of(fitted)
    for name in (one for one in names if one not in left_out):
        changed, at = changed_rows(name, table, 0, tmp_path)
        assert changed.column("row").tolist() == table.column("row")[at].tolist()
        read = next(one for one in ("path", "tokens", "text") if one in table.rows.column_names)
        before, after = table.column(read), changed.column(read)
        if not table.has_pairs:
            assert all(after[k] != before[place] for k, place in enumerate(at)), name
        if len(at):
            assert len(answered.predict_table(changed).predictions) == len(at)


def test_each_analysis_has_a_place_of_its_own() -> None:
    places = [analysis.where for analysis in all_analyses().values()]
    assert len(set(places)) == len(places)
    for name, analysis in all_analyses().items():
        assert analysis.name == name
