"""Texts far from the usual length, and in tokens: more than a model reads, in small pieces."""

from __future__ import annotations

import re

import numpy as np
import pyarrow.compute as pc

from holdfast.core.wording import count_phrase
from holdfast.quality.check import CheckExample, CheckResult, check, has_texts, result
from holdfast.quality.single import text_finding
from holdfast.quality.views import TableRows, Tokenized

_LEAST_ROWS = 100
# A median absolute deviation times this estimates a standard deviation of normal values.
_NORMAL = 1.4826
_MIN_DEVIATIONS, _MIN_RATIO = 6.0, 20.0


@check(
    TableRows,
    cannot_see="A text that is cut but not short; whether a short one says enough.",
    error_rate="Eleven real sets: a text of 400 copies of itself is found in all of nine sets "
    "of even lengths, in 0.71 and 0.44 of two uneven ones, and in none where "
    "lengths differ most (novels); as they are it names 6 rows in 56,000.",
    applies_to=has_texts,
)
def text_lengths(rows: TableRows) -> CheckResult | None:
    """Lists the rows whose number of characters is more than 6 robust standard deviations (of its
    logarithm, around the median) and 20 times from the usual one. Fewer than 100 rows: silent.
    Score: their share of the rows."""
    if len(rows.sample) < _LEAST_ROWS:
        return None
    lengths = pc.utf8_length(rows.sampled).to_numpy().astype(float)
    logs = np.log(np.maximum(lengths, 1))
    usual = float(np.median(logs))
    spread = _NORMAL * float(np.median(np.abs(logs - usual)))
    distance = np.abs(logs - usual)
    places = np.flatnonzero((distance > _MIN_DEVIATIONS * spread) & (distance > np.log(_MIN_RATIO)))
    order = places[np.argsort(-distance[places], kind="stable")]
    typical = round(float(np.exp(usual)))
    short = int((logs[places] < usual).sum())
    notes = [(int(rows.sample[at]), count_phrase(int(lengths[at]), "character")) for at in order]
    return text_finding(
        rows,
        notes,
        f"texts of a length far from the usual {typical} characters ({short} shorter, "
        f"{len(places) - short} longer)",
        "Look at them: a short one may be cut or empty of meaning, a long one several rows that a "
        "missing quote has joined. `treat.rows` leaves rows out.",
        "info",
    )


_SERIOUS_CUT_SHARE = 0.05


@check(
    Tokenized,
    cannot_see="Whether the part that is cut matters.",
    error_rate="Counts of the model's own tokens: never wrong about them.",
    applies_to=has_texts,
)
def truncated_texts(view: Tokenized) -> CheckResult | None:
    """Says how many texts have more tokens than the model's limit, and which share of all tokens is
    cut; a warning from one row in twenty on. Score: the share of the rows."""
    over = np.flatnonzero(view.lengths > view.limit)
    if not len(over):
        return None
    order = over[np.argsort(-view.lengths[over], kind="stable")]
    cut = float((view.lengths[over] - view.limit).sum() / view.lengths.sum())
    ids = view.rows.ids
    share = len(over) / len(view.lengths)
    notes = (CheckExample(int(ids[at]), f"{view.lengths[at]} tokens") for at in order[:20])
    return result(
        ids[order[:100]],
        f"{count_phrase(len(over), 'text')} ({share:.1%}) are longer than the {view.limit} "
        "tokens that "
        f"{view.model} reads: {cut:.1%} of all tokens are cut, of the longest text "
        f"{view.lengths[order[0]] - view.limit} of {view.lengths[order[0]]}",
        "If what matters stands at the end, read more (model.max_length), take a model that does, "
        "or shorten the texts.",
        score=share,
        severity="warn" if share >= _SERIOUS_CUT_SHARE else "info",
        count=len(over),
        examples=tuple(notes),
    )


# What one token holds, with its share of the spaces, for text of the kind that a vocabulary was
# made of: 3.7 to 5.0 characters over English reviews, questions, news, novels, encyclopedia and
# medical notes, with the vocabularies of BERT and GPT-2 alike.
USUAL_CHARACTERS_PER_TOKEN = (3.7, 5.0)
_MIN_CHARACTERS_PER_TOKEN = 3.5
_TOKENS_PER_WORD = (1.05, 1.5)
_MIN_UNKNOWN = 0.01
_SERIOUS_UNKNOWN, _SERIOUS_CHARACTERS_PER_TOKEN = 0.05, 2.0
_MIN_TOKENS = 500
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
    if total < _MIN_TOKENS:
        return None
    characters = np.array([len(" ".join(text.split())) for text in texts])
    characters_per_token = float(characters.sum() / total)
    unknown = float(view.unknown.sum() / total)
    sample = "".join(text[:200] for text in texts[:: max(1, len(texts) // 500)])
    dense = len(_DENSE.findall(sample)) >= 0.1 * max(1, len(sample))
    small = characters_per_token < _MIN_CHARACTERS_PER_TOKEN and not dense
    if not small and unknown < _MIN_UNKNOWN:
        return None
    fit = np.where(small, characters / np.maximum(1, tokens), -view.unknown / np.maximum(1, tokens))
    worst = np.argsort(np.where(tokens >= 5, fit, np.inf), kind="stable")[:_SHOWN]
    ids = view.rows.ids
    sentences = []
    if small:
        fertility = total / max(1, int(view.words.sum()))
        sentences.append(
            f"one token of {view.model} holds {characters_per_token:.1f} characters "
            f"({USUAL_CHARACTERS_PER_TOKEN[0]} to {USUAL_CHARACTERS_PER_TOKEN[1]:.1f} "
            f"in the English that it was made for) and a word takes {fertility:.1f} tokens "
            f"({_TOKENS_PER_WORD[0]} to {_TOKENS_PER_WORD[1]})"
        )
    if unknown >= _MIN_UNKNOWN:
        sentences.append(f"{unknown:.1%} of the tokens are unknown to {view.model}")
    shortfall = max(0.0, 1 - characters_per_token / _MIN_CHARACTERS_PER_TOKEN) if small else 0.0
    return result(
        ids[worst],
        " and ".join(sentences),
        "Take a model made for such texts (language, code, field). If it must be this one, "
        "raise model.max_length, as a text takes more tokens, and train it on plain texts of "
        "this kind first.",
        score=min(1.0, max(unknown, shortfall)),
        severity="warn"
        if unknown >= _SERIOUS_UNKNOWN
        or (small and characters_per_token < _SERIOUS_CHARACTERS_PER_TOKEN)
        else "info",
        count=len(texts),
        examples=(
            CheckExample(int(ids[at]), f"{tokens[at]} tokens for {characters[at]} characters")
            for at in worst.tolist()
        ),
    )
