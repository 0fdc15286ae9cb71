"""What a search found, for the terminal: folds, trials, model sizes, a distilled student."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from holdfast.core.wording import count_phrase, seconds_phrase
from holdfast.terminal.layout import entries, entry, run_lines, wrap

# Scores of a cross-validation, and trials of a search, that are printed; the report has all.
MAX_METRICS = 4
MAX_LINES = 12
# The finding that a teacher learned from validation rows.
KNOWN = "teacher_knows"


def cross_validation_lines(result: Mapping[str, Any], run: Path, columns: int) -> list[str]:
    """The result first, at the width of a terminal."""
    from holdfast.report.answer.answer import answer as answer_of
    from holdfast.report.view.folds import folds_answer

    headline, advice = folds_answer(result["cv"]), answer_of(result).advice
    answer = [*wrap(headline, columns), "", *wrap(advice, columns)]
    return ["", *answer, "", *entries(_fold_entries(result), columns), *run_lines(run)]


def _fold_entries(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    from holdfast.core.metric_names import metric_name
    from holdfast.report.numbers import estimate, interval, number
    from holdfast.report.view.folds import curve_sentence

    cv, name = result["cv"], result["cv"]["metric"]
    values = [
        "–" if (value := fold["metrics"][name]["value"]) is None else number(value, name)
        for fold in cv["per_fold"]
    ]
    yield "Folds", f"{metric_name(name)} {', '.join(values)}"
    yield "Verdicts", cv["verdicts"]["sentence"]
    others = [other for other in cv["metrics"] if other != name][:MAX_METRICS]
    estimates = {other: estimate(cv["metrics"][other]) for other in others}
    scores = [
        f"{metric_name(other)} {number(one.value, other)} ({interval(one, other)})"
        for other, one in estimates.items()
        if one.value is not None
    ]
    if scores:
        yield "Scores", "; ".join(scores)
    if "learning_curve" in cv:
        yield "More rows", curve_sentence(cv["learning_curve"])
    final = cv["final"]
    rows = count_phrase(final["rows"], "row")
    step = f"step {final['step']} of {final['planned']}"
    yield "Saved", f"a model trained on all {rows}, checkpoint of {step}"
    yield "Reason", final["because"]
    if result["test"]["n"]:
        one = estimate(result["test"]["metrics"].get(name))
        if one.value is not None:
            given = count_phrase(result["test"]["n"], "row")
            yield (
                "Test",
                f"{metric_name(name)} {number(one.value, name)} on {given} of the test file",
            )


def size_lines(result: Mapping[str, object], columns: int) -> list[str]:
    """The result and one line per model size; empty where no sizes were tried."""
    block = result.get("capacity")
    if not isinstance(block, Mapping):
        return []
    from holdfast.report.view.capacity import capacity_view

    view = capacity_view(block)
    lines = ["", *wrap(view.sentence[:1].upper() + view.sentence[1:], columns), ""]
    for name, value, gap, verdict, _, quick in view.tables[0].lines:
        values = "  ".join(map(str, filter(None, (value, gap, verdict, quick))))
        lines += wrap(f"  {name:24} {values}", columns, "", " " * 27)
    return [*lines, "", *wrap(view.passages[1], columns)]


class TrialJson(TypedDict):
    """One trial of a study's table."""

    trial: int
    state: str
    seen: float | None
    seconds: float
    settings: dict[str, object]


def study_lines(result: Mapping[str, object], columns: int) -> list[str]:
    """The lines of a search; empty where the run has no trials of settings."""
    study = result.get("study")
    if not isinstance(study, Mapping) or "trials_table" not in study or "capacity" in result:
        return []
    from holdfast.report.view.study import study_view

    view = study_view(study)
    entered = entries(view.entries, columns)
    return ["", *wrap(view.answer, columns), "", *entered, "", *_table(study, columns)]


def _table(study: Mapping[str, Any], columns: int) -> Iterator[str]:
    from holdfast.report.view.study import STATES, format_score, trial_settings

    rows: Sequence[TrialJson] = study["trials_table"]
    shown = _trials_shown(study, rows)
    yield f"  {'Trial':<7}{'Score':>8}{'Time':>12}  Settings"
    for row in shown:
        mark = "*" if row["trial"] == study["best"] else " "
        value = STATES.get(row["state"]) or format_score(study, row["seen"])
        start = f" {mark}{row['trial']:<7}{value:>8}{seconds_phrase(row['seconds']):>12}  "
        if len(value) > 8:
            start = f" {mark}{row['trial']:<4}{value:>11}{seconds_phrase(row['seconds']):>12}  "
        yield from wrap(trial_settings(row), columns, start, " " * len(start), max_lines=2)
    left = len(rows) - len(shown)
    more = f"; {count_phrase(left, 'more trial')} in the report" if left else ""
    yield f"  * saved{more}"


def _trials_shown(study: Mapping[str, Any], rows: Sequence[TrialJson]) -> list[TrialJson]:
    """The saved trial, the default, and the best others, by score."""
    sign = -1 if study["higher_is_better"] else 1
    named = {study["best"], 0}

    def place(row: TrialJson) -> tuple[bool, bool, float, int]:
        score_seen = row["seen"]
        is_complete = row["state"] == "complete" and score_seen is not None
        return (row["trial"] not in named, not is_complete, sign * (score_seen or 0), row["trial"])

    first = sorted(rows, key=place)[:MAX_LINES]
    return sorted(first, key=lambda row: place(row)[1:])


class Sized(TypedDict, total=False):
    """A model with its number of parameters, where that is known."""

    parameters: int | None


def distillation_lines(result: Mapping[str, Any], columns: int) -> list[str]:
    """Which model was saved, compared with the teacher and with a student trained without it."""
    block = result["distilled"]
    if "because" not in block:
        return entry("Distilled", str(block.get("why") or "unknown"), columns)
    from holdfast.core.metric_names import metric_words
    from holdfast.report.numbers import number

    name = block["metric"]
    metric = metric_words(name)
    teacher, student, alone = block["teacher"], block["student"], block["alone"]
    lines = [
        ("Distilled", block["because"]),
        (
            "Teacher",
            f"{metric} {number(teacher['value'], name)}{_size(teacher)}: "
            f"{', '.join(teacher['runs'])}",
        ),
        (
            "Student",
            f"{metric} {number(student['value'], name)}{_size(student)}: {student['model']}",
        ),
    ]
    agreement = block["agreement"]
    if agreement["value"] is not None:
        meaning = "correlation of predictions" if "what" in agreement else "same prediction"
        lines.append(("Agreement", f"{agreement['value']:.3g} ({meaning})"))
    lines.append(("No teacher", str(alone.get("because") or alone.get("why"))))
    findings = result["data"]["findings"]
    lines += [("Note", one["because"]) for one in findings if one["check"] == KNOWN]
    return entries(lines, columns)


def _size(one: Sized) -> str:
    count = one.get("parameters")
    return f", {count / 1e6:,.1f} million parameters" if count else ""
