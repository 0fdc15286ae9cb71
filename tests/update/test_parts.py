"""Parts of old rows in which no update may be worse: classes, and what the run had confirmed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from holdfast.analyses.slices.conditions import (
    Both,
    Category,
    Condition,
    HasWords,
    Language,
    Length,
    NumberRange,
    RowFacts,
    TextForm,
    condition_of,
)
from holdfast.plugins.update.procedure import subgroups_of_run

CONDITIONS = [
    Length(None, 3),
    Length(2, None),
    HasWords("not good"),
    TextForm("a question mark"),
    Language("en"),
    Category("shop", "north"),
    Category("shop", None),
    NumberRange("stars", 2.0, None),
    Both(Length(None, 3), TextForm("a question mark")),
]


@pytest.mark.parametrize("one", CONDITIONS, ids=str)
def test_a_condition_is_made_again_of_what_the_run_wrote_down(one: Condition) -> None:
    made = condition_of(one.to_json())
    assert made == one
    texts = ("is it not good ?", "why ?", "so it is")
    columns = {"shop": ("north", None, "south"), "stars": ("3", "x", "1.5")}
    facts = RowFacts(3, texts, columns)
    assert made is not None
    np.testing.assert_array_equal(made.holds(facts), one.holds(facts))


@pytest.mark.parametrize(
    "plain", [{"kind": "topic", "terms": ["a"], "of": 20}, {"kind": "form", "value": "gone"}, {}]
)
def test_what_went_with_its_run_is_none(plain: dict[str, Any]) -> None:
    assert condition_of(plain) is None
    length = Length(None, 3).to_json()
    assert condition_of({"kind": "both", "of": [length, plain]}) is None


def test_classes_confirmed_slices_and_groups_are_asked_about(make_table: Any) -> None:
    table = make_table(["why ?", "so it is", "and then ?"], ["a", "b", "a"])
    topic = {"kind": "topic", "words": "texts about: x", "terms": ["x"], "of": 20}
    result = {
        "slices": {
            "found": [
                {
                    "slice": "texts with a question mark",
                    "condition": TextForm("a question mark").to_json(),
                },
                {"slice": "texts about: x", "condition": topic},
            ]
        },
        "fairness": {
            "groups": {
                "findings": [
                    {"column": "shop", "group": "north"},
                    {"column": "shop", "group": "north"},
                    {"column": "gone", "group": "x"},
                ]
            }
        },
    }
    parts, lost = subgroups_of_run(result, table, {"shop": ["north", "south", "north"]})
    found = {(one.subgroup_type, one.name): one.mask.tolist() for one in parts}
    assert found == {
        ("class", "a"): [True, False, True],
        ("class", "b"): [False, True, False],
        ("slice", "texts with a question mark"): [True, False, True],
        ("group", "shop = north"): [True, False, True],
    }
    assert lost == ("texts about: x", "gone = x")
