"""The end of a run: save the model completely or not at all, open the test rows once, score them,
and write the run's files: tables, ``result.json`` with the checksums of every file, and pages.

``control`` of ``result.json`` says which actions were tried and accepted, how often the run was
evaluated on its validation rows, and the optimism of selecting among those evaluations, expected
and observed. ``examples.parquet`` has the learning dynamics of each training and validation row. A
run without test rows gets all parts that do not need them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from holdfast._version import __version__
from holdfast.contract import result as outcome
from holdfast.contract.extra_features import FOLDER
from holdfast.contract.fit import FittedModel, OuterFoldPredictions, ScoringRequest, ScoringResult
from holdfast.contract.predictions import unit_counts
from holdfast.contract.result import now, write_parquet
from holdfast.contract.run_folder import MODEL, REPORT, remove_checkpoints
from holdfast.control.choice import Optimism
from holdfast.control.record import control_block
from holdfast.core.decisions import findings_in, notify
from holdfast.core.files import disk_errors, replacing_folder
from holdfast.core.input_errors import surviving_defects
from holdfast.core.records import Estimate, to_json
from holdfast.core.run_files import EVENTS_FILE, MODEL_CARD, read_events, read_result, write_result
from holdfast.data.table import HeldOut
from holdfast.fits.fit import average_decisions, late_decisions, late_findings
from holdfast.fits.run_facts import make_run_facts, with_probe
from holdfast.monitor.confirmation import confirm_on_test_rows
from holdfast.prepare.rows import Divided
from holdfast.report.card import write_card
from holdfast.report.page import write_report
from holdfast.report.view.score import headline_metric
from holdfast.runs.predictor import Predictor
from holdfast.runs.start import OPENED
from holdfast.training.evaluation_file import EVALUATIONS_FILE, write_evaluations
from holdfast.training.listeners.examples import DataMap, ExampleHistory, evaluation_data_map
from holdfast.training.observe import FoldMeasurements

if TYPE_CHECKING:
    from holdfast.training.task import Examples


def save_model(run: Path, fitted: FittedModel) -> dict[str, Any]:
    """Write the model folder, and that of the layer over the extra columns where there is one, each
    completely or not at all; returns the task's facts about the model."""
    with replacing_folder(run / MODEL) as temporary, disk_errors(run / MODEL):
        saved = fitted.training_plan.definition.save(temporary, fitted)
    if fitted.extra_features is not None and fitted.extra_features.layer is not None:
        with replacing_folder(run / FOLDER) as temporary:
            fitted.extra_features.layer.save(temporary)
    return saved


def score_once(
    run: Path,
    fitted: FittedModel,
    test: HeldOut,
    saved: dict[str, object],
    opened_before: str | None,
    outer: OuterFoldPredictions | None = None,
) -> ScoringResult:
    """Open the test rows, log it in the journal, and let the task score them. ``opened_before`` is
    when a killed run had opened them. Without test rows, the rows of the ``outer`` folds are
    scored."""
    opened_at, job, definition = now(), fitted.job, fitted.training_plan.definition
    if outer is not None:
        rows = fitted.training_plan.prepared.rows
        scored = definition.score(ScoringRequest(run, fitted, saved, rows, None, outer))
        scored.blocks["test"] |= unit_counts(rows)
    elif not len(test):
        return empty_score(fitted, saved)
    else:
        after_kill = f"; a killed run had opened them at {opened_before}" if opened_before else ""
        because = f"the run is complete and is scored{after_kill}"
        job.journal.note(fitted.trained.last_step, OPENED, because, at=opened_at)
        table = test.open()
        scored = definition.score(ScoringRequest(run, fitted, saved, table, opened_at))
        scored.blocks["test"] |= unit_counts(table)
        scored = replace(scored, table=table)
    job.journal.note_decisions(fitted.trained.last_step, *scored.decisions)
    return scored


