"""What a search of settings came to: the sentences, numbers and table of the report, and of
``holdfast tune``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from holdfast.core.records import Estimate
from holdfast.report.charts.dots import Dot, draw_dots
from holdfast.report.numbers import (
    count,
    duration,
    estimate,
    interval,
    is_rate,
    metric_words,
    number,
    plural,
    points,
    sentence,
)
from holdfast.report.run_files import RunFiles

Block = Mapping[str, Any]
# Settings of a trial that are named in a sentence; the table has all.
MAX_SETTINGS_NAMED = 4
STATES = {"pruned": "ended early", "failed": "failed"}
# How the training of a trial ended. A label alone, beside a score, reads as if it judged the score.
VERDICT_WORDS = {
    "learning": "still improving",
    "healthy": "converged",
    "underfit": "ended too early",
    "overfit": "validation got worse",
    "memorizing": "training rows memorized",
    "miscalibrated": "overconfident",
    "noisy_labels": "labels in doubt",
    "forgetting": "forgot other text",
    "inconclusive": "too few rows to say",
    "leaking": "rows leak",
    "diverging": "diverged",
}


@dataclass(frozen=True, slots=True)
class StudyView:
    """``answer`` is the one sentence; ``entries`` a name and what is to be said; ``chart`` what was
    seen beside what is expected; ``lines`` the trials; ``space`` what was searched, and why."""

    answer: str
    entries: tuple[tuple[str, str], ...]
    chart: Markup
    lines: tuple[tuple[str, ...], ...]
    space: tuple[tuple[str, str, str], ...]
    metric: str


def study(run: RunFiles) -> StudyView | None:
    """``None`` where the run is of no search of settings."""
    block = run.part("study")
    if "trials_table" not in block or run.part("capacity"):
        return None
    return study_view(block, run.part("test", "metrics").estimate(block["metric"]))


def study_view(block: Block, test: Estimate | None = None) -> StudyView:
    """The block ``study`` of ``result.json`` in words; ``test`` is the score of the test rows."""
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
    """The settings of a trial on a line."""
    return _settings(row["settings"]) or "the default settings"


def study_answer(block: Block) -> str:
    """Which trial is kept, and why."""
    best = block["best"]
    row = next(row for row in block["trials_table"] if row["trial"] == best)
    trials = plural(block["trials"], "trial")
    if block["noise"]:
        kept_trial = "the default" if row["origin"] == "default" else f"trial {best}"
        start = f"Of {trials}, none is shown to be better than {kept_trial}, which is kept."
        top = block.get("top") or {}
        if top.get("trial") in (None, best):
            return f"{start} {sentence(block['because'])}"
        best_score = format_score(block, top["seen"])
        best_seen = f"Trial {top['trial']} has the best validation score, {best_score}"
        return f"{start} {best_seen}. {sentence(block['because'])}"
    named = _settings(dict(list(row["settings"].items())[:MAX_SETTINGS_NAMED]))
    more = len(row["settings"]) - MAX_SETTINGS_NAMED
    rest = f" and {plural(more, 'other setting')}" if more > 0 else ""
    settings_text = f" ({named}{rest})" if named else " (the default settings)"
    return f"Of {trials} trial {best} won{settings_text}. {sentence(block['because'])}"


def _entries(block: Block) -> Iterator[tuple[str, str]]:
    expected, name = estimate(block["expected_test"]), block["metric"]
    yield (
        "Expected",
        f"{metric_words(name)} {number(expected.value, name)} on new rows "
        f"({interval(expected, name)}); seen: {format_score(block, block['seen'])}",
    )
    yield "Inflated", _optimism_text(estimate(block["optimism"]), is_rate(name))
    yield "Mattered", _importance_text(block["importance"])
    yield "Cheapest", _cheapest_text(block)
    judged = block["judged_by"]
    how = f", out of {judged['folds']} folds" if judged["folds"] > 1 else ""
    yield "Judged by", f"{plural(judged['rows'], 'row')}{how}; the test rows chose nothing"
    yield "Ended", f"{block['stopped_because']} ({duration(block['seconds'])} of trials)"


def _optimism_text(inflated: Estimate, rate: bool) -> str:
    if inflated.value is None:
        return "cannot be told of one trial"
    show, unit = (points, " points") if rate else (number, "")
    value = f"{show(inflated.value)}{unit}"
    if rate and points(inflated.value).lstrip("±+−") == "0.0":
        value = "0.0 points"
    span = f"{show(inflated.low)} to {show(inflated.high)}"
    return f"by the choice among trials what was seen is {value} too good ({span})"


def _importance_text(block: Block) -> str:
    if block.get("why"):
        return str(block["why"])
    shares = block["shares"]
    shares_text = [f"{key} ({100 * shares[key]:.0f} %)" for key in block["matter"]]
    if not shares_text:
        return "no setting beyond what chance shows"
    return f"{', '.join(shares_text)} of the differences; the others no more than chance"


def _cheapest_text(block: Block) -> str:
    pareto = block["pareto"]
    if not pareto["several_forms"]:
        return "every trial answers as fast and is as large: only the score differs"
    trials_text = [
        f"trial {one['trial']}: {format_score(block, one['seen'])}, {one['latency_ms']:.3g} ms a "
        "row, "
        f"{one['size_mb']:.3g} MB"
        for one in pareto["trials"][:3]
    ]
    return f"no trial is better in score, time and size than {'; '.join(trials_text)}"


def _chart(block: Block, test: Estimate | None) -> Markup:
    """What was seen of the best, the kept and the default, beside what is expected of the kept."""
    lines = [Dot("expected on new rows", estimate(block["expected_test"]), "main")]
    if test is not None and test.value is not None:
        lines.append(Dot("test rows", test, "main"))
    lines.append(Dot(f"seen: trial {block['best']}, kept", Estimate(block["seen"])))
    for name, key in (("best seen", "top"), ("default", "default")):
        of = block.get(key)
        if of and of["trial"] != block["best"]:
            lines.append(Dot(f"{name}: trial {of['trial']}", Estimate(of["seen"])))
    return draw_dots("study", lines, block["metric"], "What was seen, and what is expected")


def _line(block: Block, row: Block) -> tuple[str, ...]:
    latency, ended = row.get("latency_ms"), STATES.get(row["state"], "")
    verdicts = str(row["verdict"]).split(", ")
    return (
        f"{row['trial']}{' (kept)' if row['trial'] == block['best'] else ''}",
        str(row["origin"]),
        "–" if row["state"] == "failed" else format_score(block, row["seen"]),
        number(row["loss"]),
        # In words that say nothing of its score.
        ", ".join(VERDICT_WORDS.get(one, one.replace("_", " ")) for one in verdicts),
        duration(row["seconds"]),
        "–" if latency is None else f"{latency:.3g} ms",
        trial_settings(row),
        f"{ended}: {row['ended']}" if ended else str(row["ended"]),
    )


def search_space(block: Block) -> Iterator[tuple[str, str, str]]:
    """Each setting of the space: its key, its values, why they are these."""
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
