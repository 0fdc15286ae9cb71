"""Selection of feature columns and what they add to the text: ``data.features``.

The text part is trained as usual. The layer over the columns (``contract/extra_features.py``) is
then fitted on the training rows *with the text's logits held fixed*. Those are not the trained
network's own logits: it is overconfident on rows that it learned from, which would leave the
columns nothing to explain. They are the linear probe's, each from a fit that had not seen the row.
A column therefore counts by what it adds to the text.

1. The penalty is the one with the smallest cross-validated loss. A column is kept where permuting
   its cells between rows raises that loss, and where a permutation test of its association with
   the classes given the text (``unlike_chance``) rejects, by Holm's method over all requested
   columns. If some columns are pure noise, one or more of them is kept in ``ALPHA`` of all runs at
   most; a weak column may be left out. The kept columns are fitted again.
2. The gain must hold out of fold (paired, the lower end of a 95 % interval above 0), and the mean
   loss of the validation rows must fall with the trained network's own logits. Otherwise the
   columns are not used, and the run says so.

Rows of one group (``data.group``) are in one fold and count together in the intervals, and the
permutation test exchanges groups: labels that are alike in a group would otherwise make any column
that is constant in it look useful.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from holdfast.contract.extra_features import (
    ExtraFeaturesLayer,
    ExtraFeaturesResult,
    encode_columns,
    fit_extra_features,
)
from holdfast.contract.fit import FittedModel
from holdfast.contract.predictions import group_codes_of
from holdfast.core.errors import DataError, RecipeError
from holdfast.core.records import Decision, Finding, Floats, Ints, softmax
from holdfast.core.seeds import generator
from holdfast.core.wording import p_value_phrase, percent_phrase, signed
from holdfast.data.columns.extra import (
    AUTO,
    Column,
    ColumnRequest,
    candidate_columns,
    check_has_columns,
    column_cells,
    fit_column,
    parse_column_requests,
    with_extra_columns,
)
from holdfast.data.raw import Raw
from holdfast.data.table import Table
from holdfast.models.probes.head_fit import HeadType, fit_head
from holdfast.models.probes.probe import folds_of_all
from holdfast.stats.bootstrap import sums
from holdfast.stats.paired_tests import Difference, paired_bootstrap
from holdfast.stats.temperature import best_temperature, losses_at
from holdfast.stats.two_samples import holm
from holdfast.tasks.classes.classifier import kept_temperature
from holdfast.training.task import labels_of

FOLDS = 5
GRID = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
# The probability, over all columns, that a column without information on the classes is kept.
ALPHA = 0.05
PERMUTATION = "permutation test, Holm"
EXCHANGES = 999
# A column that predicts nearly every row by itself is probably the label in disguise.
GIVEAWAY = 0.98
# More rows than these do not make a proposal more reliable, and they make the fits slower.
MOST_ROWS = 5_000


@dataclass(frozen=True, slots=True)
class FoldLosses:
    """Out-of-fold losses: the penalty ``c``, the losses [n] at it, and for each column the losses
    [n] when its cells are permuted between rows.
    """

    c: float
    losses: Floats
    permuted: tuple[Floats, ...]


def requested_columns(given: tuple[str, ...] | bool | None) -> tuple[ColumnRequest, ...]:
    """The columns that ``data.features`` names: none for ``false``, and none for ``auto``, which
    only proposes.

    Raises ``RecipeError`` for ``true``.
    """
    if given is True:
        remedy = "Name them, [price, shop], or let auto propose some."
        raise RecipeError("data.features", "names no columns", True, remedy)
    return () if not given or given == (AUTO,) else parse_column_requests(given)


def fitted_columns(given: tuple[str, ...] | bool | None, rows: Table) -> tuple[Column, ...]:
    """The columns that ``data.features`` names, with types inferred from the training ``rows``.

    Raises ``DataError`` for a column that cannot be read as that type, ``RecipeError`` for one that
    is missing.
    """
    requests = requested_columns(given)
    check_has_columns(rows, requests)
    return tuple(fit_column(one, column_cells(rows, one.name)) for one in requests)


def with_side(fitted: FittedModel) -> FittedModel:
    """The fit with the requested feature columns, where they prove useful."""
    training_plan, seed = fitted.training_plan, fitted.recipe.seed
    rows = training_plan.splits.train_rows.table
    columns = fitted_columns(fitted.recipe.data.features, rows)
    if not columns:
        return fitted
    labels = labels_of(training_plan.train)
    text = _text_logits(fitted, labels)
    known = np.isfinite(text).all(axis=1)
    rows, labels, text = rows.take(np.flatnonzero(known)), labels[known], text[known]
    units = group_codes_of(rows)
    plain = _losses(text, labels)
    first = cross_fitted(columns, rows, labels, text, seed)
    gains = [_paired(losses, first.losses, seed, units) for losses in first.permuted]
    p_values = holm(unlike_chance(columns, rows, labels, text, seed))
    is_useful = [gain.value > 0 and p <= ALPHA for gain, p in zip(gains, p_values, strict=True)]
    selected = tuple(itertools.compress(columns, is_useful))
    shown = _importance(columns, gains, p_values, selected)
    if not selected:
        least = p_value_phrase(float(p_values.min()), PERMUTATION)
        because = f"no column predicts the classes better than its permuted cells ({least})"
        return _without(fitted, shown, because, None)
    last = first if selected == columns else cross_fitted(selected, rows, labels, text, seed)
    out = _paired(plain, last.losses, seed, units)
    brought = (
        f"{signed(out.value, '+.4f')} ({signed(out.low, '+.4f')} to "
        f"{signed(out.high, '+.4f')}) nats out of fold"
    )
    if not out.low > 0:
        because = f"they lower the loss by {brought}, which chance may explain"
        if math.isnan(out.low):
            because = "all training rows are of one group, which does not show how groups differ"
        return _without(fitted, shown, because, None if math.isnan(out.low) else out)
    weight, bias = fit_extra_features(encode_columns(selected, rows), labels, text, last.c)
    layer, on_valid = _fitted_to(
        fitted, ExtraFeaturesLayer(selected, training_plan.task.classes, weight, bias)
    )
    checked = f"by {signed(on_valid.value, '+.4f')} on the {on_valid.n} validation rows"
    if not on_valid.value > 0:
        because = f"they lower the loss by {brought}, but {checked}"
        return _without(fitted, shown, because, out, on_valid)
    names = ", ".join(column.name for column in selected)
    because = f"they lower the loss by {brought}, {checked}"
    if left_out := ", ".join(column.name for column in columns if column not in selected):
        because += f"; left out because chance is not excluded ({PERMUTATION}, 5 %): {left_out}"
    decision = Decision("feature columns", names, because, prominent=True)
    result = ExtraFeaturesResult(
        layer, decision, _block(True, shown, out, on_valid), _giveaways(columns, rows)
    )
    return replace(fitted, extra_features=result)


def cross_fitted(
    columns: Sequence[Column], rows: Table, labels: Ints, text: Floats, seed: int
) -> FoldLosses:
    """Fit the layer over ``columns`` on folds of the rows [n] and apply it to the other rows.

    ``text`` are logits [n, classes], which were made out of fold themselves.
    """
    parts = [column.encode(column_cells(rows, column.name)) for column in columns]
    x, ends = np.column_stack(parts), np.cumsum([0, *(part.shape[1] for part in parts)])
    folds = folds_of_all(labels, FOLDS, seed, group_codes_of(rows))
    best: tuple[float, float, list[Any]] | None = None
    for c in GRID:
        fits = [
            fit_extra_features(x[folds != f], labels[folds != f], text[folds != f], c)
            for f in range(FOLDS)
        ]
        total = float(_losses(_asked(fits, folds, x, text), labels).mean())
        if best is None or total < best[0]:
            best = (total, c, fits)
    assert best is not None
    _, c, fits = best
    rng, permuted = generator(seed, "side columns"), []
    for start, end in itertools.pairwise(ends):
        other = x.copy()
        other[:, start:end] = x[rng.permutation(len(x)), start:end]
        permuted.append(_losses(_asked(fits, folds, other, text), labels))
    losses = _losses(_asked(fits, folds, x, text), labels)
    return FoldLosses(c, losses, tuple(permuted))


def unlike_chance(
    columns: Sequence[Column], rows: Table, labels: Ints, text: Floats, seed: int
) -> Floats:
    """The p-value of each column [columns] that it carries no information on the classes beyond the
    ``text`` logits.

    With R = (label is k) − softmax(text + rates) [n, classes] and the column's centred numbers X,
    ‖Xᵀ R‖², the slope of the loss where the column has no weight, is compared with that of permuted
    cells: exact for a column that is independent of all else. The other columns are not in R, so
    two columns with the same information both pass the test.

    With groups a column that is constant in each is permuted between groups, which is exact for
    groups of any sizes; another one between groups of one size and within each group.
    """
    _, bias = fit_extra_features(np.zeros((len(labels), 0)), labels, text, 1.0)
    rest = -softmax(text + bias)
    rest[np.arange(len(labels)), labels] += 1
    units = group_codes_of(rows)
    _, first, unit, size = np.unique(
        np.arange(len(labels)) if units is None else units,
        return_index=True,
        return_inverse=True,
        return_counts=True,
    )
    by_unit = sums(rest, unit, len(first))
    numbers = [column.encode(column_cells(rows, column.name)) for column in columns]
    constant = [bool((x == x[first][unit]).all()) for x in numbers]
    centred = [x - x.mean(axis=0) for x in numbers]
    centred = [x[first] if whole else x for x, whole in zip(centred, constant, strict=True)]

    def slopes(of_units: Floats, of_rows: Floats) -> Floats:
        parts = zip(centred, constant, strict=True)
        return np.array(
            [((x.T @ (of_units if whole else of_rows)) ** 2).sum() for x, whole in parts]
        )

    observed = slopes(by_unit, rest) * (1 - 1e-9)
    rng, beyond = generator(seed, "side columns, chance"), np.zeros(len(columns))
    places, exchanged = np.lexsort((unit, size[unit])), rest.copy()
    # Enough permutations that the smallest p-value can pass Holm's first step.
    count = max(EXCHANGES, math.ceil(2 * len(columns) / ALPHA))
    for _ in range(count):
        order = rng.permutation(len(first))
        if not all(constant):
            chance = rng.random(len(unit))
            # Groups of one size take each other's places, with their rows in any order.
            exchanged[places] = rest[np.lexsort((chance, order[unit], size[unit]))]
        beyond += slopes(by_unit[order], exchanged) >= observed
    return (1 + beyond) / (1 + count)


def _asked(fits: Sequence[tuple[Floats, Floats]], folds: Ints, x: Floats, text: Floats) -> Floats:
    logits = np.array(text, dtype=np.float64)
    for fold, (weight, bias) in enumerate(fits):
        here = folds == fold
        logits[here] += x[here] @ weight.T + bias
    return logits


def _text_logits(fitted: FittedModel, labels: Ints) -> Floats:
    """The linear probe's logits of the training rows [n, classes], each from a fold that had not
    seen the row; NaN where a class has one row only.
    """
    from holdfast.training.observe import Observer

    training_plan, job = fitted.training_plan, fitted.job
    network = fitted.base_network()
    observer = Observer(job.accelerator, job.task, alone=True)
    features = observer.features(network, training_plan.train, np.arange(len(training_plan.train)))
    classes = len(training_plan.task.classes)
    head_kind: HeadType = fitted.recipe.train.head or "both"
    probe = fit_head(
        features, labels, classes=classes, seed=fitted.recipe.seed, head_type=head_kind
    )
    held_out = probe.held_out
    return np.full((len(labels), classes), np.nan) if held_out is None else np.asarray(held_out)


def _fitted_to(
    fitted: FittedModel, layer: ExtraFeaturesLayer
) -> tuple[ExtraFeaturesLayer, Difference]:
    """Calibrate the layer with the trained network, and measure its gain on the validation rows.

    One temperature calibrates the sum. It is folded into the layer; the text part's folder keeps
    its own. Shifts by ``rates`` keep their size.
    """
    training_plan, temperature = fitted.training_plan, kept_temperature(fitted)
    logits, labels = fitted.valid_logits, labels_of(training_plan.valid)
    table, classes = training_plan.splits.valid_rows.table, training_plan.task.classes
    both = layer.add(logits / temperature, table, classes)
    calm = best_temperature(both, labels, smoothing=1)[0]
    shift = fitted.rates.shift if fitted.rates else np.zeros(len(classes))
    bias = layer.bias / calm + (1 - 1 / calm) * shift
    calibrated_layer = replace(layer, weight=layer.weight / calm, bias=bias, scale=1 / calm)
    plain = losses_at(logits, labels, temperature)
    gain = _paired(plain, losses_at(both, labels, calm), fitted.recipe.seed, group_codes_of(table))
    return calibrated_layer, gain


def _losses(logits: Floats, labels: Ints) -> Floats:
    return losses_at(logits, labels, 1.0)


def _paired(before: Floats, after: Floats, seed: int, units: Ints | None) -> Difference:
    return paired_bootstrap(
        before, after, seed=generator(seed, "side columns, paired"), groups=units
    )


def _importance(
    columns: Sequence[Column],
    gains: Sequence[Difference],
    p_values: Floats,
    selected: Sequence[Column],
) -> list[dict[str, Any]]:
    return [
        {
            "name": column.name,
            "kind": column.kind,
            "kept": column in selected,
            "importance": {"value": gain.value, "low": gain.low, "high": gain.high},
            "p_value": p,
            "test": PERMUTATION,
        }
        for column, gain, p in zip(columns, gains, p_values.tolist(), strict=True)
    ]


def _block(
    is_used: bool,
    shown: Sequence[Mapping[str, object]],
    out: Difference | None,
    valid: Difference | None,
) -> dict[str, Any]:
    def gain(found: Difference | None) -> dict[str, Any] | None:
        if found is None:
            return None
        return {"value": found.value, "low": found.low, "high": found.high, "n": found.n}

    return {
        "kind": "features" if is_used else None,
        "folder": "features" if is_used else None,
        "columns": list(shown),
        "gain_out_of_fold": gain(out),
        "gain_valid": gain(valid),
    }


def _without(
    fitted: FittedModel,
    shown: Sequence[Mapping[str, object]],
    because: str,
    out: Difference | None,
    valid: Difference | None = None,
) -> FittedModel:
    decision = Decision("feature columns", "none", because, prominent=True)
    result = ExtraFeaturesResult(None, decision, _block(False, shown, out, valid), ())
    return replace(fitted, extra_features=result)


def _giveaways(columns: Sequence[Column], rows: Table) -> tuple[Finding, ...]:
    """Findings for columns that predict nearly every training row by themselves."""
    findings = []
    for column in columns:
        right = _alone(column, rows)[0]
        if right >= GIVEAWAY:
            findings.append(_giveaway(column.name, right, len(rows)))
    return tuple(findings)


def _giveaway(name: str, right: float, rows: int) -> Finding:
    return Finding(
        "side_giveaway",
        "warn",
        right,
        rows,
        (),
        f"column {name!r} predicts {percent_phrase(right)} of the rows by itself, out of fold: it "
        "may be the label by another name, or be filled in after the label",
        "Leave it out if it is not available at prediction time.",
    )


def _alone(column: Column, rows: Table) -> tuple[float, Difference]:
    """What a column predicts by itself, out of fold: the share of rows that it classifies
    correctly, and by how much it lowers the log loss of the class frequencies.
    """
    x, labels = column.encode(column_cells(rows, column.name)), np.asarray(rows.column("label"))
    classes, units = int(labels.max()) + 1, group_codes_of(rows)
    folds, nothing = folds_of_all(labels, FOLDS, 0, units), np.zeros((len(labels), classes))
    fits, rates = [], np.zeros((len(labels), classes))
    for fold in range(FOLDS):
        there = folds != fold
        fits.append(fit_extra_features(x[there], labels[there], nothing[there], 1.0))
        counts = np.bincount(labels[there], minlength=classes) + 0.5
        rates[~there] = np.log(counts / counts.sum())
    logits = _asked(fits, folds, x, nothing)
    gain = _paired(_losses(rates, labels), _losses(logits, labels), 0, units)
    return float((logits.argmax(axis=1) == labels).mean()), gain


def proposals(table: Table, raw: Raw) -> tuple[Finding, ...]:
    """Columns that ``data.features=auto`` finds in the source: those that predict the label out of
    fold, and those that predict it too well.
    """
    columns = table.columns
    used = tuple(filter(None, (*columns.text, columns.label, columns.group)))
    requests = candidate_columns(raw, used)
    if len(table) > MOST_ROWS:
        sample = generator(0, "side columns, proposed").permutation(len(table))[:MOST_ROWS]
        table = table.take(np.sort(sample))
    table, findings = with_extra_columns(table, raw, requests), []
    for one in requests:
        try:
            column = fit_column(one, column_cells(table, one.name))
        except DataError:
            continue
        right, gain = _alone(column, table)
        if right >= GIVEAWAY:
            findings.append(_giveaway(one.name, right, len(table)))
        elif gain.low > 0:
            because = (
                f"{one.name!r} ({column.kind}) by itself lowers the log loss of the "
                f"class frequencies by {gain.value:.3f} nats (95 % CI {gain.low:.3f} "
                f"to {gain.high:.3f}), out of fold"
            )
            remedy = f"Add it to the text: --set data.features=[{one.name}]."
            findings.append(Finding("side_column", "info", 0.0, len(table), (), because, remedy))
    return tuple(findings)
