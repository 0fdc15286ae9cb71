"""What a page for labelling asks: the next row, the model's answer to it, a label, a skip, an undo.

The queue is that of ``plugins/labelling``: a fifth evenly at random, the rest where a label teaches
most. It is made of the rows whose texts the service keeps, anew after every ``AFRESH`` labels. Two
people never have the same row: who gets one has it alone for ``LEASE`` seconds, whichever process
shows the page. A row that was labelled through the endpoint may still be drawn evenly; what
somebody volunteered speaks for no other row. While a challenger is compared, two of five rows are
drawn evenly of those that the two models answer differently, which alone tell them apart.
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
from holdfast.plugins.labelling.draw import (
    SHARE,
    LabelPool,
    doubt_of,
    even_accuracy,
    next_rows,
    places,
    scaled,
    updated,
)
from holdfast.plugins.labelling.draw import DrawnRow as Drawn
from holdfast.plugins.labelling.labels import LabelRule, Settled, rule_of_answers, settled
from holdfast.plugins.service.live.look import LATEST, both_answers, requests_named
from holdfast.plugins.store.records import Claim, Feedback, Row, StoredPrediction, StoredRow
from holdfast.plugins.store.records import Drawn as Way

if TYPE_CHECKING:
    from holdfast.plugins.store.store import Store

# The newest rows among which labels are looked for, and how many are laid out at a time.
WINDOW, LAID_OUT = 5000, 40
AFRESH = 20
# The queue is made anew for rows that came since [s].
STALE = 60.0
LEASE = 600.0
LONGEST_WHO = 200
# Of all rows, by their places: those of which none is chosen for what it teaches while two models
# are compared, unless both answer it alike.
COMPARED = 0.4
Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class LabelTask:
    """A row to label: its columns, how it was drawn and why, what a label may be, and when the
    service was asked. The model's answer is not here: ``Labelling.suggestion`` tells it to those
    who ask, and it is written down that they did."""

    request: str
    index: int
    row: Row
    drawn: str
    reason: str
    rule: LabelRule
    at: float
    until: float


@dataclass(frozen=True, slots=True)
class Progress:
    """Labels so far, each row once: how many by how the row was drawn, how many rows two people saw
    differently, how many were skipped, and of rows drawn evenly the share that the model answered
    rightly, by model. ``rows`` are those whose text is kept, within the window."""

    rows: int
    labelled: int
    by_draw: Mapping[str, int]
    several: int
    disagreed: int
    skipped: int
    accuracy: Mapping[str, Estimate]


class Labelling:
    """The queue of one store. Any thread may call it; each call may read the database.

    ``rule`` is what a label may be; without it, what the model answered tells it.
    """

    def __init__(
        self,
        store: Store,
        rule: LabelRule | None = None,
        *,
        clock: Callable[[], float] = time.time,
        lease: float = LEASE,
    ) -> None:
        self._store = store
        self._rule = rule
        self._clock = clock
        self._lease = lease
        self._lock = threading.Lock()
        self._laid: deque[tuple[StoredRow, Drawn]] = deque()
        self._laid_at = -np.inf
        self._since = 0
        self._found_rule = rule or LabelRule("text")

    def next_item(self, who: str) -> LabelTask | None:
        """The next row for this person, his alone for a while; ``None`` where nothing is left: no
        text is kept, or all rows are labelled, skipped or taken. A row that he has not finished
        comes first."""
        who = _named(who)
        now = self._clock()
        with self._lock:
            claims = self._store.claims(now)
            mine = {_key(one) for one in claims if one.who == who}
            taken = {_key(one) for one in claims if one.who != who}
            skipped = {(id, at) for id, at, whose, _ in self._store.skipped() if whose == who}
            for fresh in (False, True):
                if fresh or not self._laid or self._since >= AFRESH or now - self._laid_at > STALE:
                    self._lay_out(now)
                    fresh = True
                for one in sorted(self._laid, key=lambda one: _key(one[0]) not in mine):
                    key = _key(one[0])
                    if key in skipped or key in taken:
                        continue
                    if self._store.claim(*key, who, now, now + self._lease):
                        # Only now: another process may have had it labelled a moment ago.
                        if self._wanted(one):
                            return self._item(one, now)
                        self._store.release(*key, who)
                if fresh:
                    return None
        return None

    def item(self, request: str, index: int, who: str) -> LabelTask:
        """This row once more, for one who has not finished it. Raises ``DataError`` where it is
        gone, or somebody else has it by now."""
        found, now = self._there(request, index), self._clock()
        if not self._store.claim(request, index, _named(who), now, now + self._lease):
            raise DataError("this row", "was taken by somebody else", None, "Take the next one.")
        return self._item((found, Drawn(0, self._way(request, index), "asked again")), now)

    def suggestion(self, request: str, index: int, who: str) -> StoredPrediction:
        """What the model answered, for one who asks to see it; from now on his label of this row
        says so. Raises ``DataError`` where there is no such row."""
        found = self._there(request, index)
        self._store.mark_seen(request, index, _named(who))
        return found.prediction

    def answer(self, request: str, index: int, who: str, label: Any) -> Feedback:
        """Write a label down, durably. Raises ``DataError`` for one that the task does not have, or
        a row that is gone, ``StoreGone`` where it cannot be written now."""
        who = _named(who)
        now = self._clock()
        kept = self._there(request, index)
        label = self.rule.check(label, kept.row)
        # Also one whose time is over: what somebody saw he has seen.
        key = (request, index)
        seen = [one.seen for one in self._store.claims(0.0) if (*_key(one), one.who) == (*key, who)]
        made = self._store.add_feedback(
            Feedback(
                request,
                index,
                label,
                who,
                now,
                kept.prediction.model,
                "page",
                self._way(request, index),
                ("seen" if seen[0] else "hidden") if seen else "unknown",
                row=kept.row,
                expires_at=kept.expires_at,
            )
        )
        self._store.release(request, index, who)
        with self._lock:
            self._since += 1
            self._laid = deque(one for one in self._laid if _key(one[0]) != key)
        return made

    def skip(self, request: str, index: int, who: str) -> None:
        """Somebody else shall label it."""
        who = _named(who)
        self._store.skip(request, index, who, self._clock())
        self._store.release(request, index, who)

    def undo(self, who: str) -> LabelTask | None:
        """Take the last label or skip of this person back, and give him the row again; ``None``
        where there is none. The label is deleted for good."""
        who = _named(who)
        now = self._clock()
        skips = [(at, id, place) for id, place, whose, at in self._store.skipped() if whose == who]
        own = self._store.feedback_by(who, source="page")
        label, skip = (own[-1] if own else None), (skips[-1] if skips else None)
        if label is None and skip is None:
            return None
        if skip is not None and (label is None or skip[0] > label.at):
            key = skip[1], skip[2]
            self._store.unskip(*key, who)
        else:
            assert label is not None
            key = _key(label)
            self._store.delete(now, by="label", value=str(label.id))
        found = self._store.stored_row(*key)
        if found is None or not self._store.claim(*key, who, now, now + self._lease):
            return None
        if label is not None and label.suggestion == "seen" and key == _key(label):
            self._store.mark_seen(*key, who)
        return self._item((found, Drawn(0, self._way(*key), "taken back")), now)

    def progress(self) -> Progress:
        """What was labelled so far."""
        found = settled(self._store.feedback(limit=None))
        counts: Counter[str] = Counter(one.drawn for one in found.labels)
        return Progress(
            len(self._store.stored_rows(WINDOW)),
            len(found.labels),
            dict(counts),
            found.several,
            found.disagreed,
            len({(id, place) for id, place, _, _ in self._store.skipped()}),
            self._accuracy(found),
        )

    @property
    def rule(self) -> LabelRule:
        """What a label may be."""
        return self._rule or self._found_rule

    def _wanted(self, one: tuple[StoredRow, Drawn]) -> bool:
        """Whether it is still there, and nobody labelled it since the queue was made."""
        kept, drawn = one
        if self._store.stored_row(kept.request, kept.index) is None:
            return False
        given = self._store.feedback_of(kept.request, kept.index)
        if drawn.drawn == "uniform":
            return not any(each.drawn == "uniform" for each in given)
        return not given

    def _way(self, request: str, index: int) -> Way:
        place = float(places([(request, index)])[0])
        if place < SHARE:
            return "uniform"
        if place >= SHARE + COMPARED or (models := _compared(self._store)) is None:
            return "chosen"
        found = self._store.request(request)
        one, two = both_answers(found, *models).get(index, (None, None)) if found else (None, None)
        return "unlike" if one != two else "chosen"

    def _there(self, request: str, index: int) -> StoredRow:
        found = self._store.stored_row(request, index)
        if found is None:
            rule = "is gone: it was deleted, or its time is over"
            raise DataError("this row", rule, None, "Take the next one.")
        return found

    def _item(self, one: tuple[StoredRow, Drawn], now: float) -> LabelTask:
        kept, drawn = one
        until = now + self._lease
        return LabelTask(
            *_key(kept), kept.row, drawn.drawn, drawn.reason, self.rule, kept.at, until
        )

    def _lay_out(self, now: float) -> None:
        rows = self._store.stored_rows(WINDOW)
        feedback = self._store.feedback(limit=None)
        # Emptied first: should the rest fail, the next one who asks has them laid out again.
        self._laid, self._laid_at, self._since = deque(), now, 0
        if not rows:
            return
        if self._rule is None:
            self._found_rule = rule_of_answers(
                [(one.prediction.prediction, one.prediction.probabilities) for one in rows]
            )
        pool = pool_of(rows, feedback, self.rule, differing(self._store, rows))
        self._laid = deque((rows[one.position], one) for one in next_rows(pool, LAID_OUT))

    def _accuracy(self, found: Settled) -> dict[str, Estimate]:
        if self.rule.kind in ("number", "text"):
            return {}
        even = [one for one in found.labels if one.drawn == "uniform"]
        right: Counter[str] = Counter()
        total: Counter[str] = Counter()
        said: dict[Key, StoredPrediction] = {}
        for request in requests_named(self._store, (one.request for one in even)):
            said |= {(request.id, one.index): one for one in request.predictions if one.shown}
        for one in even:
            answer = said.get(_key(one))
            # What the model left to people is no answer, neither right nor wrong.
            if answer is not None and answer.prediction is not None:
                total[answer.model] += 1
                right[answer.model] += _same(answer.prediction, one.label, self.rule)
        return {model: even_accuracy(right[model], n) for model, n in total.items()}


def differing(store: Store, rows: Sequence[StoredRow]) -> dict[Key, bool] | None:
    """Of rows that two compared models both answered whether they differ; ``None`` where nothing is
    compared, or there is a verdict."""
    models = _compared(store)
    if models is None:
        return None
    return {
        (request.id, index): one != two
        for request in requests_named(store, (row.request for row in rows))
        for index, (one, two) in both_answers(request, *models).items()
    }


def _compared(store: Store) -> tuple[str, str] | None:
    latest = store.state(LATEST) or {}
    if latest.get("way") != "shadow" or latest.get("verdict") != "undecided":
        return None
    return latest["shown"], latest["challenger"]


def pool_of(
    rows: Sequence[StoredRow],
    feedback: Sequence[Feedback],
    rule: LabelRule,
    pairs: Mapping[Key, bool] | None = None,
) -> LabelPool:
    """What the queue is drawn from: rows with their answers, and labels so far; ``pairs`` is what
    ``differing`` says of them."""
    keys = [_key(one) for one in rows]
    labels = {_key(one): one.label for one in settled(feedback).labels}
    evenly = {_key(one) for one in feedback if one.drawn == "uniform"}
    known = np.array([key in labels for key in keys])
    model = Counter(one.prediction.model for one in rows).most_common(1)[0][0]
    free = ~known & np.array([one.prediction.model == model for one in rows])
    written = [json.dumps(one.row, sort_keys=True) for one in rows]
    seen = {text for text, there in zip(written, known, strict=True) if there}
    for row, text in enumerate(written):
        # A second copy of a text teaches nothing.
        free[row] &= text not in seen
        seen.add(text)
    vectors = _vectors(rows, model)
    doubt = np.array(
        [np.nan if one.prediction.confidence is None else 1 - one.prediction.confidence for one in rows]
    )
    probabilities = _probabilities(rows, rule)
    if probabilities is not None and rule.classes is not None:
        if vectors is not None:
            place = {name: at for at, name in enumerate(rule.classes)}
            given = [place.get(str(labels[key]), -1) if key in labels else -1 for key in keys]
            probabilities = updated(vectors, np.array(given), probabilities)
        doubt = doubt_of(probabilities)
    due = np.array([key not in evenly for key in keys])
    at, unlike = places(keys), None
    if pairs is not None:
        mine = (at >= SHARE) & (at < SHARE + COMPARED)
        other = np.array([pairs.get(key, False) for key in keys])
        alike = np.array([not pairs.get(key, True) for key in keys])
        # A row that is not answered by both yet may turn out to be one of them.
        unlike, free = free & mine & other, free & (~mine | alike)
    return LabelPool(at, due, free, known, np.clip(doubt, 0, 1), vectors, unlike)


def _vectors(rows: Sequence[StoredRow], model: str) -> Floats | None:
    """The vectors of the rows that this model answered; of others the middle, which teaches
    nothing. ``None`` where most rows have none."""
    raw = [one.vector if one.prediction.model == model else None for one in rows]
    sizes = Counter(len(one) for one in raw if one)
    if not sizes or sizes.total() * 2 < len(rows):
        return None
    size = sizes.most_common(1)[0][0]
    there = np.array([one is not None and len(one) == size for one in raw])
    own = b"".join(one for one, use in zip(raw, there, strict=True) if use and one is not None)
    read = np.frombuffer(own, dtype="<f2").reshape(int(there.sum()), -1).astype(np.float32)
    sound = np.isfinite(read).all(axis=1)
    vectors = np.zeros((len(rows), read.shape[1]), dtype=np.float32)
    vectors[np.flatnonzero(there)[sound]] = scaled(read[sound])
    return vectors


def _probabilities(rows: Sequence[StoredRow], rule: LabelRule) -> Floats | None:
    if rule.kind != "class" or not rule.classes or len(rule.classes) < 2:
        return None
    given = [one.prediction.probabilities or {} for one in rows]
    found = np.array([[one.get(name, 0.0) for name in rule.classes] for one in given], dtype=float)
    total = found.sum(axis=1, keepdims=True)
    even = 1 / len(rule.classes)
    return np.where(total > 0, found / np.where(total > 0, total, 1), even)


def _same(prediction: Any, label: Any, rule: LabelRule) -> bool:
    if rule.kind == "several":
        return set(prediction) == set(label)
    return bool(prediction == label)


def _key(one: StoredRow | Feedback | Claim) -> Key:
    return one.request, one.index


def _named(who: str) -> str:
    name = " ".join(who.split()) if isinstance(who, str) else ""
    if not name or len(name) > LONGEST_WHO or not name.isprintable():
        raise DataError("who labels", "has no name", who, f"Give 1 to {LONGEST_WHO} characters.")
    return name
