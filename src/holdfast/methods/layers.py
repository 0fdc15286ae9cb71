"""Which layers are trained when, and which are reset: the head first (``progressive``), one more
layer at a time (``unfreeze``), the top reinitialized (``reinit``), the head reset (``reset_head``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError
from holdfast.core.events import Place
from holdfast.core.records import Decision
from holdfast.core.settings import setting
from holdfast.methods.registry import METHODS, Method, Parts
from holdfast.models.compute.prefix import train_mode
from holdfast.models.layers import reinitialize, restore_initial_head, top_layers

if TYPE_CHECKING:
    from holdfast.models.base import Network
    from holdfast.training.run import Run


class LayerSchedule:
    """Which layers are trained at a step: the head first, then one more layer at a time
    (``unfreeze``), or everything at once (``progressive``).

    A function of the position in the fine-tuning, counted from where the method joined a running
    run. A layer that is not trained yet gets no gradient and no weight decay, has no dropout where
    it is at the front, and costs no backward pass. The optimizer has all layers from the beginning,
    and the learning-rate schedule is that of the whole phase. Compared with siblings:
    ``train.layer_decay`` lets lower layers change less all the time; ``model.freeze`` never trains
    them.

    The listener. ``below(done, layers)`` says how many of the ``layers`` below the head, counted
    from the top, are trained when the share ``done`` of the phase is over, in [0, 1); at least one
    where the head has no weights of its own. It remembers the phase and the step in it at which it
    joined.
    """

    place: ClassVar[Place] = "change"

    def __init__(self, name: str, below: Callable[[float, int], int]) -> None:
        self.name = name
        self._below = below
        self._joined = (0, 0)

    def run_start(self, run: Run) -> None:
        self._joined = (run.phase_index, run.step_in_phase)

    def batch_ready(self, run: Run) -> None:
        if run.phase.head != "train":
            return
        _let_learn(run, self._learning(run))

    def run_end(self, run: Run) -> None:
        """Also called when a method is switched off during a run."""
        _let_learn(run, {id(p) for p in run.trainable_parameters().values()})

    def state_dict(self) -> dict[str, Any]:
        return {"joined": list(self._joined)}

    def load_state_dict(self, state: Mapping[str, tuple[int, int]]) -> None:
        phase, since = state["joined"]
        self._joined = (phase, since)

    def _learning(self, run: Run) -> set[int]:
        layers = run.network.layers()
        top = [layer for layer in layers if layer.name in ("pooler", "head")]
        trainable_ids = {id(p) for p in run.trainable_parameters().values()}
        lower = [layer for layer in layers if layer not in top]
        # Layers that the recipe has frozen are not counted.
        lower = [
            layer for layer in lower if any(id(p) in trainable_ids for p in layer.parameters())
        ]
        phase, start_step = self._joined
        start_step = start_step if phase == run.phase_index else 0
        done = (run.step_in_phase - start_step) / (run.phase.steps - start_step)
        count = self._below(done, len(lower))
        if not any(id(p) in trainable_ids for layer in top for p in layer.parameters()):
            # A head that shares the embeddings' weights has none: the top block replaces it.
            count = max(1, count)
        learning_layers = [*lower[len(lower) - count :], *top]
        return {id(p) for layer in learning_layers for p in layer.parameters()}


def _let_learn(run: Run, learning: set[int]) -> None:
    """Make these parameters trainable, where allowed; freezing by an action has precedence."""
    changed = False
    for name, parameter in run.trainable_parameters().items():
        learns = id(parameter) in learning and name not in run.adjustments.frozen
        if parameter.requires_grad != learns:
            parameter.requires_grad_(learns)
            # An optimizer skips parameters without a gradient, including their weight decay.
            parameter.grad, changed = None, True
    if changed and run.network.training:
        train_mode(run.network)


@dataclass(frozen=True, slots=True)
class Progressive:
    """A progressive start: only the head is trained for the first share of the steps, then all.

    ``probe_first`` (LP-FT, 2202.10054) has the same aim, that an untrained head does not distort
    the backbone, by another way: it fits the head in closed form under a cross-validated penalty,
    before the first step. Here the head is trained by gradient, at the run's rate and within its
    steps, for cases without a closed form (a pretrained head, a loss that is not cross-entropy).
    After ``probe_first`` the head gains nothing from it.

    ``start`` is the share of the fine-tuning, in (0, 0.9], for which only the head is trained."""

    start: float = setting(0.2, above=0, most=0.9)

    def listeners(self) -> tuple[LayerSchedule]:
        def below(done: float, layers: int) -> int:
            return layers if done >= self.start - 1e-9 else 0

        return (LayerSchedule("progressive", below),)


METHODS.add(
    "progressive", Method(Progressive, lambda settings: Parts(listeners=settings.listeners))
)


def unfrozen_layers(done: float, layers: int, until: float) -> int:
    """How many of ``layers`` are trained when the share ``done`` of the steps is over."""
    # The small number is for products slightly below a whole number.
    return min(layers, int(layers * done / until + 1e-9))


@dataclass(frozen=True, slots=True)
class GradualUnfreezing:
    """Gradual unfreezing: the head is trained first, then one more layer at a time, from the top
    (1801.06146, section 3.3).

        layers below the head that learn at a share d of the fine-tuning:  min(n, ⌊n · d ÷ until⌋)

    with n of them. The bottom layers are the most general, and change last and least.

    ``until`` is the share of the fine-tuning, above 0, at which all layers are trained."""

    until: float = setting(0.5, above=0, most=1)

    def listeners(self) -> tuple[LayerSchedule]:
        return (LayerSchedule("unfreeze", lambda d, n: unfrozen_layers(d, n, self.until)),)


METHODS.add(
    "unfreeze", Method(GradualUnfreezing, lambda settings: Parts(listeners=settings.listeners))
)


@dataclass(frozen=True, slots=True)
class ResetHeadAt:
    """Reset the last layer during the fine-tuning, against primacy bias (2205.07802).

    What is learned from the first rows influences all that follows. The head is reset to its state
    at the first evaluation (a linear probe, or random weights), and so is its optimizer state. What
    the layers below have learned stays, and the remaining steps fit the head to it. The action
    ``ResetHead`` does the same where a run shows the need; here a recipe requests it at a known
    step.

    ``at`` is the share of the fine-tuning after which the head is reset, in (0, 0.95].
    """

    at: float = setting(0.5, above=0, most=0.95)


class HeadReset:
    """The listener. It remembers whether it is done, since extending a plan moves the step."""

    name: ClassVar[str] = "reset_head"
    place: ClassVar[Place] = "change"

    def __init__(self, at: float) -> None:
        self._at = at
        self._done = False

    def step_done(self, run: Run) -> None:
        if self._done or run.phase.head != "train":
            return
        # After the last update nothing would train the reset head; a single update has no middle.
        if run.step_in_phase != min(max(1, round(self._at * run.phase.steps)), run.phase.steps - 1):
            return
        self._done = True
        if restore_initial_head(
            run.network, run.trainable_parameters(), run.initial_tensors, run.optimizer
        ):
            because = "methods.reset_head: it is reset to its state at step 0 (2205.07802)"
            run.journal.note(run.step, "head reset", because)

    def state_dict(self) -> dict[str, Any]:
        return {"done": self._done}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        self._done = bool(state["done"])


METHODS.add(
    "reset_head",
    # In a run in progress its step may be over; there is an action for that.
    Method(
        ResetHeadAt,
        lambda settings: Parts(listeners=lambda: (HeadReset(settings.at),)),
        joins=False,
    ),
)


@dataclass(frozen=True, slots=True)
class Reinit:
    """Reinitialize the top blocks and the pooler before the first step (2006.05987, section 5).

    The last layers of a pretrained model are the most specialized for its pretraining task, and a
    poor start for another: reinitialized by the architecture's initializer, they are learned from
    scratch. The paper's gain is on few rows and with large encoders (BERT-large on RTE, MRPC, CoLA,
    STS-B); a model trained for sentence embeddings has its strength in just these layers.

    They are reinitialized after the first evaluation. So the linear probe that the run is compared
    with is the pretrained model's, and so is the checkpoint kept where the run does not gain. The
    head, whose features are gone, is reinitialized with them. Compared with siblings:
    ``reset_head`` keeps the blocks, and acts during the run; ``train.layer_decay`` lets lower
    layers change less.

    ``blocks`` is how many, counted from the top; 0 is only the pooler.
    """

    blocks: int = setting(1, least=0, most=200)


def check_reinit(settings: Reinit, network: Network) -> None:
    """Report which layers are reinitialized. Raises ``RecipeError`` for more blocks than there are,
    frozen layers, and a model under an adapter, whose own weights are not trained."""
    layers = top_layers(network, settings.blocks)
    if not layers:
        raise RecipeError(
            "methods.reinit.blocks", "has nothing to reinitialize: this model has no pooler", 0
        )
    frozen_layer = next(
        (layer.name for layer in layers if not all(p.requires_grad for p in layer.parameters())),
        None,
    )
    adapted = network.adapter is not None
    if adapted or frozen_layer is not None:
        obstacle = "an adapter holds the weights" if adapted else f"{frozen_layer} is frozen"
        raise RecipeError(
            "methods.reinit",
            f"reinitializes layers that then must be trained, but {obstacle}",
            settings.blocks,
            "Use only one of the two: methods.reinit=false, or no model.freeze and model.adapter.",
        )
    names = ", ".join(layer.name for layer in layers)
    because = "by the architecture's initializer, after the first evaluation; the head with them"
    notify(Decision("layers reinitialized", names, because))


class TopReinit:
    """Reinitializes them at the first phase's start; a resume there draws the same weights."""

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
        reinitialize(network, [*layers, *head], seed)
        names = ", ".join(layer.name for layer in (*layers, *head))
        run.journal.note(0, "layers reinitialized", "methods.reinit", chosen=names)


METHODS.add(
    "reinit",
    Method(
        Reinit,
        lambda settings: Parts(
            listeners=lambda: (TopReinit(settings.blocks),),
            prepares=lambda loaded: check_reinit(settings, loaded.network),
        ),
        joins=False,
    ),
)
