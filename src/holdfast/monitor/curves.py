"""Verdicts from scalar curves: a foreign log, where nobody kept the losses of single rows.

Read top to bottom, the first line that holds gives the label. Shapes, rises and noise are those of
``curve_shape``.

1. losses stop being numbers and never are again → ``diverging``; so is a training loss that ends
   well above where it began, or has given back half of what it had learned.
2. no validation, or fewer than four evaluations → ``inconclusive``, with what is missing.
3. validation far better than training through the second half, by loss *and* metric → ``leaking``.
4. **the validation loss has risen, by an amount that counts, beyond what its noise may show**:
   more than 5 % of its lowest value, or half of that if it gives back more than an eighth of what
   had been learned → ``overfit``; but ``diverging`` if the training loss rose as well, and where
   the validation metric held: ``overfit`` if that metric is more than 10 points better on the
   training rows, ``memorizing`` if the training loss is below a tenth of the validation loss and
   the metric no longer gains, else ``miscalibrated`` (confidence, not knowledge).
5. a rise that counts but may be noise → ``inconclusive``, with the evaluations that would tell.
6. the training loss is at its floor, validation does not follow and is far from right →
   ``memorizing``.
7. hardly anything was learned, or the run ended while falling as fast as ever → ``underfit``.
8. validation still falls → ``learning``.
9. validation is flat within narrow noise → ``healthy``; within wide noise → ``inconclusive``.

A metric that rises stands in for the validation loss where there is none, as 1 − metric.
``confidence`` is the share of a normal curve below the rise, less the √(2 ln k) that the choice of
the lowest costs, and never more than 0.9 (0.8 without a training loss): from curves alone nobody is
surer. It is 0 for ``inconclusive``. Compared with ``judge``, which pairs the losses of rows, doubt
is wider: points of one run depend on each other, and a running training loss is measured with
dropout on a moving model, which the sentence then says.

The margin of line 4 was chosen on simulated histories (``benchmarks/verdicts.py``), where anything
from 4.6 to 6.6 % gives the same answers.
"""

from __future__ import annotations

from holdfast.core.curves import Curves
from holdfast.core.records import Verdict
from holdfast.monitor import curve_course, curve_rise, curve_trouble
from holdfast.monitor.curve_facts import curve_facts

RULES = (
    curve_trouble.broken, curve_trouble.exploded, curve_trouble.too_little, curve_trouble.leaking,
    curve_rise.risen, curve_rise.perhaps_risen, curve_course.at_the_floor, curve_course.underfit,
    curve_course.learning, curve_course.healthy,
)  # fmt: skip


def judge_curves(curves: Curves) -> Verdict:
    """The verdict on a log, a pure function of its curves."""
    facts = curve_facts(curves)
    for rule in RULES:
        verdict = rule(facts)
        if verdict is not None:
            return verdict
    return curve_course.unclear(facts)
