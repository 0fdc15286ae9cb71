"""Labels that depend on who a row is about, or where it is from, more than on what it says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.core.wording import count_phrase
from holdfast.quality.check import CheckExample, CheckResult, check, has_classes, result
from holdfast.quality.fold_predictions import ContentProbes
from holdfast.quality.identity import SWAPS, TERMS, Bools, contains_any, neutralize, swap_terms
from holdfast.quality.views import Embedded
from holdfast.stats.intervals import rate_gap, wilson
from holdfast.stats.two_samples import holm

_ALPHA = 0.01
_LEAST_ROWS = 30
_MOST_VALUES = 12
_MIN_GAP = 0.1
# Beyond this a column says what the label is, which is another finding.
_LEAKAGE_SHARE = 0.95
_MIN_UNEXPLAINED_GAP = 0.05
_MIN_CHANGE = 0.02
_MAX_SWAP_ROWS = 120
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class _RateGap:
    """Of the ``rows`` [n] that have ``name`` in common ``hits`` of ``size`` are of the class
    ``label``; of all others ``other_hits`` of ``other_size``."""

    name: str
    rows: Bools
    label: int
    hits: int
    size: int
    other_hits: int
    other_size: int

    @property
    def gap(self) -> float:
        return self.hits / self.size - self.other_hits / self.other_size

    @property
    def p_value(self) -> float:
        """The p-value of Fisher's exact test."""
        from scipy.stats import fisher_exact

        counts = (self.hits, self.size), (self.other_hits, self.other_size)
        return float(fisher_exact(np.array([[a, n - a] for a, n in counts])).pvalue)


@check(
    Embedded,
    cannot_see="Why the rates differ, and slices that no column names.",
    error_rate="By design at most 1 % over all columns and classes (Fisher, Holm).",
    applies_to=has_classes,
)
def label_slices(view: Embedded) -> CheckResult | None:
    """Reports slices, by the value of a side column, whose label rates differ from the other rows'
    by 10 points or more: rates with Wilson's limits, the gap with Newcombe's, each question at
    Fisher's exact test, adjusted for all of them by Holm's method at 1 %.

    Columns of 2 to 12 values of at least 30 rows; one whose value names the label for 95 % of its
    rows gives it away, which is another finding. Score: the largest gap.
    """
    slices = []
    for name in view.rows.other_columns.names:
        values = np.array(view.rows.other_columns[name], dtype=object)
        distinct, counts = np.unique(values[values != None].astype(str), return_counts=True)  # noqa: E711
        large = distinct[counts >= _LEAST_ROWS]
        if len(large) >= 2 and len(distinct) <= _MOST_VALUES:
            # Of two values the second says what the first does.
            shown = large[:1] if len(distinct) == 2 else large
            slices += [(f"{name} {str(value)!r}", values == value) for value in shown]
    return _rate_differences(view, slices)


@check(
    Embedded,
    cannot_see="Groups that the list of words does not name, in languages other than English, "
    "or that rows are about without a word of it.",
    error_rate="By design at most 1 % over all words and classes (Holm); none on CR.",
    applies_to=has_classes,
)
def identity_rates(view: Embedded) -> CheckResult | None:
    """Reports words for who somebody is (``quality/identity.py``) whose rows have other label
    rates than the rest, by the rule of ``label_slices``, and more so than the rows' content
    explains: with the word replaced by *person* a probe that was fitted on other rows expects
    rates that are still 5 points away, by a t test of the paired differences (Holm, 1 %).
    Score: the largest gap."""
    slices = [
        (term, rows)
        for terms in TERMS.values()
        for term, forms in terms.items()
        if (rows := contains_any(view.rows.texts, forms)).sum() >= _LEAST_ROWS
    ]
    return _rate_differences(view, slices, given_content=True)


