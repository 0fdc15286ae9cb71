"""What is said before the first step: short, aligned, in the right number, nothing urgent lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from holdfast.core.records import Decision, Finding
from holdfast.core.wording import count_phrase, has_or_have, seconds_phrase
from holdfast.runs.start import ModelOutline, RowsOutline
from holdfast.terminal.layout import COLUMN, entry, short_count
from holdfast.terminal.messages import MessagePrinter, finding_lines, model_lines, row_lines

ROWS = RowsOutline("reviews.csv", 200, ("text",), "label", "2 classes", None, 140, 30, 30, 0, 0)
MODEL = ModelOutline("embedded", "text-classification", 22_566_146, 10_845_698, 75, 1, 16, 8.57, 3)


def finding(check: str, severity: str = "warn", score: float = 0.5, fixed: bool = False) -> Finding:
    return Finding(
        check,
        severity,
        score,
        12,
        (1, 2),
        "a reason of some length " * 6,  # type: ignore[arg-type]
        "look at the rows",
        fixed,
    )


@pytest.mark.parametrize("name", ["Rows", "Told apart", "Validation", "False alarms"])
def test_a_name_never_runs_into_what_is_said(name: str) -> None:
    first, *more = entry(name, "area 0.764 by its loss, words and lengths " * 2, 40)
    assert first.startswith(f"  {name} ")
    assert all(line[:COLUMN].isspace() for line in more)


def test_the_outline_is_four_lines_of_eighty_columns() -> None:
    lines = [*row_lines(ROWS, 80), *model_lines(MODEL, 80)]
    assert lines == [
        '  Rows      200 of reviews.csv: "text" → "label" (2 classes)',
        "  Split     training 140, validation 30, test 30",
        "  Model     embedded, text-classification: 10.8M of 22.6M parameters trained",
        "  Plan      75 steps of 16 rows (8.6 epochs), 3 evaluations",
    ]


def test_why_rows_are_dropped_and_labels_merged_is_said_without_being_asked(capsys: Any) -> None:
    from holdfast.core.decisions import decisions_to
    from holdfast.core.records import Decision
    from holdfast.data.labels.spelling import merge_spellings
    from holdfast.terminal.messages import MessagePrinter

    part = replace(ROWS, dropped=10, why_dropped="missing text or label")
    assert "10 removed (missing text or label)" in " ".join(" ".join(row_lines(part, 80)).split())
    notify = MessagePrinter(quiet=False, verbose=False)
    with decisions_to(notify):
        merge_spellings({"Yes": 2, "yes ": 1, "no": 3})
    notify(Decision("labels", "whole numbers", "because"))
    said = capsys.readouterr().err
    assert "'yes '" in said
    assert "whole numbers" not in said


def test_what_was_moved_dropped_and_grouped_is_told_in_the_right_number() -> None:
    folded = RowsOutline("a.csv", 9, (), None, "", None, 6, 2, 0, 0, 1, "empty", folded=True)
    # Which of them judges changes from fold to fold.
    said = " ".join(" ".join(row_lines(folded, 80)).split())
    assert "training and validation 8 (cross-fitting), test 0; 1 removed (empty)" in said
    part = RowsOutline("a.csv", 1, (), None, "", "author", 1, 1, 1, 1, 2)
    assert row_lines(part, 80) == [
        "  Rows      1 of a.csv by author",
        "  Split     training 1, validation 1, test 1; 1 moved to the split of their",
        "            duplicates or group; 2 removed",
    ]


@pytest.mark.parametrize(("epochs", "shown"), [(0.048, "(0.05 epochs)"), (1, "(1 epoch)")])
def test_a_plan_of_less_than_an_epoch_says_how_much(epochs: float, shown: str) -> None:
    assert shown in model_lines(replace(MODEL, epochs=epochs), 80)[1]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 9])
def test_findings_take_two_lines_at_most_and_none_is_unnamed(count: int) -> None:
    found = [finding(f"check_{i}", "error" if i == count - 1 else "warn") for i in range(count)]
    lines = finding_lines(found, 80)
    assert len(lines) <= 2
    assert max(map(len, lines), default=0) <= 80
    assert all(f"check_{i}" in " ".join(lines) for i in range(min(count, 5)))
    if count:
        assert lines[0].startswith(f"  !! check_{count - 1}: "), "the worst first"


def test_a_finding_without_a_remedy_ends_with_its_reason() -> None:
    one = replace(finding("check"), because="2 rows moved", remedy="No action needed. Look there.")
    assert finding_lines([one], 80) == ["  !  check: 2 rows moved"]
    assert finding_lines([replace(one, remedy="Look.")], 80) == ["  !  check: 2 rows moved → Look."]


def test_a_brief_teller_keeps_what_needs_a_person_and_speaks_up_once_the_run_is_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    notify = MessagePrinter(quiet=False, verbose=False)
    notify(Decision("text column", "text", "the column has this name"))
    notify(finding("near_duplicates", fixed=True))
    notify(finding("odd_rows", severity="info"))
    notify(finding("label_giveaway"))
    assert capsys.readouterr().err == ""
    notify(Decision("resumed", "runs/a", "every setting is its own", prominent=True))
    assert "resumed: runs/a" in capsys.readouterr().err
    notify.outline(ROWS)
    notify.outline(MODEL)
    said = capsys.readouterr().err
    assert "label_giveaway: " in said
    assert "near_duplicates" not in said
    assert "odd_rows" not in said
    notify(Decision("best checkpoint", "step 3", "its loss is the lowest"))
    assert capsys.readouterr().err == ""
    notify(Decision("alert", "failed", "the command left with 1", prominent=True))
    assert "alert: failed" in capsys.readouterr().err


def test_a_verbose_teller_says_everything_and_a_quiet_one_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for quiet, expected in ((False, True), (True, False)):
        notify = MessagePrinter(quiet=quiet, verbose=True)
        notify(Decision("text column", "text", "the column has this name"))
        notify(finding("odd_rows", severity="info"))
        notify.outline(ROWS)
        said = capsys.readouterr().err
        assert ("text column" in said, "odd_rows" in said) == (expected, expected)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (count_phrase(1, "row"), "1 row"),
        (count_phrase(2_000, "row"), "2,000 rows"),
        (count_phrase(3, "class", "classes"), "3 classes"),
        (has_or_have(1), "has"),
        (has_or_have(0), "have"),
        (seconds_phrase(0.2), "1 s"),
        (seconds_phrase(59.4), "59 s"),
        (seconds_phrase(200), "3 min 20 s"),
        (seconds_phrase(7_500), "2 h 05 min"),
        (short_count(912_345), "912,345"),
        (short_count(7_241_732_096), "7.2B"),
    ],
)
def test_numbers_in_words(made: str, said: str) -> None:
    assert made == said
