"""Read a finished run and its own rows again, for commands that analyse it.

Stored predictions are used first: ``predictions.parquet`` for its test rows and
``answers.parquet`` for validation and training rows. Texts are read again from the source, and each
must be the one that the run split. A command that needs another pass over the test rows opens them
for a fixed list of analyses and selects nothing by them; ``openings.jsonl`` records it.

Several runs are compared on rows that all of them used for validation (``shared_rows``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdfast.contract.inference import read_columns, run_recipe, within_limits
from holdfast.contract.predictions import ANSWERS, Predictions, SplitName, make_predictions, rows_of
from holdfast.contract.result import now
from holdfast.contract.run_folder import ALSO_TRAINED_NOTE, PREDICTIONS, RECIPE, SPLITS, open_run
from holdfast.core.errors import RecipeError, RunError
from holdfast.core.files import disk_errors, refuse_link
from holdfast.core.input_errors import reading_errors
from holdfast.core.records import Ints
from holdfast.core.run_files import RESTORE_REMEDY, check_files
from holdfast.data.columns.extra import refuse_changed_source
from holdfast.data.raw import Raw, source_path
from holdfast.data.source import read_source
from holdfast.data.table import Table
from holdfast.data.tags.sentences import from_conll, read_tagged
from holdfast.prepare.clean import clean_like_run
from holdfast.prepare.given_files import given_files
from holdfast.recipe import DataPart, Recipe
from holdfast.split.split_table import text_keys
from holdfast.tasks import task_definition
from holdfast.tasks.ensemble import HOW, SharedRows, cross_fitted, split_records

if TYPE_CHECKING:
    import pyarrow as pa

    from holdfast.runs.predictor import Predictor


def run_tables(recipe: Recipe) -> dict[str, Table]:
    """``source``, and ``valid`` and ``test`` where they came in separate files; texts are cleaned
    as in the run.

    Raises ``DataError`` where a source is missing or cannot be read.
    """
    data, definition = recipe.data, task_definition(recipe.task)
    with within_limits(data):
        main = definition.read(str(data.path), data, None)
        given, _ = given_files(data, recipe.task)
        tables = {
            "source": main,
            **{s: definition.read(path, data, main) for s, path in given.items()},
        }
    return {name: clean_like_run(table, recipe) for name, table in tables.items()}


OPENINGS = "openings.jsonl"


@dataclass(frozen=True)
class Opening:
    """Test rows that were opened again: the rows, and how often that has happened so far (not
    counting the scoring of the run itself)."""

    table: Table
    count: int


@dataclass(frozen=True)
class FinishedRun:
    """A finished run, from its folder, and a ``Session`` of analyses. Raises ``RunError`` for any
    other folder, and wherever a file of the run or a row of its sources has changed since the
    run."""

    run: Path

    @cached_property
    def result(self) -> dict[str, Any]:
        """``result.json``, its seal checked, of a run on one task; a run on many tasks (meta) is
        refused."""
        result = open_run(self.run)
        if result.get("meta") is not None:
            raise RunError(
                str(self.run),
                "is a base model for many tasks (holdfast meta), and has no test rows of a single "
                "task",
                None,
                f"Train it on a task (--model {self.run / 'model'}), and use that run.",
            )
        return result

    @cached_property
    def recipe(self) -> Recipe:
        # Only for a finished run.
        _ = self.result
        return run_recipe(self.run)

    @cached_property
    def predictor(self) -> Predictor:
        """The saved model."""
        from holdfast.runs.predictor import Predictor

        return Predictor.load(self.run)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the predicted probabilities, in their order."""
        return tuple(self.result.get("classes") or ())

    @property
    def out_of_fold(self) -> bool:
        """Whether no validation rows were set aside: out-of-fold predictions of training rows are
        used in their place."""
        return bool((self.result.get("valid") or {}).get("out_of_fold"))

    @property
    def n_test(self) -> int:
        """How many test rows were scored. 0 where rows were scored out of fold, by other models
        than the saved one (``data.split.test=0``)."""
        test = self.result.get("test") or {}
        return 0 if test.get("out_of_fold") else int(test.get("n") or 0)

    def has(self, side: SplitName) -> bool:
        """Whether the run stored its model's predictions for the rows of this split."""
        return (self.run / (PREDICTIONS if side == "test" else ANSWERS)).is_file()

    def predictions_of(self, split: SplitName) -> Predictions:
        """The model's stored predictions for the rows of a split, with their texts; for training
        rows a sample. Older versions stored them only for test rows."""
        columns = self.stored(split)
        rows = columns["row"].to_numpy()
        return make_predictions(split, rows_of(self.table(split), rows), columns, self.names)

    @cached_property
    def train(self) -> Predictions:
        """The predictions for a sample of the training rows."""
        return self.predictions_of("train")

    @cached_property
    def valid(self) -> Predictions:
        """The predictions for the validation rows."""
        return self.predictions_of("valid")

    @cached_property
    def test(self) -> Predictions:
        """The predictions for the test rows."""
        return self.predictions_of("test")

    @property
    def train_rows(self) -> Table:
        """All training rows."""
        return self.table("train")

    @property
    def fitted(self) -> None:
        """Always ``None``: the fit ended with its run."""

    @cached_property
    def data_map_regions(self) -> Mapping[int, str]:
        """The data map's region of each training row; empty for a run without a data map."""
        import pyarrow.parquet as parquet

        from holdfast.runs.scoring import EXAMPLES

        path = self.run / EXAMPLES
        if not path.is_file():
            return {}
        names = ["row", "split", "kind"]
        table = parquet.read_table(path, columns=names)
        lines = zip(*(table[name].to_pylist() for name in names), strict=True)
        return {row: kind for row, split, kind in lines if split == "train"}

    def table(self, side: SplitName) -> Table:
        """All rows of a split, without predictions. For the test set it gives texts and labels; a
        caller that queries a model on them uses ``reopen``."""
        if side == "valid" and self.out_of_fold:
            side = "train"
        return self._table_of(side, *self._split_rows(side))

    def divided_table(self, side: SplitName) -> Table:
        """The rows of a split as it was made: validation rows that a cross-fitted run learned from
        too (``train.folds``) are validation rows."""
        if not self.out_of_fold or side == "test":
            return self.table(side)
        rows, keys = self._split_rows("train")
        records = self._parquet(SPLITS)
        noted = np.isin(rows, records["row"].to_numpy()[also_trained(records)])
        chosen = noted if side == "valid" else ~noted
        return self._table_of("train", rows[chosen], None if keys is None else keys[chosen])

    def _table_of(self, side: SplitName, rows: Ints, keys: Any) -> Table:
        source_table = self._tables.get(side, self._tables["source"])
        if not np.isin(rows, source_table.column("row")).all():
            raise self._changed_error(side)
        table = rows_of(source_table, rows)
        if keys is not None and not np.array_equal(keys, text_keys(table)):
            raise self._changed_error(side)
        return table

    def stored(self, side: SplitName) -> pa.Table:
        """The stored predictions for the rows of a split, as its file has them."""
        import pyarrow.compute as pc

        if side == "test":
            predictions = self._parquet(PREDICTIONS)
            return predictions if self.n_test else predictions.slice(0, 0)
        answers = self._parquet(ANSWERS)
        return answers.filter(pc.equal(answers["split"], side))

    def divided(self) -> pa.Table:
        """``splits.parquet``: every row of the run's sources, and its split."""
        return self._parquet(SPLITS)

    def other_columns(self, table: Table) -> dict[str, list[str | None]]:
        """The source's other columns for these rows, by name, as written."""
        return self._extra_columns(table)

    def reopen(self, command: str, questions: Sequence[str]) -> Opening:
        """The test rows for another pass. The command, its analyses and the time are recorded
        before the rows are returned."""
        table = self.table("test")
        path = self.run / OPENINGS
        line = {"command": command, "questions": list(questions), "rows": len(table), "at": now()}
        with disk_errors(path):
            refuse_link(path)
            with path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
            # Every line counts, whatever it contains: each was an opening.
            log_text = path.read_text("utf-8", errors="replace")
            count = sum(1 for text in log_text.splitlines() if text.strip())
        return Opening(table, count)

    @cached_property
    def _extra_columns(self) -> SourceColumns:
        return SourceColumns(self.recipe.data)

    @cached_property
    def _tables(self) -> dict[str, Table]:
        return run_tables(self.recipe)

    def _parquet(self, name: str) -> pa.Table:
        import pyarrow.parquet as parquet

        path = self.run / name
        check_files(self.run, self.result, [name])
        if not os.path.lexists(path):
            raise RunError(
                str(path),
                "is missing: the version of Holdfast that made this run did not store it"
                if name == ANSWERS
                else "is missing",
                None,
                f"Train again with {self.run / RECIPE} into another folder.",
            )
        with reading_errors(str(path), RunError, remedy=RESTORE_REMEDY):
            return parquet.read_table(path)

    def _split_rows(self, split: SplitName) -> tuple[Ints, Any]:
        """The source rows of a split, ascending, and the keys of their texts (``None`` in runs of
        old versions)."""
        import pyarrow.compute as pc

        records = self._parquet(SPLITS)
        records = records.filter(pc.equal(records["split"], split))
        order = np.argsort(records["row"].to_numpy(), kind="stable")
        keys = records["text_key"].to_numpy()[order] if "text_key" in records.column_names else None
        return records["row"].to_numpy()[order], keys

    def _changed_error(self, split: SplitName) -> RunError:
        source = self._tables.get(split, self._tables["source"]).source
        return RunError(
            source,
            f"has changed since {self.run} was made: its {split} rows are missing or different",
            None,
            "Restore the original file, or train again.",
        )


