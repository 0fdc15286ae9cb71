"""``holdfast update`` as a procedure: one fit into the run's folder → the gate, on old validation
rows and on new rows held out of training → the old test set, once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.analyses.compare.verdict import check_margin, judge_pairs, pair_rows
from holdfast.analyses.fairness.groups import Grouping
from holdfast.analyses.row_texts import label_type_of, labels_of_rows, read_texts
from holdfast.analyses.slices.conditions import RowFacts, as_category, weak_slices
from holdfast.contract.fit import FittedModel, ScoringResult
from holdfast.contract.predictions import groups_of, rows_of
from holdfast.contract.result import class_columns
from holdfast.contract.run_folder import RESULT
from holdfast.core.decisions import notify
from holdfast.core.errors import HoldfastError, ModelError
from holdfast.core.records import Decision, Finding, Floats, Ints, to_json
from holdfast.core.seeds import generator
from holdfast.core.wording import GATE_OUTCOMES
from holdfast.data.table import Table
from holdfast.fits.row_use import learning_rows
from holdfast.models.loading.source import find_folder
from holdfast.plugins.update.gate import (
    NEW,
    OLD,
    Gate,
    GateRows,
    Renamed,
    Subgroup,
    decide,
    default_margin,
    renamed_classes,
)
from holdfast.plugins.update.merge import GATE
from holdfast.plugins.update.start import choose_start, recipe_for_start, warm_start_obstacle
from holdfast.prepare.rows import Divided
from holdfast.recipe import Recipe
from holdfast.runs.finished_run import FinishedRun, SourceColumns
from holdfast.runs.predictor import Predictor
from holdfast.split.split_table import text_keys
from holdfast.stats.bootstrap import group_codes
from holdfast.stats.temperature import cross_fitted_losses

if TYPE_CHECKING:
    from holdfast.runs.start import RunFolder


def subgroups_of_run(
    result: Mapping[str, Any], table: Table, columns: Mapping[str, Sequence[Any]]
) -> tuple[tuple[Subgroup, ...], tuple[str, ...]]:
    """The subgroups of the rows: classes, and the slices and groups that the run's ``result.json``
    confirms. Also the names of slices that cannot be found in other rows (topics). ``columns`` are
    those other than the text."""
    subgroups, unknown = [], []
    if table.classes and table.columns.one_class:
        labels = np.asarray(table.column("label"))
        subgroups += [Subgroup(name, "class", labels == k) for k, name in enumerate(table.classes)]
    facts = RowFacts(len(table), read_texts(table), columns)
    for name, condition in weak_slices(result).items():
        if condition is None:
            unknown.append(name)
        else:
            subgroups.append(Subgroup(name, "slice", condition.holds(facts)))
    groups = ((result.get("fairness") or {}).get("groups") or {}).get("findings") or ()
    for column, group in dict.fromkeys((one["column"], one["group"]) for one in groups):
        cells = columns.get(column)
        if cells is None:
            unknown.append(f"{column} = {group}")
            continue
        mask = Grouping(column, [as_category(cell) for cell in cells]).inside(group)
        subgroups.append(Subgroup(f"{column} = {group}", "group", mask))
    return tuple(subgroups), tuple(unknown)


TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, slots=True)
class UpdateProcedure:
    """The options of ``holdfast update`` besides its recipe. ``run`` is the served run; ``margin``
    is in points (``None``: by the number of rows); ``feedback`` counts what happened to the
    feedback, ``deleted`` the training rows of the served run that were deleted since; ``findings``
    and ``decisions`` are those of the feedback, as in JSON."""

    run: str
    margin: float | None = None
    start: str = "anew"
    deleted: int = 0
    feedback: Mapping[str, Any] = field(default_factory=dict)
    findings: Sequence[Mapping[str, Any]] = ()
    decisions: Sequence[Mapping[str, Any]] = ()
    name: str = "update"

    def checked_recipe(self, recipe: Recipe) -> Recipe:
        """See ``Procedure.checked_recipe``."""
        if self.margin is not None:
            check_margin(self.margin)
        obstacle = warm_start_obstacle(Path(self.run), recipe, self.deleted)
        if choose_start(self.start, obstacle).start == "anew":
            try:
                find_folder(recipe.model.name, recipe.model.revision)
            except ModelError as error:
                remedy = "Put the base model of the run back"
                remedy += "." if obstacle else ", or train on from its own model: --start warm."
                raise error.reworded(remedy=remedy) from error
        return recipe

    def describe(self) -> Mapping[str, Any]:
        """See ``Procedure.describe``."""
        return {key: value for key, value in to_json(self).items() if key != "name"}

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> UpdateProcedure:
        """The options of an update that is continued."""
        return cls(**{one.name: saved[one.name] for one in fields(cls) if one.name != "name"})

    def learn(self, recipe: Recipe, divided: Divided) -> UpdateLearner:
        """See ``Procedure.learn``."""
        findings = tuple(Finding(**{**one, "rows": tuple(one["rows"])}) for one in self.findings)
        decisions = tuple(Decision(**one, prominent=True) for one in self.decisions)
        notify(*decisions, *findings)
        divided = replace(
            divided,
            findings=(*divided.findings, *findings),
            decisions=(*divided.decisions, *decisions),
        )
        return UpdateLearner(self, recipe, divided)


class UpdateLearner:
    """The learner of an update: the start, the fit and the gate."""

    def __init__(self, procedure: UpdateProcedure, recipe: Recipe, divided: Divided) -> None:
        self._procedure, self._recipe, self.divided = procedure, recipe, divided
        self._run = Path(procedure.run)
        self._block: dict[str, Any] = {}

    def fit(self, into: RunFolder | None, listeners: Sequence[Any]) -> FittedModel:
        """Choose the start, fit, and decide by the gate."""
        assert into is not None
        valid = self.divided.splits.valid.table
        obstacle = warm_start_obstacle(self._run, self._recipe, self._procedure.deleted)
        choice = choose_start(self._procedure.start, obstacle)
        notify(choice.decision)
        recipe = recipe_for_start(choice.start, self._recipe, self._run)
        fitted = learning_rows(recipe, self.divided).fit(into, listeners)
        gate, gate_details = self._judge(Predictor.of(fitted), valid, into.run)
        outcome = GATE_OUTCOMES[gate.decision]
        decision = Decision("gate", outcome, gate.because, prominent=True)
        fitted.job.journal.decide(fitted.trained.last_step, decision)
        self._block = {
            "from": self._procedure.run,
            "first": gate_details.pop("first"),
            "feedback": self._procedure.feedback,
            "start": to_json(choice),
            "gate": {**gate.to_json(), **gate_details},
        }
        # Recorded before the test set is used, which comes next.
        FinishedRun(self._run).reopen("update", [f"score of {into.run}"])
        return fitted

    def blocks(self) -> Mapping[str, Any]:
        """See ``Learner.blocks``."""
        return {"update": self._block}

    def score_blocks(self, scored: ScoringResult) -> Mapping[str, Any]:
        """See ``UsesScore.score_blocks``: the served model's own score, the new one's, and their
        difference row by row."""
        old = FinishedRun(self._run)
        return {"update": {**self._block, "test": test_block(old, scored)}}

    def _judge(self, new: Predictor, valid: Table, folder: Path) -> tuple[Gate, dict[str, Any]]:
        served, seed = Predictor.load(self._run), self._recipe.seed
        fresh = served.read_labelled_rows(str(folder / f"{GATE}.parquet")).table
        served_old = _GatePredictions.unlearned(self._run, served, valid)
        served_new = _GatePredictions.predict(served, fresh)
        updated_old = _GatePredictions.predict(new, valid)
        updated_new = _GatePredictions.predict(new, fresh)
        old = [_gate_rows(OLD, valid, updated_old, served_old, seed)]
        first = first_run_of(self._run)
        if first != self._run:
            first_old = _GatePredictions.unlearned(first, Predictor.load(first), valid)
            description = f"{OLD}, compared with the first model"
            old.append(_gate_rows(description, valid, updated_old, first_old, seed))
        columns = SourceColumns(self._recipe.data)(valid)
        subgroups, unknown_subgroups = subgroups_of_run(
            FinishedRun(self._run).result, valid, columns
        )
        renamed: tuple[Renamed, ...] = ()
        if label_type_of(valid) == "class":
            renamed = renamed_classes(
                (labels_of_rows(valid), served_old.predictions),
                (labels_of_rows(fresh), served_new.predictions),
            )
        requested_margin = self._procedure.margin
        points = default_margin(len(valid)) if requested_margin is None else requested_margin
        gate = decide(
            old,
            _gate_rows(NEW, fresh, updated_new, served_new, seed),
            subgroups,
            renamed,
            margin=points / 100,
        )
        margin_reason = (
            "requested"
            if requested_margin is not None
            else f"what {len(valid):,} validation rows can show"
        )
        return gate, {
            "margin_because": margin_reason,
            "not_asked": list(unknown_subgroups),
            "first": str(first),
        }


@dataclass(frozen=True, slots=True, eq=False)
class _GatePredictions:
    predictions: list[Any]
    probabilities: Floats | None
    names: tuple[str, ...]

    @classmethod
    def predict(cls, predictor: Predictor, table: Table) -> _GatePredictions:
        answer = predictor.predict_table(table)
        return cls(to_json(list(answer.predictions)), answer.probabilities, predictor.names)

    @classmethod
    def unlearned(cls, run: Path, predictor: Predictor, valid: Table) -> _GatePredictions:
        """The predictions of a run for its validation rows: where it learned from them too
        (``train.folds``), those of the models of its folds that did not."""
        finished_run = FinishedRun(run)
        if not finished_run.out_of_fold:
            return cls.predict(predictor, valid)
        stored = finished_run.stored("valid")
        keys = text_keys(rows_of(finished_run.table("valid"), stored["row"].to_numpy()))
        places = {key: place for place, key in enumerate(keys.tolist())}
        found = stored.take([places[key] for key in text_keys(valid).tolist()])
        probabilities = np.array(found["probabilities"].to_pylist(), dtype=np.float64)
        return cls(found["prediction"].to_pylist(), probabilities, finished_run.names)


def _gate_rows(
    description: str, table: Table, new: _GatePredictions, old: _GatePredictions, seed: int
) -> GateRows:
    label_type, labels = label_type_of(table), labels_of_rows(table)
    groups, gain = groups_of(table), None
    codes = None if groups is None else group_codes(groups, len(table))
    if label_type == "class" and None not in labels:
        before, after = (_calibrated_losses(one, labels, codes, seed) for one in (old, new))
        gain = None if before is None or after is None else before - after
    return GateRows(
        description, pair_rows(label_type, labels, new.predictions, old.predictions), codes, gain
    )


def _calibrated_losses(
    predictions: _GatePredictions, labels: Sequence[Any], groups: Ints | None, seed: int
) -> Floats | None:
    """The calibrated loss of each row, at a temperature fitted on other rows; ``None`` without
    probabilities of every label."""
    label_index = {name: i for i, name in enumerate(predictions.names)}
    if predictions.probabilities is None or not set(labels) <= set(label_index):
        return None
    logits = np.log(np.maximum(np.asarray(predictions.probabilities, dtype=np.float64), TINY))
    label_indices = np.array([label_index[one] for one in labels], dtype=np.int64)
    return cross_fitted_losses(logits, label_indices, seed=generator(seed, "gate"), groups=groups)


def first_run_of(run: Path) -> Path:
    """The first run of a line of updates, as far back as the folders exist."""
    visited: set[Path] = set()
    while run not in visited:
        visited.add(run)
        before = (FinishedRun(run).result.get("update") or {}).get("from")
        if before is not None and (Path(before) / RESULT).is_file() and Path(before) not in visited:
            run = Path(before)
    return run


def test_block(old: FinishedRun, scored: ScoringResult) -> dict[str, Any]:
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


def _difference(old: FinishedRun, scored: ScoringResult) -> dict[str, Any]:
    """New minus old on the test rows, from the predictions that the old run stored."""
    import pyarrow as pa

    no_difference = {"value": None, "low": None, "high": None}
    table, predictions = scored.table, scored.predictions
    if scored.outputs is not None:
        predictions = class_columns(scored.outputs, old.names)
    if table is None or "prediction" not in predictions:
        return {**no_difference, "why": "the predictions were not stored"}
    try:
        stored, old_test = old.stored("test"), old.table("test")
    except HoldfastError as error:
        return {**no_difference, "why": f"{error.what} {error.rule}"}
    old_test = rows_of(old_test, stored["row"].to_numpy())
    keys = dict(zip(text_keys(old_test).tolist(), stored["prediction"].to_pylist(), strict=True))
    rows = rows_of(table, pa.array(predictions["row"]).to_numpy())
    in_old = [int(key) in keys for key in text_keys(rows)]
    if not all(in_old) or not len(rows):
        return {**no_difference, "why": "the test rows are not those that the old run stored"}
    before = [keys[int(key)] for key in text_keys(rows)]
    after = pa.array(predictions["prediction"]).to_pylist()
    if any(one is None for one in (*before, *after)):
        return {**no_difference, "why": "predictions are missing"}
    pairs = pair_rows(label_type_of(rows), labels_of_rows(rows), after, before)
    comparison = judge_pairs(pairs.gap, 0.01, groups_of(rows))
    limits = {"value": comparison.value, "low": comparison.low, "high": comparison.high}
    return dict(to_json({**limits, "n": comparison.n, "metric": pairs.metric}))
