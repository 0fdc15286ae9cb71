"""How a run's head is fitted to the untouched features: ``train.head``."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision
from holdfast.fits.fit import average_decisions, fit, late_decisions
from holdfast.models.probes.head_fit import fit_head
from holdfast.models.probes.probe import fit_probe
from holdfast.plan.defaults import resolve_settings
from holdfast.prepare.model import prepare
from holdfast.recipe import Recipe, override
from holdfast.tasks import task_definition
from holdfast.training.observe import Observer

WORDS = {"good": "fine lovely warm bright", "bad": "dull cold grey broken"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("head") / "rows.csv"
    rng = np.random.default_rng(0)
    every = " ".join(WORDS.values()).split()
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = [("text", "label")]
        for index in range(60):
            label = ("good", "bad")[index % 2]
            words = [*rng.choice(WORDS[label].split(), 2), *rng.choice(every, 3), f"n{index}"]
            rows.append((" ".join(words), label))
        csv.writer(file).writerows(rows)
    # In bfloat16 what a batch holds decides the last digits, on some processors more than others.
    exact = ["train.threads=1", "train.precision=float32", "train.matmul=default"]
    recipe = override(Recipe(task="text-classification"), [f"data.path={path}", *exact])
    return prepare(
        recipe, task_definition("text-classification").read(str(path), recipe.data, None)
    )


def heard(prepared: Any, told: list[Any], settings: Any) -> Any:
    made = fit(prepared, np.arange(44), np.arange(44, 60), settings)
    told += [*made.training_plan.decisions, *made.training_plan.findings, *average_decisions(made)]
    told += [made.checkpoint_decision, *late_decisions(made)]
    return made


def fitted(prepared: Any, told: list[Any], **settings: Any) -> Any:
    return heard(prepared, told, {f"train.{key}": value for key, value in settings.items()})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["both", "logistic", "discriminant"])
def test_a_run_begins_with_the_head_that_its_recipe_names(prepared: Any, kind: str) -> None:
    told: list[Any] = []
    run = fitted(prepared, told, head=kind, max_steps=2)
    observer = Observer(run.job.accelerator, run.job.task, alone=True)
    x = observer.features(run.base_network(), run.training_plan.train, np.arange(44))
    y = run.training_plan.train.labels
    wanted: Any = fit_head(x, y, classes=2, seed=0, head_type=kind)  # type: ignore[arg-type]
    (refit,) = run.listeners
    assert np.allclose(refit.baseline["weight"].numpy(), wanted.weight, atol=1e-5)
    (line,) = [one for one in told if isinstance(one, Decision) and "linear probe" in one.what]
    assert line.because == wanted.because
    assert run.recipe.train.head == kind


def test_features_that_contrast_has_moved_get_logistic_regression(prepared: Any) -> None:
    run = fitted(prepared, [], max_steps=2, keep="last")
    observer = Observer(run.job.accelerator, run.job.task, alone=True)
    x = observer.features(run.network, run.training_plan.train, np.arange(44))
    head = run.network.head.weight.detach().numpy()
    assert run.trained.best_step == 2
    plain = fit_probe(x, run.training_plan.train.labels, classes=2, seed=0)
    assert np.allclose(head, plain.weight, atol=1e-5)


def test_rows_without_a_class_are_refused_it_and_get_none() -> None:
    plain, _ = resolve_settings(Recipe(task="seq2seq"), 10_000_000, 100, "t5")
    assert plain.train.head is None
    recipe = override(Recipe(task="seq2seq"), ["train.head=both"])
    with pytest.raises(RecipeError, match="needs one class per row"):
        resolve_settings(recipe, 10_000_000, 100, "t5")
    number = override(
        Recipe(task="text-classification"), ["data.label_kind=number", "train.head=logistic"]
    )
    with pytest.raises(RecipeError, match="does not apply to number"):
        resolve_settings(number, 10_000_000, 100, "small encoder")


def test_a_head_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="head"):
        override(Recipe(), ["train.head=svm"])


TUNED = {"methods.contrast": False, "methods.refit_head": True, "train.max_steps": 4}


def tuned(prepared: Any, told: list[Any], **settings: Any) -> Any:
    given = {**TUNED, **{key.replace("__", "."): value for key, value in settings.items()}}
    return heard(prepared, told, given)


def of(told: list[Any], what: str) -> list[Decision]:
    return [one for one in told if isinstance(one, Decision) and one.what == what]


@pytest.mark.slow
def test_after_fine_tuning_the_head_is_fitted_to_the_tuned_features(prepared: Any) -> None:
    told: list[Any] = []
    run = tuned(prepared, told, train__keep="last")
    observer = Observer(run.job.accelerator, run.job.task, alone=True)
    x = observer.features(run.network, run.training_plan.train, np.arange(44))
    wanted = fit_head(x, run.training_plan.train.labels, classes=2, seed=0)
    assert np.allclose(run.network.head.weight.detach().numpy(), wanted.weight, atol=1e-4)
    assert np.allclose(run.network.head.bias.detach().numpy(), wanted.bias, atol=1e-4)
    (tried,) = of(told, "refitted head")
    assert tried.chosen == "refit_head: kept"
    assert "the features of step 4 with the mean of logistic" in tried.because
    (kept,) = of(told, "best checkpoint")
    assert kept.chosen == "step 4 of 4, refitted head"
    without = tuned(prepared, [], train__keep="last", methods__refit_head=False)
    start, end = (dict(one.network.named_parameters()) for one in (without, run))
    assert all(torch.equal(start[n], end[n]) for n in start if not n.startswith("head"))
    # What was measured is what stands in the network.
    assert np.allclose(
        run.best_evaluation.valid_logits, run.measure(run.training_plan.valid)[1], atol=1e-5
    )


@pytest.mark.slow
def test_a_head_that_the_rows_find_worse_is_not_kept(
    prepared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(x: Any, y: Any, **named: Any) -> Any:
        return fit_head(x, 1 - y, **named)

    monkeypatch.setattr("holdfast.models.probes.head_fit.fit_head", wrong)
    told: list[Any] = []
    run = tuned(prepared, told)
    (tried,) = of(told, "refitted head")
    assert tried.chosen == "refit_head: not kept"
    assert run.trained.selected_average is None
    plain = tuned(prepared, [], methods__refit_head=False)
    assert torch.equal(run.network.head.weight, plain.network.head.weight)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"methods__contrast": True}, "refits its head at every evaluation"),
        ({"train__label_smoothing": 0.1}, "other losses, draws or weights"),
        ({"methods__balance": True}, "other losses, draws or weights"),
    ],
)
def test_no_head_is_fitted_where_training_meant_more_by_its_own(
    prepared: Any, settings: dict[str, Any], why: str
) -> None:
    told: list[Any] = []
    run = tuned(prepared, told, **{"train__keep": "last", **settings})
    (tried,) = of(told, "refitted head")
    assert tried.chosen == "refit_head: none"
    assert why in tried.because
    assert run.trained.selected_average is None
