"""Join feedback with the rows of a finished run into the files that its update is trained on.

The old validation and test rows stay unchanged. First, a share of the feedback is held out for the
gate, and no model is trained on it. It is chosen by a hash of each text, so that a held-out text is
held out in every later update. The rest joins the old training rows.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdfast.analyses.row_texts import decode_labels, labels_of_rows
from holdfast.contract.inference import within_limits
from holdfast.core.errors import DataError, RecipeError, RunError
from holdfast.core.records import Decision, Finding, Ints
from holdfast.core.seeds import generator
from holdfast.core.tasks import DECODER_TASKS, IMAGE_TASKS, TAGGING_TASKS
from holdfast.core.wording import count_phrase, has_or_have
from holdfast.data.chats.chat import form_of
from holdfast.data.labels.classes import match_classes
from holdfast.data.labels.spelling import missing_labels
from holdfast.data.memory.frames import frame_file
from holdfast.data.raw import Raw
from holdfast.data.source import read_source
from holdfast.data.table import Table
from holdfast.data.tags.sentences import read_tagged
from holdfast.duplicates.duplicates import find_duplicates
from holdfast.duplicates.words import RowTexts
from holdfast.plugins.update.feedback import is_store, read_feedback, with_columns
from holdfast.plugins.update.findings import Spread, measure_spread, mixed_words, new_scripts
from holdfast.prepare.clean import clean_like_run
from holdfast.recipe import Recipe
from holdfast.recipe.parts import SplitShares
from holdfast.runs.finished_run import FinishedRun, run_tables
from holdfast.runs.known_rows import NO_SPLIT, SPLIT_NAMES, find_known_rows
from holdfast.split.split_table import text_keys
from holdfast.tasks import task_definition

if TYPE_CHECKING:
    import pyarrow as pa


Bools = npt.NDArray[np.bool_]
# The gate's share of rows drawn uniformly, and of a file that does not record the sampling.
GATE_SHARE_UNIFORM, GATE_SHARE_FILE = 0.5, 0.3
MAX_MODEL_SHARE = 0.2
# All old training rows are replayed up to MIN_REPLAYED, or REPLAY_TIMES the new ones.
MIN_REPLAYED, REPLAY_TIMES = 20_000, 10
MAX_LISTED = 100
MORE_FEEDBACK = "Gather more feedback, e.g. 50 rows; the gate may then say how many it needs."
FEEDBACK, GATE = "feedback", "gate"


@dataclass(frozen=True, slots=True, eq=False)
class JoinedRows:
    """``recipe`` is the run's recipe with the new rows. ``tables`` holds, by name, ``data``,
    ``valid``, ``test``, the rows held out for the ``gate``, and ``feedback``: which rows came from
    which feedback. ``block`` counts what happened to the feedback; ``deleted`` counts training rows
    of the run that were deleted since."""

    recipe: Recipe
    tables: Mapping[str, pa.Table]
    block: Mapping[str, Any]
    deleted: int
    findings: tuple[Finding, ...]
    decisions: tuple[Decision, ...]

    @property
    def rows(self) -> tuple[int, int]:
        """The numbers of training rows of the run and of its update."""
        replayed = self.block["replayed"]
        return replayed["of"], replayed["n"] + self.block["used"]


def join_feedback(
    run: Path, where: str, gate_share: float | None = None, max_model_share: float = MAX_MODEL_SHARE
) -> JoinedRows:
    """The training rows of the update of ``run``, and the rows held out for the gate.
    ``gate_share`` is the share held out for the gate (``None``: the default), ``max_model_share``
    the largest share of training rows that a model may have labelled.

    Raises ``RecipeError`` or ``RunError`` for a run that cannot be updated, ``DataError`` where no
    row of the feedback can be used for training or for the gate.
    """
    return _FeedbackJoin(run, where).join(gate_share, max_model_share)


def unseen_labelled_rows(run: Path, where: str) -> Table:
    """The feedback that represents the traffic and that the model was not trained on, in the order
    in which it arrived."""
    return _FeedbackJoin(run, where).unseen()


def _refuse_run(finished_run: FinishedRun) -> None:
    """Raise ``RunError`` for a run without rows to compare on, or with a task whose rows cannot be
    joined."""
    run, task = str(finished_run.run), finished_run.recipe.task
    if task in IMAGE_TASKS:
        rule = f"has the task {task}; update cannot join images"
        raise RunError(run, rule, None, "Put the new images into its data folder, and train again.")
    if not len(finished_run.divided_table("valid")):
        remedy = "Update a run of holdfast train with validation rows."
        raise RunError(run, "has no validation rows to compare an update on", None, remedy)
    if not finished_run.n_test:
        rule = "has no test set, and an update is scored on the test set of its run"
        raise RunError(run, rule, None, "Update a run that has a test set.")


def refuse_rendered(table: Table, where: str) -> None:
    """Raise ``DataError`` for the labels of a store where the run's chats are texts with the
    markers of a template: the requests are turns."""
    if "turns" not in table.rows.column_names or not is_store(where):
        return
    form = form_of(table)
    if table.columns.label is None and form != "messages":
        rule = f"holds turns, and the run's chats are texts rendered as {form}"
        remedy = "Give the corrected chats in a file in the form of the run's."
        raise DataError(where, rule, None, remedy)


class _Sources:
    """The run's own files: as tables, and as they were written."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        with within_limits(recipe.data):
            self.tables = run_tables(recipe)
        if recipe.task in DECODER_TASKS:
            try:
                labels_of_rows(self.tables["source"])
            except RecipeError:
                rule = "is plain text without responses that feedback could correct"
                remedy = "Add the new texts to it, and train again."
                raise RunError(self.tables["source"].source, rule, recipe.task, remedy) from None
        self._raw: dict[str, Raw] = {}

    def read(self, source: str, encoding: str | None = None, config: str | None = None) -> Raw:
        """Read every cell of a file, as the run's task reads files."""
        reader = read_tagged if self._recipe.task in TAGGING_TASKS else read_source
        with within_limits(self._recipe.data):
            return reader(source, encoding, config)

    def raw(self, split: str) -> Raw:
        """The file that the rows of a split came from, with all rows."""
        source = self.tables.get(split, self.tables["source"]).source
        if source not in self._raw:
            part = self._recipe.data
            self._raw[source] = self.read(source, part.encoding, part.config)
        return self._raw[source]


