"""``probes.canaries``: random texts planted among the training rows to measure memorization.

Canaries: Carlini et al. (1802.08232).

A canary is random, so a model can predict it well only if it saw it. It is planted 1, 4 or 16
times. Its **exposure** is log₂(R + 1) − log₂(rank), in bits, with its rank by loss among itself and
R random texts of the same kind that were not planted. A text that was never seen has an exposure of
about 1.4 bits on average; the most is log₂(R + 1).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.contract.fit import PreparedData
from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Floats, Ints
from holdfast.core.seeds import generator
from holdfast.core.tasks import DECODER_TASKS, LABELLED_TEXT_TASKS
from holdfast.core.wording import count_phrase
from holdfast.data.chats.chat import form_of
from holdfast.data.table import AddedRows, Table, added_texts

if TYPE_CHECKING:
    from holdfast.contract.fit import FittedModel


ORIGIN = "canary"
KEY = "probes.canaries"


def canaries_of(prepared: PreparedData) -> Canaries | None:
    """The canaries; they depend only on the recipe and the words of all rows, not on the fit."""
    recipe = prepared.recipe
    count = recipe.probes.canaries
    if not count:
        return None
    if recipe.task in DECODER_TASKS:
        return written_canaries(count, recipe.seed)
    one_class = prepared.rows.columns.one_class
    if recipe.task not in LABELLED_TEXT_TASKS or not one_class or prepared.rows.has_pairs:
        rule = "needs single texts with one class each, or rows for a "
        task = recipe.task if one_class else f"{recipe.task} ({prepared.rows.columns.label_kind})"
        raise RecipeError(KEY, f"{rule}causal language model", task, "Leave it out.")
    texts = prepared.rows.column("text")
    return labelled_canaries(texts, len(prepared.rows.classes), count, recipe.seed)


def with_canaries(prepared: PreparedData) -> PreparedData:
    """The prepared data with canaries among the rows that every fit learns from. Canaries are in no
    table: none is split, selected, measured or scored."""
    canaries = canaries_of(prepared)
    if canaries is None:
        return prepared
    rows = [canaries.planted[at] for at in planted_repeats(canaries)]
    table = table_of(prepared.rows, rows)
    prepared = prepared.extended(AddedRows(table, np.ones(len(rows)), (ORIGIN,) * len(rows)))
    because = (
        f"random texts, planted 1, 4 and 16 times: {count_phrase(len(rows), 'row')} that "
        "the model learns "
        "in addition to the training rows; result.json lists the exposure of each"
    )
    notify(
        Decision("canaries", count_phrase(len(canaries.planted), "text"), because, prominent=True)
    )
    return prepared


def table_of(like: Table, canaries: Sequence[Canary]) -> Table:
    """Canaries as rows like those of a table, numbered −1, −2, …"""
    texts, labels = [c.text for c in canaries], [c.label for c in canaries]
    if "turns" not in like.rows.column_names:
        return added_texts(like, texts, labels, origin=ORIGIN).table
    import datasets

    form = form_of(like)
    plain = form == "text"
    turns = [
        []
        if plain
        else [
            {"role": "user", "content": f"{c.text} …?"},
            {"role": "assistant", "content": f"{c.text} {c.answer}."},
        ]
        for c in canaries
    ]
    columns: dict[str, Any] = {
        "row": (-1 - np.arange(len(canaries))).tolist(),
        "text": [f"{c.text} {c.answer}." if plain else f"{c.text} …?" for c in canaries],
        "turns": [json.dumps(one) for one in turns],
        "label": [0] * len(canaries),
        "form": [form] * len(canaries),
    }
    rows = datasets.Dataset.from_dict(columns)
    return replace(like, rows=rows, source="", source_rows=0, findings=(), decisions=())


def canary_exposure(fitted: FittedModel) -> dict[str, Any] | None:
    """``canaries`` of the memorization block, from the losses of the best checkpoint on the planted
    texts and on the others; ``None`` without canaries."""
    prepared = fitted.training_plan.prepared
    canaries = canaries_of(prepared)
    if canaries is None:
        return None
    count = len(canaries.planted)
    table = table_of(prepared.rows, [*canaries.planted, *canaries.others])
    examples: Any = fitted.encode(table)
    losses = _in_table_order(table, np.asarray(examples.rows), fitted.measure(examples)[0])
    names = prepared.rows.classes if fitted.recipe.task in LABELLED_TEXT_TASKS else ()
    return canary_block(canaries, losses[:count], losses[count:], names)


def _in_table_order(table: Table, rows: Ints, losses: Floats) -> Floats:
    losses_by_row = np.full(len(table), np.inf)
    losses_by_row[table.positions_of(rows)] = losses
    return losses_by_row


REPEATS = (1, 4, 16)
REFERENCES = 200
DIGITS = 6
MAX_WORDS = 24


@dataclass(frozen=True, slots=True)
class Canary:
    """A planted ``text`` with a class (an index), or with an ``answer`` to generate, and its number
    of ``repeats`` (0: one of the others that it is compared with)."""

    text: str
    label: int
    answer: str
    repeats: int


@dataclass(frozen=True, slots=True)
class Canaries:
    """The planted canaries, and the others [200] that are not planted."""

    planted: tuple[Canary, ...]
    others: tuple[Canary, ...]


def labelled_canaries(texts: Sequence[str], classes: int, count: int, seed: int) -> Canaries:
    """Texts of words drawn at random from those of ``texts``, as long as these are, each with a
    random class."""
    random = generator(seed, "canaries")
    words = sorted({word for text in texts for word in text.split()})
    length = int(np.clip(np.median([len(text.split()) for text in texts]), 4, MAX_WORDS))

    def one(repeats: int) -> Canary:
        text = " ".join(words[at] for at in random.integers(len(words), size=length))
        return Canary(text, int(random.integers(classes)), "", repeats)

    return _make_canaries(one, count)


def written_canaries(count: int, seed: int) -> Canaries:
    """Secret numbers: six random digits after a sentence that names their owner."""
    random = generator(seed, "canaries")

    def one(repeats: int) -> Canary:
        owner = "".join(chr(97 + at) for at in random.integers(26, size=5))
        digits = " ".join(str(d) for d in random.integers(10, size=DIGITS))
        return Canary(f"The secret number of {owner} is", 0, digits, repeats)

    return _make_canaries(one, count)


def _make_canaries(make_canary: Callable[[int], Canary], count: int) -> Canaries:
    planted = tuple(make_canary(REPEATS[at % len(REPEATS)]) for at in range(count))
    return Canaries(planted, tuple(make_canary(0) for _ in range(REFERENCES)))


def planted_repeats(canaries: Canaries) -> Ints:
    """The canary of each planted row, as an index [rows]."""
    return np.repeat(
        np.arange(len(canaries.planted)), [canary.repeats for canary in canaries.planted]
    )


def exposures(planted: Floats, others: Floats) -> Floats:
    """The exposure in bits of each canary [n] by its loss, among ``others`` [R] that were not
    planted: log₂(R + 1) − log₂(rank). Ties get the higher rank."""
    rank = 1 + (np.asarray(others)[None] <= np.asarray(planted)[:, None]).sum(axis=1)
    return np.asarray(np.log2(len(others) + 1) - np.log2(rank))


def canary_block(
    canaries: Canaries, planted: Floats, others: Floats, names: Sequence[str]
) -> dict[str, Any]:
    """``canaries`` of the memorization block: each with its exposure, the means by repeats, and a
    sentence that sums them up."""
    bits_by_canary = exposures(planted, others)
    repeats = np.array([canary.repeats for canary in canaries.planted])
    means = {int(n): float(bits_by_canary[repeats == n].mean()) for n in np.unique(repeats)}
    max_bits = float(np.log2(len(others) + 1))
    exposure_text = ", ".join(
        f"{mean:.1f} bits where planted {'once' if n == 1 else f'{n} times'}"
        for n, mean in means.items()
    )
    because = (
        f"Exposure of {len(canaries.planted)} planted random texts: {exposure_text}. "
        f"The most possible is {max_bits:.1f} bits; a text that the model never saw has about "
        "1.4 bits."
    )
    return {
        "because": because,
        "most": max_bits,
        "others": len(others),
        "exposure": [{"repeats": n, "value": mean} for n, mean in means.items()],
        "planted": [
            {
                "text": canary.text,
                "label": canary.answer or (names[canary.label] if names else None),
                "repeats": canary.repeats,
                "exposure": float(bits),
                "loss": float(loss),
            }
            for canary, bits, loss in zip(canaries.planted, bits_by_canary, planted, strict=True)
        ],
    }
