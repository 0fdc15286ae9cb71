"""What other targets do to a whole run: wrong labels pull less, mixed rows make modest."""

from __future__ import annotations

import csv
from typing import Any

import numpy as np
import pytest

from holdfast.core.errors import RecipeError
from holdfast.fits.fit import fit
from holdfast.plan.defaults import resolve_settings
from holdfast.prepare.model import prepare
from holdfast.recipe import Recipe, override
from holdfast.tasks import task_definition

WORDS = {"good": "fine lovely warm bright kind", "bad": "dull cold grey broken rude"}
TRAIN, WRONG = 48, 8


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The first ``WRONG`` rows say the opposite of their words."""
    path = tmp_path_factory.mktemp("targets") / "rows.csv"
    rng = np.random.default_rng(0)
    with path.open("w", encoding="utf-8", newline="") as file:
        lines = [("text", "label")]
        for index in range(TRAIN + 12):
            label = ("good", "bad")[index % 2]
            text = " ".join([*rng.choice(WORDS[label].split(), 3), f"n{index}"])
            said = ("bad", "good")[index % 2] if index < WRONG else label
            lines.append((text, said))
        csv.writer(file).writerows(lines)
    recipe = override(Recipe(task="text-classification"), [f"data.path={path}", "train.threads=1"])
    return prepare(
        recipe, task_definition("text-classification").read(str(path), recipe.data, None)
    )


@pytest.fixture(scope="module")
def plain(prepared: Any) -> Any:
    return trained(prepared)


def trained(prepared: Any, **methods: Any) -> tuple[Any, Any]:
    """Losses and logits of the training rows after a run."""
    settings = {
        "methods.contrast": False,
        "methods.probe_first": False,
        "train.epochs": 10,
        "train.learning_rate": 2e-4,
        "train.keep": "last",
        "control.policy": "off",
        **{f"methods.{name}": value for name, value in methods.items()},
    }
    train = np.arange(TRAIN)
    run = fit(prepared, train, np.arange(TRAIN, TRAIN + 12), settings)
    return run.measure(run.training_plan.train, train)


@pytest.mark.slow
def test_rows_with_wrong_labels_are_learned_less_by_gce(prepared: Any, plain: Any) -> None:
    robust, _ = trained(prepared, gce=True)
    assert robust[:WRONG].mean() > plain[0][:WRONG].mean() + 0.2
    assert robust[WRONG:].mean() < np.log(2)


@pytest.mark.slow
def test_a_run_on_mixed_rows_is_less_sure_of_its_rows(prepared: Any, plain: Any) -> None:
    _, mixed = trained(prepared, mixup={"alpha": 2.0})
    size = [np.abs(logits[:, 1] - logits[:, 0]).mean() for logits in (plain[1], mixed)]
    assert size[1] < 0.9 * size[0]


@pytest.mark.parametrize("name", ["gce", "mixup", "refit_head"])
def test_they_are_refused_where_a_row_has_no_class(name: str) -> None:
    recipe = override(Recipe(task="seq2seq"), [f"methods.{name}=true"])
    with pytest.raises(RecipeError, match="needs one class per row"):
        resolve_settings(recipe, 10_000_000, 100, "t5")
