"""What is true of a recorded run, and which verdicts are right: written down before any was made.

The pool (600 rows or more that nothing in the run ever saw, 300 paragraphs for the language model)
is the truth. A difference counts when it is above the margin that the guard itself uses: 5 % of the
lowest loss, at least 0.02 nats.

- The state of a run at its end: **overfit** when the pool's refined loss (after the pool's own best
  temperature; the raw loss of a language model) is more than the margin above its lowest;
  **miscalibrated** when that holds but the raw loss is more than the margin above its lowest;
  **fit** otherwise.
- A run without a fault of data or rate (``long``, ``none``, healthy ones) is judged by its state:
  overfit → ``overfit`` or ``memorizing``; miscalibrated → ``miscalibrated`` or ``memorizing``;
  fit → anything that the contract's yes or no reads as "not overfit".
- ``noise``: ``noisy_labels``, or ``overfit`` / ``memorizing`` with wrong labels as the cause.
- ``copies``: ``leaking``, or copies as the cause.
- ``rate x10``: ``diverging``, or the cause is a rate that is too high.
- ``rate /30``: ``underfit`` or ``learning``, and the cause is a rate that is too low.

A fault that does no harm by itself (a rate ten times too high that trains well, labels of which one
in ten is wrong but which nobody learns) still counts as the fault: the verdict should see it.
"""

from __future__ import annotations

from recorded.store import Recording

from holdfast.core.records import Verdict

MARGIN_SHARE, MARGIN_NATS = 0.05, 0.02
OVERFIT = frozenset({"overfit", "memorizing"})
# A word that a cause must hold to name the fault.
CAUSES = {"noise": ("label",), "copies": ("cop", "leak"), "rate x10": ("too high",),
          "rate /30": ("too low",)}  # fmt: skip


def margin(best: float) -> float:
    return max(MARGIN_NATS, MARGIN_SHARE * best)


def state(recording: Recording) -> str:
    """``overfit``, ``miscalibrated`` or ``fit``, by the pool at the end of the run."""
    if above(recording.refined):
        return "overfit"
    return "miscalibrated" if above(recording.raw) else "fit"


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
    return label in ({"miscalibrated", "memorizing"} if found == "miscalibrated" else OVERFIT)
