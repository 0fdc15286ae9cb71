"""Whether more rows would bring more, and about how much."""

from __future__ import annotations

from holdfast.quality.check import CheckResult, check, result, with_classes
from holdfast.quality.growth import growth
from holdfast.quality.views import Embedded

# Rows times classes: beyond, the fits take longer than their answer is worth.
MOST = 100_000
WORTH = 0.01


@check(
    Embedded,
    cannot_see="What rows of a new kind, or a tuned model, would bring; the probe is linear.",
    error_rate="Its 90 % interval held what twice the rows brought in 61 of 64 draws of 200 to "
    "1,600 rows of CR, MR and TREC.",
    holds_for=with_classes,
)
def too_few_rows(view: Embedded) -> CheckResult | None:
    """Reports what twice the rows would bring to a linear probe, where even the low end of the 90 %
    interval is a point of accuracy or more. Silent from 100,000 rows times classes on. Score: the
    gain that is expected."""
    answers, classes = view.answers, len(view.rows.table.classes)
    if answers is None or len(answers.known) * classes > MOST:
        return None
    found = growth(view.probed, view.rows.labels, classes=classes, c=answers.c, seed=view.seed)
    # Nothing is gained above all rows right.
    if found is None or min(found.low, 1 - found.right) < WORTH:
        return None
    n = len(answers.known)
    most = 1 - found.right
    gain, low, high = (100 * min(one, most) for one in (found.gain, found.low, found.high))
    points = f"{gain:.1f} (90 % interval {low:.1f}–{high:.1f})"
    return result(
        (),
        f"a linear probe has an accuracy of {found.right:.1%} with these {n:,} rows; twice as many "
        f"would bring about {points} points",
        "Label more rows before trying other settings; fine-tuning gains from them too.",
        score=min(1.0, found.gain),
        severity="info",
        count=n,
    )
