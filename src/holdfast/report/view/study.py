"""The section "Hyperparameter search": its sentences, numbers and tables, also printed by
``holdfast tune``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from holdfast.core.metric_names import metric_words
from holdfast.core.records import Estimate
from holdfast.report.charts.dots import Dot, draw_dots
from holdfast.report.numbers import (
    count,
    duration,
    estimate,
    interval,
    is_rate,
    number,
    plural,
    points,
    sentence,
)
from holdfast.report.run_files import RunFiles

Block = Mapping[str, Any]
# At most so many hyperparameters are named in a sentence; the table has all of them.
MAX_SETTINGS_NAMED = 4
STATES = {"pruned": "pruned", "failed": "failed"}
# Verdicts on the training of a trial. Next to a score, a bare label would seem to judge the score.
VERDICT_WORDS = {
    "learning": "still improving",
    "healthy": "converged",
    "underfit": "stopped too early",
    "overfit": "validation loss got worse",
    "memorizing": "training rows memorized",
    "miscalibrated": "overconfident",
    "noisy_labels": "labels look wrong",
    "forgetting": "forgot other knowledge",
    "inconclusive": "too few rows to judge",
    "leaking": "data leakage",
    "diverging": "diverged",
}


@dataclass(frozen=True, slots=True)
class StudyView:
    """``answer`` is one sentence; ``entries`` pairs of a name and a text; ``chart`` the validation
    scores next to the expected test score; ``lines`` the trials; ``space`` the search space with
    its reasons."""

    answer: str
    entries: tuple[tuple[str, str], ...]
    chart: Markup
    lines: tuple[tuple[str, ...], ...]
    space: tuple[tuple[str, str, str], ...]
    metric: str


def study(run: RunFiles) -> StudyView | None:
    """``None`` where the run is not from a hyperparameter search."""
    block = run.part("study")
    if "trials_table" not in block or run.part("capacity"):
        return None
    return study_view(block, run.part("test", "metrics").estimate(block["metric"]))


def study_view(block: Block, test: Estimate | None = None) -> StudyView:
    """The block ``study`` of ``result.json`` as text; ``test`` is the test score."""
    return StudyView(
        study_answer(block),
        tuple(_entries(block)),
        _chart(block, test),
        tuple(_line(block, row) for row in block["trials_table"]),
        tuple(search_space(block)),
        metric_words(block["metric"]),
    )


def format_score(block: Block, value: float | None) -> str:
    """A score of the study's metric."""
    return number(value, block["metric"])


def trial_settings(row: Block) -> str:
    """The hyperparameters of a trial, on one line."""
    return _settings(row["settings"]) or "the default settings"


def study_answer(block: Block) -> str:
    """Which trial was chosen, and why."""
    best = block["best"]
    row = next(row for row in block["trials_table"] if row["trial"] == best)
    trials = plural(block["trials"], "trial")
    if block["noise"]:
        kept_trial = "the default settings" if row["origin"] == "default" else f"trial {best}"
        verb = "are" if row["origin"] == "default" else "is"
        start = f"Of {trials}, none is shown to be better than {kept_trial}, which {verb} used."
        top = block.get("top") or {}
        if top.get("trial") in (None, best):
            return f"{start} {sentence(block['because'])}"
        best_score = format_score(block, top["seen"])
        best_seen = f"Trial {top['trial']} has the best validation score, {best_score}"
        return f"{start} {best_seen}. {sentence(block['because'])}"
    named = _settings(dict(list(row["settings"].items())[:MAX_SETTINGS_NAMED]))
    more = len(row["settings"]) - MAX_SETTINGS_NAMED
    rest = f" and {plural(more, 'other hyperparameter')}" if more > 0 else ""
    settings_text = f" ({named}{rest})" if named else " (the default settings)"
    return f"Best of {trials}: trial {best}{settings_text}. {sentence(block['because'])}"


