"""How it learned: curves over the looks, and the gap between rows seen and rows not seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from holdfast.core.branches import items_on_branch, branch_of
from holdfast.core.records import Estimate, finite
from holdfast.report.charts.curves import ChartSeries, CurvesChart, LeftCurve, curves
from holdfast.report.charts.dots import Dot, dots
from holdfast.report.charts.svg import SIZES
from holdfast.report.document import Cell
from holdfast.report.numbers import (
    AT_LOOKS,
    count,
    is_rate,
    metric_name,
    metric_words,
    metrics,
    number,
    points,
    sentence,
)
from holdfast.report.run_files import Block, RunFiles
from holdfast.report.view.honest import cell, headline_metric

FOLDS, TEST = "Validation, out of fold", "Test"
PROBE, VALID, REFINED = "Training sample", "Validation", "Validation, calibrated"
LINES = {"train": PROBE, "valid": VALID, "refined": REFINED}
LOSS_KEYS = {"train": ("train_loss",), "valid": ("valid_loss",)}


@dataclass(frozen=True, slots=True)
class LearningView:
    """Two charts and their table; ``legend`` lists (style, name) of the lines that have values,
    ``looks`` are the table's lines: step, epoch, numbers, and whether its checkpoint was kept.
    ``went_back`` tells of the looks that a rollback took out of the run, empty where none did;
    ``tried`` of each trial and whether it was kept, ``optimism`` what choosing among the looks is
    worth."""

    loss: Markup
    accuracy: Markup
    legend: tuple[tuple[str, str], ...]
    looks: tuple[tuple[str, str, tuple[str, ...], bool], ...]
    best: str
    stopped: str
    phases: tuple[str, ...]
    missing: str
    rate: str
    refined: bool
    went_back: str = ""
    tried: tuple[str, ...] = ()
    optimism: str = ""


@dataclass(frozen=True, slots=True)
class GapView:
    """Train probe, validation and test of the kept state beside each other."""

    sentence: str
    chart: Markup
    columns: tuple[str, ...]
    table: tuple[tuple[str, tuple[Cell, ...]], ...]
    test: str


def learning(
    run: RunFiles,
    key: str = "curve",
    sizes: tuple[tuple[str, float], ...] = SIZES,
    scripted: bool = True,
) -> LearningView:
    """Without looks, or without validation rows, says so in ``missing``. ``key`` begins the ids of
    the charts, which are drawn in ``sizes``."""
    looks = sorted((s for s in run.snapshots if isinstance(s.get("step"), int)), key=_step)
    rate = _rate(looks)
    losses, rates = _lines(looks, rate)
    # Tasks without logits of classes write the raw loss in both places.
    refined = losses[2].values != losses[1].values or not looks
    best, control = run.result.get("best_step"), run.part("control")
    shown = _with_values(losses if refined else losses[:2])
    stretches = _stretches(run)
    loss = CurvesChart(
        f"{key}-loss",
        "Loss over the run",
        "loss",
        tuple(map(_step, looks)),
        tuple(finite(look.get("epoch")) for look in looks),
        shown,
        best if isinstance(best, int) else None,
        sizes=sizes,
        scripted=scripted,
        left=_left(stretches, LOSS_KEYS),
    )
    accuracy = replace(
        loss,
        key=f"{key}-{rate}",
        title=f"{metric_name(rate)} over the run",
        metric=rate,
        series=_with_values(rates),
        left=_left(stretches, {"train": ("train_metrics", rate), "valid": ("valid_metrics", rate)}),
    )
    return LearningView(
        loss=curves(loss),
        accuracy=curves(accuracy),
        legend=tuple((s.style, s.name) for s in shown),
        looks=tuple(_look(look, [*losses, *rates], i, best) for i, look in enumerate(looks)),
        best=count(best),
        stopped=sentence(run.part().text("stopped_because")),
        phases=_phases(looks),
        missing=_missing(looks, losses[1]),
        rate=metric_name(rate),
        refined=refined,
        went_back=_went_back(len(run.left)),
        tried=tuple(map(_trial, control.blocks("trials"))),
        optimism=control.block("optimism").text("because"),
    )


def _lines(
    looks: list[Mapping[str, object]], rate: str
) -> tuple[list[ChartSeries], list[ChartSeries]]:
    """The lines of the losses, and those of the rate."""
    losses = [
        ChartSeries(name, style, _column(looks, f"{style}_loss")) for style, name in LINES.items()
    ]
    rates = [
        ChartSeries(LINES[style], style, _column(looks, f"{style}_metrics", rate))
        for style in LOSS_KEYS
    ]
    return losses, rates


def gap(run: RunFiles) -> GapView:
    """A set without rows keeps its column, and each number there says why it is missing."""
    sets = [
        (PROBE, run.part("train_probe")),
        (FOLDS if run.part("valid").get("out_of_fold") else VALID, run.part("valid")),
        (TEST, run.part("test")),
    ]
    found = [(what, metrics(block)) for what, block in sets]
    names = list(dict.fromkeys(name for _, scores in found for name in scores))
    main = headline_metric(found[2][1] or found[1][1])
    unknown = Estimate(None, why="no rows, or not recorded")
    lines = [
        Dot(what, scores.get(main, unknown), "main" if what == TEST else "other")
        for what, scores in found
    ]
    apart = "the test rows took no part in any choice"
    return GapView(
        test="the test numbers are out of fold" if run.part("test").get("out_of_fold") else apart,
        sentence=_gap_sentence(found[0][1].get(main), found[1][1].get(main), main),
        chart=dots("gap", lines, main, f"{metric_name(main)} on the three sets"),
        columns=tuple(f"{what} ({count(block.get('n', 0))})" for what, block in sets),
        table=tuple(
            (metric_name(name), tuple(cell(scores.get(name, unknown), name) for _, scores in found))
            for name in names
        ),
    )


def _rate(looks: list[Mapping[str, Any]]) -> str:
    """What share of answers, or of target tokens, is right; for numbers R²."""
    measured = [look.get("valid_metrics") or look.get("train_metrics") or {} for look in looks]
    return next((name for name in AT_LOOKS if any(name in one for one in measured)), "accuracy")


def _went_back(left: int) -> str:
    if not left:
        return ""
    return (
        f"The run rolled back: the curves of {left} evaluation{'s' * (left != 1)} it discarded are "
        "drawn faint. Nothing was judged or chosen by them."
    )


def _trial(one: Block) -> str:
    return (
        f"At step {count(one.get('step'))}, from step {count(one.get('from_step'))} on: "
        f"{one.get('name', '')}. {'Kept' if one.get('kept') else 'Undone'}."
    )


def _step(look: Mapping[str, Any]) -> int:
    return int(look["step"])


def _with_values(series: list[ChartSeries]) -> tuple[ChartSeries, ...]:
    return tuple(s for s in series if any(v is not None for v in s.values))


def _stretches(run: RunFiles) -> list[list[Mapping[str, Any]]]:
    """The looks that are no part of the run any more, by the branch they were of, each with the
    look before it, from which its line is drawn."""
    every = (*run.snapshots, *run.left)
    found = []
    for branch in dict.fromkeys(map(branch_of, run.left)):
        looks = [look for look in run.left if branch_of(look) == branch]
        way = items_on_branch(every, branch, lambda look: (branch_of(look), _step(look)))
        before = [look for look in way if _step(look) < min(map(_step, looks))]
        found.append([*sorted(before, key=_step)[-1:], *sorted(looks, key=_step)])
    return found


def _left(
    stretches: list[list[Mapping[str, object]]], keys: Mapping[str, tuple[str, ...]]
) -> tuple[LeftCurve, ...]:
    return tuple(
        LeftCurve(style, tuple(map(_step, looks)), _column(looks, *path))
        for looks in stretches
        for style, path in keys.items()
    )


def _column(looks: list[Mapping[str, object]], *keys: str) -> tuple[float | None, ...]:
    *path, last = keys
    return tuple(finite(Block(look).block(*path).get(last)) for look in looks)


def _look(
    look: Mapping[str, object], series: list[ChartSeries], index: int, best: object
) -> tuple[str, str, tuple[str, ...], bool]:
    epoch = finite(look.get("epoch"))
    numbers = [number(s.values[index], "" if i < 3 else "accuracy") for i, s in enumerate(series)]
    shown = "–" if epoch is None else f"{epoch:.2f}"
    return count(look["step"]), shown, tuple(numbers), look["step"] == best


def _phases(looks: list[Mapping[str, object]]) -> tuple[str, ...]:
    names = [str(look["phase"]) for look in looks if look.get("phase")]
    ranges = []
    for name in dict.fromkeys(names):
        steps = [_step(look) for look in looks if look.get("phase") == name]
        first, last = count(min(steps)), count(max(steps))
        ranges.append(f"{name}: " + (f"step {first}" if first == last else f"steps {first}–{last}"))
    return tuple(ranges) if len(ranges) > 1 else ()


def _missing(looks: list[Mapping[str, object]], valid: ChartSeries) -> str:
    if not looks:
        return "This run recorded no evaluations, so there are no curves."
    if all(value is None for value in valid.values):
        return "There were no validation rows, so only the training sample has a curve."
    return ""


def _gap_sentence(probe: Estimate | None, valid: Estimate | None, name: str) -> str:
    if probe is None or valid is None or probe.value is None or valid.value is None:
        return "The gap is undefined: it needs training rows and validation rows."
    difference = probe.value - valid.value
    gap = f"{points(difference).lstrip('+±')} points" if is_rate(name) else number(difference, name)
    return (
        f"At the kept checkpoint, {metric_words(name)} is {number(probe.value, name)} on training "
        f"rows and {number(valid.value, name)} on validation rows: a gap of {gap}."
    )
