"""Class names and their descriptions as weighted training rows.

A name is the shortest description of a class, and the model has read millions of texts that use it.
Where a class has few rows, its name is worth several of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from holdfast.contract.fit import PreparedData
from holdfast.core.decisions import notify
from holdfast.core.discovery import suggest_name
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Finding, Ints
from holdfast.core.seeds import generator
from holdfast.core.wording import count_phrase, list_phrase, percent_phrase
from holdfast.data.labels.spelling import label_words
from holdfast.data.source import read_source
from holdfast.data.table import AddedRows, Table, added_texts
from holdfast.prepare.embedding import has_classes, last_layer_vectors
from holdfast.quality.names import NameAgreement, compare_names
from holdfast.recipe import DataPart

# The weight of a name in rows. Linear probes on frozen features of BANKING77, TREC, CR and MR
# gained nearly the same with 0.5, 1, 2 and 4.
NAME_WEIGHT = 2.0
DESCRIPTION_WEIGHT = 2.0
# Gains of such a probe by names: 0.1 points with 164 training rows per class (CR, MR), 0.7 points
# with 55 (TREC), 2 points or more with 4 to 5 (BANKING77).
MAX_ROWS_PER_CLASS = 100
# The most rows that the names are compared with.
JUDGED_ROWS = 1000
# With names for only some classes, predictions would shift towards these classes.
MIN_NAMED_SHARE = 0.8
CHECK = "class_names"
NAMED = "set in the recipe: data.class_names; each is a training row of its class, of weight 2"
ClassNames = tuple[tuple[str, str], ...]


def with_signals(prepared: PreparedData, train: Ints, known: Sequence[Table] = ()) -> PreparedData:
    """The prepared data with class names and descriptions as added rows, where the recipe or the
    rows at ``train`` call for them. No description is a duplicate of a row of the ``known`` tables.
    The recipe records the choice, so that a repeated run makes the same one."""
    data = prepared.recipe.data
    if not has_classes(prepared):
        _refuse_without_classes(prepared)
        return prepared
    names = _choose_names(prepared, train)
    if names:
        prepared = prepared.extended(_added_rows(prepared.rows, names, "name", NAME_WEIGHT))
    if data.descriptions is not None:
        descriptions = read_descriptions(data, prepared.rows)
        all_lines = [(label, text) for label, texts in descriptions.items() for text in texts]
        lines = _without_row_copies(all_lines, known)
        if len(lines) < len(all_lines):
            notify(_copied_descriptions_finding(len(all_lines) - len(lines), len(all_lines)))
        if lines:
            prepared = prepared.extended(
                _added_rows(prepared.rows, lines, "description", DESCRIPTION_WEIGHT)
            )
        described = len({label for label, _ in lines})
        because = (
            f"{data.descriptions}: {len(lines)} of "
            f"{count_phrase(len(all_lines), 'line')} are used for training"
        )
        notify(Decision("class descriptions", f"{described} classes", because, prominent=True))
    return replace(
        prepared, recipe=prepared.recipe.with_changes(data={"names": dict(names) or False})
    )


def _without_row_copies(
    lines: list[tuple[str, str]], known: Sequence[Table]
) -> list[tuple[str, str]]:
    """The lines that duplicate no row in any split, since the row may be held out."""
    from holdfast.duplicates.duplicates import find_duplicates

    texts: list[str] = [text for table in known for text in table.column("text")]
    if not texts:
        return lines
    groups = find_duplicates([*texts, *(text for _, text in lines)]).groups
    is_copy = np.isin(groups[len(texts) :], groups[: len(texts)])
    return [line for line, copy in zip(lines, is_copy.tolist(), strict=True) if not copy]


def _copied_descriptions_finding(copied: int, lines: int) -> Finding:
    because = (
        f"{copied:,} of {lines:,} descriptions were dropped: they duplicate rows of the source or "
        "of a test or validation file, and held-out rows must not be learned from"
    )
    return Finding("descriptions", "warn", copied / lines, copied, (), because, "", True)


def _choose_names(prepared: PreparedData, train: Ints) -> ClassNames:
    """The names to use, as pairs of a class and its words: those that the recipe gives, or the
    labels where they are words that agree with their rows."""
    requested, classes = prepared.recipe.data.names, prepared.rows.classes
    if requested is False:
        return ()
    if isinstance(requested, Mapping):
        _check_labels("data.class_names", requested, classes)
        pairs = tuple((label, requested[label]) for label in classes if label in requested)
        return _accept_names(pairs, NAMED)
    words = {label: label_words(label) for label in classes}
    pairs = tuple((label, text) for label, text in words.items() if text is not None)
    if requested is True:
        if not pairs:
            rule = "needs labels that are words"
            remedy = "Give names in the recipe: data.class_names={LABEL: its words, …}."
            raise RecipeError("data.class_names", rule, ", ".join(classes[:5]), remedy)
        return _accept_names(pairs, NAMED)
    why_not = _rejection_reason(prepared, train, pairs)
    if why_not:
        return _reject_names(why_not)
    return _supported_names(prepared, train, pairs)


def _rejection_reason(
    prepared: PreparedData, train: Ints, pairs: Sequence[tuple[str, str]]
) -> str | None:
    """Why the names are not used, before they are compared with the rows; ``None`` if they may
    be."""
    classes = prepared.rows.classes
    if len(pairs) < MIN_NAMED_SHARE * len(classes) or len(pairs) < 2:
        unnamed = next((c for c in classes if label_words(c) is None), classes[0])
        return (
            f"{len(classes) - len(pairs)} of {len(classes)} labels, such as {unnamed!r}, are not "
            "words (data.class_names={LABEL: its words, …} gives them names)"
        )
    if len({text for _, text in pairs}) < len(pairs):
        return "two classes would have the same name"
    present = np.unique(prepared.rows.column("label")[train])
    a_class = len(train) / max(1, len(present))
    if a_class > MAX_ROWS_PER_CLASS:
        return (
            f"with {a_class:,.0f} training rows per class a name adds little: no gain was measured "
            f"above {MAX_ROWS_PER_CLASS} rows"
        )
    return None


def _supported_names(prepared: PreparedData, train: Ints, pairs: ClassNames) -> ClassNames:
    """The names that the training rows do not contradict."""
    judged, labels = _judge_names(prepared, train, pairs)
    share = (
        f"{percent_phrase(judged.recall)} of the training rows are nearest to the name of "
        "their own class "
        f"(mean over classes; chance {percent_phrase(judged.chance)}, permutation test, p = "
        f"{judged.p:.3f})"
    )
    if not judged.agree:
        return _reject_names(f"the rows do not agree with the names: {share}")
    contradicted = {labels[place] for place in judged.contradicted}
    accepted = tuple(pair for pair in pairs if pair[0] not in contradicted)
    if len(accepted) < max(2, MIN_NAMED_SHARE * len(prepared.rows.classes)):
        return _reject_names(f"{len(contradicted)} names disagree with their rows; {share}")
    because = f"{share}; each is a training row of its class, of weight 2"
    if contradicted:
        notify(_contradicted_finding(sorted(contradicted)))
    return _accept_names(accepted, because)


def _judge_names(
    prepared: PreparedData, train: Ints, pairs: Sequence[tuple[str, str]]
) -> tuple[NameAgreement, tuple[str, ...]]:
    """Compare the names with a sample of the training rows. Also returns the classes, in the order
    of the names."""
    classes, seed = prepared.rows.classes, prepared.recipe.seed
    labels_named = tuple(label for label, _ in pairs)
    index_of = {classes.index(label): i for i, label in enumerate(labels_named)}
    labels = prepared.rows.column("label")
    has_name = train[np.isin(labels[train], list(index_of))]
    order = generator(seed, "names judged").permutation(len(has_name))
    sample = np.sort(has_name[order[:JUDGED_ROWS]])
    name_rows = _added_rows(prepared.rows, pairs, "name", 1.0)
    encoded = prepared.definition.encode(name_rows.table, prepared.loaded, prepared.recipe)
    rows = last_layer_vectors(prepared, prepared.examples, sample)
    targets = np.array([index_of[int(label)] for label in labels[sample]], dtype=np.int64)
    return compare_names(
        rows, targets, last_layer_vectors(prepared, encoded), seed=seed
    ), labels_named


def _accept_names(pairs: ClassNames, because: str) -> ClassNames:
    shown = f"{len(pairs)}: {list_phrase([text for _, text in pairs], 3, ', ', ', …')}"
    notify(Decision("class names", shown, because, prominent=True))
    return pairs


def _reject_names(because: str) -> ClassNames:
    notify(Decision("class names", "left out", because))
    return ()


def _contradicted_finding(labels: Sequence[str]) -> Finding:
    shown = list_phrase([*map(repr, labels)], 5, ", ", " …")
    return Finding(
        CHECK,
        "info",
        0.5,
        len(labels),
        (),
        f"the rows of {shown} are nearer to the names of most other classes than to their own: "
        "these names are not used for training",
        "Give them better names in the recipe: data.class_names={LABEL: its words, …}.",
        True,
    )


def _added_rows(
    like: Table, pairs: Sequence[tuple[str, str]], origin: str, weight: float
) -> AddedRows:
    place = {label: index for index, label in enumerate(like.classes)}
    texts, labels = [text for _, text in pairs], [place[label] for label, _ in pairs]
    return added_texts(like, texts, labels, origin=origin, weights=weight)


def read_descriptions(data: DataPart, rows: Table) -> dict[str, list[str]]:
    """The texts of ``data.descriptions`` by class: a file with one label and one text per line.

    Raises ``RecipeError`` for a label that is not a class and for a file without texts.
    """
    path = str(data.descriptions)
    raw = read_source(path, data.encoding, None)
    names = {name.strip().lower(): name for name in raw.names}
    label = names.get("label", names.get("class"))
    text = names.get("text", names.get("description"))
    if label is None or text is None:
        rule = "needs the columns label and text (or class and description)"
        remedy = f"Name the columns like this in {path}."
        raise RecipeError("data.descriptions", rule, ", ".join(raw.names), remedy)
    descriptions: dict[str, list[str]] = {}
    pairs = zip(raw.table[label].to_pylist(), raw.table[text].to_pylist(), strict=True)
    for one, words in pairs:
        if words is not None and words.strip():
            descriptions.setdefault(str(one).strip(), []).append(words.strip())
    if not descriptions:
        raise RecipeError(
            "data.descriptions", "has no text", path, "Write at least one line for each class."
        )
    _check_labels("data.descriptions", descriptions, rows.classes)
    return descriptions


def _check_labels(key: str, given: Mapping[str, object], classes: Sequence[str]) -> None:
    for label in given:
        if label not in classes:
            raise RecipeError(
                key, "names a label that no row has", label, suggest_name(label, classes)
            )


def _refuse_without_classes(prepared: PreparedData) -> None:
    data = prepared.recipe.data
    for key, value in (("names", data.names), ("descriptions", data.descriptions)):
        if value:
            rule = "needs single texts with one class each"
            raise RecipeError(f"data.{key}", rule, None, "Leave it out for this task.")
