"""The pages of repairs: the regret is against the arms that are named, and runs are counted."""

from __future__ import annotations

import numpy as np


def test_right_labels_are_no_action_and_the_default_plan_is_one() -> None:
    import repairs

    accuracy = {"stop": 0.6, "adapt": 0.7}
    for fault, regret in ((repairs.WRONG, "0.0"), ("learning rate ÷ 30", "20.0")):
        cell = {"rows": 100, "data": "trec", "seed": 0}
        lines = [{**cell, "fault": fault, "arm": arm, "accuracy": a} for arm, a in accuracy.items()]
        lines.append({**cell, "fault": repairs.NONE, "arm": "stop", "accuracy": 0.9})
        assert f"`adapt` is {regret} points (median; mean {regret}) below" in repairs.in_words(
            lines
        )


def test_a_run_counts_as_better_where_more_test_rows_became_right_than_chance_explains() -> None:
    import repairs

    def lines_of(seed: int, gained: int, lost: int) -> list[dict[str, object]]:
        """Of 600 test rows 300 are right in both runs."""
        before, after = np.arange(600) < 300 + lost, np.arange(600) < 300
        after[600 - gained :] = True
        cell = {"rows": 100, "data": "trec", "seed": seed, "fault": repairs.WRONG, "steps": 40}
        arms = {"stop": before, "adapt": after}
        good = {**cell, "fault": repairs.NONE, "arm": "stop", "accuracy": 0.9}
        return [
            good,
            *(
                {
                    **cell,
                    "arm": arm,
                    "accuracy": float(right.mean()),
                    "right": np.packbits(right).tobytes().hex(),
                }
                for arm, right in arms.items()
            ),
        ]

    # McNemar's exact p: 0.25 for 3 rows against none, 0.002 for 10, 0.5 for 2.
    lines = [*lines_of(0, 3, 0), *lines_of(1, 10, 0), *lines_of(2, 0, 10), *lines_of(3, 0, 2)]
    assert "In 1 of 4 runs with a fault" in repairs.significant(lines)
    assert "in 1 significantly worse" in repairs.significant(lines)
    row = repairs.by_run(lines).splitlines()[-1]
    assert [cell.split(" ± ")[0] for cell in row.split("| ")[2].split(", ")] == [
        "+0.5",
        "+1.7",
        "−1.7",
        "−0.3",
    ]
