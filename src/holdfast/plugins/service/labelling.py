"""The labelling page's requests: the next row, the model's prediction, a label, a skip, an undo.

The queue is that of ``plugins/labelling`` (active learning): a fifth is drawn uniformly at random,
the rest where a label is most informative. It is made from the rows whose texts the service stores,
and refilled after ``REFILL_AFTER_LABELS`` labels. Two annotators never have the same row: a row is
leased for ``LEASE_S`` seconds, whichever process shows the page. A row labelled through the
endpoint may still be drawn uniformly, since a volunteered label represents no other row. While a
challenger is compared, two of five rows are drawn uniformly from those with different predictions,
the only ones that distinguish the two models.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.core.errors import DataError
from holdfast.core.records import Estimate, Floats
from holdfast.plugins.labelling.labels import (
    LabelRule,
    ResolvedLabels,
    label_rule,
    resolve_labels,
    rule_from_predictions,
)
from holdfast.plugins.labelling.sampling import (
    EVEN_SHARE,
    LabelPool,
    center_and_scale,
    next_rows,
    order_keys,
    prediction_uncertainty,
    random_sample_accuracy,
    update_probabilities,
)
from holdfast.plugins.service.live.comparison import LATEST, both_answers
from holdfast.plugins.service.observers import masked_feedback
from holdfast.plugins.service.promotion import recorded_facts
from holdfast.plugins.store.records import Claim, Drawn, Feedback, Row, StoredPrediction, StoredRow

if TYPE_CHECKING:
    from holdfast.plugins.store.store import Store

# Rows are drawn from the newest ones; how many of them, and the length of a queue.
WINDOW_ROWS, QUEUE_LENGTH = 5000, 40
REFILL_AFTER_LABELS = 20
# The queue is also refilled for new rows after this time [s].
MAX_QUEUE_AGE_S = 60.0
LEASE_S = 600.0
MAX_NAME_LENGTH = 200
# The share of rows reserved for the comparison while two models are compared: none of them is drawn
# by informativeness, unless both models predict the same.
COMPARED_SHARE = 0.4
Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class LabelTask:
    """A row to label: its columns, how it was drawn, and the valid labels. The model's prediction
    is not included: ``Labelling.suggestion`` returns it on request and records that the annotator
    saw it."""

    request: str
    index: int
    row: Row
    drawn: str
    rule: LabelRule


@dataclass(frozen=True, slots=True)
class Progress:
    """Labels so far, each row once: how many by draw method, rows with several annotators and with
    disagreement, skipped rows, and for each model the accuracy on rows drawn uniformly. ``rows``
    are those within the window whose text is stored."""

    rows: int
    labelled: int
    by_draw: Mapping[str, int]
    several: int
    disagreed: int
    skipped: int
    accuracy: Mapping[str, Estimate]


class Labelling:
    """The labelling queue of one store. Thread-safe; each call may read the database.

    ``rule`` says which labels are valid; it is inferred from the predictions.
    """

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._queue: deque[tuple[StoredRow, Drawn]] = deque()
        self._queue_filled_at = -np.inf
        self._labels_since = 0
        self.rule = LabelRule("text")

    def next_item(self, annotator: str) -> LabelTask | None:
        """The next row for this annotator, leased for a while; an unfinished row comes first.
        ``None`` where no row is left: no text is stored, or all rows are labelled, skipped or
        leased."""
        annotator = _checked_name(annotator)
        now = self._clock()
        with self._lock:
            claims = self._store.claims(now)
            own_keys = {_key(candidate) for candidate in claims if candidate.who == annotator}
            taken_keys = {_key(candidate) for candidate in claims if candidate.who != annotator}
            skipped = {(id, at) for id, at, whose, _ in self._store.skipped() if whose == annotator}
            for fresh in (False, True):
                if (
                    fresh
                    or not self._queue
                    or self._labels_since >= REFILL_AFTER_LABELS
                    or now - self._queue_filled_at > MAX_QUEUE_AGE_S
                ):
                    self._fill_queue(now)
                    fresh = True
                for candidate in sorted(
                    self._queue, key=lambda candidate: _key(candidate[0]) not in own_keys
                ):
                    key = _key(candidate[0])
                    if key in skipped or key in taken_keys:
                        continue
                    if self._store.claim(*key, annotator, now, now + LEASE_S):
                        # Checked only now: another process may have labelled it a moment ago.
                        if self._still_needed(candidate):
                            return self._task(*candidate)
                        self._store.release(*key, annotator)
                if fresh:
                    return None
        return None

    def item(self, request: str, index: int, annotator: str) -> LabelTask:
        """This row once more, for an annotator who has not finished it. Raises ``DataError`` where
        it was deleted, or somebody else has it."""
        kept, now = self._kept_row(request, index), self._clock()
        if not self._store.claim(request, index, _checked_name(annotator), now, now + LEASE_S):
            rule = "is being labelled by another annotator"
            raise DataError("this row", rule, None, "Continue with the next row.")
        return self._task(kept, self._draw_method(request, index))

    def suggestion(self, request: str, index: int, annotator: str) -> StoredPrediction:
        """The model's prediction; the annotator's label of this row will record that it was seen.
        Raises ``DataError`` where there is no such row."""
        kept = self._kept_row(request, index)
        self._store.mark_seen(request, index, _checked_name(annotator))
        return kept.prediction

    def answer(self, request: str, index: int, annotator: str, label: Any) -> Feedback:
        """Store a label durably. Raises ``DataError`` for an invalid label or a deleted row,
        ``StoreGone`` where the store cannot be written."""
        annotator = _checked_name(annotator)
        now = self._clock()
        kept = self._kept_row(request, index)
        label = self.rule.check(label, kept.row)
        # Also of an expired lease: the annotator has seen the prediction.
        key = (request, index)
        suggestion_seen = [
            one.seen
            for one in self._store.claims(0.0)
            if (*_key(one), one.who) == (*key, annotator)
        ]
        item = Feedback(
            request,
            index,
            label,
            annotator,
            now,
            kept.prediction.model,
            "page",
            self._draw_method(request, index),
            ("seen" if suggestion_seen[0] else "hidden") if suggestion_seen else "unknown",
            row=kept.row,
            expires_at=kept.expires_at,
        )
        stored = self._store.add_feedback(masked_feedback(item, self.rule.label_type))
        self._store.release(request, index, annotator)
        with self._lock:
            self._labels_since += 1
            self._queue = deque(one for one in self._queue if _key(one[0]) != key)
        return stored

    def skip(self, request: str, index: int, annotator: str) -> None:
        """Leave the row to other annotators."""
        annotator = _checked_name(annotator)
        self._store.skip(request, index, annotator, self._clock())
        self._store.release(request, index, annotator)

    def undo(self, annotator: str) -> LabelTask | None:
        """Delete the annotator's last label or skip, and return that row; ``None`` where there is
        none. A deleted label cannot be restored."""
        annotator = _checked_name(annotator)
        now = self._clock()
        skips = [
            (at, id, place) for id, place, whose, at in self._store.skipped() if whose == annotator
        ]
        own_labels = self._store.feedback_by(annotator, source="page")
        label, skip = (own_labels[-1] if own_labels else None), (skips[-1] if skips else None)
        if label is None and skip is None:
            return None
        if skip is not None and (label is None or skip[0] > label.at):
            key = skip[1], skip[2]
            self._store.unskip(*key, annotator)
        else:
            assert label is not None
            key = _key(label)
            self._store.delete(now, by="label", value=str(label.id))
        kept = self._store.stored_row(*key)
        if kept is None or not self._store.claim(*key, annotator, now, now + LEASE_S):
            return None
        if label is not None and label.suggestion == "seen" and key == _key(label):
            self._store.mark_seen(*key, annotator)
        return self._task(kept, self._draw_method(*key))

    def progress(self) -> Progress:
        """The labels so far."""
        resolved = resolve_labels(self._store.feedback(limit=None))
        counts: Counter[str] = Counter(one.drawn for one in resolved.labels)
        return Progress(
            len(self._store.stored_rows(WINDOW_ROWS)),
            len(resolved.labels),
            dict(counts),
            resolved.several,
            resolved.disagreed,
            len({(id, place) for id, place, _, _ in self._store.skipped()}),
            self._accuracy(resolved),
        )

    def _still_needed(self, candidate: tuple[StoredRow, Drawn]) -> bool:
        """Whether the row still exists and nobody labelled it since the queue was filled."""
        kept, drawn = candidate
        if self._store.stored_row(kept.request, kept.index) is None:
            return False
        feedback = self._store.feedback_of(kept.request, kept.index)
        if drawn == "uniform":
            return not any(each.drawn == "uniform" for each in feedback)
        return not feedback

    def _draw_method(self, request: str, index: int) -> Drawn:
        position = float(order_keys([(request, index)])[0])
        if position < EVEN_SHARE:
            return "uniform"
        if (
            position >= EVEN_SHARE + COMPARED_SHARE
            or (models := _compared_models(self._store)) is None
        ):
            return "chosen"
        stored = self._store.request(request)
        first, second = (
            both_answers(stored, *models).get(index, (None, None)) if stored else (None, None)
        )
        return "unlike" if first != second else "chosen"

    def _kept_row(self, request: str, index: int) -> StoredRow:
        kept = self._store.stored_row(request, index)
        if kept is None:
            rule = "no longer exists: it was deleted, or it expired"
            raise DataError("this row", rule, None, "Continue with the next row.")
        return kept

    def _task(self, kept: StoredRow, drawn: Drawn) -> LabelTask:
        return LabelTask(*_key(kept), kept.row, drawn, self.rule)

    def _fill_queue(self, now: float) -> None:
        rows = self._store.stored_rows(WINDOW_ROWS)
        feedback = self._store.feedback(limit=None)
        # Emptied first: should the rest fail, the next request fills it again.
        self._queue, self._queue_filled_at, self._labels_since = deque(), now, 0
        if not rows:
            return
        self.rule = self._served_rule() or rule_from_predictions(
            [(one.prediction.prediction, one.prediction.probabilities) for one in rows]
        )
        pool = label_pool(rows, feedback, self.rule, models_differ(self._store, rows))
        self._queue = deque(
            (rows[one.position], one.drawn) for one in next_rows(pool, QUEUE_LENGTH)
        )

    def _served_rule(self) -> LabelRule | None:
        """The rule of the model that was served last; predictions may lack some of its classes.
        ``None`` where a server of an older version recorded nothing of it."""
        facts = recorded_facts(self._store)
        if "columns" not in facts:
            return None
        column = next(iter(facts["columns"] or ()), None)
        return label_rule(facts["task"], facts["classes"], facts["label_kind"], column=column)

    def _accuracy(self, resolved: ResolvedLabels) -> dict[str, Estimate]:
        if self.rule.label_type in ("number", "text"):
            return {}
        evenly_drawn = [one for one in resolved.labels if one.drawn == "uniform"]
        correct: Counter[str] = Counter()
        total: Counter[str] = Counter()
        predictions: dict[Key, StoredPrediction] = {}
        for request in self._store.requests_by_id(one.request for one in evenly_drawn):
            predictions |= {
                (request.id, one.index): one for one in request.predictions if one.shown
            }
        for one in evenly_drawn:
            prediction = predictions.get(_key(one))
            # A row that the model left to an annotator is neither correct nor wrong.
            if prediction is not None and prediction.prediction is not None:
                total[prediction.model] += 1
                correct[prediction.model] += _same(prediction.prediction, one.label, self.rule)
        return {model: random_sample_accuracy(correct[model], n) for model, n in total.items()}


def models_differ(store: Store, rows: Sequence[StoredRow]) -> dict[Key, bool] | None:
    """For rows that both compared models predicted, whether the predictions differ; ``None`` where
    nothing is compared, or there is a verdict."""
    models = _compared_models(store)
    if models is None:
        return None
    return {
        (request.id, index): first != second
        for request in store.requests_by_id(row.request for row in rows)
        for index, (first, second) in both_answers(request, *models).items()
    }


def _compared_models(store: Store) -> tuple[str, str] | None:
    latest = store.state(LATEST) or {}
    if latest.get("way") != "shadow" or latest.get("verdict") != "undecided":
        return None
    return latest["shown"], latest["challenger"]


def label_pool(
    rows: Sequence[StoredRow],
    feedback: Sequence[Feedback],
    rule: LabelRule,
    pairs: Mapping[Key, bool] | None = None,
) -> LabelPool:
    """The rows that the queue is drawn from, with their predictions and labels; ``pairs`` is the
    result of ``models_differ``."""
    keys = [_key(one) for one in rows]
    labels = {_key(one): one.label for one in resolve_labels(feedback).labels}
    drawn_evenly = {_key(one) for one in feedback if one.drawn == "uniform"}
    labelled = np.array([key in labels for key in keys])
    model = Counter(one.prediction.model for one in rows).most_common(1)[0][0]
    eligible = ~labelled & np.array([one.prediction.model == model for one in rows])
    row_texts = [json.dumps(one.row, sort_keys=True) for one in rows]
    labelled_texts = {text for text, there in zip(row_texts, labelled, strict=True) if there}
    for row, text in enumerate(row_texts):
        # A duplicate of a labelled text adds no information.
        eligible[row] &= text not in labelled_texts
        labelled_texts.add(text)
    vectors = _vectors(rows, model)
    doubt = np.array(
        [
            np.nan if one.prediction.confidence is None else 1 - one.prediction.confidence
            for one in rows
        ]
    )
    probabilities = _probabilities(rows, rule)
    if probabilities is not None and rule.classes is not None:
        if vectors is not None:
            class_index = {name: positions for positions, name in enumerate(rule.classes)}
            label_indices = [
                class_index.get(str(labels[key]), -1) if key in labels else -1 for key in keys
            ]
            probabilities = update_probabilities(vectors, np.array(label_indices), probabilities)
        doubt = prediction_uncertainty(probabilities)
    due = np.array([key not in drawn_evenly for key in keys])
    positions, unlike = order_keys(keys), None
    if pairs is not None:
        set_apart = (positions >= EVEN_SHARE) & (positions < EVEN_SHARE + COMPARED_SHARE)
        differ = np.array([pairs.get(key, False) for key in keys])
        same = np.array([not pairs.get(key, True) for key in keys])
        # A row that only one model has predicted may still turn out to differ.
        unlike, eligible = eligible & set_apart & differ, eligible & (~set_apart | same)
    return LabelPool(positions, due, eligible, labelled, np.clip(doubt, 0, 1), vectors, unlike)


def _vectors(rows: Sequence[StoredRow], model: str) -> Floats | None:
    """The vectors of the rows that this model predicted, zeros for the others. ``None`` where most
    rows have no vector."""
    stored = [one.vector if one.prediction.model == model else None for one in rows]
    sizes = Counter(len(one) for one in stored if one)
    if not sizes or sizes.total() * 2 < len(rows):
        return None
    size = sizes.most_common(1)[0][0]
    has_vector = np.array([one is not None and len(one) == size for one in stored])
    data = b"".join(
        one for one, use in zip(stored, has_vector, strict=True) if use and one is not None
    )
    array = np.frombuffer(data, dtype="<f2").reshape(int(has_vector.sum()), -1).astype(np.float32)
    finite = np.isfinite(array).all(axis=1)
    vectors = np.zeros((len(rows), array.shape[1]), dtype=np.float32)
    vectors[np.flatnonzero(has_vector)[finite]] = center_and_scale(array[finite])
    return vectors


def _probabilities(rows: Sequence[StoredRow], rule: LabelRule) -> Floats | None:
    if rule.label_type != "class" or not rule.classes or len(rule.classes) < 2:
        return None
    stored = [one.prediction.probabilities or {} for one in rows]
    probabilities = np.array(
        [[one.get(name, 0.0) for name in rule.classes] for one in stored], dtype=float
    )
    total = probabilities.sum(axis=1, keepdims=True)
    uniform = 1 / len(rule.classes)
    return np.where(total > 0, probabilities / np.where(total > 0, total, 1), uniform)


def _same(prediction: Any, label: Any, rule: LabelRule) -> bool:
    if rule.label_type == "several":
        return set(prediction) == set(label)
    return bool(prediction == label)


def _key(one: StoredRow | Feedback | Claim) -> Key:
    return one.request, one.index


def _checked_name(annotator: str) -> str:
    name = " ".join(annotator.split()) if isinstance(annotator, str) else ""
    if not name or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        remedy = f"Give 1 to {MAX_NAME_LENGTH} characters."
        raise DataError("the annotator's name", "is missing or invalid", annotator, remedy)
    return name
