"""Names of classes: written in two ways, like a missing value, contradicted by their rows."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace

import numpy as np

from holdfast.core.wording import count_phrase, has_or_have, list_phrase
from holdfast.data.labels.spelling import spelling_decision, label_words
from holdfast.quality.check import CheckResult, check, result, with_classes
from holdfast.quality.names import centred, judge_names
from holdfast.quality.views import Embedded, TableRows

_BETWEEN = re.compile(r"[\s_-]+")
_MISSING = {"nan", "null", "n/a", "#n/a", "<na>", "undefined"}


@check(
    TableRows,
    cannot_see="Classes that mean the same in other words.",
    error_rate="Accuses two classes that only case parts; none on CR, MR, TREC, BANKING77.",
    holds_for=with_classes,
)
def label_variants(rows: TableRows) -> CheckResult | None:
    """Reports classes that differ only in case or in spaces, hyphens and underscores between
    letters, and spellings that were merged when the file was read. Numbers are left alone. Score:
    their share of the classes; 0 for what was merged."""
    table = rows.table
    groups: dict[str, list[str]] = defaultdict(list)
    for name in table.classes:
        # ``1`` and ``-1`` are two classes.
        if any(character.isalpha() for character in name):
            groups[_BETWEEN.sub(" ", name.casefold()).strip()].append(name)
    twice = [names for names in groups.values() if len(names) > 1]
    if not twice:
        merged = spelling_decision(table.decisions)
        if merged is None:
            return None
        remedy = "Write each class in one way, so that other programs read the same classes."
        found = result((), merged.because, remedy, score=0.0, severity="info", count=merged.rows)
        return CheckResult(replace(found.finding, fixed=True))
    same = {name for names in twice for name in names}
    counts = rows.class_counts
    count = sum(int(counts[n]) for n, name in enumerate(table.classes) if name in same)
    shown = "; ".join(" = ".join(map(repr, names)) for names in twice[:5])
    return result(
        (),
        f"classes that seem to be one written in several ways: {shown}",
        "Write each class in one way.",
        score=len(same) / len(table.classes),
        count=count,
    )


@check(
    TableRows,
    cannot_see="Names of its own for an unknown label, such as 'other'.",
    error_rate="Accuses a class that is really called so; none on CR, MR, TREC, BANKING77.",
    holds_for=with_classes,
)
def missing_as_class(rows: TableRows) -> CheckResult | None:
    """Reports classes named like a missing value (``nan``, ``null``, ``n/a``, ``<na>`` …). ``none``
    and ``NA`` are left alone, as they are often meant. Score: their share of the rows."""
    table = rows.table
    counts = rows.class_counts
    found = [n for n, name in enumerate(table.classes) if name.casefold() in _MISSING and counts[n]]
    if not found:
        return None
    count = int(counts[found].sum())
    shown = ", ".join(repr(table.classes[n]) for n in found)
    return result(
        (),
        f"{count_phrase(count, 'row')} {has_or_have(count)} a class named like a missing value: {shown}",
        "Leave the cell empty where the label is not known.",
        score=count / len(table),
        count=count,
    )


LEAST_ROWS = 10
MOST_ROWS = 5000
SHOWN = 4


@check(
    Embedded,
    cannot_see="Names that the model does not know, and two names for one thing.",
    error_rate="Nothing on BANKING77; of 20 pairs of its names that were exchanged 16 were told.",
    holds_for=with_classes,
)
def names_against_rows(view: Embedded) -> CheckResult | None:
    """Reports classes whose rows lie nearer to more than half of the other names than to their own
    (``quality/names.py``), and pairs of classes whose rows lie nearer to each other's name: names
    that were exchanged. Only classes that are named in words and have 10 rows, three of them at
    least, and only where the names as a whole agree with the rows: where they do not, the model
    does not know what they mean. Score: the share of the names that are contradicted.
    """
    classes, labels = view.rows.table.classes, view.rows.labels
    counts = np.bincount(labels[labels >= 0], minlength=len(classes))
    named = {
        k: words
        for k, name in enumerate(classes)
        if counts[k] >= LEAST_ROWS and (words := label_words(name)) is not None
    }
    if len(named) < 3:
        return None
    place = np.full(len(classes), -1)
    place[list(named)] = np.arange(len(named))
    rows = np.flatnonzero((labels >= 0) & (place[labels] >= 0))
    rows = rows[:: -(-len(rows) // MOST_ROWS)]
    vectors, marks = view.vectors[rows], place[labels[rows]]
    names = view.embed(list(named.values()))
    judged = judge_names(vectors, marks, names, seed=view.seed)
    if not judged.agree:
        return None
    known = list(named)
    # Pairs of names of which each lies nearer to the other's rows than to its own, and nearest of
    # all to them.
    middles = np.stack([vectors[marks == k].mean(axis=0) for k in range(len(names))])
    near = centred(middles) @ centred(names).T
    best = near.argmax(axis=1)
    pairs = [(a, int(b)) for a, b in enumerate(best) if a < b and best[b] == a]
    wrong = sorted({*judged.contradicted, *(k for pair in pairs for k in pair)})
    if not wrong:
        return None
    inside = np.flatnonzero(np.isin(labels, [known[k] for k in wrong]))
    ids = view.rows.ids
    return result(
        ids[inside],
        _said(pairs, wrong, [classes[k] for k in known]),
        "See whether these classes carry the right names: names are read by people, and learned "
        "from as rows.",
        score=len(wrong) / len(named),
    )


def _said(pairs: list[tuple[int, int]], wrong: list[int], names: list[str]) -> str:
    told = [f"{names[a]!r} and {names[b]!r} seem exchanged" for a, b in pairs[:SHOWN]]
    exchanged = {k for pair in pairs for k in pair}
    rest = [repr(names[k]) for k in wrong if k not in exchanged]
    if rest:
        shown = list_phrase(rest, SHOWN, ", ", " …")
        told.append(f"the rows of {shown} lie nearer to most other names than to their own")
    return "; ".join(told)
