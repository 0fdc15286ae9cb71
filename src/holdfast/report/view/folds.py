"""How sure the score is: ``cv`` of ``result.json``."""

from __future__ import annotations

from markupsafe import Markup

from holdfast.core.records import Estimate
from holdfast.report.answer.folds import answer_words
from holdfast.report.block import Block
from holdfast.report.charts.dots import Dot, dots
from holdfast.report.document import Details, Document, DocumentTable, Figure, Passage
from holdfast.report.numbers import count, interval, metric_name, number
from holdfast.report.run_files import RunFiles


def folds(run: RunFiles) -> Document | None:
    """``None`` where a run was not cross-validated."""
    cv = run.part("cv")
    per_fold = cv.blocks("per_fold")
    if not per_fold:
        return None
    name, span = str(cv.get("metric")), cv.block("interval")
    ways = "".join(f" {way}: {what}." for way, what in span.block("ways").items())
    verdicts = cv.block("verdicts").text("sentence")
    folded = (
        _over_folds(cv.block("metrics")),
        _each_fold(per_fold, name),
        Passage(f"The intervals are {span.text('of')}."),
        Passage(f"{cv.text('how')}.{ways}", "muted"),
    )
    return Document(
        (
            Passage(answer_words(cv)),
            *([Passage(verdicts)] if verdicts else []),
            Figure(_chart(cv.block("metrics").estimate(name), per_fold, name)),
            Passage(_final(cv.block("final"))),
            Details("Every metric and every fold", folded),
        )
    )


def _chart(together: Estimate, per_fold: list[Block], name: str) -> Markup:
    lines = [Dot("All folds", together, "main")]
    lines += [Dot(_called(one), one.block("metrics").estimate(name), "other") for one in per_fold]
    return dots("folds", lines, name, f"{metric_name(name)} of each fold")


def _over_folds(metrics: Block) -> DocumentTable:
    found = ((key, metrics.estimate(key), metrics.block(key).text("how")) for key in metrics)
    return DocumentTable(
        "Metrics over all folds",
        ("Metric", "All folds", "95 % interval", "By"),
        tuple(
            (metric_name(key), number(one.value, key), interval(one, key), how)
            for key, one, how in found
        ),
        ("", "n", "n", ""),
        "region",
    )


def _each_fold(per_fold: list[Block], name: str) -> DocumentTable:
    return DocumentTable(
        "Each fold",
        ("Fold", "Rows", metric_name(name), "Kept step", "Verdict"),
        tuple(
            (
                _called(one),
                count(one.get("n")),
                number(one.block("metrics").estimate(name).value, name),
                f"{count(one.get('best_step'))} of {count(one.get('planned_steps'))}",
                one.block("verdict").text("label").replace("_", " "),
            )
            for one in per_fold
        ),
        ("", "n", "n", "n", ""),
        "region",
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
