"""The swap test against models whose bias is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from holdfast.analyses.fairness.forms import SwapQuery, make_forms
from holdfast.analyses.fairness.swap import confirm_swaps, find_swaps
from holdfast.augment.terms.lexicon import NAMES, built_in
from holdfast.data.table import Table

Make = Callable[..., Table]
AXES = [built_in()["origin"]]
SECOND = {n.casefold() for (o, _), each in NAMES.items() if o == "Hispanic" for n in each.split()}


def reviews(make_table: Make, n: int, seed: int = 0) -> Table:
    rng = np.random.default_rng(seed)
    names = [name for each in NAMES.values() for name in each.split()]
    texts = [f"{names[rng.integers(len(names))]} liked it, {k} times" for k in range(n)]
    return make_table(texts, ["no", "yes"] * (n // 2))


def biased(by: float, noise: float = 0.0) -> Callable[[Table], np.ndarray]:
    """P(yes) falls by ``by`` where a Hispanic name stands, and by chance with every name."""

    def ask(table: Table) -> np.ndarray:
        found = []
        for text in table.column("text"):
            words = [word.casefold() for word in text.split()]
            own = sum(hash_of(word) for word in words if word[0].isalpha()) * noise
            found.append(0.6 - by * any(word in SECOND for word in words) + own)
        yes = np.array(found)
        return np.stack([1 - yes, yes], axis=1)

    return ask


def hash_of(word: str) -> float:
    return float(np.random.default_rng([ord(c) for c in word]).normal())


def said(
    make_table: Make, ask: Callable[[Table], np.ndarray], tested: int = 200, **more: object
) -> dict:
    found = find_swaps(reviews(make_table, 200), AXES, SwapQuery(ask, ("no", "yes")), rows=200)
    test = reviews(make_table, tested, 1)
    (block,) = confirm_swaps(found, test, ask, **more)["axes"]  # type: ignore[arg-type]
    return block


def test_a_bias_is_found_named_and_measured(make_table: Make) -> None:
    block = said(make_table, biased(0.2))
    assert block["status"] == "changes"
    assert "Hispanic" in (block["from"], block["to"])
    assert abs(block["change"]["value"]) == pytest.approx(0.2)
    # P(yes) falls from 0.6 to 0.4, across a half, in every row.
    assert block["flipped"]["value"] == 1.0
    assert "liked it" in block["examples"][0]["from"]


def test_no_bias_is_settled_as_small(make_table: Make) -> None:
    block = said(make_table, biased(0.0))
    assert block["status"] == "small"
    assert block["change"]["value"] == 0.0
    assert block["flipped"]["value"] == 0.0


def test_a_few_rows_that_did_not_change_do_not_settle_it(make_table: Make) -> None:
    few, enough = (said(make_table, biased(0.0), tested=rows) for rows in (34, 36))
    assert (few["status"], few["rows_to_settle"]) == ("undecided", 36)
    assert enough["status"] == "small"


def test_names_that_differ_by_chance_are_no_bias_of_a_group(make_table: Make) -> None:
    """Each name moves the answer by its own chance; over rows alone the difference would be sure,
    over seven names of each gender and group it is not."""
    block = said(make_table, biased(0.0, noise=0.03))
    assert block["status"] == "undecided"
    assert block["rows_to_settle"] > block["rows"]


def test_the_start_models_own_bias_stands_beside(make_table: Make) -> None:
    block = said(make_table, biased(0.2), predict_untuned=biased(0.05))
    assert abs(block["start_model"]["value"]) == pytest.approx(0.05)


def test_rows_as_they_stand_are_not_asked_again(make_table: Make) -> None:
    table, asked = reviews(make_table, 60), []

    def ask(given: Table) -> np.ndarray:
        asked.extend(given.column("text"))
        return biased(0.1)(given)

    known = biased(0.1)(table)
    one = find_swaps(table, AXES, SwapQuery(ask, ("no", "yes")), rows=60, row_outcomes=known)
    assert not set(asked) & set(table.column("text"))
    assert (
        one.candidates == find_swaps(table, AXES, SwapQuery(ask, ("no", "yes")), rows=60).candidates
    )


def test_rows_without_terms_get_one_where_it_is_asked_for(make_table: Make) -> None:
    table = make_table(["works well"] * 20, ["no", "yes"] * 10)
    assert len(make_forms(table, AXES[0], 20, insert=False, seed=0)) == 0
    forms = make_forms(table, AXES[0], 20, insert=True, seed=0)
    assert len(forms) == 20
    assert not forms.has_terms.any()
    assert len(np.unique(forms.units)) == 14
    found = find_swaps(table, AXES, SwapQuery(biased(0.2), ("no", "yes")), rows=20)
    assert (found.candidates, found.axes_without_terms) == ((), ("origin",))
