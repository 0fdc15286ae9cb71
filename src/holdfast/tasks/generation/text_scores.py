"""Scores, copy counts and examples of generated texts, for a bounded, fixed sample of rows.

Shared by every task that generates: the task brings the texts, this file computes the numbers. The
copy counts say what texts repeat: training targets, their source, themselves, or one text for all.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.core.printable import shorten
from holdfast.core.records import Estimate, Ints
from holdfast.core.seeds import generator
from holdfast.metrics import TextMetric, Texts
from holdfast.metrics.text_scores import OVERLAPS, estimate, need_score_packages, overlap_scores

SHOWN = 20
SHOWN_CHARACTERS = 1500

__all__ = [
    "COUNTS",
    "OVERLAPS",
    "Generated",
    "count_copies",
    "frequent_answer",
    "generations_block",
    "need_score_packages",
    "overlap_scores",
    "sample_positions",
    "score_generated",
]


@dataclass(frozen=True, slots=True)
class Generated:
    """Texts of some rows: ``rows`` source positions, the ``sources`` they were made from, their
    ``references``, the ``texts`` of the trained model and of the ``untuned`` one (``None`` where it
    generated none), ``groups`` or ``None``, the ``tables`` that generated code runs on; all [n].
    """

    rows: Ints
    sources: Sequence[str]
    references: Sequence[str]
    texts: Sequence[str]
    untuned: Sequence[str] | None = None
    groups: object = None
    tables: Sequence[str | None] | None = None

    def __len__(self) -> int:
        return len(self.rows)


def sample_positions(n: int, most: int, seed: int, *names: str) -> Ints:
    """Which of ``n`` rows are generated: at most ``most``, fixed by the seed, in ascending
    order.
    """
    order = generator(seed, "generation sample", *names).permutation(n)
    return np.sort(order[:most])


def score_generated(
    generated: Generated,
    *,
    seed: int = 0,
    level: float = 0.95,
    untuned: bool = False,
    extra: Sequence[TextMetric] = (),
) -> dict[str, Estimate]:
    """The metrics of ``overlap_scores``, and the ``extra`` ones, for the trained model's texts or
    the ``untuned`` one's.
    """
    texts = generated.untuned if untuned else generated.texts
    if texts is None:
        return {}
    scores = overlap_scores(
        generated.references, texts, groups=generated.groups, seed=seed, level=level
    )
    written = Texts(generated.references, texts, generated.sources, generated.tables)
    for metric in extra:
        scores[metric.name] = estimate(
            metric, written, groups=generated.groups, seed=seed, level=level
        )
    return scores


def frequent_answer(answers: Sequence[str]) -> str | None:
    """The most frequent of the training ``answers``, where at least two rows and a twentieth of all
    have it: a model that answers from a set has to be better than one that never reads its input.
    """
    counts = Counter(map(normal, answers))
    most, count = counts.most_common(1)[0] if counts else ("", 0)
    if not most or count < 2 or count < FREQUENT * len(answers):
        return None
    return next(answer for answer in answers if normal(answer) == most)


def generations_block(
    train: Generated,
    test: Generated,
    training_answers: Sequence[str],
    settings: Mapping[str, object],
) -> dict[str, Any]:
    """``generations`` of ``result.json``: the first rows of both samples, the counts on both splits
    for both models, what the counts mean, and how the texts were generated.
    """
    counts: dict[str, Any] = {}
    for split, generated in (("train", train), ("test", test)):
        arguments = (generated.sources, generated.references)
        counts[split] = count_copies(*arguments, generated.texts, training_answers)
        if generated.untuned is not None:
            counts[f"{split}_untuned"] = count_copies(
                *arguments, generated.untuned, training_answers
            )
    return {
        "settings": settings,
        "train": _shown(train),
        "test": _shown(test),
        "counts": counts,
        "meaning": dict(COUNTS),
    }


def _shown(generated: Generated) -> list[dict[str, Any]]:
    untuned: Sequence[str | None] = generated.untuned or [None] * len(generated)
    lines = zip(
        generated.rows,
        generated.sources,
        generated.references,
        generated.texts,
        untuned,
        strict=True,
    )
    return [
        {
            "row": int(row),
            "source": shorten(source, SHOWN_CHARACTERS),
            "reference": shorten(reference, SHOWN_CHARACTERS),
            "generated": shorten(text, SHOWN_CHARACTERS),
            "untuned": None if other is None else shorten(other, SHOWN_CHARACTERS),
        }
        for row, source, reference, text, other in list(lines)[:SHOWN]
    ]


_WORD = re.compile(r"\S+")
_WHITE = re.compile(r"\s+")
# Up to 20 characters ten times in a row, for scripts and models without white space.
_STUCK = re.compile(r"(\S.{0,19}?)\1{9,}", re.DOTALL)
COPIED_WORDS = 8
LOOP_WORDS = 4
LOOP_TIMES = 3
COLLAPSED_ROWS = 3
FREQUENT = 0.05

COUNTS = {
    "training_answer": "identical to a training target",
    "wrong_training_answer": "identical to a training target that is not their reference (not "
    "counted where two training rows share the reference)",
    "source_copied": f"{COPIED_WORDS} or more consecutive words of the source, or all of it",
    "repetition": f"the same {LOOP_WORDS} words {LOOP_TIMES} times, or one piece over and over",
    "empty": "empty",
    "collapsed": "the same text for several different references (less those with that text)",
}


def count_copies(
    sources: Sequence[str],
    references: Sequence[str],
    generated: Sequence[str],
    training_answers: Sequence[str],
) -> dict[str, int]:
    """How many of the ``generated`` texts [n] match each of ``COUNTS``, and ``n``.

    Texts are compared without regard to white space and case. On training rows, a text identical to
    a training target may be its own (memorized) or another's (``wrong_training_answer``). Where a
    reference is the target of two training rows, the rows share a set of answers (yes or no, the
    names of classes), and another of them is an error, but no memorized text.
    ``collapsed`` counts rows whose text occurs for at least ``COLLAPSED_ROWS`` rows, of which two
    references or more differ, less the references that have that text. ``source_copied`` does not
    count what the reference itself copies of the source.
    """
    answers = Counter(map(normal, training_answers))
    normal_references, texts = [normal(r) for r in references], [normal(text) for text in generated]
    wrong = [a != b and answers[a] < 2 for a, b in zip(normal_references, texts, strict=True)]
    known = [bool(text) and text in answers for text in texts]
    lines = zip(sources, references, generated, strict=True)
    return {
        "n": len(texts),
        "training_answer": sum(known),
        "wrong_training_answer": sum(a and b for a, b in zip(known, wrong, strict=True)),
        "source_copied": sum(copies_source(*line) for line in lines),
        "repetition": sum(loops(text) for text in texts),
        "empty": sum(not text for text in texts),
        "collapsed": _collapsed(normal_references, texts),
    }


def copies_source(source: str, reference: str, text: str) -> bool:
    """Whether ``text`` is its source, or holds a run of its words that the reference does not."""
    plain = normal(text)
    if not plain or plain == normal(reference):
        return False
    if plain == normal(source):
        return True
    # A good summary quotes its source as its reference does.
    runs = _runs(plain, COPIED_WORDS) - _runs(normal(reference), COPIED_WORDS)
    return bool(runs & _runs(normal(source), COPIED_WORDS))


def loops(text: str) -> bool:
    """Whether the same words repeat ``LOOP_TIMES`` times without an end."""
    words = _WORD.findall(text)
    runs = Counter(tuple(words[i : i + LOOP_WORDS]) for i in range(len(words) - LOOP_WORDS + 1))
    is_repeated = any(count >= LOOP_TIMES for count in runs.values())
    stuck = any(len(set(words[i : i + 6])) == 1 for i in range(len(words) - 5))
    return is_repeated or stuck or _STUCK.search(text) is not None


def normal(text: str) -> str:
    """Lower-case, with each run of white space as one space."""
    return _WHITE.sub(" ", text).strip().lower()


def _runs(text: str, size: int) -> set[tuple[str, ...]]:
    words = _WORD.findall(text)
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


def _collapsed(references: Sequence[str], texts: Sequence[str]) -> int:
    meant: dict[str, list[str]] = {}
    for reference, text in zip(references, texts, strict=True):
        if text:
            meant.setdefault(text, []).append(reference)
    expected = Counter(references)
    return sum(
        max(0, len(of_text) - expected[text])
        for text, of_text in meant.items()
        if len(of_text) >= COLLAPSED_ROWS and len(set(of_text)) > 1
    )
