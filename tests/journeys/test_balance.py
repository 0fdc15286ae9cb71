"""Skewed classes as a user has them: one key of a recipe, and the rates of the answers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from holdfast.core.decisions import decisions_to
from holdfast.core.errors import RecipeError
from holdfast.core.metric_names import metric_words
from holdfast.core.records import Decision
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override
from holdfast.terminal.summary import summary


@pytest.fixture(scope="module")
def rare_csv(tmp_path_factory: pytest.TempPathFactory, marked_rows: Any, write_csv: Any) -> Path:
    """100 rows, a fifth of them of the second class."""
    rows = marked_rows()
    label = rows[0][1]
    common, other = ([r for r in rows if (r[1] == label) is same] for same in (True, False))
    path: Path = write_csv(
        tmp_path_factory.mktemp("rare") / "rare.csv", [*common[:80], *other[:20]]
    )
    return path


def go(data: Path, quick: list[str], folder: Path, *settings: str, **more: Any) -> dict[str, Any]:
    given = [f"data.path={data}", *quick, "methods.contrast=false", *settings]
    return train(override(Recipe(), given), folder, **more)


def logits(run: Path) -> np.ndarray:
    """The logarithms of the probabilities of the test rows [n, 2]."""
    return np.log(pq.read_table(run / "predictions.parquet")["probabilities"].to_pylist())


@pytest.mark.slow
def test_a_stated_population_moves_the_answers_by_bayes_rule(
    rare_csv: Path, quick: list[str], tmp_path: Path
) -> None:
    plain = go(rare_csv, quick, tmp_path / "plain")
    assert "rates" not in plain
    names = plain["classes"]
    told: list[Decision] = []
    target = json.dumps({names[0]: 3, names[1]: 1})
    by = "methods.balance.by=none"
    with decisions_to(told.append):
        moved = go(rare_csv, quick, tmp_path / "moved", by, f"methods.balance.target={target}")
    rates = moved["rates"]["classes"]
    shares = [rates[name]["rows"] for name in names]
    wanted = [math.log(t / s) for t, s in zip((0.75, 0.25), shares, strict=True)]
    assert [rates[name]["shift"] for name in names] == pytest.approx(wanted)
    gap = logits(tmp_path / "moved") - logits(tmp_path / "plain")
    # A softmax drops what all classes share.
    assert gap[:, 1] - gap[:, 0] == pytest.approx(wanted[1] - wanted[0], abs=1e-3)
    (said,) = [one for one in told if getattr(one, "what", "") == "class rates"]
    assert said.because == "the class rates set in the recipe"
    assert "class rates" in [one["what"] for one in moved["decisions"]]


@pytest.mark.parametrize(("metric", "power"), [("f1_macro", 0.5), ("recall_macro", 1.0)])
def test_a_metric_that_counts_classes_alike_moves_the_predictions(
    rare_csv: Path, quick: list[str], tmp_path: Path, metric: str, power: float
) -> None:
    """To rates in proportion to √p for macro F1, to equal ones for macro recall."""
    chosen = f"train.metric_for_best_model={metric}"
    off = go(rare_csv, quick, tmp_path / "off", chosen, "methods.balance=false")
    assert "rates" not in off
    moved = go(rare_csv, quick, tmp_path / "moved", chosen)
    rows = [moved["rates"]["classes"][name]["rows"] for name in moved["classes"]]
    gap = logits(tmp_path / "moved") - logits(tmp_path / "off")
    wanted = -power * math.log(rows[1] / rows[0])
    assert gap[:, 1] - gap[:, 0] == pytest.approx(wanted, abs=1e-3)
    (said,) = [one for one in moved["decisions"] if one["what"] == "method"]
    assert said["because"].startswith(f"{chosen} gives every class equal weight")
    printed = summary(moved, tmp_path / "moved", 80)
    assert f"Scores    {metric_words(metric)} " in printed


@pytest.mark.slow
@pytest.mark.parametrize("by", ["draw", "weights", "effective"])
def test_rows_learned_otherwise_answer_at_their_own_rates(
    rare_csv: Path, quick: list[str], tmp_path: Path, by: str
) -> None:
    """The mean probability of the rare class on new rows is near its rate, not near one half."""
    result = go(
        rare_csv, quick, tmp_path / by, f"methods.balance.by={by}", "methods.balance.target=rows"
    )
    rare = min(result["rates"]["classes"], key=lambda n: result["rates"]["classes"][n]["rows"])
    place = result["classes"].index(rare)
    assert np.exp(logits(tmp_path / by))[:, place].mean() == pytest.approx(0.2, abs=0.12)
    assert result["rates"]["classes"][rare]["shift"] == 0


def test_a_population_of_other_classes_is_refused_before_anything_is_trained(
    rare_csv: Path, quick: list[str], tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="unknown class") as caught:
        go(rare_csv, quick, tmp_path / "run", 'methods.balance.target={"no such": 1}')
    assert caught.value.what == "methods.balance.target"
    with pytest.raises(RecipeError, match="must be one of drawn, rows, half, even, auto"):
        go(rare_csv, quick, tmp_path / "run", "methods.balance.target=evn")
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_choice_on_few_rows_is_none_and_says_why(
    rare_csv: Path, quick: list[str], tmp_path: Path
) -> None:
    result = go(rare_csv, quick, tmp_path / "run", "methods.balance.target=auto")
    (said,) = [one for one in result["decisions"] if one["what"] == "class rates"]
    assert "validation rows" in said["because"]
