"""A progressive start: the head alone learns for the first share of the steps, then everything.

``probe_first`` (LP-FT, 2202.10054) has the same end, that the backbone is not pulled about by a
head that knows nothing, by another way: it fits the head in closed form under a cross-validated
penalty, before the first step. Here the head learns by gradient, at the run's rate and within its
steps, as where no closed form fits it (a pretrained head, a loss that is no cross-entropy). After
``probe_first`` the head has nothing to gain from it. Sibling: ``unfreeze`` goes layer by layer.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.methods.registry import METHODS, Method, Parts, setting
from holdfast.methods.schedules.who_learns import WhoLearns


@dataclass(frozen=True, slots=True)
class Progressive:
    """``start`` is the share of the fine-tuning, in (0, 0.9], for which the head learns alone."""

    start: float = setting(0.2, above=0, most=0.9)

    def listeners(self) -> tuple[WhoLearns]:
        def below(done: float, layers: int) -> int:
            return layers if done >= self.start - 1e-9 else 0

        return (WhoLearns("progressive", below),)


METHODS.add("progressive", Method(Progressive, lambda asked: Parts(listeners=asked.listeners)))
