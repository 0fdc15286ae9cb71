"""The committed pages are what the stored lines give, and the words of a figure are right."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
# In a process of its own: other tests register methods, of which a page is made.
WRITE = "import json, claims; print(json.dumps({str(p): t for p, t in claims.files().items()}))"


@pytest.fixture(scope="module")
def made() -> dict[Path, str]:
    command = [sys.executable, "-c", WRITE]
    shown = subprocess.run(command, cwd=BENCHMARKS, check=True, capture_output=True, text=True)
    return {Path(path): text for path, text in json.loads(shown.stdout).items()}


def lines(values: dict[str, list[float]], **more: Any) -> list[dict[str, Any]]:
    return [
        {"data": f"set {i % 7}", "rows": 100, "seed": i // 7, "arm": arm, "accuracy": value, **more}
        for arm, found in values.items()
        for i, value in enumerate(found)
    ]


def test_the_pages_are_those_of_the_lines(made: dict[Path, str]) -> None:
    there = {path for path in made if path.exists() and path.read_text("utf-8") == made[path]}
    stale = sorted(path.name for path in set(made) - there)
    assert not stale, "stale pages: run `python benchmarks/claims.py` and commit what it writes"


def test_no_page_is_left_without_a_claim(made: dict[Path, str]) -> None:
    folder = next(path.parent for path in made if path.parent.name == "results")
    assert {*folder.glob("*.md"), *folder.glob("*.svg")} <= set(made)


def test_pages_are_short_and_list_only_what_was_run(made: dict[Path, str]) -> None:
    for path, page in made.items():
        if path.name == "README.md":
            continue
        assert "not run" not in page, path.name
        assert not re.search(r"\bnan\b|None", page), path.name
        if path.suffix == ".md" and path.parent.name == "results":
            assert page.count("\n") <= 100, path.name
    assert sum(path.suffix == ".svg" for path in made) <= 5


def test_every_page_says_what_was_found_how_much_was_run_and_how_to_repeat_it(
    made: dict[Path, str],
) -> None:
    pages = [page for path, page in made.items() if path.parent.name == "results"]
    for page in (page for page in pages if page.startswith("#")):
        assert re.search(r"\n\nMeasured: (all|the only|[\d,]+ of) ", page)
        assert page.count("\n\n**") >= 1
        assert "## How to repeat it\n\n`" in page
        assert ".jsonl)" in page


def test_an_interval_is_over_sets_where_there_are_enough() -> None:
    from claims import paired

    found = paired(
        lines({"a": [0.5 + 0.01 * i for i in range(14)], "b": [0.5] * 14}), "accuracy", "a", "b"
    )
    assert found
    assert found.over == "14 pairs on 7 sets"
    # Means of two seeds a set, 0.035 to 0.095: t of seven values.
    assert found.value == pytest.approx(0.065)
    assert found.high - found.value == pytest.approx(2.447 * 0.0216 / math.sqrt(7), rel=1e-2)


def test_few_runs_have_no_interval_and_none_no_figure() -> None:
    from claims import paired

    two = paired(lines({"a": [0.5, 0.7], "b": [0.5, 0.5]}), "accuracy", "a", "b")
    assert two
    assert not two.has_interval
    assert two.words(100, 1, " points") == "+10.0 points (2 pairs on 2 sets)"
    assert paired(lines({"a": [0.5]}), "accuracy", "a", "b") is None


def test_a_ratio_is_the_geometric_mean() -> None:
    from claims import paired

    found = paired(
        lines({"a": [2.0, 8.0, 4.0], "b": [1.0, 1.0, 2.0]}), "accuracy", "a", "b", times=True
    )
    assert found
    assert found.value == pytest.approx(32 ** (1 / 3))
    assert found.low < found.value < found.high


def test_times_hours_apart_are_not_compared() -> None:
    from claims import paired

    some = lines({"a": [2.0, 8.0, 4.0], "b": [1.0, 1.0, 2.0]})
    for place, line in enumerate(some):
        # Of the second pair one run is four hours later.
        line["_when"] = f"2026-11-20T{10 + 4 * (place == 1)}:00:00+00:00"
    ratio = paired(some, "accuracy", "a", "b", times=True)
    assert ratio
    assert ratio.value == pytest.approx(2)
    difference = paired(some, "accuracy", "a", "b")
    assert difference
    assert difference.over.startswith("3 pairs")


def test_a_choice_is_not_timed_against_the_run_that_it_is() -> None:
    from claims import paired

    some = lines({"a": [2.0, 8.0, 4.0], "b": [2.0, 4.0, 2.0]})
    ratio = paired(some, "accuracy", "a", "b", times=True)
    assert ratio
    assert ratio.value == pytest.approx(2)


def test_fewer_sets_than_an_interval_needs_conclude_for_themselves() -> None:
    from claims import LEAST_SETS, Gap

    few, many = (Gap(2.0, 1.0, 3.0, "", sets) for sets in (LEAST_SETS - 1, LEAST_SETS))
    assert (few.verdict(), many.verdict()) == ("better on these sets", "better")
    assert Gap(2.0, -1.0, 3.0, "", 2).verdict() == "no difference shown"
    for sets in (0, 1):
        assert Gap(2.0, 1.0, 3.0, "", sets).verdict(nothing=4) == "worse on this set"


def test_a_share_is_shown_with_wilsons_interval() -> None:
    from claims import number, share

    assert share(42, 44, long=True) == "42 of 44 (95.5 %, 95 % CI 84.9–98.7)"
    assert share(0, 0) == ""
    assert number(-0.04, 1, sign=True) == "0.0"
    assert number(-1.25, 1) == "−1.2"


def test_a_table_has_no_row_and_no_column_without_a_figure() -> None:
    from claims import average, table

    made = table({"arm": "System"}, {"Accuracy": average("accuracy", 100), "Loss": average("loss")})
    text = made(lines({"a": [0.5], "b": [0.6]}))
    assert text.splitlines()[0] == "| System | Accuracy |"
    assert len(text.splitlines()) == 4
    assert made([]) == ""


def test_too_little_gets_no_page_and_an_interval_does() -> None:
    from claims import Claim, is_measured

    found = [{"x": 1}]
    claim = Claim("a", "Other", "A", "How.", lambda: [], lambda lines: "It is 3.")
    assert is_measured(claim, found, 5)
    assert not is_measured(claim, found, 6)
    assert not is_measured(claim, [], 0)
    shown = Claim("a", "Other", "A", "How.", lambda: [], lambda lines: "3 (95 % CI 2–4)")
    assert is_measured(shown, found, 100)


def test_what_is_best_on_the_other_sets_is_scored_on_the_set_that_is_left_out() -> None:
    """``steady`` is best on average; on set 0 alone ``lucky`` is far better."""
    from claims import CHOSEN, chosen_elsewhere

    found = lines({"plain": [0.5] * 14, "steady": [0.6] * 14, "lucky": [0.9, *[0.4] * 6] * 2})
    chosen = chosen_elsewhere(found, ["plain", "steady", "lucky"])
    assert {line["arm"] for line in chosen} == {CHOSEN}
    assert len(chosen) == 14
    assert {line["accuracy"] for line in chosen} == {0.6}
    # Without a cell of one arm the others of that cell do not count either.
    assert len(chosen_elsewhere(found[1:], ["plain", "steady", "lucky"])) == 13
