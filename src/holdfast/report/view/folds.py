"""A cross-validated run: its answer in a sentence, and how sure its score is (``cv`` of
``result.json``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from holdfast.core.records import Estimate
from holdfast.report.answer.score import GUESSES
from holdfast.report.charts.dots import Dot, dots
from holdfast.report.document import Details, Document, DocumentTable, Figure, Passage
from holdfast.report.numbers import count, estimate, interval, metric_name, number
from holdfast.report.run_files import Block, RunFiles

ADVICE = (
    "No baseline was cross-validated with it, and no test rows were set aside: holdfast evaluate "
    "scores the saved model on other labelled rows."
)


def answer_words(cv: Mapping[str, Any]) -> str:
    """The score with its interval, and of how many folds it is."""
    name = str(cv["metric"])
    found = estimate(cv["metrics"].get(name))
    times = f", repeated {cv['repeats']} times" if cv["repeats"] > 1 else ""
    of = f"{cv['folds']} folds of {count(cv['rows'])} rows{times}"
    if found.value is None:
        return f"{metric_name(name)} is undefined over {of}."
    span = interval(found, name)
    sure = f" ({100 * found.level:.0f} % CI {span})" if span else ""
    guess = cv.get("commonest")
    beside = f"; {GUESSES['majority class']} {number(guess, name)}" if guess else ""
    text = (
        f"{metric_name(name)} {number(found.value, name)}{sure}{beside}. Estimated on {of}, for a "
        "model trained on all rows in the same way."
    )
    return text.replace("\u00a0", " ")


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
