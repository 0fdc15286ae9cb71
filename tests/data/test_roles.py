"""The table of roles: which column plays a part, by its name or by what it holds."""

from __future__ import annotations

import pytest

from holdfast.data.columns.profile import Profile, column_key
from holdfast.data.columns.roles import (
    LABEL,
    SOURCE,
    TARGET,
    TEXT,
    ColumnRole,
    guess_column,
    usual_names,
    usual_pair,
)

ROLES = [TEXT, LABEL, SOURCE, TARGET]


def column(name: str, words: float = 1.0, distinct: int = 90, numeric: bool = False) -> Profile:
    return Profile(name, 100, 100, distinct, words, numeric, frozenset({"text"}))


CASES = [
    (
        TEXT,
        [column("review"), column("x")],
        "review",
        "the only column with a usual name for texts",
    ),
    (TEXT, [column("a", 12), column("b")], "a", "the only column of texts (12 words on average)"),
    (TEXT, [column("a", 12), column("b", 11)], None, "a b"),
    # Of two usual names neither is settled by another that holds more words.
    (TEXT, [column("title"), column("body"), column("x", 12)], None, "body title"),
    (TEXT, [column("summary", numeric=True), column("x", 5)], "x", "the only column of texts"),
    (TEXT, [column("a"), column("label")], "a", "no other column could be the text"),
    (
        TEXT,
        [column("a"), column("b", distinct=3)],
        "a",
        "the only column of words that mostly differ",
    ),
    (LABEL, [column("topic"), column("x", distinct=3)], "topic", "a usual name for labels"),
    (LABEL, [column("a"), column("x", distinct=3)], "x", "few distinct values (3)"),
    (LABEL, [column("topic", distinct=4), column("genre", 5)], "topic", "few distinct values (4)"),
    (LABEL, [column("a"), column("b")], None, "a b"),
    (SOURCE, [column("Source "), column("x", 20)], "Source ", "a usual name for sources"),
    (SOURCE, [column("article"), column("prompt", 9)], "prompt", "the only column of texts"),
    (TARGET, [column("tgt"), column("x", 20)], "tgt", "a usual name for targets"),
    (TARGET, [column("x", 20), column("z")], "x", "the only other column of texts"),
    (TARGET, [], None, ""),
]


@pytest.mark.parametrize(("role", "columns", "name", "because"), CASES)
def test_a_role_is_told_or_asked_for(
    role: ColumnRole, columns: list[Profile], name: str | None, because: str
) -> None:
    found = guess_column(role, {one.name: one for one in columns})
    assert found.name == name
    assert because in (found.because if name else " ".join(found.among))


@pytest.mark.parametrize("role", ROLES)
def test_usual_names_are_keys_and_stand_once(role: ColumnRole) -> None:
    assert [column_key(name) for name in role.usual] == list(role.usual)
    assert len(set(role.usual)) == len(role.usual)


@pytest.mark.parametrize("role", ROLES)
def test_a_column_alone_with_a_usual_name_is_chosen(role: ColumnRole) -> None:
    for name in role.usual:
        assert guess_column(role, {"qq": column("qq"), name: column(name)}).name == name


def test_pairs_and_names_are_found_whatever_their_spelling() -> None:
    pairs = [("a_b", "c"), ("d", "e")]
    assert usual_pair(pairs, ["D", "A B"], ["E", "C"]) == ("a_b", "c")
    assert usual_pair(pairs, ["D"], ["C"]) is None
    assert usual_names(["Tags", "NER tags"], ["ner_tags", "tags"]) == ["NER tags", "Tags"]


def test_the_likeliest_label_is_named_first() -> None:
    columns = [
        column("user", distinct=100),
        column("visits", distinct=9, numeric=True),
        column("constant", distinct=1),
        column("city", distinct=30),
        column("topic", distinct=4),
    ]
    ranked = sorted(columns, key=lambda one: one.label_rank)
    assert [one.name for one in ranked] == ["topic", "city", "visits", "user", "constant"]
