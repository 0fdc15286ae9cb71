"""Drift as an observer of the service: what arrives and what is answered, watched as it comes.

One alarm a change, which is written down; when the new regime is known, what it is like is written
down too. Accuracy without labels stands among the numbers, or why it cannot be told; labels of rows
that were drawn evenly say whether the model has become worse.

The reference lies in the run's folder. Where it does not yet, it is made of the rows that the run
was made of, by a pass of the model, in the thread of the observers when the first request was seen:
no answer waits for it (``StartingDrift``). Where it cannot be made the service goes on without the
watch, and says why. When another model takes the place of the one in service the watch begins anew,
by its reference.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from holdfast.analyses.row_texts import PAIR
from holdfast.core.decisions import DecisionListener, decisions_to
from holdfast.core.errors import InputError, RunError
from holdfast.core.records import Decision, Estimate, to_json
from holdfast.core.run_files import read_result
from holdfast.core.tasks import IMAGE_TASKS, TAGGING_TASKS
from holdfast.core.wording import count_phrase
from holdfast.plugins.drift.accuracy import (
    HarmWatch,
    estimate_accuracy,
    powered_accuracy,
    support_problem,
)
from holdfast.plugins.drift.monitor import ROW_VECTORS, ROWS_BETWEEN_ALARMS, Alarm, DriftMonitor
from holdfast.plugins.drift.report import compare_rows, compare_vectors
from holdfast.plugins.drift.rows import (
    CONFIDENCE,
    DriftRows,
    Reference,
    concatenate_rows,
    hashed_word_vectors,
)
from holdfast.plugins.drift.run_rows import REFERENCE, RunReference, drift_rows, load_reference
from holdfast.plugins.drift.vectors import MIN_REFERENCE_ROWS, MIN_ROWS
from holdfast.plugins.service.records import EngineFacts, RowPrediction, Served
from holdfast.plugins.service.settings import Serving
from holdfast.plugins.store.records import Feedback, Row
from holdfast.quality.clean.texts import mask_personal
from holdfast.recipe import DataPart
from holdfast.runs.finished_run import FinishedRun

NAME = "drift"
ALARM, REGIME, HARM = "drift", "drift regime", "harm"
MODEL, WORDS = "model", "words"
FLOAT32 = "float32"
# Answers that wait for a label, confidences that accuracy is estimated of, and labels, at most.
REMEMBERED, WINDOW, LABELS = 20_000, 1000, 5000
# Rows after which accuracy is estimated anew: a tenth of those that came, within these.
SOONEST, LATEST = 50, 2000


class Drifting:
    """The observer of one run. ``data`` is what its recipe says of its rows; with ``log_texts``
    examples are written down with their texts, masked where ``mask`` is set, else by their names
    alone. Words are written down where three rows hold them."""

    def __init__(
        self,
        held: RunReference,
        facts: EngineFacts,
        data: DataPart,
        *,
        between: int = ROWS_BETWEEN_ALARMS,
        log_texts: bool = False,
        mask: bool = True,
    ) -> None:
        self._held, self._facts, self._data = held, facts, data
        self._between, self._log_texts, self._mask = between, log_texts, mask
        self._by: str | None = None
        self._monitor: DriftMonitor | None = None
        self._waiting: list[DriftRows] = []
        self._recent: DriftRows | None = None
        self._events: list[tuple[str, Mapping[str, Any]]] = []
        self._answers: OrderedDict[str, list[tuple[Any, float] | None]] = OrderedDict()
        self._kept = 0
        right = held.reference.correct
        self._harm = None if right is None else HarmWatch.of_reference(right)
        self._harmful: dict[str, Any] | None = None
        self._labels: list[tuple[float, float]] = []
        self._uneven = self._unknown = self._again = self._others = 0
        self._accuracy: tuple[int, Estimate] | None = None

    @property
    def name(self) -> str:
        return NAME

    def seen(self, served: Served) -> None:
        """Kept until somebody asks what it comes to, so that many requests are one step."""
        if served.answered.model != self._facts.model:
            self._others += len(served.rows)
            return
        if self._by is None:
            # The model's vectors tell rows from others where they are those of the reference, in
            # the precision of the reference; else words do.
            own, vectors = self._held.reference.rows.vectors, served.answered.vectors
            same = own is not None and vectors is not None and vectors.shape[1] == own.shape[1]
            self._begin(MODEL if same and self._facts.precision == FLOAT32 else WORDS)
        answers = served.answered.answers
        rows = self._rows_of(served)
        self._waiting.append(rows)
        sure = rows.numbers.get(CONFIDENCE, np.full(len(rows), np.nan))
        self._answers[served.request] = [
            (_answered(one), float(p)) for one, p in zip(answers, sure, strict=True)
        ]
        self._kept += len(answers)
        while self._kept > REMEMBERED and len(self._answers) > 1:
            self._kept -= len(self._answers.popitem(last=False)[1])

    def labelled(self, feedback: Feedback) -> None:
        """Only labels of rows that were drawn evenly speak for all rows."""
        if self._harm is None or (feedback.model or self._facts.model) != self._facts.model:
            return
        if feedback.drawn != "uniform" or feedback.source == "model":
            self._uneven += 1
            return
        said = self._answers.get(feedback.request)
        if said is None or not 0 <= feedback.index < len(said):
            self._unknown += 1
            return
        if (answered := said[feedback.index]) is None:
            # Sent twice, or by two people: it is one row all the same.
            self._again += 1
            return
        prediction, sure = answered
        said[feedback.index] = None
        in_order = self._facts.task in TAGGING_TASKS
        wrong = float(not same_answer(prediction, feedback.label, in_order))
        self._labels = [*self._labels[-LABELS + 1 :], (1 - wrong, sure)]
        self._harm, at = self._harm.add(np.array([wrong]), self._between)
        if at is not None:
            self._harmful = {
                "labels": self._harm.rows,
                "wrong": self._harm.wrong,
                "allowed": self._harm.allowed,
                "since_label": self._harm.detector.since,
            }
            self._events.append((HARM, self._harmful))
            # One change is told once; the watch begins anew.
            assert self._held.reference.correct is not None
            self._harm = HarmWatch.of_reference(self._held.reference.correct)

    def events(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        self._catch_up()
        found, self._events = self._events, []
        return found

    def said(self) -> Mapping[str, Any]:
        self._catch_up()
        monitor = self._monitor
        if monitor is None:
            return {"rows": 0, "alarms": 0, "reference_rows": len(self._held.reference)}
        last = monitor.alarms[-1].to_json() if monitor.alarms else None
        made: dict[str, Any] = {
            "rows": monitor.rows,
            "alarms": len(monitor.alarms),
            "changed": int(bool(monitor.alarms)),
            "since_row": monitor.last_change,
            "gathering": 0 if monitor.gathering is None else len(monitor.gathering),
            "reference_rows": len(self._held.reference),
            "other_model_rows": self._others,
            **{f"evidence_{name}": level for name, level in monitor.levels.items()},
            "between_alarms": monitor.between,
            "by": self._by,
            "against": monitor.reference.description,
            "unwatched": monitor.unwatched,
            "last_alarm": last,
        }
        return {**made, **self._accuracy_said(monitor.rows), **self._labels_said()}

    def state(self) -> Mapping[str, Any]:
        self._catch_up()
        return {
            "by": self._by,
            "monitor": None if self._monitor is None else self._monitor.to_json(),
            "harm": None if self._harm is None else self._harm.to_json(),
            "harmful": self._harmful,
            "labels": self._labels,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        try:
            if state["by"] is None:
                return
            self._begin(str(state["by"]))
            assert self._monitor is not None
            self._monitor = DriftMonitor.from_json(state["monitor"], self._monitor.reference)
            # The service may have been told otherwise since.
            self._monitor = replace(self._monitor, between=self._between)
            if self._harm is not None and state["harm"] is not None:
                self._harm = self._harm.with_saved_state(state["harm"])
            self._harmful = state["harmful"]
            self._labels = [(float(a), float(b)) for a, b in state["labels"]]
        except (KeyError, TypeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error

    def _begin(self, by: str) -> None:
        self._by = by
        self._monitor = DriftMonitor.of_reference(self._reference, self._between)

    @property
    def _reference(self) -> Reference:
        return self._held.reference if self._by == MODEL else self._held.with_word_vectors()

    def _rows_of(self, served: Served) -> DriftRows:
        texts = texts_of(served.rows, self._facts, self._data)
        answers, vectors = served.answered.answers, served.answered.vectors
        said, sure = [_answered(one) for one in answers], [one.confidence for one in answers]
        if self._by == WORDS:
            vectors = None if texts is None else hashed_word_vectors(texts)
        names = tuple(f"{served.request}/{n}" for n in range(len(answers)))
        classes = self._held.reference.classes
        return drift_rows(self._facts.task, classes, texts, said, sure, vectors, names)

    def _catch_up(self) -> None:
        """What waits, in one step; alarms and new regimes on the way are written down."""
        if not self._waiting or self._monitor is None:
            return
        rows, self._waiting = concatenate_rows(self._waiting), []
        known = [] if self._recent is None else [self._recent]
        whole = concatenate_rows([*known, rows])
        self._recent = whole.take(slice(max(0, len(whole) - WINDOW), None))
        before = self._monitor
        self._monitor = before.add(rows)
        for alarm in self._monitor.alarms[len(before.alarms) :]:
            self._events.append((ALARM, self._told(alarm)))
        regime = self._monitor.new_reference_rows
        if regime is not None and before.first_row != self._monitor.first_row:
            self._events.append((REGIME, self._like(regime)))

    def _told(self, alarm: Alarm) -> dict[str, Any]:
        when = f"since about row {alarm.since:,}, noticed at row {alarm.at:,}"
        by = "" if alarm.by == ROW_VECTORS else f" ({alarm.by})"
        because = f"{alarm.side} are not like the {alarm.against}{by}, {when}"
        return {**alarm.to_json(), "because": because, "between_alarms": self._between}

    def _like(self, regime: DriftRows) -> dict[str, Any]:
        """What the new regime is like, against the rows that the model was judged by."""
        assert self._monitor is not None
        found = compare_rows(self._reference, regime, between=self._between).to_json()
        shown = mask_personal if self._mask else str
        examples = [
            {"row": one["row"], **({"text": shown(one["text"])} if self._log_texts else {})}
            for one in found["examples"]
        ]
        keys = ("verdict", "differ", "inputs", "classes", "facts", "accuracy", "terms")
        body = {key: found[key] for key in keys}
        sides = ", ".join(found["differ"]) or "nothing that is sure"
        body["because"] = f"{len(regime):,} rows of the new kind are known; they differ in: {sides}"
        body |= {"examples": examples, "since": self._monitor.last_change, "rows": len(regime)}
        made: dict[str, Any] = to_json(body)
        return made

    def _accuracy_said(self, rows: int) -> dict[str, Any]:
        due = 0 if self._accuracy is None else self._accuracy[0]
        if self._recent is not None and rows >= due:
            wait = int(np.clip(rows // 10, SOONEST, LATEST))
            self._accuracy = (rows + wait, self._estimated(self._recent))
        if self._accuracy is None:
            return {}
        found = self._accuracy[1]
        if found.value is None:
            return {"accuracy_estimated": None, "accuracy_why": found.why}
        return {
            "accuracy_estimated": found.value,
            "accuracy_low": found.low,
            "accuracy_high": found.high,
            "accuracy_rows": len(self._recent or ()),
        }

    def _estimated(self, recent: DriftRows) -> Estimate:
        reference = self._reference
        sure, now = reference.rows.numbers.get(CONFIDENCE), recent.numbers.get(CONFIDENCE)
        if reference.correct is None or sure is None or now is None:
            return Estimate(None, why="answers of this task are not right or wrong")
        support = weights = None
        if reference.rows.vectors is not None and recent.vectors is not None:
            read = np.isfinite(recent.vectors).all(axis=1)
            found = compare_vectors(reference.rows.vectors, recent.vectors[read])
            if found is not None:
                share = float(found.outside.mean())
                support = support_problem(found.weights, share, int(read.sum()))
                weights = found.weights if (found.area.low or 0) > 0.5 else None
        return estimate_accuracy(sure, reference.correct, now, weights=weights, support=support)

    def _labels_said(self) -> dict[str, Any]:
        if self._harm is None:
            return {}
        made: dict[str, Any] = {
            "labels": len(self._labels),
            "labels_not_even": self._uneven,
            "labels_of_unknown_rows": self._unknown,
            "labels_of_a_row_again": self._again,
            "harm_evidence": self._harm.detector.level,
            "harmful": int(self._harmful is not None),
        }
        if self._labels and self._recent is not None:
            right, sure = np.array(self._labels).T
            others = self._recent.numbers.get(CONFIDENCE, np.zeros(0))
            found = powered_accuracy(right, sure, others)
            made["accuracy_labelled"] = found.value
            made |= {"accuracy_labelled_low": found.low, "accuracy_labelled_high": found.high}
        return made


def texts_of(rows: Sequence[Row], facts: EngineFacts, data: DataPart) -> tuple[str, ...] | None:
    """What was asked, as ``analyses.row_texts.read_texts`` says of a table; ``None`` of pictures,
    and where a template makes the text of columns."""
    if facts.task in IMAGE_TASKS or data.template:
        return None
    columns = facts.columns[: max(1, len(data.text or ()))]
    return tuple(PAIR.join(_text(row.get(column)) for column in columns) for row in rows)


def _text(cell: Any) -> str:
    if isinstance(cell, list | tuple):
        return " ".join(map(str, cell))
    return "" if cell is None else str(cell)


def _answered(answer: RowPrediction) -> Any:
    """What the model says, also where a threshold leaves the row to a person."""
    if answer.prediction is None and answer.probabilities:
        return max(answer.probabilities, key=lambda name: answer.probabilities[name])  # type: ignore[index]
    return answer.prediction


def same_answer(prediction: Any, label: Any, in_order: bool = True) -> bool:
    """Whether a label is what the model said; lists by their members, ``in_order`` or as sets."""
    if isinstance(prediction, list | tuple) and isinstance(label, list | tuple):
        one, other = [str(x) for x in prediction], [str(x) for x in label]
        return one == other if in_order else sorted(one) == sorted(other)
    return str(prediction).strip().casefold() == str(label).strip().casefold()


class StartingDrift:
    """The observer, before and after it knows its reference; ``load`` makes it, of the model in
    service, whose name ``model`` tells."""

    def __init__(
        self,
        load: Callable[[], Drifting],
        log: Callable[[str], None],
        model: Callable[[], str] = lambda: "",
    ) -> None:
        self._load, self._log, self._model = load, log, model
        self._of = model()
        self._inner: Drifting | None = None
        self._pending: Mapping[str, Any] | None = None
        self._why = ""
        # Of the model before, not told yet.
        self._left: list[tuple[str, Mapping[str, Any]]] = []

    @property
    def name(self) -> str:
        return NAME

    def begin(self) -> None:
        """Make the watch, or learn why there is none."""
        if self._inner is not None or self._why:
            return
        try:
            self._inner = self._load()
        except InputError as error:
            self._why = str(error).split("\n")[0]
            self._log(f"drift is not watched: {error}")
            return
        if self._pending is not None:
            state, self._pending = self._pending, None
            try:
                self._inner.restore(state)
            except ValueError as error:
                self._log(f"drift begins anew: {error}")

    def seen(self, served: Served) -> None:
        if (now := self._model()) != self._of:
            self._log(f"drift: from here on of {now}, which took the place of {self._of}")
            if self._inner is not None:
                self._left += self._inner.events()
            self._of, self._inner, self._pending, self._why = now, None, None, ""
        self.begin()
        if self._inner is not None:
            self._inner.seen(served)

    def labelled(self, feedback: Feedback) -> None:
        if self._inner is not None:
            self._inner.labelled(feedback)

    def state(self) -> Mapping[str, Any]:
        # A service may end when another model serves already and has answered nothing yet.
        mine = {"model": self._of}
        if self._inner is not None:
            return {**mine, **self._inner.state()}
        return {**mine, **(self._pending or {"by": None})}

    def restore(self, state: Mapping[str, Any]) -> None:
        if (of := state.get("model", self._of)) != self._of:
            raise ValueError(f"what is stored is of {of}")
        if self._inner is None:
            self._pending = dict(state)
        else:
            self._inner.restore(state)

    def events(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        left, self._left = self._left, []
        return [*left, *(() if self._inner is None else self._inner.events())]

    def said(self) -> Mapping[str, Any]:
        if self._inner is not None:
            return {"watched": 1, **self._inner.said()}
        return {"watched": 0, "why": self._why or "no request was seen yet"}


def drift_observers(
    served: Callable[[], EngineFacts],
    settings: Serving,
    log: Callable[[str], None],
    notify: DecisionListener,
) -> list[StartingDrift]:
    """The watch for drift of the run that is ``served`` at a time; none where ``serve.drift`` is
    false."""
    if not settings.drift:
        return []

    def load() -> Drifting:
        facts = served()
        # In a thread of its own, where nobody else listens.
        with decisions_to(lambda one: log(f"reference of drift: {one.because}")):
            again = FinishedRun(facts.run)
            # Made where it is not there yet, by a pass of the model over the validation rows.
            held = load_reference(again)
        return Drifting(
            held,
            facts,
            again.recipe.data,
            between=settings.between_alarms,
            log_texts=settings.log_texts,
            mask=settings.mask,
        )

    made = StartingDrift(load, log, lambda: served().model)
    run = served().run
    if (run / REFERENCE).is_file():
        made.begin()
    else:
        because = f"{run} has no {REFERENCE} yet; it is made when the first request was seen"
        notify(Decision("drift", "watched from the first request on", because))
    try:
        rows = (read_result(run).get("valid") or {}).get("n")
    except RunError:
        rows = None
    if isinstance(rows, int) and rows < MIN_REFERENCE_ROWS:
        few = (
            f"the run has {count_phrase(rows, 'validation row')} to compare them with, and it takes "
            f"{MIN_REFERENCE_ROWS}; the classes that are answered and how sure the model is are "
            f"watched from {MIN_ROWS} rows on"
        )
        notify(Decision("drift", "inputs are not watched", few, prominent=True))
    return [made]
