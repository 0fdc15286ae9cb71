"""What ``holdfast explain`` prints for a person: each row with its words marked, what they add, and
what that is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from holdfast.core.printable import printable
from holdfast.report.explanation import (
    answer,
    how_faithful,
    joint_lines,
    named_of,
    row_notes,
    said_of,
    strength,
    why_not,
)
from holdfast.terminal.layout import wrapped

if TYPE_CHECKING:
    from holdfast.report.explanation import ReasonJson, RowJson


# Around a word, by how strongly it speaks for the answer, or against it.
FOR = ("", "", "[", "[[")
AGAINST = ("", "", "(", "((")
CLOSED = {"[": "]", "(": ")"}
SHADES = ("·", "░", "▒", "█")
NAMED = 4
LONGEST = 1200


def shown(document: Mapping[str, Any], columns: int) -> str:
    """The rows, then what their maps are worth, at most ``columns`` wide."""
    lines = [*wrapped(_head(document), columns), ""]
    for row in document["rows"]:
        lines += [*_row(document, row, columns), ""]
    lines += wrapped(answer(document), columns)
    for line in joint_lines(document):
        lines += wrapped(line, columns, "  ")
    return "\n".join(printable(line) for line in lines)


def carried(block: Mapping[str, object], columns: int) -> str:
    """The words that carry each class, as a run's ``reasons`` has them."""
    from holdfast.analyses.explain.section import word_document as carried_words

    if "why" in block:
        return "\n".join(wrapped(printable(str(block["why"])), columns))
    found = carried_words(block)
    lines = [*wrapped(found.sentence, columns), ""]
    for name, words, rows, cost, others, p, verdict in found.tables[0].lines:
        told = f"{name}: “{words}” costs {cost}, other words {others} ({rows} test rows, {p})"
        told += f": {verdict}"
        lines += wrapped(told, columns, "  ", "    ")
    lines += ["", *wrapped(found.passages[-1], columns)]
    return "\n".join(printable(line) for line in lines)


def _head(document: Mapping[str, Any]) -> str:
    """What the marks mean."""
    if any("grid" in row for row in document["rows"]):
        return "Why the model says so: squares for it, █ strong, ▒ weaker, ░ faint; - against it."
    measures = {one["measure"] for row in document["rows"] for one in row["reasons"]}
    if "output" in measures:
        return "Why the model says so: words that raise it, [[strong]], [weaker]; (that lower it)."
    return "Why the model says so: words for it, [[strong]], [weaker]; (words against it)."


def _row(document: Mapping[str, Any], row: RowJson, columns: int) -> list[str]:
    lines = wrapped(f"Row {row['row']:,}: {said_of(row)}", columns, "", "  ")
    if row["because"]:
        return [*lines, *wrapped(f"no answer to explain: {row['because']}", columns, "  ")]
    for reason in row["reasons"]:
        if len(row["reasons"]) > 1:
            lines += wrapped(f"Why {reason['target']}:", columns, "  ")
        lines += _marked(row, reason, columns)
        reason_why = why_not(document, reason)
        if reason_why:
            lines += wrapped(f"nothing is marked: {reason_why}", columns, "    ")
        else:
            lines += _named(row, reason, columns)
        lines += wrapped(how_faithful(reason), columns, "    ")
    for note in row_notes(row):
        lines += wrapped(note, columns, "    ")
    return lines


def _marked(row: RowJson, reason: ReasonJson, columns: int) -> list[str]:
    values = next(iter(reason["maps"].values()))["values"]
    top = max((abs(value) for value in values), default=0.0)
    levels = [strength(value, top) if reason["shown"] else 0 for value in values]
    if "grid" in row:
        return [*wrapped(row["texts"][0], columns, "  "), *_squares(row, levels)]
    lines = []
    for number, text in enumerate(row["texts"]):
        at, made = 0, ""
        for (part, start, stop), level in zip(row["spans"], levels, strict=True):
            if part == number:
                mark = (FOR if level > 0 else AGAINST)[abs(level)]
                closed = CLOSED.get(mark[:1], "") * len(mark)
                made += text[at:start] + mark + text[start:stop] + closed
                at = stop
        made += text[at:]
        # The line of a text that is empty, as one of a pair may be, is empty.
        lines += wrapped(printable(" ".join(made.split()), LONGEST), columns, "  ") or [""]
    return lines


def _squares(row: RowJson, levels: Sequence[int]) -> list[str]:
    down, across = row["grid"]
    signs = ["-" if level < -1 else SHADES[max(0, level)] for level in levels]
    lines = [signs[line * across : (line + 1) * across] for line in range(down)]
    return ["    " + "".join(sign * 2 for sign in line) for line in lines]


def _named(row: RowJson, reason: ReasonJson, columns: int) -> list[str]:
    lines = []
    number = reason["measure"] == "output"
    for sign, head in (
        (1, "raise it" if number else "for it"),
        (-1, "lower it" if number else "against"),
    ):
        found = named_of(row, reason, sign)[:NAMED]
        parts = [
            f"{word} {adds}" + (f" (without it {without})" if without and sign > 0 else "")
            for word, adds, without in found
        ]
        if parts:
            lines += wrapped(f"{head}: {', '.join(parts)}", columns, "    ", "      ")
    return lines
