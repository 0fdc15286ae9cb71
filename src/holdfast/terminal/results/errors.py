"""The text of ``holdfast errors``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from holdfast.core.printable import shorten
from holdfast.core.wording import count_phrase, signed
from holdfast.terminal.document import document_lines
from holdfast.terminal.layout import wrap

if TYPE_CHECKING:
    from holdfast.report.numbers import EstimateJson

MAX_LISTED, MAX_CHARACTERS = 5, 160


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
    from holdfast.analyses.slices.section import slices
    from holdfast.report.run_files import RunFiles
    from holdfast.report.view.base_model import outputs, worth

    def slices_of(key: str) -> list[str]:
        block = document.get(key) or {}
        view = slices(RunFiles({"slices": block}))
        if view is None:
            return [f"  Not tested: {block['why']}."] if "why" in block else []
        return document_lines(view, columns, "  ")

    run = RunFiles(document)
    of_base, of_outputs = (
        [] if view is None else document_lines(view, columns, "  ", details=False)
        for view in (worth(run), outputs(run))
    )
    parts = [
        ("Comparison with the base model", of_base),
        ("Output quality", of_outputs),
        ("Weak slices", slices_of("slices")),
        ("Weak topics", slices_of("topics")),
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
        f"  {block['n']} of {block['of']} test rows (uses of the test set after the test score: "
        f"{block['openings']}):"
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
