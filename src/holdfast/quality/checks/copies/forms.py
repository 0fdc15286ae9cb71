"""Rows that are many and say little: one text but for its numbers, a few forms of all."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from holdfast.core.seeds import generator
from holdfast.core.wording import count_phrase
from holdfast.duplicates.vectors import Vectors
from holdfast.quality.check import CheckExample, CheckResult, check, has_texts, result
from holdfast.quality.single import matching_texts
from holdfast.quality.views import Embedded, TableRows

_NUMBER = re.compile(r"(?<!\w)\d+(?:[.,:/-]\d+)*(?!\w)")
_LEAST_ROWS, _SHARE, _LEAST_WORDS = 20, 0.01, 4
# Beyond this, texts that agree but for numbers are near-copies, which another check finds.
_MAX_CHARACTERS = 300


@check(
    TableRows,
    cannot_see="Templates whose slots hold names or words; near-copies show most of those.",
    error_rate="Eleven real sets: found in each where one row in twenty was made of one "
    "template; nothing found in them as they are.",
    applies_to=has_texts,
)
def template_rows(rows: TableRows) -> CheckResult | None:
    """Reports texts, of four words to 300 characters, that at least 20 rows and 1 % of them share
    but for their numbers. Score: the share of rows made so."""
    groups: dict[str, list[tuple[int, str]]] = {}
    for position, text in matching_texts(rows, "[0-9]"):
        if len(text) > _MAX_CHARACTERS:
            continue
        template = " ".join(_NUMBER.sub("0", text).casefold().split())
        groups.setdefault(template, []).append((position, text))
    min_rows = max(_LEAST_ROWS, _SHARE * len(rows.sample))
    templates = [
        (template, members)
        for template, members in groups.items()
        # Plain copies are found by others.
        if len({text for _, text in members}) >= min_rows
        and sum(word.strip(".,;:!?") not in ("", "0") for word in template.split()) >= _LEAST_WORDS
    ]
    if not templates:
        return None
    templates.sort(key=lambda one: (-len(one[1]), one[0]))
    ids = rows.ids
    positions = sorted(position for _, members in templates for position, _ in members)
    shown = "; ".join(
        f"{count_phrase(len(members), 'row')} like {members[0][1][:80]!r}"
        for _, members in templates[:3]
    )
    examples = tuple(
        CheckExample(int(ids[members[0][0]]), "the same but for numbers", int(ids[members[1][0]]))
        for _, members in templates[:20]
    )
    return result(
        ids[positions[:100]],
        f"{count_phrase(len(positions), 'row')}{rows.sample_note} are one of "
        f"{count_phrase(len(templates), 'text')} but for numbers: {shown}",
        "They count as one row each for what can be learned, and parted between the sides they "
        "leak: name a column that tells them apart (--group), or keep a few.",
        score=len(positions) / len(rows.sample),
        count=len(positions),
        examples=examples,
    )


_WORD_OF_TEXT = re.compile(r"\w+")
_LEAST_TABLE = 100
_MIN_EFFECTIVE_ROWS = 15.0
_LEAST_RUNNING_WORDS = 2000
_MIN_GROWTH = 0.2


@check(
    Embedded,
    cannot_see="Whether the world that the rows come from is as narrow as they are.",
    error_rate="Silent on CR, MR, TREC and BANKING77, whole and in samples of 100 rows (43 to "
    "194 rows, growth 0.35 to 0.88), and on samples of news, novels, code and medical talks.",
)
def low_diversity(view: Embedded) -> CheckResult | None:
    """Reports a table of 100 rows or more whose rows say as much as fewer than 15 that have nothing
    in common (the Vendi score of the vectors): rows made from a few forms. It adds how many words
    the second half of the rows brings that the first has not, where they are few (exponent of
    Heaps' law below 0.2, over 2,000 words or more): a small vocabulary alone is no fault. Score:
    how far below the limit the rows are."""
    n = len(view.rows.table)
    effective = effective_rows(view.vectors) if n >= _LEAST_TABLE else _MIN_EFFECTIVE_ROWS
    if effective >= _MIN_EFFECTIVE_ROWS:
        return None
    growth, words = vocabulary_growth(view.rows.texts, view.seed)
    few = ""
    if words >= _LEAST_RUNNING_WORDS and growth < _MIN_GROWTH:
        more = 100 * (2**growth - 1)
        few = f", and the second half of them brings {more:.0f} % more words than the first"
    return result(
        (),
        f"{count_phrase(n, 'row')} say as much as {effective:.0f} that have nothing in common{few}",
        "Gather rows from more places or people: more of the same teaches little, and a test on "
        "the same forms promises too much.",
        score=1 - effective / _MIN_EFFECTIVE_ROWS,
        severity="info",
        count=n,
    )


def effective_rows(vectors: Vectors) -> float:
    """The Vendi score (Friedman and Dieng 2022, 2210.02410): exp of the entropy, in nats, of the
    eigenvalues of the rows' similarity matrix ÷ n. It is 1 where all rows are alike and n where no
    row resembles another, but never above the dimension.

    The similarity is the cosine after the mean of all rows is taken off, or the score of a space
    that uses a narrow cone of itself would say that all texts are alike. The non-zero eigenvalues
    of the n × n matrix are those of the d × d one, which is what is computed. ``vectors`` [n, d];
    fewer than two different rows: 1.
    """
    directions = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    length = np.linalg.norm(directions, axis=1)
    directions = directions[length > 1e-6] / length[length > 1e-6, None]
    if not len(directions):
        return 1.0
    eigenvalues = np.linalg.eigvalsh(directions.T @ directions / len(directions))
    eigenvalues = eigenvalues[eigenvalues > 1e-12]
    return float(np.exp(-(eigenvalues * np.log(eigenvalues)).sum()))


def vocabulary_growth(texts: Sequence[str], seed: int) -> tuple[float, int]:
    """The exponent β of Heaps' law V = K·Nᵝ (Heaps 1978) between half of the running words and all
    of them, the rows in random order; and the running words N. β = log2(V(N) ÷ V(N/2)): 1 where
    every word is new, 0 where no new one comes. English rows have 0.4 to 0.8; rows that are made
    from a few forms far less."""
    rows = [_WORD_OF_TEXT.findall(text.casefold()) for text in texts]
    order = generator(seed, "vocabulary growth").permutation(len(rows))
    words = [word for at in order.tolist() for word in rows[at]]
    half = len({*words[: len(words) // 2]})
    if not half:
        return 1.0, len(words)
    return float(np.log2(len({*words}) / half)), len(words)
