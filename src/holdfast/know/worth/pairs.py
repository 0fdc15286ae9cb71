"""Pairs before a source: an encoder-decoder asked with examples, as Flan-T5 was trained to be
(Chung et al., 2210.11416)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.core.seeds import generator
from holdfast.know.worth.shots import fitting

ROOM, LOOKED_AT, SHARE = 1024, 64, 0.75


@dataclass(frozen=True, slots=True)
class Behind:
    """The ``sources`` [n] with their examples before them, ``room`` tokens at most; ``shots`` is
    how many examples there are, ``fewer`` how many sources had no room for all."""

    sources: Sequence[str]
    room: int
    shots: int
    fewer: int


def pairs_before(
    texts: Sequence[str],
    targets: Sequence[str],
    sources: Sequence[str],
    tokenizer: Any,
    positions: int | None,
    count: int,
    seed: int,
) -> Behind | str:
    """``count`` training pairs before each of the ``sources``, or why there are none.

    The pairs are fixed by the seed; ``positions`` are the model's (``None``: relative ones). A
    source beside which not all pairs fit has fewer.
    """
    if not count:
        return "probes.shots is 0"
    if not len(sources):
        return "no text is generated (generate.rows)"
    room = min(positions or ROOM, ROOM)

    def size(text: str) -> int:
        return len(tokenizer(text, verbose=False)["input_ids"])

    order = generator(seed, "few shots").permutation(len(texts))[:LOOKED_AT]
    every = [f"{texts[at]}\n{targets[at]}\n\n" for at in order]
    shots = [every[at] for at in fitting([size(shot) for shot in every], SHARE * room, count)]
    if not shots:
        return f"no training pair is short enough to stand before a source in {room} tokens"
    made, fewer = [], 0
    for source in sources:
        held = next(
            (k for k in range(len(shots), 0, -1) if size("".join(shots[:k]) + source) <= room), 0
        )
        fewer += held < len(shots)
        made.append("".join(shots[:held]) + source)
    return Behind(made, room, len(shots), fewer)
