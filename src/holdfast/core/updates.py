"""The parts of an update, for methods that change them: which rows are drawn, how their gradient is
computed, what is added to their losses.

``training`` knows these protocols and a plain implementation (``training/plan.py``); ``methods``
implements others. Sources, steppers and loss terms are frozen values without state: a fit can be
repeated, and a resumed run needs only its position. Whatever keeps state from update to update is a
listener (``core/events.py``), whose state a checkpoint stores.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import numpy as np

from holdfast.core.records import Ints
from holdfast.core.seeds import generator

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """The rows of one update. ``rows`` [n] are positions among the training rows, followed by the
    added rows: the data map, the probes and the order of first use identify each training row by
    them, whatever its form.

    ``examples`` are other encoded rows that are passed in their place (augmented, mixed), row k
    being the one at ``places[k]`` [n]; without them the training rows themselves are passed. A row
    may be drawn twice. ``auxiliary`` are rows that pass in the same update but are not training
    rows (replayed general ones), with their own ``examples``: the gradient is that of both, and
    nothing else uses them.
    """

    rows: Ints
    examples: Any = None
    places: Ints | None = None
    auxiliary: Draw | None = None

    @property
    def positions(self) -> Ints:
        """The positions of the rows among the examples that are passed [n]."""
        return self.rows if self.places is None else self.places

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, selection: Ints | slice) -> Draw:
        """A selection of them, without the auxiliary rows."""
        places = None if self.places is None else self.places[selection]
        return dataclasses.replace(self, rows=self.rows[selection], places=places, auxiliary=None)

    @property
    def parts(self) -> tuple[Draw, ...]:
        """The training rows, and the auxiliary rows if there are any."""
        alone = dataclasses.replace(self, auxiliary=None)
        return (alone,) if self.auxiliary is None else (alone, self.auxiliary)


@dataclass(frozen=True, slots=True, eq=False)
class RowPool:
    """The training rows followed by the added rows, as a source draws from them in one phase:
    ``examples``, the rows per update (``batch``), and the ``seed`` and name of the ``phase``, from
    which its random numbers derive."""

    examples: Any
    batch: int
    seed: int
    phase: str
    _epoch_cache: dict[int, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def lengths(self) -> Ints:
        """The length of each row, as it affects the time [n]."""
        lengths: Ints = self.examples.lengths
        return lengths

    @property
    def labels(self) -> Ints | None:
        """The class of each row [n], where a row has one."""
        return getattr(self.examples, "labels", None)

    @property
    def steps_per_pass(self) -> int:
        """Updates that draw as many rows as there are; at least one."""
        return max(1, -(-len(self) // self.batch))

    def for_epoch(self, epoch: int, make: Callable[[], T]) -> T:
        """The result of ``make`` for this epoch, cached until another epoch is requested."""
        if epoch not in self._epoch_cache:
            self._epoch_cache.clear()
            self._epoch_cache[epoch] = make()
        value: T = self._epoch_cache[epoch]
        return value


class BatchSource(Protocol):
    """Which rows an update uses, and in which form."""

    @property
    def name(self) -> str: ...

    @property
    def has_epochs(self) -> bool:
        """Whether ``steps_per_epoch`` updates make a pass, after which an evaluation is due at the
        latest."""

    def steps_per_epoch(self, pool: RowPool) -> int:
        """How many updates an epoch has; the same for every epoch."""

    def draw(self, pool: RowPool, step: int) -> Draw:
        """The rows of an update, counted from 0 in its phase: a function of only the pool and the
        step, never of earlier draws."""


class Update(Protocol):
    """One update in progress, as a stepper receives it."""

    @property
    def parameters(self) -> Sequence[torch.nn.Parameter]:
        """Those that the phase changes by gradient."""

    def gradients(self, draw: Draw, repeat_pass: bool = False) -> float:
        """Set the parameters' gradient to that of Σ weight · loss ÷ Σ weight over these rows, and
        return that loss.

        It covers all processes together and the complete draw, whatever the pieces it is computed
        in; the pieces become smaller if memory runs out. ``repeat_pass``: the rows of this update
        pass once more with the dropout of the first pass; their losses are not reported, and the
        running statistics of batch norms stay. Raises ``TrainingError`` for a loss that is not a
        finite number.
        """


class Stepper(Protocol):
    """Computes the gradient of an update. The loop clips it, sets the learning rate and takes the
    optimizer's step; a stepper may change weights on the way if it restores them exactly."""

    @property
    def name(self) -> str: ...

    @property
    def passes(self) -> int:
        """How often each row passes through the network, forward and backward, in an update."""

    @property
    def copies(self) -> int:
        """How many copies of the trained weights it holds meanwhile."""

    def __call__(self, update: Update, draw: Draw) -> float:
        """Leave the gradient in the parameters; return the loss of the rows at the weights before
        the update."""


