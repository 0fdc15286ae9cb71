"""One of two models that are compared: a finished run, the folder of a plain model, or a file of
predictions; and what it says of labelled rows."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.analyses.row_texts import AnswerKind
from holdfast.contract.inference import InferenceOptions
from holdfast.contract.run_folder import model_of, open_run
from holdfast.core.errors import DataError, ModelError, RunError
from holdfast.core.run_files import MODEL_FOLDER, RESULT_FILE
from holdfast.data.source import read_source
from holdfast.data.table import Table
from holdfast.recipe import DataPart, Recipe
from holdfast.runs.predictor import Predictor

ROW, PREDICTION = "row", "prediction"
GIVE_FILE = "Write its answers into a file with columns `row` and `prediction`, and give that."


@dataclass(frozen=True)
class Contender:
    """``path`` as the user named it. ``predictor`` answers for a run or a plain model; ``said`` are
    the answers of a file of predictions by source row."""

    path: str
    run: Path | None = None
    predictor: Predictor | None = None
    said: Mapping[int, Any] | None = None

    @property
    def names(self) -> tuple[str, ...] | None:
        """Its classes or labels; ``None`` where it has none, or does not say."""
        return None if self.predictor is None else self.predictor.names or None

    def read(self, data: str, options: InferenceOptions) -> Table:
        """The labelled rows of ``data`` as this model reads them."""
        assert self.predictor is not None
        return self.predictor.labelled(data, options).table

    def answers(self, data: str, options: InferenceOptions) -> dict[int, Any]:
        """Its answer to each row of ``data`` that it can read, by the row."""
        if self.said is not None:
            return dict(self.said)
        assert self.predictor is not None
        try:
            table = self.read(data, options)
        except DataError:
            # Labels that it does not know: the rows are there to be answered all the same.
            table = self.predictor.ask(data, options).table
        made = self.predictor.answer(table).predictions
        return dict(zip(table.column("row").tolist(), made, strict=True))


def contender(path: str, options: InferenceOptions) -> Contender:
    """What lies at ``path``. Raises ``RunError`` or ``ModelError`` where it is none of these."""
    place = Path(path)
    if (place / RESULT_FILE).is_file():
        open_run(place)
        return Contender(path, run=place, predictor=Predictor.load(place))
    if place.is_dir():
        # The model of a run, named by itself, has seen what the run has.
        of = place.resolve().parent
        run = of if place.resolve().name == MODEL_FOLDER and (of / RESULT_FILE).is_file() else None
        folder = place if run is None else model_of(run)
        return Contender(path, run=run, predictor=_plain(folder, options))
    if not place.is_file():
        rule = "is neither a run, nor the folder of a model, nor a file of predictions"
        raise RunError(path, rule, None, "Name one that is there.")
    return Contender(path, said=_file(path))


def _plain(folder: Path, options: InferenceOptions) -> Predictor:
    """A predictor of a folder as plain Transformers saves it."""
    config = folder / "config.json"
    if not config.is_file():
        rule = "is no run (it has no result.json) and no model (it has no config.json)"
        raise RunError(str(folder), rule, None, "Name the folder of a finished run or of a model.")
    try:
        found = json.loads(config.read_text("utf-8"))
        architecture = str((found.get("architectures") or [""])[0])
    except (ValueError, AttributeError, TypeError):
        raise ModelError(str(config), "cannot be read", None, GIVE_FILE) from None
    part = DataPart(text=options.text, label=options.label)
    if architecture.endswith("ForImageClassification"):
        from holdfast.models.vision.vision import load_saved_vision
        from holdfast.tasks.images.task import ImagePredictor

        return Predictor(ImagePredictor([load_saved_vision(folder)], part), part)
    kinds = {"multi_label_classification": "several", "regression": "number"}
    if architecture.endswith("ForSequenceClassification"):
        from holdfast.models.encoders.checkpoint import load_saved
        from holdfast.tasks.classes.answers import TextPredictor
        from holdfast.tasks.number.losses import Scale

        labels = kinds.get(str(found.get("problem_type")), "class")
        saved = load_saved(folder, 2 if labels == "class" else 1)
        recipe = Recipe(task="text-classification", data=part)
        return Predictor(TextPredictor([saved], labels, recipe, Scale()), part)
    raise ModelError(
        str(folder), "is a plain model of a task that compare cannot ask", architecture, GIVE_FILE
    )


def _file(path: str) -> dict[int, Any]:
    """Predictions by row, as they stand there. Without a column ``row`` a prediction stands at its
    place."""
    if path.lower().endswith(".parquet"):
        import pyarrow.parquet as parquet

        from holdfast.core.input_errors import reading_errors

        with reading_errors(path, DataError, remedy="Give a file that `holdfast predict --out` wrote."):
            table = parquet.read_table(path)
        columns = {name: table[name].to_pylist() for name in table.column_names}
    else:
        raw = read_source(path, None, None)
        columns = {name: raw.table[name].to_pylist() for name in raw.names}
    if PREDICTION not in columns:
        raise DataError(
            path,
            f"has no column {PREDICTION!r}",
            ", ".join(columns),
            "Give a file that `holdfast predict --out` wrote, or name your column so.",
        )
    rows = _rows(path, columns.get(ROW), len(columns[PREDICTION]))
    if columns.get("split") is not None:
        raise DataError(
            path,
            "holds answers to rows that a run learned from or was chosen by",
            "answers.parquet",
            "Give the run itself, or its predictions.parquet.",
        )
    return dict(zip(rows, columns[PREDICTION], strict=True))


def _rows(path: str, given: Sequence[str | int | float] | None, n: int) -> list[int]:
    if given is None:
        return list(range(n))
    try:
        rows = [int(one) for one in given]
    except (TypeError, ValueError):
        raise DataError(
            path, f"has a column {ROW!r} that holds no whole numbers", None, "Correct it."
        ) from None
    if len(set(rows)) < n:
        raise DataError(path, "answers a row twice", None, "Give one prediction a row.")
    return rows


# What labels of a kind are called, and how a predictor of one answers (``Predictor.answered``).
KINDS: Mapping[AnswerKind, tuple[str, str]] = {
    "class": ("classes", "text"),
    "text": ("texts", "text"),
    "number": ("numbers", "number"),
    "several": ("several labels a row", "list"),
    "tags": ("tags", "list"),
}


def answers_for(side: Contender, kind: AnswerKind, said: Mapping[int, object]) -> dict[int, Any]:
    """The answers of ``side`` as rows with labels of this ``kind`` are compared; an empty one is
    none. Raises ``RunError`` or ``DataError`` where they are of another kind, which would only look
    wrong."""
    called, answered = KINDS[kind]
    remedy = "Compare models of one task, on rows of that task."
    if side.predictor is not None and side.predictor.answered != answered:
        other = {"text": "texts or classes", "number": "numbers", "list": "lists"}
        rule = f"answers with {other[side.predictor.answered]}, and the labels of DATA are {called}"
        raise RunError(side.path, rule, None, remedy)
    made = {}
    for row, one in said.items():
        try:
            made[row] = _as(kind, one)
        except (TypeError, ValueError):
            rule = f"has an answer of another kind in row {row}: the labels of DATA are {called}"
            raise DataError(side.path, rule, str(one)[:60], remedy) from None
    return made


def _as(kind: AnswerKind, value: Any) -> Any:
    if value is None or (isinstance(value, str) and value == "") or value != value:
        return None
    if kind != "text" and isinstance(value, str) and value.startswith("["):
        # A list in a table of text is its JSON; of classes one such is a file of another task.
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    if kind in ("several", "tags"):
        if isinstance(value, str) and kind == "several":
            return [value]
        if isinstance(value, (str, int, float)):
            raise TypeError
        return [str(one) for one in value]
    if isinstance(value, (list, dict)):
        raise TypeError
    return float(value) if kind == "number" else value
