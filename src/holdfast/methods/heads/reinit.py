"""The top blocks and the pooler drawn anew before the first step (2006.05987, section 5).

The last layers of a pretrained model are the most tuned to its pretraining task, and a poor start
for another: drawn anew, by the initializer of the architecture, they are learned from nothing. The
paper's gain is on few rows and with large encoders (BERT-large on RTE, MRPC, CoLA, STS-B); a model
that was trained to embed sentences has what it is for in just these layers.

They are drawn after the first look, so that the linear probe that the run is measured against is
the pretrained model's, and so is what is kept where the run does not gain. The head, whose features
are gone, is drawn anew with them. Siblings: ``reset_head`` leaves the blocks, and acts mid-run;
``train.layer_decay`` lets lower layers move less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError
from holdfast.core.events import Place
from holdfast.core.records import Decision
from holdfast.methods.registry import METHODS, Method, Parts, setting
from holdfast.models.layers import redraw, top_layers

if TYPE_CHECKING:
    from holdfast.models.base import Network
    from holdfast.training.run import Run


@dataclass(frozen=True, slots=True)
class Reinit:
    """``blocks`` is how many, counted from the top; 0 is the pooler alone."""

    blocks: int = setting(1, least=0, most=200, whole=True)


def check_reinit(asked: Reinit, network: Network) -> None:
    """Notify of which layers are drawn anew. Raises ``RecipeError`` for more blocks than there are,
    layers that do not learn, and a model under an adapter, whose own weights are not trained."""
    layers = top_layers(network, asked.blocks)
    if not layers:
        raise RecipeError(
            "methods.reinit.blocks", "leaves nothing to draw anew: this model has no pooler", 0
        )
    held = next(
        (layer.name for layer in layers if not all(p.requires_grad for p in layer.parameters())),
        None,
    )
    adapted = network.adapter is not None
    if adapted or held is not None:
        what = "an adapter holds the weights" if adapted else f"{held} is frozen"
        raise RecipeError(
            "methods.reinit",
            f"draws layers anew that then must learn, and {what}",
            asked.blocks,
            "Leave one of the two out: methods.reinit=false, or model.freeze and model.adapter.",
        )
    names = ", ".join(layer.name for layer in layers)
    because = "by the architecture's initializer, after the first look; the head with them"
    notify(Decision("layers drawn anew", names, because))


class RedrawnTop:
    """Draws them at the first phase's start; a run that is resumed there draws the same again."""

    name: ClassVar[str] = "reinit"
    place: ClassVar[Place] = "change"

    def __init__(self, blocks: int) -> None:
        self._blocks = blocks

    def phase_start(self, run: Run) -> None:
        if run.step:
            return
        network, seed = run.network, run.plan.seed
        layers = top_layers(network, self._blocks)
        head = [layer for layer in network.layers() if layer.name == "head" and network.new_head]
        redraw(network, [*layers, *head], seed)
        names = ", ".join(layer.name for layer in (*layers, *head))
        run.journal.note(0, "layers drawn anew", "methods.reinit", chosen=names)


METHODS.add(
    "reinit",
    Method(
        Reinit,
        lambda asked: Parts(
            listeners=lambda: (RedrawnTop(asked.blocks),),
            prepares=lambda loaded: check_reinit(asked, loaded.network),
        ),
        joins=False,
    ),
)