def also_trained(records: pa.Table) -> npt.NDArray[np.bool_]:
    """Which lines of a split's file are validation rows that a cross-fitted run learned from."""
    return np.array([ALSO_TRAINED_NOTE in (note or "") for note in records["note"].to_pylist()])


class SourceColumns:
    """The other columns of the source, for which the ``part`` of the recipe names files and roles.
    Each source is read once, however many analyses use its rows."""

    def __init__(self, part: DataPart) -> None:
        self._part = part
        self._read: dict[str, Raw] = {}

    def __call__(self, table: Table) -> dict[str, list[str | None]]:
        """Every column of the table's source except text, label and group, by name and in the order
        of the rows; a folder and a CoNLL file have none.

        Raises ``DataError`` where the source is missing, or its number of rows has changed.
        """
        if source_path(table.source).is_dir():
            return {}
        raw, part = self._raw(table), self._part
        refuse_changed_source(raw, table)
        if from_conll(raw):
            return {}
        known = {*(read_columns(part) or ()), *table.columns.text, table.columns.label, part.group}
        names = [name for name in raw.names if name not in known]
        selected = raw.table.select(names).take(table.column("row"))
        return {name: selected[name].to_pylist() for name in names}

    def _raw(self, table: Table) -> Raw:
        if table.source not in self._read:
            read = read_tagged if "tags" in table.rows.column_names else read_source
            raw = read(table.source, self._part.encoding, self._part.config)
            self._read[table.source] = raw
        return self._read[table.source]


