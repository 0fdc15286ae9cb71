"""Which layers learn at a step: what ``unfreeze`` and ``progressive`` share.

A function of the position in the fine-tuning, counted from where the method joined a run under way.
What does not learn yet gets no gradient and no weight decay, draws no dropout where
it is at the front, and costs no pass back. The optimizer knows all layers from the beginning, and
the schedule is that of the whole phase.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from holdfast.core.events import Place
from holdfast.models.compute.prefix import train_mode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.training.run import Run


class WhoLearns:
    """The listener. ``below(done, layers)`` says how many of the ``layers`` below the head, counted
    from the top, learn when the share ``done`` of the phase is over, in [0, 1); one at least where
    the head has no weights of its own. It remembers the phase and the step in it at which it
    joined."""

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
        """A method that is switched off mid-run leaves this way too."""
        _let_learn(run, {id(p) for p in run.learning_parameters().values()})

    def state_dict(self) -> dict[str, Any]:
        return {"joined": list(self._joined)}

    def load_state_dict(self, state: Mapping[str, tuple[int, int]]) -> None:
        phase, since = state["joined"]
        self._joined = (phase, since)

    def _learning(self, run: Run) -> set[int]:
        layers = run.network.layers()
        top = [layer for layer in layers if layer.name in ("pooler", "head")]
        mine = {id(p) for p in run.learning_parameters().values()}
        lower = [layer for layer in layers if layer not in top]
        # Layers that the recipe has frozen are no step of the way.
        lower = [layer for layer in lower if any(id(p) in mine for p in layer.parameters())]
        phase, since = self._joined
        since = since if phase == run.phase_index else 0
        done = (run.step_in_phase - since) / (run.phase.steps - since)
        count = self._below(done, len(lower))
        if not any(id(p) in mine for layer in top for p in layer.parameters()):
            # A head that shares the embeddings' weights has none: the top block stands in for it.
            count = max(1, count)
        chosen = [*lower[len(lower) - count :], *top]
        return {id(p) for layer in chosen for p in layer.parameters()}


def _let_learn(run: Run, learning: set[int]) -> None:
    """Let these parameters learn, of those that may; an action's freezing stands above it."""
    changed = False
    for name, parameter in run.learning_parameters().items():
        wanted = id(parameter) in learning and name not in run.adjustments.frozen
        if parameter.requires_grad != wanted:
            parameter.requires_grad_(wanted)
            # An optimizer passes over what has no gradient, its weight decay included.
            parameter.grad, changed = None, True
    if changed and run.network.training:
        train_mode(run.network)
