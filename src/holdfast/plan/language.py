"""The language of the rows, compared with the languages that a model's card lists."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from holdfast.core.packaged_models import EMBEDDED
from holdfast.core.records import Finding
from holdfast.core.seeds import generator
from holdfast.data.table import Table
from holdfast.models.loading.adapter_folder import adapter_folder
from holdfast.models.loading.card import card_here
from holdfast.models.loading.source import find_folder, find_model

CHECK = "model_language"
# py3langid's least probability; below it a text may be in several languages, or in none.
MIN_PROBABILITY = 0.9
# The most texts: a fixed sample identifies the language in half a second.
TEXTS, CHARACTERS = 50, 5000
NO_LANGUAGE = "zxx"  # numbers, paths
MULTILINGUAL_CODES = ("multilingual", "mul")
MOST_TEXTS = 500


def sample_texts(table: Table, seed: int) -> list[str]:
    """At most 500 texts of the rows, sources and targets, a fixed sample."""
    order = generator(seed, "texts of candidates").permutation(len(table))
    some = table.take(np.sort(order[:MOST_TEXTS]))
    columns = [name for name in ("text", "text_pair", "target") if name in some.rows.column_names]
    return [text for name in columns for text in some.column(name) if text]


def detect_language(texts: Sequence[str]) -> str | None:
    """The code of the language of the texts; ``None`` where it is uncertain, the texts are in no
    language, or a package is missing."""
    from holdfast.data.texts.general import identify_language

    with contextlib.suppress(ImportError):
        code, probability = identify_language("\n".join(texts[:TEXTS])[:CHARACTERS])
        is_certain = bool(texts) and probability >= MIN_PROBABILITY
        return code if is_certain and code != NO_LANGUAGE else None
    return None


def language_mismatch(languages: Sequence[str], rows_language: str | None) -> str | None:
    """The mismatch as a phrase; ``None`` where the model reads the language of the rows, or where
    either is unknown."""
    listed = {code.lower().partition("-")[0] for code in languages}
    if (
        not rows_language
        or not listed
        or rows_language in listed
        or listed & set(MULTILINGUAL_CODES)
    ):
        return None
    return f"its card lists {', '.join(languages[:5])}, but the rows are in {rows_language}"


def language_findings(name: str, texts: Sequence[str]) -> tuple[Finding, ...]:
    """A warning where the texts are in a language that the model's card does not list. Only for
    local models: no card is fetched from the hub."""
    if not texts or not (name == EMBEDDED or Path(name).is_dir()):
        return ()
    # The rows of an audit may name a folder with a tokenizer alone, which is no model.
    is_adapter = adapter_folder(name) is not None
    folder = find_model(name, adapters=True).folder if is_adapter else find_folder(name, None)
    languages = card_here(folder).languages
    mismatch = language_mismatch(languages, detect_language(texts)) if languages else None
    if mismatch is None:
        return ()
    return (
        Finding(
            CHECK,
            "warn",
            1.0,
            len(texts),
            (),
            f"the model was not made for the language of these texts: {mismatch}",
            "Choose a model for that language, or a multilingual one (--model NAME); "
            "`holdfast choose` compares several on your rows.",
        ),
    )
