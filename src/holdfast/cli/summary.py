"""The summary of a finished run: its score, whether to use it, its verdict, and its files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Required, TypedDict

from holdfast.core.wording import count_phrase
from holdfast.terminal.layout import entries, entry, format_seconds, run_lines, wrap

if TYPE_CHECKING:
    from holdfast.report.view.headline import RemedyJson


# Scores beside the one of the headline, by their names in result.json.
SCORES = {
    "f1_macro": "F1 macro",
    "f1_micro": "F1 micro",
    "r2": "R²",
    "spearman": "rank correlation",
    "perplexity": "perplexity",
    "rouge_l": "ROUGE-L",
}


class VerdictJson(TypedDict, total=False):
    """The verdict of a finished run."""

    label: Required[str]
    because: Required[str]
    cause: str | None
    remedies: list[RemedyJson]
    test_agrees: bool | None


def summary(result: Mapping[str, Any], run: Path, columns: int) -> list[str]:
    """The lines: the answer first, whatever the verdict says."""
    from holdfast.report.answer.answer import answer, discarded_sentence

    summary, unused = answer(result), discarded_sentence(result)
    return [
        "",
        *wrap(summary.headline, columns),
        *wrap(summary.advice, columns),
        *(wrap(unused, columns) if unused else []),
        "",
        *_verdict(result["verdict"], columns, " on the discarded steps" if unused else ""),
        "",
        *_end_lines(result, columns),
        *_trial_lines(result, columns),
        *_scores(result, columns),
        *_warning_lines(result, columns),
        *run_lines(run),
    ]


def _verdict(verdict: VerdictJson, columns: int, scope: str) -> Iterator[str]:
    """The label with its reason, and the first remedy as it is typed; ``scope`` it is about, where
    that is not the model that is kept."""
    cause = f" Likeliest cause: {verdict['cause']}." if verdict.get("cause") else ""
    label = str(verdict["label"]).replace("_", " ")
    doubt = ", not confirmed by the test rows" if verdict.get("test_agrees") is False else ""
    text = f"Verdict{scope}: {label}{doubt}. {verdict['because']}{cause}"
    yield from wrap(text, columns)
    remedies = verdict.get("remedies") or ()
    if not remedies:
        return
    first = remedies[0]
    options = "".join(f" --set {setting}" for setting in first.get("set") or ())
    others = count_phrase(len(remedies) - 1, "other remedy", "other remedies")
    more = f" ({others} in the report)" if remedies[1:] else ""
    yield from entry("Next step", f"{first['do']}{options}{more}", columns)


def _end_lines(result: Mapping[str, Any], columns: int) -> list[str]:
    """Why it ended, in one line where that fits, and the state that is kept."""
    from holdfast.report.answer.answer import discarded_sentence

    best, last = result["best_step"], result["last_step"]
    label, because = result["verdict"]["label"], str(result["stopped_because"])
    # The reason of a stop by the guard begins with the verdict's label.
    if because.startswith(label):
        # The verdict's own sentence stands above.
        because = because.partition(": ")[0]
        because = f"the verdict is {label}" if because == label else because
    kept_checkpoint = "the last checkpoint" if best == last else f"the checkpoint of step {best}"
    if discarded_sentence(result):
        kept_checkpoint = "the checkpoint of step 0, before the fine-tuning"
    time = format_seconds(result["timing"]["train_s"])
    ended = [
        ("Stopped", f"step {last}: {because}"),
        ("Kept", f"{kept_checkpoint}; trained for {time}"),
    ]
    return entries(ended, columns)


def _trial_lines(result: Mapping[str, Any], columns: int) -> Iterator[str]:
    """What a policy that acts has tried, or that it tried nothing; nothing under ``stop`` and
    ``off``, which try nothing."""
    control = result.get("control") or {}
    policy, trials = control.get("policy"), control.get("trials") or ()
    if policy in (None, "stop", "off"):
        return
    for one in trials:
        end = "kept" if one["kept"] else "undone, not shown to be better"
        start = f"at step {one['step']}"
        if one["from_step"] != one["step"]:
            start += f", from step {one['from_step']} on"
        yield from entry("Tried", f"{one['name']} ({start}): {end}", columns)
    if not trials:
        yield from entry("Tried", f"nothing: {policy} found no reason to act", columns)
    elif control["steps"] != result["last_step"]:
        text = f"{control['steps']:,} updates in all, {control['planned_steps']:,} were planned"
        yield from entry("Took", text, columns)


def _scores(result: Mapping[str, Any], columns: int) -> Iterator[str]:
    from holdfast.report.numbers import estimate, interval, number

    metrics = result["test"]["metrics"]
    estimates = {
        title: (estimate(metrics[name]), name) for name, title in SCORES.items() if name in metrics
    }
    shown = [
        f"{title} {number(value.value, name)}"
        + (f" ({value.level:.0%} CI {span})" if (span := interval(value, name)) else "")
        for title, (value, name) in estimates.items()
        if value.value is not None
    ]
    if shown:
        yield from entry("Scores", "; ".join(shown).replace("\u00a0", " "), columns)


def _warning_lines(result: Mapping[str, object], columns: int) -> Iterator[str]:
    """What must be known before the model is relied on: the faults that the report begins with."""
    from holdfast.report.run_files import RunFiles
    from holdfast.report.view.reliance import reliance

    reliance_lines = reliance(RunFiles(result))
    for line in reliance_lines.lines if reliance_lines else ():
        if line.tone == "warn":
            yield from entry("Warning", line.text.replace("\u00a0", " "), columns)
