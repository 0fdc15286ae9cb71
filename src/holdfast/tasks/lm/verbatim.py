"""Verbatim memorization: whether a generative model reproduces training rows word for word
(2202.07646).

A causal language model gets the first words of rows that it was trained on. Greedy decoding gives
the next words exactly where each of their tokens is the most probable one after those before it, so
one forward pass over the row answers what generating would.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.contract.written_text import COMPARED, FEWEST, GIVEN, Verbatim
from holdfast.core.records import Ints
from holdfast.core.seeds import generator
from holdfast.data.chats.chat import read_row_turns
from holdfast.data.chats.turns import prompt_turns
from holdfast.data.table import Table
from holdfast.models.loading.tokenizer import position_limit
from holdfast.tasks.generation.token_scores import measure_saved
from holdfast.tasks.lines import common_prefix_length
from holdfast.tasks.lm.chat_tokens import Mask, prompt_tokens
from holdfast.tasks.lm.losses import CausalLM, join_examples

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


MOST_ROWS = 50
WORD = re.compile(r"\S+")


def prompt_and_full_text(answer: str) -> tuple[str, str] | None:
    """The first eight words of an answer, with their white space, and the same with the words that
    follow (24 at most); ``None`` for an answer that is too short to test.

    >>> prompt_and_full_text("too short to test")
    """
    ends = [word.end() for word in itertools.islice(WORD.finditer(answer), GIVEN + COMPARED)]
    if len(ends) < GIVEN + FEWEST:
        return None
    return answer[: ends[GIVEN - 1]], answer[: ends[-1]]


def verbatim_completions(
    network: Any, tokenizer: PreTrainedTokenizerBase, table: Table, seed: int
) -> Verbatim:
    """How many of at most fifty randomly drawn rows ``network`` completes word for word.

    The prompt is the first eight words of the row's answer (of a plain text, of the text). The rows
    are the same for every network.
    """
    examples: list[tuple[Ints, Mask, int]] = []
    rows: list[int] = []
    numbers, chats, texts = table.column("row"), read_row_turns(table), table.column("text")
    room = position_limit(network.config)
    for at in generator(seed, "verbatim").permutation(len(table)):
        turns = chats[at]
        before = prompt_turns(turns) if turns else []
        if turns and len(before) == len(turns):
            continue
        parts = prompt_and_full_text(str(turns[-1]["content"] if turns else texts[at]))
        if parts is None:
            continue
        prompt_ids, full_ids = (
            _ids_without_end(tokenizer, part, plain=not turns) for part in parts
        )
        # The last word given may be split otherwise where a word follows.
        shared = common_prefix_length([prompt_ids, full_ids])
        ids = [*(prompt_tokens(tokenizer, before) if turns else []), *full_ids]
        targets = np.arange(len(ids)) >= len(ids) - len(full_ids) + shared
        examples.append((np.asarray(ids[-room:], dtype=np.int32), targets[-room:], len(rows)))
        rows.append(int(numbers[at]))
        if len(rows) == MOST_ROWS:
            break
    if not rows:
        return Verbatim(0, ())
    flat = join_examples(
        examples, np.asarray(rows, dtype=np.int64), np.zeros(len(rows), dtype=bool)
    )
    task = CausalLM(tokenizer.pad_token_id or 0)
    _, kept = measure_saved(network, task, flat, network.word_embeddings.weight.device)
    return Verbatim(len(rows), tuple(sorted(itertools.compress(rows, kept[:, 0] == kept[:, 1]))))


def _ids_without_end(tokenizer: PreTrainedTokenizerBase, text: str, *, plain: bool) -> list[int]:
    """The tokens of the beginning of an answer, or of a ``plain`` text, without the end token."""
    ids: list[int] = tokenizer(text, add_special_tokens=plain, verbose=False)["input_ids"]
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids
