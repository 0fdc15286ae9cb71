"""``holdfast update`` as a procedure: both starts, one fit that is kept, the gate, then test rows.

learn from each start → the better by validation rows → one fit into the run's folder → the
gate, on old validation rows and on new rows kept out of training → the old test rows, once
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.analyses.compare.verdict import judge_pairs, paired
from holdfast.analyses.fairness.groups import Grouping
from holdfast.analyses.row_texts import kind_of_rows, labels_of_rows, read_texts
from holdfast.analyses.slices.conditions import RowFacts, as_category, condition_of
from holdfast.contract.fit import FittedModel, Scored
from holdfast.contract.predictions import rows_of
from holdfast.contract.result import class_columns
from holdfast.contract.run_folder import RESULT
from holdfast.core.decisions import notify
from holdfast.core.errors import HoldfastError
from holdfast.core.records import Decision, Finding, Floats, Ints, to_json
from holdfast.core.seeds import generator
from holdfast.core.wording import GATE_OUTCOMES
from holdfast.data.table import Table
from holdfast.fits.row_use import LearningRows, learning_rows
from holdfast.plugins.update.candidates import (
    Start,
    against_warm,
    check_start,
    choose,
    groups_of,
    predictions,
    recipe_of,
)
from holdfast.plugins.update.gate import (
    NEW,
    OLD,
    Gate,
    GateRows,
    Renamed,
    RowPart,
    check_margin,
    decide,
    renamed_classes,
    usual_margin,
)
from holdfast.plugins.update.merge import GATE
from holdfast.prepare.rows import Divided
from holdfast.recipe import Recipe
from holdfast.runs.finished_run import FinishedRun, SourceColumns
from holdfast.runs.predictor import Predictor
from holdfast.runs.procedure import SEARCH_FITS
from holdfast.split.divide import text_keys
from holdfast.stats.bootstrap import group_codes
from holdfast.stats.temperature import cross_fitted_losses

if TYPE_CHECKING:
    from holdfast.runs.start import RunFolder


def parts_of(
    result: Mapping[str, Any], table: Table, columns: Mapping[str, Sequence[Any]]
) -> tuple[tuple[RowPart, ...], tuple[str, ...]]:
    """The classes of the rows, and the slices and groups that the run's ``result.json`` says were
    confirmed; and those that cannot be found again in other rows (topics), in words. ``columns``
    are those beside the text."""
    found, lost = [], []
    if table.classes and table.columns.one_class:
        labels = np.asarray(table.column("label"))
        found += [RowPart(name, "class", labels == k) for k, name in enumerate(table.classes)]
    facts = RowFacts(len(table), read_texts(table), columns)
    for one in (result.get("slices") or {}).get("found") or ():
        condition = condition_of(one["condition"])
        if condition is None:
            lost.append(str(one["slice"]))
        else:
            found.append(RowPart(str(one["slice"]), "slice", condition.holds(facts)))
    groups = ((result.get("fairness") or {}).get("groups") or {}).get("findings") or ()
    for column, group in dict.fromkeys((one["column"], one["group"]) for one in groups):
        cells = columns.get(column)
        if cells is None:
            lost.append(f"{column} = {group}")
            continue
        inside = Grouping(column, [as_category(cell) for cell in cells]).inside(group)
        found.append(RowPart(f"{column} = {group}", "group", inside))
    return tuple(found), tuple(lost)


TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, slots=True)
class Renewal:
    """What ``holdfast update`` is asked beside its recipe. ``run`` is the served one; ``margin`` in
    points (``None``: by the number of rows); ``feedback`` is what became of the feedback,
    ``deleted`` how many rows of the served run's training were deleted since; ``findings`` and
    ``decisions`` are those of the feedback, as JSON has them."""

    run: str
    margin: float | None = None
    start: str = "auto"
    deleted: int = 0
    feedback: Mapping[str, Any] = field(default_factory=dict)
    findings: Sequence[Mapping[str, Any]] = ()
    decisions: Sequence[Mapping[str, Any]] = ()
    name: str = "update"

    def checked_recipe(self, recipe: Recipe) -> Recipe:
        """See ``Procedure.asked``."""
        if self.margin is not None:
            check_margin(self.margin)
        check_start(self.start, against_warm(Path(self.run), recipe, self.deleted))
        return recipe

    def describe(self) -> Mapping[str, Any]:
        """See ``Procedure.described``."""
        return {key: value for key, value in to_json(self).items() if key != "name"}

    @classmethod
    def of(cls, begun: Mapping[str, Any]) -> Renewal:
        """What an update that is continued was asked."""
        return cls(**{one.name: begun[one.name] for one in fields(cls) if one.name != "name"})

    def learn(self, recipe: Recipe, divided: Divided) -> Renewing:
        """See ``Procedure.learn``."""
        findings = tuple(Finding(**{**one, "rows": tuple(one["rows"])}) for one in self.findings)
        decisions = tuple(Decision(**one, prominent=True) for one in self.decisions)
        notify(*decisions, *findings)
        divided = replace(
            divided,
            findings=(*divided.findings, *findings),
            decisions=(*divided.decisions, *decisions),
        )
        return Renewing(self, recipe, divided)


class Renewing:
    """An update under way: its learner."""

    def __init__(self, asked: Renewal, recipe: Recipe, divided: Divided) -> None:
        self._asked, self._recipe, self.divided = asked, recipe, divided
        self._run = Path(asked.run)
        self._block: dict[str, Any] = {}

    def fit(self, into: RunFolder | None, listeners: Sequence[Any]) -> FittedModel:
        """Choose the start, fit, decide."""
        assert into is not None
        valid = self.divided.splits.valid.table
        against = against_warm(self._run, self._recipe, self._asked.deleted)

        def answers(start: Start) -> list[Any]:
            notify(Decision("fit", start, "tried on the training rows, judged by validation rows"))
            fitted = self._learning(start).fit()
            return predictions(Predictor.of(fitted), valid)

        chosen = choose(self._asked.start, against, valid, answers, into.checkpoints / SEARCH_FITS)
        notify(chosen.decision)
        fitted = self._learning(chosen.start).fit(into, listeners)
        gate, more = self._judge(Predictor.of(fitted), valid, into.run)
        outcome = GATE_OUTCOMES[gate.decision]
        decision = Decision("gate", outcome, gate.because, prominent=True)
        fitted.job.journal.decide(fitted.trained.last_step, decision)
        self._block = {
            "from": self._asked.run,
            "first": more.pop("first"),
            "feedback": self._asked.feedback,
            "start": to_json(chosen),
            "gate": {**gate.to_json(), **more},
        }
        # Written down before the test rows are opened, which comes next.
        FinishedRun(self._run).reopen("update", [f"score of {into.run}"])
        return fitted

    def blocks(self) -> Mapping[str, Any]:
        """See ``Learner.blocks``."""
        return {"update": self._block}

    def score_blocks(self, scored: Scored) -> Mapping[str, Any]:
        """See ``HearsScore.scored``: the served model's own score beside the new one's, and their
        difference row by row."""
        old = FinishedRun(self._run)
        return {"update": {**self._block, "test": test_block(old, scored)}}

    def _learning(self, start: Start) -> LearningRows:
        return learning_rows(recipe_of(start, self._recipe, self._run), self.divided)

    def _judge(self, new: Predictor, valid: Table, folder: Path) -> tuple[Gate, dict[str, Any]]:
        served, seed = Predictor.load(self._run), self._recipe.seed
        fresh = served.labelled(str(folder / f"{GATE}.parquet")).table
        said_old, said_new = _GateAnswers.by(served, valid), _GateAnswers.by(served, fresh)
        ours_old, ours_new = _GateAnswers.by(new, valid), _GateAnswers.by(new, fresh)
        old = [_held(OLD, valid, ours_old, said_old, seed)]
        first = first_of(self._run)
        if first != self._run:
            what, theirs = f"{OLD}, beside the first model", Predictor.load(first)
            old.append(_held(what, valid, ours_old, _GateAnswers.by(theirs, valid), seed))
        columns = SourceColumns(self._recipe.data)(valid)
        parts, lost = parts_of(FinishedRun(self._run).result, valid, columns)
        renamed: tuple[Renamed, ...] = ()
        if kind_of_rows(valid) == "class":
            renamed = renamed_classes(
                (labels_of_rows(valid), said_old.predictions),
                (labels_of_rows(fresh), said_new.predictions),
            )
        asked = self._asked.margin
        points = usual_margin(len(valid)) if asked is None else asked
        gate = decide(
            old, _held(NEW, fresh, ours_new, said_new, seed), parts, renamed, margin=points / 100
        )
        why = "asked for" if asked is not None else f"what {len(valid):,} validation rows can show"
        return gate, {"margin_because": why, "not_asked": list(lost), "first": str(first)}


@dataclass(frozen=True, slots=True, eq=False)
class _GateAnswers:
    predictions: list[Any]
    probabilities: Floats | None
    names: tuple[str, ...]

    @classmethod
    def by(cls, predictor: Predictor, table: Table) -> _GateAnswers:
        found = predictor.answer(table)
        return cls(to_json(list(found.predictions)), found.probabilities, predictor.names)


def _held(what: str, table: Table, new: _GateAnswers, old: _GateAnswers, seed: int) -> GateRows:
    kind, labels = kind_of_rows(table), labels_of_rows(table)
    groups, gain = groups_of(table), None
    codes = None if groups is None else group_codes(groups, len(table))
    if kind == "class" and None not in labels:
        before, after = (_losses(one, labels, codes, seed) for one in (old, new))
        gain = None if before is None or after is None else before - after
    return GateRows(what, paired(kind, labels, new.predictions, old.predictions), codes, gain)


def _losses(
    said: _GateAnswers, labels: Sequence[Any], groups: Ints | None, seed: int
) -> Floats | None:
    """Of each row, at a temperature that other rows choose; ``None`` without probabilities of every
    label."""
    place = {name: i for i, name in enumerate(said.names)}
    if said.probabilities is None or not set(labels) <= set(place):
        return None
    logits = np.log(np.maximum(np.asarray(said.probabilities, dtype=np.float64), TINY))
    at = np.array([place[one] for one in labels], dtype=np.int64)
    return cross_fitted_losses(logits, at, seed=generator(seed, "gate"), groups=groups)


def first_of(run: Path) -> Path:
    """The first run of a line of updates, as far back as the folders are there."""
    seen: set[Path] = set()
    while run not in seen:
        seen.add(run)
        before = (FinishedRun(run).result.get("update") or {}).get("from")
        if before is not None and (Path(before) / RESULT).is_file() and Path(before) not in seen:
            run = Path(before)
    return run


def test_block(old: FinishedRun, scored: Scored) -> dict[str, Any]:
    """``test`` of the block ``update``: the old run's score, the new one's, and the difference on
    the rows that both have."""
    before = (old.result.get("test") or {}).get("metrics") or {}
    after = scored.blocks["test"].get("metrics") or {}
    difference = _difference(old, scored)
    both = [one for one in after if one in before]
    name = difference.get("metric")
    name = name if name in both else next(iter(both), None)
    return {
        "metric": name,
        "n": scored.blocks["test"].get("n"),
        "old": before.get(name),
        "new": after.get(name),
        "difference": difference,
    }


def _difference(old: FinishedRun, scored: Scored) -> dict[str, Any]:
    """New less old on the test rows, by what the old run stored of them."""
    import pyarrow as pa

    nothing = {"value": None, "low": None, "high": None}
    table, said = scored.table, scored.predictions
    if scored.outputs is not None:
        said = class_columns(scored.outputs, old.names)
    if table is None or "prediction" not in said:
        return {**nothing, "why": "the answers were not kept"}
    try:
        stored, own = old.stored("test"), old.table("test")
    except HoldfastError as error:
        return {**nothing, "why": f"{error.what} {error.rule}"}
    own = rows_of(own, stored["row"].to_numpy())
    keys = dict(zip(text_keys(own).tolist(), stored["prediction"].to_pylist(), strict=True))
    rows = rows_of(table, pa.array(said["row"]).to_numpy())
    there = [int(key) in keys for key in text_keys(rows)]
    if not all(there) or not len(rows):
        return {**nothing, "why": "the test rows are not those that the old run stored"}
    before = [keys[int(key)] for key in text_keys(rows)]
    after = pa.array(said["prediction"]).to_pylist()
    if any(one is None for one in (*before, *after)):
        return {**nothing, "why": "there are no answers to compare"}
    pairs = paired(kind_of_rows(rows), labels_of_rows(rows), after, before)
    found = judge_pairs(pairs.gap, 0.01, groups_of(rows))
    limits = {"value": found.value, "low": found.low, "high": found.high}
    return dict(to_json({**limits, "n": found.n, "metric": pairs.metric}))
