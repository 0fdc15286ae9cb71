"""``data.synthesize``: new rows for the training side, made, sifted, and kept where they prove
useful.

The classifier that judges a new text is the linear probe on the untouched model's features, fitted
without the fold that the text's parents are of. Whether the rows are kept is decided by the same
probe with them and without: the log loss of the validation rows must fall, paired, with the lower
end of a 95 % interval above 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from holdfast.augment.synthesize import NewText, from_templates, recombined, sift, written
from holdfast.contract.fit import PreparedData
from holdfast.core.decisions import notify
from holdfast.core.discovery import nearest
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Floats, Ints, softmax
from holdfast.core.seeds import generator
from holdfast.data.labels.spelling import words_of
from holdfast.data.source import read_source
from holdfast.data.table import Table, added_texts
from holdfast.models.probes.probe import ExtraRows, fit_probe, stratified_folds
from holdfast.prepare.embedding import has_classes, last_layer_vectors
from holdfast.recipe.parts import SynthesizePart
from holdfast.stats.paired_tests import Difference, paired_bootstrap
from holdfast.stats.temperature import losses_at

FOLDS = 5
# So many are made for each that may be learned from: most are refused.
SPARE = 4
SHOWN = 100


def with_synthetic(
    prepared: PreparedData, train: Ints, valid: Ints, known: Sequence[Table]
) -> PreparedData:
    """What is prepared, with the synthetic rows that the recipe asks for, where they prove useful.

    ``known`` are all tables of the run, whose texts no new one may copy; nothing else is read of
    them. Raises ``RecipeError`` where rows are no single texts with one class each.
    """
    asked = prepared.recipe.data.synthesize
    if asked is None:
        return prepared
    if not has_classes(prepared):
        rule = "needs single texts with one class each"
        raise RecipeError("data.synthesize", rule, None, "Leave it out for this task.")
    rows, seed = prepared.rows, prepared.recipe.seed
    texts, labels = rows.take(train).column("text"), np.asarray(rows.column("label"))[train]
    folds = stratified_folds(labels, FOLDS, seed)
    folds = np.where(folds < 0, np.arange(len(folds)) % FOLDS, folds)
    made = _made(asked, prepared, texts, labels, folds)
    every = [text for table in known for text in table.column("text")]
    if not made:
        return _with(prepared, "none", "nothing could be made of these rows", made, [], {}, None)
    old = last_layer_vectors(prepared, prepared.examples)
    lot = added_texts(rows, [m.text for m in made], [m.label for m in made], origin="synthetic")
    new = last_layer_vectors(prepared, prepared.kind.encode(lot.table, prepared.loaded, prepared.recipe))
    classes = len(rows.classes)
    chances = _chances(made, new, old[train], labels, folds, classes, seed)
    sifted = sift(made, every, new, chances, max(1, int(asked.share * len(train))))
    kept = [made[i] for i in sifted.kept]
    counts = f"{len(made)} were made, {len(kept)} passed ({_shown(sifted.refused)})"
    if not kept:
        return _with(prepared, "none", counts, made, kept, sifted.refused, None)
    gain = _gain(prepared, old, new[sifted.kept], kept, train, valid, asked.weight)
    brought = (
        f"the probe's log loss on the {gain.n} validation rows falls by {gain.value:+.4f} "
        f"({gain.low:+.4f} to {gain.high:+.4f})"
    )
    if not gain.low > 0:
        because = f"{counts}; {brought}, which may be chance"
        return _with(prepared, "none", because, made, kept, sifted.refused, gain)
    more = added_texts(
        rows,
        [one.text for one in kept],
        [one.label for one in kept],
        origin="synthetic",
        weights=asked.weight,
    )
    prepared = prepared.extended(more)
    because = f"{counts}; {brought}"
    return _with(prepared, f"{len(kept)}", because, made, kept, sifted.refused, gain)


def _made(
    asked: SynthesizePart, prepared: PreparedData, texts: Sequence[str], labels: Ints, folds: Ints
) -> list[NewText]:
    """New texts of every way that is asked for, mixed by chance."""
    classes, rng = prepared.rows.classes, generator(prepared.recipe.seed, "synthesize")
    sizes = np.bincount(labels, minlength=len(classes))
    wanted = max(1, round(SPARE * asked.share * len(labels) / max(1, int((sizes > 0).sum()))))
    count = {int(label): wanted for label in np.flatnonzero(sizes)}
    made: list[NewText] = []
    if asked.templates is not None:
        made += from_templates(read_templates(asked.templates, classes), count, rng)
    if asked.recombine:
        made += recombined(texts, labels, folds, count, rng)
    if asked.model is not None:
        from holdfast.models.generators.samples import continued

        name, seed = asked.model, prepared.recipe.seed
        names = [words_of(label) or label for label in classes]
        made += written(
            lambda prompts: continued(name, prompts, seed=seed, temperature=asked.temperature),
            names,
            texts,
            labels,
            folds,
            count,
            rng,
        )
    return [made[i] for i in rng.permutation(len(made))]


def read_templates(path: str, classes: Sequence[str]) -> dict[int, list[str]]:
    """Templates by class: a file with the columns ``label`` and ``text``.

    Raises ``RecipeError`` for other columns and for a label that is no class.
    """
    raw = read_source(path, None, None)
    if not {"label", "text"} <= set(raw.names):
        rule = "needs the columns label and text"
        raise RecipeError("data.synthesize.templates", rule, ", ".join(raw.names), f"See {path}.")
    found: dict[int, list[str]] = {}
    cells = zip(raw.table["label"].to_pylist(), raw.table["text"].to_pylist(), strict=True)
    for label, text in cells:
        if label not in classes:
            rule = "names a label that no row has"
            remedy = nearest(str(label), list(classes))
            raise RecipeError("data.synthesize.templates", rule, label, remedy)
        if text and text.strip():
            found.setdefault(classes.index(label), []).append(text.strip())
    return found


def _chances(
    made: Sequence[NewText],
    new: Floats,
    old: Floats,
    labels: Ints,
    folds: Ints,
    classes: int,
    seed: int,
) -> Floats:
    """The probabilities [m, classes] of the new texts, by a probe that saw no parent of theirs."""
    found, fold_of = np.zeros((len(made), classes)), np.array([one.fold for one in made])
    for fold in np.unique(fold_of):
        there = folds != fold
        probe = fit_probe(old[there], labels[there], classes=classes, seed=seed)
        found[fold_of == fold] = softmax(probe.logits(new[fold_of == fold].astype(np.float64)))
    return found


def _gain(
    prepared: PreparedData,
    old: Floats,
    new: Floats,
    kept: Sequence[NewText],
    train: Ints,
    valid: Ints,
    weight: float,
) -> Difference:
    """By how much the probe's loss on the validation rows falls with the new rows."""
    labels, classes = np.asarray(prepared.rows.column("label")), len(prepared.rows.classes)
    seed = prepared.recipe.seed
    plain = fit_probe(old[train], labels[train], classes=classes, seed=seed)
    marks = np.array([one.label for one in kept], dtype=np.int64)
    beside = ExtraRows(new, marks, np.full(len(kept), weight))
    both = fit_probe(old[train], labels[train], classes=classes, seed=seed, beside=beside)
    held, wanted = old[valid].astype(np.float64), labels[valid]
    before, after = (losses_at(p.logits(held), wanted, 1.0) for p in (plain, both))
    return paired_bootstrap(before, after, seed=generator(seed, "synthesize, paired"))


def _shown(refused: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in refused.items()) or "none refused"


def _with(
    prepared: PreparedData,
    chosen: str,
    because: str,
    made: Sequence[NewText],
    kept: Sequence[NewText],
    refused: Mapping[str, int],
    gain: Difference | None,
) -> PreparedData:
    """What is prepared, with what was decided and the first of the rows that passed."""
    classes = prepared.rows.classes
    block: dict[str, Any] = {
        "made": dict(Counter(one.by for one in made)),
        "passed": len(kept),
        "refused": dict(refused),
        "used": chosen != "none",
        "gain": None
        if gain is None
        else {"value": gain.value, "low": gain.low, "high": gain.high, "n": gain.n},
        "rows": [
            {"text": one.text, "label": classes[one.label], "by": one.by} for one in kept[:SHOWN]
        ],
    }
    notify(Decision("synthetic rows", chosen, because, prominent=True))
    return replace(prepared, synthetic=block)
