"""``holdfast drift``: are the rows of a file like those that a run was judged by, and how right is
its model about them?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.analyses.row_texts import read_texts
from holdfast.analyses.vectors import predict_with_vectors
from holdfast.contract.inference import Options, PredictionRequest
from holdfast.core.decisions import notify
from holdfast.core.errors import DataError, RecipeError
from holdfast.core.printable import shown
from holdfast.core.records import Decision, Floats, to_json
from holdfast.core.seeds import generator
from holdfast.core.tasks import WRITERS
from holdfast.data.labels.spelling import match_spellings
from holdfast.plugins.drift.monitor import BETWEEN
from holdfast.plugins.drift.report import DriftReport, compare_rows
from holdfast.plugins.drift.rows import hashed_words
from holdfast.plugins.drift.run_rows import answered_classes, held_reference, rows_of_answers
from holdfast.runs.finished_run import FinishedRun

# Rows that are asked about; of a model that writes, whose answers take longest.
MOST, MOST_WRITTEN, FEWEST = 5000, 200, 20
# Classes that a message names.
SHOWN = 6


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Drifted:
    """What was found of the rows of ``data``. ``positions`` [n] are the 0-based rows of the file
    that were looked at, in their order; ``unread`` how many the model cannot read, ``unknown`` how
    many of the labels name no class of the run."""

    run: Path
    data: str
    task: str
    found: DriftReport
    positions: Sequence[int]
    of: int
    unread: int = 0
    unknown: int = 0

    def __repr__(self) -> str:
        # A prompt shows it: not the vectors of every row.
        of = f"{len(self.positions):,} rows of {self.data}"
        return f"Drifted({self.verdict!r}, {of}, against {self.run})"

    @property
    def verdict(self) -> str:
        return self.found.verdict

    def to_json(self) -> dict[str, Any]:
        made = self.found.to_json()
        places = [(alarm, key) for alarm in made["alarms"] for key in ("at", "since")]
        places += [(example, "row") for example in made["examples"]]
        if made["harm"] and made["harm"]["since"] is not None:
            places.append((made["harm"], "since"))
        for block, key in places:
            block[key] = int(self.positions[int(block[key])])
        left_out = {"without_text": self.unread, "unknown_labels": self.unknown}
        whole = {"schema": 1, "task": self.task, **made, "of": self.of, "left_out": left_out}
        return dict(to_json(whole))


def drift(
    run: Path, data: str, options: Options | None = None, *, between: int = BETWEEN
) -> Drifted:
    """The rows of a file, in its order, against the validation rows of a finished run.

    Where the file has the run's label column, the labels that it gives are used. ``between`` is the
    number of clean rows between alarms that tell since when rows differ.

    Raises ``RunError`` for a folder that is no finished run or has no reference and no rows to make
    one of, ``DataError`` for a file of fewer than 20 rows that can be read.
    """
    if between < 1:
        raise RecipeError("drift.between_alarms", "must be at least 1", between, "Give 100000.")
    again = FinishedRun(run)
    task = str(again.result["task"])
    held = held_reference(again)
    predictor = again.predictor
    asked = predictor.ask(data, options)
    notify(*asked.decisions)
    table, count = asked.table, len(asked.table)
    if count < FEWEST:
        rule = f"has fewer than {FEWEST} rows that can be read, from which nothing can be told"
        raise DataError(data, rule, count, "Give more rows.")
    most = MOST_WRITTEN if task in WRITERS else MOST
    chosen = np.arange(count)
    if count > most:
        order = generator(0, "rows to look at").permutation(count)
        chosen = np.sort(order[:most])
        because = f"{most:,} say as much, and each must be answered"
        notify(Decision("rows", f"{most:,} of {count:,}, drawn evenly", because))
        table = table.take(chosen)
    positions = np.asarray(table.column("row"), dtype=np.int64)
    answers, vectors = predict_with_vectors(predictor, table)
    texts = read_texts(table)
    reference = held.reference
    if held.by_words or vectors is None:
        reference, vectors = held.of_words(), None if texts is None else hashed_words(texts)
    said, sure, classes = answers.predictions, answers.confidence, reference.classes
    known = answered_classes(task, classes, said)
    rows = rows_of_answers(task, known, texts, said, sure, vectors)
    named = options.label if options else None
    labels = _labels(asked, classes, named, again.recipe.data.label)
    wrong, unknown = None, 0
    if labels is not None:
        labels = [labels[int(row)] for row in positions]
        wrong, unknown = _wrong(labels, said, classes, named)
    found = compare_rows(reference, rows, wrong=wrong, between=between)
    unread = len(asked.raw.table) - count
    return Drifted(run, data, task, found, positions.tolist(), count, unread, unknown)


def _labels(
    asked: PredictionRequest, classes: Sequence[str], named: str | None, usual: str | None
) -> list[Any] | None:
    """The file's own labels, of the column that was ``named`` or that the run has; ``None`` where
    there are none, or answers are no classes."""
    wanted = named or usual
    if classes and wanted in asked.raw.names:
        column = asked.raw.table.column(wanted)[:]
        return list(column.to_pylist() if hasattr(column, "to_pylist") else column)
    if named is not None:
        rule = "is not a column of the file" if classes else "needs classes"
        raise DataError(f"--label {named}", rule, None, "Leave it out.")
    return None


def _wrong(
    labels: Sequence[Any], predictions: Sequence[object], classes: Sequence[str], named: str | None
) -> tuple[Floats | None, int]:
    """Which answers the labels call wrong [n], NaN where there is none (``None`` where there is
    none of any), and how many labels name no class."""
    spelled = match_spellings({str(x) for x in labels if x}, sorted(classes))
    spelled |= {name: name for name in classes}
    strange = [str(one) for one in labels if one and spelled.get(str(one)) is None]
    if strange:
        known = "Known: " + ", ".join(classes[:SHOWN]) + (", …" if len(classes) > SHOWN else ".")
        rule = f"{len(strange):,} of {len(labels):,} labels are no class of the run"
        if named is not None and len(strange) == len(labels):
            raise DataError(f"--label {named}", "holds no class of the run", strange[0], known)
        because = f"{rule}, e.g. {shown(strange[0])}. {known}"
        notify(Decision("labels", "those are not used", because))
    names = [spelled.get(str(label)) if label else None for label in labels]
    pairs = zip(names, predictions, strict=True)
    found = np.array([np.nan if name is None else float(name != str(said)) for name, said in pairs])
    return (found if np.isfinite(found).any() else None), len(strange)
