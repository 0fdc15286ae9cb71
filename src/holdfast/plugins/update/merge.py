"""Feedback and the rows of a finished run → the files from which its update learns.

The old validation and test rows stay what they were. Of the feedback a share that no model will
learn from is set aside for the gate before anything else is looked at, by a hash of each text: what
was set aside once is set aside in every later update. The rest joins the old training rows.
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
from holdfast.data.labels.spelling import label_key
from holdfast.data.memory.frames import frame_file
from holdfast.data.raw import Raw
from holdfast.data.source import read_source
from holdfast.data.table import Table
from holdfast.data.tags.sentences import read_tagged
from holdfast.duplicates.duplicates import find_duplicates
from holdfast.duplicates.words import RowTexts
from holdfast.plugins.update.feedback import read_feedback, with_columns
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
# Of rows that were drawn evenly, and of a file that does not say how its rows came.
GATE_SHARE_UNIFORM, GATE_SHARE_FILE = 0.5, 0.3
MAX_MODEL_SHARE = 0.2
# All old training rows are replayed up to so many, or so many times the new ones.
MIN_REPLAYED, REPLAY_TIMES = 20_000, 10
MAX_LISTED = 100
MORE_FEEDBACK = "Gather more feedback, and update then."
FEEDBACK, GATE = "feedback", "gate"


@dataclass(frozen=True, slots=True, eq=False)
class JoinedRows:
    """``recipe`` is the run's recipe with the new rows. ``tables`` holds, by name, ``data``,
    ``valid``, ``test``, the rows held out for the ``gate``, and ``feedback``: which rows came from
    which feedback. ``block`` counts what became of the feedback; ``deleted`` counts training rows
    of the run that were deleted since."""

    recipe: Recipe
    tables: Mapping[str, pa.Table]
    block: Mapping[str, Any]
    deleted: int
    findings: tuple[Finding, ...]
    decisions: tuple[Decision, ...]

    @property
    def rows(self) -> tuple[int, int]:
        """The training rows of the run, and of its update."""
        replayed = self.block["replayed"]
        return replayed["of"], replayed["n"] + self.block["used"]


def join_feedback(
    run: Path, where: str, gate_share: float | None = None, max_model_share: float = MAX_MODEL_SHARE
) -> JoinedRows:
    """The training rows of the update of ``run``, and the rows by which it is judged.
    ``gate_share`` is the share held out for the gate (``None``: the default), ``max_model_share``
    the largest share of training rows that a model may have labelled.

    Raises ``RecipeError`` or ``RunError`` for a run that cannot be updated, ``DataError`` where no
    row of the feedback can be used for training or for the gate.
    """
    return _FeedbackJoin(run, where).join(gate_share, max_model_share)


def unseen_labelled_rows(run: Path, where: str) -> Table:
    """The feedback that speaks for all that the model meets and that it has not learned from, in
    the order in which it came."""
    return _FeedbackJoin(run, where).unseen()


def _refuse_run(finished_run: FinishedRun) -> None:
    """Raise ``RunError`` for a run that has nothing to be judged by, or of a task whose rows cannot
    be joined."""
    run, task = str(finished_run.run), finished_run.recipe.task
    if task in IMAGE_TASKS:
        rule = f"is of {task}, whose pictures update cannot join"
        raise RunError(run, rule, None, "Put the new pictures into its folder, and train again.")
    if finished_run.out_of_fold or not (finished_run.result.get("valid") or {}).get("n"):
        raise RunError(
            run,
            "has no validation rows that it did not learn from, by which an update could be judged",
            None,
            "Update a run of holdfast train that sets validation rows aside (train.folds=0).",
        )
    test = finished_run.result.get("test") or {}
    if not test.get("n") or test.get("out_of_fold"):
        rule = "has no test rows, and an update is scored on those of its run"
        raise RunError(run, rule, None, "Update a run that has test rows.")


class _Sources:
    """The run's own files: as tables, and as they are written."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        with within_limits(recipe.data):
            self.tables = run_tables(recipe)
        if recipe.task in DECODER_TASKS:
            try:
                labels_of_rows(self.tables["source"])
            except RecipeError:
                rule = "is plain text, which has no answers that feedback could correct"
                remedy = "Train again with the new texts in it."
                raise RunError(self.tables["source"].source, rule, recipe.task, remedy) from None
        self._raw: dict[str, Raw] = {}

    def read(self, source: str, encoding: str | None = None, config: str | None = None) -> Raw:
        """Every cell of a file, as the run's task reads files."""
        reader = read_tagged if self._recipe.task in TAGGING_TASKS else read_source
        with within_limits(self._recipe.data):
            return reader(source, encoding, config)

    def raw(self, split: str) -> Raw:
        """The file that a side's rows came of, whole."""
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
        self._feedback = read_feedback(where, self._recipe.data, raw, self._sources.read)
        self._counts: dict[str, Any] = dict(self._feedback.unusable)
        self._findings: list[Finding] = []
        self._decisions = list(self._feedback.decisions)
        self._spread: Spread | None = None

    def join(self, gate_share: float | None, max_model_share: float) -> JoinedRows:
        import pyarrow as pa

        feedback = self._feedback
        if not len(feedback):
            raise DataError(
                feedback.where, "holds no feedback that can be learned from", 0, MORE_FEEDBACK
            )
        rows, feedback_positions = self._known_class_rows()
        table = self._table(rows)
        row_numbers = np.asarray(table.column("row"), dtype=np.int64)
        positions = feedback_positions[row_numbers]
        self._counts["missing"] = len(feedback_positions) - len(positions)
        train = self._finished_run.table("train")
        self._report_scripts(table, positions, train)
        usable, duplicate_group, replaced = self._usable_rows(table, train)
        gate_mask = self._gate_rows(table, positions, usable, duplicate_group, gate_share)
        # Nothing is learned from that copies a row of the gate.
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
            "valid": self._stored_rows("valid", self._finished_run.table("valid")),
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
        """Raise ``DataError`` where no row is left to learn from, or none for the gate."""
        if not used or not held:
            raise DataError(
                self._feedback.where,
                "leaves too few rows: an update needs some to learn from and some to be judged by",
                f"{used} to learn from, {held} to judge by",
                MORE_FEEDBACK,
            )

    def unseen(self) -> Table:
        """Rows that were drawn evenly, labelled by people, and on no side of the run."""
        if not len(self._feedback):
            raise DataError(self._feedback.where, "holds no feedback", 0, MORE_FEEDBACK)
        rows, feedback_positions = self._known_class_rows()
        table = self._table(rows)
        positions = feedback_positions[np.asarray(table.column("row"), dtype=np.int64)]
        new = find_known_rows([self._finished_run.run], table).split_index == NO_SPLIT
        return table.take(np.flatnonzero(new & self._fair_sample(positions)))

    def _fair_sample(self, positions: Ints) -> Bools:
        """Which rows people labelled and were drawn evenly, or may have been."""
        feedback = self._feedback
        uniform = (
            np.ones(len(positions), bool)
            if feedback.uniform is None
            else feedback.uniform[positions]
        )
        return uniform & ~feedback.model_labelled[positions]

    def _known_class_rows(self) -> tuple[pa.Table, Ints]:
        """The rows whose label is a class of the run, and their places in the feedback."""
        rows, label = self._feedback.rows, self._recipe.data.label
        positions = np.arange(len(self._feedback))
        source = self._sources.tables["source"]
        if source.columns.label_kind != "class" or label not in rows.column_names:
            return rows, positions
        known = {label_key(name) for name in source.classes}
        cells = rows[label].to_pylist()
        known_mask = np.array([one is None or label_key(one) in known for one in cells], dtype=bool)
        unknown_labels = Counter(one for one, ok in zip(cells, known_mask, strict=True) if not ok)
        self._counts["unknown_label"] = unknown_labels.total()
        if unknown_labels:
            names = ", ".join(repr(name) for name, _ in unknown_labels.most_common(5))
            if not known_mask.any():
                raise DataError(
                    self._feedback.where,
                    "holds no label that is a class of the run",
                    names,
                    f"The run's classes: {', '.join(source.classes[:20])}. A new class needs a run "
                    "of its own: join the rows, and train again.",
                )
            self._add_finding(
                "unknown_label",
                np.flatnonzero(~known_mask),
                f"{count_phrase(unknown_labels.total(), 'row')} of the feedback have a "
                "label that is no class "
                f"of the run ({names}); they are left out",
                "Correct them; a new class needs a run of its own: join the rows and train again.",
            )
        return rows.take(positions[known_mask]), positions[known_mask]

    def _table(self, rows: pa.Table) -> Table:
        """The feedback as the run reads rows, its texts treated alike."""
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
            raise DataError(where, error.rule, error.value, error.remedy) from None
        finally:
            path.unlink(missing_ok=True)

    def _usable_rows(self, table: Table, train: Table) -> tuple[Bools, Ints, set[int]]:
        """Which rows may be used, the unit of each (near-copies are one), and the old training rows
        that a new label replaces."""
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
                    f"{count_phrase(int(in_split.sum()), 'row')} of the feedback copy "
                    f"{split} rows of the "
                    "run; they are left out, or what judges would be learned",
                    "Nothing is to be done.",
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
                "label in the "
                "feedback; the later label is learned, the earlier row is left out"
            )
            self._decisions.append(Decision("corrected rows", str(len(replaced)), because, True))
        copies = find_duplicates(RowTexts(table), seed=self._recipe.seed)
        self._unseen = np.asarray(run_splits.split_index == NO_SPLIT)
        return usable, np.asarray(copies.groups, dtype=np.int64), replaced

    def _consistent_labels(self, keys: Any, labels: Sequence[str], usable: Bools) -> Bools:
        """Of copies with one label the last; none of copies whose labels differ."""
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
                f"{count_phrase(len(conflicting_rows), 'row')} of the feedback are copies "
                "with different labels; "
                "they are left out",
                "Decide what each of these texts is, and give one label.",
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
        """The rows that the gate is decided by."""
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
            "the file does not say how its rows came, so that it is taken for a fair sample of "
            "what the model meets"
            if feedback.uniform is None
            else f"{int(feedback.uniform[positions].sum())} rows were drawn evenly at "
            "random, and only these "
            "speak for all that the model meets"
        )
        because = f"{sampling}; {share:.0%} of them are set aside, and no model learns from them"
        row_count = count_phrase(int(rows.sum()), "row")
        self._decisions.append(Decision("rows for the gate", row_count, because, prominent=True))
        return rows

    def _cap_model_labels(
        self, train_mask: Bools, model_labelled: Bools, share: float, n_old: int
    ) -> Bools:
        """With at most the allowed share of rows that a model labelled."""
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
            f"{n} rows were labelled by a model: at most {share:.0%} of the training rows may be, "
            "since what learns from itself loses what is rare"
        )
        self._decisions.append(Decision("rows labelled by a model", str(limit), because, True))
        return capped

    def _origins_before(self) -> list[dict[str, Any]]:
        """What the run wrote down of the rows that it had of feedback."""
        path = self._finished_run.run / f"{FEEDBACK}.parquet"
        if not path.is_file():
            return []
        import pyarrow.parquet as parquet

        return list(parquet.read_table(path).to_pylist())

    def _deleted_rows(self, train: Table, origins: Sequence[Mapping[str, Any]]) -> set[int]:
        """The old training rows that came of feedback which the store does not have any more."""
        known = self._feedback.known
        if known is None:
            return set()
        deleted = {one["row"] for one in origins if one["id"] >= 0 and one["id"] not in known}
        rows = np.asarray(train.column("row"), dtype=np.int64)
        positions = set(np.flatnonzero(np.isin(rows, sorted(deleted))).tolist())
        if positions:
            because = (
                f"their feedback was deleted since {self._finished_run.run} had learned from them"
            )
            row_count = count_phrase(len(positions), "training row")
            self._decisions.append(Decision("deleted feedback", row_count, because, True))
        return positions

    def _replay_sample(self, train: Table, excluded: set[int], n_new: int) -> Table:
        """The old training rows that are learned again: all, or a sample in which every class
        is."""
        remaining = np.array([i for i in range(len(train)) if i not in excluded], dtype=np.int64)
        limit = max(MIN_REPLAYED, REPLAY_TIMES * n_new)
        if len(remaining) <= limit:
            because = f"{len(remaining):,} are no more than {limit:,}"
            self._decisions.append(Decision("replay", "all old training rows", because))
            return train.take(remaining)
        labels = np.asarray(train.column("label"))[remaining]
        order = generator(self._recipe.seed, "replay").permutation(len(remaining))
        _, first = np.unique(labels[order], return_index=True)
        # One of each class whatever the draw, then in the order of the draw.
        ranked = np.concatenate([order[first], np.delete(order, first)])
        sample = np.sort(remaining[ranked[:limit]])
        because = (
            f"of {len(remaining):,}: {REPLAY_TIMES} times the new rows, and at least "
            f"{MIN_REPLAYED:,}"
        )
        self._decisions.append(Decision("replay", f"{len(sample):,} old training rows", because))
        return train.take(sample)

    def _stored_rows(self, split: str, table: Table) -> pa.Table:
        """The rows of a side as their file has them."""
        rows = self._sources.raw(split).table.take(np.asarray(table.column("row"), dtype=np.int64))
        return with_columns(rows, self._sources.raw("source").names)

    def _count_class_labels(self, table: Table, train_mask: Bools, train: Table) -> None:
        """How many labels of each class are new, where there are classes."""
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
        """Which rows are written in odd letters, whatever becomes of them."""
        mixed, word = mixed_words(table)
        checks = [("feedback_mixed_scripts", mixed, f"a word of letters of two scripts ({word})")]
        for script, rows in new_scripts(table, train).items():
            what = f"letters of {script}, of which no training row of the run has any"
            checks.append(("feedback_new_script", np.setdiff1d(rows, mixed), what))
        for check, rows, what in checks:
            if len(rows):
                because = (
                    f"{count_phrase(len(rows), 'row')} of the feedback "
                    f"{has_or_have(len(rows))} {what}"
                )
                remedy = "Look at these rows and their labels: to the model they are other texts."
                self._add_finding(check, positions[rows], because, remedy, fixed=False)

    def _measure_spread(
        self, table: Table, train_mask: Bools, model_labelled: Bools, replayed: Table
    ) -> None:
        """How much the answers of a model differ, where there are some."""
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
        """What became of the feedback: how its rows came, who labelled them, what is left out."""
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
        """The run's own recipe on other files: the division is the one that there is."""
        split = SplitShares(seed=_lineage_seed(self._recipe)).model_dump()
        data = dict.fromkeys(("config", "encoding", "valid", "test")) | {"split": split}
        return self._recipe.with_changes(data=data, cv={"folds": None})

    def _add_finding(
        self, check: str, rows: Ints, because: str, remedy: str, *, fixed: bool = True
    ) -> None:
        listed, score = tuple(rows[:MAX_LISTED].tolist()), len(rows) / len(self._feedback)
        finding = Finding(check, "warn", score, len(rows), listed, because, remedy, fixed=fixed)
        self._findings.append(finding)


def _lineage_seed(recipe: Recipe) -> int:
    """The seed of the division, which a line of updates keeps whatever seed each has."""
    return recipe.seed if recipe.data.split.seed is None else recipe.data.split.seed


def _uniform_hash(seed: int, key: int) -> float:
    """A number in [0, 1) that a text has in every update of a line of runs."""
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
