"""One of the two compared models and its predictions: a finished run, the folder of a plain model,
or a file of predictions."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.analyses.row_texts import LabelType
from holdfast.contract.inference import InferenceOptions
from holdfast.contract.run_folder import model_of, open_run
from holdfast.core.errors import DataError, ModelError, RunError
from holdfast.core.printable import shorten
from holdfast.core.run_files import MODEL_FOLDER, RESULT_FILE
from holdfast.data.source import read_source
from holdfast.data.table import Table
from holdfast.recipe import DataPart, Recipe
from holdfast.runs.predictor import Predictor

ROW, PREDICTION = "row", "prediction"
GIVE_ROWS = "Predict DATA itself: holdfast predict RUN DATA --out FILE."
GIVE_FILE = "Write its predictions into a file with columns `row` and `prediction`, and use that."


@dataclass(frozen=True)
class Contender:
    """``path`` as the user named it. ``predictor`` predicts for a run or a plain model; ``cells``
    are the columns of a file of predictions."""

    path: str
    run: Path | None = None
    predictor: Predictor | None = None
    cells: Mapping[str, Sequence[Any]] | None = None

    @property
    def names(self) -> tuple[str, ...] | None:
        """Its classes or labels; ``None`` if it has none, or if they are unknown."""
        return None if self.predictor is None else self.predictor.names or None

    def read(self, data: str, options: InferenceOptions) -> Table:
        """The labelled rows of ``data`` as this model reads them."""
        assert self.predictor is not None
        return self.predictor.read_labelled_rows(data, options).table

    def predict(self, data: str, options: InferenceOptions, labelled: Table) -> dict[int, Any]:
        """Its prediction for each row of ``data`` that it can read, by row. Raises ``DataError``
        for a file whose predictions are of other rows than the ``labelled`` ones of ``data``."""
        if self.cells is not None:
            rows = _row_numbers(self.path, self.cells, labelled.source_rows)
            _refuse_other_texts(self.path, self.cells, rows, labelled)
            return dict(zip(rows, self.cells[PREDICTION], strict=True))
        assert self.predictor is not None
        try:
            table = self.read(data, options)
        except DataError:
            # The model does not know the labels, but can still predict the rows.
            table = self.predictor.read_rows(data, options).table
        predictions = self.predictor.predict_table(table).predictions
        return dict(zip(table.column("row").tolist(), predictions, strict=True))


def load_contender(path: str, options: InferenceOptions) -> Contender:
    """The contender at ``path``. Raises ``RunError`` or ``ModelError`` for anything else."""
    place = Path(path)
    if (place / RESULT_FILE).is_file():
        open_run(place)
        return Contender(path, run=place, predictor=Predictor.load(place))
    if place.is_dir():
        # A run's model folder by its own path has seen the same rows as the run.
        parent = place.resolve().parent
        run = (
            parent
            if place.resolve().name == MODEL_FOLDER and (parent / RESULT_FILE).is_file()
            else None
        )
        folder = place if run is None else model_of(run)
        return Contender(path, run=run, predictor=_load_plain_model(folder, options))
    if not place.is_file():
        rule = "is neither a run, nor a model folder, nor a file of predictions"
        raise RunError(path, rule, None, "Check the path.")
    return Contender(path, cells=_read_predictions(path))


def _load_plain_model(folder: Path, options: InferenceOptions) -> Predictor:
    """A predictor of a model folder as Transformers saves it."""
    config = folder / "config.json"
    if not config.is_file():
        rule = "is neither a run (it has no result.json) nor a model (it has no config.json)"
        raise RunError(str(folder), rule, None, "Name the folder of a finished run or of a model.")
    try:
        settings = json.loads(config.read_text("utf-8"))
        architecture = str((settings.get("architectures") or [""])[0])
    except (ValueError, AttributeError, TypeError):
        raise ModelError(str(config), "cannot be read", None, GIVE_FILE) from None
    part = DataPart(text=options.text, label=options.label)
    if architecture.endswith("ForImageClassification"):
        from holdfast.models.vision.vision import load_saved_vision
        from holdfast.tasks.images.task import ImagePredictor

        return Predictor(ImagePredictor([load_saved_vision(folder)], part), part)
    label_types = {"multi_label_classification": "several", "regression": "number"}
    if architecture.endswith("ForSequenceClassification"):
        from holdfast.models.encoders.checkpoint import load_saved
        from holdfast.tasks.classes.answers import TextPredictor
        from holdfast.tasks.number.losses import Scale

        label_type = label_types.get(str(settings.get("problem_type")), "class")
        saved = load_saved(folder, 2 if label_type == "class" else 1)
        recipe = Recipe(task="text-classification", data=part)
        return Predictor(TextPredictor([saved], label_type, recipe, Scale()), part)
    raise ModelError(
        str(folder), "is a plain model of an unsupported task", architecture, GIVE_FILE
    )


def _read_predictions(path: str) -> dict[str, list[Any]]:
    """The columns of a file of predictions."""
    if path.lower().endswith(".parquet"):
        import pyarrow.parquet as parquet

        from holdfast.core.input_errors import reading_errors

        with reading_errors(
            path, DataError, remedy="Give a file that `holdfast predict --out` wrote."
        ):
            table = parquet.read_table(path)
        columns = {name: table[name].to_pylist() for name in table.column_names}
    else:
        raw = read_source(path, None, None)
        columns = {name: raw.table[name].to_pylist() for name in raw.names}
    if PREDICTION not in columns:
        remedy = "Give a file that `holdfast predict --out` wrote, or rename the column."
        raise DataError(path, f"has no column {PREDICTION!r}", ", ".join(columns), remedy)
    if columns.get("split") is not None:
        rule = "holds predictions of rows that a run was trained on or chosen by"
        remedy = "Give the run itself, or its predictions.parquet."
        raise DataError(path, rule, "answers.parquet", remedy)
    return columns


def _row_numbers(path: str, cells: Mapping[str, Sequence[Any]], n: int) -> list[int]:
    """The row of each prediction. Without a column ``row`` it is its position, and each of the
    ``n`` rows needs a prediction."""
    values, predictions = cells.get(ROW), len(cells[PREDICTION])
    if values is None:
        if predictions != n:
            rule = f"has no column {ROW!r} and not one prediction for each of the {n:,} rows"
            raise DataError(path, rule, predictions, GIVE_ROWS)
        return list(range(n))
    try:
        rows = [int(one) for one in values]
    except (TypeError, ValueError):
        raise DataError(
            path, f"has values in column {ROW!r} that are not whole numbers", None, "Correct them."
        ) from None
    if len(set(rows)) < predictions:
        raise DataError(path, "has two predictions for a row", None, "Give one per row.")
    other = next((one for one in rows if not 0 <= one < n), None)
    if other is not None:
        raise DataError(
            path, f"has a prediction for a row that is not in DATA ({n:,} rows)", other, GIVE_ROWS
        )
    return rows


def _refuse_other_texts(
    path: str, cells: Mapping[str, Sequence[Any]], rows: Sequence[int], labelled: Table
) -> None:
    """Raise ``DataError`` if the file holds the texts too, as ``predict`` writes them, and one is
    not that of its row."""
    if "text" not in labelled.rows.column_names or labelled.has_images:
        return
    if labelled.columns.template is not None:
        return
    position = {row: i for i, row in enumerate(rows)}
    for name, column in zip(labelled.columns.text, ("text", "text_pair"), strict=False):
        if name not in cells:
            continue
        for row, text in zip(labelled.column("row").tolist(), labelled.column(column), strict=True):
            if row not in position:
                continue
            cell = str(cells[name][position[row]])
            # ``predict.csv_safe`` puts an apostrophe before some texts.
            if cell.removeprefix("'") != text.removeprefix("'"):
                rule = f"has another text in column {name!r} than row {row:,} of DATA"
                raise DataError(path, rule, shorten(cell, 60), GIVE_ROWS)


# What labels of a type are called, and the ``prediction_type`` of their predictors.
LABEL_TYPES: Mapping[LabelType, tuple[str, str]] = {
    "class": ("classes", "text"),
    "text": ("texts", "text"),
    "number": ("numbers", "number"),
    "several": ("several labels per row", "list"),
    "tags": ("tags", "list"),
}


def convert_predictions(
    contender: Contender, label_type: LabelType, predictions: Mapping[int, object]
) -> dict[int, Any]:
    """The predictions of ``contender`` in the form of labels of this ``label_type``; an empty one
    is ``None``. Raises ``RunError`` or ``DataError`` for predictions of another type, which would
    only look wrong."""
    label_words, output_form = LABEL_TYPES[label_type]
    remedy = "Compare models of one task, on rows of that task."
    if contender.predictor is not None and contender.predictor.prediction_type != output_form:
        form_words = {"text": "texts or classes", "number": "numbers", "list": "lists"}
        rule = (
            f"predicts {form_words[contender.predictor.prediction_type]}, but the labels of DATA "
            f"are {label_words}"
        )
        raise RunError(contender.path, rule, None, remedy)
    converted = {}
    for row, one in predictions.items():
        try:
            converted[row] = _convert(label_type, one)
        except (TypeError, ValueError):
            rule = (
                f"has a prediction of another type in row {row}: the labels of DATA are "
                f"{label_words}"
            )
            raise DataError(contender.path, rule, shorten(str(one), 60), remedy) from None
    return converted


def _convert(label_type: LabelType, value: Any) -> Any:
    if value is None or (isinstance(value, str) and value == "") or value != value:
        return None
    if label_type != "text" and isinstance(value, str) and value.startswith("["):
        # A list in a text column is JSON; among classes it shows a file of another task.
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    if label_type in ("several", "tags"):
        if isinstance(value, str) and label_type == "several":
            return [value]
        if isinstance(value, (str, int, float)):
            raise TypeError
        return [str(one) for one in value]
    if isinstance(value, (list, dict)):
        raise TypeError
    return float(value) if label_type == "number" else value
