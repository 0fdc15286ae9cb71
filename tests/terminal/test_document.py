"""The sections of a report as lines of a terminal."""

from __future__ import annotations

import pytest

from holdfast.report.document import Cell, Details, Document, DocumentTable, Items, Passage
from holdfast.terminal.document import document_lines

LONG = "a text of the user's data " * 9
TABLE = DocumentTable(
    "The most exposed rows",
    ("Row", "Label", "Text", "AUC", "Other rows", "95 % CI"),
    (
        ("7", "yes", LONG, Cell("0.71", "0.60 – 0.80"), "–", "needs 29 rows"),
        ("8", "–", "–", Cell("–", ""), "–", "–"),
    ),
    ("n", "term", "name", "n", "n", ""),
)
DOCUMENT = Document(
    (
        Passage("It memorized training rows."),
        Items(("the first", "the second")),
        Details("Show the rows", (TABLE, Passage("A note.", "muted"))),
    )
)


def test_a_line_of_a_table_is_a_sentence_of_what_is_known() -> None:
    assert document_lines(DOCUMENT, 400) == [
        "It memorized training rows.",
        "- the first",
        "- the second",
        "The most exposed rows:",
        f"- Row 7: label: yes; text: {LONG[:79]}…; AUC 0.71 (0.60 – 0.80); 95 % CI: needs 29 rows",
        "A note.",
    ]
    assert document_lines(DOCUMENT, 80, details=False)[-1] == "- the second"


@pytest.mark.parametrize("columns", [40, 80])
def test_no_line_is_too_long_and_none_begins_before_the_indent(columns: int) -> None:
    lines = document_lines(DOCUMENT, columns, "  ")
    assert all(len(line) <= columns and line.startswith("  ") for line in lines)
    said = " ".join(" ".join(lines).split())
    assert said == " ".join(" ".join(document_lines(DOCUMENT, 400)).split())
