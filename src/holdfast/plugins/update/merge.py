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

from holdfast.analyses.row_texts import given_labels, labels_of_rows
from holdfast.contract.inference import within_limits
from holdfast.core.errors import DataError, RecipeError, RunError
from holdfast.core.records import Decision, Finding, Ints
from holdfast.core.seeds import generator
from holdfast.core.tasks import DECODERS, OF_PICTURES, TAGGERS
from holdfast.core.wording import counted, have
from holdfast.data.labels.spelling import label_key
from holdfast.data.memory.frames import frame_file
from holdfast.data.raw import Raw
from holdfast.data.source import read_source
from holdfast.data.table import Table
from holdfast.data.tags.sentences import read_tagged
from holdfast.duplicates.duplicates import find_copies
from holdfast.duplicates.words import RowTexts
from holdfast.plugins.update.feedback import read_given, with_columns
from holdfast.plugins.update.findings import Spread, mixed_words, new_scripts, spread_of
from holdfast.prepare.clean import clean_like_run
from holdfast.recipe import Recipe
from holdfast.recipe.parts import SplitShares
from holdfast.runs.finished_run import FinishedRun, run_tables
from holdfast.runs.known_rows import NO_SPLIT, SPLIT_NAMES, find_known_rows
from holdfast.split.divide import text_keys
from holdfast.tasks import kind_of

if TYPE_CHECKING:
    import pyarrow as pa


Bools = npt.NDArray[np.bool_]
# Of rows that were drawn evenly, and of a file that does not say how its rows came.
HOLD_UNIFORM, HOLD_FILE = 0.5, 0.3
OWN_SHARE = 0.2
# All old training rows are replayed up to so many, or so many times the new ones.
REPLAYED, REPLAY_TIMES = 20_000, 10
LISTED = 100
MORE = "Gather more feedback, and update then."
FEEDBACK, GATE = "feedback", "gate"


@dataclass(frozen=True, slots=True, eq=False)
class JoinedRows:
    """``recipe`` is the run's own on the new rows, ``held`` its tables by name: ``data``, ``valid``
    and ``test``, ``gate`` the rows set aside, ``feedback`` which of the rows came of which
    feedback. ``block`` counts what became of the feedback; ``deleted`` of the rows that the run had
    learned from were deleted since."""

    recipe: Recipe
    held: Mapping[str, pa.Table]
    block: Mapping[str, Any]
    deleted: int
    findings: tuple[Finding, ...]
    decisions: tuple[Decision, ...]

    @property
    def rows(self) -> tuple[int, int]:
        """The training rows of the run, and of its update."""
        replayed = self.block["replayed"]
        return replayed["of"], replayed["n"] + self.block["used"]


def join(run: Path, where: str, hold: float | None = None, own: float = OWN_SHARE) -> JoinedRows:
    """The rows from which the update of ``run`` learns, and by which it is judged. ``hold`` is the
    share that is set aside for the gate (``None``: the usual one), ``own`` the largest share of
    training rows that a model may have labelled.

    Raises ``RecipeError`` or ``RunError`` for a run that cannot be updated, ``DataError`` where no
    row of the feedback can be learned from or judged by.
    """
    return _Joining(run, where).join(hold, own)


def labelled_rows(run: Path, where: str) -> Table:
    """The feedback that speaks for all that the model meets and that it has not learned from, in
    the order in which it came."""
    return _Joining(run, where).unseen()


def _refuse_run(again: FinishedRun) -> None:
    """Raise ``RunError`` for a run that has nothing to be judged by, or of a task whose rows cannot
    be joined."""
    run, task = str(again.run), again.recipe.task
    if task in OF_PICTURES:
        rule = f"is of {task}, whose pictures update cannot join"
        raise RunError(run, rule, None, "Put the new pictures into its folder, and train again.")
    if again.out_of_fold or not (again.result.get("valid") or {}).get("n"):
        raise RunError(
            run,
            "has no validation rows that it did not learn from, by which an update could be judged",
            None,
            "Update a run of holdfast train that sets validation rows aside (train.folds=0).",
        )
    test = again.result.get("test") or {}
    if not test.get("n") or test.get("out_of_fold"):
        rule = "has no test rows, and an update is scored on those of its run"
        raise RunError(run, rule, None, "Update a run that has test rows.")


