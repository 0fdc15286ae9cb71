"""Signals that lie around unused: the names of classes and their descriptions become weighted rows
of the training side.

A name is the shortest description of a class, and the model has read millions of texts that use
it: where a class has few rows, a name is worth several of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from holdfast.contract.fit import PreparedData
from holdfast.core.decisions import notify
from holdfast.core.discovery import nearest
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Finding, Ints
from holdfast.core.seeds import generator
from holdfast.core.wording import counted, listing
from holdfast.data.labels.spelling import words_of
from holdfast.data.source import read_source
from holdfast.data.table import Added, Table, added_texts
from holdfast.prepare.embedding import has_classes, last_layer_vectors
from holdfast.quality.names import NamesJudged, judge_names
from holdfast.recipe import DataPart

# Rows that a name counts as. A probe on frozen features of BANKING77, TREC, CR and MR gained nearly
# the same with 0.5, 1, 2 and 4.
NAME_WEIGHT = 2.0
DESCRIPTION_WEIGHT = 2.0
# With 164 training rows a class (CR, MR) names gave such a probe a tenth of a point, with 55 (TREC)
# seven tenths, with 4 to 5 (BANKING77) two and more.
MOST_ROWS_A_CLASS = 100
# Rows that the names are held against.
JUDGED_ROWS = 1000
# Names for some classes only would pull rows towards these.
LEAST_NAMED = 0.8
CHECK = "class_names"
ClassNames = tuple[tuple[str, str], ...]


def with_signals(prepared: PreparedData, train: Ints, known: Sequence[Table] = ()) -> PreparedData:
    """What is prepared, with the names and descriptions of its classes as added rows where the
    recipe or the rows at ``train`` call for them, no description a copy of a row of the ``known``
    tables; its recipe says what was chosen, so that it gives the same again."""
    data = prepared.recipe.data
    if not has_classes(prepared):
        _refuse_without_classes(prepared)
        return prepared
    names = _named(prepared, train)
    if names:
        prepared = prepared.extended(_added(prepared.rows, names, "name", NAME_WEIGHT))
    if data.descriptions is not None:
        told = read_descriptions(data, prepared.rows)
        every = [(label, text) for label, texts in told.items() for text in texts]
        lines = _no_rows(every, known)
        if len(lines) < len(every):
            notify(_rows_described(len(every) - len(lines), len(every)))
        if lines:
            prepared = prepared.extended(
                _added(prepared.rows, lines, "description", DESCRIPTION_WEIGHT)
            )
        described = len({label for label, _ in lines})
        because = (
            f"{data.descriptions}: {len(lines)} of {counted(len(every), 'line')} are learned from"
        )
        notify(Decision("class descriptions", f"{described} classes", because, prominent=True))
    return replace(prepared, recipe=prepared.recipe.changed(data={"names": dict(names) or False}))


def _no_rows(lines: list[tuple[str, str]], known: Sequence[Table]) -> list[tuple[str, str]]:
    """The lines that copy no row, which may be held out, whatever its side."""
    from holdfast.duplicates.duplicates import find_copies

    texts: list[str] = [text for table in known for text in table.column("text")]
    if not texts:
        return lines
    groups = find_copies([*texts, *(text for _, text in lines)]).groups
    taken = np.isin(groups[len(texts) :], groups[: len(texts)])
    return [line for line, copy in zip(lines, taken.tolist(), strict=True) if not copy]


def _rows_described(copied: int, lines: int) -> Finding:
    because = (
        f"{copied:,} of {lines:,} descriptions are copies of rows of the source or of a test or "
        "validation file: they are left out, for what is held out must not be learned from"
    )
    return Finding("descriptions", "warn", copied / lines, copied, (), because, "", True)


def _named(prepared: PreparedData, train: Ints) -> ClassNames:
    """Which names are used, as pairs of a class and its words: those that the recipe gives, or the
    labels where they are words that their rows bear out."""
    wanted, classes = prepared.recipe.data.names, prepared.rows.classes
    if wanted is False:
        return ()
    if isinstance(wanted, Mapping):
        _check_labels("data.names", wanted, classes)
        because = "data.names says so: each is a row of its class in training, of weight 2"
        pairs = tuple((label, wanted[label]) for label in classes if label in wanted)
        return _used(pairs, because)
    words = {label: words_of(label) for label in classes}
    pairs = tuple((label, text) for label, text in words.items() if text is not None)
    if wanted is True:
        if not pairs:
            rule = "needs labels that are words"
            remedy = "Give them: data.names={LABEL: its words, …}."
            raise RecipeError("data.names", rule, ", ".join(classes[:5]), remedy)
        because = "data.names says so: each is a row of its class in training, of weight 2"
        return _used(pairs, because)
    why_not = _why_not(prepared, train, pairs)
    if why_not:
        return _left_out(why_not)
    return _borne_out(prepared, train, pairs)


def _why_not(prepared: PreparedData, train: Ints, pairs: Sequence[tuple[str, str]]) -> str | None:
    """Why names are not even held against the rows."""
    classes = prepared.rows.classes
    if len(pairs) < LEAST_NAMED * len(classes) or len(pairs) < 2:
        unnamed = next((c for c in classes if words_of(c) is None), classes[0])
        return (
            f"{len(classes) - len(pairs)} of {len(classes)} labels, such as {unnamed!r}, are no "
            "words (data.names={LABEL: its words, …} gives them some)"
        )
    if len({text for _, text in pairs}) < len(pairs):
        return "two classes would have the same name"
    present = np.unique(prepared.rows.column("label")[train])
    a_class = len(train) / max(1, len(present))
    if a_class > MOST_ROWS_A_CLASS:
        return (
            f"{a_class:,.0f} training rows a class say more than its name: nothing was gained "
            f"above {MOST_ROWS_A_CLASS}"
        )
    return None


def _borne_out(prepared: PreparedData, train: Ints, pairs: ClassNames) -> ClassNames:
    """The names that the training rows do not contradict."""
    judged, known = _judge(prepared, train, pairs)
    share = (
        f"{judged.recall:.0%} of the training rows are nearest to their own class's name "
        f"(mean of the classes; chance {judged.chance:.0%}, permutation test, p = {judged.p:.3f})"
    )
    if not judged.agree:
        return _left_out(f"the rows do not bear them out: {share}")
    against = {known[place] for place in judged.contradicted}
    kept = tuple(pair for pair in pairs if pair[0] not in against)
    if len(kept) < max(2, LEAST_NAMED * len(prepared.rows.classes)):
        return _left_out(f"{len(against)} of them are contradicted by their rows; {share}")
    because = f"{share}; each is a row of its class in training, of weight 2"
    if against:
        notify(_contradicted(sorted(against)))
    return _used(kept, because)


def _judge(
    prepared: PreparedData, train: Ints, pairs: Sequence[tuple[str, str]]
) -> tuple[NamesJudged, tuple[str, ...]]:
    """Names against a sample of the training rows; and the classes, in the order of the names."""
    classes, seed = prepared.rows.classes, prepared.recipe.seed
    known = tuple(label for label, _ in pairs)
    place = {classes.index(label): i for i, label in enumerate(known)}
    labels = prepared.rows.column("label")
    named = train[np.isin(labels[train], list(place))]
    order = generator(seed, "names judged").permutation(len(named))
    sample = np.sort(named[order[:JUDGED_ROWS]])
    lot = _added(prepared.rows, pairs, "name", 1.0)
    encoded = prepared.kind.encode(lot.table, prepared.loaded, prepared.recipe)
    rows = last_layer_vectors(prepared, prepared.examples, sample)
    marks = np.array([place[int(label)] for label in labels[sample]], dtype=np.int64)
    return judge_names(rows, marks, last_layer_vectors(prepared, encoded), seed=seed), known


def _used(pairs: ClassNames, because: str) -> ClassNames:
    shown = f"{len(pairs)}: {listing([text for _, text in pairs], 3, ', ', ', …')}"
    notify(Decision("class names", shown, because, prominent=True))
    return pairs


def _left_out(because: str) -> ClassNames:
    notify(Decision("class names", "left out", because))
    return ()


def _contradicted(labels: Sequence[str]) -> Finding:
    shown = listing([*map(repr, labels)], 5, ", ", " …")
    return Finding(
        CHECK,
        "info",
        0.5,
        len(labels),
        (),
        f"the rows of {shown} lie nearer to most other classes' names than to their own: these "
        "names are not learned from",
        "Give them better words: data.names={LABEL: its words, …}.",
        True,
    )


def _added(like: Table, pairs: Sequence[tuple[str, str]], origin: str, weight: float) -> Added:
    place = {label: index for index, label in enumerate(like.classes)}
    texts, labels = [text for _, text in pairs], [place[label] for label, _ in pairs]
    return added_texts(like, texts, labels, origin=origin, weights=weight)


def read_descriptions(data: DataPart, rows: Table) -> dict[str, list[str]]:
    """The texts of ``data.descriptions`` by class: a file with a label and a text a line.

    Raises ``RecipeError`` for a label that is no class and for a file without texts.
    """
    path = str(data.descriptions)
    raw = read_source(path, data.encoding, None)
    names = {name.strip().lower(): name for name in raw.names}
    label = names.get("label", names.get("class"))
    text = names.get("text", names.get("description"))
    if label is None or text is None:
        rule = "needs the columns label and text (or class and description)"
        raise RecipeError("data.descriptions", rule, ", ".join(raw.names), f"Name them in {path}.")
    told: dict[str, list[str]] = {}
    pairs = zip(raw.table[label].to_pylist(), raw.table[text].to_pylist(), strict=True)
    for one, words in pairs:
        if words is not None and words.strip():
            told.setdefault(str(one).strip(), []).append(words.strip())
    if not told:
        raise RecipeError("data.descriptions", "has no text", path, "Write a line a class.")
    _check_labels("data.descriptions", told, rows.classes)
    return told


def _check_labels(key: str, given: Mapping[str, object], classes: Sequence[str]) -> None:
    for label in given:
        if label not in classes:
            raise RecipeError(key, "names a label that no row has", label, nearest(label, classes))


def _refuse_without_classes(prepared: PreparedData) -> None:
    data = prepared.recipe.data
    for key, value in (("names", data.names), ("descriptions", data.descriptions)):
        if value:
            raise RecipeError(
                f"data.{key}",
                "needs single texts with one class each",
                None,
                "Leave it out for this task.",
            )
