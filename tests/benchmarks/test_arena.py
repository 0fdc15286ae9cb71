from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.control.choice import newest_unless_worse
from holdfast.core.errors import Defect
from holdfast.core.records import Snapshot


def cells(settings: int = 20, names: tuple[str, ...] = ("cr", "trec")) -> dict[Any, Any]:
    """Cells as a recording leaves them: settings differ a little, looks rise."""
    rng, found = np.random.default_rng(0), {}
    for name in names:
        base = rng.normal(0.8, 0.8, 100)
        for number in range(settings):
            looks = int(rng.integers(2, 6))
            margin = base + rng.normal(0, 0.1) + rng.normal(0, 0.5, (looks, 100))
            margin += np.linspace(-0.3, 0.1, looks)[:, None]
            found[number, name] = {
                "losses": np.log1p(np.exp(-2 * margin)).astype(np.float16),
                "correct": margin > 0,
                "steps": np.arange(looks) * 10,
                "rows_passed": np.arange(looks) * 160,
                "seconds": np.array(1.0),
            }
    return found


@pytest.fixture
def table(tmp_path: Path) -> Any:
    from arena.table import courses, pack

    np.savez_compressed(tmp_path / "arena.npz", **pack(cells()))
    return courses(tmp_path / "arena.npz")


def test_what_was_recorded_comes_back_from_the_file(table: Any) -> None:
    made = cells()
    assert set(table) == {"cr", "trec"}
    for (number, name), cell in made.items():
        course = table[name][number]
        np.testing.assert_array_equal(course.losses, cell["losses"].astype(float))
        np.testing.assert_array_equal(course.correct, cell["correct"])
        assert course.passes.tolist() == cell["rows_passed"].tolist()


def test_a_set_with_a_gap_ends_before_it(tmp_path: Path) -> None:
    from arena.table import courses, pack

    made = cells()
    del made[7, "trec"]
    np.savez_compressed(tmp_path / "arena.npz", **pack(made))
    assert [len(one) for one in courses(tmp_path / "arena.npz").values()] == [7, 7]


def test_a_replayed_run_keeps_the_look_that_a_run_keeps(table: Any) -> None:
    from arena.table import kept

    rng = np.random.default_rng(1)
    for course in table["cr"]:
        chosen = rng.integers(0, 100, size=(5, 30))
        for draw, look in zip(chosen, kept(course.losses[:, chosen]), strict=True):
            history = [snapshot(losses) for losses in course.losses[:, draw]]
            assert newest_unless_worse(history) == look


def snapshot(losses: Any) -> Snapshot:
    plain = dict.fromkeys(("refined_loss", "temperature", "learning_rate", "seconds"), 1.0)
    return Snapshot(
        step=0,
        epoch=0.0,
        examples_seen=0,
        phase="finetune",
        train_losses=np.zeros(1),
        valid_losses=losses,
        train_metrics={},
        valid_metrics={},
        gradient_norm=None,
        relative_update=None,
        distance=None,
        **plain,
    )


def test_searches_spend_what_they_train_and_take_what_they_tried(table: Any) -> None:
    from arena.searches import SEARCHES
    from arena.table import draws

    drawn = next(draws(table["cr"], 30, 1, looks=True))
    for name, search in SEARCHES.items():
        found = search(drawn, np.random.default_rng(0))
        again = search(drawn, np.random.default_rng(0))
        assert (found.taken, found.passes) == (again.taken, again.passes), name
        assert 0 < found.passes <= drawn.passes.sum()
        assert 0 <= found.taken < 20
    every = SEARCHES["random-64"](drawn, np.random.default_rng(0))
    assert every.passes == drawn.passes.sum()
    assert drawn.correct[every.taken].mean() == drawn.correct.mean(axis=1).max()
    halving = SEARCHES["asha-64"](drawn, np.random.default_rng(0))
    assert halving.passes < every.passes
    assert SEARCHES["default"](drawn, np.random.default_rng(0)).passes == drawn.passes[0]
    said = SEARCHES["ours-8"](drawn, np.random.default_rng(0)).said
    assert said is not None
    assert (
        said.measured
        == drawn.correct[SEARCHES["ours-8"](drawn, np.random.default_rng(0)).taken].mean()
    )


def test_a_division_of_the_cheap_arena_says_what_each_head_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its default against scikit-learn's discriminant, on classes that are easy to tell."""
    from arena import heads
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 200)
    vectors = rng.normal(0, 1, (600, 384)) + rng.normal(0, 0.25, (3, 384))[labels]
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    monkeypatch.setattr(heads, "features", lambda name: (vectors, labels))
    monkeypatch.setattr(heads, "settings", lambda: [heads.DEFAULT, (24, 0.5, ("neighbours", 5))])
    made = heads.division("cr", 0, train=90, pool=300)
    assert made.losses.shape == made.correct.shape == (2, 300)
    assert made.costs[0] == 1
    assert (made.losses >= 0).all()
    mixed = np.concatenate([np.arange(c * 200, c * 200 + 30) for c in range(3)])
    known = heads._Views(vectors[mixed], labels[mixed], vectors[150:200], 90)
    ours = known.logits(384, 1.0, ("discriminant", 0.3)).argmax(axis=1)
    peer = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3).fit(
        vectors[mixed], labels[mixed]
    )
    assert (ours == peer.predict(vectors[150:200])).mean() > 0.95


def test_each_setting_of_a_portfolio_adds_most_to_the_best_of_those_before() -> None:
    from arena.portfolio import greedy

    gains = np.random.default_rng(0).normal(-0.02, 0.02, (12, 3))
    gains[0] = 0
    found = greedy(gains, 4)
    assert found[0] == 0
    for size in range(1, len(found)):
        before = gains[found[:size]].max(axis=0)
        worth = [np.maximum(before, one).mean() for one in gains]
        assert found[size] == int(np.argmax(worth))
    pairs = [gains[[0, k]].max(axis=0).mean() for k in range(1, 12)]
    assert gains[found[:2]].max(axis=0).mean() == pytest.approx(max(pairs))
    assert greedy(np.array([[0.0, 0.0], [-0.1, 0.0], [-0.1, -0.2]]), 3) == [0]
    with pytest.raises(Defect):
        greedy(np.zeros((0, 3)), 2)


@pytest.mark.parametrize("search", ["random-8", "ours-8"])
def test_the_shipped_file_gives_the_printed_figures(search: str) -> None:
    from arena import record, replay
    from arena.table import SHIPPED, courses
    from cells import RESULTS, key, stored

    assert SHIPPED.stat().st_size < 2e6
    tables = courses()
    assert set(tables) == set(record.SETS)
    told = stored(RESULTS / f"{replay.NAME}.jsonl")
    cell = {"arena": "recorded", "rows": replay.ROWS, "data": "trec", "search": search}
    printed, found = told[key(cell)], replay.run_one(cell)
    assert printed["replays"] == found["replays"] >= 1000
    assert printed["settings"] == found["settings"] == len(tables["trec"])
    for name in ("score", "gain", "passes", "trials", "optimism", "printed", "covered"):
        assert found[name] == pytest.approx(printed[name], abs=1e-9), name
