"""``holdfast lr`` as a user has it: a rate, a picture, JSON, and nothing written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import holdfast as package
from holdfast.core.decisions import decisions_to
from holdfast.core.errors import InputError
from holdfast.core.records import Decision
from holdfast.recipe import Recipe, override
from holdfast.search.rate_range import RatePoint, RateRange, range_test


@pytest.fixture(scope="module")
def settings(quick: list[str]) -> list[str]:
    return [
        *quick[:-1],
        "methods.contrast=false",
        "train.batch_size=8",
        "methods.probe_first=false",
    ]


def test_the_command_suggests_a_rate_with_its_picture_and_writes_nothing(
    holdfast: Any, marked_csv: Path, settings: list[str], tmp_path: Path
) -> None:
    sets = [part for one in settings for part in ("--set", one)]
    done = holdfast("lr", marked_csv, *sets)
    assert done.code == 0, done.err
    assert "Suggested" in done.out
    assert "--set train.learning_rate=" in done.out
    assert "Default   0.001, which train uses" in done.out
    assert "█" in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    assert list(tmp_path.iterdir()) == []
    told = json.loads(holdfast("lr", marked_csv, *sets, "--json").out)
    assert told["schema"] == 1
    assert told.keys() >= {"suggested", "low", "high", "points", "because"}
    assert told["low"] <= told["suggested"] <= told["high"]
    rates = [point["rate"] for point in told["points"]]
    assert rates[0] == 1e-7
    assert 20 < len(rates) <= 100
    assert np.allclose(np.diff(np.log10(rates)), 7 / 99)
    assert all(point.keys() == {"rate", "loss", "smoothed"} for point in told["points"])
    assert f"train.learning_rate={told['suggested']:g}" in done.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_python_gives_what_the_command_gives_and_leaves_the_generators(
    marked_csv: Path, settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(4)
    before = torch.get_rng_state()
    found = package.lr(marked_csv, settings=settings)
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(found, RateRange)
    recipe = override(Recipe(), [f"data.path={marked_csv}", *settings])
    told: list[Any] = []
    with decisions_to(told.append):
        assert range_test(recipe) == found
    assert any(isinstance(one, Decision) and one.what == "default recipe" for one in told)
    # Said before the wait, where only what is prominent is printed.
    (coming,) = [one for one in told if isinstance(one, Decision) and one.what == "range test"]
    assert coming.prominent
    assert coming.chosen == "up to 100 updates of 8 rows each"
    import polars

    table = polars.read_csv(marked_csv)
    text, label = table.columns[:2]
    held = package.lr(table, text=text, label=label, settings=settings)
    assert held.points == found.points
    assert list(tmp_path.iterdir()) == []


def test_what_train_would_refuse_is_refused(holdfast: Any, marked_csv: Path) -> None:
    assert holdfast("lr", "nowhere.csv").code == 2
    assert "is not a task" in holdfast("lr", marked_csv, "--task", "sumarize").err
    assert "exclude each other" in holdfast("lr", marked_csv, "--quiet", "--verbose").err
    with pytest.raises(InputError, match="unknown method"):
        package.lr(marked_csv, settings={"methods.smam": True})


def test_where_nothing_moves_no_rate_is_suggested(holdfast: Any) -> None:
    from holdfast.cli.lr import rate_range_text

    flat = tuple(RatePoint(10.0**-k, 0.7, 0.7) for k in range(7, 0, -1))
    text = rate_range_text(
        RateRange(None, None, None, flat, "not enough evidence", 1e-4, "p", 9), 80
    )
    assert "Suggested none" in text
    assert "▲" not in text
    assert "not enough evidence" in text
