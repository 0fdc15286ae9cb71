"""Bias: label rates that differ by slice or by identity term, and effects of swapped terms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.core.wording import count_phrase, percent_phrase, signed
from holdfast.quality.check import CheckExample, CheckResult, check, has_classes, result
from holdfast.quality.fold_predictions import ContentProbes
from holdfast.quality.identity import SWAPS, TERMS, Bools, contains_any, neutralize, swap_terms
from holdfast.quality.views import Embedded
from holdfast.stats.intervals import fisher, rate_gap, wilson, wilson_by_groups
from holdfast.stats.paired_tests import Difference, paired_t
from holdfast.stats.two_samples import TwoSamples, holm, two_samples

_ALPHA = 0.01
_LEAST_ROWS = 30
_MOST_VALUES = 12
_MIN_GAP = 0.1
# Above this share the column leaks the label, which another check reports.
_LEAKAGE_SHARE = 0.95
_MIN_UNEXPLAINED_GAP = 0.05
_MIN_CHANGE = 0.02
_MAX_SWAP_ROWS = 120
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class _RateGap:
    """The label rates of a slice: of its ``rows`` [n], ``hits`` of ``size`` are of the class
    ``label``; of all other rows ``other_hits`` of ``other_size``. ``by_groups`` compares the two
    where rows come in groups."""

    name: str
    rows: Bools
    label: int
    hits: int
    size: int
    other_hits: int
    other_size: int
    by_groups: TwoSamples | None = None

    @property
    def gap(self) -> float:
        return self.hits / self.size - self.other_hits / self.other_size

    @property
    def p_value(self) -> float:
        """The p-value of Fisher's exact test; in groups, that of their test where it is larger."""
        p = fisher(self.hits, self.size, self.other_hits, self.other_size)
        if self.by_groups is None:
            return p
        # Without a test (few groups) nothing is shown.
        return max(p, 1.0 if self.by_groups.why else self.by_groups.p_value)

    @property
    def limits(self) -> tuple[float, float]:
        """Newcombe's limits of the gap; in groups, those of their test."""
        if self.by_groups is None:
            return rate_gap(self.hits, self.size, self.other_hits, self.other_size)
        return self.by_groups.low, self.by_groups.high


@check(
    Embedded,
    cannot_see="Why the rates differ, and slices that no column names.",
    error_rate="At most 1 % false positives over all columns and classes, by design (Fisher's "
    "exact test, with a group column also a t-test over groups; Holm).",
    applies_to=has_classes,
)
def label_slices(view: Embedded) -> CheckResult | None:
    """Reports slices (rows with one value of another column) whose label rate differs from that of
    the other rows by 10 points or more. It gives Wilson's interval for each rate and Newcombe's for
    the gap. Each comparison uses Fisher's exact test, adjusted over all comparisons by Holm's
    method at 1 %. With a group column, a t-test over groups must reject too.

    It reads columns of 2 to 12 values and values of at least 30 rows. It skips a slice of which 95
    % have one label: that is leakage, which another check reports. Score: the largest gap.
    """
    slices = []
    for name in view.rows.other_columns.names:
        values = np.array(view.rows.other_columns[name], dtype=object)
        distinct, counts = np.unique(values[values != None].astype(str), return_counts=True)  # noqa: E711
        large = distinct[counts >= _LEAST_ROWS]
        if len(large) >= 2 and len(distinct) <= _MOST_VALUES:
            # With two values, the second mirrors the first.
            shown = large[:1] if len(distinct) == 2 else large
            slices += [(f"{name} {str(value)!r}", values == value) for value in shown]
    return _rate_differences(view, slices)


@check(
    Embedded,
    cannot_see="Groups that are not in its list of English words, and rows about a group that do "
    "not name it.",
    error_rate="At most 1 % false positives over all words and classes, by design (Holm). Reports "
    "nothing on CR.",
    applies_to=has_classes,
)
def identity_rates(view: Embedded) -> CheckResult | None:
    """Reports identity terms (``quality/identity.py``) whose rows have other label rates than the
    rest, by the rule of ``label_slices``, beyond what the content explains. To measure that, it
    replaces the term by *person* and predicts the rows with an out-of-fold probe. The observed
    rates must still differ from the predicted ones by 5 points (t test of the paired differences,
    Holm, 1 %). Score: the largest gap."""
    slices = [
        (term, rows)
        for terms in TERMS.values()
        for term, forms in terms.items()
        if (rows := contains_any(view.rows.texts, forms)).sum() >= _LEAST_ROWS
    ]
    return _rate_differences(view, slices, given_content=True)


@check(
    Embedded,
    cannot_see="The bias of the fine-tuned model, and swaps that are not in its list.",
    error_rate="At most 1 % false positives over all swaps and classes, by design (Holm). Reports "
    "nothing on 5 small tables with random labels.",
    applies_to=has_classes,
)
def start_model_bias(view: Embedded) -> CheckResult | None:
    """Reports word swaps (he → she, …) that change the predictions of a linear probe on the base
    model's vectors. The change is the mean difference of a class's probability from the first word
    of a pair to the second, over the rows that contain one of them. Each row is predicted by an
    out-of-fold probe.

    It reports changes of 2 points or more that random labels would not produce. Any probe depends a
    little on every direction by chance. So the test asks how much weight the labels put on this
    direction (``ContentProbes.direction_p_values``), adjusted over all swaps and classes (Holm,
    1 %). The interval is that of the mean over the rows. It uses at most 120 rows per swap. Score:
    the largest change."""
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
    # With two classes, one falls as the other rises.
    if len(classes) == 2:
        significant = [one for one in significant if one[2] == 1] or significant
    shown = "; ".join(
        f"{name.replace(' and ', ' → ')} changes the probability of {classes[label]!r} by "
        f"{_points(_mean_test(change))} over {count_phrase(len(change), 'row')}"
        for _, name, label, change in significant[:_SHOWN]
    )
    return result(
        (),
        f"a linear probe on the vectors of {view.encoder} changes its predictions if only an "
        f"identity term is swapped: {shown}",
        "Compare the fine-tuned model's predictions on such pairs before it decides about people. "
        "More rows of both groups under each label reduce the difference.",
        score=min(1.0, significant[0][0]),
        severity="info",
        count=len({name for _, name, _, _ in significant}),
    )


