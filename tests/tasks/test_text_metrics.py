"""A user's own metric of texts joins the table: it is found, bounded, and has an interval."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.core.errors import RecipeError
from holdfast.metrics import Texts, find_text_metric
from holdfast.metrics.text_scores import estimate

MADE = Texts(["a b", "c", "d"], ["a", "c c", ""], ["x", "y", "z"])


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(
        "def longer(references, texts, sources):\n"
        "    assert sources\n"
        "    return sum(len(t) > len(r) for r, t in zip(references, texts)) / len(texts)\n"
        "longer.higher_is_better = True\nlonger.low, longer.high = 0.0, 1.0\n"
        "def broken(references, texts, sources):\n    raise KeyError('no')\n"
        "def nothing(references, texts, sources):\n    return None\n"
    )
    return path


def test_it_is_found_and_computed_with_its_direction_and_bounds(mine: Path) -> None:
    metric = find_text_metric(f"{mine}:longer")
    assert (metric.name, metric.higher_is_better, metric.low, metric.high) == ("longer", True, 0, 1)
    assert metric.compute(MADE) == pytest.approx(1 / 3)
    found = estimate(metric, MADE)
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= 1 / 3 <= found.high <= 1


def test_what_it_cannot_do_is_said(mine: Path) -> None:
    with pytest.raises(RecipeError, match="failed with KeyError"):
        find_text_metric(f"{mine}:broken:lower").compute(MADE)
    assert find_text_metric(f"{mine}:nothing:lower").compute(MADE) is None
    assert "nothing" in str(estimate(find_text_metric(f"{mine}:nothing:lower"), MADE).why)
    with pytest.raises(RecipeError, match="higher is better"):
        find_text_metric(f"{mine}:broken")


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(RecipeError, match="rouge_l"):
        find_text_metric("rouge-l")
