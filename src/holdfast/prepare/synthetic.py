"""``data.synthesize``: generate training rows, filter them, and use them if they help.

The classifier that filters a new text is the linear probe on the base model's features, fitted
without the fold of the text's parents. The same probe, with and without the new rows, decides
whether they are used: the log loss on the validation rows must fall, with the lower bound of a
paired 95 % interval above 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from holdfast.augment.synthesize import NewText, from_templates, recombined, sift, written
from holdfast.contract.fit import PreparedData
from holdfast.core.decisions import notify
from holdfast.core.discovery import suggest_name
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Floats, Ints, softmax
from holdfast.core.seeds import generator
from holdfast.core.wording import signed
from holdfast.data.labels.spelling import label_words
from holdfast.data.source import read_source
from holdfast.data.table import AddedRows, Table, added_texts
from holdfast.models.probes.probe import ExtraRows, fit_probe, folds_of_all
from holdfast.prepare.embedding import has_classes, last_layer_vectors
from holdfast.recipe.parts import SynthesizePart
from holdfast.stats.bootstrap import group_codes
from holdfast.stats.paired_tests import Difference, paired_bootstrap
from holdfast.stats.temperature import losses_at

FOLDS = 5
# Candidates per row that may be used: most are rejected.
SPARE = 4
SHOWN = 100


@dataclass(frozen=True, slots=True)
class _SiftedTexts:
    """The new texts that were ``made``, the ``accepted`` ones, and the number ``refused`` by
    reason."""

    made: Sequence[NewText] = ()
    accepted: Sequence[NewText] = ()
    refused: Mapping[str, int] = field(default_factory=dict)

    @property
    def counts(self) -> str:
        """A summary of how many were made and accepted."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.refused.items())
        return (
            f"{len(self.made)} generated, {len(self.accepted)} accepted "
            f"({reasons or 'none rejected'})"
        )


def with_synthetic(
    prepared: PreparedData, train: Ints, valid: Ints, known: Sequence[Table]
) -> PreparedData:
    """The prepared data with the synthetic rows that the recipe requests, if they help.

    ``known`` are all tables of the run: no new text may duplicate theirs; nothing else is read from
    them. Raises ``RecipeError`` where rows are not single texts with one class each.
    """
    options = prepared.recipe.data.synthesize
    if options is None:
        return prepared
    if not has_classes(prepared):
        rule = "needs single texts with one class each"
        raise RecipeError("data.synthesize", rule, None, "Leave it out for this task.")
    rows, seed = prepared.rows, prepared.recipe.seed
    texts, labels = rows.take(train).column("text"), np.asarray(rows.column("label"))[train]
    folds = folds_of_all(labels, FOLDS, seed)
    candidates = _make_candidates(options, prepared, texts, labels, folds)
    all_texts = [text for table in known for text in table.column("text")]
    if not candidates:
        because = "no text could be generated from these rows"
        return _with_summary(prepared, "none", because, _SiftedTexts(), None)
    row_vectors = last_layer_vectors(prepared, prepared.examples)
    candidate_vectors = _vectors_of_new(prepared, candidates)
    probabilities = _candidate_probabilities(
        candidates, candidate_vectors, row_vectors[train], labels, folds, len(rows.classes), seed
    )
    most = max(1, int(options.share * len(train)))
    selection = sift(candidates, all_texts, candidate_vectors, probabilities, most)
    accepted = [candidates[i] for i in selection.kept]
    sifted = _SiftedTexts(candidates, accepted, selection.refused)
    if not accepted:
        return _with_summary(prepared, "none", sifted.counts, sifted, None)
    accepted_vectors = candidate_vectors[selection.kept]
    gain = _measure_gain(
        prepared, row_vectors, accepted_vectors, accepted, train, valid, options.weight
    )
    because = (
        f"{sifted.counts}; the linear probe's log loss on {gain.n} validation rows falls by "
        f"{signed(gain.value, '+.4f')} (95 % CI {signed(gain.low, '+.4f')} to "
        f"{signed(gain.high, '+.4f')})"
    )
    if not gain.low > 0:
        because = f"{because}, whose 95 % CI does not exclude 0"
        return _with_summary(prepared, "none", because, sifted, gain)
    extended = prepared.extended(_added_rows(rows, accepted, options.weight))
    return _with_summary(extended, f"{len(accepted)}", because, sifted, gain)


def _make_candidates(
    options: SynthesizePart, prepared: PreparedData, texts: Sequence[str], labels: Ints, folds: Ints
) -> list[NewText]:
    """New texts of every requested kind, in random order."""
    classes, rng = prepared.rows.classes, generator(prepared.recipe.seed, "synthesize")
    sizes = np.bincount(labels, minlength=len(classes))
    per_class = max(1, round(SPARE * options.share * len(labels) / max(1, int((sizes > 0).sum()))))
    counts = {int(label): per_class for label in np.flatnonzero(sizes)}
    candidates: list[NewText] = []
    if options.templates is not None:
        candidates += from_templates(read_templates(options.templates, classes), counts, rng)
    if options.recombine:
        candidates += recombined(texts, labels, folds, counts, rng)
    if options.model is not None:
        from holdfast.models.generators.samples import continue_prompts

        name, seed = options.model, prepared.recipe.seed
        names = [label_words(label) or label for label in classes]
        candidates += written(
            lambda prompts: continue_prompts(
                name, prompts, seed=seed, temperature=options.temperature
            ),
            names,
            texts,
            labels,
            folds,
            counts,
            rng,
        )
    return [candidates[i] for i in rng.permutation(len(candidates))]


