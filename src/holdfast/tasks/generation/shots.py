"""Few-shot prompts for the base model: which examples, and how they are placed.

The examples are training rows, fixed by the seed before any test row is read, and the same for
every prompt. A prompt without room for all of them gets fewer (Brown et al., 2005.14165).

For an encoder-decoder, example pairs stand before the source, as Flan-T5 was trained (Chung et al.,
2210.11416).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from holdfast.core.records import Ints
from holdfast.core.seeds import generator
from holdfast.data.chats.chat import form_of, read_row_turns
from holdfast.data.chats.turns import Turn
from holdfast.data.table import Table
from holdfast.models.loading.tokenizer import position_limit
from holdfast.tasks.lines import joined
from holdfast.tasks.lm.chat_tokens import chat_tokens
from holdfast.tasks.lm.losses import EncodedTokens, encode

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase


ROOM, LOOKED_AT = 2048, 64
# The share of the room that all examples together may take.
SHARE = 0.75


@dataclass(frozen=True, slots=True)
class Shots:
    """``turns`` are the examples, one list of turns each; ``room`` is how many tokens examples,
    prompt and answer may have together.
    """

    turns: Sequence[list[Turn]]
    room: int

    def __len__(self) -> int:
        return len(self.turns)


def shots_of(
    train: Table,
    tokenizer: PreTrainedTokenizerBase,
    config: PreTrainedConfig,
    count: int,
    seed: int,
) -> Shots | str:
    """At most ``count`` training rows as examples, or the reason why there are none."""
    if form_of(train) == "text":
        return "the rows are plain text, which has no prompts"
    if not count:
        return "probes.shots is 0"
    room = min(position_limit(config), ROOM)
    order = generator(seed, "few shots").permutation(len(train))[:LOOKED_AT]
    chats = [
        [turn for turn in turns if turn["role"] != "system"]
        for turns in read_row_turns(train.take(np.asarray(order, dtype=np.int64)))
    ]
    sizes = [len(chat_tokens(tokenizer, chat)[0]) for chat in chats]
    places = fitting(sizes, SHARE * room, count)
    if not places:
        return f"no training row is short enough to precede another within {room} tokens"
    return Shots([chats[at] for at in places], room)


def fitting(sizes: Sequence[int], room: float, most: int) -> list[int]:
    """How many of these sizes fit: ``most``, or fewer until none exceeds its part of the room."""
    for count in range(most, 0, -1):
        selected = [at for at, size in enumerate(sizes) if size <= room / count][:count]
        if len(selected) == count:
            return selected
    return []


def with_shots(turns: Sequence[Turn], shots: Shots, count: int) -> list[Turn]:
    """A chat after the first ``count`` examples; a system turn stays first."""
    system = [turn for turn in turns[:1] if turn["role"] == "system"]
    before = [turn for shot in shots.turns[:count] for turn in shot]
    return [*system, *before, *turns[len(system) :]]


def fitted_shots(
    chats: Sequence[Sequence[Turn]], shots: Shots, length: Callable[[list[Turn]], int]
) -> Ints:
    """How many of the examples fit before each chat, [n]."""
    return np.asarray(
        [
            next(
                (
                    k
                    for k in range(len(shots), 0, -1)
                    if length(with_shots(c, shots, k)) <= shots.room
                ),
                0,
            )
            for c in chats
        ],
        dtype=np.int64,
    )


def table_with_shots(table: Table, shots: Shots, counts: Ints) -> Table:
    """The rows with their examples in front, ``counts`` [n] of them."""
    chats = [
        json.dumps(with_shots(turns, shots, int(count)))
        for turns, count in zip(read_row_turns(table), counts, strict=True)
    ]
    return table.with_column("turns", chats)


def encode_with_shots(
    table: Table, tokenizer: PreTrainedTokenizerBase, max_length: int, shots: Shots
) -> tuple[EncodedTokens, EncodedTokens, Ints]:
    """The rows as they are scored, with the same targets after the examples, and how many examples
    each row of the table has.

    The targets are the same tokens: those that ``max_length`` keeps.
    """
    alone = encode(table, tokenizer, max_length)
    chats = read_row_turns(table)
    counts = fitted_shots(chats, shots, lambda turns: len(chat_tokens(tokenizer, turns)[0]))
    ids, targets, sizes = [], [], alone.target_counts
    for example, at in enumerate(alone.positions):
        behind = with_shots(chats[at], shots, int(counts[at]))
        given = sum(
            turn["role"] == "assistant" for shot in shots.turns[: counts[at]] for turn in shot
        )
        tokens, inside = chat_tokens(tokenizer, behind, given)
        last = np.flatnonzero(inside)[: sizes[example]][-1] + 1
        ids.append(tokens[:last])
        targets.append(inside[:last])
    flat, offsets = joined(ids)
    marks = np.concatenate(targets) if targets else np.zeros(0, dtype=bool)
    return alone, replace(alone, ids=flat, targets=marks, offsets=offsets), counts


PAIR_ROOM, PAIRS_LOOKED_AT, PAIR_SHARE = 1024, 64, 0.75


@dataclass(frozen=True, slots=True)
class Behind:
    """The ``sources`` [n] with their examples before them, ``room`` tokens at most; ``shots`` is
    how many examples there are, ``fewer`` how many sources had no room for all.
    """

    sources: Sequence[str]
    room: int
    shots: int
    fewer: int


def pairs_before(
    texts: Sequence[str],
    targets: Sequence[str],
    sources: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    positions: int | None,
    count: int,
    seed: int,
) -> Behind | str:
    """``count`` training pairs before each of the ``sources``, or the reason why there are none.

    The pairs are fixed by the seed; ``positions`` are the model's (``None``: relative ones). A
    source without room for all pairs gets fewer.
    """
    if not count:
        return "probes.shots is 0"
    if not len(sources):
        return "no text is generated (generate.rows)"
    room = min(positions or PAIR_ROOM, PAIR_ROOM)

    def size(text: str) -> int:
        return len(tokenizer(text, verbose=False)["input_ids"])

    order = generator(seed, "few shots").permutation(len(texts))[:PAIRS_LOOKED_AT]
    every = [f"{texts[at]}\n{targets[at]}\n\n" for at in order]
    shots = [every[at] for at in fitting([size(shot) for shot in every], PAIR_SHARE * room, count)]
    if not shots:
        return f"no training pair is short enough to precede a source within {room} tokens"
    prompts, fewer = [], 0
    for source in sources:
        fitting_count = next(
            (k for k in range(len(shots), 0, -1) if size("".join(shots[:k]) + source) <= room), 0
        )
        fewer += fitting_count < len(shots)
        prompts.append("".join(shots[:fitting_count]) + source)
    return Behind(prompts, room, len(shots), fewer)
