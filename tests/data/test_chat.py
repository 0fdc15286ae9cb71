"""Rows of every form become turns; what cannot be learned from is left out and counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.errors import DataError, RecipeError
from holdfast.data.chats.chat import chats_from_prompts, form_of, load_chats, read_row_turns
from holdfast.data.chats.turns import (
    NAMED_TEMPLATES,
    TEMPLATE_MARKS,
    choose_template,
    detect_template,
    parse_rendered,
)
from holdfast.data.options import RowOptions
from holdfast.data.table import Table

Write = Callable[..., Path]
QUESTION = {"role": "user", "content": "Why?"}
ANSWER = {"role": "assistant", "content": "Because."}
SYSTEM = {"role": "system", "content": "Be brief."}
CHAT = [
    SYSTEM,
    QUESTION,
    ANSWER,
    {"role": "user", "content": "And?"},
    {"role": "assistant", "content": "So."},
]


@pytest.fixture
def rows(tmp_path: Path) -> Write:
    def write(rows: list[dict[str, Any]], name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


def one(table: Table) -> list[dict[str, str]]:
    (turns,) = read_row_turns(table)
    return turns


def counts(table: Table) -> dict[str, int]:
    return {finding.check: finding.count for finding in table.findings}


def test_messages_are_taken_as_they_stand(rows: Write) -> None:
    table = load_chats(rows([{"messages": CHAT, "id": 7}]))
    assert one(table) == CHAT
    assert form_of(table) == "messages"
    assert table.column("text") == ["Why?\nAnd?"]
    assert table.columns.text == ("messages",)


def test_a_named_column_of_from_and_value_is_the_same_chat(rows: Write) -> None:
    told = [
        {
            "from": {"system": "system", "user": "human", "assistant": "gpt"}[t["role"]],
            "value": t["content"],
        }
        for t in CHAT
    ]
    assert one(load_chats(rows([{"talk": told}]), RowOptions(messages="talk"))) == CHAT


def test_messages_in_parquet_and_in_a_csv_cell_are_the_same_chat(tmp_path: Path) -> None:
    import csv

    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"messages": [CHAT]}), tmp_path / "a.parquet")
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["messages"], [json.dumps(CHAT)]])
    for name in ("a.parquet", "a.csv"):
        assert one(load_chats(tmp_path / name)) == CHAT


@pytest.mark.parametrize(
    ("row", "question"),
    [
        ({"instruction": "Add.", "input": "1 2", "output": "3"}, "Add.\n\n1 2"),
        ({"instruction": "Add.", "input": "", "output": "3"}, "Add."),
        ({"prompt": "Add.", "completion": "3"}, "Add."),
        ({"question": "Add.", "answer": "3"}, "Add."),
    ],
)
def test_instructions_and_prompts_are_one_question_and_its_answer(
    rows: Write, row: dict[str, str], question: str
) -> None:
    table = load_chats(rows([row]))
    assert one(table) == [
        {"role": "user", "content": question},
        {"role": "assistant", "content": "3"},
    ]
    again = load_chats(rows([row]), RowOptions(text=table.columns.text, label=table.columns.label))
    assert (read_row_turns(again), form_of(again)) == (read_row_turns(table), form_of(table))


@pytest.mark.parametrize("names", [("dialogue", "summary"), ("article", "highlights")])
def test_a_text_and_what_is_to_be_written_of_it_are_a_question_and_its_answer(
    rows: Write, names: tuple[str, str]
) -> None:
    told = dict(zip(names, ("A: Lunch? B: At one.", "They meet at one."), strict=True))
    table = load_chats(rows([told]))
    assert [turn["content"] for turn in one(table)] == list(told.values())
    assert form_of(table) == "prompt"
    # A list of turns is a chat, whatever stands beside it.
    table = load_chats(rows([{"dialogue": CHAT, "summary": "x"}]))
    assert one(table) == CHAT


def test_a_prompt_may_itself_be_a_list_of_turns(rows: Write) -> None:
    row = {"prompt": [SYSTEM, QUESTION], "completion": [ANSWER]}
    assert one(load_chats(rows([row]))) == [SYSTEM, QUESTION, ANSWER]


def test_a_template_of_columns_makes_the_question(rows: Write) -> None:
    row = {"q": "How many?", "table": "cities", "code": "len(df)"}
    table = load_chats(rows([row]), RowOptions(template="{q} <context> {table}", label="code"))
    assert one(table)[0]["content"] == "How many? <context> cities"


def test_plain_text_stays_plain_and_a_text_file_is_its_passages(
    rows: Write, tmp_path: Path
) -> None:
    table = load_chats(rows([{"text": "Once upon a time."}, {"text": " "}]))
    assert form_of(table) == "text"
    assert read_row_turns(table) == [[]]
    assert counts(table) == {"empty_text": 1}
    blank = rows([{"text": " "}, {"text": None}])
    with pytest.raises(
        DataError, match=r"no usable row: 2 rows without text.*\n  Add texts, or name"
    ):
        load_chats(blank)
    # Each row of a prediction has one, of an empty text too.
    assert len(load_chats(blank, RowOptions(need_label=False))) == 0
    (tmp_path / "book.txt").write_text("One\nline\n\n \nTwo\n\n", encoding="utf-8")
    assert load_chats(tmp_path / "book.txt").column("text") == ["One\nline", "Two"]


@pytest.mark.parametrize("name", sorted(TEMPLATE_MARKS))
def test_text_rendered_with_a_known_template_is_parsed_back(name: str, rows: Write) -> None:
    """The oracle is Jinja itself: what a named template writes is read back to the same turns."""
    import jinja2

    chat = CHAT[1:] if name == "gemma" else CHAT
    text = (
        jinja2.Environment()
        .from_string(NAMED_TEMPLATES[name])
        .render(messages=chat, bos_token="<s>", eos_token="</s>")
    )
    assert detect_template([text]) == name
    table = load_chats(rows([{"text": text}]))
    assert one(table) == chat
    assert form_of(table) == name


def test_llama_2_text_as_it_is_published_is_parsed_back() -> None:
    text = (
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nWhy? [/INST] Because. </s>"
        "<s>[INST] And? [/INST] So. </s>"
    )
    assert parse_rendered(text, "llama2") == CHAT
    assert parse_rendered("no marks", "llama2") is None


@pytest.mark.parametrize(
    ("turns", "fault"),
    [
        ([ANSWER, QUESTION], "roles_out_of_order"),
        ([QUESTION, QUESTION, ANSWER], "roles_out_of_order"),
        ([QUESTION, SYSTEM, ANSWER], "roles_out_of_order"),
        ([QUESTION], "no_answer"),
        ([QUESTION, {"role": "assistant", "content": " "}], "empty_answer"),
        ([], "no_chat"),
        ([{"role": "user", "content": ""}, ANSWER], "empty_prompt"),
        ([{"role": "wizard", "content": "?"}, ANSWER], "no_chat"),
        ("words", "no_chat"),
    ],
)
def test_a_chat_that_cannot_be_learned_is_left_out_and_counted(
    rows: Write, turns: Any, fault: str
) -> None:
    table = load_chats(
        rows([{"messages": turns}, {"messages": CHAT}]), RowOptions(messages="messages")
    )
    assert counts(table) == {fault: 1}
    assert table.column("row").tolist() == [1]
    assert table.findings[0].rows == (0,)
    with pytest.raises(DataError, match="no usable row"):
        load_chats(rows([{"messages": turns}]), RowOptions(messages="messages"))


@pytest.mark.parametrize(
    ("turn", "name"),
    [
        ({"tool_calls": [{"function": {"name": "weather"}}]}, "tool_calls"),
        ({"reasoning_content": "Let me think."}, "reasoning_content"),
        ({"weight": 0.5}, "weight"),
        ({"train": "no"}, "train"),
    ],
)
def test_what_a_turn_holds_beside_its_text_is_refused_by_name(
    rows: Write, turn: dict[str, Any], name: str
) -> None:
    usual = {"tool_calls": [], "reasoning_content": None, "weight": 1.0, "train": True}
    path = rows([{"messages": [QUESTION, ANSWER | usual]}, {"messages": [QUESTION, ANSWER | turn]}])
    with pytest.raises(DataError, match=f"row 1.*has a turn with '{name}'") as caught:
        load_chats(path)
    assert "content of the turns" in caught.value.remedy
    assert len(load_chats(rows([{"messages": [QUESTION, ANSWER | usual]}], "usual.jsonl"))) == 1
    # A word is no part of a turn.
    said = [QUESTION, {"role": "assistant", "content": f'It is "{name}".'}]
    assert one(load_chats(rows([{"messages": said}], "said.jsonl"))) == said


def test_chats_with_tools_are_refused_and_an_empty_list_of_tools_is_none(rows: Write) -> None:
    chat = {"messages": [QUESTION, ANSWER]}
    with pytest.raises(DataError, match=r"row 1.*has tools, in the column 'tools'"):
        load_chats(rows([chat | {"tools": []}, chat | {"tools": [{"type": "function"}]}]))
    assert len(load_chats(rows([chat | {"tools": []}, chat | {"tools": None}], "none.jsonl"))) == 2


def test_turns_after_the_last_answer_are_cut_and_said(rows: Write) -> None:
    table = load_chats(rows([{"messages": [*CHAT, QUESTION]}]))
    assert one(table) == CHAT
    assert counts(table) == {"unanswered_turn": 1}


@pytest.mark.parametrize("mark", [{"weight": 0}, {"weight": 0.0}, {"train": False}])
def test_an_answer_of_weight_0_is_context(rows: Write, mark: dict[str, Any]) -> None:
    unscored = [QUESTION, ANSWER | mark]
    table = load_chats(
        rows([{"messages": [*unscored, QUESTION, ANSWER, *unscored]}, {"messages": unscored}])
    )
    context = ANSWER | {"weight": 0}
    assert one(table) == [QUESTION, context, QUESTION, ANSWER]
    assert counts(table) == {"unanswered_turn": 1, "no_trained_answer": 1}


def test_for_prediction_a_question_needs_no_answer(rows: Write) -> None:
    assert one(load_chats(rows([{"messages": [QUESTION]}]), RowOptions(need_label=False))) == [
        QUESTION
    ]
    table = load_chats(
        rows([{"instruction": "Add."}]),
        RowOptions(text=("instruction",), label="output", need_label=False),
    )
    assert one(table) == [{"role": "user", "content": "Add."}]
    assert one(chats_from_prompts(["Why?"], "prompt")) == [QUESTION]


def test_groups_stay_and_a_row_without_one_stands_alone(rows: Write) -> None:
    groups = ["x", None, "x ", "NaN", ""]
    table = load_chats(
        rows([{"text": f"a b {at}", "by": by} for at, by in enumerate(groups)]),
        RowOptions(group="by"),
    )
    alone = [f"(no group) row {at}" for at in range(5)]
    assert table.column("group") == ["x", alone[1], "x", alone[3], alone[4]]
    (found,) = [one for one in table.findings if one.check == "missing_group"]
    assert found.rows == (1, 3, 4)
    assert found.because == "3 rows without 'by': each is its own group"


class Tokens:
    def __init__(self, template: str | None) -> None:
        self.chat_template = template


def test_the_template_is_the_users_then_the_tokenizers_then_the_rows() -> None:
    assert choose_template(Tokens("own"), "messages", "chatml")[0] == NAMED_TEMPLATES["chatml"]
    assert choose_template(Tokens("own"), "messages", None)[0] == "own"
    assert choose_template(Tokens(None), "llama2", None)[0] == NAMED_TEMPLATES["llama2"]
    made, reason = choose_template(Tokens(None), "instruction", None)
    assert made == NAMED_TEMPLATES["plain"]
    assert reason.chosen == "plain"
    assert "no chat template" in reason.because


def test_messages_without_any_template_are_refused_with_the_remedy() -> None:
    with pytest.raises(RecipeError, match=r"data\.template=chatml"):
        choose_template(Tokens(None), "messages", None)


def test_an_unknown_template_names_the_nearest(rows: Write) -> None:
    with pytest.raises(RecipeError, match="chatml"):
        load_chats(rows([{"messages": CHAT}]), RowOptions(template="chatlm"))


@pytest.mark.parametrize("row", [{"a": 1}, {"label": "x", "n": 2}])
def test_columns_that_cannot_be_told_are_asked_for(rows: Write, row: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"data\.messages"):
        load_chats(rows([row] * 3))
