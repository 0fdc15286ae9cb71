"""Rows whose label the other rows speak against."""

from __future__ import annotations

import numpy as np

from holdfast.core.records import Severity
from holdfast.core.wording import counted
from holdfast.quality.check import CheckExample, CheckResult, check, result, with_classes
from holdfast.quality.label_ranking import rank_labels
from holdfast.quality.views import Embedded

SHOWN = 12
# Of labels that are contradicted no more often than doubt explains, so many that have so little of
# the probability are named.
LIKELIEST, HARDLY = 3, 0.95
# A label that the other rows give less than one chance in ten, with another above one half.
DOUBTED, LIKELIER = 0.9, 0.5
LEAST = 0.005


@check(
    Embedded,
    cannot_see="Wrong labels that are consistent, and those of rows like no other.",
    error_rate="With 10 % of the labels exchanged at 1,600 rows the average precision is "
    "0.96 on BANKING77, 0.89 on TREC, 0.68 on CR and 0.45 on MR; on BANKING77 and TREC the "
    "share that is stated was within 4 points (8 at 5 %), on CR and MR none is.",
    holds_for=with_classes,
)
def label_problems(view: Embedded) -> CheckResult | None:
    """Reports the rows whose label gets less than a tenth of the probability, and another class
    more than half, from fits that had not seen the row. The share of those rows that is wrong is
    stated where the data say it (``rank_labels``), and the finding is then a warning; else it is a
    ranking only, and of labels that are contradicted no more often than doubt explains (the 90 %
    interval of the share of wrong ones reaches below 0.5 %) it has the first three of less than a
    twentieth. Score: the estimated share of wrong labels."""
    if view.answers is None:
        return None
    ranking = rank_labels(view.answers)
    likelier = np.exp(view.answers.log_p[ranking.order].max(axis=1))
    other = ranking.suggested != ranking.given
    often = ranking.lapse.low >= LEAST
    least = DOUBTED if often else HARDLY
    named = np.flatnonzero((ranking.score >= least) & (likelier >= LIKELIER) & other)
    if not len(named):
        return None
    named = named if often else named[:LIKELIEST]
    ids, classes = view.rows.ids, view.rows.table.classes
    examples = [
        CheckExample(
            int(ids[ranking.order[at]]),
            f"its label {classes[ranking.given[at]]!r} has a probability of "
            f"{1 - ranking.score[at]:.2g} by the other rows, {classes[ranking.suggested[at]]!r} "
            f"of {likelier[at]:.2g}",
        )
        for at in named[:SHOWN]
    ]
    severity: Severity = "info"
    precision, lapse = ranking.precision(len(named)), ranking.lapse
    because = f"{counted(len(named), 'row')} whose label the other rows contradict"
    if not often:
        rows = "; ".join(f"row {one.row}: {one.note}" for one in examples)
        because = (
            f"of {counted(len(ranking.order), 'label')} these are the likeliest to be wrong "
            f"({rows}); no more labels are contradicted by the other rows than doubt explains, so "
            "they may all be right"
        )
    elif precision is None:
        because += (
            "; a ranking only: these rows do not tell what is wrong from what is hard, so "
            "no share of wrong ones can be stated"
        )
    else:
        severity = "warn"
        because += (
            f", of which {precision:.0%} are expected to be wrong; of all labels "
            f"{lapse.rate:.1%} ({lapse.low:.1%}–{lapse.high:.1%})"
        )
    return result(
        ids[ranking.order[named]],
        because,
        "Look at them, the first ones first, and correct those that are wrong: label_issues of "
        "--json has every row in this order. Nothing is changed for you.",
        score=lapse.rate,
        severity=severity,
        examples=examples,
    )