class _Sources:
    """The run's own files: as tables, and as they are written."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        with within_limits(recipe.data):
            self.tables = run_tables(recipe)
        if recipe.task in DECODERS:
            try:
                labels_of_rows(self.tables["source"])
            except RecipeError:
                rule = "is plain text, which has no answers that feedback could correct"
                remedy = "Train again with the new texts in it."
                raise RunError(self.tables["source"].source, rule, recipe.task, remedy) from None
        self._raw: dict[str, Raw] = {}

    def read(self, source: str, encoding: str | None = None, config: str | None = None) -> Raw:
        """Every cell of a file, as the run's task reads files."""
        reader = read_tagged if self._recipe.task in TAGGERS else read_source
        with within_limits(self._recipe.data):
            return reader(source, encoding, config)

    def raw(self, side: str) -> Raw:
        """The file that a side's rows came of, whole."""
        source = self.tables.get(side, self.tables["source"]).source
        if source not in self._raw:
            part = self._recipe.data
            self._raw[source] = self.read(source, part.encoding, part.config)
        return self._raw[source]


class _Joining:
    def __init__(self, run: Path, where: str) -> None:
        self._again = FinishedRun(run)
        self._recipe = self._again.recipe
        _refuse_run(self._again)
        self._sources = _Sources(self._recipe)
        raw = self._sources.raw("source")
        self._given = read_given(where, self._recipe.data, raw, self._sources.read)
        self._counts: dict[str, Any] = dict(self._given.unusable)
        self._findings: list[Finding] = []
        self._decisions = list(self._given.decisions)
        self._spread: Spread | None = None

    def join(self, hold: float | None, own_share: float) -> JoinedRows:
        import pyarrow as pa

        given = self._given
        if not len(given):
            raise DataError(given.where, "holds no feedback that can be learned from", 0, MORE)
        rows, kept = self._known_labels()
        table = self._table(rows)
        places = np.asarray(table.column("row"), dtype=np.int64)
        at = kept[places]
        self._counts["missing"] = len(kept) - len(at)
        train = self._again.table("train")
        self._tell_scripts(table, at, train)
        usable, unit, replaced = self._usable(table, train)
        aside = self._aside(table, at, usable, unit, hold)
        # Nothing is learned from that copies a row of the gate.
        taught, own = usable & ~np.isin(unit, unit[aside]), given.own[at]
        taught = self._capped(taught, own, own_share, len(train))
        used = int(taught.sum())
        if not used or not aside.any():
            raise DataError(
                given.where,
                "leaves too few rows: an update needs some to learn from and some to be judged by",
                f"{used} to learn from, {int(aside.sum())} to judge by",
                MORE,
            )
        before = self._origins_before()
        gone = self._deleted(train, before)
        old = self._replayed(train, {*replaced, *gone}, used)
        replayed = self._old("train", old)
        new = with_columns(rows.take(places[taught]), replayed.column_names)
        held = {
            "data": pa.concat_tables([replayed, new], promote_options="default"),
            "valid": self._old("valid", self._again.table("valid")),
            "test": self._old("test", self._again.table("test")),
            GATE: rows.take(places[aside]),
            FEEDBACK: _origins(before, old, given.ids[at[taught]], own[taught]),
        }
        self._tell_labels(table, taught, train)
        self._tell_spread(table, taught, own, old)
        block = {
            "source": given.where,
            "n": len(given),
            "used": used,
            "held": int(aside.sum()),
            **self._block(int((taught & own).sum()), own_share),
            "replayed": {"n": len(old), "of": len(train)},
            "deleted_since": len(gone),
        }
        findings, decisions = tuple(self._findings), tuple(self._decisions)
        return JoinedRows(self._renewed(), held, block, len(gone), findings, decisions)

    def unseen(self) -> Table:
        """Rows that were drawn evenly, labelled by people, and on no side of the run."""
        if not len(self._given):
            raise DataError(self._given.where, "holds no feedback", 0, MORE)
        rows, kept = self._known_labels()
        table = self._table(rows)
        at = kept[np.asarray(table.column("row"), dtype=np.int64)]
        new = find_known_rows([self._again.run], table).split_index == NO_SPLIT
        return table.take(np.flatnonzero(new & self._drawn(at)))

    def _drawn(self, at: Ints) -> Bools:
        """Which rows people labelled and were drawn evenly, or may have been."""
        given = self._given
        even = np.ones(len(at), bool) if given.uniform is None else given.uniform[at]
        return even & ~given.own[at]

    def _known_labels(self) -> tuple[pa.Table, Ints]:
        """The rows whose label is a class of the run, and their places in the feedback."""
        rows, label = self._given.rows, self._recipe.data.label
        every = np.arange(len(self._given))
        main = self._sources.tables["source"]
        if main.columns.label_kind != "class" or label not in rows.column_names:
            return rows, every
        known = {label_key(name) for name in main.classes}
        cells = rows[label].to_pylist()
        fine = np.array([one is None or label_key(one) in known for one in cells], dtype=bool)
        strange = Counter(one for one, ok in zip(cells, fine, strict=True) if not ok)
        self._counts["unknown_label"] = strange.total()
        if strange:
            names = ", ".join(repr(name) for name, _ in strange.most_common(5))
            if not fine.any():
                raise DataError(
                    self._given.where,
                    "holds no label that is a class of the run",
                    names,
                    f"The run's classes: {', '.join(main.classes[:20])}. A new class needs a run "
                    "of its own: join the rows, and train again.",
                )
            self._find(
                "unknown_label",
                np.flatnonzero(~fine),
                f"{counted(strange.total(), 'row')} of the feedback have a label that is no class "
                f"of the run ({names}); they are left out",
                "Correct them; a new class needs a run of its own: join the rows and train again.",
            )
        return rows.take(every[fine]), every[fine]

    def _table(self, rows: pa.Table) -> Table:
        """The feedback as the run reads rows, its texts treated alike."""
        import pyarrow as pa

        recipe, part = self._recipe, self._recipe.data
        if part.group and part.group in rows.column_names:
            at = rows.column_names.index(part.group)
            cells = rows[part.group].to_pylist()
            named = [one or f"feedback {i}" for i, one in enumerate(cells)]
            rows = rows.set_column(at, part.group, pa.array(named, pa.string()))
        plain = part.model_copy(update={"encoding": None, "config": None, "reweigh": None})
        path = frame_file(rows, self._given.where)
        try:
            with within_limits(part):
                table = kind_of(recipe.task).read(str(path), plain, self._sources.tables["source"])
            return clean_like_run(table, recipe)
        except DataError as error:
            what = error.what.replace(str(path), self._given.where)
            raise DataError(what, error.rule, error.value, error.remedy) from None
        finally:
            path.unlink(missing_ok=True)

    def _usable(self, table: Table, train: Table) -> tuple[Bools, Ints, set[int]]:
        """Which rows may be used, the unit of each (near-copies are one), and the old training rows
        that a new label replaces."""
        seen = find_known_rows([self._again.run], table)
        usable = np.ones(len(table), dtype=bool)
        for side in ("valid", "test"):
            there = seen.split_index == SPLIT_NAMES.index(side)
            self._counts[f"leaked_{side}"] = int(there.sum())
            usable &= ~there
            if there.any():
                self._find(
                    f"feedback_copies_{side}",
                    np.flatnonzero(there),
                    f"{counted(int(there.sum()), 'row')} of the feedback copy {side} rows of the "
                    "run; they are left out, or what judges would be learned",
                    "Nothing is to be done.",
                )
        keys, labels = text_keys(table), [repr(one) for one in given_labels(table)]
        usable &= self._agreeing(keys, labels, usable)
        known = dict(zip(text_keys(train).tolist(), range(len(train)), strict=True))
        known_labels = [repr(one) for one in given_labels(train)]
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
                f"{counted(len(replaced), 'training row')} of the run have another label in the "
                "feedback; the later label is learned, the earlier row is left out"
            )
            self._decisions.append(Decision("corrected rows", str(len(replaced)), because, True))
        copies = find_copies(RowTexts(table), seed=self._recipe.seed)
        self._new = np.asarray(seen.split_index == NO_SPLIT)
        return usable, np.asarray(copies.groups, dtype=np.int64), replaced

    def _agreeing(self, keys: Any, labels: Sequence[str], usable: Bools) -> Bools:
        """Of copies with one label the last; none of copies whose labels differ."""
        said: dict[int, set[str]] = {}
        last: dict[int, int] = {}
        for i in np.flatnonzero(usable):
            said.setdefault(int(keys[i]), set()).add(labels[int(i)])
            last[int(keys[i])] = int(i)
        differ = {key for key, one in said.items() if len(one) > 1}
        fine = np.zeros(len(keys), dtype=bool)
        fine[[i for key, i in last.items() if key not in differ]] = True
        mixed = np.array([i for i in np.flatnonzero(usable) if int(keys[i]) in differ], np.int64)
        self._counts |= {
            "conflicting": len(mixed),
            "copies": int(usable.sum()) - len(mixed) - int(fine.sum()),
        }
        if len(mixed):
            self._find(
                "feedback_conflicts",
                mixed,
                f"{counted(len(mixed), 'row')} of the feedback are copies with different labels; "
                "they are left out",
                "Decide what each of these texts is, and give one label.",
            )
        return fine

    def _aside(
        self, table: Table, at: Ints, usable: Bools, unit: Ints, hold: float | None
    ) -> Bools:
        """The rows that the gate is decided by."""
        given = self._given
        usual = HOLD_FILE if given.uniform is None else HOLD_UNIFORM
        share = usual if hold is None else hold
        keys = text_keys(table)
        lowest = np.full(int(unit.max(initial=0)) + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
        np.minimum.at(lowest, unit, keys)
        chance = np.array([_chance(_line_seed(self._recipe), int(one)) for one in lowest])
        rows: Bools = usable & self._drawn(at) & self._new & (chance[unit] < share)
        how = (
            "the file does not say how its rows came, so that it is taken for a fair sample of "
            "what the model meets"
            if given.uniform is None
            else f"{int(given.uniform[at].sum())} rows were drawn evenly at random, and only these "
            "speak for all that the model meets"
        )
        because = f"{how}; {share:.0%} of them are set aside, and no model learns from them"
        told = counted(int(rows.sum()), "row")
        self._decisions.append(Decision("rows for the gate", told, because, prominent=True))
        return rows

    def _capped(self, taught: Bools, own: Bools, share: float, old: int) -> Bools:
        """With at most the allowed share of rows that a model labelled."""
        mine = taught & own
        others = int((taught & ~own).sum()) + old
        most = math.floor(share / (1 - share) * others) if share < 1 else len(own)
        n = int(mine.sum())
        self._counts["own_cap"] = most
        if n <= most:
            return taught
        order = np.flatnonzero(mine)
        left = generator(self._recipe.seed, "own labels").permutation(order)[most:]
        kept = taught.copy()
        kept[left] = False
        because = (
            f"{n} rows were labelled by a model: at most {share:.0%} of the training rows may be, "
            "since what learns from itself loses what is rare"
        )
        self._decisions.append(Decision("rows labelled by a model", str(most), because, True))
        return kept

    def _origins_before(self) -> list[dict[str, Any]]:
        """What the run wrote down of the rows that it had of feedback."""
        path = self._again.run / f"{FEEDBACK}.parquet"
        if not path.is_file():
            return []
        import pyarrow.parquet as parquet

        return list(parquet.read_table(path).to_pylist())

    def _deleted(self, train: Table, before: Sequence[Mapping[str, Any]]) -> set[int]:
        """The old training rows that came of feedback which the store does not have any more."""
        known = self._given.known
        if known is None:
            return set()
        gone = {one["row"] for one in before if one["id"] >= 0 and one["id"] not in known}
        rows = np.asarray(train.column("row"), dtype=np.int64)
        found = set(np.flatnonzero(np.isin(rows, sorted(gone))).tolist())
        if found:
            because = f"their feedback was deleted since {self._again.run} had learned from them"
            told = counted(len(found), "training row")
            self._decisions.append(Decision("deleted feedback", told, because, True))
        return found

    def _replayed(self, train: Table, without: set[int], new: int) -> Table:
        """The old training rows that are learned again: all, or a sample in which every class
        is."""
        left = np.array([i for i in range(len(train)) if i not in without], dtype=np.int64)
        most = max(REPLAYED, REPLAY_TIMES * new)
        if len(left) <= most:
            because = f"{len(left):,} are no more than {most:,}"
            self._decisions.append(Decision("replay", "all old training rows", because))
            return train.take(left)
        labels = np.asarray(train.column("label"))[left]
        order = generator(self._recipe.seed, "replay").permutation(len(left))
        _, first = np.unique(labels[order], return_index=True)
        # One of each class whatever the draw, then in the order of the draw.
        ranked = np.concatenate([order[first], np.delete(order, first)])
        kept = np.sort(left[ranked[:most]])
        because = f"of {len(left):,}: {REPLAY_TIMES} times the new rows, and at least {REPLAYED:,}"
        self._decisions.append(Decision("replay", f"{len(kept):,} old training rows", because))
        return train.take(kept)

    def _old(self, side: str, table: Table) -> pa.Table:
        """The rows of a side as their file has them."""
        rows = self._sources.raw(side).table.take(np.asarray(table.column("row"), dtype=np.int64))
        return with_columns(rows, self._sources.raw("source").names)

    def _tell_labels(self, table: Table, taught: Bools, train: Table) -> None:
        """How many labels of each class are new, where there are classes."""
        if not table.classes or not table.columns.one_class:
            return
        said = np.bincount(np.asarray(table.column("label"))[taught], minlength=len(table.classes))
        before = np.bincount(np.asarray(train.column("label")), minlength=len(table.classes))
        self._counts["per_class"] = {
            name: {"new": int(a), "old": int(b)}
            for name, a, b in zip(table.classes, said, before, strict=True)
        }

    def _tell_scripts(self, table: Table, at: Ints, train: Table) -> None:
        """Which rows are written in odd letters, whatever becomes of them."""
        mixed, word = mixed_words(table)
        told = [("feedback_mixed_scripts", mixed, f"a word of letters of two scripts ({word})")]
        for script, rows in new_scripts(table, train).items():
            what = f"letters of {script}, of which no training row of the run has any"
            told.append(("feedback_new_script", np.setdiff1d(rows, mixed), what))
        for check, rows, what in told:
            if len(rows):
                because = f"{counted(len(rows), 'row')} of the feedback {have(len(rows))} {what}"
                remedy = "Look at these rows and their labels: to the model they are other texts."
                self._find(check, at[rows], because, remedy, fixed=False)

    def _tell_spread(self, table: Table, taught: Bools, own: Bools, old: Table) -> None:
        """How much the answers of a model differ, where there are some."""
        if not (taught & own).any():
            return
        labels = given_labels(table)
        people, mine = (
            [labels[int(i)] for i in np.flatnonzero(taught & which)] for which in (~own, own)
        )
        written = "target" in table.rows.column_names or "turns" in table.rows.column_names
        self._spread = spread_of(
            given_labels(old), people, mine, written=written, seed=self._recipe.seed
        )
        found = self._spread.finding()
        if found is not None:
            self._findings.append(found)

    def _block(self, own_used: int, own_share: float) -> dict[str, Any]:
        """What became of the feedback: how its rows came, who labelled them, what is left out."""
        given, counts = self._given, dict(self._counts)
        own = {
            "n": int(given.own.sum()),
            "used": own_used,
            "cap": counts.pop("own_cap"),
            "share": own_share,
            "diversity": None if self._spread is None else self._spread.to_json(),
        }
        per_class = counts.pop("per_class", None)
        return {
            "disagreed": given.disagreed,
            "uniform": None if given.uniform is None else int(given.uniform.sum()),
            "own_labelled": own,
            "left_out": counts,
            "per_class": per_class,
        }

    def _renewed(self) -> Recipe:
        """The run's own recipe on other files: the division is the one that there is."""
        split = SplitShares(seed=_line_seed(self._recipe)).model_dump()
        data = dict.fromkeys(("config", "encoding", "valid", "test")) | {"split": split}
        return self._recipe.changed(data=data, cv={"folds": None})

    def _find(
        self, check: str, rows: Ints, because: str, remedy: str, *, fixed: bool = True
    ) -> None:
        listed, score = tuple(rows[:LISTED].tolist()), len(rows) / len(self._given)
        found = Finding(check, "warn", score, len(rows), listed, because, remedy, fixed=fixed)
        self._findings.append(found)


def _line_seed(recipe: Recipe) -> int:
    """The seed of the division, which a line of updates keeps whatever seed each has."""
    return recipe.seed if recipe.data.split.seed is None else recipe.data.split.seed


def _chance(seed: int, key: int) -> float:
    """A number in [0, 1) that a text has in every update of a line of runs."""
    digest = hashlib.blake2b(f"{seed} gate {key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _origins(
    before: Sequence[Mapping[str, Any]], old: Table, ids: npt.NDArray[np.int64], own: Bools
) -> pa.Table:
    """Which rows of ``data.parquet`` came of which feedback: of those from ``before`` the ones that
    are replayed (``old``), by their places there, since what came of feedback two updates ago can
    be deleted too; and the new."""
    import pyarrow as pa

    rows = np.arange(len(old), len(old) + len(ids), dtype=np.int64)
    new = pa.table({"row": rows, "id": ids, "own": own})
    places = {int(row): at for at, row in enumerate(np.asarray(old.column("row")))}
    kept = [{**one, "row": places[one["row"]]} for one in before if one["row"] in places]
    return pa.concat_tables([pa.Table.from_pylist(kept, schema=new.schema), new])
