"""The search for the size: its rules against oracles, and what comes of a kill."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.search.capacity import WELL, WORSE, SizeTrials, fit_order
from holdfast.search.context import SearchContext, TrialFold
from holdfast.search.sizes import Size, candidate_sizes, judge_sizes, measure_costs, shrink

CHAIN = [["b", "c", "d"]]
LARGE = {"b": 3.0, "c": 2.0, "d": 1.0}


def test_a_difference_is_drawn_to_nothing_by_its_noise() -> None:
    assert shrink(0.01, 0.02) == 0
    assert shrink(-0.04, 0.02) == pytest.approx(-0.04 * 0.75)
    assert shrink(0.3, 0.0) == 0.3
    # In squares it is nearer to the truth than what was seen, where the truth is small.
    rng = np.random.default_rng(0)
    seen = rng.normal(0.2, 1, 20000)
    made = np.array([shrink(value, 1.0) for value in seen])
    assert ((made - 0.2) ** 2).mean() < 0.8 * ((seen - 0.2) ** 2).mean()


def rights(rng: np.random.Generator, n: int, lost: float) -> Any:
    """A model that is right on nine of ten rows, and one that loses a share of these."""
    whole = (rng.random(n) < 0.9).astype(float)
    return whole, whole * (rng.random(n) >= lost)


def test_the_smallest_size_that_is_proven_to_do_as_well_is_chosen() -> None:
    rng = np.random.default_rng(1)
    whole, same = rights(rng, 4000, 0.0)
    _, worse = rights(rng, 4000, 0.2)
    found = judge_sizes(whole, {"b": same, "c": same, "d": worse}, LARGE, CHAIN, 0.01)
    assert (found.answer, found.selected) == ("oversized", "c")
    assert {one.key: one.paired.verdict for one in found.standings}["d"] == "worse"


def test_copies_of_a_row_are_no_new_evidence_for_a_size() -> None:
    rng = np.random.default_rng(4)
    whole, same = rights(rng, 400, 0.0)
    _, other = rights(rng, 400, 0.01)
    others = {"b": other, "c": same, "d": other}
    once = judge_sizes(whole, others, LARGE, CHAIN, 0.01)
    copied = judge_sizes(
        np.repeat(whole, 8),
        {key: np.repeat(one, 8) for key, one in others.items()},
        LARGE,
        CHAIN,
        0.01,
        np.repeat(np.arange(400), 8),
    )
    assert [one.expected_difference for one in copied.standings] == pytest.approx(
        [one.expected_difference for one in once.standings]
    )
    assert copied.answer == once.answer
    assert copied.selected == once.selected


def test_a_model_of_which_each_block_counts_is_not_called_oversized() -> None:
    rng = np.random.default_rng(2)
    whole, worse = rights(rng, 3000, 0.1)
    for label, answer in (("healthy", "all_needed"), ("underfit", "too_small")):
        found = judge_sizes(whole, {"b": worse}, LARGE, CHAIN, 0.01, label=label)
        assert (found.answer, found.selected) == (answer, "whole")


def test_few_rows_cannot_tell_and_the_cheaper_one_is_taken_unless_it_is_likely_worse() -> None:
    whole = np.tile([1.0, 1, 1, 0], 20)
    near = whole.copy()
    near[[0, 3]] = [0, 1]
    found = judge_sizes(whole, {"b": near, "c": near}, LARGE, CHAIN, 0.01)
    assert (found.answer, found.selected) == ("undecided", "c")
    far = whole.copy()
    far[np.flatnonzero(whole)[:8]] = 0
    found = judge_sizes(whole, {"b": near, "c": far}, LARGE, CHAIN, 0.01)
    assert (found.answer, found.selected) == ("undecided", "b")


def test_equal_sizes_are_called_worse_and_smaller_ones_as_good_no_more_often_than_promised() -> (
    None
):
    """Equal sizes at 300 rows, 8 % of which one alone has right; and ones that are worse by twice
    the margin, at 3,000."""
    rng, wrong, n = np.random.default_rng(3), 0, 400
    for _ in range(n):
        draws = rng.random(300)
        whole = np.where(draws < 0.04, 1.0, np.where(draws < 0.08, 0.0, 1.0))
        same = np.where(draws < 0.04, 0.0, 1.0)
        wrong += judge_sizes(whole, {"b": same}, LARGE, CHAIN, 0.01).answer == "all_needed"
    assert wrong / n < 0.05
    as_good = 0
    for _ in range(n):
        draws = rng.random(3000)
        whole = np.where(draws < 0.05, 1.0, np.where(draws < 0.08, 0.0, 1.0))
        # Right two points less often: twice the margin.
        less = np.where(draws < 0.05, 0.0, 1.0)
        as_good += judge_sizes(whole, {"b": less}, LARGE, CHAIN, 0.01).answer == "oversized"
    assert as_good / n < 0.05


class Result:
    """As much of a ``FitResult`` as is read."""

    def __init__(self, key: str, correct: Any) -> None:
        self.key, self.correct, self.losses = key, correct, 1 - correct
        self.verdict, self.seconds, self.failed = {"label": "healthy"}, 1.0, None


def trying(n: int = 4000) -> SizeTrials:
    sizes = [
        Size("whole", "all 4 blocks", {}, 4),
        *(Size(f"first-{d}", f"{d} of 4 blocks", {"model.layers": d}, d) for d in (3, 2, 1)),
    ]
    rows = np.arange(n)
    return SizeTrials(sizes, [TrialFold(rows[: n // 2], rows[n // 2 :])])


def test_sizes_that_others_make_idle_are_not_fitted() -> None:
    whole, worse = rights(np.random.default_rng(4), 4000, 0.2)
    assert [one.key for one in fit_order(trying().sizes)] == [
        "whole",
        "first-2",
        "first-3",
        "first-1",
    ]
    for half, spared in ((whole, {"first-3": WELL}), (worse, {"first-1": WORSE})):
        search, asked = trying(), []
        for job in search.jobs():
            asked.append(job.key)
            made = {"whole": whole, "first-2": half, "first-3": whole, "first-1": worse}
            search.add(Result(job.key, made[job.key.rpartition("-f")[0]]))  # type: ignore[arg-type]
        assert search.skipped == spared
        assert len(asked) == 3


def test_spread_blocks_that_are_worse_rule_out_no_first_ones() -> None:
    whole, worse = rights(np.random.default_rng(4), 4000, 0.2)
    search = trying()
    settings = {"model.layers": 2, "model.layers_kept": "spread"}
    search.sizes = [*search.sizes[:2], Size("spread-2", "2 of 4, spread", settings, 2)]
    search.sizes += [Size("first-1", "1 of 4 blocks", {"model.layers": 1}, 1)]
    made = {"whole": whole, "spread-2": worse, "first-3": whole, "first-1": worse}
    asked = []
    for job in search.jobs():
        asked.append(job.key)
        key = job.key.rpartition("-f")[0]
        search.add(Result(job.key, made[key]))  # type: ignore[arg-type]
    assert "first-1-f0" in asked


def test_sizes_are_the_model_and_its_first_blocks_and_each_costs_less(bench: SearchContext) -> None:
    sizes = candidate_sizes(bench)
    assert [(one.key, one.blocks) for one in sizes] == [("whole", 2), ("first-1", 1)]
    costs = measure_costs(bench, sizes)
    assert costs["first-1"].parameters < costs["whole"].parameters
    assert 0 < costs["first-1"].latency_ms < costs["whole"].latency_ms


def test_of_a_deep_model_five_shares_of_its_blocks_are_tried(
    search_recipe: Any, tiny_model: Path, tmp_path: Path
) -> None:
    from transformers import AutoConfig, AutoModel

    from holdfast.fits.row_use import learning_rows
    from holdfast.prepare.rows import load_and_divide
    from holdfast.recipe import override

    deep = shutil.copytree(tiny_model, tmp_path / "deep")
    for weights in deep.glob("*.safetensors"):
        weights.unlink()
    config = AutoConfig.from_pretrained(tiny_model)
    config.num_hidden_layers = 7
    AutoModel.from_config(config).save_pretrained(deep)
    divided = load_and_divide(override(search_recipe, [f"model.name={deep}"]))
    sizes = candidate_sizes(
        SearchContext.from_learning_rows(learning_rows(divided.recipe, divided))
    )
    assert [(one.key, one.blocks) for one in sizes] == [
        ("whole", 7),
        ("first-6", 6),
        ("first-5", 5),
        ("first-4", 4),
        ("first-2", 2),
        ("first-1", 1),
    ]
    assert sizes[1].settings == {"model.layers": 6, "model.layers_kept": "first"}


def test_a_cut_model_is_its_first_blocks_run_by_hand(bench: SearchContext) -> None:
    network = bench.prepared({}).loaded.network
    cut = bench.prepared({"model.layers": 1, "model.layers_kept": "first"}).loaded.network
    batch = {
        "input_ids": torch.tensor([[2, 7, 9, 3], [2, 8, 3, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
    }
    with torch.inference_mode():
        states = network.backbone(**batch, output_hidden_states=True).hidden_states[1]
        wanted = cut.head(network.pool(states, batch["attention_mask"]))
        torch.testing.assert_close(cut(**batch), wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.slow
def test_a_killed_search_ends_as_an_undisturbed_one(
    search_recipe: Any, killed: type[BaseException], tmp_path: Path, monkeypatch: Any
) -> None:
    from holdfast.contract.request import TrainingRequest
    from holdfast.pipeline.main import train
    from holdfast.recipe import read_recipe
    from holdfast.search import context as benches
    from holdfast.search import learner as engines
    from holdfast.search.capacity import Sizing
    from holdfast.search.tune import tune_request

    train(search_recipe, tmp_path / "whole", procedure=Sizing())
    count, real = 0, benches.run_job

    def dies(*given: Any) -> Any:
        nonlocal count
        count += 1
        if count == 3:
            raise killed
        return real(*given)

    monkeypatch.setattr(engines, "run_job", dies)
    with pytest.raises(killed):
        train(search_recipe, tmp_path / "run", procedure=Sizing())
    # The same way to search, without naming it again.
    asked = TrainingRequest(str(search_recipe.data.path), out=tmp_path / "run", resume=True)
    _, recipe, procedure = tune_request(asked)
    assert isinstance(procedure, Sizing)
    train(recipe, tmp_path / "run", procedure=procedure, resume=True)
    # Two were kept: of the six fits four were done after the kill.
    assert count == 3 + 4
    for name in ("model/model.safetensors", "predictions.parquet"):
        both = [(tmp_path / one / name).read_bytes() for one in ("whole", "run")]
        assert both[0] == both[1]
    told = [
        json.loads((tmp_path / one / "result.json").read_text("utf-8"))["capacity"]
        for one in ("whole", "run")
    ]
    assert [s["value"] for s in told[0]["sizes"]] == [s["value"] for s in told[1]["sizes"]]
    assert told[0]["answer"] in ("oversized", "all_needed", "too_small", "undecided")
    assert told[0]["n"] == len(search_recipe_rows(tmp_path / "whole"))
    assert '<section id="capacity"' in (tmp_path / "run" / "report.html").read_text("utf-8")
    again = read_recipe(tmp_path / "run" / "recipe.yaml")
    train(again, tmp_path / "again")
    name = "model/model.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


def search_recipe_rows(run: Path) -> list[Any]:
    """The rows that judge the sizes: all but the test rows."""
    import pyarrow.parquet as parquet

    sides = parquet.read_table(run / "splits.parquet")["split"].to_pylist()
    return [side for side in sides if side in ("train", "valid")]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["train.folds=3"], "train.folds"),
        (["model.layers=1"], "number of blocks"),
        (["model.layers=0"], "number of blocks"),
        (["model.static=true"], "model.static"),
        (["data.split.test=0", "data.split.train=0.8", "data.split.valid=0.2"], "needs test rows"),
        (["model.adapter.kind=ia3"], "has no smaller form"),
    ],
)
def test_what_cannot_be_is_refused(
    search_recipe: Any, tmp_path: Path, settings: list[str], told: str
) -> None:
    from holdfast.core.errors import RecipeError
    from holdfast.pipeline.main import train
    from holdfast.recipe import override
    from holdfast.search.capacity import Sizing

    with pytest.raises(RecipeError, match=told):
        train(override(search_recipe, settings), tmp_path / "run", procedure=Sizing())


def test_ranks_are_halved_where_an_adapter_stands_beside(search_recipe: Any) -> None:
    from holdfast.fits.row_use import learning_rows
    from holdfast.prepare.rows import load_and_divide
    from holdfast.recipe import override

    asked = override(search_recipe, ["model.adapter.kind=lora", "model.adapter.rank=4"])
    divided = load_and_divide(asked)
    sizes = candidate_sizes(
        SearchContext.from_learning_rows(learning_rows(divided.recipe, divided))
    )
    assert [one.rank for one in sizes] == [4, 2, 1]


def test_rows_without_one_class_are_compared_by_their_losses() -> None:
    """Of tags and of several labels, ``correct`` is of whole rows, which no metric reports."""
    correct, _ = rights(np.random.default_rng(4), 2000, 0.2)
    trials = trying()
    trials.add(Result("whole-f0", correct))  # type: ignore[arg-type]
    np.testing.assert_array_equal(trials.quality("whole"), correct)
    trials.has_accuracy = False
    np.testing.assert_array_equal(trials.quality("whole"), correct - 1)
    assert trials.score_decision("whole").chosen.startswith("loss ")