class _FeedbackJoin:
    def __init__(self, run: Path, where: str) -> None:
        self._finished_run = FinishedRun(run)
        self._recipe = self._finished_run.recipe
        _refuse_run(self._finished_run)
        self._sources = _Sources(self._recipe)
        raw = self._sources.raw("source")
        table = self._sources.tables["source"]
        refuse_rendered(table, where)
        self._feedback = read_feedback(where, table.columns, raw, self._sources.read)
        self._counts: dict[str, Any] = dict(self._feedback.unusable)
        self._findings: list[Finding] = []
        self._decisions = list(self._feedback.decisions)
        self._spread: Spread | None = None

    def join(self, gate_share: float | None, max_model_share: float) -> JoinedRows:
        import pyarrow as pa

        feedback = self._feedback
        if not len(feedback):
            raise DataError(feedback.where, "contains no feedback to train on", 0, MORE_FEEDBACK)
        rows, feedback_positions = self._known_class_rows()
        table = self._table(rows)
        row_numbers = np.asarray(table.column("row"), dtype=np.int64)
        positions = feedback_positions[row_numbers]
        self._counts["missing"] = len(feedback_positions) - len(positions)
        train = self._finished_run.divided_table("train")
        self._report_scripts(table, positions, train)
        usable, duplicate_group, replaced = self._usable_rows(table, train)
        gate_mask = self._gate_rows(table, positions, usable, duplicate_group, gate_share)
        # Duplicates of the gate's rows are not used for training.
        learnable = usable & ~np.isin(duplicate_group, duplicate_group[gate_mask])
        model_labelled = feedback.model_labelled[positions]
        train_mask = self._cap_model_labels(learnable, model_labelled, max_model_share, len(train))
        used, held = int(train_mask.sum()), int(gate_mask.sum())
        self._refuse_too_few(used, held)
        before = self._origins_before()
        deleted = self._deleted_rows(train, before)
        old = self._replay_sample(train, {*replaced, *deleted}, used)
        replayed = self._stored_rows("train", old)
        new = with_columns(rows.take(row_numbers[train_mask]), replayed.column_names)
        tables = {
            "data": pa.concat_tables([replayed, new], promote_options="default"),
            "valid": self._stored_rows("valid", self._finished_run.divided_table("valid")),
            "test": self._stored_rows("test", self._finished_run.table("test")),
            GATE: rows.take(row_numbers[gate_mask]),
            FEEDBACK: _feedback_origins(
                before, old, feedback.ids[positions[train_mask]], model_labelled[train_mask]
            ),
        }
        self._count_class_labels(table, train_mask, train)
        self._measure_spread(table, train_mask, model_labelled, old)
        block = {
            "source": feedback.where,
            "n": len(feedback),
            "used": used,
            "held": held,
            **self._feedback_block(int((train_mask & model_labelled).sum()), max_model_share),
            "replayed": {"n": len(old), "of": len(train)},
            "deleted_since": len(deleted),
        }
        findings, decisions = tuple(self._findings), tuple(self._decisions)
        return JoinedRows(self._updated_recipe(), tables, block, len(deleted), findings, decisions)

    def _refuse_too_few(self, used: int, held: int) -> None:
        """Raise ``DataError`` where no row is left for training, or none for the gate."""
        if not used or not held:
            raise DataError(
                self._feedback.where,
                "leaves too few rows: an update needs rows for training and rows for the gate",
                f"{used} for training, {held} for the gate",
                MORE_FEEDBACK,
            )

    def unseen(self) -> Table:
        """Rows that were drawn uniformly, labelled by annotators, and in no split of the run."""
        if not len(self._feedback):
            raise DataError(self._feedback.where, "contains no feedback", 0, MORE_FEEDBACK)
        rows, feedback_positions = self._known_class_rows()
        table = self._table(rows)
        positions = feedback_positions[np.asarray(table.column("row"), dtype=np.int64)]
        new = (
            find_known_rows([self._finished_run.run], table, as_divided=True).split_index
            == NO_SPLIT
        )
        return table.take(np.flatnonzero(new & self._fair_sample(positions)))

    def _fair_sample(self, positions: Ints) -> Bools:
        """Which rows annotators labelled and were drawn uniformly, or may have been."""
        feedback = self._feedback
        uniform = (
            np.ones(len(positions), bool)
            if feedback.uniform is None
            else feedback.uniform[positions]
        )
        return uniform & ~feedback.model_labelled[positions]

    def _known_class_rows(self) -> tuple[pa.Table, Ints]:
        """The rows whose label is a class of the run, in its spelling, or missing; and their
        positions in the feedback."""
        import pyarrow as pa

        rows, label = self._feedback.rows, self._recipe.data.label
        positions = np.arange(len(self._feedback))
        source = self._sources.tables["source"]
        if source.columns.label_kind != "class" or label not in rows.column_names:
            return rows, positions
        cells = rows[label].to_pylist()
        written, spelling = {one for one in cells if one is not None}, self._recipe.data.labels
        missing = missing_labels(written, source.classes) if spelling == "merged" else ()
        matched = match_classes(written, source.classes, spelling)
        known = {None, "", *missing} | {one for one in written if matched[one] is not None}
        known_mask = np.array([one in known for one in cells], dtype=bool)
        unknown_labels = Counter(one for one, ok in zip(cells, known_mask, strict=True) if not ok)
        self._counts["unknown_label"] = unknown_labels.total()
        if unknown_labels:
            names = ", ".join(repr(name) for name, _ in unknown_labels.most_common(5))
            if not known_mask.any():
                raise DataError(
                    self._feedback.where,
                    "contains no label that is a class of the run",
                    names,
                    f"The run's classes: {', '.join(source.classes[:20])}. For a new class, join "
                    "the rows and train a new run.",
                )
            self._add_finding(
                "unknown_label",
                np.flatnonzero(~known_mask),
                f"{count_phrase(unknown_labels.total(), 'row')} of the feedback have a "
                f"label that is not a class of the run ({names}); they are left out",
                "Correct these labels. For a new class, join the rows and train a new run.",
            )
        at, spelled = rows.column_names.index(label), [matched.get(one) or one for one in cells]
        rows = rows.set_column(at, label, pa.array(spelled, pa.string()))
        return rows.take(positions[known_mask]), positions[known_mask]

    def _table(self, rows: pa.Table) -> Table:
        """The feedback as the run reads rows, with the same text cleaning."""
        import pyarrow as pa

        recipe, part = self._recipe, self._recipe.data
        if part.group and part.group in rows.column_names:
            at = rows.column_names.index(part.group)
            cells = rows[part.group].to_pylist()
            named = [one or f"feedback {i}" for i, one in enumerate(cells)]
            rows = rows.set_column(at, part.group, pa.array(named, pa.string()))
        data_part = part.model_copy(update={"encoding": None, "config": None, "reweigh": None})
        path = frame_file(rows, self._feedback.where)
        try:
            with within_limits(part):
                table = task_definition(recipe.task).read(
                    str(path), data_part, self._sources.tables["source"]
                )
            return clean_like_run(table, recipe)
        except DataError as error:
            where = error.what.replace(str(path), self._feedback.where)
            raise error.reworded(what=where) from None
        finally:
            path.unlink(missing_ok=True)

    def _usable_rows(self, table: Table, train: Table) -> tuple[Bools, Ints, set[int]]:
        """Which rows may be used, the duplicate group of each (near-duplicates share one), and the
        old training rows that a new label replaces."""
        run_splits = find_known_rows([self._finished_run.run], table)
        usable = np.ones(len(table), dtype=bool)
        for split in ("valid", "test"):
            in_split = run_splits.split_index == SPLIT_NAMES.index(split)
            self._counts[f"leaked_{split}"] = int(in_split.sum())
            usable &= ~in_split
            if in_split.any():
                self._add_finding(
                    f"feedback_copies_{split}",
                    np.flatnonzero(in_split),
                    f"{count_phrase(int(in_split.sum()), 'row')} of the feedback duplicate "
                    f"{'validation' if split == 'valid' else split} rows of the run; they are "
                    "left out, since the update is evaluated on these rows",
                    "No action is needed.",
                )
        keys, labels = text_keys(table), [repr(one) for one in decode_labels(table)]
        usable &= self._consistent_labels(keys, labels, usable)
        known = dict(zip(text_keys(train).tolist(), range(len(train)), strict=True))
        known_labels = [repr(one) for one in decode_labels(train)]
        replaced: set[int] = set()
        repeats = 0
        for i in np.flatnonzero(usable):
            old = known.get(int(keys[i]))
            if old is not None and known_labels[old] == labels[i]:
                usable[i] = False
                repeats += 1
            elif old is not None:
                replaced.add(old)
        self._counts |= {"repeats": repeats, "corrected": len(replaced)}
        if replaced:
            because = (
                f"{count_phrase(len(replaced), 'training row')} of the run have another "
                "label in the feedback; the update trains on the later label only"
            )
            self._decisions.append(Decision("corrected rows", str(len(replaced)), because, True))
        copies = find_duplicates(RowTexts(table), seed=self._recipe.seed)
        self._unseen = np.asarray(run_splits.split_index == NO_SPLIT)
        return usable, np.asarray(copies.groups, dtype=np.int64), replaced

    def _consistent_labels(self, keys: Any, labels: Sequence[str], usable: Bools) -> Bools:
        """Of duplicates with one label the last row; of duplicates with different labels none."""
        labels_of_text: dict[int, set[str]] = {}
        last_row: dict[int, int] = {}
        for i in np.flatnonzero(usable):
            labels_of_text.setdefault(int(keys[i]), set()).add(labels[int(i)])
            last_row[int(keys[i])] = int(i)
        conflicting = {key for key, one in labels_of_text.items() if len(one) > 1}
        consistent = np.zeros(len(keys), dtype=bool)
        consistent[[i for key, i in last_row.items() if key not in conflicting]] = True
        conflicting_rows = np.array(
            [i for i in np.flatnonzero(usable) if int(keys[i]) in conflicting], np.int64
        )
        self._counts |= {
            "conflicting": len(conflicting_rows),
            "copies": int(usable.sum()) - len(conflicting_rows) - int(consistent.sum()),
        }
        if len(conflicting_rows):
            self._add_finding(
                "feedback_conflicts",
                conflicting_rows,
                f"{count_phrase(len(conflicting_rows), 'row')} of the feedback are duplicates "
                "with different labels; they are left out",
                "Decide on one label for each of these texts.",
            )
        return consistent

    def _gate_rows(
        self,
        table: Table,
        positions: Ints,
        usable: Bools,
        duplicate_group: Ints,
        gate_share: float | None,
    ) -> Bools:
        """The rows held out for the gate."""
        feedback = self._feedback
        usual = GATE_SHARE_FILE if feedback.uniform is None else GATE_SHARE_UNIFORM
        share = usual if gate_share is None else gate_share
        keys = text_keys(table)
        lowest = np.full(
            int(duplicate_group.max(initial=0)) + 1, np.iinfo(np.uint64).max, dtype=np.uint64
        )
        np.minimum.at(lowest, duplicate_group, keys)
        draw = np.array([_uniform_hash(_lineage_seed(self._recipe), int(one)) for one in lowest])
        rows: Bools = (
            usable & self._fair_sample(positions) & self._unseen & (draw[duplicate_group] < share)
        )
        sampling = (
            "the file does not record how its rows were drawn, so they are treated as a random "
            "sample of the model's traffic"
            if feedback.uniform is None
            else f"{int(feedback.uniform[positions].sum())} rows were drawn uniformly at "
            "random, and only these represent the model's traffic"
        )
        held_out = f"{100 * share:.0f} % of them are held out"
        because = f"{sampling}; {held_out}, and no model is trained on them"
        row_count = count_phrase(int(rows.sum()), "row")
        self._decisions.append(Decision("rows for the gate", row_count, because, prominent=True))
        return rows

    def _cap_model_labels(
        self, train_mask: Bools, model_labelled: Bools, share: float, n_old: int
    ) -> Bools:
        """The training rows with at most the allowed share of rows that a model labelled."""
        model_rows = train_mask & model_labelled
        n_other = int((train_mask & ~model_labelled).sum()) + n_old
        limit = math.floor(share / (1 - share) * n_other) if share < 1 else len(model_labelled)
        n = int(model_rows.sum())
        self._counts["own_cap"] = limit
        if n <= limit:
            return train_mask
        order = np.flatnonzero(model_rows)
        removed = generator(self._recipe.seed, "own labels").permutation(order)[limit:]
        capped = train_mask.copy()
        capped[removed] = False
        because = (
            f"{n} rows were labelled by a model: at most {100 * share:.0f} % of the training rows "
            "may be, since a model trained on its own predictions loses rare cases"
        )
        self._decisions.append(Decision("rows labelled by a model", str(limit), because, True))
        return capped

    def _origins_before(self) -> list[dict[str, Any]]:
        """Which rows of the run came from feedback, as the run recorded it."""
        path = self._finished_run.run / f"{FEEDBACK}.parquet"
        if not path.is_file():
            return []
        import pyarrow.parquet as parquet

        return list(parquet.read_table(path).to_pylist())

    def _deleted_rows(self, train: Table, origins: Sequence[Mapping[str, Any]]) -> set[int]:
        """The old training rows that came from feedback which the store no longer has."""
        known = self._feedback.known
        of_store = [one for one in origins if one["id"] >= 0]
        if known is None:
            if of_store:
                because = (
                    f"{count_phrase(len(of_store), 'training row')} came from the feedback of a "
                    f"store, and {self._feedback.where} does not say which of it was deleted "
                    "since: if any was, update from the store"
                )
                self._decisions.append(Decision("deleted feedback", "unknown", because, True))
            return set()
        deleted = {one["row"] for one in of_store if one["id"] not in known}
        rows = np.asarray(train.column("row"), dtype=np.int64)
        positions = set(np.flatnonzero(np.isin(rows, sorted(deleted))).tolist())
        if positions:
            because = (
                f"their feedback was deleted after {self._finished_run.run} was trained on them"
            )
            row_count = count_phrase(len(positions), "training row")
            self._decisions.append(Decision("deleted feedback", row_count, because, True))
        return positions

    def _replay_sample(self, train: Table, excluded: set[int], n_new: int) -> Table:
        """The old training rows that are replayed: all, or a sample that contains every class."""
        remaining = np.array([i for i in range(len(train)) if i not in excluded], dtype=np.int64)
        limit = max(MIN_REPLAYED, REPLAY_TIMES * n_new)
        if len(remaining) <= limit:
            because = f"{len(remaining):,} rows are within the limit of {limit:,}"
            self._decisions.append(Decision("replay", "all old training rows", because))
            return train.take(remaining)
        labels = np.asarray(train.column("label"))[remaining]
        order = generator(self._recipe.seed, "replay").permutation(len(remaining))
        _, first = np.unique(labels[order], return_index=True)
        # One row of each class first, then in the order of the draw.
        ranked = np.concatenate([order[first], np.delete(order, first)])
        sample = np.sort(remaining[ranked[:limit]])
        because = (
            f"of {len(remaining):,}: {REPLAY_TIMES} times the new rows, but at least "
            f"{MIN_REPLAYED:,}"
        )
        self._decisions.append(Decision("replay", f"{len(sample):,} old training rows", because))
        return train.take(sample)

    def _stored_rows(self, split: str, table: Table) -> pa.Table:
        """The rows of a split as their file holds them."""
        rows = self._sources.raw(split).table.take(np.asarray(table.column("row"), dtype=np.int64))
        return with_columns(rows, self._sources.raw("source").names)

    def _count_class_labels(self, table: Table, train_mask: Bools, train: Table) -> None:
        """Count the new and old labels of each class, where there are classes."""
        if not table.classes or not table.columns.one_class:
            return
        new_counts = np.bincount(
            np.asarray(table.column("label"))[train_mask], minlength=len(table.classes)
        )
        old_counts = np.bincount(np.asarray(train.column("label")), minlength=len(table.classes))
        self._counts["per_class"] = {
            name: {"new": int(a), "old": int(b)}
            for name, a, b in zip(table.classes, new_counts, old_counts, strict=True)
        }

    def _report_scripts(self, table: Table, positions: Ints, train: Table) -> None:
        """Report rows with unusual scripts, whether they are used or not."""
        mixed, word = mixed_words(table)
        checks = [("feedback_mixed_scripts", mixed, f"a word with letters of two scripts ({word})")]
        for script, rows in new_scripts(table, train).items():
            what = f"letters of the script {script}, which no training row of the run contains"
            checks.append(("feedback_new_script", np.setdiff1d(rows, mixed), what))
        for check, rows, what in checks:
            if len(rows):
                because = (
                    f"{count_phrase(len(rows), 'row')} of the feedback "
                    f"{has_or_have(len(rows))} {what}"
                )
                remedy = "Check these rows and their labels: the model reads them as other texts."
                self._add_finding(check, positions[rows], because, remedy, fixed=False)

    def _measure_spread(
        self, table: Table, train_mask: Bools, model_labelled: Bools, replayed: Table
    ) -> None:
        """Measure the diversity of labels by a model, where there are any."""
        if not (train_mask & model_labelled).any():
            return
        labels = decode_labels(table)
        annotator_labels, model_labels = (
            [labels[int(i)] for i in np.flatnonzero(train_mask & which)]
            for which in (~model_labelled, model_labelled)
        )
        written = "target" in table.rows.column_names or "turns" in table.rows.column_names
        self._spread = measure_spread(
            decode_labels(replayed),
            annotator_labels,
            model_labels,
            generated=written,
            seed=self._recipe.seed,
        )
        finding = self._spread.finding()
        if finding is not None:
            self._findings.append(finding)

    def _feedback_block(self, n_model_labelled: int, max_model_share: float) -> dict[str, Any]:
        """What happened to the feedback: how its rows were drawn, who labelled them, what is left
        out."""
        feedback, counts = self._feedback, dict(self._counts)
        model_labelled = {
            "n": int(feedback.model_labelled.sum()),
            "used": n_model_labelled,
            "cap": counts.pop("own_cap"),
            "share": max_model_share,
            "diversity": None if self._spread is None else self._spread.to_json(),
        }
        per_class = counts.pop("per_class", None)
        return {
            "disagreed": feedback.disagreed,
            "uniform": None if feedback.uniform is None else int(feedback.uniform.sum()),
            "own_labelled": model_labelled,
            "left_out": counts,
            "per_class": per_class,
        }

    def _updated_recipe(self) -> Recipe:
        """The run's own recipe on the joined files, with the existing split; validation rows are
        set aside, because the served model and the new one are compared on them."""
        split = SplitShares(seed=_lineage_seed(self._recipe)).model_dump()
        data = dict.fromkeys(("config", "encoding", "valid", "test")) | {"split": split}
        return self._recipe.with_changes(data=data, cv={"folds": None}, train={"folds": 0})

    def _add_finding(
        self, check: str, rows: Ints, because: str, remedy: str, *, fixed: bool = True
    ) -> None:
        listed, score = tuple(rows[:MAX_LISTED].tolist()), len(rows) / len(self._feedback)
        finding = Finding(check, "warn", score, len(rows), listed, because, remedy, fixed=fixed)
        self._findings.append(finding)


