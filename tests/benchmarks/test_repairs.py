"""The regret on the page of repairs is against the arms that the page names."""

from __future__ import annotations


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
