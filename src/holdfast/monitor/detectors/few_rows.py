"""Too few rows: the linear probe's learning curve still falls where the rows end."""

from __future__ import annotations

from holdfast.core.records import Label
from holdfast.monitor import limits
from holdfast.monitor.detectors import DETECTORS
from holdfast.monitor.history import History
from holdfast.monitor.remedies import remedies_for
from holdfast.monitor.symptom import Symptom, item

CAUSE = "too few rows"
# Not underfit: a run that has not fitted the rows that it has wants no more of them.
EXPLAINS: tuple[Label, ...] = ("overfit", "memorizing", "miscalibrated", "inconclusive")


def few_rows(history: History) -> Symptom | None:
    """Speaks as a cause where the last doubling of its rows took 5 % or more off the validation
    loss of a linear probe on the untouched model: then more rows would go on helping.

    The stronger, the more it took. It measures the rows and not the run, so it needs no step.
    """
    curve = history.run_facts.probe_curve
    if len(curve) < 2 or not history.snapshots:
        return None
    (rows, before), (full, after) = curve[-2], curve[-1]
    # Two parts of one size, where there are very few rows, say nothing of more.
    if not before > 0 or full <= rows:
        return None
    gain = 1 - after / before
    if gain < limits.FEW_ROWS_GAIN:
        return None
    return Symptom(
        because=f"going from {rows} to {full} rows took {gain:.0%} off the loss of a linear probe",
        cause=CAUSE,
        blame=min(0.9, 4 * gain),
        explains=EXPLAINS,
        evidence=(item("probe_loss_gain_of_the_last_doubling", gain), item("train_rows", full)),
        remedies=remedies_for("few rows"),
    )


DETECTORS.add("few_rows", few_rows)
