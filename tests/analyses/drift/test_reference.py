"""The reference of drift that a run keeps: whose rows it has, and when there is none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from holdfast.core.errors import RunError
from holdfast.plugins.drift.rows import DriftRows, Reference
from holdfast.plugins.drift.run_rows import _lacks_fold_predictions, load_reference


def run(folder: Path, n_test: int, task: str = "image-classification") -> Any:
    """A cross-fitted run, as far as its reference is concerned."""
    return SimpleNamespace(
        run=folder, out_of_fold=True, n_test=n_test, result={"task": task}, has=lambda _: True
    )


def test_images_without_test_rows_have_nothing_to_be_compared_with(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no words to compare") as caught:
        load_reference(run(tmp_path, 39))
    assert "Train again with at least 40 test rows." in str(caught.value)


@pytest.mark.parametrize(
    ("what", "numbers", "n_test", "known"),
    [
        ("test rows", "confidence", 200, True),
        # The predictions of the folds, of a class, of a number or of neither.
        ("validation rows", "confidence", 20, False),
        ("validation rows", "answer", 20, False),
        ("validation rows", "words", 20, True),
        ("validation rows", "words", 200, False),
    ],
)
def test_a_reference_of_the_folds_predictions_is_computed_again(
    tmp_path: Path, what: str, numbers: str, n_test: int, known: bool
) -> None:
    rows = DriftRows(5, None, None, {numbers: np.ones(5)})
    stored = Reference(rows, (), None, {}, 5, what)
    found = _lacks_fold_predictions(stored, run(tmp_path, n_test, "text-classification"))
    assert found is known
