"""Which rows of many small tasks stay where they copy one another."""

from __future__ import annotations

from typing import Any

import numpy as np

from holdfast.plugins.episodes.rows import _remove_copies


def test_a_copy_stays_on_the_side_that_judges_and_once_a_task(make_table: Any) -> None:
    table = make_table([f"t{i}" for i in range(8)], ["a", "b"] * 4)
    # Rows 0, 1, 2 are copies on three sides; 3 and 4 of one task; 5 and 6 of two tasks of a side.
    groups = np.array([0, 0, 0, 1, 1, 2, 2, 3])
    side = np.array([0, 1, 2, 0, 0, 1, 1, -1])
    tasks = np.array(["p", "q", "r", "p", "p", "q", "s", "u"], dtype=object)
    kept, findings = _remove_copies(side, groups, tasks, np.zeros(8, dtype=int), (table,))
    assert kept.tolist() == [-2, -2, 2, 0, -2, 1, 1, -1]
    found = {one.check: one for one in findings}
    assert found["copies_across_tasks"].rows == (0, 1)
    assert found["copies_across_tasks"].severity == "warn"
    assert found["copies_within_tasks"].rows == (4,)
