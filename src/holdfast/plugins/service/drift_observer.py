"""Drift detection as an observer of the service: inputs and predictions are monitored as they
arrive.

Each change raises one alarm, which is stored. Once enough rows of the new distribution are known,
its description is stored too. The summary estimates accuracy without labels, or gives the reason
why it cannot. Labels of rows drawn uniformly show whether the model has become worse.

The reference is in the run's folder. Where it is missing, the observers' thread computes it from
the run's reference rows after the first request; no response waits for it (``LazyDriftObserver``).
Where it cannot be computed, the service continues without drift detection and logs the reason. When
another model is promoted, monitoring restarts with that model's reference.
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
from holdfast.plugins.drift.accuracy import HarmWatch, powered_accuracy
from holdfast.plugins.drift.monitor import ROW_VECTORS, ROWS_BETWEEN_ALARMS, Alarm, DriftMonitor
from holdfast.plugins.drift.report import compare_rows, compare_vectors, unlabelled_accuracy
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
ALARM, NEW_DISTRIBUTION, HARM = "drift", "drift regime", "harm"
BY_MODEL, BY_WORDS = "model", "words"
FLOAT32 = "float32"
# Maximum predictions that wait for a label, confidences for the accuracy estimate, and labels.
MAX_UNLABELLED, WINDOW_ROWS, MAX_LABELS = 20_000, 1000, 5000
# Accuracy is estimated again after a tenth of the rows so far, within these limits.
MIN_WAIT_ROWS, MAX_WAIT_ROWS = 50, 2000


class DriftObserver:
    """The drift observer of one run. ``data`` is the recipe's description of the rows. With
    ``log_texts`` examples are stored with their texts, masked where ``mask`` is set; otherwise only
    with their names. Words are stored where three rows contain them."""

    def __init__(
        self,
        reference: RunReference,
        facts: EngineFacts,
        data: DataPart,
        *,
        alarm_distance: int = ROWS_BETWEEN_ALARMS,
        log_texts: bool = False,
        mask: bool = True,
    ) -> None:
        self._run_reference, self._facts, self._data = reference, facts, data
        self._alarm_distance, self._log_texts, self._mask = alarm_distance, log_texts, mask
        self._vector_source: str | None = None
        self._monitor: DriftMonitor | None = None
        self._waiting: list[DriftRows] = []
        self._recent: DriftRows | None = None
        self._events: list[tuple[str, Mapping[str, Any]]] = []
        self._predictions: OrderedDict[str, list[tuple[Any, float] | None]] = OrderedDict()
        self._unlabelled_rows = 0
        right = reference.reference.correct
        self._harm_watch = None if right is None else HarmWatch.of_reference(right)
        self._harm_found: dict[str, Any] | None = None
        self._labels: list[tuple[float, float]] = []
        self._uneven_labels = self._unknown_labels = self._repeated_labels = (
            self._other_model_rows
        ) = 0
        self._accuracy: tuple[int, Estimate] | None = None

    @property
    def name(self) -> str:
        return NAME

    def observe(self, served: Served) -> None:
        """Buffer the request until a summary is requested, so that many requests are processed in
        one step."""
        if served.predictions.model != self._facts.model:
            self._other_model_rows += len(served.rows)
            return
        if self._vector_source is None:
            # The model's vectors are comparable where they have the width and the precision of the
            # reference's; otherwise hashed words are used.
            reference_vectors, vectors = (
                self._run_reference.reference.rows.vectors,
                served.predictions.vectors,
            )
            comparable = (
                reference_vectors is not None
                and vectors is not None
                and vectors.shape[1] == reference_vectors.shape[1]
            )
            self._start_monitor(
                BY_MODEL if comparable and self._facts.precision == FLOAT32 else BY_WORDS
            )
        predictions = served.predictions.answers
        rows = self._drift_rows(served)
        self._waiting.append(rows)
        confidence = rows.numbers.get(CONFIDENCE, np.full(len(rows), np.nan))
        self._predictions[served.request] = [
            (_top_prediction(one), float(probability))
            for one, probability in zip(predictions, confidence, strict=True)
        ]
        self._unlabelled_rows += len(predictions)
        while self._unlabelled_rows > MAX_UNLABELLED and len(self._predictions) > 1:
            self._unlabelled_rows -= len(self._predictions.popitem(last=False)[1])

    def add_feedback(self, feedback: Feedback) -> None:
        """Count a label; only labels of rows drawn uniformly represent all rows."""
        if self._harm_watch is None or (feedback.model or self._facts.model) != self._facts.model:
            return
        if feedback.drawn != "uniform" or feedback.source == "model":
            self._uneven_labels += 1
            return
        predictions = self._predictions.get(feedback.request)
        if predictions is None or not 0 <= feedback.index < len(predictions):
            self._unknown_labels += 1
            return
        if (stored := predictions[feedback.index]) is None:
            # Sent twice, or by two annotators: it is still one row.
            self._repeated_labels += 1
            return
        prediction, confidence = stored
        predictions[feedback.index] = None
        in_order = self._facts.task in TAGGING_TASKS
        wrong = float(not same_answer(prediction, feedback.label, in_order))
        self._labels = [*self._labels[-MAX_LABELS + 1 :], (1 - wrong, confidence)]
        self._harm_watch, alarm_at = self._harm_watch.add(np.array([wrong]), self._alarm_distance)
        if alarm_at is not None:
            self._harm_found = {
                "labels": self._harm_watch.rows,
                "wrong": self._harm_watch.wrong,
                "allowed": self._harm_watch.allowed,
                "since_label": self._harm_watch.detector.since,
            }
            self._events.append((HARM, self._harm_found))
            # Each change is reported once; then monitoring restarts.
            assert self._run_reference.reference.correct is not None
            self._harm_watch = HarmWatch.of_reference(self._run_reference.reference.correct)

    def events(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        self._process_waiting()
        events, self._events = self._events, []
        return events

    def summary(self) -> Mapping[str, Any]:
        self._process_waiting()
        monitor = self._monitor
        if monitor is None:
            return {"rows": 0, "alarms": 0, "reference_rows": len(self._run_reference.reference)}
        last_alarm = monitor.alarms[-1].to_json() if monitor.alarms else None
        result: dict[str, Any] = {
            "rows": monitor.rows,
            "alarms": len(monitor.alarms),
            "changed": int(bool(monitor.alarms)),
            "since_row": monitor.last_change,
            "gathering": 0 if monitor.gathering is None else len(monitor.gathering),
            "reference_rows": len(self._run_reference.reference),
            "other_model_rows": self._other_model_rows,
            **{f"evidence_{name}": level for name, level in monitor.levels.items()},
            "between_alarms": monitor.between,
            "by": self._vector_source,
            "against": monitor.reference.description,
            "unwatched": monitor.unwatched,
            "last_alarm": last_alarm,
        }
        return {**result, **self._accuracy_summary(monitor.rows), **self._label_summary()}

    def state(self) -> Mapping[str, Any]:
        self._process_waiting()
        return {
            "by": self._vector_source,
            "monitor": None if self._monitor is None else self._monitor.to_json(),
            "harm": None if self._harm_watch is None else self._harm_watch.to_json(),
            "harmful": self._harm_found,
            "labels": self._labels,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        try:
            if state["by"] is None:
                return
            self._start_monitor(str(state["by"]))
            assert self._monitor is not None
            self._monitor = DriftMonitor.from_json(state["monitor"], self._monitor.reference)
            # The setting may have changed since.
            self._monitor = replace(self._monitor, between=self._alarm_distance)
            if self._harm_watch is not None and state["harm"] is not None:
                self._harm_watch = self._harm_watch.with_saved_state(state["harm"])
            self._harm_found = state["harmful"]
            self._labels = [(float(a), float(b)) for a, b in state["labels"]]
        except (KeyError, TypeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error

    def _start_monitor(self, source: str) -> None:
        self._vector_source = source
        self._monitor = DriftMonitor.of_reference(self._reference, self._alarm_distance)

    @property
    def _reference(self) -> Reference:
        return (
            self._run_reference.reference
            if self._vector_source == BY_MODEL
            else self._run_reference.with_word_vectors()
        )

    def _drift_rows(self, served: Served) -> DriftRows:
        texts = texts_of(served.rows, self._facts, self._data)
        answers, vectors = served.predictions.answers, served.predictions.vectors
        labels, confidence = (
            [_top_prediction(one) for one in answers],
            [one.confidence for one in answers],
        )
        if self._vector_source == BY_WORDS:
            vectors = None if texts is None else hashed_word_vectors(texts)
        names = tuple(f"{served.request}/{n}" for n in range(len(answers)))
        classes = self._run_reference.reference.classes
        return drift_rows(self._facts.task, classes, texts, labels, confidence, vectors, names)

    def _process_waiting(self) -> None:
        """Process the buffered rows in one step; store alarms and new distributions as events."""
        if not self._waiting or self._monitor is None:
            return
        rows, self._waiting = concatenate_rows(self._waiting), []
        recent = [] if self._recent is None else [self._recent]
        window = concatenate_rows([*recent, rows])
        self._recent = window.take(slice(max(0, len(window) - WINDOW_ROWS), None))
        before = self._monitor
        self._monitor = before.add(rows)
        for alarm in self._monitor.alarms[len(before.alarms) :]:
            self._events.append((ALARM, self._alarm_event(alarm)))
        regime = self._monitor.new_reference_rows
        if regime is not None and before.first_row != self._monitor.first_row:
            self._events.append((NEW_DISTRIBUTION, self._distribution_event(regime)))

    def _alarm_event(self, alarm: Alarm) -> dict[str, Any]:
        when = f"since about row {alarm.since:,}, detected at row {alarm.at:,}"
        by = "" if alarm.by == ROW_VECTORS else f" ({alarm.by})"
        because = f"{alarm.side} differ from the {alarm.against}{by} {when}"
        return {**alarm.to_json(), "because": because, "between_alarms": self._alarm_distance}

    def _distribution_event(self, rows: DriftRows) -> dict[str, Any]:
        """Describe the new distribution, compared with the reference."""
        assert self._monitor is not None
        comparison = compare_rows(self._reference, rows, between=self._alarm_distance).to_json()
        hide = mask_personal if self._mask else str
        examples = [
            {"row": one["row"], **({"text": hide(one["text"])} if self._log_texts else {})}
            for one in comparison["examples"]
        ]
        keys = ("verdict", "differ", "inputs", "classes", "facts", "accuracy", "terms")
        event = {key: comparison[key] for key in keys}
        differences = ", ".join(comparison["differ"])
        outcome = f" differ in: {differences}" if differences else ": no difference is significant"
        event["because"] = f"{len(rows):,} rows of the new distribution{outcome}"
        event |= {"examples": examples, "since": self._monitor.last_change, "rows": len(rows)}
        result: dict[str, Any] = to_json(event)
        return result

    def _accuracy_summary(self, rows: int) -> dict[str, Any]:
        due_at = 0 if self._accuracy is None else self._accuracy[0]
        if self._recent is not None and rows >= due_at:
            wait = int(np.clip(rows // 10, MIN_WAIT_ROWS, MAX_WAIT_ROWS))
            self._accuracy = (rows + wait, self._estimate_accuracy(self._recent))
        if self._accuracy is None:
            return {}
        estimate = self._accuracy[1]
        if estimate.value is None:
            return {"accuracy_estimated": None, "accuracy_why": estimate.why}
        return {
            "accuracy_estimated": estimate.value,
            "accuracy_low": estimate.low,
            "accuracy_high": estimate.high,
            "accuracy_rows": len(self._recent or ()),
        }

    def _estimate_accuracy(self, recent: DriftRows) -> Estimate:
        reference, comparison = self._reference, None
        vectors, new_vectors = reference.rows.vectors, recent.vectors
        if reference.correct is not None and vectors is not None and new_vectors is not None:
            finite = np.isfinite(new_vectors).all(axis=1)
            comparison = compare_vectors(vectors, new_vectors[finite])
        weigh = comparison is not None and (comparison.area.low or 0) > 0.5
        return unlabelled_accuracy(reference, recent, comparison, weigh=weigh)

    def _label_summary(self) -> dict[str, Any]:
        if self._harm_watch is None:
            return {}
        result: dict[str, Any] = {
            "labels": len(self._labels),
            "labels_not_even": self._uneven_labels,
            "labels_of_unknown_rows": self._unknown_labels,
            "labels_of_a_row_again": self._repeated_labels,
            "harm_evidence": self._harm_watch.detector.level,
            "harmful": int(self._harm_found is not None),
        }
        if self._labels and self._recent is not None:
            correct, confidence = np.array(self._labels).T
            unlabelled = self._recent.numbers.get(CONFIDENCE, np.zeros(0))
            estimate = powered_accuracy(correct, confidence, unlabelled)
            result["accuracy_labelled"] = estimate.value
            result |= {
                "accuracy_labelled_low": estimate.low,
                "accuracy_labelled_high": estimate.high,
            }
        return result


def texts_of(rows: Sequence[Row], facts: EngineFacts, data: DataPart) -> tuple[str, ...] | None:
    """The input texts, as ``analyses.row_texts.read_texts`` gives them for a table; ``None`` for
    images, and where a template makes the text from columns."""
    if facts.task in IMAGE_TASKS or data.template:
        return None
    columns = facts.columns[: max(1, len(data.text or ()))]
    return tuple(PAIR.join(_text(row.get(column)) for column in columns) for row in rows)


def _text(cell: Any) -> str:
    if isinstance(cell, list | tuple):
        return " ".join(map(str, cell))
    return "" if cell is None else str(cell)


def _top_prediction(answer: RowPrediction) -> Any:
    """The model's prediction, also where the threshold leaves the row to an annotator."""
    if answer.prediction is None and answer.probabilities:
        return max(answer.probabilities, key=lambda name: answer.probabilities[name])  # type: ignore[index]
    return answer.prediction


