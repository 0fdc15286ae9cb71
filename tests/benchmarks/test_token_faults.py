"""Every planted fault of tokenised rows is named, with a decoded row, and sound rows are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.data.chats.marked import CLOSE, OPEN
from holdfast.data.chats.turns import NAMED_TEMPLATES
from holdfast.quality.token_rows import spread, token_rows
from holdfast.quality.tokens import CHECKS, check_tokens

TEMPLATES = ("chatml", "llama2", "llama3", "zephyr")


@pytest.fixture(params=TEMPLATES)
def tokenizer(request: pytest.FixtureRequest, merging_llama: Path) -> Any:
    import token_faults
    from transformers import AutoTokenizer

    return token_faults.with_template(AutoTokenizer.from_pretrained(merging_llama), request.param)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short chats of different lengths in the place of real instructions."""
    import token_faults

    def conversations(turns: int, count: int = 40) -> list[Any]:
        return [
            [
                {"role": role, "content": f"{word} {i} " * (1 + (i + turn) % 5)}
                for turn in range(turns)
                for role, word in (("user", "ask"), ("assistant", "tell"))
            ]
            for i in range(count)
        ]

    monkeypatch.setattr(token_faults, "conversations", conversations)


@pytest.mark.parametrize("share", [1.0, 0.34])
def test_a_planted_fault_is_named_with_an_example(tokenizer: Any, share: float) -> None:
    import token_faults

    for fault, (_, names, turns) in token_faults.FAULTS.items():
        chats = token_faults.conversations(turns)
        rows = token_faults.faulty_rows(tokenizer, fault, share, chats)
        found = {one.check: one for one in token_faults.found_in(rows, tokenizer)}
        named = [found[name] for name in names if name in found]
        assert named, (fault, list(found))
        assert "Row " in named[0].because
        assert 0 < named[0].score <= 1
        assert named[0].rows
        if fault != "all labels masked":
            assert OPEN in named[0].because, fault
            assert CLOSE in named[0].because, fault


def test_rows_in_alpaca_s_form_are_not_those_of_a_chat_template(tokenizer: Any) -> None:
    rows = []
    for i in range(20):
        prompt, answer = (
            tokenizer(text, add_special_tokens=False)["input_ids"]
            for text in (f"### Instruction:\nask {i}\n\n### Response:\n", f"tell {i}")
        )
        answer.append(tokenizer.eos_token_id)
        rows.append({"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer})
    found = check_tokens(token_rows(rows, tokenizer), tokenizer)
    assert [one.check for one in found] == ["foreign_template"]


def test_sound_rows_raise_no_alarm(tokenizer: Any) -> None:
    import token_faults

    for form in token_faults.SOUND:
        rows = token_faults.sound_rows(tokenizer, form)
        assert token_faults.found_in(rows, tokenizer) == (), form


def test_every_check_has_a_planted_fault() -> None:
    import token_faults

    planted = {name for _, names, _ in token_faults.FAULTS.values() for name in names}
    assert {check.name for check in CHECKS} - planted == {"labels_differ"}


def test_labels_of_other_tokens_are_named(tokenizer: Any) -> None:
    import token_faults

    rows = [token_faults.chat_row(tokenizer, chat) for chat in token_faults.conversations(1)]
    for row in rows:
        row["labels"] = [one if one == -100 else (one + 5) % 90 for one in row["labels"]]
    assert [one.check for one in token_faults.found_in(rows, tokenizer)] == ["labels_differ"]


def test_padding_that_is_the_end_is_no_fault_where_the_end_is_trained(merging_llama: Path) -> None:
    import token_faults
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(merging_llama)
    tokenizer.chat_template = NAMED_TEMPLATES["plain"]
    tokenizer.pad_token = tokenizer.eos_token
    rows = [token_faults.chat_row(tokenizer, chat) for chat in token_faults.conversations(1)]
    longest = max(len(row["input_ids"]) for row in rows)
    for row in rows:
        more = longest - len(row["input_ids"])
        row["input_ids"] += [tokenizer.pad_token_id] * more
        row["labels"] += [-100] * more
    assert token_faults.found_in(rows, tokenizer) == ()


def test_rows_without_labels_train_every_token_and_a_sample_is_at_random(
    merging_llama: Path,
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(merging_llama)
    rows = spread(token_rows([{"input_ids": [5, 6, 7]}] * 2500, tokenizer), 800)
    numbers = [row.number for row in rows]
    assert len(set(numbers)) == 800
    assert numbers == sorted(numbers)
    # No pattern of the rows hides from a sample at random.
    assert 300 < sum(number % 2 for number in numbers) < 500
    assert rows[0].trained.all()
    assert check_tokens([], tokenizer) == ()
    assert np.array_equal(rows[1].ids, [5, 6, 7])
