"""Class names: spelling variants, names of missing values, names that their rows contradict."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace

import numpy as np

from holdfast.core.wording import count_phrase, has_or_have, list_phrase
from holdfast.data.labels.spelling import label_words, spelling_decision
from holdfast.quality.check import CheckResult, check, has_classes, result
from holdfast.quality.names import centred, compare_names
from holdfast.quality.views import Embedded, TableRows

_SEPARATORS = re.compile(r"[\s_-]+")
_MISSING = {"nan", "null", "n/a", "#n/a", "<na>", "undefined"}


@check(
    TableRows,
    cannot_see="Classes whose names are synonyms.",
    error_rate="Wrong where two different classes differ only in case. Reports nothing on CR, MR, "
    "TREC and BANKING77.",
    applies_to=has_classes,
)
def label_variants(rows: TableRows) -> CheckResult | None:
    """Reports classes whose names differ only in case or in spaces, hyphens and underscores, and
    spellings that Holdfast merged when it read the file. Names without a letter are ignored.
    Score: their share of the classes; 0 for merged spellings."""
    table = rows.table
    groups: dict[str, list[str]] = defaultdict(list)
    for name in table.classes:
        # ``1`` and ``-1`` are two classes.
        if any(character.isalpha() for character in name):
            groups[_SEPARATORS.sub(" ", name.casefold()).strip()].append(name)
    variants = [names for names in groups.values() if len(names) > 1]
    if not variants:
        merged = spelling_decision(table.decisions)
        if merged is None:
            return None
        remedy = "Use one spelling per class, so that other programs read the same classes."
        merged_result = result(
            (), merged.because, remedy, score=0.0, severity="info", count=merged.rows
        )
        return CheckResult(replace(merged_result.finding, fixed=True))
    variant_names = {name for names in variants for name in names}
    counts = rows.class_counts
    count = sum(int(counts[n]) for n, name in enumerate(table.classes) if name in variant_names)
    shown = "; ".join(" = ".join(map(repr, names)) for names in variants[:5])
    return result(
        (),
        f"some classes seem to be spelling variants of one class: {shown}",
        "Use one spelling per class.",
        score=len(variant_names) / len(table.classes),
        count=count,
    )


@check(
    TableRows,
    cannot_see="Other names for an unknown label, such as 'other'.",
    error_rate="Wrong where a class really has such a name. Reports nothing on CR, MR, TREC and "
    "BANKING77.",
    applies_to=has_classes,
)
def missing_as_class(rows: TableRows) -> CheckResult | None:
    """Reports classes named like a missing value (``nan``, ``null``, ``n/a``, ``<na>`` …). ``none``
    and ``NA`` are ignored, because they are often real classes. Score: their share of the rows."""
    table = rows.table
    counts = rows.class_counts
    missing_classes = [
        n for n, name in enumerate(table.classes) if name.casefold() in _MISSING and counts[n]
    ]
    if not missing_classes:
        return None
    count = int(counts[missing_classes].sum())
    shown = ", ".join(repr(table.classes[n]) for n in missing_classes)
    return result(
        (),
        f"{count_phrase(count, 'row')} {has_or_have(count)} a class named like a missing "
        f"value: {shown}",
        "Leave the label cell empty where the label is unknown.",
        score=count / len(table),
        count=count,
    )


LEAST_ROWS = 10
MAX_ROWS = 5000
SHOWN = 4


@check(
    Embedded,
    cannot_see="Names that the model does not know, and two names for the same concept.",
    error_rate="Reports nothing on BANKING77. Of 20 pairs of swapped names of BANKING77 it found "
    "16.",
    applies_to=has_classes,
)
def names_against_rows(view: Embedded) -> CheckResult | None:
    """Reports classes whose rows are closer to more than half of the other class names than to
    their own (``quality/names.py``), and pairs of classes whose rows are closer to each other's
    name (swapped names). It needs three classes or more that are named in words and have 10 rows
    each. It reports only if the names, taken together, fit the rows; otherwise the model does not
    know what they mean. Score: the share of the names that are contradicted.
    """
    classes, labels = view.rows.table.classes, view.rows.labels
    counts = np.bincount(labels[labels >= 0], minlength=len(classes))
    words_of_class = {
        k: words
        for k, name in enumerate(classes)
        if counts[k] >= LEAST_ROWS and (words := label_words(name)) is not None
    }
    if len(words_of_class) < 3:
        return None
    name_index = np.full(len(classes), -1)
    name_index[list(words_of_class)] = np.arange(len(words_of_class))
    rows = np.flatnonzero((labels >= 0) & (name_index[labels] >= 0))
    rows = rows[:: -(-len(rows) // MAX_ROWS)]
    vectors, name_labels = view.vectors[rows], name_index[labels[rows]]
    names = view.embed(list(words_of_class.values()))
    agreement = compare_names(vectors, name_labels, names, seed=view.seed)
    if not agreement.agree:
        return None
    class_indices = list(words_of_class)
    # Pairs of classes where each one's nearest name is the other's.
    centres = np.stack([vectors[name_labels == k].mean(axis=0) for k in range(len(names))])
    name_similarity = centred(centres) @ centred(names).T
    best = name_similarity.argmax(axis=1)
    pairs = [(a, int(b)) for a, b in enumerate(best) if a < b and best[b] == a]
    wrong = sorted({*agreement.contradicted, *(k for pair in pairs for k in pair)})
    if not wrong:
        return None
    wrong_rows = np.flatnonzero(np.isin(labels, [class_indices[k] for k in wrong]))
    ids = view.rows.ids
    return result(
        ids[wrong_rows],
        _describe_names(pairs, wrong, [classes[k] for k in class_indices]),
        "Check that these classes have the correct names. Both readers and methods that use class "
        "names rely on them.",
        score=len(wrong) / len(words_of_class),
    )


def _describe_names(pairs: list[tuple[int, int]], wrong: list[int], names: list[str]) -> str:
    sentences = [f"{names[a]!r} and {names[b]!r} seem to be swapped" for a, b in pairs[:SHOWN]]
    exchanged = {k for pair in pairs for k in pair}
    rest = [repr(names[k]) for k in wrong if k not in exchanged]
    if rest:
        shown = list_phrase(rest, SHOWN, ", ", " …")
        sentences.append(f"the rows of {shown} are closer to most other names than to their own")
    return "; ".join(sentences)
