"""The demo's story: a careless run promises what it does not keep, and the guarded one does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.cli.demo import comparison_lines
from holdfast.core.labels import TITLES
from holdfast.pipeline.baseline import LOG, add_baseline_run, baseline_recipe
from holdfast.recipe import read_recipe

GROUPS, ROWS = 36, 6


@pytest.fixture(scope="module")
def leaky_run(
    tmp_path_factory: pytest.TempPathFactory, write_csv: Any, quick: list[str]
) -> tuple[Path, dict[str, Any]]:
    """A finished run with its careless twin. The label is a matter of the group alone, and of a
    word that only this group has: who has seen the group knows all, who has not knows nothing."""
    from holdfast.pipeline.main import train
    from holdfast.recipe import Recipe, override

    folder, rng = tmp_path_factory.mktemp("demo"), np.random.default_rng(0)
    rows = []
    for group in range(GROUPS):
        label = ("no", "yes")[group % 2]
        for _ in range(ROWS):
            marks = rng.choice(["bad", "good", "odd"], 8)
            text = " ".join(f"w{group} {mark}" for mark in marks)
            rows.append((text, label, f"g{group}"))
    path = write_csv(folder / "rows.csv", rows, ("text", "label", "source"))
    recipe = override(
        Recipe(),
        [
            f"data.path={path}",
            "data.group=source",
            *quick,
            "train.max_steps=80",
            "model.freeze=none",
        ],
    )
    train(recipe, folder / "run")
    return folder / "run", add_baseline_run(folder / "run")


@pytest.mark.slow
def test_who_divides_single_rows_promises_what_new_sources_do_not_keep(
    leaky_run: tuple[Path, dict[str, Any]],
) -> None:
    run, result = leaky_run
    block = result["careless"]
    promise, truth = block["random_split"], block["honest"]
    assert promise["value"] > 0.8
    assert truth["value"] < 0.7
    assert promise["low"] > truth["value"]
    apart = promise["low"] > truth["high"]
    assert ("do not overlap" in block["because"]) == apart
    assert f"{100 * (promise['value'] - truth['value']):.1f} points" in block["because"]
    assert json.loads((run / "result.json").read_text())["careless"] == block
    assert "random split would have reported" in (run / "report.html").read_text("utf-8")


def test_its_log_is_read_as_a_strangers(
    leaky_run: tuple[Path, dict[str, Any]], holdfast: Any
) -> None:
    run, _ = leaky_run
    done = holdfast("diagnose", run / LOG, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["series"] == {"train": "train_loss", "valid": "eval_loss"}
    assert found["points"] == len((run / LOG).read_text().splitlines()) - 1 > 3


def test_the_careless_recipe_is_five_times_as_fast_and_stops_for_nobody(
    leaky_run: tuple[Path, dict[str, Any]],
) -> None:
    careful = read_recipe(leaky_run[0] / "recipe.yaml")
    careless = baseline_recipe(careful)
    assert careful.train.learning_rate is not None
    assert careless.train.learning_rate == pytest.approx(5 * careful.train.learning_rate)
    assert (careless.control.policy, careful.control.policy) == ("off", "stop")
    assert (careless.data, careless.model) == (careful.data, careful.model)


def test_both_stand_side_by_side_within_eighty_columns(
    leaky_run: tuple[Path, dict[str, Any]],
) -> None:
    _, result = leaky_run
    lines = comparison_lines(result, Path("runs/demo-1"), 80)
    assert max(map(len, lines)) <= 80
    promised, kept, curves = lines[2:5]
    value = result["test"]["metrics"]["accuracy"]["value"]
    assert promised.count(f"{100 * value:.1f} %") >= 1
    assert f"{100 * result['careless']['honest']['value']:.1f} %" in kept
    assert TITLES[result["careless"]["verdict"]["label"]] in curves


class Rows:
    """Sees which rows a run learns from."""

    name = "rows"

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def run_start(self, run: Any) -> None:
        self.seen = set(run.job.train.rows.tolist())


@pytest.mark.slow
def test_the_careless_run_does_not_learn_from_its_own_test_rows_and_groups_widen_the_truth(
    leaky_run: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """A seventh of the guarded run's training rows are put aside; the interval on unseen groups is
    wider than Wilson's of as many independent rows."""
    import shutil

    import pyarrow.parquet as parquet
    from scipy.stats import binomtest

    run, rows = tmp_path / "run", Rows()
    shutil.copytree(leaky_run[0], run)
    block = add_baseline_run(run, (rows,))["careless"]
    split = parquet.read_table(run / "splits.parquet").to_pylist()
    guarded = {row["row"] for row in split if row["split"] == "train"}
    assert rows.seen < guarded
    assert len(guarded) - len(rows.seen) == pytest.approx(0.15 * len(guarded), abs=1)
    n = sum(row["split"] == "test" for row in split)
    honest = block["honest"]
    plain = binomtest(round(honest["value"] * n), n).proportion_ci(0.95, "wilson")
    assert honest["high"] - honest["low"] > 1.2 * (plain.high - plain.low)
