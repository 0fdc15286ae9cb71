"""What is dropped in training: units by location (dropout), or connections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision
from holdfast.core.settings import setting
from holdfast.methods.noise import NoiseHooks
from holdfast.methods.registry import METHODS, Method, Parts

if TYPE_CHECKING:
    import torch
    from torch import nn

    from holdfast.models.base import LoadedModel, Network


MODEL_RATE = "model"
MOST = 0.95


def _rate() -> Any:
    return setting(MODEL_RATE, choices=(MODEL_RATE,), or_number=True, most=MOST)


@dataclass(frozen=True, slots=True)
class DropoutRates:
    """Dropout by location: in training each hidden unit is zero with probability p, the others are
    divided by 1 − p (1207.0580).

        y = x · m ÷ (1 − p),   m ~ Bernoulli(1 − p) per unit

    ``model.dropout`` sets one rate everywhere when the model is loaded; this method sets only those
    of chosen locations: of the ``embedding``'s output, of the ``attention``'s probabilities, of the
    ``hidden`` states in a block, before the ``head``, on the input of an ``adapter``'s update.
    Rates are shares in [0, 0.95]. ``DropConnect`` drops weights instead of units, and
    ``methods/agreement.py`` penalizes the disagreement of two dropout passes.

    A rate for each location; ``model`` keeps the model's own.
    """

    embedding: float | str = _rate()
    attention: float | str = _rate()
    hidden: float | str = _rate()
    head: float | str = _rate()
    adapter: float | str = _rate()


def set_dropout_rates(settings: DropoutRates, loaded: LoadedModel) -> None:
    """Set the rates in the network; raises ``RecipeError`` for a location that it does not have."""
    from holdfast.models.dropouts import PLACES, dropouts_by_place

    dropouts = dropouts_by_place(loaded.network)
    known_places = [place for place in PLACES if any(one.place == place for one in dropouts)]
    changed = []
    for one in fields(settings):
        rate = getattr(settings, one.name)
        if rate == MODEL_RATE:
            continue
        if one.name not in known_places:
            remedy = f"It has {', '.join(known_places)}." if known_places else "It has no dropout."
            rule = "is a location where this network has no dropout"
            raise RecipeError(f"methods.dropout.{one.name}", rule, rate, remedy)
        at_place = [each for each in dropouts if each.place == one.name]
        rates_before = sorted({each.rate for each in at_place})
        for each in at_place:
            each.set_rate(float(rate))
        shown = " and ".join(f"{value:g}" for value in rates_before)
        changed.append(f"{one.name} {rate:g} instead of {shown}")
    if not changed:
        rule = "sets no rate: every location keeps the model's own"
        remedy = f"Set one of {', '.join(known_places) or 'another model'}, or leave it out."
        raise RecipeError("methods.dropout", rule, None, remedy)
    notify(Decision("dropout", "; ".join(changed), "set in the recipe, by location"))


METHODS.add(
    "dropout",
    Method(
        DropoutRates,
        lambda settings: Parts(prepares=lambda loaded: set_dropout_rates(settings, loaded)),
    ),
)


def trainable_linear_layers(network: Network) -> list[nn.Linear]:
    """The linear layers in the blocks whose weights are trainable."""
    from torch import nn

    from holdfast.models.dropouts import blocks_of

    modules = (module for block in blocks_of(network) for module in block.modules())
    return [one for one in modules if isinstance(one, nn.Linear) and one.weight.requires_grad]


@dataclass(frozen=True, slots=True)
class DropConnect:
    """DropConnect: drop single connections instead of units (Wan et al. 2013).

        y = (W ⊙ M ÷ (1 − p)) x + b,   M ~ Bernoulli(1 − p) per weight, drawn for each pass

    in the trainable linear layers of the blocks. ``rate`` is p. The paper draws a mask for each
    row; here the rows of a pass share one, since otherwise the weights would be held once per row.
    Off by default: no gain on tuned transformers is known, and a mask of every weight costs up to a
    third of a step. ``DropoutRates`` drop units.

    ``rate`` is p, the share of the connections dropped in a pass.
    """

    rate: float = setting(0.1, above=0, most=0.95)

    def attach(self, network: Network) -> Sequence[Callable[[], None]]:
        """Replace the forward pass of each of these layers."""
        return [self._attached(layer) for layer in trainable_linear_layers(network)]

    def _attached(self, layer: nn.Linear) -> Callable[[], None]:
        import torch

        plain = layer.forward

        def forward(states: torch.Tensor) -> Any:
            if not layer.training:
                return plain(states)
            weight = torch.nn.functional.dropout(layer.weight, self.rate)
            return torch.nn.functional.linear(states, weight, layer.bias)

        layer.__dict__["forward"] = forward

        def remove() -> None:
            del layer.__dict__["forward"]

        return remove


def _announce_layers(loaded: LoadedModel) -> None:
    layers = trainable_linear_layers(loaded.network)
    if not layers:
        rule = "needs a trainable linear layer in a block"
        remedy = "Leave it out, or freeze less (model.freeze, model.adapter)."
        raise RecipeError("methods.dropconnect", rule, None, remedy)
    count = sum(layer.weight.numel() for layer in layers)
    because = f"{count:,} connections, of which each pass of an update drops some"
    notify(Decision("dropconnect acts on", f"{len(layers)} linear layers", because))


def _parts(settings: DropConnect) -> Parts:
    return Parts(
        listeners=lambda: (NoiseHooks("dropconnect", settings.attach),), prepares=_announce_layers
    )


METHODS.add("dropconnect", Method(DropConnect, _parts))