def _rate_differences(
    view: Embedded, slices: list[tuple[str, Bools]], given_content: bool = False
) -> CheckResult | None:
    labels, classes, groups = view.rows.labels, view.rows.table.classes, view.rows.group_codes
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
        if groups is not None:
            known = one.rows & (labels >= 0)
            low, high = wilson_by_groups(labels[known] == one.label, groups[known])
        sentences.append(
            f"{one.name}: {percent_phrase(one.hits / one.size)} of "
            f"{count_phrase(one.size, 'row')} are "
            f"{classes[one.label]!r} (95 % CI {percent_phrase(low)} to {percent_phrase(high)}), "
            f"{percent_phrase(one.other_hits / one.other_size)} of the other rows, a gap of "
            f"{_points_with_limits(one.gap, *one.limits)}"
            f"{unexplained.get((one.name, one.label), '')}"
        )
        of_class = np.flatnonzero(one.rows & (labels == one.label))
        example = [*of_class, *np.flatnonzero(one.rows)][0]
        examples.append(CheckExample(int(view.rows.ids[example]), one.name))
    return result(
        (),
        f"label rates differ: {'; '.join(sentences)}",
        "If the rates do not differ in the application, collect rows of the rarer kind. Report the "
        "score of each slice separately.",
        score=abs(significant[0].gap),
        severity="info",
        count=len({one.name for one in significant}),
        examples=examples,
    )


def _rate_gaps(
    view: Embedded, slices: list[tuple[str, Bools]], given_content: bool
) -> list[_RateGap]:
    """The gap between each slice and the other rows, by class, where both have enough rows. Slices
    that leak the label are omitted unless ``given_content``."""
    labels, classes, groups = view.rows.labels, view.rows.table.classes, view.rows.group_codes
    labelled = labels >= 0
    gaps: list[_RateGap] = []
    for name, rows in slices:
        here, there = rows & labelled, ~rows & labelled
        inside, outside = labels[here], labels[there]
        if min(len(inside), len(outside)) < _LEAST_ROWS:
            continue
        if not given_content and np.bincount(inside).max() >= _LEAKAGE_SHARE * len(inside):
            continue
        # With two classes, the second one is enough.
        for label in range(len(classes) == 2, len(classes)):
            hits, other_hits = int((inside == label).sum()), int((outside == label).sum())
            by_groups = None
            if groups is not None:
                pair = (outside == label).astype(np.float64), (inside == label).astype(np.float64)
                by_groups = two_samples(*pair, groups[there], groups[here])
            gaps.append(
                _RateGap(name, rows, label, hits, len(inside), other_hits, len(outside), by_groups)
            )
    return gaps


def _unexplained_by_content(view: Embedded, gaps: list[_RateGap]) -> dict[tuple[str, int], str]:
    """The part of these gaps that the content does not explain, as a phrase per term and class."""
    if not gaps or (probes := view.content_probes) is None:
        return {}
    forms = {term: forms for terms in TERMS.values() for term, forms in terms.items()}
    masked: dict[str, tuple[Ints, Floats]] = {}
    groups, tests = view.rows.group_codes, []
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
        residual = (view.rows.labels[rows] == one.label) - probabilities[:, one.label]
        tests.append(_mean_test(residual, None if groups is None else groups[rows]))
    # Without spread, or with one group, nothing is shown.
    p_values = [one.p_value if one.low < one.high else 1.0 for one in tests]
    return {
        (one.name, one.label): f", of which the content does not explain {_points(test)}"
        for one, test, p in zip(gaps, tests, holm(np.array(p_values)), strict=True)
        if p <= _ALPHA and abs(test.value) >= _MIN_UNEXPLAINED_GAP
    }


def _probability_changes(
    view: Embedded, probes: ContentProbes, pairs: tuple[tuple[str, str], ...]
) -> list[tuple[Floats, float]]:
    """For each class the change [rows] of its probability from the first words of the pairs to the
    second, and the p-value of the change; empty if too few rows contain one of the words."""
    texts, known = view.rows.texts, view.rows.labels >= 0
    first = contains_any(texts, [a for a, _ in pairs]) & known
    second = contains_any(texts, [b for _, b in pairs]) & known
    # A row with both words would change in both directions.
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


def _mean_test(values: Floats, groups: Ints | None = None) -> Difference:
    return paired_t(values, np.zeros(len(values)), groups=groups)


def _points(one: Difference) -> str:
    return _points_with_limits(one.value, one.low, one.high)


def _points_with_limits(value: float, low: float, high: float) -> str:
    return f"{signed(100 * value)} points (95 % CI {signed(100 * low)} to {signed(100 * high)})"
