"""The text of ``holdfast explain``: each row with its important words marked, their contribution,
and how faithful the explanation is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from holdfast.core.printable import printable
from holdfast.report.explanation import (
    explanation_answer,
    faithfulness_line,
    marked_words,
    prediction_text,
    row_notes,
    strength,
    summary_lines,
    why_not,
)
from holdfast.terminal.layout import wrap

if TYPE_CHECKING:
    from holdfast.report.explanation import ReasonJson, RowJson


# Brackets around a word, by how strongly it supports the prediction, or opposes it.
FOR = ("", "", "[", "[[")
AGAINST = ("", "", "(", "((")
CLOSED = {"[": "]", "(": ")"}
SHADES = ("·", "░", "▒", "█")
NAMED = 4
LONGEST = 1200


def explanation_text(document: Mapping[str, Any], columns: int) -> str:
    """The rows, then how faithful their explanations are, at most ``columns`` wide."""
    lines = [*wrap(_head(document), columns), ""]
    for row in document["rows"]:
        lines += [*_row(document, row, columns), ""]
    lines += wrap(explanation_answer(document), columns)
    for line in summary_lines(document):
        lines += wrap(line, columns, "  ")
    return "\n".join(printable(line) for line in lines)


def class_words_text(block: Mapping[str, object], columns: int) -> str:
    """The most important words of each class, from a run's ``reasons``."""
    from holdfast.analyses.explain.section import word_document

    if "why" in block:
        return "\n".join(wrap(printable(str(block["why"])), columns))
    view = word_document(block)
    lines = [*wrap(view.sentence, columns), ""]
    for name, words, rows, cost, others, p, verdict in view.tables[0].lines:
        if rows == "0":
            line = f"“{words}” is {verdict}"
        else:
            effect = f"masking “{words}” costs {cost}, masking other words {others}"
            line = f"{effect} ({rows} test rows, {p}): {verdict}"
        lines += wrap(f"{name}: {line}", columns, "  ", "    ")
    lines += ["", *wrap(view.passages[-1], columns)]
    return "\n".join(printable(line) for line in lines)


def _head(document: Mapping[str, Any]) -> str:
    """The legend of the marks."""
    if any("grid" in row for row in document["rows"]):
        return "Squares that support the prediction: █ strong, ▒ weaker, ░ faint; - opposes it."
    measures = {one["measure"] for row in document["rows"] for one in row["reasons"]}
    if "output" in measures:
        return "Words that raise the prediction: [[strong]], [weaker]; (words that lower it)."
    return "Words that support the prediction: [[strong]], [weaker]; (words that oppose it)."


def _row(document: Mapping[str, Any], row: RowJson, columns: int) -> list[str]:
    lines = wrap(f"Row {row['row']:,}: {prediction_text(row)}", columns, "", "  ")
    if row["because"]:
        return [*lines, *wrap(f"no prediction to explain: {row['because']}", columns, "  ")]
    for reason in row["reasons"]:
        if len(row["reasons"]) > 1:
            lines += wrap(f"For {reason['target']}:", columns, "  ")
        lines += _marked(row, reason, columns)
        reason_why = why_not(document, reason)
        if reason_why:
            lines += wrap(f"no word is marked: {reason_why}", columns, "    ")
        else:
            lines += _marked_word_lines(row, reason, columns)
        lines += wrap(faithfulness_line(reason), columns, "    ")
    for note in row_notes(row):
        lines += wrap(note, columns, "    ")
    return lines


def _marked(row: RowJson, reason: ReasonJson, columns: int) -> list[str]:
    values = next(iter(reason["maps"].values()))["values"]
    top = max((abs(value) for value in values), default=0.0)
    levels = [strength(value, top) if reason["shown"] else 0 for value in values]
    if "grid" in row:
        return [*wrap(row["texts"][0], columns, "  "), *_squares(row, levels)]
    lines = []
    for number, text in enumerate(row["texts"]):
        at, marked_text = 0, ""
        for (part, start, stop), level in zip(row["spans"], levels, strict=True):
            if part == number:
                mark = (FOR if level > 0 else AGAINST)[abs(level)]
                closed = CLOSED.get(mark[:1], "") * len(mark)
                marked_text += text[at:start] + mark + text[start:stop] + closed
                at = stop
        marked_text += text[at:]
        # One text of a pair may be empty.
        lines += wrap(printable(" ".join(marked_text.split()), LONGEST), columns, "  ") or [""]
    return lines


def _squares(row: RowJson, levels: Sequence[int]) -> list[str]:
    down, across = row["grid"]
    signs = ["-" if level < -1 else SHADES[max(0, level)] for level in levels]
    lines = [signs[line * across : (line + 1) * across] for line in range(down)]
    return ["    " + "".join(sign * 2 for sign in line) for line in lines]


def _marked_word_lines(row: RowJson, reason: ReasonJson, columns: int) -> list[str]:
    lines = []
    number = reason["measure"] == "output"
    for sign, head in (
        (1, "raise it" if number else "support it"),
        (-1, "lower it" if number else "oppose it"),
    ):
        marked = marked_words(row, reason, sign)[:NAMED]
        parts = [
            f"{word} {adds}" + (f" (without it {without})" if without and sign > 0 else "")
            for word, adds, without in marked
        ]
        if parts:
            lines += wrap(f"{head}: {', '.join(parts)}", columns, "    ", "      ")
    return lines