def _entries(block: Block) -> Iterator[tuple[str, str]]:
    expected, name = estimate(block["expected_test"]), block["metric"]
    yield (
        "Expected",
        f"{metric_words(name)} {number(expected.value, name)} on new rows "
        f"({interval(expected, name)}); validation score: {format_score(block, block['seen'])}",
    )
    yield "Optimism", _optimism_text(estimate(block["optimism"]), is_rate(name))
    yield "Effects", _importance_text(block["importance"])
    yield "Cost", _cheapest_text(block)
    judged = block["judged_by"]
    how = f", out of fold ({judged['folds']} folds)" if judged["folds"] > 1 else ""
    yield (
        "Chosen on",
        f"{plural(judged['rows'], 'row')}{how}; the test rows took no part in the choice",
    )
    yield "Stopped", f"{block['stopped_because']} ({duration(block['seconds'])} of trials)"


def _optimism_text(inflated: Estimate, rate: bool) -> str:
    if inflated.value is None:
        return "undefined for one trial"
    show, unit = (points, " points") if rate else (number, "")
    value = f"{show(inflated.value)}{unit}"
    if rate and points(inflated.value).lstrip("±+−") == "0.0":
        value = "0.0 points"
    span = f"{show(inflated.low)} to {show(inflated.high)}"
    return f"the choice among trials inflates the validation score by {value} ({span})"


def _importance_text(block: Block) -> str:
    if block.get("why"):
        return str(block["why"])
    shares = block["shares"]
    shares_text = [f"{key} ({100 * shares[key]:.0f} %)" for key in block["matter"]]
    if not shares_text:
        return "no hyperparameter has an effect larger than chance"
    explained = f"{', '.join(shares_text)} of the differences between trials"
    return f"{explained}; the others have no effect larger than chance"


def _cheapest_text(block: Block) -> str:
    pareto = block["pareto"]
    if not pareto["several_forms"]:
        return "all trials have the same speed and size: only the score differs"
    trials_text = [
        f"trial {one['trial']}: {format_score(block, one['seen'])}, "
        f"{one['latency_ms']:.3g} ms a row, {one['size_mb']:.3g} MB"
        for one in pareto["trials"][:3]
    ]
    return f"no trial is better in score, time and size than {'; '.join(trials_text)}"


def _chart(block: Block, test: Estimate | None) -> Markup:
    """The validation scores of the chosen, the best and the default trial, and the expected test
    score of the chosen one."""
    lines = [Dot("expected test score", estimate(block["expected_test"]), "main")]
    if test is not None and test.value is not None:
        lines.append(Dot("test score", test, "main"))
    lines.append(Dot(f"validation: trial {block['best']}, chosen", Estimate(block["seen"])))
    for name, key in (("best validation score", "top"), ("default", "default")):
        of = block.get(key)
        if of and of["trial"] != block["best"]:
            lines.append(Dot(f"{name}: trial {of['trial']}", Estimate(of["seen"])))
    return draw_dots("study", lines, block["metric"], "Validation scores and expected test score")


def _line(block: Block, row: Block) -> tuple[str, ...]:
    latency, ended = row.get("latency_ms"), STATES.get(row["state"], "")
    verdicts = str(row["verdict"]).split(", ")
    return (
        f"{row['trial']}{' (chosen)' if row['trial'] == block['best'] else ''}",
        str(row["origin"]),
        "–" if row["state"] == "failed" else format_score(block, row["seen"]),
        number(row["loss"]),
        # Words that do not judge the score.
        ", ".join(VERDICT_WORDS.get(one, one.replace("_", " ")) for one in verdicts),
        duration(row["seconds"]),
        "–" if latency is None else f"{latency:.3g} ms",
        trial_settings(row),
        f"{ended}: {row['ended']}" if ended else str(row["ended"]),
    )


def search_space(block: Block) -> Iterator[tuple[str, str, str]]:
    """Each hyperparameter of the search space: its key, its values, and the reason for them."""
    for one in block["space"]:
        if "choices" in one:
            values = ", ".join(_plain(value) for value in one["choices"])
        else:
            low, high = one["range"]
            values = f"{_plain(low)} to {_plain(high)}{' (log)' if one['log'] else ''}"
        yield one["key"], values, str(one["because"])


def _settings(settings: Block) -> str:
    return " ".join(f"{key}={_plain(value)}" for key, value in settings.items())


def _plain(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        return f"{value:.3g}"
    return count(value) if isinstance(value, int) else str(value)
