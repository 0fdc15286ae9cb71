"""What rows look like: every form by its columns, and classification wherever there is a doubt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.errors import DataError
from holdfast.data.columns.shape import RowsShape, detect_shape
from holdfast.data.source import read_first_batch

WORDS = ["red", "blue", "green", "small", "large", "old", "new", "fine"]
TURNS = [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}]


def text(n: int, words: int = 8) -> str:
    """A text that no other number has."""
    return " ".join([f"no{n}", *(WORDS[(n * 7 + i * 3) % 8] for i in range(words - 1))])


def shape(tmp_path: Path, columns: dict[str, Any], n: int = 60, **named: Any) -> RowsShape:
    path = tmp_path / "rows.jsonl"
    rows = [{name: make(i) for name, make in columns.items()} for i in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return detect_shape(read_first_batch(path, None, None), **named)


def label(n: int) -> str:
    return ("good", "bad", "odd")[n % 3]


def short(n: int) -> str:
    return text(n, 4)


FORMS: dict[str, tuple[dict[str, Any], str]] = {
    "chats": ({"messages": lambda n: TURNS, "id": int}, "chat"),
    "shared chats": ({"conversations": lambda n: [{"from": "human", "value": "a"}]}, "chat"),
    "instructions": ({"instruction": text, "input": lambda n: "", "output": label}, "instruction"),
    "kinds of instruction": (
        {"instruction": text, "response": text, "category": label},
        "instruction",
    ),
    "prompts": ({"prompt": text, "completion": short}, "prompt"),
    "summaries": ({"id": str, "dialogue": text, "summary": short}, "pair"),
    "questions": ({"question": text, "table_id": label, "sql": text}, "pair"),
    "source and target": ({"source": text, "target": text}, "pair"),
    "two unnamed texts": ({"first": text, "second": short}, "pair"),
    "one text": ({"text": text}, "text"),
    "one text with ids": ({"id": int, "story": text}, "text"),
    "rendered": ({"text": lambda n: f"<s>[INST] {text(n)} [/INST] {text(n)} </s>"}, "text"),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_columns_say_the_form(tmp_path: Path, name: str) -> None:
    columns, form = FORMS[name]
    found = shape(tmp_path, columns)
    assert (found.form, bool(found.because)) == (form, True), found


CLASSES: dict[str, dict[str, Any]] = {
    "text and label": {"text": text, "label": label},
    "a pair and its label": {"premise": text, "hypothesis": text, "label": label},
    "question and answer with a label": {"question": text, "answer": text, "label": label},
    "prompt and answer with a label": {"prompt": text, "response": text, "label": label},
    "title, text and subject": {"title": short, "text": text, "subject": label},
    "summary and score": {"text": text, "summary": short, "score": lambda n: n % 5},
    "target of classes": {"source": text, "target": label},
    "text and number": {"text": text, "score": lambda n: n + 0.25},
    "dialogue with a topic": {"dialogue": text, "topic": label},
    "dialogue, summary and topic": {"dialogue": text, "summary": text, "topic": label},
    "chats with a label": {"messages": lambda n: TURNS, "text": text, "label": label},
    "texts of like length": {"first": text, "second": text},
    "label of ids": {"text": text, "label": lambda n: f"id{n}"},
    "numbers alone": {"a": int, "b": int},
    "no words": {"word": lambda n: WORDS[n % 8]},
}


@pytest.mark.parametrize("name", CLASSES)
def test_in_doubt_it_is_classification(tmp_path: Path, name: str) -> None:
    assert shape(tmp_path, CLASSES[name]).form == "classes"


@pytest.mark.parametrize(
    ("columns", "way"),
    [
        ({"prompt": text, "chosen": text, "rejected": short}, "--text prompt --label chosen"),
        ({"Chosen": lambda n: TURNS, "Rejected": lambda n: TURNS}, "data.messages=Chosen"),
    ],
)
def test_preferences_are_no_classes(tmp_path: Path, columns: dict[str, Any], way: str) -> None:
    with pytest.raises(DataError, match="preferences") as caught:
        shape(tmp_path, columns)
    assert way in caught.value.remedy


def test_judged_answers_are_neither_classes_nor_answers(tmp_path: Path) -> None:
    columns = {"prompt": text, "completion": short, "label": lambda n: n % 2 == 0}
    with pytest.raises(DataError, match="unpaired preference data") as caught:
        shape(tmp_path, columns)
    assert "--text completion --label label" in caught.value.remedy
    assert shape(tmp_path, columns, text=["completion"], label="label").form == "classes"
    several = {**columns, "label": lambda n: "abc"[n % 3]}
    assert shape(tmp_path, several).form == "classes"


def test_a_named_answer_of_preferences_is_learned(tmp_path: Path) -> None:
    columns = {"prompt": text, "chosen": text, "rejected": short}
    found = shape(tmp_path, columns, text=["prompt"], label="chosen")
    assert found.form in ("pair", "instruction", "prompt")
    assert found.target == "chosen"


def test_a_named_label_of_texts_is_a_target_and_one_of_classes_is_not(tmp_path: Path) -> None:
    columns = {"body": text, "gist": short, "kind": label, "mark": lambda n: n * 1.5}
    forms = {name: shape(tmp_path, columns, label=name).form for name in ("gist", "kind", "mark")}
    assert forms == {"gist": "pair", "kind": "classes", "mark": "classes"}


def test_a_named_text_alone_is_plain_text_only_where_nothing_else_is_left(tmp_path: Path) -> None:
    assert shape(tmp_path, {"story": text}, text=["story"]).form == "text"
    assert shape(tmp_path, {"story": text, "kind": label}, text=["story"]).form == "classes"


def test_a_named_column_that_is_not_there_is_left_to_the_reader(tmp_path: Path) -> None:
    assert shape(tmp_path, {"text": text, "label": label}, label="lable").form == "classes"


@pytest.mark.parametrize(
    ("file", "form"),
    [
        ("samsum/train.jsonl.gz", "pair"),
        ("dialogsum/test.jsonl.gz", "pair"),
        ("text2code/wikisql_train.jsonl.gz", "pair"),
        ("text2code/spider_dev.jsonl.gz", "pair"),
        ("instructions/train.jsonl.gz", "instruction"),
    ],
)
def test_real_files_that_are_to_be_written(shared_data: Path, file: str, form: str) -> None:
    assert detect_shape(read_first_batch(shared_data / file, None, None)).form == form


@pytest.mark.parametrize("folder", ["cr", "mr", "trec", "banking77", "ai_text"])
def test_real_files_of_classes(shared_data: Path, folder: str) -> None:
    for path in sorted((shared_data / folder).iterdir()):
        if path.name != "README.md":
            assert detect_shape(read_first_batch(path, None, None)).form == "classes", path


def test_a_csv_is_looked_into_though_its_reader_begins_with_the_columns_alone(
    tmp_path: Path,
) -> None:
    path = tmp_path / "rows.csv"
    lines = [f'"{text(i, 30)}","{text(i + 1, 8)}"' for i in range(60)]
    path.write_text("\n".join(["dialogue,summary", *lines]), encoding="utf-8")
    raw = read_first_batch(path, None, None)
    assert len(raw.table) == 60
    assert detect_shape(raw).form == "pair"
