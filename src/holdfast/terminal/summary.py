"""The summary of a finished run: its score, whether to use the model, its verdict, its files; and
what its search found."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Required, TypedDict

from holdfast.core.labels import verdict_title
from holdfast.core.printable import printable
from holdfast.core.wording import (
    count_phrase,
    lower_first,
    main_clause,
    percent_phrase,
    seconds_phrase,
)
from holdfast.terminal.colour import coloured
from holdfast.terminal.layout import entries, entry, run_lines, width
from holdfast.terminal.searches import (
    cross_validation_lines,
    distillation_lines,
    size_lines,
    study_lines,
)
from holdfast.terminal.streams import notify

if TYPE_CHECKING:
    from holdfast.report.view.headline import RemedyJson


# Further scores, by their names in result.json.
SCORES = ("f1_macro", "f1_micro", "r2", "spearman", "perplexity", "rouge_l")


# Warnings and trials below the verdict; ``--verbose`` and the report have all.
MAX_REMARKS = 2


class VerdictJson(TypedDict, total=False):
    """The verdict of a finished run."""

    label: Required[str]
    because: Required[str]
    cause: str | None
    remedies: list[RemedyJson]
    test_agrees: bool | None


def summary(result: Mapping[str, Any], run: Path, columns: int, verbose: bool = False) -> str:
    """What is printed at the end of every command that trains, at the width of a terminal."""
    if "cv" in result:
        return "\n".join(cross_validation_lines(result, run, columns))
    lines = [*study_lines(result, columns), *size_lines(result, columns)]
    lines += _run_summary(result, run, columns, verbose)
    if "distilled" in result:
        lines += ["", *distillation_lines(result, columns)]
    return "\n".join(lines)


def show_summary(result: Mapping[str, Any], run: Path) -> None:
    """Print it on standard error, where progress is printed."""
    text = summary(result, run, width())
    notify(coloured(printable(text), sys.stderr) + "\n")


def _run_summary(result: Mapping[str, Any], run: Path, columns: int, verbose: bool) -> list[str]:
    """The result, whether to use the model, and the verdict, a sentence each; what to know besides,
    in at most three remarks, or all of them with ``verbose``; the saved checkpoint and the next
    step; and the paths."""
    from holdfast.report.answer.answer import answer, discarded_sentence

    run_answer, discarded = answer(result), discarded_sentence(result)
    scope = " on the discarded steps" if discarded else ""
    remarks = [*([("Discarded", discarded)] if discarded else []), *_warnings(result)]
    remarks += _trials(result)
    scores = list(_scores(result, SCORES if verbose else _stated_metric(result)))
    remarks = [
        *remarks[: None if verbose else MAX_REMARKS],
        _ending(result, bool(discarded)),
        *_next_step(result["verdict"]),
    ]
    return [
        "",
        *entry("Result", run_answer.headline, columns),
        *(line for score in scores for line in entry(*score, columns)),
        *entry("Advice", run_answer.advice, columns),
        *entry("Verdict", _verdict(result["verdict"], scope, verbose), columns),
        "",
        *entries(remarks, columns),
        "",
        *run_lines(run),
    ]


def _verdict(verdict: VerdictJson, scope: str, verbose: bool) -> str:
    """The verdict's title and reason, with every measurement if ``verbose``; ``scope`` names what
    it is about where that is not the saved model."""
    title = verdict_title(verdict["label"])
    disputed = verdict.get("test_agrees") is False
    doubt = " (not confirmed by the test rows)" if disputed else ""
    cause = f" Likely cause: {verdict['cause']}." if verdict.get("cause") else ""
    # A dispute is understood by the numbers of both sides only.
    full = verbose or disputed
    because = verdict["because"] if full else main_clause(verdict["because"])
    return f"{title}{scope}{doubt}: {lower_first(because)}{cause}"


def _next_step(verdict: VerdictJson) -> Iterator[tuple[str, str]]:
    """The first remedy, as it is typed."""
    remedies = verdict.get("remedies") or ()
    if not remedies:
        return
    first = remedies[0]
    options = "".join(f" --set {setting}" for setting in first.get("set") or ())
    others = count_phrase(len(remedies) - 1, "alternative", "alternatives")
    more = f" ({others} in the report)" if remedies[1:] else ""
    yield "Next step", f"{first['do']}{options}{more}"


def _ending(result: Mapping[str, Any], discarded: bool) -> tuple[str, str]:
    """Which checkpoint was saved and why, when and why training stopped, and how long it took."""
    from holdfast.report.answer.answer import checkpoint_decision

    best, last = result["best_step"], result["last_step"]
    label, because = result["verdict"]["label"], str(result["stopped_because"])
    # The reason of a stop by the guard begins with the verdict's label, which is printed above.
    if because.startswith(label):
        because = because.partition(": ")[0]
        because = f"the verdict is {label}" if because == label else because
    saved = "step 0, before fine-tuning" if discarded else f"step {best}"
    # Without the figures and the test behind it.
    reason = checkpoint_decision(result).text("because").partition(": ")[0].partition(" (")[0]
    saved += f" ({reason})" if reason and not discarded else ""
    time = seconds_phrase(result["timing"]["train_s"])
    return "Saved", f"checkpoint of {saved}; stopped at step {last} after {time}: {because}"


def _trials(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What a policy that acts has tried, where it tried anything."""
    control, tried = result.get("control") or {}, []
    for one in control.get("trials") or ():
        worse = "significantly worse" if "fold" in one else "not shown to be better"
        if one.get("updates") == 0:
            worse = "its run ended with an error"
        end = "kept" if one["kept"] else f"undone, {worse}"
        if not one["kept"] and one.get("ended") is False:
            end = "in progress when the run ended"
        if "fold" in one:
            tried.append(
                f"{one['name']} in place of the recipe's (compared on fold {one['fold']}): {end}"
            )
            continue
        start = f"begun at step {one['step']}"
        if one["from_step"] != one["step"]:
            start += f", continuing from step {one['from_step']}"
        tried.append(f"{one['name']} ({start}): {end}")
    if not tried:
        return
    updates = ""
    if control["steps"] != result["last_step"]:
        updates = f"; {control['steps']:,} updates in total, {control['planned_steps']:,} planned"
    yield "Trials", f"{'; '.join(tried)}{updates}"


