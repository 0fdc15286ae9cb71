"""A causal language model asked to go on from the first words of rows that it learned from."""

from __future__ import annotations

import itertools
from typing import Any

from holdfast.core.seeds import generator
from holdfast.data.chat import turns_of
from holdfast.data.table import Table
from holdfast.data.turns import prompt_of
from holdfast.evaluate.causal import write_answers
from holdfast.know.memory.verbatim import COMPARED, MOST_ROWS, Verbatim, is_verbatim, parts_of
from holdfast.tasks.chat_tokens import prompt_tokens

# Tokens of a word, about; more are written than compared.
TOKENS_A_WORD = 2


def verbatim(network: Any, tokenizer: Any, table: Table, seed: int) -> Verbatim:
    """How many of at most fifty rows, drawn by chance, ``network`` completes to the word from the
    first eight words of their answer (of a plain text, of itself). The rows are the same for every
    network that is asked."""
    prompts, wanted, rows = [], [], []
    numbers, chats, texts = table.column("row"), turns_of(table), table.column("text")
    chat = False
    for at in generator(seed, "verbatim").permutation(len(table)):
        turns = chats[at]
        before = prompt_of(turns) if turns else []
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
        wanted.append(parts[1])
        rows.append(int(numbers[at]))
        if len(rows) == MOST_ROWS:
            break
    if not rows:
        return Verbatim(0, ())

    new = COMPARED * TOKENS_A_WORD
    texts = write_answers(network, tokenizer, prompts, new_tokens=new, chat=chat).texts
    hits = [is_verbatim(text, words) for text, words in zip(texts, wanted, strict=True)]
    return Verbatim(len(rows), tuple(sorted(itertools.compress(rows, hits))))
