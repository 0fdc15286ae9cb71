"""Dropout by place: each hidden unit is zero with probability p while the network learns, the
others are divided by 1 − p (1207.0580).

    y = x · m ÷ (1 − p),   m ~ Bernoulli(1 − p) per unit

``model.dropout`` sets one rate everywhere when the model is loaded; this sets those of chosen
places alone: of the ``embedding``'s output, of the ``attention``'s probabilities, of the ``hidden``
states in a block, before the ``head``, on the input of an ``adapter``'s update. Rates are shares in
[0, 0.95]. ``methods/noise/dropconnect.py`` drops weights in place of units, and
``methods/rdrop.py`` asks two passes of different dropout to agree.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision
from holdfast.methods.registry import METHODS, Method, Parts, setting

if TYPE_CHECKING:
    from holdfast.models.base import Loaded

KEPT = "model"
MOST = 0.95


def _rate() -> Any:
    return setting(KEPT, words=(KEPT,), or_number=True, most=MOST)


@dataclass(frozen=True, slots=True)
class DropoutRates:
    """A rate for each place; ``model`` leaves a place as the model has it."""

    embedding: float | str = _rate()
    attention: float | str = _rate()
    hidden: float | str = _rate()
    head: float | str = _rate()
    adapter: float | str = _rate()


def set_rates(asked: DropoutRates, loaded: Loaded) -> None:
    """Set them in the network; raises ``RecipeError`` for a place that it has not."""
    from holdfast.models.places import PLACES, dropouts_by_place

    found = dropouts_by_place(loaded.network)
    there = [place for place in PLACES if any(one.place == place for one in found)]
    changed = []
    for one in fields(asked):
        rate = getattr(asked, one.name)
        if rate == KEPT:
            continue
        if one.name not in there:
            remedy = f"It has {', '.join(there)}." if there else "It has none at all."
            rule = "is a place in which this network has no dropout"
            raise RecipeError(f"methods.dropout.{one.name}", rule, rate, remedy)
        here = [each for each in found if each.place == one.name]
        was = sorted({each.rate for each in here})
        for each in here:
            each.become(float(rate))
        shown = " and ".join(f"{value:g}" for value in was)
        changed.append(f"{one.name} {rate:g} in place of {shown}")
    if not changed:
        rule = "names no rate: every place stays as the model has it"
        remedy = f"Set one of {', '.join(there) or 'another model'}, or leave it out."
        raise RecipeError("methods.dropout", rule, None, remedy)
    notify(Decision("dropout", "; ".join(changed), "set by you, by place"))


METHODS.add(
    "dropout",
    Method(DropoutRates, lambda asked: Parts(prepares=lambda loaded: set_rates(asked, loaded))),
)