@check(
    Embedded,
    cannot_see="What the model makes of it once it is tuned, and swaps that are not listed.",
    error_rate="By design at most 1 % over all swaps and classes (Holm); none in 5 small "
    "tables with labels drawn at random.",
    applies_to=has_classes,
)
def start_model_bias(view: Embedded) -> CheckResult | None:
    """Reports swaps of one word for its counterpart (he and she, …) that alone move what a linear
    probe on the start model's vectors answers: the mean change of a class's probability over the
    rows that hold such a word, each by a probe fitted without the row, from the first word of a
    pair to the second.

    Reported are 2 points or more that another draw of the labels would not bring about: a probe
    leans on every direction a little, by chance, so the test is of what the labels put on this one
    (``ContentProbes.direction_p_values``), adjusted for all swaps and classes (Holm, 1 %); the
    interval is that of the mean over the rows. At most 120 rows a swap. Score: the largest
    change."""
    probes = view.content_probes
    if probes is None:
        return None
    changes = [
        (name, label, change, p)
        for name, pairs in SWAPS.items()
        for label, (change, p) in enumerate(_probability_changes(view, probes, pairs))
    ]
    if not changes:
        return None
    adjusted = holm(np.array([p for *_, p in changes]))
    significant = [
        (abs(float(change.mean())), name, label, change)
        for (name, label, change, _), p in zip(changes, adjusted, strict=True)
        if p <= _ALPHA and abs(float(change.mean())) >= _MIN_CHANGE
    ]
    if not significant:
        return None
    significant.sort(key=lambda one: (-one[0], one[1], one[2]))
    classes = view.rows.table.classes
    # Of two classes one falls as the other rises.
    if len(classes) == 2:
        significant = [one for one in significant if one[2] == 1] or significant
    shown = "; ".join(
        f"{name.replace(' and ', ' → ')} moves {classes[label]!r} by "
        f"{_points_with_limits(*_mean_limits(change))} over {count_phrase(len(change), 'row')}"
        for _, name, label, change in significant[:_SHOWN]
    )
    return result(
        (),
        f"a probe on {view.encoder} answers otherwise when only a word for a person is "
        f"swapped: {shown}",
        "Compare the tuned model's answers on such pairs before it decides about people; more "
        "rows of both kinds under each label take the difference away.",
        score=min(1.0, significant[0][0]),
        severity="info",
        count=len({name for _, name, _, _ in significant}),
    )


def _rate_differences(
    view: Embedded, slices: list[tuple[str, Bools]], given_content: bool = False
) -> CheckResult | None:
    labels, classes = view.rows.labels, view.rows.table.classes
    gaps = _rate_gaps(view, slices, given_content)
    if not gaps:
        return None
    adjusted = holm(np.array([one.p_value for one in gaps]))
    significant = [
        one
        for one, p in zip(gaps, adjusted, strict=True)
        if p <= _ALPHA and abs(one.gap) >= _MIN_GAP
    ]
    unexplained = _unexplained_by_content(view, significant) if given_content else {}
    significant = [
        one for one in significant if not given_content or (one.name, one.label) in unexplained
    ]
    if not significant:
        return None
    significant.sort(key=lambda one: (-abs(one.gap), one.name))
    sentences, examples = [], []
    for one in significant[:_SHOWN]:
        low, high = wilson(one.hits, one.size)
        limits = rate_gap(one.hits, one.size, one.other_hits, one.other_size)
        sentences.append(
            f"{one.name}: {one.hits / one.size:.0%} of {count_phrase(one.size, 'row')} are "
            f"{classes[one.label]!r} ({low:.0%} to {high:.0%}), "
            f"{one.other_hits / one.other_size:.0%} of the others, a gap of "
            f"{_points_with_limits(one.gap, *limits)}{unexplained.get((one.name, one.label), '')}"
        )
        of_class = np.flatnonzero(one.rows & (labels == one.label))
        example = [*of_class, *np.flatnonzero(one.rows)][0]
        examples.append(CheckExample(int(view.rows.ids[example]), one.name))
    return result(
        (),
        f"label rates differ: {'; '.join(sentences)}",
        "If the world is not like that, gather rows of the rarer kind; report the score of "
        "each slice by itself.",
        score=abs(significant[0].gap),
        severity="info",
        count=len({one.name for one in significant}),
        examples=examples,
    )


