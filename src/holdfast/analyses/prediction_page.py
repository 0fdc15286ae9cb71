"""``holdfast report RUN --page``: the stored predictions of a finished run with their rows. No
model is run.

The predictions come from ``predictions.parquet``; for a run without test rows, from those for its
validation rows (``answers.parquet``). The texts are read again from the source. If the source is
missing or changed, only the few texts that the run stored are shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Required, TypedDict

import numpy as np

from holdfast.contract.predictions import SplitName, rows_of
from holdfast.contract.run_folder import unsealed_decisions
from holdfast.core.decisions import notify
from holdfast.core.errors import DataError, MachineError, RunError
from holdfast.core.outputs import check_output, open_output
from holdfast.core.records import Decision, finite
from holdfast.core.tasks import GENERATIVE_TASKS, IMAGE_TASKS, TAGGING_TASKS
from holdfast.data.images.decode import thumbnail
from holdfast.report.numbers import moment
from holdfast.report.predictions_page import (
    MAX_PROBABILITIES,
    RecordedPredictions,
    RecordedRow,
    render_predictions,
)
from holdfast.report.public import base_name, public_name
from holdfast.runs.finished_run import FinishedRun
from holdfast.runs.threshold import load_rule

if TYPE_CHECKING:
    import pyarrow as pa

    from holdfast.data.table import Table
    from holdfast.runs.threshold import ThresholdRule

THUMBNAIL_SIZE = 96
HARDEST = "the hardest, since the run stores no text of the others"
WRITTEN = "those with generated text"


class PredictionRow(TypedDict, total=False):
    """One row of the stored predictions; the columns depend on the task."""

    row: Required[int]
    label: Any
    prediction: Any
    probabilities: list[float | None] | None
    loss: float | None
    error: float | None


class StoredTextRow(TypedDict, total=False):
    """A row whose texts are stored in ``result.json``."""

    row: int
    text: str | None
    source: str
    reference: str
    generated: str
    untuned: str | None
    image: str


def write_page(run: Path, page: Path, *, force: bool = False) -> None:
    """Write the page of a finished ``run`` to the file ``page``, and report what it contains.

    Raises ``RunError`` for a folder that is not a finished run, a run without stored predictions,
    and a file that may not be written.
    """
    target = check_output(page, [run], force=force)
    recorded, decisions = read_recorded(run)
    rendered = render_predictions(recorded)
    with open_output(target) as stream:
        stream.write(rendered.html.encode())
    because = recorded.which or "all of them fit on the page"
    if rendered.rows < len(recorded.rows):
        because = "sampled uniformly with the run's seed, to keep the page below 2 MB"
    shown = Decision(
        "examples", f"{rendered.rows:,} of {rendered.of:,} {recorded.side} rows", because
    )
    private = Decision(
        "privacy",
        "the page contains texts from your data",
        "share it only with people who may read them",
        prominent=True,
    )
    notify(*unsealed_decisions([run]), *decisions, shown, private)


def read_recorded(run: Path) -> tuple[RecordedPredictions, tuple[Decision, ...]]:
    """The data of the page of a finished run, and the decisions about its rows."""
    finished_run = FinishedRun(run)
    result = finished_run.result
    split = _shown_split(finished_run)
    columns = finished_run.stored(split)
    table, missing_source = _source_table(finished_run, split, columns)
    task = str(result.get("task"))
    rule, rule_decisions = load_rule([run])
    stored_texts = _stored_texts(result)
    predictions = columns.to_pylist()
    rows = _recorded_rows(finished_run, task, predictions, table, stored_texts)
    rows = _apply_threshold(rows, predictions, rule)
    if not rows:
        raise RunError(
            str(run),
            "has no stored prediction that can be shown",
            None,
            "Train again with --set generate.rows=200, so that the run stores generated texts."
            if task in GENERATIVE_TASKS
            else "Its source is missing: restore it, or train again.",
        )
    files = (result.get("data") or {}).get("files") or [""]
    recorded = RecordedPredictions(
        task=task,
        model=public_name(str(result.get("model") or "")),
        source=base_name(str(files[0])),
        side="test" if split == "test" else "validation",
        rows=tuple(rows),
        of=len(predictions),
        classes=finished_run.names,
        carried=_class_words(result),
        created=moment(str(result.get("created") or "")),
        which=_row_selection(task, len(rows) < len(predictions), table is None),
        chosen=table is None and task not in GENERATIVE_TASKS,
        writes=task in GENERATIVE_TASKS,
        seed=int(result.get("seed") or 0),
        score=_score_sentence(result, split),
    )
    return recorded, (*rule_decisions, *missing_source)


def _score_sentence(result: Mapping[str, Any], split: SplitName) -> str:
    """The run's own score as a sentence. It covers all rows; the page may show only some of
    them."""
    block = result.get(split) or {}
    accuracy = (block.get("metrics") or {}).get("accuracy") or {}
    if accuracy.get("value") is None or accuracy.get("low") is None:
        return ""
    value, low, high = (f"{100 * accuracy[end]:.1f}" for end in ("value", "low", "high"))
    rows = f"{block['n']:,} {'test' if split == 'test' else 'validation'} rows"
    level = f"{100 * accuracy.get('level', 0.95):.0f}"
    return f"Accuracy {value} % ({level} % CI {low}–{high}, {rows}), if new rows are like these."


def _row_selection(task: str, partial: bool, source_missing: bool) -> str:
    if not partial:
        return ""
    return WRITTEN if task in GENERATIVE_TASKS else HARDEST if source_missing else ""


def _shown_split(finished_run: FinishedRun) -> SplitName:
    if finished_run.has("test") and len(finished_run.stored("test")):
        return "test"
    if finished_run.has("valid") and len(finished_run.stored("valid")):
        return "valid"
    rule = "has no stored predictions for test or validation rows"
    remedy = "Train again with a test set, into another folder."
    raise RunError(str(finished_run.run), rule, None, remedy)


def _source_table(
    finished_run: FinishedRun, split: SplitName, columns: pa.Table
) -> tuple[Table | None, tuple[Decision, ...]]:
    """The rows in the order of their predictions; ``None`` if the source has changed."""
    try:
        return rows_of(finished_run.table(split), columns["row"].to_numpy()), ()
    except (DataError, RunError, MachineError) as error:
        because = f"the source has changed: {error.what} {error.rule}"
        return None, (Decision("texts", "only those stored in the run", because),)


def _stored_texts(result: Mapping[str, Any]) -> dict[int, StoredTextRow]:
    """Rows whose texts are stored in ``result.json``: the hardest, and those with generated
    text."""
    hardest = result.get("hardest") or {}
    written = (result.get("generations") or {}).get("test") or ()
    lists = (hardest.get("loss") or (), hardest.get("confidently_wrong") or (), written)
    return {int(one["row"]): one for lines in lists for one in lines if "row" in one}


def _recorded_rows(
    finished_run: FinishedRun,
    task: str,
    predictions: Sequence[PredictionRow],
    table: Table | None,
    stored_texts: Mapping[int, StoredTextRow],
) -> list[RecordedRow]:
    texts = _texts(table, task)
    recorded = []
    for position, line in enumerate(predictions):
        stored: StoredTextRow = stored_texts.get(int(line["row"]), {})
        if task in GENERATIVE_TASKS:
            prediction = line.get("prediction")
            prediction = stored.get("generated") if prediction is None else prediction
            # Most rows of such a run have a loss and no generated text.
            if prediction is None:
                continue
            label = stored.get("reference") or line.get("label") or ""
            text = stored.get("source") or (texts[position] if texts else None)
        else:
            prediction, label = line["prediction"], line["label"]
            text = texts[position] if texts else stored.get("text")
        if table is None or "tags" not in table.rows.column_names:
            words: tuple[str, ...] = ()
        else:
            words = tuple(map(str, table.column("tokens")[position]))
        image = _image(table, position, stored)
        if text is None and not words and not image:
            continue
        recorded.append(
            RecordedRow(
                row=int(line["row"]),
                text=text or "",
                said=prediction,
                label=label,
                right=_is_correct(task, line, prediction, label),
                sure=_confidence(task, line),
                chances=_top_probabilities(finished_run.names, line),
                loss=finite(line.get("loss")),
                error=finite(line.get("error")),
                start=stored.get("untuned"),
                words=words,
                picture=image,
            )
        )
    return recorded


def _texts(table: Table | None, task: str) -> list[str] | None:
    if table is None or task in TAGGING_TASKS:
        return None
    if task in IMAGE_TASKS:
        return [base_name(str(path)) for path in table.column("path")]
    texts = [str(text) for text in table.column("text")]
    if "text_pair" not in table.rows.column_names:
        return texts
    pairs = table.column("text_pair")
    return [f"{one}\n\n{other}" for one, other in zip(texts, pairs, strict=True)]


def _image(table: Table | None, position: int, stored: Mapping[str, object]) -> str:
    if table is not None and "path" in table.rows.column_names:
        return thumbnail(str(table.column("path")[position]), THUMBNAIL_SIZE)
    return str(stored.get("image") or "")


def _is_correct(task: str, line: PredictionRow, prediction: object, label: object) -> bool | None:
    # A number has an error instead; for a generated text many outputs can be correct.
    if task in GENERATIVE_TASKS or "error" in line:
        return None
    return bool(prediction == label)


def _confidence(task: str, line: PredictionRow) -> float | None:
    probabilities = [p for p in line.get("probabilities") or () if p is not None]
    if not probabilities:
        return None
    if not isinstance(line["label"], list):
        return float(max(probabilities))
    # For a sentence the least confident word; for several labels the least confident yes or no.
    if task in TAGGING_TASKS:
        return float(min(probabilities))
    return float(min(max(p, 1 - p) for p in probabilities))


def _top_probabilities(
    names: Sequence[str], line: Mapping[str, Any]
) -> tuple[tuple[str, float], ...]:
    probabilities = line.get("probabilities") or ()
    if len(probabilities) != len(names) or any(p is None for p in probabilities):
        return ()
    ranked = sorted(zip(names, probabilities, strict=True), key=lambda pair: -pair[1])
    return tuple((name, float(p)) for name, p in ranked[:MAX_PROBABILITIES])


def _apply_threshold(
    rows: list[RecordedRow], predictions: Sequence[PredictionRow], rule: ThresholdRule | None
) -> list[RecordedRow]:
    if rule is None:
        return rows
    by_row = {int(line["row"]): line.get("probabilities") for line in predictions}
    probabilities = [by_row[one.row] for one in rows]
    matrix = np.array(probabilities, dtype=np.float64) if all(probabilities) else None
    _, _, why = rule.apply([one.said for one in rows], [one.sure for one in rows], matrix)
    return [replace(one, left=reason) for one, reason in zip(rows, why, strict=True)]


def _class_words(result: Mapping[str, Any]) -> dict[str, list[str]]:
    """The words that the run's own test confirmed to carry a class."""
    words_by_class: dict[str, list[str]] = {}
    for one in (result.get("reasons") or {}).get("words") or ():
        if one.get("confirmed"):
            words_by_class.setdefault(str(one["class"]), []).append(str(one["words"]))
    return words_by_class