NO_TEST_ROWS = "no test rows were set aside or given"
HF_PROBLEM_TYPES = {"several": "multi_label_classification", "number": "regression"}


def empty_score(fitted: FittedModel, saved: Mapping[str, object]) -> ScoringResult:
    """``test`` with ``n`` 0 and the reason, no baseline, and the scores of the best checkpoint on
    the training sample. ``predictions.parquet`` has no rows."""
    start = time.perf_counter()
    training_plan, predictor = fitted.training_plan, Predictor.of(fitted)
    label_type = training_plan.prepared.rows.columns.label_kind
    table = training_plan.splits.train_rows.table
    train_scores = predictor.judge(
        table.take(table.positions_of(training_plan.train.rows[training_plan.probe]))
    )().to_json()
    no_metric = {"value": None, "low": None, "high": None, "why": NO_TEST_ROWS}
    metrics = {headline_metric(train_scores["metrics"]): no_metric}
    empty = {"n": 0, "metrics": metrics, "why": NO_TEST_ROWS}
    blocks: dict[str, Any] = {
        **({"problem": HF_PROBLEM_TYPES[label_type]} if label_type in HF_PROBLEM_TYPES else {}),
        "classes": list(predictor.names) or None,
        "test": empty,
        "valid": empty,
        "train_probe": train_scores,
        "baseline": {"what": None, "test": empty, "all": [], "why": NO_TEST_ROWS},
        "model_facts": training_plan.definition.facts(fitted, saved),
        "careless": None,
    }
    seconds = {"score_s": time.perf_counter() - start, "baseline_s": 0.0}
    return ScoringResult(blocks, (), seconds, predictions=_empty_predictions(fitted))


def _empty_predictions(fitted: FittedModel) -> dict[str, Any]:
    """The columns of ``predictions.parquet``, with the types of predictions for other rows."""
    if fitted.out_of_fold is None:
        types = {"row": pa.int64(), "label": pa.string(), "prediction": pa.string()}
        return {
            name: pa.array([], arrow_type)
            for name, arrow_type in {**types, "loss": pa.float64()}.items()
        }
    empty = fitted.out_of_fold.columns.slice(0, 0)
    return {name: empty[name] for name in empty.column_names}


EXAMPLES = "examples.parquet"
PAGES = ((f"{MODEL}/{MODEL_CARD}", write_card), (REPORT, write_report))


@dataclass(frozen=True, slots=True)
class CompletedRun:
    """A trained and scored run, from which its tables and its result are written. ``seconds`` is
    its total duration; ``model`` and ``base`` are the checksums of the files of its model;
    ``blocks`` are the results of a procedure."""

    run: Path
    divided: Divided
    fitted: FittedModel
    scored: ScoringResult
    seconds: float
    model: Mapping[str, Any]
    base: Mapping[str, Any] | None
    blocks: Mapping[str, Any]


def write_files(scored_run: CompletedRun) -> None:
    """Write the tables, then the result, with the checksums of every file before it. The result and
    the journal are read back with the schema that every later command uses."""
    run, table = scored_run.run, scored_run.divided.table
    outcome.write_splits(
        run / "splits.parquet", scored_run.divided.splits.records, scored_run.divided.tables
    )
    outcome.write_predictions(run / "predictions.parquet", scored_run.scored, table.classes)
    write_examples(run / EXAMPLES, scored_run.fitted)
    for left_out in write_result(
        run, to_json(_result(scored_run)), scored_run.model, scored_run.base
    ):
        notify(left_out)
    # The report, the dashboard and ``diagnose`` read it too.
    read_events(run / EVENTS_FILE)


