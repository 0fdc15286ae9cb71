"""General resources on texts: English passages, phrases that leak answers, language detection."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

# From the Unicode consortium's confusables (UTS 39).
LOOK_ALIKES = dict(
    zip(
        "АВЕЅІЈКМНОРСТУХасеһіјорѕухԁԛԝ" + "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧο",
        "ABESIJKMHOPCTYXacehijopsyxdqw" + "ABEZHIKMNOPTYXo",
        strict=True,
    )
)
TO_LATIN = str.maketrans(LOOK_ALIKES)
LOOK_ALIKE_PATTERN = f"[{''.join(LOOK_ALIKES)}]"
# Letters of scripts without spaces between words, as ranges of a character class.
UNSPACED = (
    "\u0e00-\u0e7f\u0e80-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
)


_BETWEEN = re.compile(r"[\W_]+")


def normal_text(text: str) -> str:
    """The words of the text, case-folded, with single spaces. A text without any word is only
    stripped, so that ``":)"`` and ``":("`` differ.

    >>> normal_text("Great -- MOVIE!")
    'great movie'
    """
    return _BETWEEN.sub(" ", text.casefold()).strip() or text.strip()


BUILT_IN = "built-in"
GENERAL_PASSAGES = Path(__file__).with_name("general.txt")
# Tokens without a loss: at the beginning of a text a language model can only guess its topic.
SKIPPED = 8


def passages() -> list[str]:
    """The 48 passages."""
    return GENERAL_PASSAGES.read_text("utf-8").strip().split("\n\n")


# One pattern for both RE2, which searches all texts, and Python.
ASSISTANT_PHRASES = (
    r"(?i)\bas an? (?:ai|artificial intelligence)\b[^.\n]{0,30}"
    r"(?:model|assistant|i (?:do|can|am)\b)|\bas a (?:large )?language model\b|"
    r"\b(?:my|last) (?:knowledge|training) (?:update|cut-?off)\b|"
    r"<\|(?:im_start|im_end|endoftext|assistant|user|eot_id)\|>|"
    r"\[(?:your|recipient(?:'s)?|insert) (?:name|title|address|company|date|here)[a-z ]{0,20}\]"
)
# How hosted models describe themselves and refuse; at the beginning of an answer.
REFUSAL = re.compile(
    r"\b(?:as an? (?:ai|artificial intelligence)(?: language)? (?:model|assistant|system)|"
    r"as a (?:large )?language model|"
    r"i(?:'|\u2019)?m (?:just )?an? (?:ai\b|artificial intelligence)|"
    r"i am (?:just )?an? (?:ai|artificial intelligence) (?:language )?(?:model|assistant)|"
    r"i(?:'|\u2019| a)m sorry,? but (?:i|as an)\b[^.\n]{0,40}"
    r"(?:can(?:no|'|\u2019)t|unable|not able|won(?:'|\u2019)t)|"
    r"i(?:'|\u2019| a)m (?:unable|not able) to (?:assist|help|fulfill|provide|comply)|"
    r"i can(?:no|'|\u2019)t (?:assist|help|comply|fulfill)(?: you)? with (?:that|this|your)|"
    r"my (?:knowledge|training) (?:cut-?off|data (?:only )?goes))",
    re.IGNORECASE,
)
# A comma, or a word that does not end a sentence.
UNFINISHED = re.compile(
    r"(?:,|\b(?:and|or|but|the|a|an|of|to|in|for|with|that|which|is|are|by|from|as|on|at|because))"
    r"\s*\Z"
)


def identify_language(text: str) -> tuple[str, float]:
    """The ISO 639 code of a text's language and its probability, by py3langid.

    >>> identify_language("Der schnelle braune Fuchs springt über den faulen Hund.")[0]
    'de'
    """
    code, probability = _identifier().classify(text)
    return str(code), float(probability)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
