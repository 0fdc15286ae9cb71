"""What a fit answers is what its saved folder answers, for every kind of task and of labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from holdfast.contract.fit import FittedModel
from holdfast.fits.fit import fit
from holdfast.prepare.model import prepare
from holdfast.recipe import Recipe, override
from holdfast.recipe.parts import Task
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
# Of each task what reads its saved folder in plain libraries, and where the answers have it.
SAVED: dict[str, tuple[str, bool]] = {
    "text-classification": ("holdfast.models.encoders.checkpoint.load_saved", True),
    "image-classification": ("holdfast.models.vision.vision.load_saved_vision", True),
    "token-classification": ("holdfast.models.encoders.checkpoint.load_saved_tagger", True),
    "seq2seq": ("holdfast.models.generators.seq2seq_network.load_saved_seq2seq", False),
    "causal-lm": ("holdfast.models.generators.causal.load_saved_causal", False),
}
# A saved folder gives the outputs of the fit to this share (docs of the run folder).
CLOSE = 1e-4


def test_every_task_is_reloaded_here() -> None:
    assert not set(get_args(Task)) - set(SAVED), "add to SAVED how a saved model of it is loaded"


@pytest.fixture(scope="module")
def fitted_of(make_sample: Callable[[str], Any]) -> Callable[[str], tuple[Any, FittedModel]]:
    made: dict[str, tuple[Any, FittedModel]] = {}

    def make(name: str) -> tuple[Any, FittedModel]:
        if name not in made:
            sample = make_sample(name)
            recipe: Recipe = override(sample.recipe, SMALL)
            prepared = prepare(recipe, sample.table)
            made[name] = (sample, fit(prepared, np.arange(4, 14), np.array([0, 1, 2, 3])))
        return made[name]

    return make


def reloaded(fitted: FittedModel, folder: Path) -> Any:
    """The answers of the fit's saved folder, read as a run's is."""
    fitted.training_plan.definition.save(folder, fitted)
    place, several = SAVED[fitted.training_plan.definition.name]
    module, _, function = place.rpartition(".")
    load = getattr(import_module(module), function)
    saved = load(folder, 1) if function == "load_saved" else load(folder)
    use = fitted.training_plan.definition.use_fitted(fitted)
    if several:
        return replace(use, models=[saved])
    return replace(use, network=saved[0], tokenizer=saved[1])


def test_a_fit_answers_and_scores_as_its_saved_folder_does(
    request: pytest.FixtureRequest, sample: Any, fitted_of: Any, tmp_path: Path
) -> None:
    sample, fitted = fitted_of(request.node.callspec.params["sample"])
    predictor = Predictor.of(fitted)
    plain = Predictor(reloaded(fitted, tmp_path / "model"), fitted.recipe.data)
    table = sample.table
    here, there = predictor.predict_table(table), plain.predict_table(table)
    same(here.predictions, there.predictions)
    same(here.confidence, there.confidence)
    assert (here.probabilities is None) == (not predictor.names)
    if here.probabilities is not None:
        assert there.probabilities is not None
        np.testing.assert_allclose(here.probabilities, there.probabilities, atol=CLOSE)
    some = np.array([1, 4, 7])
    for positions in (None, some):
        ours = predictor.judge(table)(positions).metrics
        theirs = plain.judge(table)(positions).metrics
        assert ours.keys() == theirs.keys()
        for name, found in ours.items():
            same([found.value], [theirs[name].value], name)


def same(found: Any, expected: Any, what: str = "") -> None:
    for one, other in zip(found, expected, strict=True):
        if isinstance(other, float):
            assert one == pytest.approx(other, rel=CLOSE, abs=CLOSE), what
        else:
            assert one == other, what


def test_a_fit_reads_rows_in_memory(fitted_of: Any) -> None:
    _, fitted = fitted_of("classes")
    found = list(Predictor.of(fitted).predict(["w1 w2", "", "w3"], probabilities=True))
    assert [one.row for one in found] == [0, 1, 2]
    assert found[1].prediction == ""
    assert found[1].probabilities is None
    assert sum((found[0].probabilities or {}).values()) == pytest.approx(1)


def test_two_fits_answer_each_for_itself(make_sample: Callable[[str], Any]) -> None:
    """What a second fit learns never changes what the first one says."""
    sample = make_sample("classes")
    prepared = prepare(override(sample.recipe, [*SMALL, "train.learning_rate=0.01"]), sample.table)
    first = Predictor.of(fit(prepared, np.arange(4, 14), np.array([0, 1, 2, 3])))
    before = first.predict_table(sample.table).probabilities
    second = Predictor.of(fit(prepared, np.arange(0, 8), np.arange(8, 14)))
    other = second.predict_table(sample.table).probabilities
    assert before is not None
    np.testing.assert_array_equal(first.predict_table(sample.table).probabilities, before)
    assert other is not None
    assert np.abs(before - other).max() > 1e-3
