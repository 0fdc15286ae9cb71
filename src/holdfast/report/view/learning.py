"""The sections "Learning curves" and "Generalization gap"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from holdfast.core.branches import branch_of, items_on_branch
from holdfast.core.metric_names import LOWER_IS_BETTER, metric_name, metric_words
from holdfast.core.records import Estimate, finite
from holdfast.report.answer.answer import checkpoint_decision
from holdfast.report.charts.curves import ChartSeries, CurvesChart, DiscardedCurve, draw_curves
from holdfast.report.charts.dots import Dot, draw_dots
from holdfast.report.charts.svg import SIZES
from holdfast.report.document import Cell
from holdfast.report.numbers import (
    EVALUATION_METRICS,
    count,
    is_rate,
    metrics,
    number,
    points,
    sentence,
)
from holdfast.report.run_files import Block, RunFiles
from holdfast.report.view.score import cell, headline_metric

FOLDS, TEST = "Validation, out of fold", "Test"
PROBE, VALID, REFINED = "Training sample", "Validation", "Validation, calibrated"
LINES = {"train": PROBE, "valid": VALID, "refined": REFINED}
PHASE_NAMES = {
    "start": "before training",
    "contrast": "contrastive learning",
    "finetune": "fine-tuning",
}
LOSS_KEYS = {"train": ("train_loss",), "valid": ("valid_loss",)}


# Losses below this are not told apart, in nats.
NEAR_ZERO = 1e-6


@dataclass(frozen=True, slots=True)
class LearningView:
    """Two charts and their table.

    ``legend`` lists (style, name) of the lines with values. ``evaluations`` are the lines of the
    table: step, epoch, numbers, whether this is the best checkpoint. ``reason`` says why it was
    kept where another has a lower loss. ``patterns`` explain what else the curves show.
    ``went_back`` names the evaluations that a rollback discarded; empty without a rollback.
    ``trials`` are sentences on changes that the run tried; ``optimism`` one on how much the choice
    of the checkpoint inflates the score."""

    loss: Markup
    accuracy: Markup
    legend: tuple[tuple[str, str], ...]
    evaluations: tuple[tuple[str, str, tuple[str, ...], bool], ...]
    best: str
    stopped: str
    phases: tuple[str, ...]
    missing: str
    rate: str
    refined: bool
    reason: str = ""
    patterns: tuple[str, ...] = ()
    went_back: str = ""
    trials: tuple[str, ...] = ()
    optimism: str = ""


@dataclass(frozen=True, slots=True)
class GapView:
    """Scores of the best checkpoint on training sample, validation set and test set."""

    sentence: str
    chart: Markup
    columns: tuple[str, ...]
    table: tuple[tuple[str, tuple[Cell, ...]], ...]
    test: str
    calibrated: bool


def learning(
    run: RunFiles,
    key: str = "curve",
    sizes: tuple[tuple[str, float], ...] = SIZES,
    scripted: bool = True,
) -> LearningView:
    """The section. ``missing`` says that a run has no evaluations, or no validation rows. ``key``
    begins the ids of the charts, which are drawn in ``sizes``."""
    evaluations = sorted((s for s in run.snapshots if isinstance(s.get("step"), int)), key=_step)
    rate = _share_metric(evaluations)
    losses, rates = _lines(evaluations, rate)
    # Tasks without logits of classes write the raw loss in both places.
    refined = losses[2].values != losses[1].values or not evaluations
    best, control = run.result.get("best_step"), run.part("control")
    shown = _with_values(losses if refined else losses[:2])
    stretches = _discarded_segments(run)
    reason = _choice_reason(run, losses[2].values, evaluations, refined)
    loss = CurvesChart(
        f"{key}-loss",
        "Loss by step",
        "loss",
        tuple(map(_step, evaluations)),
        tuple(finite(evaluation.get("epoch")) for evaluation in evaluations),
        shown,
        best if isinstance(best, int) else None,
        sizes=sizes,
        scripted=scripted,
        left=_discarded_curves(stretches, LOSS_KEYS),
    )
    return LearningView(
        loss=draw_curves(loss),
        accuracy=draw_curves(_rate_chart(f"{key}-{rate}", loss, rate, rates, stretches)),
        legend=tuple((s.style, s.name) for s in shown),
        evaluations=tuple(
            _evaluation_line(evaluation, [*losses, *rates], i, best)
            for i, evaluation in enumerate(evaluations)
        ),
        best=count(best),
        stopped=_stopped_sentence(run),
        phases=_phases(evaluations),
        missing=_missing(evaluations, losses[1]),
        rate=metric_name(rate),
        refined=refined,
        reason=reason,
        patterns=tuple(
            f"{sentence(one.text('because'))} {sentence(one.text('meaning'))}"
            for one in control.blocks("patterns")
        ),
        went_back=_rollback_sentence(len(run.left)),
        trials=tuple(map(_trial_sentence, control.blocks("trials"))),
        optimism=control.block("optimism").text("because"),
    )


def _choice_reason(
    run: RunFiles,
    losses: Sequence[float | None],
    evaluations: Sequence[Mapping[str, object]],
    refined: bool,
) -> str:
    """Why the best checkpoint was kept, by the run's decision, where another evaluation has a lower
    loss; empty where it has the lowest, or one near zero."""
    best = run.result.get("best_step")
    known = [(loss, one.get("step")) for loss, one in zip(losses, evaluations, strict=True)]
    kept = [loss for loss, step in known if step == best and loss is not None]
    lowest = min((loss for loss, _ in known if loss is not None), default=0.0)
    because = checkpoint_decision(run.result).text("because")
    if not kept or not because or lowest >= kept[0] or kept[0] < NEAR_ZERO:
        return ""
    name = "calibrated" if refined else "validation"
    return f"The best checkpoint does not have the lowest {name} loss: {because}."


def _lines(
    evaluations: list[Mapping[str, object]], rate: str
) -> tuple[list[ChartSeries], list[ChartSeries]]:
    """The lines of the losses, and those of the metric ``rate``."""
    losses = [
        ChartSeries(name, style, _column(evaluations, f"{style}_loss"))
        for style, name in LINES.items()
    ]
    rates = [
        ChartSeries(LINES[style], style, _column(evaluations, f"{style}_metrics", rate))
        for style in LOSS_KEYS
    ]
    return losses, rates


def _rate_chart(
    key: str,
    loss: CurvesChart,
    rate: str,
    rates: list[ChartSeries],
    stretches: list[list[Mapping[str, object]]],
) -> CurvesChart:
    """The chart of the metric ``rate``, over the same steps as the chart of the ``loss``."""
    left = {"train": ("train_metrics", rate), "valid": ("valid_metrics", rate)}
    return replace(
        loss,
        key=key,
        title=f"{metric_name(rate)} by step",
        metric=rate,
        series=_with_values(rates),
        left=_discarded_curves(stretches, left),
    )


def gap(run: RunFiles) -> GapView:
    """The section. A set without rows keeps its column, and each number says why it is missing."""
    sets = [
        (PROBE, run.part("train_probe")),
        (FOLDS if run.part("valid").get("out_of_fold") else VALID, run.part("valid")),
        (TEST, run.part("test")),
    ]
    scores_of_set = [(set_name, metrics(block)) for set_name, block in sets]
    names = list(dict.fromkeys(name for _, scores in scores_of_set for name in scores))
    main = headline_metric(scores_of_set[2][1] or scores_of_set[1][1])
    unknown = Estimate(None, why="no rows, or not recorded")
    lines = [
        Dot(set_name, scores.get(main, unknown), "main" if set_name == TEST else "other")
        for set_name, scores in scores_of_set
    ]
    test_note = "the test rows took no part in any choice"
    return GapView(
        test="the test scores are out of fold"
        if run.part("test").get("out_of_fold")
        else test_note,
        sentence=_gap_sentence(scores_of_set[0][1].get(main), scores_of_set[1][1].get(main), main),
        chart=draw_dots("gap", lines, main, f"{metric_name(main)} on the three sets"),
        columns=tuple(f"{set_name} ({count(block.get('n', 0))})" for set_name, block in sets),
        table=tuple(
            (
                metric_name(name),
                tuple(cell(scores.get(name, unknown), name) for _, scores in scores_of_set),
            )
            for name in names
        ),
        calibrated=bool(run.part("model_facts").get("temperature")),
    )


def _share_metric(evaluations: list[Mapping[str, Any]]) -> str:
    """The metric of the second chart: a share of correct predictions or tokens; R² for numbers."""
    metrics_of = [
        evaluation.get("valid_metrics") or evaluation.get("train_metrics") or {}
        for evaluation in evaluations
    ]
    return next(
        (name for name in EVALUATION_METRICS if any(name in one for one in metrics_of)), "accuracy"
    )


def _rollback_sentence(left: int) -> str:
    if not left:
        return ""
    return (
        f"The run rolled back and discarded {left} evaluation{'s' * (left != 1)}, whose curves are "
        "drawn faint. They took no part in any verdict or choice."
    )


def _stopped_sentence(run: RunFiles) -> str:
    because = run.part().text("stopped_because")
    if not because:
        return ""
    return sentence(f"stopped at step {count(run.result.get('last_step'))}: {because}")


def _trial_sentence(one: Block) -> str:
    fold, end = one.get("fold"), "kept" if one.get("kept") else "undone"
    if end == "undone" and one.get("ended") is False:
        end = "it was in progress when the run ended"
    if fold is not None:
        return f"Fold {count(fold)} was also run with {one.get('name', '')}: {end}."
    step, start = (count(one.get(name)) for name in ("step", "from_step"))
    return f"At step {step} the run tried {one.get('name', '')}, starting from step {start}: {end}."


def _step(evaluation: Mapping[str, Any]) -> int:
    return int(evaluation["step"])


def _with_values(series: list[ChartSeries]) -> tuple[ChartSeries, ...]:
    return tuple(s for s in series if any(v is not None for v in s.values))


def _discarded_segments(run: RunFiles) -> list[list[Mapping[str, Any]]]:
    """The evaluations that a rollback discarded, a list for each branch. Each list begins with the
    evaluation before them, from which the line is drawn."""
    every = (*run.snapshots, *run.left)
    segments = []
    for branch in dict.fromkeys(map(branch_of, run.left)):
        discarded = [evaluation for evaluation in run.left if branch_of(evaluation) == branch]
        branch_path = items_on_branch(
            every, branch, lambda evaluation: (branch_of(evaluation), _step(evaluation))
        )
        before = [
            evaluation
            for evaluation in branch_path
            if _step(evaluation) < min(map(_step, discarded))
        ]
        segments.append([*sorted(before, key=_step)[-1:], *sorted(discarded, key=_step)])
    return segments


def _discarded_curves(
    stretches: list[list[Mapping[str, object]]], keys: Mapping[str, tuple[str, ...]]
) -> tuple[DiscardedCurve, ...]:
    return tuple(
        DiscardedCurve(style, tuple(map(_step, evaluations)), _column(evaluations, *path))
        for evaluations in stretches
        for style, path in keys.items()
    )


def _column(evaluations: list[Mapping[str, object]], *keys: str) -> tuple[float | None, ...]:
    *path, last = keys
    return tuple(finite(Block(evaluation).block(*path).get(last)) for evaluation in evaluations)


def _evaluation_line(
    evaluation: Mapping[str, object], series: list[ChartSeries], index: int, best: object
) -> tuple[str, str, tuple[str, ...], bool]:
    epoch = finite(evaluation.get("epoch"))
    numbers = [number(s.values[index], "" if i < 3 else "accuracy") for i, s in enumerate(series)]
    shown = "–" if epoch is None else f"{epoch:.2f}"
    return count(evaluation["step"]), shown, tuple(numbers), evaluation["step"] == best


def _phases(evaluations: list[Mapping[str, object]]) -> tuple[str, ...]:
    names = [str(evaluation["phase"]) for evaluation in evaluations if evaluation.get("phase")]
    ranges = []
    for name in dict.fromkeys(names):
        steps = [_step(evaluation) for evaluation in evaluations if evaluation.get("phase") == name]
        first, last = count(min(steps)), count(max(steps))
        ranges.append(
            f"{PHASE_NAMES.get(name, name)}: "
            + (f"step {first}" if first == last else f"steps {first}–{last}")
        )
    return tuple(ranges) if len(ranges) > 1 else ()


def _missing(evaluations: list[Mapping[str, object]], valid: ChartSeries) -> str:
    if not evaluations:
        return "This run recorded no evaluations, so there are no curves."
    if all(value is None for value in valid.values):
        return "There were no validation rows, so only the training sample has a curve."
    return ""


def _gap_sentence(probe: Estimate | None, valid: Estimate | None, name: str) -> str:
    if probe is None or valid is None or probe.value is None or valid.value is None:
        return "The generalization gap is undefined: it needs training rows and validation rows."
    # Above 0 where the validation rows are predicted worse.
    sign = -1 if name in LOWER_IS_BETTER else 1
    difference = sign * (probe.value - valid.value)
    gap = f"{points(difference).lstrip('+±')} points" if is_rate(name) else number(difference, name)
    return (
        f"At the best checkpoint, {metric_words(name)} is {number(probe.value, name)} on training "
        f"rows and {number(valid.value, name)} on validation rows: a generalization gap of "
        f"{gap}."
    )
