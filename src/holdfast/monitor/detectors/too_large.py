"""Too large a model: far more learns than the rows can hold in place."""

from __future__ import annotations

from holdfast.core.records import Label
from holdfast.monitor import limits
from holdfast.monitor.detectors import DETECTORS
from holdfast.monitor.history import History
from holdfast.monitor.remedies import remedies_for
from holdfast.monitor.symptom import Symptom, item

CAUSE = "too large a model for these rows"
EXPLAINS: tuple[Label, ...] = ("overfit", "memorizing", "diverging", "inconclusive")


def too_large(history: History) -> Symptom | None:
    """Speaks as a cause where more than 40 million parameters learn, and more than 150,000 for each
    training row: the line above which full fine-tuning ends badly by chance (2006.04884)."""
    known = history.run_facts
    if not known.trainable or not known.train_rows or not history.snapshots:
        return None
    a_row = known.trainable / known.train_rows
    if known.trainable <= limits.SMALL or a_row <= limits.MOST_A_ROW:
        return None
    return Symptom(
        because=f"there are {a_row:,.0f} trainable parameters for each training row",
        cause=CAUSE,
        blame=min(0.9, 0.5 + 0.1 * a_row / limits.MOST_A_ROW),
        explains=EXPLAINS,
        evidence=(item("learning_parameters_a_row", a_row, None, float(limits.MOST_A_ROW)),),
        remedies=remedies_for("too large"),
    )


DETECTORS.add("too_large", too_large)
