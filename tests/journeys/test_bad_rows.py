"""Rows that a task cannot learn from: an error that helps, or a finding that counts them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.prepare.rows import load_and_divide
from holdfast.recipe import Recipe, override

ROWS = 40
Row = dict[str, Any]


def text(n: int, words: int = 8) -> str:
    return " ".join(
        "".join(chr(97 + (n * 31 + k * 7) // 26**j % 26) for j in range(3)) for k in range(words)
    )


def chat(*turns: tuple[str, str]) -> Row:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def good(n: int) -> Row:
    return chat(("user", text(n)), ("assistant", text(n, 3)))


def pair(n: int) -> Row:
    return {"dialogue": text(n, 12), "summary": text(n + 500, 4)}


REFUSED: dict[str, tuple[Callable[[int], Row], str, str]] = {
    "targets all empty": (lambda n: {**pair(n), "summary": ""}, "source and a target", "--text"),
    "roles out of order": (
        lambda n: chat(("assistant", text(n)), ("user", text(n))),
        "roles out of order",
        "role",
    ),
    "no answer": (lambda n: chat(("user", text(n))), "without an assistant message", "assistant"),
    "empty answers": (
        lambda n: chat(("user", text(n)), ("assistant", " ")),
        "empty answer",
        "chats",
    ),
    "unknown roles": (
        lambda n: chat(("user", text(n)), ("robot", "hm")),
        "in row 0 the role 'robot' is unknown (known: system, user, assistant, tool",
        "role",
    ),
    "parts without text": (
        lambda n: {
            "messages": [
                {"role": "user", "content": [{"type": "image", "url": f"{n}.png"}]},
                {"role": "assistant", "content": text(n)},
            ]
        },
        "in row 0 a part of type 'image' has no text",
        "role",
    ),
    "instructions without answers": (
        lambda n: {"instruction": text(n), "output": ""},
        "empty answer",
        "--label",
    ),
}


def write(folder: Path, row: Callable[[int], Row]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row(n)) + "\n" for n in range(ROWS)))
    return path


@pytest.mark.parametrize("name", REFUSED)
def test_rows_that_teach_nothing_are_refused_with_a_remedy(
    tmp_path: Path, holdfast: Any, name: str
) -> None:
    row, rule, remedy = REFUSED[name]
    path = write(tmp_path, row)
    done = holdfast("train", path, "--model", "owner/unknown-model", "--quiet")
    assert done.code == 2, done.err
    what, *then = done.err.strip().splitlines()
    assert rule in what
    assert remedy in " ".join(then)
    assert sorted(tmp_path.iterdir()) == [path]


def test_messages_without_any_template_ask_for_one(
    tmp_path: Path, tiny_llama: Path, holdfast: Any
) -> None:
    done = holdfast("train", write(tmp_path, good), "--model", tiny_llama, "--quiet")
    assert done.code == 2, done.err
    assert "data.template" in done.err
    assert "chatml" in done.err


FOUND: dict[str, tuple[Callable[[int], Row], str, int]] = {
    "some targets empty": (
        lambda n: {**pair(n), **({"summary": ""} if n < 5 else {})},
        "missing_target",
        5,
    ),
    "some targets are their source": (
        lambda n: {**pair(n), **({"summary": text(n, 12)} if n < 6 else {})},
        "target_is_source",
        6,
    ),
    "some targets begin like their source": (
        lambda n: {**pair(n), **({"summary": text(n, 6)} if n < 7 else {})},
        "target_begins_like_source",
        7,
    ),
    "some roles out of order": (
        lambda n: chat(("user", "a"), ("user", "b"), ("assistant", "c")) if n < 4 else good(n),
        "roles_out_of_order",
        4,
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_rows_that_may_teach_the_wrong_thing_are_counted(tmp_path: Path, name: str) -> None:
    row, check, count = FOUND[name]
    settings = [f"data.path={write(tmp_path, row)}", "model.name=owner/unknown-model"]
    found = {one.check: one for one in load_and_divide(override(Recipe(), settings)).findings}
    assert found[check].count == count, sorted(found)
    assert found[check].remedy


def test_a_class_alone_and_a_path_outside_are_refused(tmp_path: Path, holdfast: Any) -> None:
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path / "pictures"
    for n in range(4):
        path = folder / "cat" / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.new("RGB", (8, 8), (n * 40, 0, 0)).save(path)
    alone = holdfast("train", folder, "--quiet")
    assert (alone.code, "at least two subfolders" in alone.err) == (2, True), alone.err
    image.new("RGB", (8, 8)).save(tmp_path / "outside.png")
    table = folder / "table.csv"
    lines = [f"cat/{n}.png,{'ab'[n % 2]}" for n in range(4)]
    table.write_text("\n".join(["path,label", *lines, "../outside.png,a"]) + "\n")
    outside = holdfast("train", table, "--task", "image-classification", "--quiet")
    assert (outside.code, "row 4" in outside.err) == (2, True), outside.err
    assert "outside the table's folder" in outside.err
