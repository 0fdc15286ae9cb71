"""Scores of generated texts against their references, with intervals: ROUGE, BLEU, chrF, exact
match, and any other text metric that a recipe names.

``metrics/texts.py`` computes the numbers. BLEU and chrF are computed on the whole sample, so a
resample adds the counts of its rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from holdfast.core.records import Estimate, Floats, Ints
from holdfast.metrics.resample import ResampledUnits, Resampling, undefined
from holdfast.metrics.score import rate_estimate
from holdfast.metrics.texts import (
    ROUGES,
    TextMetric,
    Texts,
    need_score_packages,
    rouge_rows,
    sacrebleu_metric,
    same_rows,
)

OVERLAPS = (*ROUGES.values(), "bleu", "chrf", "exact_match")
# Half of the usual number: sacrebleu computes each resample separately.
RESAMPLES = 1000
# The column of sacrebleu's counts for BLEU that has the words of the reference.
REFERENCE_WORDS = 1

__all__ = ["OVERLAPS", "estimate", "need_score_packages", "overlap_scores", "rouge_rows"]


def overlap_scores(
    references: Sequence[str],
    generated: Sequence[str],
    *,
    groups: object = None,
    seed: int = 0,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> dict[str, Estimate]:
    """ROUGE-1/2/L/Lsum, BLEU, chrF and exact match of ``generated`` [n] against ``references`` [n].

    Intervals: BCa over rows, or Student's over ``groups`` [n]; Wilson's for exact match, which
    ignores differences in white space. ROUGE-Lsum uses sentences, which end at ``.``, ``!`` or
    ``?`` before white space. No rows: every number is undefined.
    """
    if not len(references):
        return dict.fromkeys(OVERLAPS, undefined("there are no rows"))
    units = ResampledUnits.by(groups, len(references))
    drawing = Resampling(units, seed, level, resamples)
    rows, foreign = rouge_rows(references, generated)

    def means(weights: Floats) -> Floats:
        spread = units.spread(weights)
        total = spread.sum(axis=1, keepdims=True)
        return np.asarray(spread @ rows / np.where(total > 0, total, np.nan))

    result = drawing.bootstrap(means, "rouge", 300)
    notes = ["words of all scripts, without stemming"] if foreign else []
    scores = {name: drawing.estimate(result, i, *notes) for i, name in enumerate(ROUGES.values())}
    for name in ("bleu", "chrf"):
        scores[name] = _corpus(name, references, generated, drawing)
    scores["exact_match"] = rate_estimate(same_rows(references, generated) == 1, units, level)
    return scores


def estimate(
    metric: TextMetric, texts: Texts, *, groups: object = None, seed: int = 0, level: float = 0.95
) -> Estimate:
    """Any text metric with its interval: Wilson's for a rate (with groups, at the effective number
    of rows), else BCa from 300 resamples of rows, since it is called for each, or Student's over
    groups.

    Rows on which a rate is undefined are left out, and the note counts them.
    """
    if not len(texts):
        return undefined("there are no rows")
    if metric.rate and metric.of_rows is not None:
        return _rate(metric, metric.of_rows(texts), groups, level)
    if metric.compute(texts) is None:
        return undefined(metric.undefined)

    def compute(rows: Ints) -> float | None:
        return metric.compute(texts.take(rows))

    drawing = Resampling(ResampledUnits.by(groups, len(texts)), seed, level)
    return drawing.calls(compute, metric.name, (metric.low, metric.high))


def _rate(metric: TextMetric, rows: Floats, groups: object, level: float) -> Estimate:
    known = np.isfinite(rows)
    if not known.any():
        return undefined(metric.undefined)
    known_groups = None if groups is None else np.asarray(groups, dtype=object)[known]
    estimate = rate_estimate(
        rows[known] == 1, ResampledUnits.by(known_groups, int(known.sum())), level
    )
    if known.all():
        return estimate
    left = f"{int((~known).sum())} rows left out: {metric.undefined}"
    note = "; ".join([left, *filter(None, [estimate.note])])
    return Estimate(estimate.value, estimate.low, estimate.high, level, note=note)


def _corpus(
    name: str, references: Sequence[str], generated: Sequence[str], drawing: Resampling
) -> Estimate:
    """BLEU or chrF: the counts of the rows are added, then the score is computed."""
    metric = sacrebleu_metric(name)
    # sacrebleu has no public name for the counts of each row; its own bootstrap reads them here.
    counts = np.asarray(metric._extract_corpus_statistics(list(generated), [list(references)]))
    if name == "bleu" and counts[:, REFERENCE_WORDS].max() < metric.max_ngram_order:
        return undefined("no reference has four words, and BLEU counts sequences of four")

    def scores(weights: Floats) -> Floats:
        totals = (drawing.units.spread(weights) @ counts).round().astype(int)
        # Private for the same reason. Scores are on a scale of 100 here.
        scores_of_resamples = [
            metric._compute_score_from_stats(line.tolist()).score / 100 for line in totals
        ]
        return np.asarray(scores_of_resamples, dtype=np.float64)

    return drawing.estimate(drawing.bootstrap(scores, name, 200))