def shared_rows(folders: Sequence[Path], name: str) -> SharedRows:
    """The rows that all of these runs used for validation.

    Raises ``RecipeError`` where there are none, or a run stored no predictions. The error names the
    setting ``name`` and how to make such runs.
    """
    runs = tuple(FinishedRun(folder) for folder in folders)
    judging_rows, training_texts = [], []
    for run in runs:
        if not (run.run / ANSWERS).is_file():
            raise RecipeError(
                name, f"needs predictions for validation rows, but {run.run} stored none", None, HOW
            )
        judging_rows.append(_judging_rows(run))
        training_texts.append(_training_texts(run))
    in_all_runs: set[int] = set.intersection(*(set(row_of_text) for row_of_text in judging_rows))
    common = sorted(in_all_runs.difference(*training_texts))
    if not common:
        counts = " and ".join(str(len(row_of_text)) for row_of_text in judging_rows)
        rule = (
            "needs rows that all runs used for validation and none for training, but there "
            f"are none: the runs have {counts} validation rows"
        )
        raise RecipeError(name, rule, len(common), HOW)
    rows = tuple(
        np.array([row_of_text[key] for key in common], dtype=np.int64)
        for row_of_text in judging_rows
    )
    folds = any(cross_fitted(run) for run in runs)
    return SharedRows(runs, rows, np.array(common, dtype=np.uint64), folds)


def _judging_rows(run: FinishedRun) -> dict[int, int]:
    """The source row of each validation text; the first of duplicates."""
    predicted_rows = set(run.stored("valid")["row"].to_pylist())
    row_by_text: dict[int, int] = {}
    for line in split_records(run, "train" if cross_fitted(run) else "valid"):
        if line["row"] in predicted_rows and line["text_key"] is not None:
            row_by_text.setdefault(line["text_key"], line["row"])
    return row_by_text


def _training_texts(run: FinishedRun) -> set[int]:
    """The texts for which the run has no out-of-sample prediction; none in a cross-fitted run,
    since duplicates stay in one fold."""
    if cross_fitted(run):
        return set()
    return {
        line["text_key"] for line in split_records(run, "train") if line["text_key"] is not None
    }
