"""The checks of copies and leaks, against all pairs of small tables compared one by one."""

from __future__ import annotations

import numpy as np
import pytest
from tests.auditing.test_checks import sentences

from holdfast.auditing.check import Found
from holdfast.auditing.checks import all_checks
from holdfast.auditing.leaks import duplicate_groups, leaks_with
from holdfast.auditing.views import Copied, Rows
from holdfast.copies.gather import gather
from holdfast.copies.normalise import normalise
from holdfast.data.memory import table_from_texts


def view(texts: list[str], **others: list[str]) -> Copied:
    table = table_from_texts(texts)
    given = {name: table_from_texts(rows, source=f"{name}.csv") for name, rows in others.items()}
    return Copied(Rows(table), gather(table, given, 0))


def seen(name: str, copied: Copied) -> Found | None:
    return all_checks()[name](copied)


def planted(seed: int) -> tuple[list[str], list[str]]:
    """Rows and other rows with copies within and between, some written otherwise."""
    rng = np.random.default_rng(seed)
    words = [f"word{n}" for n in range(300)]
    rows = [" ".join(rng.choice(words, 12)) for _ in range(80)]
    other = [" ".join(rng.choice(words, 12)) for _ in range(40)]
    for at in rng.choice(80, 20, replace=False):
        rows[at] = rows[rng.integers(80)].upper() if rng.random() < 0.5 else rows[rng.integers(80)]
    for at in rng.choice(40, 10, replace=False):
        other[at] = f"{rows[rng.integers(80)]}!"
    return rows, other


@pytest.mark.parametrize("seed", range(5))
def test_groups_and_leaks_agree_with_all_pairs(seed: int) -> None:
    rows, other = planted(seed)
    copied = view(rows, test=other)
    forms, theirs = [normalise(t) for t in rows], [normalise(t) for t in other]
    groups = {tuple(n for n, f in enumerate(forms) if f == form) for form in forms}
    wanted = sorted(group for group in groups if len(group) > 1)
    assert [tuple(part.tolist()) for part in duplicate_groups(copied.gathered)] == wanted
    pairs = leaks_with(copied.gathered, "test")
    assert {*pairs.source.tolist()} == {n for n, f in enumerate(forms) if f in theirs}
    assert {*pairs.other.tolist()} == {n for n, f in enumerate(theirs) if f in forms}
    assert all(forms[a] == theirs[b] for a, b in zip(pairs.source, pairs.other, strict=True))
    assert (pairs.similarity == 1).all()
    found = seen("exact_duplicates", copied)
    assert found is not None
    assert found.finding.count == sum(map(len, wanted))


def test_copies_to_the_letter_are_counted_apart() -> None:
    rows = sentences(30)
    found = seen("exact_duplicates", view([*rows, rows[0], rows[1], rows[2].upper()]))
    assert found is not None
    assert "3 rows repeat another, 2 of them to the letter" in found.finding.because
    assert {(e.row, e.other_row) for e in found.examples} == {(0, 30), (1, 31), (2, 32)}


def test_near_copies_are_those_of_the_table_alone() -> None:
    rows = [f"{one} and {two}" for one, two in zip(sentences(30), sentences(30, 1), strict=True)]
    near = rows[4].replace(" and ", " or ")
    found = seen("near_duplicates", view([*rows, near], test=[rows[9].replace(" and ", " or ")]))
    assert found is not None
    assert set(found.finding.rows) == {4, 30}
    assert seen("near_duplicates", view(rows, test=[near])) is None


def test_a_leak_names_both_rows_and_how_many_of_the_other_file_stand_here() -> None:
    rows = sentences(30)
    found = seen("leaks", view(rows, test=[rows[7], "quite another thing", f"{rows[3]}?"]))
    assert found is not None
    assert found.finding.severity == "error"
    assert found.finding.score == pytest.approx(2 / 3)
    assert found.finding.rows == (3, 7)
    assert "2 of the 3 rows of test.csv (66.7%) stand here, 1 of them to the letter" in (
        found.finding.because
    )
    assert {(e.row, e.other_row, e.other_file) for e in found.examples} == {
        (7, 0, "test.csv"),
        (3, 2, "test.csv"),
    }


def test_a_copy_within_the_other_file_is_no_leak() -> None:
    assert seen("leaks", view(sentences(20), test=["one other row here"] * 3)) is None