def _rate_gaps(
    view: Embedded, slices: list[tuple[str, Bools]], given_content: bool
) -> list[_RateGap]:
    """Each slice against the other rows, class by class, where both have rows enough; without those
    slices that give the label away, unless ``given_content``."""
    labels, classes = view.rows.labels, view.rows.table.classes
    labelled = labels >= 0
    gaps: list[_RateGap] = []
    for name, rows in slices:
        inside, outside = labels[rows & labelled], labels[~rows & labelled]
        if min(len(inside), len(outside)) < _LEAST_ROWS:
            continue
        if not given_content and np.bincount(inside).max() >= _LEAKAGE_SHARE * len(inside):
            continue
        # Of two classes the second says it all.
        for label in range(len(classes) == 2, len(classes)):
            hits, other_hits = int((inside == label).sum()), int((outside == label).sum())
            gaps.append(_RateGap(name, rows, label, hits, len(inside), other_hits, len(outside)))
    return gaps


def _unexplained_by_content(view: Embedded, gaps: list[_RateGap]) -> dict[tuple[str, int], str]:
    """What is left of the gaps of these terms when the content is taken off, in words."""
    if not gaps or (probes := view.content_probes) is None:
        return {}
    forms = {term: forms for terms in TERMS.values() for term, forms in terms.items()}
    masked: dict[str, tuple[Ints, Floats]] = {}
    residuals = []
    for one in gaps:
        if one.name not in masked:
            row_positions: Ints = np.flatnonzero(one.rows & (view.rows.labels >= 0))[
                :_MAX_SWAP_ROWS
            ]
            texts = [
                neutralize(view.rows.texts[row], forms[one.name]) for row in row_positions.tolist()
            ]
            masked[one.name] = row_positions, probes.probabilities(row_positions, view.embed(texts))
        rows, probabilities = masked[one.name]
        residuals.append((view.rows.labels[rows] == one.label) - probabilities[:, one.label])
    adjusted = holm(np.array([_t_test(gap) for gap in residuals]))
    return {
        (
            one.name,
            one.label,
        ): f", {_points_with_limits(*_mean_limits(gap))} beyond what its content explains"
        for one, gap, p in zip(gaps, residuals, adjusted, strict=True)
        if p <= _ALPHA and abs(float(gap.mean())) >= _MIN_UNEXPLAINED_GAP
    }


def _probability_changes(
    view: Embedded, probes: ContentProbes, pairs: tuple[tuple[str, str], ...]
) -> list[tuple[Floats, float]]:
    """For each class the change of its probability from the first words of the pairs to the second,
    [rows], and the p-value of a change by chance; nothing where too few rows hold one."""
    texts, known = view.rows.texts, view.rows.labels >= 0
    first = contains_any(texts, [a for a, _ in pairs]) & known
    second = contains_any(texts, [b for _, b in pairs]) & known
    # A row with both would be moved both ways.
    rows: Ints = np.flatnonzero(first ^ second)[:_MAX_SWAP_ROWS]
    if len(rows) < _LEAST_ROWS:
        return []
    swapped_vectors = view.embed([swap_terms(texts[row], pairs) for row in rows.tolist()])
    change = probes.probabilities(rows, swapped_vectors) - probes.probabilities(
        rows, view.vectors[rows]
    )
    sign = np.where(first[rows], 1.0, -1.0)[:, None]
    direction = (sign * (swapped_vectors - view.vectors[rows])).mean(axis=0)
    p_values = probes.direction_p_values(view.vectors, view.rows.labels, direction)
    return list(zip((sign * change).T, p_values.tolist(), strict=True))


def _t_test(values: Floats) -> float:
    from scipy.special import stdtr

    error = float(values.std(ddof=1)) / np.sqrt(len(values))
    if error == 0:
        return 1.0
    return 2 * float(stdtr(len(values) - 1, -abs(float(values.mean())) / error))


def _mean_limits(values: Floats) -> tuple[float, float, float]:
    from scipy.special import stdtrit

    mean, error = float(values.mean()), float(values.std(ddof=1)) / np.sqrt(len(values))
    half = float(stdtrit(len(values) - 1, 0.975)) * error
    return mean, mean - half, mean + half


def _points_with_limits(value: float, low: float, high: float) -> str:
    return f"{100 * value:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
