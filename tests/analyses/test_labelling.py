"""Which rows to label next, how sure a model is of them, and what labels say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression

from holdfast.core.errors import DataError
from holdfast.plugins.labelling.labels import (
    LabelRule,
    label_rule,
    resolve_labels,
    rule_from_predictions,
)
from holdfast.plugins.labelling.sampling import (
    EVEN_SHARE,
    MIN_LABELS,
    RIDGE,
    C,
    LabelPool,
    center_and_scale,
    next_rows,
    order_keys,
    prediction_uncertainty,
    random_sample_accuracy,
    select_informative,
    update_probabilities,
)
from holdfast.plugins.store.records import Feedback


def rows(n: int, width: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n)
    middles = rng.standard_normal((3, width))
    return center_and_scale(middles[y] + 0.8 * rng.standard_normal((n, width))), y


def variance(x: np.ndarray, weight: np.ndarray, known: list[int]) -> float:
    """The mean variance over all rows of a head that learned from some, worked out anew."""
    x = np.column_stack([x, np.ones(len(x))]).astype(float)
    taught = RIDGE * np.eye(x.shape[1])
    for at in known:
        taught += weight[at] * np.outer(x[at], x[at])
    inverse = np.linalg.inv(taught)
    return float(np.mean([w * row @ inverse @ row for w, row in zip(weight, x, strict=True)]))


def test_each_row_is_the_one_that_lowers_the_mean_variance_most() -> None:
    x, _ = rows(40)
    rng = np.random.default_rng(1)
    doubt = rng.uniform(0.05, 0.9, size=40)
    known = np.zeros(40, bool)
    known[[3, 17]] = True
    free = rng.uniform(size=40) < 0.8
    found = select_informative(x, doubt, known, free, 6)
    taken = [3, 17]
    for at in found:
        open_ = [k for k in range(40) if free[k] and k not in taken]
        best = min(open_, key=lambda k: variance(x, doubt, [*taken, k]))
        assert at == best
        taken.append(int(at))


def test_no_copy_of_a_labelled_or_chosen_row_is_chosen() -> None:
    x, _ = rows(30)
    twice = np.concatenate([x, x])
    known = np.zeros(60, bool)
    known[:5] = True
    found = select_informative(twice, np.full(60, 0.5), known, np.ones(60, bool), 60)
    assert sorted(at % 30 for at in found) == list(range(5, 30))


def test_vectors_of_any_width_and_size_give_a_queue() -> None:
    rng = np.random.default_rng(0)
    wide = center_and_scale(1e3 * rng.standard_normal((50, 700)))
    found = select_informative(wide, np.full(50, 0.5), np.zeros(50, bool), np.ones(50, bool), 5)
    assert len(set(found.tolist())) == 5
    same = center_and_scale(np.ones((4, 3)))
    found = select_informative(same, np.zeros(4), np.zeros(4, bool), np.ones(4, bool), 9)
    assert sorted(found.tolist()) == [0, 1, 2, 3]


def test_a_head_from_nothing_is_logistic_regression() -> None:
    x, y = rows(80)
    labels = np.where(np.arange(80) < 40, y, -1)
    even = np.full((80, 3), 1 / 3)
    found = update_probabilities(x, labels, even)
    # The penalty is on the constant too: the same as a column of ones without an intercept.
    ones = np.column_stack([x, np.ones(80)])
    model = LogisticRegression(C=C, fit_intercept=False, max_iter=5000, tol=1e-8)
    theirs = model.fit(ones[:40], y[:40]).predict_proba(ones)
    assert np.abs(found - theirs).max() < 0.01


def test_what_was_served_stands_until_labels_say_otherwise() -> None:
    x, y = rows(120)
    served = np.full((120, 3), 0.05)
    served[np.arange(120), (y + 1) % 3] = 0.9
    assert (update_probabilities(x, np.full(120, -1), served) == served).all()
    labels = np.where(np.arange(120) < 60, y, -1)
    after = update_probabilities(x, labels, served)
    # A line through its vectors alone tells more rows of the others right than those served, which
    # are all wrong.
    assert (served.argmax(1) == y).mean() == 0
    assert (after[60:].argmax(1) == y[60:]).mean() > 0.5
    assert np.allclose(after.sum(1), 1)


def test_doubt_is_none_where_one_class_is_certain_and_largest_where_two_are_alike() -> None:
    p = np.array([[1, 0, 0], [0.5, 0.5, 0], [0.5, 0.3, 0.2], [0.9, 0.05, 0.05]], dtype=float)
    found = prediction_uncertainty(p)
    assert found[0] == 0
    assert found.argmax() == 1
    assert found[2] > found[3] > 0
    assert found.max() <= 1


def pool(n: int, seed: int = 0) -> LabelPool:
    x, _ = rows(n, seed=seed)
    rng = np.random.default_rng(seed)
    place = order_keys([(f"{seed}", k) for k in range(n)])
    yes = np.ones(n, bool)
    return LabelPool(place, yes, yes, ~yes, rng.uniform(size=n), x)


def test_a_fifth_is_drawn_evenly_in_the_order_of_places_whatever_the_model_says() -> None:
    one = pool(300)
    found = next_rows(one, 50)
    even = [item.position for item in found if item.drawn == "uniform"]
    assert len(found) == 50
    assert len(even) == 10
    assert even == np.argsort(one.order_key)[:10].tolist()
    assert all(
        one.order_key[item.position] >= EVEN_SHARE for item in found if item.drawn == "chosen"
    )
    other = next_rows(replace(one, uncertainty=1 - one.uncertainty, vectors=None), 50)
    assert [item.position for item in other if item.drawn == "uniform"] == even
    assert {i.position for i in other} != {i.position for i in found}


def test_the_evenly_drawn_are_a_fair_sample_of_any_property() -> None:
    # A property of which the model is sure where it is wrong: chosen rows would not tell of it.
    wrong = np.random.default_rng(0).uniform(size=20_000) < 0.3
    place = order_keys([("stream", k) for k in range(20_000)])
    assert stats.kstest(place, "uniform").pvalue > 0.01
    shares = []
    for k in range(40):
        part = slice(500 * k, 500 * k + 500)
        doubt = np.where(wrong[part], 0.0, 1.0)
        yes = np.ones(500, bool)
        found = next_rows(LabelPool(place[part], yes, yes, ~yes, doubt), 100)
        even = [item.position for item in found if item.drawn == "uniform"]
        assert len(even) == 20
        shares.append(wrong[part][even].mean())
    assert abs(np.mean(shares) - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 800)


def test_rows_that_somebody_volunteered_are_drawn_evenly_all_the_same() -> None:
    one = pool(300)
    first = int(np.argmin(one.order_key))
    known = np.zeros(300, bool)
    known[first] = True
    found = next_rows(replace(one, labelled=known, unlabelled=~known), 20)
    assert found[0].position == first
    due = np.ones(300, bool)
    due[first] = False
    assert first not in {i.position for i in next_rows(replace(one, unlabelled_by_draw=due), 300)}


def test_where_one_kind_runs_out_the_other_goes_on_and_nothing_repeats() -> None:
    one = replace(pool(60), vectors=None)
    found = next_rows(one, 1000)
    assert sorted(item.position for item in found) == list(range(60))
    none = next_rows(
        replace(one, unlabelled_by_draw=np.zeros(60, bool), unlabelled=np.zeros(60, bool)), 5
    )
    assert none == ()
    blind = next_rows(replace(one, uncertainty=np.full(60, np.nan)), 10)
    assert {item.drawn for item in blind} == {"uniform", "chosen"}


def test_accuracy_of_few_rows_is_no_number() -> None:
    assert random_sample_accuracy(5, MIN_LABELS - 1).value is None
    found = random_sample_accuracy(8, 10)
    # SciPy's own Wilson interval.
    theirs = stats.binomtest(8, 10).proportion_ci(method="wilson")
    assert (found.value, found.low, found.high) == pytest.approx((0.8, theirs.low, theirs.high))


@pytest.mark.parametrize(
    ("rule", "label", "stored"),
    [
        (LabelRule("class", ("good", "Bad")), "good", "good"),
        (LabelRule("class", ("good", "Bad")), " BAD ", "Bad"),
        (LabelRule("class", ("0", "1")), 1, "1"),
        (LabelRule("class", ("a",), allow_new=True), "b", "b"),
        (LabelRule("several", ("a", "b")), ["b", "A", "b"], ["b", "a"]),
        (LabelRule("several", ("a", "b")), [], []),
        (LabelRule("number"), 1.5, 1.5),
        (LabelRule("tags", ("O", "B-PER")), ["O", "B-PER"], ["O", "B-PER"]),
        (LabelRule("text"), "a summary", "a summary"),
    ],
)
def test_labels_that_a_task_has_are_taken(rule: LabelRule, label: object, stored: object) -> None:
    assert rule.check(label, {"tokens": ["x", "y"]}) == stored


@pytest.mark.parametrize(
    ("rule", "label", "names"),
    [
        (LabelRule("class", ("good", "bad")), "godo", "Did you mean 'good'"),
        (LabelRule("class", ("good", "bad")), True, "is not a class"),
        (LabelRule("class", ("good", "bad")), "", "is not a class"),
        (LabelRule("class", ("Us", "US")), "us", "is not a class"),
        (LabelRule("several", ("a", "b")), "a", "is not a list"),
        (LabelRule("several", ("a", "b")), ["c"], "is not a class"),
        (LabelRule("number"), float("nan"), "is not a number"),
        (LabelRule("number"), 10**400, "is not a number"),
        (LabelRule("number"), True, "is not a number"),
        (LabelRule("number"), "1", "is not a number"),
        (LabelRule("tags", ("O",)), ["O"], "1 tags, and the row has 2 tokens"),
        (LabelRule("tags", ("O",)), ["O", "B-X"], "a tag that this model does not have"),
        (LabelRule("text"), "  ", "is not a text"),
    ],
)
def test_other_labels_are_refused(rule: LabelRule, label: object, names: str) -> None:
    with pytest.raises(DataError, match=names):
        rule.check(label, {"tokens": ["x", "y"]})


@pytest.mark.parametrize(
    ("column", "row"),
    [
        ("words", {"id": 7, "words": ["New York", "rains"]}),
        (None, {"id": "row 7", "words": ["New York", "rains"]}),
        ("words", {"id": ["a"], "words": "it rains"}),
        (None, {"text": "it rains"}),
    ],
)
def test_a_tag_for_each_token_whatever_its_column_is_called(
    column: str | None, row: dict[str, Any]
) -> None:
    rule = LabelRule("tags", ("O", "B-X"), column=column)
    assert rule.check(["O", "B-X"], row) == ["O", "B-X"]
    for wrong in (["O"], ["O", "O", "O"]):
        with pytest.raises(DataError, match="the row has 2 tokens"):
            rule.check(wrong, row)


def test_the_rule_follows_from_the_task_or_from_what_was_answered() -> None:
    assert label_rule("text-classification", ["a", "b"]) == LabelRule("class", ("a", "b"))
    assert label_rule("text-classification", None, "number").label_type == "number"
    assert label_rule("text-classification", ["a"], "several").label_type == "several"
    assert label_rule("token-classification", ["O"]).label_type == "tags"
    assert {label_rule(task, None).label_type for task in ("seq2seq", "causal-lm")} == {"text"}
    assert label_rule("image-classification", ["a"]).label_type == "class"
    half = {"a": 0.5, "b": 0.5}
    assert rule_from_predictions([(None, half), ("a", half)]) == LabelRule("class", ("a", "b"))
    assert rule_from_predictions([(["a"], half)]).label_type == "several"
    assert rule_from_predictions([(["O", "B"], None)]) == LabelRule("tags", ("B", "O"))
    assert rule_from_predictions([(1.5, None)]).label_type == "number"
    assert rule_from_predictions([("text", None)]).label_type == "text"


def said(who: str, label: str, at: float, index: int = 0, **more: object) -> Feedback:
    return replace(Feedback("r", index, label, who, at, id=int(at)), **more)  # type: ignore[arg-type]


def test_the_last_word_of_a_person_counts_and_no_models_word_replaces_it() -> None:
    found = resolve_labels(
        [
            said("ann", "a", 1),
            said("bob", "b", 2),
            said("ann", "b", 3),
            said("bot", "c", 4, source="model"),
            said("bot", "c", 1, 1, source="model"),
            said("ann", "a", 1, 2, drawn="uniform"),
            said("bob", "b", 2, 2),
        ]
    )
    assert [one.label for one in found.labels] == ["b", "c", "b"]
    assert found.labels[0].who == "ann"
    assert found.labels[2].drawn == "uniform"
    assert (found.replaced, found.several, found.disagreed) == (4, 2, 1)


def test_while_two_models_are_compared_two_of_five_are_drawn_evenly_of_those_that_differ() -> None:
    one = pool(300)
    rng = np.random.default_rng(9)
    unlike = (one.order_key >= EVEN_SHARE) & (one.order_key < 0.6) & (rng.random(300) < 0.3)
    found = next_rows(replace(one, differing=unlike, unlabelled=one.unlabelled & ~unlike), 40)
    ways = [item.drawn for item in found]
    assert [ways.count(way) for way in ("uniform", "unlike", "chosen")] == [8, 16, 16]
    drawn = [item.position for item in found if item.drawn == "unlike"]
    assert drawn == [at for at in np.argsort(one.order_key) if unlike[at]][:16]
    # They run out, and the others go on.
    few = next_rows(replace(one, differing=unlike & (np.cumsum(unlike) < 4)), 40)
    assert [item.drawn for item in few].count("unlike") == 3
    assert len(few) == 40
