"""``holdfast drift``: compare the rows of a file with a run's reference rows, and estimate the
accuracy on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.analyses.row_texts import read_texts
from holdfast.analyses.vectors import predict_with_vectors
from holdfast.contract.inference import InferenceOptions, PredictionRequest
from holdfast.core.decisions import notify
from holdfast.core.errors import DataError, RecipeError
from holdfast.core.printable import bounded_repr
from holdfast.core.records import Decision, Floats, to_json
from holdfast.core.seeds import generator
from holdfast.core.tasks import GENERATIVE_TASKS
from holdfast.data.labels.spelling import match_spellings
from holdfast.plugins.drift.monitor import ROWS_BETWEEN_ALARMS
from holdfast.plugins.drift.report import DriftReport, compare_rows
from holdfast.plugins.drift.rows import hashed_word_vectors
from holdfast.plugins.drift.run_rows import drift_rows, load_reference, predicted_classes
from holdfast.runs.finished_run import FinishedRun

# Rows that are compared; fewer for generative models, whose outputs take longest.
MAX_ROWS, MAX_GENERATED_ROWS, MIN_ROWS = 5000, 200, 20
# The number of classes that a message lists.
MAX_LISTED = 6


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Drifted:
    """The drift report on the rows of ``data``. ``positions`` [n] are the 0-based rows of the file
    that were compared, in their order. ``n_unread`` counts rows without a text, ``n_unknown``
    labels that are not a class of the run."""

    run: Path
    data: str
    task: str
    report: DriftReport
    positions: Sequence[int]
    of: int
    n_unread: int = 0
    n_unknown: int = 0

    def __repr__(self) -> str:
        # Shown at a Python prompt, so without the vectors of every row.
        of = f"{len(self.positions):,} rows of {self.data}"
        return f"Drifted({self.verdict!r}, {of}, against {self.run})"

    @property
    def verdict(self) -> str:
        return self.report.verdict

    def to_json(self) -> dict[str, Any]:
        report_json = self.report.to_json()
        row_numbers = [(alarm, key) for alarm in report_json["alarms"] for key in ("at", "since")]
        row_numbers += [(example, "row") for example in report_json["examples"]]
        if report_json["harm"] and report_json["harm"]["since"] is not None:
            row_numbers.append((report_json["harm"], "since"))
        for block, key in row_numbers:
            block[key] = int(self.positions[int(block[key])])
        left_out = {"without_text": self.n_unread, "unknown_labels": self.n_unknown}
        document = {
            "schema": 1,
            "task": self.task,
            **report_json,
            "of": self.of,
            "left_out": left_out,
        }
        return dict(to_json(document))


def drift(
    run: Path,
    data: str,
    options: InferenceOptions | None = None,
    *,
    between: int = ROWS_BETWEEN_ALARMS,
) -> Drifted:
    """Compare the rows of a file, in its order, with the reference rows of a finished run.

    Where the file has the run's label column, its labels are used. ``between`` is the mean number
    of clean rows between false alarms.

    Raises ``RunError`` for a folder that is not a finished run, or has no reference and no rows to
    compute one from, and ``DataError`` for a file with fewer than 20 readable rows.
    """
    if between < 1:
        raise RecipeError("drift.between_alarms", "must be at least 1", between, "Give 100000.")
    finished_run = FinishedRun(run)
    task = str(finished_run.result["task"])
    run_reference = load_reference(finished_run)
    predictor = finished_run.predictor
    request = predictor.read_rows(data, options)
    notify(*request.decisions)
    table, count = request.table, len(request.table)
    if count < MIN_ROWS:
        rule = f"has too few readable rows: drift needs at least {MIN_ROWS}"
        raise DataError(data, rule, count, "Give more rows.")
    limit = MAX_GENERATED_ROWS if task in GENERATIVE_TASKS else MAX_ROWS
    sample = np.arange(count)
    if count > limit:
        order = generator(0, "rows to look at").permutation(count)
        sample = np.sort(order[:limit])
        because = "a sample is enough for the tests, and each row needs a prediction"
        notify(Decision("rows", f"{limit:,} of {count:,}, drawn uniformly at random", because))
        table = table.take(sample)
    positions = np.asarray(table.column("row"), dtype=np.int64)
    answers, vectors = predict_with_vectors(predictor, table)
    texts = read_texts(table)
    reference = run_reference.reference
    if run_reference.has_words_only or vectors is None:
        reference, vectors = (
            run_reference.with_word_vectors(),
            None if texts is None else hashed_word_vectors(texts),
        )
    predictions, confidence, classes = answers.predictions, answers.confidence, reference.classes
    known = predicted_classes(task, classes, predictions)
    rows = drift_rows(task, known, texts, predictions, confidence, vectors)
    label_option = options.label if options else None
    labels = _file_labels(request, classes, label_option, finished_run.recipe.data.label)
    errors, n_unknown = None, 0
    if labels is not None:
        labels = [labels[int(row)] for row in positions]
        errors, n_unknown = _prediction_errors(labels, predictions, classes, label_option)
    report = compare_rows(reference, rows, errors=errors, between=between)
    unread = len(request.raw.table) - count
    return Drifted(run, data, task, report, positions.tolist(), count, unread, n_unknown)


def _file_labels(
    request: PredictionRequest,
    classes: Sequence[str],
    label_option: str | None,
    run_label: str | None,
) -> list[Any] | None:
    """The labels in the file's column ``label_option``, or else in the run's label column
    ``run_label``; ``None`` where the column is missing, or where the predictions are not classes.
    """
    column_name = label_option or run_label
    if classes and column_name in request.raw.names:
        column = request.raw.table.column(column_name)[:]
        return list(column.to_pylist() if hasattr(column, "to_pylist") else column)
    if label_option is not None:
        rule = "is not a column of the file" if classes else "needs a run that predicts classes"
        raise DataError(f"--label {label_option}", rule, None, "Leave out --label.")
    return None


def _prediction_errors(
    labels: Sequence[Any],
    predictions: Sequence[object],
    classes: Sequence[str],
    label_option: str | None,
) -> tuple[Floats | None, int]:
    """Which predictions are wrong by the labels [n], NaN for rows without a label (``None`` where
    no row has one), and the number of labels that are not a class."""
    spelled = match_spellings({str(x) for x in labels if x}, sorted(classes))
    spelled |= {name: name for name in classes}
    unknown = [str(one) for one in labels if one and spelled.get(str(one)) is None]
    if unknown:
        known = (
            "Known: "
            + ", ".join(classes[:MAX_LISTED])
            + (", …" if len(classes) > MAX_LISTED else ".")
        )
        rule = f"{len(unknown):,} of {len(labels):,} labels are not a class of the run"
        if label_option is not None and len(unknown) == len(labels):
            raise DataError(
                f"--label {label_option}", "contains no class of the run", unknown[0], known
            )
        because = f"{rule}, e.g. {bounded_repr(unknown[0])}. {known}"
        notify(Decision("labels", "unknown labels are not used", because))
    names = [spelled.get(str(label)) if label else None for label in labels]
    pairs = zip(names, predictions, strict=True)
    errors = np.array(
        [np.nan if name is None else float(name != str(prediction)) for name, prediction in pairs]
    )
    return (errors if np.isfinite(errors).any() else None), len(unknown)