def read_templates(path: str, classes: Sequence[str]) -> dict[int, list[str]]:
    """Templates by class, from a file with the columns ``label`` and ``text``.

    Raises ``RecipeError`` for other columns and for a label that is not a class.
    """
    raw = read_source(path, None, None)
    if not {"label", "text"} <= set(raw.names):
        rule = "needs the columns label and text"
        raise RecipeError(
            "data.synthesize.templates",
            rule,
            ", ".join(raw.names),
            f"Name the columns like this in {path}.",
        )
    templates: dict[int, list[str]] = {}
    cells = zip(raw.table["label"].to_pylist(), raw.table["text"].to_pylist(), strict=True)
    for label, text in cells:
        if label not in classes:
            rule = "names a label that no row has"
            remedy = suggest_name(str(label), list(classes))
            raise RecipeError("data.synthesize.templates", rule, label, remedy)
        if text and text.strip():
            templates.setdefault(classes.index(label), []).append(text.strip())
    return templates


def _added_rows(like: Table, new_texts: Sequence[NewText], weight: float = 1.0) -> AddedRows:
    """New texts as added rows for ``like``."""
    texts, labels = [one.text for one in new_texts], [one.label for one in new_texts]
    return added_texts(like, texts, labels, origin="synthetic", weights=weight)


def _vectors_of_new(prepared: PreparedData, new_texts: Sequence[NewText]) -> Floats:
    """The features [m, width] of new texts from the base model."""
    table = _added_rows(prepared.rows, new_texts).table
    encoded = prepared.definition.encode(table, prepared.loaded, prepared.recipe)
    return last_layer_vectors(prepared, encoded)


def _candidate_probabilities(
    candidates: Sequence[NewText],
    candidate_vectors: Floats,
    row_vectors: Floats,
    labels: Ints,
    folds: Ints,
    classes: int,
    seed: int,
) -> Floats:
    """The probabilities [m, classes] of the new texts, by a probe that saw none of their
    parents."""
    probabilities, fold_of = (
        np.zeros((len(candidates), classes)),
        np.array([one.fold for one in candidates]),
    )
    for fold in np.unique(fold_of):
        other_folds = folds != fold
        probe = fit_probe(row_vectors[other_folds], labels[other_folds], classes=classes, seed=seed)
        probabilities[fold_of == fold] = softmax(
            probe.logits(candidate_vectors[fold_of == fold].astype(np.float64))
        )
    return probabilities


def _measure_gain(
    prepared: PreparedData,
    row_vectors: Floats,
    accepted_vectors: Floats,
    accepted: Sequence[NewText],
    train: Ints,
    valid: Ints,
    weight: float,
) -> Difference:
    """How much the linear probe's loss on the validation rows falls with the new rows."""
    labels, classes = np.asarray(prepared.rows.column("label")), len(prepared.rows.classes)
    seed = prepared.recipe.seed
    plain = fit_probe(row_vectors[train], labels[train], classes=classes, seed=seed)
    accepted_labels = np.array([one.label for one in accepted], dtype=np.int64)
    extra_rows = ExtraRows(accepted_vectors, accepted_labels, np.full(len(accepted), weight))
    extended = fit_probe(
        row_vectors[train], labels[train], classes=classes, seed=seed, extra_rows=extra_rows
    )
    valid_vectors, valid_labels = row_vectors[valid].astype(np.float64), labels[valid]
    before, after = (
        losses_at(p.logits(valid_vectors), valid_labels, 1.0) for p in (plain, extended)
    )
    return paired_bootstrap(
        before,
        after,
        seed=generator(seed, "synthesize, paired"),
        groups=group_codes(prepared.units[valid], len(valid)),
    )


def _with_summary(
    prepared: PreparedData,
    count_text: str,
    because: str,
    sifted: _SiftedTexts,
    gain: Difference | None,
) -> PreparedData:
    """The prepared data with this decision and a sample of the accepted rows."""
    classes = prepared.rows.classes
    block: dict[str, Any] = {
        "made": dict(Counter(one.by for one in sifted.made)),
        "passed": len(sifted.accepted),
        "refused": dict(sifted.refused),
        "used": count_text != "none",
        "gain": None
        if gain is None
        else {"value": gain.value, "low": gain.low, "high": gain.high, "n": gain.n},
        "rows": [
            {"text": one.text, "label": classes[one.label], "by": one.by}
            for one in sifted.accepted[:SHOWN]
        ],
    }
    notify(Decision("synthetic rows", count_text, because, prominent=True))
    return replace(prepared, synthetic=block)
