"""Unusual text lengths, texts beyond the model's token limit, and a tokenizer that does not fit."""

from __future__ import annotations

import re

import numpy as np
import pyarrow.compute as pc

from holdfast.core.wording import count_phrase, percent_phrase
from holdfast.quality.check import CheckExample, CheckResult, check, has_texts, result
from holdfast.quality.single import text_finding
from holdfast.quality.views import TableRows, Tokenized

_LEAST_ROWS = 100
# The median absolute deviation of normal values times this estimates their standard deviation.
_NORMAL = 1.4826
_MIN_DEVIATIONS, _MIN_RATIO = 6.0, 20.0


@check(
    TableRows,
    cannot_see="A truncated text that is not short; whether a short text is long enough.",
    error_rate="Eleven real data sets with planted texts that repeat themselves 400 times. In nine "
    "sets with similar lengths it finds all of them, in two with varied lengths 71 % and 44 %, and "
    "where lengths vary most (novels) none. In the unmodified sets it lists 6 of 56,000 rows.",
    applies_to=has_texts,
)
def text_lengths(rows: TableRows) -> CheckResult | None:
    """Lists the rows with an unusual number of characters: more than 6 robust standard deviations
    (of the logarithm) and more than a factor of 20 away from the median. It needs 100 rows. Score:
    their share of the rows."""
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
        f"a length far from the median of {typical} characters ({short} shorter, "
        f"{len(places) - short} longer)",
        "Review them. A short text may be truncated or meaningless; a long one may be several rows "
        "that a missing quotation mark has joined. `clean.rows` removes rows.",
        "info",
    )


_SERIOUS_CUT_SHARE = 0.05


@check(
    Tokenized,
    cannot_see="Whether the part that is cut matters.",
    error_rate="Exact: it counts the model's own tokens.",
    applies_to=has_texts,
)
def truncated_texts(view: Tokenized) -> CheckResult | None:
    """Counts the texts with more tokens than the model's limit, and the share of all tokens that is
    truncated. The length of a chat includes its answers, as in training; plain texts of a language
    model are split into blocks and never truncated. It is a warning from 5 % of the rows on. Score:
    the share of the rows."""
    lengths = view.trained_lengths
    over = np.flatnonzero(lengths > view.limit)
    if not len(over):
        return None
    order = over[np.argsort(-lengths[over], kind="stable")]
    cut = float((lengths[over] - view.limit).sum() / lengths.sum())
    ids = view.rows.ids
    share = len(over) / len(lengths)
    notes = (CheckExample(int(ids[at]), f"{lengths[at]} tokens") for at in order[:20])
    return result(
        ids[order[:100]],
        f"{count_phrase(len(over), 'text')} ({percent_phrase(share, 1)} of the rows) "
        f"{'is' if len(over) == 1 else 'are'} longer than the {view.limit} tokens that "
        f"{view.model} reads: {percent_phrase(cut, 1)} of all tokens are truncated, "
        f"in the longest text {lengths[order[0]] - view.limit} of {lengths[order[0]]}",
        "If the end of the texts matters, raise model.max_length, use a model with a longer "
        "context, or shorten the texts.",
        score=share,
        severity="warn" if share >= _SERIOUS_CUT_SHARE else "info",
        count=len(over),
        examples=tuple(notes),
    )


# Characters per token, spaces included, for text of the kind that a vocabulary was made from: 3.7
# to 5.0 on English reviews, questions, news, novels, encyclopedia and medical notes, for the
# vocabularies of both BERT and GPT-2.
USUAL_CHARACTERS_PER_TOKEN = (3.7, 5.0)
_MIN_CHARACTERS_PER_TOKEN = 3.5
_TOKENS_PER_WORD = (1.05, 1.5)
_MIN_UNKNOWN = 0.01
_SERIOUS_UNKNOWN, _SERIOUS_CHARACTERS_PER_TOKEN = 0.05, 2.0
_MIN_TOKENS = 500
_SHOWN = 5
# Scripts without spaces write a word in one or two characters, whatever the vocabulary.
_DENSE = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
)


@check(
    Tokenized,
    cannot_see="A domain whose common words have other meanings, and what the model learned beyond "
    "its vocabulary.",
    error_rate="With the vocabularies of BERT and GPT-2 it reports nothing on 13 English data sets "
    "(CR, MR, TREC, BANKING77, news, novels, encyclopedia, medical talks and others). It reports "
    "Spanish, Python code and random strings.",
)
def domain_mismatch(view: Tokenized) -> CheckResult | None:
    """Reports texts that do not fit the model's tokenizer: fewer than 3.5 characters per token
    (text of its own domain has 3.7 to 5.0), or 1 % or more unknown tokens.

    It needs 500 tokens. It ignores characters per token if a tenth of the characters are of a
    script without spaces. It is a warning below 2 characters per token or from 5 % unknown tokens
    on. Score: the share of unknown tokens, or how far characters per token fall short of 3.5.
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
            f"a token of {view.model} covers {characters_per_token:.1f} characters "
            f"({USUAL_CHARACTERS_PER_TOKEN[0]} to {USUAL_CHARACTERS_PER_TOKEN[1]:.1f} "
            f"in the English text that it was made for) and a word needs {fertility:.1f} tokens "
            f"(usually {_TOKENS_PER_WORD[0]} to {_TOKENS_PER_WORD[1]})"
        )
    if unknown >= _MIN_UNKNOWN:
        sentences.append(f"{percent_phrase(unknown, 1)} of the tokens are unknown to {view.model}")
    shortfall = max(0.0, 1 - characters_per_token / _MIN_CHARACTERS_PER_TOKEN) if small else 0.0
    return result(
        ids[worst],
        " and ".join(sentences),
        "Use a model made for such texts (language, code, domain). If you must use this one, "
        "raise model.max_length, because a text needs more tokens, and first train it on "
        "unlabelled texts of this kind.",
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
