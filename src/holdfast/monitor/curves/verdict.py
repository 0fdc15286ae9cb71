"""Verdicts from scalar curves: a foreign log, where nobody kept the losses of single rows.

Read top to bottom, the first line that holds gives the label. Shapes, rises and noise are those of
``curve_shape``.

1. losses stop being numbers and never are again → ``diverging``; so is a training loss that ends
   well above where it began, or has given back half of what it had learned.
2. no validation → ``inconclusive``.
3. validation far better than training through the second half, by loss *and* metric → ``leaking``.
4. **the validation loss has risen, by an amount that counts, beyond what its noise may show and
   1.5 times beyond what it has come back from**: more than 5 % of its lowest value, or half of that
   if it gives back more than an eighth of what had been learned. ``diverging`` if the training loss
   rose as well. ``overfit`` where the metric fell since, or no metric is logged, or its gap between
   training rows and validation is above 10 points by its lower bound; ``miscalibrated`` where the
   metric held and the gap's upper bound is below 10; between, ``overfit`` where more than half of
   what the loss had learned is given back, else ``inconclusive``.
5. **no such rise, but the gap's lower bound is above 10 points**: ``overfit`` where validation has
   no loss at all, ``memorizing`` where the training rows are at their floor (95 % right).
6. fewer than four evaluations (since a level shift, if there is one) → ``inconclusive``.
7. a rise that is too small to count or may be noise (but twice its deviation), with the training
   rows at their floor → ``memorizing``.
8. a rise that counts but may be noise, or come back → ``inconclusive``, with what would tell.
9. hardly anything was learned, or the run ended while falling as fast as ever → ``underfit``.
10. validation still falls → ``learning``, with a wide gap named.
11. validation is flat within narrow noise → ``healthy``, likewise; else → ``inconclusive``.

The gap is that of the last look; the sentence adds the best state's, and says whether the answers,
the certainty, or both got worse (``curve_gap``, ``curve_rise``). A metric that rises stands in for
the validation loss where there is none, as 1 − metric. What stands for the loss of the majority
class is the loss with which the log begins. ``confidence`` is the share of a normal curve below the
rise, less the √(2 ln k) that the choice of the lowest costs, and never more than 0.9 (0.8 without a
training loss): from curves alone nobody is surer. It is 0 for ``inconclusive``. Compared with
``judge``, which pairs the losses of rows, doubt is wider: points of one run depend on each other,
and a running training loss is measured with dropout on a moving model, which the sentence says.

The numbers of lines 4 and 5 were chosen on simulated histories (``benchmarks/verdicts.py``).
"""

from __future__ import annotations

from holdfast.core.curves import Curves
from holdfast.core.records import Verdict
from holdfast.monitor.curves import course, rise
from holdfast.monitor.curves.facts import curve_facts

# The first that has an answer gives the verdict: each takes what came before it for excluded.
RULES = (
    course.broken,
    course.exploded,
    course.no_validation,
    course.leaking,
    rise.risen,
    course.parted,
    course.too_little,
    course.at_the_floor,
    rise.perhaps_risen,
    course.underfit,
    course.learning,
    course.healthy,
)


def judge_curves(curves: Curves) -> Verdict:
    """The verdict on a log, a pure function of its curves."""
    facts = curve_facts(curves)
    for rule in RULES:
        verdict = rule(facts)
        if verdict is not None:
            return verdict
    return course.unclear(facts)
