"""The page of recorded answers: what stands on it, how much, and how it behaves in a browser."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from holdfast.report import predictions_page as page
from holdfast.report.predictions_page import RecordedPredictions, RecordedRow, render_predictions


def row(n: int, text: str, said: str = "good", label: str = "good", **more: Any) -> RecordedRow:
    sure = more.pop("sure", 0.5 + (n % 50) / 100)
    chances = (("good", sure or 0.0), ("bad", 1 - (sure or 0.0)))
    known = {"right": said == label, "sure": sure, "chances": chances, "loss": float(n)}
    return RecordedRow(n, text, said, label, **{**known, **more})


def recorded(rows: list[RecordedRow], **more: Any) -> RecordedPredictions:
    known: dict[str, Any] = {"classes": ("bad", "good"), "of": len(rows)}
    task = more.pop("task", "text-classification")
    return RecordedPredictions(
        task, "tiny", "reviews.csv", "test", tuple(rows), **{**known, **more}
    )


@pytest.fixture
def look(read_page: Any, tmp_path: Path) -> Callable[[RecordedPredictions], Any]:
    def read(what: RecordedPredictions) -> Any:
        path = tmp_path / "page.html"
        path.write_text(render_predictions(what).html, encoding="utf-8")
        return read_page(path)

    return read


def test_it_says_how_many_rows_it_shows_and_how_many_are_right(
    look: Callable[[RecordedPredictions], Any],
) -> None:
    rows = [row(n, f"text {n}", label="bad" if n < 10 else "good") for n in range(40)]
    text = look(recorded(rows)).text
    assert "Predictions for all 40 test rows. Accuracy on them: 75 %." in text
    assert "This file contains texts from your data." in text
    assert "text 39" in text
    # Rows that were chosen for being hard say nothing of the share that is right.
    hard = look(recorded(rows, of=400, which="the hardest", chosen=True)).text
    assert "for 40 of 400 test rows, the hardest." in hard
    assert "Accuracy on them" not in hard


def test_a_page_that_would_be_too_large_shows_rows_that_were_drawn_evenly(
    monkeypatch: pytest.MonkeyPatch, look: Callable[[RecordedPredictions], Any]
) -> None:
    monkeypatch.setattr(page, "MAX_BYTES", 200_000)
    rows = [row(n, "é" * 900, label="bad" if n % 4 == 0 else "good") for n in range(700)]
    drawn = render_predictions(recorded(rows))
    assert 100_000 < len(drawn.html.encode()) <= 200_000
    assert drawn.of == 700
    assert f"for {drawn.rows} of 700 test rows, sampled uniformly. " in look(recorded(rows)).text
    assert render_predictions(recorded(rows)).html == drawn.html
    assert render_predictions(recorded(rows, seed=1)).html != drawn.html
    # Not the first of them.
    assert any(f"row {n}<" in drawn.html for n in range(400, 700))
    many = render_predictions(recorded([row(n, "a") for n in range(1200)]))
    assert many.rows <= page.MOST_ROWS


def test_words_that_carry_the_answer_are_marked_and_no_others(
    look: Callable[[RecordedPredictions], Any],
) -> None:
    rows = [
        row(0, "Great, not greatest; a GREAT <b>film</b>", sure=0.95),
        row(1, "a great bore", said="bad", label="bad"),
    ]
    found = look(recorded(rows, carried={"good": ["great", "a"], "bad": ["bore"]}))
    assert found.source.count("<mark>") == 5  # and one in the sentence that explains it
    assert "<mark>Great</mark>, not greatest; <mark>a</mark> <mark>GREAT</mark>" in found.source
    assert "a great <mark>bore</mark>" in found.source
    assert found.count("b") == 2
    assert "<mark>" not in look(recorded(rows)).source.partition("<script>")[0]


def test_tags_numbers_lists_and_written_texts_have_their_own_look(
    look: Callable[[RecordedPredictions], Any],
) -> None:
    words = ("Ada", "met", "Bob", ".")
    sentence = RecordedRow(
        3, "", ["B-PER", "O", "O", "O"], ["B-PER", "O", "B-LOC", "O"], False, 0.4, words=words
    )
    tags = look(recorded([sentence], task="token-classification", classes=("B-PER", "O")))
    assert "Ada B-PER met Bob O, labelled B-LOC ." in tags.text
    assert "at least one tag is wrong" in tags.text
    assert tags.source.count('class="tag is-right"') == 1
    assert tags.source.count('class="tag is-wrong"') == 1
    number = row(0, "x", said=3.25, label=1.5, right=None, sure=None, chances=(), error=1.75)  # type: ignore[arg-type]
    shown = look(recorded([number], classes=()))
    assert "3.250 label 1.500 error 1.750" in shown.text
    assert "Correct or wrong" not in shown.text
    several = row(0, "x", said=["a", "b"], label=[], right=False, chances=())  # type: ignore[arg-type]
    assert (
        "a, b · confidence 50.0 % label none" in look(recorded([several], classes=("a", "b"))).text
    )
    wrote = row(0, "ask", "said", "ref", right=None, sure=None, chances=(), start="before")
    text = look(recorded([wrote], task="seq2seq", classes=(), writes=True)).text
    assert "ask said reference ref base model before" in text
    left = row(0, "x", left="below the threshold of 0.9: ask a person")
    assert "ask a person" in look(recorded([left])).text


def test_only_pictures_inside_the_page_are_shown(
    look: Callable[[RecordedPredictions], Any],
) -> None:
    inside = row(0, "a.png", picture="data:image/jpeg;base64,AAAA")
    foreign = row(1, "b.png", picture="https://elsewhere.example/b.png")
    found = look(recorded([inside, foreign], task="image-classification"))
    assert found.count("img") == 1
    assert "elsewhere" not in found.source
    assert "img-src data:" in found.source
    assert "img-src" not in look(recorded([row(0, "a")])).source


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Iterator[Any]:
    contexts = []

    def go(what: RecordedPredictions, width: int = 1200, **options: Any) -> tuple[Any, list[str]]:
        path = tmp_path / f"page-{len(contexts)}.html"
        path.write_text(render_predictions(what).html, encoding="utf-8")
        size = {"width": width, "height": 900}
        context = browser.new_context(viewport=size, offline=True, **options)
        contexts.append(context)
        tab, troubles = context.new_page(), []
        tab.on("console", lambda m: troubles.append(m.text))
        tab.on("pageerror", lambda e: troubles.append(str(e)))
        tab.on("request", lambda r: r.url == path.as_uri() or troubles.append(r.url))
        tab.on("dialog", lambda d: (troubles.append(d.message), d.dismiss()))
        tab.goto(path.as_uri())
        return tab, troubles

    yield go
    for context in contexts:
        context.close()


def shown(tab: Any) -> list[str]:
    rows: list[str] = tab.evaluate(
        "[...document.querySelectorAll('.example')].filter(e => !e.hidden)"
        ".map(e => e.querySelector('.row').textContent)"
    )
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("marked", [True, False])
def test_hostile_texts_are_words_and_nothing_else(
    visit: Any, runs: ModuleType, marked: bool
) -> None:
    rows = [
        row(n, text, said=text, label=runs.HOSTILE[n - 1], left=text, start=text)
        for n, text in enumerate(runs.HOSTILE)
    ]
    names = tuple(runs.HOSTILE)
    carried = {name: [name[:3]] for name in names} if marked else {}
    hostile = recorded(rows, classes=names, carried=carried)
    hostile = dataclasses.replace(hostile, model=names[0], source=names[1], which=names[7])
    tab, troubles = visit(hostile)
    assert troubles == []
    assert len(shown(tab)) == len(rows)
    assert tab.locator("main script, main img, main iframe").count() == 0
    tab.locator("#find").fill("<script>alert")
    assert shown(tab)
    assert len(shown(tab)) < len(rows)
    tab.locator("#label").select_option(index=3)
    assert troubles == []
    for width in (1200, 390):
        tab.set_viewport_size({"width": width, "height": 900})
        assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_examples_are_found_by_words_class_verdict_and_certainty(visit: Any) -> None:
    rows = [
        row(0, "one fine day", sure=0.95),
        row(1, "a fine mess", label="bad", sure=0.97),
        row(2, "dull", said="bad", label="bad", sure=0.55),
        row(3, "so so", said="bad", label="good", sure=0.7),
    ]
    tab, troubles = visit(recorded(rows))
    told = tab.locator("#told")
    assert told.inner_text() == "4 of 4 examples are shown; 2 of 4 predictions are correct."
    tab.locator("#find").fill("FINE")
    assert sorted(shown(tab)) == ["row 0", "row 1"]
    tab.locator("#verdict").select_option("wrong")
    assert shown(tab) == ["row 1"]
    assert told.inner_text() == "1 of 4 examples are shown; 0 of 1 predictions are correct."
    tab.get_by_text("Show all").click()
    assert len(shown(tab)) == 4
    tab.locator("#label").select_option("good")
    assert sorted(shown(tab)) == ["row 0", "row 3"]
    tab.locator("#said").select_option("bad")
    assert shown(tab) == ["row 3"]
    tab.get_by_text("Show all").click()
    tab.locator("#level").select_option("sure")
    assert sorted(shown(tab)) == ["row 0", "row 1"]
    tab.get_by_text("Show all").click()
    tab.locator("#order").select_option("least")
    assert shown(tab) == ["row 2", "row 3", "row 0", "row 1"]
    tab.locator("#order").select_option("worst")
    assert shown(tab) == ["row 3", "row 2", "row 1", "row 0"]
    assert troubles == []


def test_answers_can_be_guessed_first_by_keyboard_alone(visit: Any) -> None:
    tab, troubles = visit(recorded([row(0, "first"), row(1, "second")]))
    tab.locator("#guess").focus()
    tab.keyboard.press("Space")
    assert tab.locator(".said:visible").count() == 0
    assert "right" not in tab.locator("#told").inner_text()
    tab.locator("#examples").focus()
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("Enter")
    assert tab.locator(".said:visible").count() == 1
    tab.keyboard.press("ArrowDown")
    assert tab.evaluate("document.activeElement.querySelector('.show') !== null")
    tab.locator(".show:visible").click()
    assert tab.locator(".said:visible").count() == 2
    assert troubles == []


def test_without_a_script_everything_is_there(visit: Any) -> None:
    tab, _ = visit(recorded([row(n, f"text {n}") for n in range(3)]), java_script_enabled=False)
    assert tab.locator(".example:visible").count() == 3
    assert tab.locator("#filters:visible").count() == 0
