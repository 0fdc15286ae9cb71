"""Tables with little variety: rows from one template, and few effective rows."""

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
# Longer texts that differ only in numbers are near-duplicates, which another check finds.
_MAX_CHARACTERS = 300


@check(
    TableRows,
    cannot_see="Templates whose slots hold names or words; near_duplicates finds most of those.",
    error_rate="Eleven real data sets: found in each where one row in twenty was made from one "
    "template; nothing reported on the unmodified sets.",
    applies_to=has_texts,
)
def template_rows(rows: TableRows) -> CheckResult | None:
    """Reports templates: texts that at least 20 rows and 1 % of the rows share except for their
    numbers. A template has at least four words and at most 300 characters. Score: the share of rows
    that come from a template."""
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
        # Other checks find exact duplicates.
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
        CheckExample(int(ids[members[0][0]]), "differ only in numbers", int(ids[members[1][0]]))
        for _, members in templates[:20]
    )
    return result(
        ids[positions[:100]],
        f"{count_phrase(len(positions), 'row')}{rows.sample_note} come from "
        f"{count_phrase(len(templates), 'template')} and differ only in numbers: {shown}",
        "Keep a few rows of each template, or give the rows of a template a common group (--group) "
        "so that no template is in two splits. A template teaches about as much as one row.",
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
    cannot_see="Whether the rows of the application are as uniform as these.",
    error_rate="Reports nothing on CR, MR, TREC and BANKING77, complete or in samples of 100 rows "
    "(43 to 194 effective rows, growth 0.35 to 0.88), nor on samples of news, novels, code and "
    "medical talks.",
)
def low_diversity(view: Embedded) -> CheckResult | None:
    """Reports a table of 100 rows or more with fewer than 15 effective rows (the Vendi score of
    the vectors): the rows come from a few templates. If the vocabulary hardly grows (exponent of
    Heaps' law below 0.2, over 2,000 words or more), it also states how many new words the second
    half of the rows adds. A small vocabulary by itself is not reported. Score: how far below the
    limit the number of effective rows is."""
    n = len(view.rows.table)
    effective = effective_rows(view.vectors) if n >= _LEAST_TABLE else _MIN_EFFECTIVE_ROWS
    if effective >= _MIN_EFFECTIVE_ROWS:
        return None
    growth, words = vocabulary_growth(view.rows.texts, view.seed)
    few = ""
    if words >= _LEAST_RUNNING_WORDS and growth < _MIN_GROWTH:
        more = 100 * (2**growth - 1)
        few = f", and their second half adds only {more:.0f} % new words to the first"
    return result(
        (),
        f"{count_phrase(n, 'row')} have the variety of {effective:.0f} dissimilar rows{few}",
        "Collect rows from more sources or authors. More rows of the same kind teach little, and a "
        "test on the same templates overestimates the accuracy.",
        score=1 - effective / _MIN_EFFECTIVE_ROWS,
        severity="info",
        count=n,
    )


def effective_rows(vectors: Vectors) -> float:
    """The Vendi score (Friedman and Dieng 2022, 2210.02410): exp of the entropy, in nats, of the
    eigenvalues of the rows' similarity matrix ÷ n. It is 1 if all rows are identical and n if no
    row is similar to another, but never above the dimension.

    The similarity is the cosine after the mean of all rows is subtracted. Otherwise, in a space
    that uses only a narrow cone, the score would call all texts similar. The non-zero eigenvalues
    of the n × n matrix equal those of the d × d matrix, which is what is computed. ``vectors``
    [n, d]; with fewer than two different rows the score is 1.
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
    of them, with the rows in random order; and the number of running words N. β = log2(V(N) ÷
    V(N/2)): 1 if every word is new, 0 if none is. English rows have 0.4 to 0.8; rows made from a
    few templates have far less."""
    rows = [_WORD_OF_TEXT.findall(text.casefold()) for text in texts]
    order = generator(seed, "vocabulary growth").permutation(len(rows))
    words = [word for at in order.tolist() for word in rows[at]]
    half = len({*words[: len(words) // 2]})
    if not half:
        return 1.0, len(words)
    return float(np.log2(len({*words}) / half)), len(words)
