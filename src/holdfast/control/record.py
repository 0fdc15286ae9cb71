"""What a policy tried in a run, and what choosing among its evaluations is worth: ``control`` of
``result.json``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from holdfast.control.choice import Optimism, choice_optimism
from holdfast.control.controller import Controller
from holdfast.core.records import Estimate, Snapshot
from holdfast.core.wording import signed
from holdfast.monitor.curves.patterns import patterns_of_run

# Of a metric: its factor, its unit, and the smallest amount that is named.
UNITS = {
    "accuracy": (100.0, " points of accuracy", 0.01),
    "exact_match": (100.0, " points of rows with all labels correct", 0.01),
    "sentence_accuracy": (100.0, " points of sentences with all tags correct", 0.01),
    "loss": (1.0, " nats", 1e-4),
}


def control_block(
    policy: str,
    evaluations: Sequence[Snapshot],
    advisor: object,
    observed_optimism: Callable[[Optimism], Estimate] | None,
    *,
    last_step: int,
    planned_steps: int | None,
    seed: int,
    history: Sequence[Snapshot],
    earlier_trials: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """``policy``, ``looks`` (evaluations on the validation rows) in all branches, the ``steps``
    taken in all and planned at the beginning, the ``trials`` (of a cross-fitted run those on one
    ``fold``, with their ``updates``) and whether they had ``ended``, the ``optimism`` of selection,
    and the ``patterns`` in the ``history`` of the last branch.

    ``observed_optimism`` gives the validation score minus the test score for an expected optimism,
    and is ``None`` where another rule chose; ``earlier_trials`` ended before the first evaluation.
    """
    controller = advisor if isinstance(advisor, Controller) else None
    trials, now = (controller.trials, controller.trial) if controller else ((), None)
    expected = choice_optimism(evaluations, seed) if observed_optimism is not None else None
    observed = observed_optimism(expected) if observed_optimism and expected else None
    return {
        "policy": policy,
        "looks": len(evaluations),
        "steps": controller.steps_taken if controller else last_step,
        "planned_steps": planned_steps,
        "trials": [
            *earlier_trials,
            *(
                {
                    "name": one.name,
                    "step": one.step,
                    "from_step": one.from_step,
                    "kept": one.kept,
                    "ended": one is not now,
                    "actions": list(one.done),
                }
                for one in trials
            ),
        ],
        "patterns": [one.to_json() for one in patterns_of_run(history)],
        "optimism": None
        if expected is None or observed is None
        else {
            "metric": expected.metric,
            "expected": Estimate(expected.value, expected.low, expected.high).to_json(),
            "seen": observed.to_json(),
            "because": optimism_sentence(expected, observed),
        },
    }


def optimism_sentence(expected: Optimism, observed: Estimate) -> str:
    """Over how many evaluations and rows the checkpoint was chosen, and what that adds to its score
    on average and, where there are test rows, here."""
    scale, unit, threshold = UNITS[expected.metric]
    inflation = scale * expected.value
    # Draws that all select the same evaluation differ only by rounding.
    flattered = (
        f"by about {inflation:.2g}" if inflation >= threshold else f"by less than {threshold:g}"
    )
    sentence_start = (
        f"The checkpoint was chosen among {expected.looks} evaluations on {expected.rows} "
        f"validation rows, which inflates its validation score {flattered}{unit} on average"
    )
    if observed.value is None:
        return f"{sentence_start}."
    interval = (
        f" (95 % CI of the difference {signed(scale * observed.low, '+.2g')} to "
        f"{signed(scale * observed.high, '+.2g')})"
        if observed.low is not None and observed.high is not None
        else ""
    )
    gap = scale * abs(observed.value)
    if gap < threshold:
        return (
            f"{sentence_start}; here the validation score differs from the test score by less than "
            f"{threshold:g}{unit}{interval}."
        )
    comparison = "better" if observed.value >= 0 else "worse"
    return (
        f"{sentence_start}; here the validation score is {gap:.2g}{unit} {comparison} than the "
        f"test score{interval}."
    )
