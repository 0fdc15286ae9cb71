"""A finished run and its own rows once more, for the commands that ask something of it.

What the run stored is used first: ``predictions.parquet`` of its test rows and ``answers.parquet``
of validation and training rows. The texts are read again from the source, and each must be the one
that the run split. Where a command needs another pass over the test rows it opens them for a
fixed list of questions, chooses nothing by them, and says so: ``openings.jsonl`` counts it.

Several runs are weighed by rows that judged all of them (``shared_rows``).
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

from holdfast.contract.inference import read_columns, within_limits
from holdfast.contract.predictions import ANSWERS, Predictions, SplitName, make_predictions, rows_of
from holdfast.contract.result import now
from holdfast.contract.run_folder import PREDICTIONS, RECIPE, SPLITS, open_run
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
from holdfast.prepare.rows import given_files
from holdfast.recipe import DataPart, Recipe, read_recipe
from holdfast.split.split_table import text_keys
from holdfast.tasks import task_definition
from holdfast.tasks.ensemble import HOW, SharedRows, cross_fitted, split_records

if TYPE_CHECKING:
    import pyarrow as pa

    from holdfast.runs.predictor import Predictor


def run_tables(recipe: Recipe) -> dict[str, Table]:
    """``source``, and ``valid`` and ``test`` where they came in files of their own; texts treated
    as the run treated them.

    Raises ``DataError`` where a source is gone or cannot be read.
    """
    data, definition = recipe.data, task_definition(recipe.task)
    with within_limits(data):
        main = definition.read(str(data.path), data, None)
        given, _ = given_files(data, definition)
        tables = {
            "source": main,
            **{s: definition.read(path, data, main) for s, path in given.items()},
        }
    return {name: clean_like_run(table, recipe) for name, table in tables.items()}


OPENINGS = "openings.jsonl"


@dataclass(frozen=True)
class Opening:
    """Test rows that were opened again: the rows, and how often that has happened by now (the
    scoring of the run itself is not counted)."""

    table: Table
    count: int


@dataclass(frozen=True)
class FinishedRun:
    """A finished run, from its folder, and a ``Session`` of analyses. Raises ``RunError`` for any
    other folder, and wherever a file of the run or a row of its sources is not as the run left
    it."""

    run: Path

    @cached_property
    def result(self) -> dict[str, Any]:
        """``result.json``, its seal checked, of a run whose test rows are of one task: episodes
        are of many."""
        result = open_run(self.run)
        if result.get("meta") is not None:
            raise RunError(
                str(self.run),
                "is a start for many tasks, and has no test rows of one that this could be asked "
                "of",
                None,
                f"Train on a task from it (--model {self.run / 'model'}), and ask that run.",
            )
        return result

    @cached_property
    def recipe(self) -> Recipe:
        # Of a finished run alone.
        _ = self.result
        return read_recipe(self.run / RECIPE)

    @cached_property
    def predictor(self) -> Predictor:
        """The saved model."""
        from holdfast.runs.predictor import Predictor

        return Predictor.load(self.run)

    @property
    def names(self) -> tuple[str, ...]:
        """What there are probabilities of, in their order."""
        return tuple(self.result.get("classes") or ())

    @property
    def out_of_fold(self) -> bool:
        """Whether no validation rows were set aside: training rows, answered out of fold, stand in
        their place."""
        return bool((self.result.get("valid") or {}).get("out_of_fold"))

    def has(self, side: SplitName) -> bool:
        """Whether the run stored its model's predictions for the rows of this split."""
        return (self.run / (PREDICTIONS if side == "test" else ANSWERS)).is_file()

    def told(self, side: SplitName) -> Predictions:
        """The model's predictions for the rows of a split, as the run stored them, with their
        texts; of training rows a sample. Of runs by older versions only the test rows are
        stored."""
        columns = self.stored(side)
        rows = columns["row"].to_numpy()
        return make_predictions(side, rows_of(self.table(side), rows), columns, self.names)

    @cached_property
    def train(self) -> Predictions:
        """The predictions for a sample of the training rows."""
        return self.told("train")

    @cached_property
    def valid(self) -> Predictions:
        """The predictions for the validation rows."""
        return self.told("valid")

    @cached_property
    def test(self) -> Predictions:
        """The predictions for the test rows."""
        return self.told("test")

    @property
    def train_rows(self) -> Table:
        """All training rows."""
        return self.table("train")

    @property
    def fitted(self) -> None:
        """The fit ended with its run."""

    @cached_property
    def data_map_regions(self) -> Mapping[int, str]:
        """What the data map says of training rows; nothing of a run that kept none."""
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
        """All rows of a split, without predictions. Of the test set this shows
        texts and labels; whoever asks a model about them calls ``reopen``."""
        if side == "valid" and self.out_of_fold:
            side = "train"
        source_table = self._tables.get(side, self._tables["source"])
        rows, keys = self._split_rows(side)
        if not np.isin(rows, source_table.column("row")).all():
            raise self._changed_error(side)
        table = rows_of(source_table, rows)
        if keys is not None and not np.array_equal(keys, text_keys(table)):
            raise self._changed_error(side)
        return table

    def stored(self, side: SplitName) -> pa.Table:
        """The stored predictions for the rows of a split, as its file has it."""
        import pyarrow.compute as pc

        if side == "test":
            return self._parquet(PREDICTIONS)
        answers = self._parquet(ANSWERS)
        return answers.filter(pc.equal(answers["split"], side))

    def divided(self) -> pa.Table:
        """``splits.parquet``: every row of the run's sources, and its split."""
        return self._parquet(SPLITS)

    def other_columns(self, table: Table) -> dict[str, list[str | None]]:
        """The source's other columns for these rows, by name, as it writes them."""
        return self._extra_columns(table)

    def reopen(self, command: str, questions: Sequence[str]) -> Opening:
        """The test rows for another pass, which is written down before they are handed out: which
        command, which questions, when."""
        table = self.table("test")
        path = self.run / OPENINGS
        line = {"command": command, "questions": list(questions), "rows": len(table), "at": now()}
        with disk_errors(path):
            refuse_link(path)
            with path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
            # Counted whatever the lines before say: each was an opening.
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
                "is missing: a version of Holdfast made this run that did not keep it"
                if name == ANSWERS
                else "is missing",
                None,
                f"Train again with {self.run / RECIPE} into another folder.",
            )
        with reading_errors(str(path), RunError, remedy=RESTORE_REMEDY):
            return parquet.read_table(path)

    def _split_rows(self, split: SplitName) -> tuple[Ints, Any]:
        """The source rows of a split, ascending, and the keys of their texts (``None`` in runs by
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
            f"has changed since {self.run} was made: its {split} rows are no longer there as they "
            "were",
            None,
            "Restore the file as it was, or train again.",
        )


class SourceColumns:
    """The other columns of the source, by the ``part`` of the recipe that names the others. Each
    source is read once, however many questions ask about its rows."""

    def __init__(self, part: DataPart) -> None:
        self._part = part
        self._read: dict[str, Raw] = {}

    def __call__(self, table: Table) -> dict[str, list[str | None]]:
        """Every column of the table's source but those of its text, label and group, by name and in
        the order of the rows; a folder and a CoNLL file have none.

        Raises ``DataError`` where the source is gone, or has another number of rows than it had.
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
    """The rows that judge these runs together.

    Raises ``RecipeError`` where there are none, or a run stored no answers, naming ``name`` needs
    them and how such runs are made.
    """
    runs = tuple(FinishedRun(folder) for folder in folders)
    judging_rows, training_texts = [], []
    for run in runs:
        if not (run.run / ANSWERS).is_file():
            raise RecipeError(
                name,
                f"needs the answers to validation rows, of which {run.run} stored none",
                None,
                HOW,
            )
        judging_rows.append(_judging_rows(run))
        training_texts.append(_training_texts(run))
    in_all_runs: set[int] = set.intersection(*(set(row_of_text) for row_of_text in judging_rows))
    common = sorted(in_all_runs.difference(*training_texts))
    if not common:
        counts = " and ".join(str(len(row_of_text)) for row_of_text in judging_rows)
        raise RecipeError(
            name,
            "needs rows that judged every one of the runs and that none learned from, and there "
            f"are none: each run has {counts} of its own",
            len(common),
            HOW,
        )
    rows = tuple(
        np.array([row_of_text[key] for key in common], dtype=np.int64)
        for row_of_text in judging_rows
    )
    folds = any(cross_fitted(run) for run in runs)
    return SharedRows(runs, rows, np.array(common, dtype=np.uint64), folds)


def _judging_rows(run: FinishedRun) -> dict[int, int]:
    """The source row of each text that judged the run; of copies the first."""
    predicted_rows = set(run.stored("valid")["row"].to_pylist())
    row_by_text: dict[int, int] = {}
    for line in split_records(run, "train" if cross_fitted(run) else "valid"):
        if line["row"] in predicted_rows and line["text_key"] is not None:
            row_by_text.setdefault(line["text_key"], line["row"])
    return row_by_text


def _training_texts(run: FinishedRun) -> set[int]:
    """The texts that no answer of the run is out of sample for; of a cross-fitted one none, since
    copies stay in one fold."""
    if cross_fitted(run):
        return set()
    return {
        line["text_key"] for line in split_records(run, "train") if line["text_key"] is not None
    }
