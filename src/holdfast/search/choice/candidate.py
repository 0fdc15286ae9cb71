"""What stands beside a candidate's score: its size, its licence and languages, and whether rows fit
into what it reads.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.contract.fit import PreparedData
from holdfast.core.machine import MB
from holdfast.core.records import Ints
from holdfast.core.tasks import OF_PICTURES
from holdfast.models.adapters.quantize import weight_bytes
from holdfast.models.loading.card import card_of
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.models.loading.source import TOKENIZER_FILES, find_model
from holdfast.models.vision.vision import PROCESSOR_FILES
from holdfast.plan.language import language, other_language, texts_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


WEIGHTS = (".safetensors", ".bin")
WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
# Of writing without spaces a word is no measure of a text.
LONGEST_WORD = 15.0
# Bytes that stand for what a vocabulary has no piece for.
BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
# Beyond these a model's words are not those of the rows. MiniLM reads English reviews,
# questions, requests, dialogues and code in 1.0 to 1.2 pieces a word, French in 1.6, German in 2.4.
MANY_PIECES, MANY_UNKNOWN, MANY_CUT = 1.5, 0.01, 0.05


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """``parameters``; ``disk_mb`` of its weights files and ``memory_mb`` of its weights as loaded;
    ``licence`` and ``languages`` of its card; ``max_length`` tokens that a row is cut to, and the
    share of rows that are ``cut``; ``tokens_per_word`` and the share of tokens that are
    ``unknown`` to its vocabulary; ``rows_in``, the rows' language. ``None`` where it is not known.
    ``doubts`` say in words what does not fit."""

    parameters: int
    disk_mb: float | None
    memory_mb: float
    licence: str | None
    languages: tuple[str, ...]
    max_length: int | None
    cut: float | None
    tokens_per_word: float | None
    unknown: float | None
    rows_in: str | None
    doubts: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        made = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**made, "languages": list(self.languages), "doubts": list(self.doubts)}


def beside(prepared: PreparedData, positions: Ints) -> ModelFacts:
    """Of a candidate that was prepared, by the rows at these ``positions``."""
    loaded, recipe = prepared.loaded, prepared.recipe
    pictures = recipe.task in OF_PICTURES
    model = recipe.model
    source = find_model(
        model.name,
        revision=model.revision,
        trust=model.trust_remote_code,
        files=PROCESSOR_FILES if pictures else TOKENIZER_FILES,
    )
    card = card_of(source)
    files = [path for path in source.folder.iterdir() if path.suffix in WEIGHTS]
    texts = [] if pictures else texts_of(prepared.rows.take(positions), recipe.seed)
    pieces, unknown = fertility(loaded.tokenizer, texts) if texts else (None, None)
    rows_in = language(texts)
    cut = cut_share(prepared.examples.take(positions))
    made = ModelFacts(
        parameters=int(loaded.facts["parameters"]),
        disk_mb=sum(path.stat().st_size for path in files) / MB,
        memory_mb=weight_bytes(loaded.network) / MB,
        licence=card.licence,
        languages=card.languages,
        max_length=loaded.max_length,
        cut=cut,
        tokens_per_word=pieces,
        unknown=unknown,
        rows_in=rows_in,
    )
    values = {field.name: getattr(made, field.name) for field in fields(made)}
    return ModelFacts(**{**values, "doubts": doubts_of(made)})


def fertility(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> tuple[float | None, float]:
    """Tokens a word, special ones apart (``None`` for writing without spaces), and the share of
    tokens that stand for what the vocabulary has no piece for."""
    words = [word for text in texts for word in WORD.findall(text)]
    # It says of a long text that a model would not read all of it, which is asked elsewhere.
    with quiet_transformers():
        ids = [i for text in texts for i in tokenizer(text, add_special_tokens=False)["input_ids"]]
    if not words or not ids:
        return None, 0.0
    known = tokenizer.convert_ids_to_tokens(sorted(set(ids)))
    lost = {
        i
        for i, token in zip(sorted(set(ids)), known, strict=True)
        if i == tokenizer.unk_token_id or BYTE.fullmatch(str(token))
    }
    spaced = sum(map(len, words)) / len(words) <= LONGEST_WORD
    share = sum(i in lost for i in ids) / len(ids)
    return (len(ids) / len(words) if spaced else None), share


def cut_share(examples: object) -> float | None:
    """The share of rows whose end is not read; ``None`` where rows have no length."""
    found = getattr(examples, "source_cut", getattr(examples, "cut", None))
    if found is None or not len(found):
        return None
    return float((np.asarray(found) > 0).mean())


def doubts_of(made: ModelFacts) -> tuple[str, ...]:
    """What does not fit, in words."""
    said = []
    if (other := other_language(made.languages, made.rows_in)) is not None:
        said.append(other)
    if made.tokens_per_word is not None and made.tokens_per_word > MANY_PIECES:
        said.append(
            f"{made.tokens_per_word:.1f} tokens a word: its vocabulary is not of this language or "
            "domain"
        )
    if made.unknown is not None and made.unknown > MANY_UNKNOWN:
        said.append(f"{made.unknown:.1%} of the tokens are unknown to it")
    if made.cut is not None and made.cut > MANY_CUT:
        said.append(f"{made.cut:.0%} of the rows are longer than its {made.max_length} tokens")
    return tuple(said)