def _lineage_seed(recipe: Recipe) -> int:
    """The seed of the split, which stays the same along a line of updates."""
    return recipe.seed if recipe.data.split.seed is None else recipe.data.split.seed


def _uniform_hash(seed: int, key: int) -> float:
    """A number in [0, 1) that a text keeps in every update of a line of runs."""
    digest = hashlib.blake2b(f"{seed} gate {key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _feedback_origins(
    origins_before: Sequence[Mapping[str, Any]],
    replayed: Table,
    ids: npt.NDArray[np.int64],
    model_labelled: Bools,
) -> pa.Table:
    """Which rows of ``data.parquet`` came from which feedback: the rows of ``origins_before`` that
    are replayed (``replayed``), by their new positions, and the new rows. Feedback of an earlier
    update can be deleted too, so its origins are kept."""
    import pyarrow as pa

    rows = np.arange(len(replayed), len(replayed) + len(ids), dtype=np.int64)
    new = pa.table({"row": rows, "id": ids, "own": model_labelled})
    places = {int(row): at for at, row in enumerate(np.asarray(replayed.column("row")))}
    replayed_origins = [
        {**one, "row": places[one["row"]]} for one in origins_before if one["row"] in places
    ]
    return pa.concat_tables([pa.Table.from_pylist(replayed_origins, schema=new.schema), new])