@dataclass(frozen=True, slots=True, eq=False)
class ForwardPass:
    """A forward pass of a training step: positions ``rows`` [batch] among the training rows, the
    ``batch`` as the task made it, the network's ``output``.

    ``start`` gives the base model's output before the first step for selected rows of the pass [k]:
    in evaluation mode, without a gradient. It costs a forward pass of these rows, and no second
    model.
    """

    rows: Ints
    batch: dict[str, torch.Tensor]
    output: Any
    start: Callable[[Ints], Any] | None = None


class LossTerm(Protocol):
    """Adds to the losses of a pass, or replaces them, row by row."""

    @property
    def name(self) -> str: ...

    @property
    def compares_rows(self) -> bool:
        """Whether the loss of a row depends on the other rows of its update. These then pass
        together, in every process, and are not split into pieces."""

    def __call__(self, passed: ForwardPass, losses: torch.Tensor) -> torch.Tensor:
        """The losses [batch] to use instead of ``losses`` [batch]."""


@runtime_checkable
class OfRows(Protocol):
    """A loss term that depends on the training rows, for example on the class counts."""

    def of_rows(self, labels: Ints, classes: Sequence[str]) -> LossTerm:
        """The term for training rows of these ``labels`` [n], indices into ``classes``."""


@runtime_checkable
class OfTwoPasses(Protocol):
    """A loss term for which each row passes twice in an update, each time with different dropout.
    With a single pass it leaves the losses unchanged."""

    def between(
        self, first: ForwardPass, second: ForwardPass, losses: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        """The losses [batch] of the two passes, from those of each [batch] after every other
        term."""


def rows_drawn(source: BatchSource, pool: RowPool, step: int) -> Ints:
    """Which rows an update uses [n], without making their form: a source that passes on the rows of
    another in other forms names that one as its ``inner``."""
    inner: BatchSource | None = getattr(source, "inner", None)
    return source.draw(pool, step).rows if inner is None else rows_drawn(inner, pool, step)


BATCHES_PER_WINDOW = 16


def batch_of_epoch(
    pool: RowPool,
    step: int,
    name: str,
    order: Callable[[np.random.Generator], Ints],
    size: int | None = None,
    window: int = BATCHES_PER_WINDOW,
) -> Ints:
    """The rows of an update, counted from 0 in its phase, of an epoch whose rows are in ``order``,
    drawn again for each epoch from a generator of this ``name``.

    Each ``window`` batches of ``size`` rows (default: those of an update) are sorted by length, so
    that a batch holds rows of similar length, and then shuffled. One batch of an epoch may be
    smaller.
    """
    batch_rows = size or pool.batch
    epoch, index = divmod(step, max(1, -(-len(pool) // batch_rows)))

    def batches() -> list[Ints]:
        rng = generator(pool.seed, name, pool.phase, epoch)
        ordered_rows, all_batches = order(rng), []
        for start in range(0, len(ordered_rows), window * batch_rows):
            part = ordered_rows[start : start + window * batch_rows]
            part = part[np.argsort(pool.lengths[part], kind="stable")]
            all_batches += [part[i : i + batch_rows] for i in range(0, len(part), batch_rows)]
        return [all_batches[i] for i in rng.permutation(len(all_batches))]

    return pool.for_epoch(epoch, batches)[index]


def logits_of(output: Any) -> torch.Tensor:
    """The logits of a network's output, which may be the logits themselves."""
    logits: torch.Tensor = getattr(output, "logits", output)
    return logits
