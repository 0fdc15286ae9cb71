"""What is true of a recorded run, and which verdicts are right: written down before any was made.

The pool (600 rows or more that nothing in the run ever saw, 300 paragraphs for the language model)
is the truth. A difference counts when it is above the margin that the guard itself uses: 5 % of the
lowest loss, at least 0.02 nats.

- The state of a run at its end, by the pool as a person would see it. The loss *rose* when the
  pool's raw loss is more than the margin above its lowest; the answers got *worse* when its refined
  loss (after the pool's own best temperature) is, or its share of right answers is 5 points below
  its highest; the *gap* is the share of right answers of the train probe less the pool's, both at
  the last look. **overfit**: it rose, and the answers got worse, or the gap is above 10 points, or
  answers are not right or wrong (a language model); **miscalibrated**: it rose, and neither;
  **memorizing**: it did not rise, 95 % of the train probe is right and the gap is above 10 points;
  **fit** otherwise.
- A state is *clear* when the gap does not lie between 5 and 15 points where the gap decides.
- A run without a fault of data or rate (``plain``, ``long``, ``none``, ``short``) is judged by
  its state: overfit or memorizing → ``overfit`` or ``memorizing``, which the contract counts as
  one; miscalibrated → ``miscalibrated``; fit → anything that the contract's yes or no reads as "not
  overfit".
- ``noise``: ``noisy_labels``, or ``overfit`` / ``memorizing`` with wrong labels as the cause.
- ``copies``: ``leaking``, or copies as the cause.
- ``rate x10``: ``diverging``, or the cause is a rate that is too high.
- ``rate /30``: ``underfit`` or ``learning``, and the cause is a rate that is too low.

A fault that does no harm by itself (a rate ten times too high that trains well, labels of which one
in ten is wrong but which nobody learns) still counts as the fault: the verdict should see it.
"""

from __future__ import annotations

import numpy as np
from recorded.store import Recording

from holdfast.core.records import Verdict

MARGIN_SHARE, MARGIN_NATS = 0.05, 0.02
GAP, WORSE, FLOOR = 0.10, 0.05, 0.95
DOUBT = (0.05, 0.15)
OVERFIT = frozenset({"overfit", "memorizing"})
# A word that a cause must hold to name the fault.
CAUSES = {
    "noise": ("label",),
    "copies": ("cop", "leak"),
    "rate x10": ("too high",),
    "rate /30": ("too low",),
}


def margin(best: float) -> float:
    return max(MARGIN_NATS, MARGIN_SHARE * best)


def state(recording: Recording) -> str:
    """``overfit``, ``memorizing``, ``miscalibrated`` or ``fit``, by the pool at the end."""
    rose, wide = above(recording.raw), gap(recording)
    if rose:
        return (
            "overfit"
            if wide is None or answers_worse(recording) or wide > GAP
            else ("miscalibrated")
        )
    right = recording.history[-1].train_correct
    known = right is not None and right.mean() >= FLOOR
    return "memorizing" if known and wide is not None and wide > GAP else "fit"


def is_clear(recording: Recording) -> bool:
    """Whether another pool of the same kind would hardly give another state."""
    wide = gap(recording)
    if wide is None or (above(recording.raw) and answers_worse(recording)):
        return True
    return not DOUBT[0] < wide < DOUBT[1]


def accuracies(recording: Recording) -> np.ndarray | None:
    """The pool's share of right answers at each look."""
    if recording.pool_logits is None or recording.pool_labels is None:
        return None
    return np.asarray((recording.pool_logits.argmax(-1) == recording.pool_labels).mean(axis=1))


def gap(recording: Recording) -> float | None:
    shares, right = accuracies(recording), recording.history[-1].train_correct
    return None if shares is None or right is None else float(right.mean() - shares[-1])


def answers_worse(recording: Recording) -> bool:
    shares = accuracies(recording)
    fell = shares is not None and float(shares.max() - shares[-1]) > WORSE
    return above(recording.refined) or fell


def above(losses) -> bool:  # type: ignore[no-untyped-def]
    best = float(losses.min())
    return not float(losses[-1]) - best <= margin(best)


def fault_of(recording: Recording) -> str:
    """``noise``, ``copies``, a rate, or nothing that stands in the data or the rate."""
    fault = str(recording.cell.get("fault", "none"))
    return fault if fault.startswith("rate") else fault.partition(" ")[0]


def names_fault(verdict: Verdict, fault: str) -> bool:
    cause = (verdict.cause or "").lower()
    return any(word in cause for word in CAUSES[fault])


def is_right(verdict: Verdict, recording: Recording) -> bool:
    """Whether a verdict on the whole run is right."""
    fault, label = fault_of(recording), verdict.label
    if fault == "noise":
        return label == "noisy_labels" or (label in OVERFIT and names_fault(verdict, fault))
    if fault == "copies":
        return label == "leaking" or names_fault(verdict, fault)
    if fault == "rate x10":
        return label == "diverging" or names_fault(verdict, fault)
    if fault == "rate /30":
        return label in ("underfit", "learning") and names_fault(verdict, fault)
    found = state(recording)
    if found == "fit":
        return label not in OVERFIT
    return label in (OVERFIT if found in OVERFIT else {found})
