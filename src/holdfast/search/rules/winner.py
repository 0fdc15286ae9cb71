"""Which setting a search takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Floats, Ints
from holdfast.core.wording import counted, p_words
from holdfast.search.rules.shrinkage import Shrunken, scores_of, shrunken
from holdfast.stats.many import weighted_holm
from holdfast.stats.paired_tests import paired_t

# A search takes another setting than a default as good as any other with this chance at most,
# however many trials it has.
LEVEL = 0.05
# By so much of the score a cheaper setting may be expected to be worse, and a gain below it is not
# worth another setting. It costs less than a tenth of a point.
WITHIN = 0.002


@dataclass(frozen=True, slots=True)
class Winner:
    """The setting that a search takes: its ``key``, and ``because`` in a sentence.

    ``noise``: no trial is shown to be better than the default, or by too little to count; the
    default is taken. ``looked_best`` is the trial of the largest expected ``gain`` over the
    default, in shares of the score, and ``p_value`` that of "it is not better than the default",
    ``p_average`` that of "the average trial is not" (both corrected; 1 for the default itself).
    """

    key: str
    because: str
    noise: bool
    looked_best: str
    gain: float
    p_value: float
    p_average: float


def winner(
    losses: Mapping[str, Floats],
    correct: Mapping[str, Floats] | None,
    costs: Mapping[str, float],
    default: str,
    *,
    level: float = LEVEL,
    units: Ints | None = None,
) -> Winner:
    """The trial with the largest gain over the default, as ``shrunken`` has it, of those that are
    shown to be better than the default; the default where none is.

    Shown is what one-sided paired t-tests of the probability of the label say at ``level``, after
    a correction for all of them (``p_values``): of the trial itself, or of the average trial. A
    default that is worse than the average trial is a bad one, which many trials show with fewer
    rows than any single one; of a good default neither is true. The trial must also predict no
    fewer validation rows correctly and be expected to gain more than 0.2 points. The default was
    measured on many sets and these rows are few, so the doubt is on the trials' side. Of the
    trials that may replace it, those that are expected to be at most 0.2 points worse than the best
    of them take its place, the cheapest first.

    Parameters
    ----------
    losses : of each trial [n] in nats, the same validation rows in the same order.
    correct : of each trial [n], 1 where a row is right. Without them only the probability counts.
    costs : of each trial, in any unit (updates, seconds), above 0.
    default : the trial that is taken where nothing says otherwise.
    level : the chance, at most, to leave a default that no trial is better than; 1 asks for no
        evidence, where the trial compared with is no default.
    units : [n] of each row, whole numbers: rows of one unit (a group, copies) are no evidence of
        their own. Without them each row is.

    Raises ``Defect`` for rows that differ between trials, a default that is no trial, and a trial
    without a cost.
    """
    _check(losses, costs)
    scores = scores_of(losses)
    found = shrunken(scores, default, units)
    best, base = int(np.argmax(found.mean)), found.at(default)
    if best == base:
        return Winner(default, _default_stays(found, losses), False, default, 0.0, 1.0, 1.0)
    p, average = p_values(scores, default, units)
    answers = _more_correct(losses, correct, default)
    shown = (np.minimum(p, average) <= level) & (answers >= 0) & (found.mean > WITHIN)
    shown[base] = False
    top, gain = found.keys[best], float(found.mean[best])
    if not shown.any():
        because = _not_shown(found, best, default, len(losses[default]), p, average, answers, level)
        return Winner(default, because, True, top, gain, float(p[best]), average)
    lead = int(np.argmax(np.where(shown, found.mean, -np.inf)))
    near = shown & (found.mean[lead] - found.mean <= WITHIN)
    price = np.array([costs[key] for key in found.keys])
    taken = int(np.argmin(np.where(near, price, np.inf)))
    of_answers = None if correct is None else answers
    because = _taken(found, taken, lead, default, p, average, of_answers)
    return Winner(found.keys[taken], because, False, top, gain, float(p[best]), average)


def p_values(
    scores: Mapping[str, Floats], default: str, units: Ints | None = None
) -> tuple[Floats, float]:
    """Of each trial [K] the p-value of "not better than the default", and that of "the average
    trial is not": one-sided paired t-tests of the ``scores`` by ``units``, corrected together.

    Holm's procedure with weights: half of the level is for the average of the K − 1 trials, half
    for each of them in equal parts. So a default that no trial is better than, of which the average
    trial is no better either, is shown to be worse with the probability ``level`` at most. A single
    trial is its own average. The p-value is 1 for the default itself, and for all where one row
    shows nothing.
    """
    others = [key for key in scores if key != default]
    if not others:
        return np.ones(len(scores)), 1.0
    rows = [scores[key] for key in others]
    rows += [np.mean(rows, axis=0)] if len(others) > 1 else []
    raw = np.array([1 - paired_t(one, scores[default], groups=units).above for one in rows])
    weights = np.ones(len(rows))
    weights[len(others) :] = len(others)
    found = weighted_holm(np.nan_to_num(raw, nan=1.0), weights)
    of = dict(zip(others, found[: len(others)], strict=True))
    return np.array([of.get(key, 1.0) for key in scores]), float(found[-1])


def _check(losses: Mapping[str, Floats], costs: Mapping[str, float]) -> None:
    for key in losses:
        if not costs.get(key, 0.0) > 0:
            raise Defect(
                "the cost of a trial", "must be there and above 0", f"{key}: {costs.get(key)}"
            )


def _more_correct(
    losses: Mapping[str, Floats], correct: Mapping[str, Floats] | None, default: str
) -> Floats:
    """By what share of the rows each trial [K] predicts more correctly than the default; 0 where a
    row is not right or wrong."""
    if correct is None:
        return np.zeros(len(losses))
    return np.array([float(np.mean(correct[key]) - np.mean(correct[default])) for key in losses])


def _default_stays(found: Shrunken, losses: Mapping[str, Floats]) -> str:
    trials = len(found.keys) - 1
    if not trials:
        return "no other setting was tried"
    return (
        f"of {counted(trials, 'other setting')} none is expected to be better than it, by "
        f"{counted(len(next(iter(losses.values()))), 'validation row')}"
    )


def _not_shown(
    found: Shrunken,
    best: int,
    default: str,
    rows: int,
    p: Floats,
    average: float,
    answers: Floats,
    level: float,
) -> str:
    """Why the trial of the largest expected gain is not taken."""
    top, gain = found.keys[best], float(found.mean[best])
    if min(p[best], average) > level:
        return (
            f"{top} is expected to be {100 * gain:.1f} points better, but "
            f"{counted(rows, 'validation row')} do not show that it is better than "
            f"{default} ({_test(found, p[best])}), so {default} is kept"
        )
    evidence = _evidence(found, best, default, p, average)
    if answers[best] < 0:
        return (
            f"{top} gives the labels more probability ({evidence}), but predicts "
            f"{-100 * answers[best]:.1f} points fewer of the validation rows correctly, so "
            f"{default} is kept"
        )
    return (
        f"{top} is better than {default} ({evidence}), but by an expected "
        f"{100 * gain:.2f} points, and less than {100 * WITHIN:g} is not worth another setting, so "
        f"{default} is kept"
    )


def _evidence(found: Shrunken, place: int, default: str, p: Floats, average: float) -> str:
    """The test by which a trial is better than the default."""
    if p[place] <= average:
        return _test(found, p[place])
    return f"{default} is worse than the average trial: {_test(found, average)}"


def _test(found: Shrunken, p_value: float) -> str:
    """A p-value with its test."""
    trials = counted(len(found.keys) - 1, "trial")
    return p_words(p_value, f"paired t-test, Holm's correction for {trials}")


def _taken(
    found: Shrunken,
    taken: int,
    lead: int,
    default: str,
    p: Floats,
    average: float,
    answers: Floats | None,
) -> str:
    told = (
        f"it gives the labels {100 * found.measured[taken]:+.1f} points more probability than "
        f"{default} ({_evidence(found, taken, default, p, average)}), of which "
        f"{100 * found.mean[taken]:+.1f} are expected to last"
    )
    if answers is not None:
        told += f"; {100 * answers[taken]:+.1f} points more of the validation rows are correct"
    if taken != lead:
        told += (
            f"; {found.keys[lead]} is expected to be better by less than {100 * WITHIN:g} points, "
            "and costs more"
        )
    return told
