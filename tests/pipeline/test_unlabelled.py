"""Unlabelled texts: judged on rows that gave no label, kept or left alone, never a held-out one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import holdfast
from holdfast.core.errors import RecipeError
from holdfast.core.records import Ints
from holdfast.prepare import pseudo_labels
from holdfast.prepare.pseudo_labels import Vectors, _make_labeller, _measure_gain
from holdfast.prepare.rows import load_and_divide
from holdfast.recipe import parse

PLACES = ["Paris", "Rome", "Oslo", "Lima", "Cairo", "Tokyo", "Quito", "Delhi"]
THINGS = {
    "weather": ["will it rain in {}", "how warm is {} today", "is there snow in {}"],
    "flights": ["a plane ticket to {}", "when does the flight to {} leave", "airport of {}"],
    "food": ["where can I eat in {}", "a good restaurant in {}", "what do people cook in {}"],
    "hotels": ["a room for two in {}", "book a hotel in {}", "a cheap place to sleep in {}"],
}


def clusters(classes: int, labelled: int, texts: int, spread: float, seed: int = 0) -> Vectors:
    random = np.random.default_rng(seed)
    centres = random.normal(size=(classes, 20))
    marks = np.arange(labelled) % classes
    others = random.integers(0, classes, texts)
    every = np.concatenate([marks, others])
    vectors = centres[every] + spread * random.normal(size=(len(every), 20))
    return Vectors(vectors, marks, texts, np.zeros(0, np.int64), np.zeros(0), classes, seed)


def judged(known: Vectors, way: str) -> object:
    return _measure_gain(known, _make_labeller(way, known), np.arange(len(known.labels)))


def test_many_small_classes_gain_by_their_neighbours_and_are_kept() -> None:
    gain = judged(clusters(25, 75, 900, 0.95), "propagation")
    assert gain.is_accepted
    assert "its accuracy changes by +" in gain.summary


@pytest.mark.slow
def test_texts_that_say_nothing_are_not_kept() -> None:
    """Labels drawn by chance: nothing can be gained, so a gain above 0 would be a false one."""
    kept = 0
    for seed in range(8):
        known = clusters(3, 60, 200, 1.0, seed)
        random = np.random.default_rng(seed)
        noise = Vectors(
            random.normal(size=known.vectors.shape),
            known.labels,
            known.texts,
            known.added_labels,
            known.added_weights,
            3,
            seed,
        )
        for way in ("propagation", "self-training"):
            kept += judged(noise, way).is_accepted
    # One-sided 2.5 % of 16 is less than one.
    assert kept <= 2


@pytest.mark.parametrize("way", ["propagation", "self-training"])
def test_the_label_of_a_hidden_row_changes_nothing_that_is_told(way: str) -> None:
    known = clusters(6, 48, 120, 1.2)
    hidden = np.arange(48) % 4 == 0
    labels = np.where(hidden, -1, known.labels)
    first = _make_labeller(way, known)(labels, hidden)
    turned = np.where(hidden, (known.labels + 1) % 6, known.labels)
    vectors = known.vectors.copy()
    vectors[:48][hidden] += 5.0
    other = Vectors(
        vectors, turned, known.texts, known.added_labels, known.added_weights, 6, known.seed
    )
    second = _make_labeller(way, other)(labels, hidden)
    assert np.array_equal(first[0], second[0]) or way == "propagation"
    # A graph's neighbours may be other ones where a row has moved; its label is not read.
    again = _make_labeller(
        way, Vectors(known.vectors, turned, 120, known.added_labels, known.added_weights, 6, 0)
    )
    assert np.array_equal(again(labels, hidden)[0], first[0])
    assert float(first[1].sum()) <= (~hidden).sum() + 1e-9


@pytest.mark.parametrize("way", ["propagation", "self-training"])
def test_no_text_is_told_a_label_by_a_validation_row(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    known = clusters(4, 40, 60, 1.0)
    flipped = known.labels.copy()
    flipped[30:] = (flipped[30:] + 1) % 4
    rows = SimpleNamespace(classes=tuple("abcd"))
    data = SimpleNamespace(unlabelled="texts.csv", unlabelled_by=way)
    prepared: Any = SimpleNamespace(recipe=SimpleNamespace(data=data), rows=rows)

    def lot(labels: Ints) -> Any:
        monkeypatch.setattr(pseudo_labels, "has_classes", lambda _: True)
        monkeypatch.setattr(
            pseudo_labels, "_make_vectors", lambda *_: replace(known, labels=labels)
        )
        monkeypatch.setattr(
            pseudo_labels, "added_texts", lambda _, texts, labels, **more: (labels, more["weights"])
        )
        monkeypatch.setattr(
            pseudo_labels, "_with_choice", lambda *_: SimpleNamespace(extended=lambda lot: lot)
        )
        texts = ["text"] * known.texts
        return pseudo_labels.with_unlabelled(prepared, np.arange(30), np.arange(30, 40), texts)

    for one, other in zip(lot(known.labels), lot(flipped), strict=True):
        np.testing.assert_array_equal(one, other)


def rows_of(path: Path, places: list[str], with_labels: bool = True) -> Path:
    lines = ["text,label" if with_labels else "text"]
    for place in places:
        for label, forms in THINGS.items():
            lines += [
                f"{f.format(place)},{label}" if with_labels else f.format(place) for f in forms
            ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def recipe_of(source: Path, **data: object):
    return parse({"task": "text-classification", "data": {"path": str(source), **data}}, "recipe")


def test_texts_that_copy_a_row_of_any_side_are_left_out(tmp_path: Path) -> None:
    source = rows_of(tmp_path / "rows.csv", PLACES[:5])
    test = rows_of(tmp_path / "test.csv", PLACES[5:6])
    lot = rows_of(tmp_path / "lot.csv", PLACES[4:8], with_labels=False)
    lot.write_text(lot.read_text() + "Will it RAIN in Delhi\nan odd question\n\n")
    divided = load_and_divide(recipe_of(source, test=str(test), unlabelled=str(lot)))
    places = [text.split()[-1] for text in divided.unlabelled]
    assert "Cairo" not in " ".join(divided.unlabelled)
    assert "Tokyo" not in " ".join(divided.unlabelled)
    # Of the two spellings of one text one is there.
    assert len(places) == 2 * 12 + 1
    found = [f for f in divided.findings if f.check == "unlabelled_rows"]
    assert [f.count for f in found] == [24]
    assert "must not be learned from" in found[0].because


def test_the_test_file_and_faults_are_refused(tmp_path: Path) -> None:
    source = rows_of(tmp_path / "rows.csv", PLACES[:5])
    test = rows_of(tmp_path / "test.csv", PLACES[5:6])
    with pytest.raises(RecipeError, match="names the test rows"):
        load_and_divide(recipe_of(source, test=str(test), unlabelled=f"{tmp_path}/./test.csv"))
    other = tmp_path / "other.csv"
    other.write_text("words,more\na,b\n")
    with pytest.raises(RecipeError, match="no column 'text'"):
        load_and_divide(recipe_of(source, unlabelled=str(other)))
    joined = tmp_path / "joined.csv"
    joined.write_text(source.read_text().replace("\n", ",x\n").replace("label,x", "label,more"))
    bare = rows_of(tmp_path / "bare.csv", PLACES[6:8], with_labels=False)
    with pytest.raises(RecipeError, match="no column 'more'"):
        load_and_divide(
            recipe_of(joined, label="label", template="{text} {more}", unlabelled=str(bare))
        )
    with pytest.raises(holdfast.core.errors.DataError):
        load_and_divide(recipe_of(source, unlabelled=str(tmp_path / "nowhere.csv")))


@pytest.mark.slow
def test_a_run_says_what_it_made_of_them_and_repeats(tmp_path: Path) -> None:
    source = rows_of(tmp_path / "rows.csv", PLACES[:5])
    lot = rows_of(tmp_path / "lot.csv", PLACES[4:8], with_labels=False)
    settings = {"train.max_steps": 2, "train.threads": 1, "data.names": False}
    asked = {**settings, "data.unlabelled": str(lot)}
    plain = holdfast.train(source, out=tmp_path / "plain", settings=settings)
    left = holdfast.train(source, out=tmp_path / "left", settings=asked)
    told = {d["what"]: d for d in left.result["decisions"]}["unlabelled rows"]
    assert left.result["data"]["added"] == {}
    assert left.result["test"]["metrics"] == plain.result["test"]["metrics"]
    assert told["chosen"] == "none"
    assert "here 4" in told["because"]
    forced = {**asked, "data.unlabelled_by": "propagation"}
    used = holdfast.train(source, out=tmp_path / "used", settings=forced)
    assert used.result["data"]["added"] == {"unlabelled": 36}
    assert used.result["data"]["train"] == plain.result["data"]["train"]
    again = holdfast.train(tmp_path / "used" / "recipe.yaml", out=tmp_path / "again")
    assert again.result["test"]["metrics"] == used.result["test"]["metrics"]
    assert again.result["settings"]["data"]["unlabelled_by"] == "propagation"
