"""The list: what is found, in which order, on which page."""

from __future__ import annotations

import random

from holdfast.core.records import Estimate
from holdfast.plugins.dashboard.runs import PAGE, Query, list_page, score_bar
from holdfast.plugins.dashboard.summary import Summary


def made(n: int) -> list[Summary]:
    rng = random.Random(0)
    metrics, labels = ("accuracy", "mae", ""), ("healthy", "overfit", "")
    return [
        Summary(
            f"run-{i}",
            rng.choice(("finished", "running")),
            rng.random(),
            task=rng.choice(("text-classification", "seq2seq")),
            metric=(metric := rng.choice(metrics)),
            score=Estimate(rng.random() if metric else None),
            verdict=rng.choice(labels),
        )
        for i in range(n)
    ]


def test_a_search_finds_the_runs_that_have_every_word() -> None:
    every = made(300)
    query = Query.of({"q": "RUN-1 over", "task": "seq2seq", "sort": "name"})
    wanted = [
        one.name
        for one in every
        if one.task == "seq2seq" and "run-1" in one.name and one.verdict == "overfit"
    ]
    page = list_page(every, query)
    assert page.total == len(wanted) > 3
    assert {one.name for one in page.runs} <= set(wanted)


def test_pages_part_the_list_without_gap_or_repeat() -> None:
    every = made(3 * PAGE + 7)
    names = []
    for number in range(1, 5):
        page = list_page(every, Query.of({"page": str(number), "sort": "when"}))
        assert page.first == len(names) + 1
        names += [one.name for one in page.runs]
    assert names == [one.name for one in sorted(every, key=lambda one: one.when)]
    assert list_page(every, Query.of({"page": "99"})).query.page == 4


def test_the_best_score_of_each_metric_stands_first_and_what_has_none_last() -> None:
    found = []
    every = made(200)
    for number in range(1, 5):
        found += list_page(every, Query.of({"sort": "-score", "page": str(number)})).runs
    right = [one.score.value for one in found if one.metric == "accuracy"]
    error = [one.score.value for one in found if one.metric == "mae"]
    assert right == sorted(right, reverse=True)
    assert error == sorted(error)
    first_without = next(i for i, one in enumerate(found) if not one.metric)
    assert not any(one.metric for one in found[first_without:])


def test_an_address_says_what_is_asked_and_nothing_more() -> None:
    query = Query.of({"q": "a b&c", "sort": "name", "page": "3", "state": "running"})
    assert query.address() == "/?q=a+b%26c&state=running&sort=name"
    assert query.address(page=2).endswith("&page=2")
    assert Query.of({"sort": "; drop", "page": "-1"}) == Query()


def test_a_bar_is_drawn_of_shares_alone() -> None:
    assert "whisker" in score_bar(Estimate(0.5, 0.4, 0.6), "accuracy")
    assert score_bar(Estimate(3.0), "accuracy") == ""
    assert score_bar(Estimate(0.5), "loss") == ""
    assert score_bar(Estimate(None), "accuracy") == ""
