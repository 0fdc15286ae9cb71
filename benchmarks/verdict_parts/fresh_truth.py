"""What is true of a run of ``fresh_verdicts.py``, and which labels are right of it: written down
before any verdict was read.

Truth is what a person sees on some 400 unseen rows (``pool``), measured at each evaluation, by raw
losses and shares of correct predictions at the last evaluation:

- **overfit**: 95 % or more of the training sample is correct, and the accuracy gap (training sample
  less unseen rows) is above 10 points; or the unseen loss is above its lowest by more than 10 % of
  it (0.05 at least) and the unseen accuracy is 5 points below its highest.
- **miscalibrated**: such a rise, but the predictions hold: neither that gap nor that fall.
- **sound**: the unseen loss is within 5 % (0.02 at least) of its lowest, and the gap is at most 10
  points.
- **neither**: between the two.

Overfit is *named* by ``overfit`` or ``memorizing``. A sound run is *accused* by any label of a
harm. A planted fault is accepted by the labels below, or by any label whose cause names it:

- ``rate /30``, ``short``: the run ended before it learned: ``underfit`` or ``learning``.
- ``rate x100``: ``diverging``.
- ``noise 35``: ``noisy_labels``; a run that is truly overfit too, to wrong labels, may also be
  called that.
- ``copies 100``, ``copies 50``: so many of the validation rows stand in training: ``leaking``.
- ``shuffled``: labels drawn without regard to the texts, learned for many epochs: ``overfit``,
  ``memorizing``, or ``noisy_labels``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMED = ("overfit", "memorizing")
ACCUSED = (*NAMED, "leaking", "noisy_labels", "diverging")
ACCEPTED: dict[str, tuple[str, ...]] = {
    "rate /30": ("underfit", "learning"),
    "short": ("underfit", "learning"),
    "rate x100": ("diverging",),
    "noise 35": ("noisy_labels",),
    "copies 100": ("leaking",),
    "copies 50": ("leaking",),
    "shuffled": (*NAMED, "noisy_labels"),
}
CAUSES = {
    "rate /30": "too low",
    "rate x100": "too high",
    "noise 35": "label",
    "copies 100": "copies",
    "copies 50": "copies",
}
KNOWN, GAP, FELL = 0.95, 0.10, 0.05
CLEAR_SHARE, CLEAR = 0.10, 0.05
SMALL_SHARE, SMALL = 0.05, 0.02


def truth_of(result: Mapping[str, Any]) -> str:
    """``overfit``, ``miscalibrated``, ``sound`` or ``neither``."""
    rise = result["pool_loss"] - result["pool_least"]
    gap = result["train_accuracy"] - result["pool_accuracy"]
    if result["train_accuracy"] >= KNOWN:
        if gap > GAP:
            return "overfit"
        if rise > max(CLEAR, CLEAR_SHARE * result["pool_least"]):
            fell = result["pool_best_accuracy"] - result["pool_accuracy"]
            return "overfit" if fell > FELL else "miscalibrated"
    # A loss that is no number is no sound one.
    if rise <= max(SMALL, SMALL_SHARE * result["pool_least"]) and gap <= GAP:
        return "sound"
    return "neither"


def is_named(fault: str, result: Mapping[str, Any]) -> bool:
    """Whether a verdict is right of a run with a planted fault."""
    if result["label"] in ACCEPTED[fault]:
        return True
    if fault in CAUSES and CAUSES[fault] in (result["cause"] or ""):
        return True
    both = fault == "noise 35" and truth_of(result) == "overfit"
    return both and result["label"] in NAMED
