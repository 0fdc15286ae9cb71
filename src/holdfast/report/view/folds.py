"""The section "Cross-validation": the score with its interval, and each fold (``cv`` of
``result.json``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from holdfast.core.labels import verdict_title
from holdfast.core.metric_names import metric_name
from holdfast.core.records import Estimate
from holdfast.core.wording import signed
from holdfast.report.answer.score import (
    GUESSES,
    PHRASES,
    Use,
    advantage_text,
    cheaper_text,
    difference_text,
    paired_comparison,
    shows_guess,
)
from holdfast.report.charts.dots import Dot, draw_dots
from holdfast.report.document import Details, Document, DocumentTable, Figure, Passage
from holdfast.report.numbers import count, estimate, interval, number
from holdfast.report.run_files import Block, RunFiles

NO_BASELINE = (
    "The model was not compared with a linear probe. To score the saved model on other labelled "
    "rows, run holdfast evaluate."
)


def folds_advice(cv: Mapping[str, Any]) -> tuple[str, Use]:
    """Whether to use the model: against the most frequent class, then by the paired comparison with
    the linear probe of each fold."""
    name, commonest = str(cv["metric"]), cv.get("commonest")
    estimated = Block(cv["metrics"]).estimate(name)
    score, probe = estimated.value, _probe_metrics(cv).estimate(name).value
    if score is not None and commonest is not None and score <= commonest:
        found = f"always predicting the {GUESSES['majority class']} is at least as accurate"
        if shows_guess(estimated, name, commonest, cv["rows"]):
            return f"Do not use it: {found}.", "no"
        return f"Inconclusive: {found}, but {count(cv['rows'])} rows are few.", "unsettled"
    paired = paired_comparison(cv)
    if paired is None:
        return NO_BASELINE, "unknown"
    other = PHRASES["linear probe"]
    if paired.apart:
        by = advantage_text(paired)
        if paired.gain > 0:
            return f"Worth using: better than the {other} {by}.", "yes"
        return f"Do not use it: the {other} is better {by}.", "no"
    is_lower = score is not None and probe is not None and score <= probe
    costs_less = f" {cheaper_text(other)}" if is_lower else ""
    return (
        f"Inconclusive: on {count(cv['rows'])} rows no difference from the {other} can be shown: "
        f"{difference_text(paired)}.{costs_less}",
        "unsettled",
    )


def _probe_metrics(cv: Mapping[str, Any]) -> Block:
    return Block(cv).block("baseline", "test").block("metrics")


def folds_answer(cv: Mapping[str, Any]) -> str:
    """The score with its interval, the baselines, and the number of folds."""
    name = str(cv["metric"])
    score = estimate(cv["metrics"].get(name))
    times = f", repeated {cv['repeats']} times" if cv["repeats"] > 1 else ""
    of = f"{cv['folds']}-fold cross-validation on {count(cv['rows'])} rows{times}"
    if score.value is None:
        return f"{metric_name(name)} is undefined in {of}."
    probe, majority = _probe_metrics(cv).estimate(name).value, cv.get("commonest")
    baseline = f"; {PHRASES['linear probe']} {number(probe, name)}" if probe is not None else ""
    baseline += f"; {GUESSES['majority class']} {number(majority, name)}" if majority else ""
    text = (
        f"{metric_name(name)} {_with_interval(score, name)}{baseline}. Estimated by "
        f"{of}; it applies to a model trained on all rows with the same settings."
    )
    return text.replace("\u00a0", " ")


def _with_interval(score: Estimate, name: str) -> str:
    span = interval(score, name)
    interval_text = f" ({100 * score.level:.0f} % CI {span})" if span else ""
    return f"{number(score.value, name)}{interval_text}"


def curve_sentence(curve: Mapping[str, Any]) -> str:
    """The score by number of rows, and what twice the rows would bring, or that it is unknown."""
    if "why" in curve:
        return f"No learning curve: {curve['why']}."
    name = "accuracy" if "accuracy" in curve["metrics"] else "loss"
    one = curve["metrics"][name]
    gain = estimate(one["gain"])
    scores = [_with_interval(estimate(score), name) for score in one["scores"]]
    parts = [
        f"{score} with {count(rows)}" for score, rows in zip(scores, curve["rows"], strict=True)
    ]
    text = f"{metric_name(name)} {', '.join(parts)} rows."
    if gain.value is None or gain.low is None or gain.high is None:
        return f"{text} The gain from twice the rows cannot be estimated: {gain.why}."
    is_share, twice = name == "accuracy", count(curve["next"])
    ends = (signed(100 * end) if is_share else signed(end, "+.3f") for end in (gain.low, gain.high))
    value = f"{signed(100 * gain.value)} points" if is_share else signed(gain.value, "+.3f")
    figure = f"{value} (95 % CI {' to '.join(ends)})"
    if one["told"]:
        return f"{text} Expected gain with twice the rows ({twice}): {figure}."
    return f"{text} Inconclusive whether twice the rows ({twice}) would help: {figure}."


def folds(run: RunFiles) -> Document | None:
    """``None`` where the run was not cross-validated."""
    cv = run.part("cv")
    per_fold = cv.blocks("per_fold")
    if not per_fold:
        return None
    name, span = str(cv.get("metric")), cv.block("interval")
    methods = "".join(f" {way}: {description}." for way, description in span.block("ways").items())
    verdicts = cv.block("verdicts").text("sentence")
    folded = (
        _metrics_table(cv.block("metrics")),
        _folds_table(per_fold, name),
        Passage(f"The intervals are {span.text('of')}."),
        Passage(f"{cv.text('how')}.{methods}", "muted"),
    )
    return Document(
        (
            Passage(folds_answer(cv)),
            *([Passage(verdicts)] if verdicts else []),
            *([Passage(curve_sentence(curve))] if (curve := cv.get("learning_curve")) else []),
            Figure(_chart(cv.block("metrics").estimate(name), per_fold, name)),
            Passage(_final_model(cv.block("final"))),
            Details("All metrics and folds", folded),
        )
    )


def _chart(together: Estimate, per_fold: list[Block], name: str) -> Markup:
    lines = [Dot("All folds", together, "main")]
    lines += [
        Dot(_fold_name(one), one.block("metrics").estimate(name), "other") for one in per_fold
    ]
    return draw_dots("folds", lines, name, f"{metric_name(name)} of each fold")


def _metrics_table(metrics: Block) -> DocumentTable:
    estimates = ((key, metrics.estimate(key), metrics.block(key).text("how")) for key in metrics)
    return DocumentTable(
        "Metrics over all folds",
        ("Metric", "All folds", "95 % CI", "Method"),
        tuple(
            (metric_name(key), number(one.value, key), interval(one, key), how)
            for key, one, how in estimates
        ),
        ("", "n", "n", ""),
        "region",
    )


def _folds_table(per_fold: list[Block], name: str) -> DocumentTable:
    return DocumentTable(
        "Each fold",
        ("Fold", "Rows", metric_name(name), "Best checkpoint", "Verdict"),
        tuple(
            (
                _fold_name(one),
                count(one.get("n")),
                number(one.block("metrics").estimate(name).value, name),
                f"{count(one.get('best_step'))} of {count(one.get('planned_steps'))}",
                verdict_title(one.block("verdict").text("label")),
            )
            for one in per_fold
        ),
        ("", "n", "n", "n", ""),
        "region",
    )


def _final_model(final: Block) -> str:
    if not final:
        return ""
    return (
        f"The saved model was trained on all {count(final.get('rows'))} rows. It is the checkpoint "
        f"of step {count(final.get('step'))} of {count(final.get('planned'))}: "
        f"{final.get('because')}."
    )


def _fold_name(one: Block) -> str:
    fold = f"Fold {int(one['fold']) + 1}"
    return fold if not one.get("repeat") else f"{fold}, repeat {int(one['repeat']) + 1}"
