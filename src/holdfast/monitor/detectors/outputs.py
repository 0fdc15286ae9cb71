"""Outputs: what a generating model writes repeats training answers, its source, or itself."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.core.records import Label
from holdfast.monitor import limits
from holdfast.monitor.detectors import DETECTORS
from holdfast.monitor.history import History
from holdfast.monitor.remedies import remedies_for
from holdfast.monitor.symptom import Symptom, item
from holdfast.stats.intervals import wilson

BY_HEART = "answers of training rows are written word for word"
COPYING = "it copies its source instead of answering"
LOOPING = "its texts repeat themselves"
COLLAPSE = "its texts collapse to one answer"
EXPLAINS: tuple[Label, ...] = ("underfit", "overfit", "memorizing", "diverging", "inconclusive")
# What is counted, in the order in which it is named when several are frequent.
FAULTS = (
    ("wrong_training_answer", BY_HEART),
    ("collapsed", COLLAPSE),
    ("repetition", LOOPING),
    ("source_copied", COPYING),
)


def outputs(history: History) -> Symptom | None:
    """Reads the shares of the last snapshot that has any, of validation rows and perhaps of train
    rows; of a run by an older version, those of its test rows where it has none of validation.

    The first fault that a fifth of the texts on validation rows have (of copies of the source:
    half, since a summary may quote) decides. Training answers on rows that are not theirs are
    ``memorizing``; a text that loops, collapses or copies the source speaks as a cause. Where the
    train rows show it as often, it is how the model writes and not what it has learned by heart.
    With the number of texts (``n``) the share has an interval, whose lower limit must then lie
    above half of the line.
    """
    shares = next((s.outputs for s in reversed(history.snapshots) if s.outputs), None) or {}
    side = "valid" if shares.get("valid") else "test"
    if not shares.get(side):
        return None
    unseen, train = shares[side], shares.get("train", {})
    frequent = ((name, cause) for name, cause in FAULTS if _is_frequent(unseen, name))
    name, cause = next(frequent, ("", ""))
    if not name:
        return None
    low, high = _limits(unseen, name)
    evidence = [item(f"{side}_share_{name}", unseen[name], low, high, history.now)]
    if name in train:
        evidence.append(item(f"train_share_{name}", train[name], step=history.now))
    by_heart = cause == BY_HEART
    return Symptom(
        because=f"{unseen[name]:.0%} of the texts written for {side} rows: {cause}",
        strength=0.9 if by_heart else 0.0,
        label="memorizing" if by_heart else None,
        cause=cause,
        blame=0.85,
        explains=EXPLAINS,
        evidence=tuple(evidence),
        remedies=remedies_for("repeating" if cause == LOOPING else "copying"),
    )


def _is_frequent(shares: Mapping[str, float], name: str) -> bool:
    """Whether a share reaches the line, by its interval too where the number is known."""
    line = limits.COPIED if name == "source_copied" else limits.REPEATS
    low, _ = _limits(shares, name)
    return shares.get(name, 0.0) >= line and (low is None or low >= line / 2)


def _limits(shares: Mapping[str, float], name: str) -> tuple[float | None, float | None]:
    """Wilson's 95 % limits of a share, where the number of texts is known."""
    value, n = shares.get(name, 0.0), int(shares.get("n", 0))
    return wilson(value * n, n) if n else (None, None)


DETECTORS.add("outputs", outputs)
