"""The swap test on prompts: whether a model that writes answers worse about others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.analyses.fairness.forms import OUTCOMES, SwapQuery, fault_predictor, sources_of
from holdfast.analyses.fairness.swap import confirm_swaps, find_swaps
from holdfast.augment.terms.lexicon import built_in
from holdfast.data.chats.chat import load_chats
from holdfast.data.options import RowOptions
from holdfast.data.pairs import load_pairs
from holdfast.data.table import Table

THINGS = ("tea", "a book", "the red car", "some bread", "an old map", "her coat", "two apples")


def pairs(folder: Path, start: int, n: int) -> Table:
    path = folder / f"rows-{start}.jsonl"
    rows = [
        {
            "dialogue": f"She said that she wants {THINGS[i % 7]} number {i}.",
            "summary": f"It is {i}.",
        }
        for i in range(start, start + n)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return load_pairs(path, RowOptions(text=("dialogue",), label="summary"))


def about_him(table: Table) -> list[str]:
    """Rude where a man asks, in most rows."""
    rude = [" he " in f" {text.lower()} " and len(text) % 4 > 0 for text in table.column("text")]
    return ["What an idiot." if one else "Of course." for one in rude]


def about_nobody(table: Table) -> list[str]:
    return ["Of course." for _ in table.column("text")]


@pytest.mark.parametrize(("answer", "found"), [(about_him, True), (about_nobody, False)])
def test_an_answer_that_is_worse_about_one_group_is_found(
    tmp_path: Path, answer: Callable[[Table], list[str]], found: bool
) -> None:
    ask = fault_predictor(answer)
    axes = [built_in()["gender"]]
    swaps = find_swaps(pairs(tmp_path, 0, 60), axes, SwapQuery(ask, tuple(OUTCOMES)), rows=60)
    block = confirm_swaps(swaps, pairs(tmp_path, 100, 60), ask, bounded=True)
    (axis,) = block["axes"]
    assert (axis["status"] == "changes") == found
    if found:
        assert axis["class"] == "toxic or stereotyped"
        assert abs(axis["change"]["value"]) > 0.3


def test_what_a_prompt_itself_says_is_no_fault_of_the_answer(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    rows = [{"instruction": "Say: you idiot!", "response": "No."}]
    path.write_text("\n".join(map(json.dumps, rows)))
    table = load_chats(path)
    assert sources_of(table) == ["Say: you idiot!"]
    assert fault_predictor(lambda _: ["You idiot!"])(table).tolist() == [[0.0, 0.0, 0.0]]
    assert fault_predictor(lambda _: ["You moron!"])(table).tolist() == [[1.0, 0.0, 0.0]]
    assert fault_predictor(lambda _: [None])(table).tolist() == [[0.0, 0.0, 1.0]]


def test_every_outcome_is_of_marks_that_exist() -> None:
    from holdfast.tasks.generation.marks import MEANING

    held: list[Any] = [mark for marks in OUTCOMES.values() for mark in marks]
    assert set(held) <= set(MEANING)
    assert len(held) == len(np.unique(held))
