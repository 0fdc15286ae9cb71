"""What all methods share that disturb a network while it learns: hooks that are there during a run
and act in training mode alone, so that nothing that is measured, saved or generated sees them.

Their chance is PyTorch's own generator, whose state a checkpoint keeps: a resumed run draws what
the run that was not killed draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError
from holdfast.core.events import Place
from holdfast.core.records import Decision, Finding

if TYPE_CHECKING:
    from torch import nn

    from holdfast.models.base import Network
    from holdfast.training.run import Run

# What puts itself into a network, and gives back how it is taken out.
Attach = Callable[["Network"], Sequence[Callable[[], None]]]


class Disturbance:
    """The listener: ``attach`` is given the network when the run starts."""

    place: Place = "change"

    def __init__(self, name: str, attach: Attach) -> None:
        self.name = name
        self._attach = attach
        self._remove: Sequence[Callable[[], None]] = ()

    def run_start(self, run: Run) -> None:
        self._remove = self._attach(run.network)

    def run_end(self, run: Run) -> None:
        for remove in self._remove:
            remove()
        self._remove = ()


def tables_for(method: str, network: Network) -> list[nn.Embedding]:
    """The tables of word embeddings; raises ``RecipeError`` where the network reads no words."""
    from holdfast.models.places import word_tables

    try:
        return list(word_tables(network))
    except RecipeError as error:
        rule = "acts on the words of a row, and this network reads none"
        raise RecipeError(f"methods.{method}", rule, None, "Leave it out.") from error


def tell_where(
    method: str, network: Network, modules: Sequence[nn.Module], chosen: str, because: str
) -> None:
    """Notify of what a method disturbs of this network, and where all these modules are frozen
    first layers: they stay in evaluation mode and their outputs may be kept, so that nothing is
    disturbed."""
    from holdfast.models.compute.prefix import frozen_prefix

    notify(Decision(f"where {method} acts", chosen, because))
    layers = [part for layer in frozen_prefix(network) for part in layer.modules]
    frozen = {id(module) for layer in layers for module in layer.modules()}
    if all(id(module) in frozen for module in modules):
        rule = f"methods.{method} disturbs layers that are all frozen, and frozen first layers are "
        rule += "computed as they are: it changes nothing"
        remedy = "Leave it out, or freeze fewer layers (model.freeze)."
        notify(Finding("unused_setting", "warn", 0.5, 1, (), rule, remedy))
