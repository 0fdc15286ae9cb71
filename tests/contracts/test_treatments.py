"""What every treatment promises, found by discovery."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import holdfast.quality.clean as room
from holdfast.core.errors import RecipeError
from holdfast.quality.clean import all_treatments
from holdfast.quality.clean.apply import clean_rows, clean_text, log_line, plan_cleaning
from holdfast.quality.clean.treatment import RowSet, TableTreatment, TextTreatment, parse_settings

ROW = [name for name, one in all_treatments().items() if isinstance(one, TextTreatment)]
TABLE = [name for name, one in all_treatments().items() if isinstance(one, TableTreatment)]
NOT_TREATMENTS = {"__init__", "treatment", "apply", "table"}
SETTINGS = {
    "rows": {"drop": [1, 5]},
    "terms": {"drop": ["parcel", "&nbsp;"]},
    "copies": {"same": "normal", "count": "copies"},
}
PIECES = [
    "plain words",
    "schÃ¶n â€œgutâ€\x9d",
    "it\x92s \x96 so",
    "zero\u200bwidth\ufeff",
    "<p>A &amp;lt;b&amp;gt; <br/>",
    "<<b>i>",
    "  two\u00a0 spaces\r\n\n\n\n",
    "p\u0430ypal",
    "jo@example.com",
    "call +44 20 7946 0958",
    "They did not recieve the parcel",
    "\u0627\u200f\u0628 \u0e01\u200b\u0e02",
    "Ã\u200b¶",
    "\x01\x02",
    "&nbsp;",
    "<!-- a --> 4539 1488 0343 6467",
]


def texts(n: int = 60) -> list[str]:
    rng = random.Random(0)
    return [" ".join(rng.choices(PIECES, k=rng.randint(1, 4))) for _ in range(n)] + PIECES


def side() -> RowSet:
    rows = [*texts(), "", "Same words.", "same words", "Same words.", "same words"]
    labels = ["yes", "Yes ", "no", "n/a"] * len(rows)
    return RowSet(
        range(len(rows)),
        {"id": [str(n) for n in range(len(rows))], "text": rows, "label": labels[: len(rows)]},
        ("text",),
        "label",
    )


def everything() -> dict[str, object]:
    return {name: SETTINGS.get(name, True) for name in all_treatments()}


def test_every_file_of_the_folder_registers_a_treatment() -> None:
    files = {path.stem for path in Path(room.__file__).parent.glob("*.py")} - NOT_TREATMENTS
    used = {
        (one.text if isinstance(one, TextTreatment) else one.edits).__module__.rsplit(".", 1)[1]
        for one in all_treatments().values()
    }
    assert files == used


def test_no_two_have_the_same_place() -> None:
    orders = [one.order for one in all_treatments().values()]
    assert len(set(orders)) == len(orders)


@pytest.mark.parametrize("name", ROW)
def test_what_was_treated_is_left_as_it_is(name: str) -> None:
    chosen = plan_cleaning({name: SETTINGS.get(name, True)})
    changed = 0
    for text in texts():
        once, _ = clean_text(text, chosen)
        assert clean_text(once, chosen) == (once, ())
        changed += once != text
    assert changed


@pytest.mark.parametrize("name", ROW)
def test_its_pattern_matches_whatever_it_changes(name: str) -> None:
    one = all_treatments()[name]
    settings = parse_settings(one, SETTINGS.get(name, True))
    changed = [text for text in texts() if one.text(text, settings) != text]
    assert changed
    assert pc.all(pc.match_substring_regex(pa.array(changed), one.pattern)).as_py()


@pytest.mark.parametrize("name", ROW)
def test_plain_words_stay(name: str) -> None:
    for text in ("Plain words, 12 of them.", "Ein schöner Tag – 100 %", "日本語のテキスト", "x"):
        assert clean_text(text, plan_cleaning({name: SETTINGS.get(name, True)})) == (text, ())


@pytest.mark.parametrize("name", ROW)
def test_nothing_is_emptied(name: str) -> None:
    plan = plan_cleaning({name: SETTINGS.get(name, True)})
    for text in ("\u200b", "<br>", "&nbsp;", " "):
        assert clean_text(text, plan)[0].strip() or not text.strip()


@pytest.mark.parametrize("name", TABLE)
def test_a_side_treated_twice_is_a_side_treated_once(name: str) -> None:
    chosen = plan_cleaning({name: SETTINGS.get(name, True)})
    once, _ = clean_rows(side(), chosen)
    twice, changes = clean_rows(once, chosen)
    assert not changes
    assert twice == once


def test_the_order_in_which_they_are_asked_for_does_not_matter() -> None:
    asked = everything()
    first = clean_rows(side(), plan_cleaning(asked))
    for order in itertools.islice(itertools.permutations(asked), 0, 40_000, 9_999):
        assert clean_rows(side(), plan_cleaning({name: asked[name] for name in order})) == first


def test_all_together_are_done_once() -> None:
    chosen = plan_cleaning(everything())
    once, changes = clean_rows(side(), chosen)
    assert {change.treatment for change in changes} >= {*ROW, "copies", "missing", "labels", "rows"}
    assert clean_rows(once, chosen)[1] == []


@pytest.mark.parametrize("name", [*ROW, *TABLE, "everything"])
def test_the_log_tells_every_change(name: str) -> None:
    """Made by hand in the source, the changes of the log give the cleaned rows."""
    asked = everything() if name == "everything" else {name: SETTINGS.get(name, True)}
    before = side()
    after, changes = clean_rows(before, plan_cleaning(asked))
    rows: dict[int, dict[str, str | None]] = {
        row: {column: cells[row] for column, cells in before.columns.items()} for row in before.rows
    }
    hidden = set()
    for line in map(json.loads, map(log_line, changes)):
        row, column = line["row"], line["column"]
        if column is None:
            removed = rows.pop(row)
            assert removed.keys() <= line["before"].keys()
            for name, cell in line["before"].items():
                assert (row, name) in hidden or cell == removed.get(name)
        elif "reversible" in line:
            hidden.add((row, column))
        else:
            assert rows[row].get(column) == line["before"]
            rows[row][column] = line["after"]
    assert list(rows) == list(after.rows)
    for position, (row, cells) in enumerate(rows.items()):
        for column in after.columns:
            if (row, column) not in hidden:
                assert after.columns[column][position] == cells.get(column)
    assert bool(hidden) == ("mask" in asked)


def test_the_log_of_a_mask_holds_nothing_that_was_masked() -> None:
    _, changes = clean_rows(side(), plan_cleaning(everything()))
    written = "\n".join(map(log_line, changes))
    for secret in ("jo@example.com", "7946", "6467"):
        assert secret not in written
    assert "mask" in written


@pytest.mark.parametrize("name", list(all_treatments()))
def test_an_unknown_setting_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match="nonsense"):
        plan_cleaning({name: {"nonsense": 1}})
