"""For which rates of the classes a fit's answers are: the last step of ``methods.balance``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from holdfast.core.records import Floats
from holdfast.methods.balance import TARGET, asked_target
from holdfast.methods.rates import USUAL, Rates, between, choose_strength, shares_of, stated
from holdfast.pipeline.kinds.classification import classifier, kept_temperature
from holdfast.pipeline.ready import Fitted
from holdfast.tasks.base import labels_of


def with_rates(fitted: Fitted) -> Fitted:
    """The fit, its last layer moved to the population that was asked for, where one was.

    The shift is that of calibrated logits: the bias takes it times the temperature by which the
    saved layer is divided.
    """
    target = asked_target(fitted.recipe.methods)
    if target is None:
        return fitted
    ready, temperature = fitted.ready, kept_temperature(fitted)
    classes = ready.prepared.rows.classes
    rows = shares_of(labels_of(ready.train), len(classes))
    found = _rates(fitted, target, classes, rows, temperature)
    if found.moved:
        import torch

        bias = classifier(fitted.network).head.bias
        with torch.no_grad():
            bias.add_(torch.as_tensor(temperature * found.shift, dtype=bias.dtype).to(bias.device))
    return replace(fitted, rates=found)


def _rates(
    fitted: Fitted, target: Any, classes: tuple[str, ...], rows: Floats, temperature: float
) -> Rates:
    if isinstance(target, dict):
        return Rates(
            classes, rows, stated(target, classes, TARGET), "the population that you state"
        )
    if target == "rows":
        return Rates(classes, rows, rows, "probabilities are those at the rates of the rows")
    if target == "even":
        return Rates(classes, rows, between(rows, 1.0), "answers are for classes alike frequent")
    if target == "half":
        because = "answers are for rates half of the way to classes alike, for macro-F1"
        return Rates(classes, rows, between(rows, USUAL), because)
    logits = fitted.kept_look.valid_logits
    assert logits is not None
    chosen = choose_strength(
        logits / temperature, labels_of(fitted.ready.valid), rows, seed=fitted.recipe.seed
    )
    return Rates(classes, rows, chosen.target, chosen.because)
