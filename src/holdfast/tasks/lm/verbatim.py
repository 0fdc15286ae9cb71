"""Verbatim memorization: whether a generative model reproduces training rows word for word
(2202.07646).

A causal language model is prompted with the first words of rows that it was trained on.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from holdfast.contract.written_text import COMPARED, FEWEST, GIVEN, Verbatim
from holdfast.core.seeds import generator
from holdfast.data.chats.chat import read_row_turns
from holdfast.data.chats.turns import prompt_turns
from holdfast.data.table import Table
from holdfast.tasks.lm.chat_tokens import prompt_tokens
from holdfast.tasks.lm.generation import write_answers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


MOST_ROWS = 50


def parts_of(answer: str) -> tuple[str, list[str]] | None:
    """The first eight words of an answer, with their white space, and the words that follow (24 at
    most); ``None`` for an answer that is too short to test.
    """
    words = answer.split()
    if len(words) < GIVEN + FEWEST:
        return None
    end = 0
    for word in words[:GIVEN]:
        end = answer.index(word, end) + len(word)
    return answer[:end], words[GIVEN : GIVEN + COMPARED]


def is_verbatim(written: str, expected: Sequence[str]) -> bool:
    """Whether a text begins with these words, whatever stands between them."""
    return written.split()[: len(expected)] == list(expected)


# Tokens per word, roughly; more are generated than compared.
TOKENS_A_WORD = 2


def verbatim(network: Any, tokenizer: PreTrainedTokenizerBase, table: Table, seed: int) -> Verbatim:
    """How many of at most fifty randomly drawn rows ``network`` completes word for word.

    The prompt is the first eight words of the row's answer (of a plain text, of the text). The rows
    are the same for every network.
    """
    prompts, continuations, rows = [], [], []
    numbers, chats, texts = table.column("row"), read_row_turns(table), table.column("text")
    chat = False
    for at in generator(seed, "verbatim").permutation(len(table)):
        turns = chats[at]
        before = prompt_turns(turns) if turns else []
        if turns and len(before) == len(turns):
            continue
        parts = parts_of(str(turns[-1]["content"] if turns else texts[at]))
        if parts is None:
            continue
        given = tokenizer(parts[0], add_special_tokens=not turns, verbose=False)["input_ids"]
        if given and given[-1] == tokenizer.eos_token_id:
            given = given[:-1]
        chat = chat or bool(turns)
        prompts.append([*(prompt_tokens(tokenizer, before) if turns else []), *given])
        continuations.append(parts[1])
        rows.append(int(numbers[at]))
        if len(rows) == MOST_ROWS:
            break
    if not rows:
        return Verbatim(0, ())

    new = COMPARED * TOKENS_A_WORD
    texts = write_answers(network, tokenizer, prompts, new_tokens=new, chat=chat).texts
    hits = [is_verbatim(text, words) for text, words in zip(texts, continuations, strict=True)]
    return Verbatim(len(rows), tuple(sorted(itertools.compress(rows, hits))))
