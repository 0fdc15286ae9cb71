"""Texts that the model's vocabulary was not made for: many pieces a word, or unknown ones."""

from __future__ import annotations

import re

import numpy as np

from holdfast.quality.check import CheckExample, CheckResult, check, result
from holdfast.quality.views import Tokenized

# What one token holds, with its share of the spaces, for text of the kind that a vocabulary was
# made of: 3.7 to 5.0 characters over English reviews, questions, news, novels, encyclopedia and
# medical notes, with the vocabularies of BERT and GPT-2 alike.
USUAL = (3.7, 5.0)
_LEAST = 3.5
_WORDS = (1.05, 1.5)
_UNKNOWN = 0.01
_SERIOUS_UNKNOWN, _SERIOUS = 0.05, 2.0
_FEWEST = 500
_SHOWN = 5
# Scripts without spaces hold a word in a character or two, whatever the vocabulary.
_DENSE = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
)


@check(
    Tokenized,
    cannot_see="A field whose words are common but mean other things, and what the model has "
    "learned beyond its vocabulary.",
    error_rate="With the vocabularies of BERT and GPT-2 silent on 13 English sets (CR, MR, "
    "TREC, BANKING77, news, novels, encyclopedia, medical talks and others); reports Spanish, "
    "Python code and random strings.",
)
def domain_mismatch(view: Tokenized) -> CheckResult | None:
    """Reports texts that the model reads in small pieces: fewer than 3.5 characters a token, where
    text of its own kind has 3.7 to 5.0; or of whose tokens 1 % or more are the unknown one.

    Under 500 tokens it says nothing; nor of the pieces where a tenth of the characters are of a
    script without spaces. A warning below 2 characters a token or from 5 % unknown. Score: the
    share of unknown tokens, or how far the pieces fall short of 3.5.
    """
    texts = view.rows.texts
    tokens = np.maximum(0, view.lengths - view.special)
    total = int(tokens.sum())
    if total < _FEWEST:
        return None
    characters = np.array([len(" ".join(text.split())) for text in texts])
    piece = float(characters.sum() / total)
    unknown = float(view.unknown.sum() / total)
    sample = "".join(text[:200] for text in texts[:: max(1, len(texts) // 500)])
    dense = len(_DENSE.findall(sample)) >= 0.1 * max(1, len(sample))
    small = piece < _LEAST and not dense
    if not small and unknown < _UNKNOWN:
        return None
    each = np.where(
        small, characters / np.maximum(1, tokens), -view.unknown / np.maximum(1, tokens)
    )
    worst = np.argsort(np.where(tokens >= 5, each, np.inf), kind="stable")[:_SHOWN]
    ids = view.rows.ids
    said = []
    if small:
        fertility = total / max(1, int(view.words.sum()))
        said.append(
            f"one token of {view.model} holds {piece:.1f} characters ({USUAL[0]} to {USUAL[1]:.1f} "
            f"in the English that it was made for) and a word takes {fertility:.1f} tokens "
            f"({_WORDS[0]} to {_WORDS[1]})"
        )
    if unknown >= _UNKNOWN:
        said.append(f"{unknown:.1%} of the tokens are unknown to {view.model}")
    shortfall = max(0.0, 1 - piece / _LEAST) if small else 0.0
    return result(
        ids[worst],
        " and ".join(said),
        "Take a model made for such texts (language, code, field). If it must be this one, "
        "raise model.max_length, as a text takes more tokens, and train it on plain texts of "
        "this kind first.",
        score=min(1.0, max(unknown, shortfall)),
        severity="warn" if unknown >= _SERIOUS_UNKNOWN or (small and piece < _SERIOUS) else "info",
        count=len(texts),
        examples=(
            CheckExample(int(ids[at]), f"{tokens[at]} tokens for {characters[at]} characters")
            for at in worst.tolist()
        ),
    )
