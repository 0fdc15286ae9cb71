"""What one update is made of, for the methods that make it another way: which rows are drawn, how
their gradients come about, what is added to their losses.

``training`` knows these protocols and an ordinary implementation (``training/plan.py``);
``methods`` implements others. Sources, steppers and loss terms are frozen values without a state:
a fit may be repeated, and a resumed run needs its position alone. What must remember something from
update to update is a listener (``core/events.py``), whose state a checkpoint keeps.
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
    """The rows of one update. ``rows`` [n] are positions among the training rows, then among what
    was added to them: by them the data map, the probes and the order of first use know each
    training row, whatever its form.

    ``examples`` are other encoded rows that are passed in their stead (augmented, mixed), row k
    being the one at ``places[k]`` [n]; without them the training rows themselves are passed.
    A row may be drawn twice. ``auxiliary`` are rows that pass in the same update and are no
    training rows (replayed general ones), with ``examples`` of their own: the gradient is that of
    both, and nothing else hears of them.
    """

    rows: Ints
    examples: Any = None
    places: Ints | None = None
    auxiliary: Draw | None = None

    @property
    def positions(self) -> Ints:
        """Where the rows stand among the examples that are passed [n]."""
        return self.rows if self.places is None else self.places

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, selection: Ints | slice) -> Draw:
        """Some of them, without those beside."""
        places = None if self.places is None else self.places[selection]
        return dataclasses.replace(self, rows=self.rows[selection], places=places, auxiliary=None)

    @property
    def parts(self) -> tuple[Draw, ...]:
        """The training rows, and those beside them where there are some."""
        alone = dataclasses.replace(self, auxiliary=None)
        return (alone,) if self.auxiliary is None else (alone, self.auxiliary)


@dataclass(frozen=True, slots=True, eq=False)
class RowPool:
    """The training rows, and behind them those that were added, as a source draws from them in one
    phase: ``examples``, the rows of an update (``batch``), and the ``seed`` and name of the
    ``phase``, from which its chance comes."""

    examples: Any
    batch: int
    seed: int
    phase: str
    _epoch_cache: dict[int, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def lengths(self) -> Ints:
        """How long each row is in what costs time [n]."""
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
        """What ``make`` gives for this epoch, made once and kept until another is asked for."""
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
        """Whether ``steps_per_epoch`` updates make a pass, after which a look is due at least."""

    def steps_per_epoch(self, pool: RowPool) -> int:
        """How many updates an epoch has; the same for every epoch."""

    def draw(self, pool: RowPool, step: int) -> Draw:
        """The rows of an update, counted from 0 in its phase: a function of the pool and the step
        alone, never of what was drawn before."""


class Update(Protocol):
    """One update in the making, as a stepper is given it."""

    @property
    def parameters(self) -> Sequence[torch.nn.Parameter]:
        """Those that the phase changes by gradient."""

    def gradients(self, draw: Draw, repeat_pass: bool = False) -> float:
        """Put the gradient of Σ weight · loss ÷ Σ weight over these rows into the parameters, in
        place of what was there, and return that loss.

        It is that of all processes together and of the whole draw, whatever the pieces it is
        computed in, and it is computed in smaller ones where memory runs out. ``repeat_pass``: the
        rows of this update pass once more; the dropout is that of the first pass, nobody hears of
        their losses, and the running statistics of batch norms stay. Raises ``TrainingError`` for a
        loss that is not a finite number.
        """


class Stepper(Protocol):
    """How the gradient of an update comes about. The loop clips it, moves the rate and takes the
    optimizer's step; a stepper may change weights on the way if it puts them back to the bit."""

    @property
    def name(self) -> str: ...

    @property
    def passes(self) -> int:
        """How often each row passes the network, forward and back, in an update."""

    @property
    def copies(self) -> int:
        """How many copies of the weights that learn it holds meanwhile."""

    def __call__(self, update: Update, draw: Draw) -> float:
        """Leave the gradient in the parameters; return the loss of the rows at the weights that
        the update began with."""


@dataclass(frozen=True, slots=True, eq=False)
class ForwardPass:
    """A forward pass of a training step: positions ``rows`` [batch] among the training rows, the
    ``batch`` as the task made it, the network's ``output``.

    ``start`` gives, for the rows at the places that it is asked for [k] among those of the pass,
    what the network put out before the first step: in evaluation mode, without a gradient. It costs
    a forward pass of these rows, and no second model."""

    rows: Ints
    batch: dict[str, torch.Tensor]
    output: Any
    start: Callable[[Ints], Any] | None = None


class LossTerm(Protocol):
    """Adds to the losses of a pass, or puts others in their place, row by row."""

    @property
    def name(self) -> str: ...

    @property
    def compares_rows(self) -> bool:
        """Whether the loss of a row depends on the others of its update. These then pass together,
        in every process, and are not cut into pieces."""

    def __call__(self, passed: ForwardPass, losses: torch.Tensor) -> torch.Tensor:
        """The losses [batch] to use instead of ``losses`` [batch]."""


@runtime_checkable
class OfRows(Protocol):
    """A loss term that depends on the training rows, such as on how many there are of a class."""

    def of_rows(self, labels: Ints, classes: Sequence[str]) -> LossTerm:
        """The term for training rows of these ``labels`` [n], indices into ``classes``."""


@runtime_checkable
class OfTwoPasses(Protocol):
    """A loss term for which each row passes twice in an update, each time with dropout of its own.
    By itself, where rows pass once, it leaves the losses as they are."""

    def between(
        self, first: ForwardPass, second: ForwardPass, losses: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        """The losses [batch] of the two passes, from those of each [batch] after every other
        term."""


def rows_drawn(source: BatchSource, pool: RowPool, step: int) -> Ints:
    """Which rows an update uses [n], whatever their form, which is not made: a source that passes
    on the rows of another in other forms names that one as its ``inner``."""
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
    """The rows of an update, counted from 0 in its phase, of an epoch whose rows stand in
    ``order``, drawn anew for each epoch from a generator of this ``name``.

    Each ``window`` batches of ``size`` rows (left out: those of an update) are sorted by length, so
    that a batch holds rows of like length, and shuffled then. One batch of an epoch may be smaller.
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
    """The logits of what a network put out, which may be these alone."""
    logits: torch.Tensor = getattr(output, "logits", output)
    return logits
