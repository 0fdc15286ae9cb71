"""Every kind of task keeps what ``contract.fit.TaskDefinition`` promises, function by function."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from holdfast.contract.fit import FittedModel, TaskDefinition
from holdfast.contract.inference import InferenceOptions
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Finding
from holdfast.fits.fit import fit
from holdfast.prepare.given_files import given_files
from holdfast.prepare.model import prepare
from holdfast.recipe import override
from holdfast.recipe.parts import Task
from holdfast.tasks import task_definition

TASKS = get_args(Task)
SMALL = [
    "train.max_steps=2",
    "train.batch_size=4",
    "train.threads=1",
    "train.precision=float32",
    "train.matmul=default",
    "train.cache_frozen=off",
    "train.evaluations=1",
    "generate.rows=0",
]
TRAIN, VALID = np.array([0, 1, 3, 4, 5, 6, 7, 8]), np.array([9, 10, 11, 12, 13])


@pytest.fixture(scope="session")
def make_fitted(make_sample: Callable[[str], Any]) -> Callable[[str], FittedModel]:
    made: dict[str, FittedModel] = {}

    def make(name: str) -> FittedModel:
        if name not in made:
            sample = make_sample(name)
            made[name] = fit(prepare(override(sample.recipe, SMALL), sample.table), TRAIN, VALID)
        return made[name]

    return make


@pytest.fixture
def fitted(
    request: pytest.FixtureRequest, make_fitted: Callable[[str], FittedModel]
) -> FittedModel:
    """A fit of two steps of each sample, once a session; no test may change it."""
    return make_fitted(request.node.callspec.params["sample"])


def same_rows(one: Any, other: Any) -> bool:
    return all(list(one.column(name)) == list(other.column(name)) for name in one.rows.column_names)


def test_every_kind_has_a_sample(make_sample: Callable[[str], Any], samples: list[str]) -> None:
    missing = set(TASKS) - {make_sample(name).recipe.task for name in samples}
    assert not missing, "add it to SAMPLES of tests/contracts/conftest.py"


@pytest.mark.parametrize("name", TASKS)
def test_a_kind_is_found_by_its_name_and_every_function_is_there(name: str) -> None:
    definition = task_definition(name)
    assert definition.name == name
    functions = [
        f.name for f in dataclasses.fields(TaskDefinition) if f.name not in ("name", "metrics")
    ]
    assert [one for one in functions if not callable(getattr(definition, one))] == []


@pytest.mark.parametrize("name", TASKS)
def test_an_unknown_criterion_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(RecipeError, match="no_such_metric"):
        task_definition(name).find_metric("no_such_metric")


def test_reading_gives_the_same_rows_again_alone_and_like_another(sample: Any) -> None:
    definition, data = sample.definition, sample.recipe.data
    again, like = (definition.read(str(data.path), data, other) for other in (None, sample.table))
    assert same_rows(again, sample.table)
    assert same_rows(like, sample.table)
    assert (like.classes, like.names) == (sample.table.classes, sample.table.names)


def test_sides_that_a_source_brings_are_named_with_reasons(sample: Any) -> None:
    sides, decisions = given_files(sample.recipe.data, sample.definition.name)
    assert set(sides) <= {"valid", "test"}
    assert bool(sides) == bool(decisions)


def test_notices_are_findings_with_a_reason_and_a_remedy(sample: Any) -> None:
    found = sample.definition.check_examples(sample.examples, sample.loaded, "training")
    assert all(isinstance(one, Finding) and one.because and one.remedy for one in found)
    assert all(0 <= one.score <= 1 and one.count > 0 for one in found)


def test_the_task_gives_a_loss_a_row_and_what_it_keeps_a_row(sample: Any) -> None:
    task, positions = sample.task, np.array([3, 0, 5])
    batch = task.collate(sample.examples, positions)
    with torch.inference_mode():
        output = task.forward(sample.loaded.network, batch)
        losses, kept = task.losses(output, batch), task.keep(output, batch)
    assert losses.shape == (3,)
    assert losses.dtype == torch.float32
    assert torch.isfinite(losses).all()
    assert len(kept) == 3
    weights = task.weights(sample.examples, positions)
    assert weights.shape == (3,)
    assert (weights > 0).all()
    measured = task.measure(losses.numpy(), kept.numpy(), sample.examples, positions)
    np.testing.assert_array_equal(measured.losses, losses.numpy())
    assert np.isfinite(list(measured.metrics.values())).any()


def test_a_row_s_loss_does_not_depend_on_its_company(sample: Any) -> None:
    task, network = sample.task, sample.loaded.network

    def losses(positions: list[int]) -> torch.Tensor:
        batch = task.collate(sample.examples, np.array(positions))
        with torch.inference_mode():
            return task.losses(task.forward(network, batch), batch)

    alone = torch.cat([losses([i]) for i in (2, 7, 4)])
    torch.testing.assert_close(losses([2, 7, 4]), alone, rtol=1e-4, atol=1e-5)


def test_what_a_fit_settles_leaves_what_was_loaded_as_it_was(sample: Any) -> None:
    definition, loaded = sample.definition, sample.loaded
    before = (loaded.max_length, dict(loaded.settings), loaded.decisions)
    settled = definition.fit_loaded(loaded, sample.table, sample.examples)
    side = definition.transform_examples(sample.examples, settled, sample.table)
    assert (loaded.max_length, dict(loaded.settings), loaded.decisions) == before
    assert settled.network is loaded.network
    np.testing.assert_array_equal(side.rows, sample.examples.rows)
    assert (side.lengths <= sample.examples.lengths).all()


def test_listeners_have_names_that_differ(sample: Any, fitted: FittedModel) -> None:
    names = [one.name for one in sample.definition.listeners(fitted.training_plan)]
    assert len(set(names)) == len(names)


def test_a_saved_fit_is_a_plain_folder(sample: Any, fitted: FittedModel, tmp_path: Path) -> None:
    facts = sample.definition.save(tmp_path / "model", fitted)
    assert isinstance(facts, dict)
    assert (tmp_path / "model" / "config.json").is_file()
    assert list((tmp_path / "model").glob("*.safetensors"))
    assert not list((tmp_path / "model").glob("*.py"))


def test_a_fit_answers_each_row_once_and_scores_labelled_ones(
    sample: Any, fitted: FittedModel
) -> None:
    answering = sample.definition.use_fitted(fitted)
    asked = answering.read_rows(str(sample.recipe.data.path), InferenceOptions())
    answers = answering.predict(asked.table)
    n = len(asked.table)
    assert n == len(answers.predictions) == len(answers.confidence)
    assert all(one is None or 0 <= one <= 1 for one in answers.confidence)
    if answers.probabilities is not None:
        assert answers.probabilities.shape == (n, len(answering.names))
    assert all(isinstance(one, Decision) for one in asked.decisions)
    labelled = answering.read_labelled_rows(str(sample.recipe.data.path), InferenceOptions())
    score = answering.scorer(labelled.table)
    assert score().n == score(np.arange(len(labelled.table))).n
    some = np.array([0, 4, 5])
    assert score(some).n == answering.scorer(labelled.table.take(some))().n