def _result(scored_run: CompletedRun) -> dict[str, Any]:
    divided, fitted, scored = scored_run.divided, scored_run.fitted, scored_run.scored
    recipe, training_plan, run_start, side_layer = (
        fitted.recipe,
        fitted.training_plan,
        fitted.run_start,
        fitted.extra_features,
    )
    assert run_start is not None
    train_s = training_plan.prepared.seconds + fitted.seconds
    timing = outcome.timing_block(fitted.trained, scored_run.seconds, train_s, scored.seconds)
    late = (*findings_in(training_plan.late_notes), *late_findings(fitted))
    comparison = scored.analysis_blocks.get("verdict", {}).get("test_comparison") or {}
    findings = [*run_start.findings, *to_json(late)]

    observed_optimism: Callable[[Optimism], Estimate] | None = None
    # The median of the best steps of a cross-validation's fits chooses the checkpoint.
    if not isinstance(fitted.job.out_of_fold, FoldMeasurements):
        observed_optimism = partial(_observed_optimism, blocks=scored.blocks, comparison=comparison)
    return {
        "schema": 1,
        "holdfast": __version__,
        "task": recipe.task,
        "model": recipe.model.name,
        "classes": None,
        "seed": recipe.seed,
        "data": outcome.data_block(
            divided.table, divided.given, divided.splits, findings, training_plan.added
        ),
        **scored.blocks,
        **_run_blocks(fitted, scored),
        "control": control_block(
            recipe.control.policy,
            fitted.trained.evaluations,
            fitted.job.advisor,
            observed_optimism,
            last_step=fitted.trained.last_step,
            planned_steps=training_plan.plan.steps,
            seed=recipe.seed,
            history=fitted.trained.history,
            earlier_trials=fitted.trials,
        ),
        "timing": {**timing, "know_s": round(scored.analyses_s, 3)},
        "peak_memory_mb": outcome.peak_memory_mb(),
        "decisions": [
            *run_start.decisions,
            *to_json(
                [
                    *average_decisions(fitted),
                    fitted.checkpoint_decision,
                    *late_decisions(fitted),
                    *scored.decisions,
                ]
            ),
        ],
        "division": outcome.division_block(divided.splits, scored, divided.table.classes),
        "settings": recipe.public_settings(),
        **({"synthetic": synthetic} if (synthetic := training_plan.prepared.synthetic) else {}),
        **({"rates": fitted.rates.to_json()} if fitted.rates else {}),
        **({"wrapper": side_layer.block} if side_layer else {}),
        **scored_run.blocks,
        **outcome.surroundings(recipe.train.threads, str(fitted.job.accelerator.device)),
    }


def _run_blocks(fitted: FittedModel, scored: ScoringResult) -> dict[str, Any]:
    """The run's own blocks with those of its analyses, whose probes are added to the loop's. The
    comparison with the test rows is added to the verdict, whose label was fixed before."""
    trained, answers = fitted.trained, scored.analysis_blocks
    comparison = answers.get("verdict", {}).get("test_comparison")
    if comparison is not None:
        trained = replace(trained, verdict=confirm_on_test_rows(trained.verdict, comparison))
    block = outcome.run_block(trained, fitted.recipe.seed)
    probes = {**block["probes"], **answers.get("probes", {})}
    return {**block, **answers, "probes": probes, "verdict": block["verdict"]}


def save_evaluations(run: Path, fitted: FittedModel) -> None:
    """Store the input of the verdict, so that ``diagnose`` can compute it again."""
    trained = fitted.trained
    facts = with_probe(make_run_facts(fitted.training_plan), fitted.listeners)
    if not write_evaluations(
        run / EVALUATIONS_FILE, trained.history, facts, trained.best_step, __version__
    ):
        because = (
            "the evaluations of single rows take more than 64 MB, or cannot be read back; "
            "result.json has the verdict"
        )
        fitted.job.journal.note(
            trained.last_step, "evaluations not stored", because, chosen=EVALUATIONS_FILE
        )


