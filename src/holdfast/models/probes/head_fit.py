"""A linear head in closed form on features that no label has moved yet: logistic regression,
discriminant analysis, or the mean of their logits.

Both give a linear function of the features, and so does their mean. The two err on other rows: on
MiniLM's vectors of CR, MR, TREC and BANKING77 with 70, 280 and 1,120 rows the mean gained 0.5
points over logistic regression and lost nothing beyond chance on any of them, where choosing the
better one out of fold gained less and lost on some (benchmarks/heads.py). To features that contrast
has moved by the labels of these very rows it adds nothing (benchmarks/tuned_heads.py): there every
fold is easy, and a covariance within classes says little.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

from holdfast.core.records import Floats, Ints
from holdfast.models.probes.discriminant import fit_discriminant
from holdfast.models.probes.probe import ExtraRows, Probe, fit_probe

HeadKind = Literal["both", "logistic", "discriminant"]
KINDS: tuple[HeadKind, ...] = get_args(HeadKind)


def fit_head(
    features: Floats,
    labels: Ints,
    *,
    classes: int,
    seed: int,
    kind: HeadKind = "both",
    beside: ExtraRows | None = None,
) -> Probe:
    """A head of this ``kind``, its strengths chosen by stratified five-fold cross-validation on
    these rows; the parameters and errors are those of ``models.probes.probe.fit_probe``.

    Rows that cannot say how to shrink (one class, or no class with two rows) get the logistic
    regression, and ``because`` says what was fitted.
    """
    logistic = None
    if kind != "discriminant":
        logistic = fit_probe(features, labels, classes=classes, seed=seed, beside=beside)
        if kind == "logistic":
            return logistic
    other = fit_discriminant(features, labels, classes=classes, seed=seed, beside=beside)
    if other is None:
        if logistic is None:
            logistic = fit_probe(features, labels, classes=classes, seed=seed, beside=beside)
        return replace(logistic, because=f"logistic regression alone: {logistic.because}")
    shrunk = f"discriminant analysis (shrinkage {other.shrinkage:g}, {other.because})"
    if logistic is None:
        return replace(other, because=shrunk)
    said = f"mean of logistic regression (C {logistic.c:.3g}, {logistic.because}) and {shrunk}"
    return replace(_mean(logistic, other), because=said)


def fit_again(probe: Probe, features: Floats, labels: Ints, *, classes: int, seed: int) -> Probe:
    """A head of the kind of ``probe`` and with its C on other rows. The shrinkage is chosen anew,
    which costs next to nothing: fewer rows need more of it."""
    other = None
    if probe.shrinkage is not None:
        other = fit_discriminant(features, labels, classes=classes, seed=seed)
        if other is not None and not probe.c:
            return other
    logistic = fit_probe(features, labels, classes=classes, seed=seed, c=probe.c or None)
    return logistic if other is None else _mean(logistic, other)


def _mean(one: Probe, other: Probe) -> Probe:
    held = None
    if one.held_out is not None and other.held_out is not None:
        held = (one.held_out + other.held_out) / 2
    return replace(
        one,
        weight=(one.weight + other.weight) / 2,
        bias=(one.bias + other.bias) / 2,
        held_out=held,
        shrinkage=other.shrinkage,
    )