def _stated_metric(result: Mapping[str, Any]) -> tuple[str, ...]:
    """The metric by which the recipe chooses the checkpoint, if the result line shows another."""
    from holdfast.report.answer.score import headline_score
    from holdfast.report.run_files import Block

    metric, score = Block(result).block("settings", "train").text("metric"), headline_score(result)
    return (metric,) if score is not None and metric not in ("loss", score.name) else ()


def _scores(result: Mapping[str, Any], names: Iterable[str]) -> Iterator[tuple[str, str]]:
    from holdfast.core.metric_names import metric_words
    from holdfast.report.numbers import estimate, interval, number

    metrics = result["test"]["metrics"]
    estimates = {name: estimate(metrics[name]) for name in names if name in metrics}
    shown = []
    for name, value in estimates.items():
        if value.value is not None:
            span = interval(value, name)
            span = f" ({percent_phrase(value.level)} CI {span})" if span else ""
            shown.append(f"{metric_words(name)} {number(value.value, name)}{span}")
    if shown:
        yield "Scores", "; ".join(shown)


def _warnings(result: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """What must be known before the model is used: the warnings at the top of the report."""
    from holdfast.report.run_files import RunFiles
    from holdfast.report.view.reliance import reliance

    reliance_lines = reliance(RunFiles(result))
    for line in reliance_lines.lines if reliance_lines else ():
        if line.tone == "warn":
            yield "Warning", line.text
