"""How sure the score is: ``cv`` of ``result.json``."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from holdfast.report.answer.folds import answer_words
from holdfast.report.block import Block
from holdfast.report.charts.dots import Dot, dots
from holdfast.report.numbers import count, interval, metric_name, number
from holdfast.report.run_files import RunFiles


@dataclass(frozen=True, slots=True)
class FoldsView:
    """The answer in a sentence, the folds' scores as a chart, and the tables."""

    sentence: str
    verdicts: str
    final: str
    of: str
    chart: Markup
    metrics: tuple[tuple[str, str, str, str], ...]
    folds: tuple[tuple[str, ...], ...]
    name: str
    how: str
    ways: tuple[tuple[str, str], ...]


def folds(run: RunFiles) -> FoldsView | None:
    """``None`` where a run was not cross-validated."""
    cv = run.part("cv")
    per_fold = cv.blocks("per_fold")
    if not per_fold:
        return None
    name = str(cv.get("metric"))
    metrics, span = cv.block("metrics"), cv.block("interval")
    scores = [one.block("metrics").estimate(name) for one in per_fold]
    named = [_called(one) for one in per_fold]
    lines = [Dot("All folds", metrics.estimate(name), "main")]
    lines += [Dot(what, score, "other") for what, score in zip(named, scores, strict=True)]
    return FoldsView(
        sentence=answer_words(cv),
        verdicts=cv.block("verdicts").text("sentence"),
        final=_final(cv.block("final")),
        of=span.text("of"),
        chart=dots("folds", lines, name, f"{metric_name(name)} of each fold"),
        metrics=tuple(
            (
                metric_name(key),
                number(found.value, key),
                interval(found, key),
                metrics.block(key).text("how"),
            )
            for key in metrics
            for found in (metrics.estimate(key),)
        ),
        folds=tuple(
            (
                what,
                count(one.get("n")),
                number(score.value, name),
                f"{count(one.get('best_step'))} of {count(one.get('planned_steps'))}",
                one.block("verdict").text("label").replace("_", " "),
            )
            for what, one, score in zip(named, per_fold, scores, strict=True)
        ),
        name=metric_name(name),
        how=cv.text("how"),
        ways=tuple((way, str(what)) for way, what in span.block("ways").items()),
    )


def _final(final: Block) -> str:
    if not final:
        return ""
    return (
        f"The saved model learned from all {count(final.get('rows'))} rows and is the state of "
        f"step {count(final.get('step'))} of {count(final.get('planned'))}: "
        f"{final.get('because')}."
    )


def _called(one: Block) -> str:
    fold = f"Fold {int(one['fold']) + 1}"
    return fold if not one.get("repeat") else f"{fold}, repeat {int(one['repeat']) + 1}"
