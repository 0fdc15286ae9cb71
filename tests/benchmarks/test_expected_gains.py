"""The gains of fine-tuning that `auto` expects are those of the benchmarks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from holdfast.prepare.base_model import FOLDS_GAIN, tuning_gain

Result = Mapping[str, Any]


def gain_over_probe(rows: int, encoder: str, tuned: Callable[[str, Result], bool]) -> float:
    """The mean over sets of what these runs gain over the probe that is fitted on all rows."""
    import json

    from cells import RESULTS

    lines = [
        json.loads(line)
        for name in ("quality", "default_plans")
        for line in (RESULTS / f"{name}.jsonl").read_text("utf-8").splitlines()
    ]
    results = {
        (*map(line["cell"].get, ("data", "rows", "seed", "arm")),): line["result"] for line in lines
    }
    by_set = defaultdict(list)
    for (data, count, seed, arm), result in results.items():
        probe = results.get((data, count, seed, f"probe, {encoder}"))
        if count == rows and tuned(arm, result) and probe:
            by_set[data].append(result["accuracy"] - probe["accuracy_all"])
    assert len(by_set) >= 4
    return float(np.mean([np.mean(gains) for gains in by_set.values()]))


@pytest.mark.parametrize(("rows", "folds"), [(100, FOLDS_GAIN), (400, FOLDS_GAIN), (1600, 0.0)])
def test_of_the_embedded_model(rows: int, folds: float) -> None:
    gain = gain_over_probe(rows, "minilm", lambda arm, _: arm == "default, minilm")
    assert tuning_gain(rows, True) + folds == pytest.approx(gain, abs=0.015)


def test_of_a_larger_model_with_some_rows() -> None:
    def chosen(arm: str, result: Result) -> bool:
        return arm == "auto, strong" and result["model"] == "all-mpnet-base-v2"

    assert tuning_gain(400, False) == pytest.approx(
        gain_over_probe(400, "strong", chosen), abs=0.015
    )


def test_of_a_larger_model_with_many_rows() -> None:
    from default_plans import STRONG_LENGTHS, length_plan

    plan = length_plan(*STRONG_LENGTHS[0])
    gain = gain_over_probe(1600, "strong", lambda arm, _: arm == plan)
    assert tuning_gain(1600, False) == pytest.approx(gain, abs=0.015)