def write_pages(run: Path) -> dict[str, Any]:
    """Write the model card and the report, remove the checkpoints, and return the run's result.

    The model and its predictions are complete by now. A defect in a page is reported, and only that
    page is missing; ``holdfast report RUN`` makes the report again. Raises ``InputError`` where a
    page cannot be written.
    """
    for name, write in PAGES:
        with surviving_defects(name, "the model and its predictions are complete"):
            write(run)
    remove_checkpoints(run)
    return read_result(run)


def _observed_optimism(
    expected: Optimism, blocks: Mapping[str, object], comparison: Mapping[str, Any]
) -> Estimate:
    """The validation score minus the test score: the selected checkpoint appears better by this
    amount than it is, or worse by chance. Its interval is that of the verdict's ``comparison`` with
    the test rows, where that is of the same metric."""
    if (to_json(blocks.get("test")) or {}).get("out_of_fold"):
        return Estimate(None, why="there are no test rows: both scores are of the same rows")
    sign = -1 if expected.metric == "loss" else 1
    is_compared = comparison.get("metric") == expected.metric
    if is_compared and comparison.get("why") is None:
        # The comparison's difference is test minus validation.
        value, *limits = (
            -sign * comparison["difference"][name] for name in ("value", "low", "high")
        )
        return Estimate(value, min(limits), max(limits))
    scores = [
        comparison[key]["value"]
        if is_compared and key in comparison
        else _score_of(blocks, name, expected.metric)
        for name, key in (("valid", "valid"), ("test", "test_rows"))
    ]
    if None in scores:
        return Estimate(None, why="the validation score or the test score is missing")
    first, second = (score for score in scores if score is not None)
    why = "the verdict compares another metric with the test rows"
    why = comparison["why"] if is_compared else why
    return Estimate(sign * (first - second), why=f"no interval: {why}")


def _score_of(blocks: Mapping[str, object], name: str, metric: str) -> float | None:
    block = to_json(blocks.get(name)) or {}
    score = (block.get("metrics") or {}).get(metric) or {}
    value = score.get("value") if isinstance(score, dict) else score
    return float(value) if value is not None and block.get("n") else None


def write_examples(path: Path, fitted: FittedModel) -> None:
    """Write one line per row: ``row``, ``split``, ``label`` (a class, else null) and the columns of
    ``DataMap``. No file where learning was not recorded by row."""
    import pyarrow as pa

    training_plan = fitted.training_plan
    histories = [x for x in fitted.job.listeners if isinstance(x, ExampleHistory)]
    maps = [("train", training_plan.train, x.data_map()) for x in histories]
    maps += [
        (
            "valid",
            training_plan.valid,
            evaluation_data_map(training_plan.valid.rows, fitted.trained.history),
        )
        for _ in histories
        # Cross-fitted validation rows are training rows, which have a line.
        if fitted.job.out_of_fold is None
    ]
    tables = [
        _data_map_table(s, rows, m, training_plan.task.classes)
        for s, rows, m in maps
        if m is not None
    ]
    if tables:
        write_parquet(path, pa.concat_tables(tables))


def _data_map_table(split: str, rows: Examples, data_map: DataMap, classes: tuple[str, ...]) -> Any:
    import pyarrow as pa

    count = len(data_map.rows)
    labels = np.asarray(getattr(rows, "labels", np.empty(0)))
    has_classes = labels.shape == (count,) and np.issubdtype(labels.dtype, np.integer)
    label = [classes[int(k)] for k in labels] if has_classes else [None] * count
    numbers = {
        name: pa.array(getattr(data_map, name), pa.float64(), from_pandas=True)
        for name in ("confidence", "variability", "aum", "last", "loss_range")
    }
    counts = {
        name: pa.array(getattr(data_map, name), pa.int64())
        for name in ("learnt_at", "forgotten", "passes")
    }
    return pa.table(
        {
            "row": pa.array(data_map.rows, pa.int64()),
            "split": pa.array([split] * count, pa.string()),
            "label": pa.array(label, pa.string()),
            **numbers,
            **counts,
            "kind": pa.array(list(data_map.kind), pa.string()),
        }
    )
