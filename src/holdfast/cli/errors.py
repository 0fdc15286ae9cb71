"""``holdfast errors``: weak slices, confused classes and hardest rows of a finished run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypedDict

import typer

from holdfast.cli.options import Output
from holdfast.core.machine import refuse_low_memory
from holdfast.core.printable import shorten
from holdfast.core.wording import (
    count_phrase,
    p_value_phrase,
    percent_phrase,
    prompt_phrase,
    signed,
)
from holdfast.terminal.layout import wrap

if TYPE_CHECKING:
    from holdfast.report.numbers import EstimateJson


MAX_LISTED, MAX_CHARACTERS = 5, 160


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run.")],
    robust: Annotated[
        bool,
        typer.Option(
            "--robustness",
            help="Also predict changed test rows: typing errors, other case, and so on.",
        ),
    ] = False,
    topics: Annotated[
        bool,
        typer.Option("--topics", help="Also search for weak topics by clusters of embeddings."),
    ] = False,
    *,
    output: Output,
) -> None:
    """Show where RUN makes errors.

    Lists weak slices (found on validation rows, confirmed on test rows), pairs of confused classes,
    and the hardest rows with the most similar training rows. For a generative model: whether
    fine-tuning improved it, and faults of the generated texts.
    """
    refuse_low_memory("torch")
    from holdfast.analyses.errors.analysis import errors

    with output.heard():
        errors_found = errors(run, robust=robust, topics=topics)
    output.show(errors_found, lambda columns: errors_text(errors_found, columns))


class SliceJson(TypedDict):
    """A slice of rows, with its score and that of the other rows."""

    slice: str
    n: int
    value: EstimateJson
    rest: EstimateJson
    because: NotRequired[str]
    train_share: NotRequired[float | None]


class SlicesJson(TypedDict, total=False):
    """The tested slices, or ``why`` none was tested."""

    why: str
    what: str
    rows: dict[str, int]
    n_candidates: int
    found: list[SliceJson]
    undecided: list[SliceJson]
    false_alarm_rate: EstimateJson


class ChangeJson(TypedDict):
    """The effect of one change of the texts."""

    n: int
    worse: bool
    before: float
    after: float
    difference: EstimateJson
    flipped: EstimateJson


class RobustnessJson(TypedDict):
    """The effect of each change of the texts, by its name."""

    what: str
    n: int
    of: int
    openings: int
    changes: dict[str, ChangeJson]
    not_made: dict[str, str]


def errors_text(document: Mapping[str, Any], columns: int) -> str:
    """The text of the command: each part below its heading."""
    parts = [
        (
            "Comparison with the base model",
            worth_lines(document["worth"]) if "worth" in document else [],
        ),
        ("Output quality", output_lines(document["outputs"]) if "outputs" in document else []),
        ("Weak slices", _slices(document["slices"])),
        ("Weak topics", _slices(document["topics"]) if document.get("topics") else []),
        ("Confused classes", _confusions(document)),
        ("Hardest test rows (row numbers start at 0)", _hardest(document)),
        ("Robustness", _robustness(document.get("robustness"))),
    ]
    lines: list[str] = []
    for title, part_lines in parts:
        if part_lines:
            lines.append(title)
            for line in part_lines:
                indent = " " * (len(line) - len(line.lstrip()) + 2)
                lines.append("\n".join(wrap(line, columns, "", indent)))
            lines.append("")
    return "\n".join(lines[:-1])


def _slices(block: SlicesJson) -> list[str]:
    if "why" in block:
        return [f"  Not tested: {block['why']}."]
    confirmed, undecided = block["found"], block["undecided"]
    rows = block.get("rows", {})
    tested = (
        f"{count_phrase(block['n_candidates'], 'candidate')} from {rows.get('validation', '?')}"
    )
    were = "was" if block["n_candidates"] == 1 else "were"
    lines = [
        f"  {tested} validation rows {were} tested on {rows.get('test', '?')} test rows: "
        f"{len(confirmed)} confirmed."
    ]
    rate = block.get("what") == "wrong"
    lines += [f"  ! {_slice(one, rate)}{_train_share(one)}" for one in confirmed]
    lines += [f"    {_slice(one, rate)}; {one['because']}" for one in undecided[:MAX_LISTED]]
    if len(undecided) > MAX_LISTED:
        more = len(undecided) - MAX_LISTED
        lines.append(f"    … and {more} more inconclusive ones (--json lists them)")
    return [*lines, f"  {false_alarms(block['false_alarm_rate'])}"]


def false_alarms(rate: Mapping[str, Any]) -> str:
    """The measured false alarm rate as a sentence."""
    sentence = (
        f"False alarms: a slice was confirmed in {100 * rate['value']:.1f} % of {rate['what']}"
    )
    if rate["low"] is None:
        return f"{sentence}."
    return f"{sentence} (95 % CI {100 * rate['low']:.1f}–{100 * rate['high']:.1f})."


def _slice(one: SliceJson, rate: bool) -> str:
    name = f"{one['slice']} ({count_phrase(one['n'], 'row')})"
    value, rest = one["value"], one["rest"]
    if value["value"] is None or rest["value"] is None:
        return name
    if not rate:
        return f"{name}: {_span(value)}; other rows {rest['value']:.3g}"
    wrong = _span(value, 100, " %")
    return f"{name}: error rate {wrong}; other rows {100 * rest['value']:.0f} %"


def _train_share(one: SliceJson) -> str:
    share = one.get("train_share")
    if share is None:
        return ""
    shown = "less than 1 %" if 0 < share < 0.01 else percent_phrase(share)
    return f"; {shown} of the training rows are in this slice"


def _span(value: Mapping[str, Any], times: int = 1, unit: str = "") -> str:
    shown = f"{times * value['value']:.3g}{unit}"
    if value["low"] is None:
        return shown
    low, high = (_short(times * value[end]) for end in ("low", "high"))
    return f"{shown} (95 % CI {low}–{high})"


def _short(value: float) -> str:
    """Two digits, and whole numbers whole: 100, not 1e+02."""
    return f"{value:.0f}" if abs(value) >= 99.5 else f"{value:.2g}"


def _confusions(document: Mapping[str, Any]) -> list[str]:
    lines = []
    for pair in document.get("confusions", ())[:MAX_LISTED]:
        rows, share = count_phrase(pair["n"], "row"), _span(pair["share"], 100, " %")
        confused = f"{pair['label']} predicted as {pair['answer']}"
        lines.append(f"  {confused}: {rows}, {share} of the class")
        for example in pair["examples"][:1]:
            lines.append(f"      row {example['row']}: {_cut(example['text'])}")
            if example["like"]:
                like = example["like"]
                lines.append(f"      similar training row {like['row']}: {_cut(like['text'])}")
    return lines


def _hardest(document: Mapping[str, Any]) -> list[str]:
    lines = []
    for row in document.get("hardest", ())[:MAX_LISTED]:
        shown = [] if row["label"] is None else [_cut(row["label"], 40)]
        if row["prediction"] is not None:
            how = "generated" if document.get("worth") else "predicted"
            shown.append(f"{how} {_cut(row['prediction'], 40)}")
        about = f"{', '.join(shown)}: " if shown else ""
        lines.append(f"  row {row['row']}: {about}{_cut(row['text'])}")
        lines += [f"      {row['because']}"] if row.get("because") else []
        for neighbour in row.get("nearest", ())[:1]:
            label = "" if neighbour["label"] is None else f"{_cut(neighbour['label'], 40)}, "
            lines.append(
                f"      training row {neighbour['row']} ({label}similarity "
                f"{neighbour['alike']:.2f}): {_cut(neighbour['text'])}"
            )
    return lines


def _robustness(block: RobustnessJson | None) -> list[str]:
    if block is None:
        return []
    rate, numbers = block["what"] == "wrong", block["what"] == "absolute error"
    lines = [
        f"  {block['n']} of {block['of']} test rows (use {block['openings']} of the test set after "
        "the test score):"
    ]
    for name, one in block["changes"].items():
        lines.append(f"  {'!' if one['worse'] else ' '} {name}: {_change_text(one, rate, numbers)}")
    lines += [f"    {name}: skipped: {why}" for name, why in block["not_made"].items()]
    return [
        *lines,
        "  False alarms: at most 5 % of models that are not affected (Holm's correction).",
    ]


def _change_text(one: Mapping[str, Any], rate: bool, moved: bool) -> str:
    if not one["n"]:
        return "no row was changed"
    times, unit = (100, " %") if rate else (1, "")
    gap = one["difference"]
    low, high = gap["low"], gap["high"]
    ends = (
        ""
        if low is None
        else f", 95 % CI {signed(times * low, '+.2g')} to {signed(times * high, '+.2g')}"
    )
    word = "error rate" if rate else "mean loss"
    verb = "change by more than usual" if moved else "change"
    return (
        f"{one['n']} rows, {word} {times * one['before']:.3g} → {times * one['after']:.3g}{unit} "
        f"(difference {signed(times * gap['value'], '+.2g')}{ends}); "
        f"{100 * one['flipped']['value']:.1f} % of predictions {verb}"
    )


def _cut(value: object, limit: int = MAX_CHARACTERS) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = " ".join(map(str, value))
    return shorten(" ".join(str(value).split()), limit)


def worth_lines(block: Mapping[str, Any]) -> list[str]:
    """The result first, then its evidence."""
    lines = [f"  {block['because']}"]
    for name, one in block["start"].items():
        way = prompt_phrase(name, one)
        if not one.get("n"):
            lines.append(f"  Base model, {way}: not evaluated: {one['why']}.")
            continue
        gap = one["difference"]
        if gap["value"] is not None and gap["low"] is not None:
            lines.append(
                f"  Base model, {way}: loss difference {signed(gap['value'], '+.3f')} nats "
                "per token "
                f"(95 % CI {signed(gap['low'], '+.3f')} to {signed(gap['high'], '+.3f')}), "
                f"{one['n']} rows."
            )
    for name, one in block["win_rate"].items():
        way = prompt_phrase(name, block["start"].get(name, {}))
        if one.get("value") is None:
            lines.append(f"  Texts compared with the base model's, {way}: {one['why']}.")
            continue
        verdict = {"wins": "better", "loses": "worse"}.get(one["verdict"], "no difference shown")
        more = f"; about {one['more_rows']:,} more rows would decide" if one["more_rows"] else ""
        lines.append(
            f"  Texts compared with the base model's, {way}, by {block['judge']}: {one['wins']} "
            f"better, {one['ties']} equal, {one['losses']} worse ({verdict}{more})."
        )
    lines += [f"  {block[name]['because']}" for name in ("general", "tasks") if block.get(name)]
    if block.get("false_alarms"):
        lines.append(f"  {block['false_alarms']}")
    return [*lines, *_left_out(block)]


def output_lines(block: Mapping[str, Any]) -> list[str]:
    """One line per share that is not 0; then how often such a finding is a false alarm."""
    from holdfast.stats.paired_tests import MCNEMAR_EXACT

    lines = [f"  {block['because']}"]
    for one in block["shares"]:
        start = one["start"]
        if not one["n"] or not (one["tuned"]["value"] or (start and start["value"])):
            continue
        start_share = "" if start is None else f", base model {100 * start['value']:.0f} %"
        mark = {"more": "! ", "fewer": "+ "}.get(one["verdict"], "  ")
        tail = ""
        if one["verdict"] in ("more", "fewer"):
            tail = f" ({one['verdict']}, {p_value_phrase(one['p_adjusted'], MCNEMAR_EXACT)})"
        elif one["more_rows"]:
            tail = f" (about {one['more_rows']:,} more rows would decide)"
        lines.append(
            f"  {mark}{one['side']}, texts that {block['meaning'][one['mark']]}: "
            f"{100 * one['tuned']['value']:.0f} %{start_share}{tail}"
        )
    return [*lines, f"  {block['false_alarms']}", *_left_out(block)]


def _left_out(block: Mapping[str, Any]) -> list[str]:
    return [f"  Skipped ({name}): {why}." for name, why in block["left_out"].items()]
