"""One number per row for the quality of its prediction, for every task: ``RowScores`` compare two
sets of rows; ``row_errors`` rank rows.

The analysis ``confirmation`` compares the test score of the best checkpoint with its validation
score: ``test_comparison`` of the verdict, whose label is fixed by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.analyses.analysis import Analysis, NoAnswer, Session
from holdfast.analyses.row_texts import decode_labels
from holdfast.contract.predictions import Bools, Predictions, groups_of
from holdfast.core.records import Estimate, Floats, Ints, to_json
from holdfast.data.table import Table
from holdfast.data.tags.scheme import OUTSIDE
from holdfast.stats.intervals import wilson, wilson_by_groups
from holdfast.stats.paired_tests import loss_rows
from holdfast.stats.two_samples import TwoSamples, two_samples
from holdfast.tasks.tags.entities import TagTable, entity_counts

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class RowScores:
    """``values`` [n] whose mean is the ``metric``: ``accuracy`` (one class a row), ``exact_match``
    (several labels), ``sentence_accuracy`` (tags: all of a sentence's), ``mae`` (numbers) or
    ``loss`` (generated text, in nats per token). ``groups`` [n] are names, where rows come in
    groups."""

    metric: str
    values: Floats
    groups: Any = None

    @classmethod
    def from_predictions(cls, predictions: Predictions) -> RowScores:
        """From a model's predictions. If the loss is the score, rows without one (of which nothing
        was read) are left out."""
        groups = groups_of(predictions.table)
        if predictions.wrong is not None:
            return cls(rate_metric(predictions.table), 1.0 - predictions.wrong, groups)
        if predictions.errors is not None:
            return cls("mae", np.abs(predictions.errors), groups)
        return cls.from_losses(predictions.losses, groups, predictions.tokens)

    @classmethod
    def from_losses(
        cls, losses: Floats, groups: npt.ArrayLike | None = None, tokens: Ints | None = None
    ) -> RowScores:
        """From losses [n], NaN for a row without one. If each is a mean over tokens, ``tokens`` [n]
        are their numbers."""
        finite = np.isfinite(losses)
        values = loss_rows(losses[finite], None if tokens is None else tokens[finite])
        return cls("loss", values, None if groups is None else np.asarray(groups)[finite])

    @classmethod
    def from_labels(
        cls,
        metric: str,
        labels: Sequence[Any],
        predictions: Sequence[Any],
        groups: npt.ArrayLike | None = None,
    ) -> RowScores:
        """From predictions and labels: absolute errors for numbers, else whether the two are
        equal."""
        pairs = zip(labels, predictions, strict=True)
        if metric == "mae":
            return cls(metric, np.array([abs(float(b) - float(a)) for a, b in pairs]), groups)
        return cls(metric, np.array([is_correct(a, b) for a, b in pairs], dtype=np.float64), groups)


def is_correct(label: object, prediction: Any) -> bool:
    """Whether a prediction equals its label; lists are compared in their order."""
    return (
        bool(list(label) == list(prediction or ()))
        if isinstance(label, list)
        else bool(label == prediction)
    )


def rate_metric(table: Table) -> str:
    """The name of the share of correct rows, by the type of label."""
    if "tags" in table.rows.column_names:
        return "sentence_accuracy"
    return "exact_match" if table.columns.label_kind == "several" else "accuracy"


def compare_scores(first: RowScores, second: RowScores) -> TwoSamples:
    """The two-sample test of the two means, second − first."""
    return two_samples(first.values, second.values, first.groups, second.groups)


def comparison_block(metric: str, comparison: TwoSamples, names: Sequence[str]) -> dict[str, Any]:
    """The comparison for JSON; ``names`` are the keys of the two sets."""
    block: dict[str, Any] = {
        "metric": metric,
        names[0]: {"value": comparison.first, "n": comparison.n_first},
        names[1]: {"value": comparison.second, "n": comparison.n_second},
    }
    if comparison.why is not None:
        block["why"] = comparison.why
    else:
        ends = {"low": comparison.low, "high": comparison.high, "level": 0.95}
        value, low, high = comparison.together
        block |= {
            "difference": {"value": comparison.difference, **ends},
            "p_value": comparison.p_value,
            "test": comparison.test,
            "together": {"value": value, "low": low, "high": high, "level": 0.95},
        }
    plain: dict[str, Any] = to_json(block)
    return plain


WRONG, ABSOLUTE, ENTITIES, LOSS = "wrong", "absolute error", "1 − entity F1", "loss"


@dataclass(frozen=True, slots=True, eq=False)
class RowErrors:
    """``values`` [n], larger for worse predictions and NaN where unknown. ``measure`` is one of:
    ``wrong`` (1 or 0: a class, or a set of labels that is not exactly right), ``absolute error`` of
    numbers in their unit, ``1 − entity F1`` of each sentence, ``loss`` of a generative model in
    nats per token."""

    measure: str
    values: Floats

    @property
    def is_rate(self) -> bool:
        return self.measure == WRONG


def row_errors(predictions: Predictions) -> RowErrors:
    """See ``RowErrors``. A tagged sentence is scored by its entities, not as correct or wrong as a
    whole: otherwise every slice of long sentences would fail."""
    if predictions.errors is not None:
        return RowErrors(ABSOLUTE, np.abs(predictions.errors))
    if "tags" in predictions.table.rows.column_names and predictions.predictions is not None:
        return RowErrors(
            ENTITIES, 1.0 - sentence_f1(decode_labels(predictions.table), predictions.predictions)
        )
    if predictions.wrong is not None:
        return RowErrors(WRONG, predictions.wrong.astype(np.float64))
    return RowErrors(LOSS, predictions.losses)


def sentence_f1(labels: Sequence[Sequence[object]], predictions: Any) -> Floats:
    """Entity F1 of each sentence [n], 2 · found ÷ (labelled + predicted), of tags by name; 1 if
    there is no entity and none was predicted."""
    rows = [_pad_tags(list(own), list(tags)) for own, tags in zip(labels, predictions, strict=True)]
    names = sorted({str(tag) for pair in rows for tags in pair for tag in tags}) or [OUTSIDE]
    tag_ids = {name: k for k, name in enumerate(names)}
    lengths = np.array([len(own) for own, _ in rows], dtype=np.int64)
    truth, answers = (
        np.array([tag_ids[str(tag)] for pair in rows for tag in pair[k]], dtype=np.int64)
        for k in (0, 1)
    )
    table = TagTable.of(names)
    counts = entity_counts(truth, answers, lengths, table).reshape(len(rows), 3, -1).sum(axis=2)
    total = counts[:, 1] + counts[:, 2]
    return np.where(total > 0, 2 * counts[:, 0] / np.maximum(total, 1), 1.0)


def _pad_tags(labels: list[object], predictions: list[object]) -> tuple[list[object], list[object]]:
    """Pad the predictions of a truncated sentence: the rest has no entity."""
    return labels, [*predictions[: len(labels)], *[OUTSIDE] * (len(labels) - len(predictions))]


ONE_GROUP = "no interval: all rows are of one group"


def rate_estimate(
    hits: Bools, groups: npt.NDArray[Any] | None, one_group: str = ONE_GROUP
) -> Estimate:
    """The share of hits among the rows [n] with its Wilson interval, by ``groups`` [n] where given.
    ``one_group`` is the reason why there is no interval for a single group."""
    value = float(hits.mean())
    if groups is None:
        return Estimate(value, *wilson(float(hits.sum()), len(hits)))
    codes = np.unique(groups, return_inverse=True)[1].reshape(-1)
    low, high = wilson_by_groups(hits, codes)
    return Estimate(value, why=one_group) if np.isnan(low) else Estimate(value, low, high)


SETS = ("valid", "test_rows")


def find(session: Session) -> RowScores | NoAnswer:
    """The scores of the validation rows, fixed before the test rows are scored."""
    scores = RowScores.from_predictions(session.valid)
    return (
        scores if len(scores.values) else NoAnswer("there are no validation rows to compare with")
    )


def confirm(valid_scores: RowScores, session: Session, test: Predictions) -> dict[str, Any]:
    """The two-sample test."""
    block = comparison_block(
        valid_scores.metric, compare_scores(valid_scores, RowScores.from_predictions(test)), SETS
    )
    if session.out_of_fold:
        block["out_of_fold"] = True
    return block


ANALYSIS = Analysis("confirmation", ("verdict", "test_comparison"), find, confirm)