def same_answer(prediction: Any, label: Any, in_order: bool = True) -> bool:
    """Whether a label equals the prediction; lists by their members, ``in_order`` or as sets."""
    if isinstance(prediction, list | tuple) and isinstance(label, list | tuple):
        one, other = [str(x) for x in prediction], [str(x) for x in label]
        return one == other if in_order else sorted(one) == sorted(other)
    return str(prediction).strip().casefold() == str(label).strip().casefold()


class LazyDriftObserver:
    """A drift observer that ``load`` creates on first use, for the model in service, whose name
    ``model`` returns."""

    def __init__(
        self,
        load: Callable[[], DriftObserver],
        log: Callable[[str], None],
        model: Callable[[], str] = lambda: "",
    ) -> None:
        self._load, self._log, self._model = load, log, model
        self._model_name = model()
        self._observer: DriftObserver | None = None
        self._pending_state: Mapping[str, Any] | None = None
        self._reason = ""
        # Events of the previous model that were not collected yet.
        self._pending_events: list[tuple[str, Mapping[str, Any]]] = []

    @property
    def name(self) -> str:
        return NAME

    def start(self) -> None:
        """Create the observer, or record why there is none."""
        if self._observer is not None or self._reason:
            return
        try:
            self._observer = self._load()
        except InputError as error:
            self._reason = str(error).split("\n")[0]
            self._log(f"drift is not monitored: {error}")
            return
        if self._pending_state is not None:
            state, self._pending_state = self._pending_state, None
            try:
                self._observer.restore(state)
            except ValueError as error:
                self._log(f"drift starts again without its stored state: {error}")

    def observe(self, served: Served) -> None:
        if (model := self._model()) != self._model_name:
            self._log(f"drift: now monitoring {model}, which replaced {self._model_name}")
            if self._observer is not None:
                self._pending_events += self._observer.events()
            self._model_name, self._observer, self._pending_state, self._reason = (
                model,
                None,
                None,
                "",
            )
        self.start()
        if self._observer is not None:
            self._observer.observe(served)

    def add_feedback(self, feedback: Feedback) -> None:
        if self._observer is not None:
            self._observer.add_feedback(feedback)

    def state(self) -> Mapping[str, Any]:
        # A service may end when another model serves already and has answered nothing yet.
        own_state = {"model": self._model_name}
        if self._observer is not None:
            return {**own_state, **self._observer.state()}
        return {**own_state, **(self._pending_state or {"by": None})}

    def restore(self, state: Mapping[str, Any]) -> None:
        if (stored_model := state.get("model", self._model_name)) != self._model_name:
            raise ValueError(f"the stored state belongs to {stored_model}")
        if self._observer is None:
            self._pending_state = dict(state)
        else:
            self._observer.restore(state)

    def events(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        events, self._pending_events = self._pending_events, []
        return [*events, *(() if self._observer is None else self._observer.events())]

    def summary(self) -> Mapping[str, Any]:
        if self._observer is not None:
            return {"watched": 1, **self._observer.summary()}
        return {"watched": 0, "why": self._reason or "no request has arrived yet"}


def drift_observers(
    served_facts: Callable[[], EngineFacts],
    settings: Serving,
    log: Callable[[str], None],
    notify: DecisionListener,
) -> list[LazyDriftObserver]:
    """The drift observer of the model in service (``served_facts``); none where ``serve.drift`` is
    false."""
    if not settings.drift:
        return []

    def load() -> DriftObserver:
        facts = served_facts()
        # In a separate thread, where nothing else listens.
        with decisions_to(lambda one: log(f"reference of drift: {one.because}")):
            finished_run = FinishedRun(facts.run)
            # Computed where it is missing, by predicting its rows.
            reference = load_reference(finished_run)
        return DriftObserver(
            reference,
            facts,
            finished_run.recipe.data,
            alarm_distance=settings.between_alarms,
            log_texts=settings.log_texts,
            mask=settings.mask,
        )

    observer = LazyDriftObserver(load, log, lambda: served_facts().model)
    run = served_facts().run
    if (run / REFERENCE).is_file():
        observer.start()
    else:
        because = f"{run} has no {REFERENCE} yet; it is computed after the first request"
        notify(Decision("drift", "monitored from the first request on", because))
    try:
        valid = read_result(run).get("valid") or {}
    except RunError:
        valid = {}
    rows = valid.get("n")
    if isinstance(rows, int) and rows < MIN_REFERENCE_ROWS and not valid.get("out_of_fold"):
        because_few = (
            f"the run has {count_phrase(rows, 'validation row')}, and the test of the inputs needs "
            f"{MIN_REFERENCE_ROWS}; predicted classes and confidence are monitored from "
            f"{MIN_ROWS} reference rows on"
        )
        notify(Decision("drift", "inputs are not monitored", because_few, prominent=True))
    return [observer]
