"""What ``holdfast audit`` prints for a person: the answer, what was found by how bad it is, what
was looked at and is fine, what was not looked at and why."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from holdfast.core.printable import printable
from holdfast.core.wording import ROW_NUMBERS, counted

if TYPE_CHECKING:
    from holdfast.analyses.audit.result import Audit, LabelFirst, Shown
    from holdfast.core.records import Finding

MARKS = {"error": "!!", "warn": "! ", "info": "  "}
HEADS = {
    "error": "Would spoil a training, or the number that it ends with",
    "warn": "Worth a look before a training",
    "info": "For information",
}
# Examples of a finding in the terminal; the page has more.
EXAMPLES = 2
TEXT = 160
# Rows to label next; --json has the others.
NEXT = 3


def summary(audit: Audit, columns: int) -> list[str]:
    """The lines, at most ``columns`` wide."""
    from holdfast.report.audit import answer

    lines = ["", *_wrapped(answer(audit.to_json()), columns, "", ""), ""]
    lines += [*_wrapped(_rows(audit), columns, "  ", "  ")]
    for severity, head in HEADS.items():
        found = [(n, f) for n, f in enumerate(audit.findings) if f.severity == severity]
        if found:
            lines += ["", head]
            for place, finding in found:
                examples = audit.examples.get(place, ()) if severity != "info" else ()
                lines += _finding(finding, examples, columns)
    if audit.label_next is not None:
        lines += ["", *_to_label(audit.label_next, columns)]
    lines += ["", *_wrapped(ROW_NUMBERS, columns, "", "  "), *_rest(audit, columns)]
    return [printable(line) for line in lines]


def _rows(audit: Audit) -> str:
    text = audit.columns.get("text")
    names = [text] if isinstance(text, str) else list(text or ())
    label = audit.columns.get("label")
    read = ", ".join(f'"{name}"' for name in names) + (f' → "{label}"' if label else "")
    classes = f", {counted(len(audit.label_counts), 'class', 'classes')}"
    against = f"; against {', '.join(audit.against)}" if audit.against else ""
    classes = classes if audit.label_counts else ""
    return f"{counted(audit.rows, 'row')} of {audit.source}: {read}{classes}{against}"


def _finding(finding: Finding, examples: Sequence[Shown], columns: int) -> Iterator[str]:
    """What was found and what to do, then examples."""
    head = f"  {MARKS[finding.severity]} {finding.check}: "
    text = f"{head}{_sentence(finding.because)}"
    yield from _wrapped(text, columns, "", "     ")
    yield from _wrapped(f"→ {finding.remedy}", columns, "     ", "       ")
    for one in examples[:EXAMPLES]:
        yield from _example(one, columns)


def _example(one: Shown, columns: int) -> Iterator[str]:
    if one.other_row is None:
        yield from _wrapped(
            f"row {one.row}{_label(one.label)}: {_cut(one.text)}", columns, "     | "
        )
        return
    place = f"row {one.other_row}" + (f" of {one.other_file}" if one.other_file else "")
    text, other = _where_they_differ(one.text, one.other_text)
    yield from _wrapped(f"row {one.row}{_label(one.label)}: {text}", columns, "     | ")
    yield from _wrapped(f"{place}{_label(one.other_label)}: {other}", columns, "     | ")


def _where_they_differ(one: str, other: str) -> tuple[str, str]:
    """The stretch of two texts in which they begin to differ, from their beginnings where they are
    short or the same."""
    first, second = " ".join(one.split()), " ".join(other.split())
    pairs = enumerate(zip(first, second, strict=False))
    same = next((at for at, (a, b) in pairs if a != b), min(len(first), len(second)))
    if same == len(first) == len(second) or max(len(first), len(second)) <= TEXT:
        return _cut(first), _cut(second)
    start = max(0, same - TEXT // 2)
    mark = "…" if start else ""
    return mark + _cut(first[start:]), mark + _cut(second[start:])


def _to_label(found: LabelFirst, columns: int) -> Iterator[str]:
    """Which rows to label next, or that any will do; the whole order stands in the JSON."""
    rows = f"{counted(found.count, 'row')} of {found.file} without a label"
    head = "Label these first" if found.ranked else "Label any of them, at random"
    yield from _wrapped(f"{rows}. {head}: {_sentence(found.because)}", columns, "", "  ")
    for row, text in zip(found.rows, found.shown[:NEXT], strict=False):
        yield from _wrapped(f"row {row}: {_cut(text)}", columns, "     | ")


def _rest(audit: Audit, columns: int) -> Iterator[str]:
    silent = audit.silent
    if silent:
        yield from _wrapped(f"Looked at, nothing found: {', '.join(silent)}.", columns, "", "  ")
    for why, names in _by_reason(audit.unseen).items():
        yield from _wrapped(f"Not looked at ({why}): {', '.join(names)}.", columns, "", "  ")


def _by_reason(unseen: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, why in unseen.items():
        found.setdefault(why, []).append(name)
    return found


def _label(label: str) -> str:
    return f" ({_cut(label, 40)})" if label else ""


def _cut(text: str, most: int = TEXT) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= most else f"{one_line[: most - 1]}…"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _wrapped(text: str, columns: int, first: str, rest: str | None = None) -> list[str]:
    return textwrap.wrap(
        text,
        columns,
        initial_indent=first,
        subsequent_indent=first if rest is None else rest,
        break_on_hyphens=False,
    )
