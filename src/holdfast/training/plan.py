"""What a run will do, in numbers, before its first step: its phases, the rows of an update (by
default every row once per epoch, one forward and backward pass per update) and of an evaluation
batch, and its evaluation points."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal

import numpy as np

from holdfast.core.errors import RecipeError
from holdfast.core.records import Ints
from holdfast.core.seeds import generator
from holdfast.core.updates import (
    BATCHES_PER_WINDOW,
    BatchSource,
    Draw,
    LossTerm,
    OfRows,
    OfTwoPasses,
    RowPool,
    Stepper,
    Update,
    batch_of_epoch,
    rows_drawn,
)
from holdfast.core.wording import percent_phrase
from holdfast.training.task import Examples, labels_of

# Share of a training pass: the backward pass takes about twice as long as the forward pass.
FORWARD_SHARE = 1 / 3
EVALUATION_BUDGET = 0.10
LEAST_PROBE_ROWS = 100
MOST_PROBE_ROWS = 500
# With fewer rows, even a training sample that is all correct cannot show a gap to validation: the
# lower end of Wilson's interval of 50 of 50 is 93 %, of 11 of 11 it is 74 %.
INFORMATIVE_PROBE_ROWS = 50


@dataclass(frozen=True, slots=True)
class EveryRow:
    """Every row exactly once per epoch, in random order.

    Each ``window`` batches are sorted by length, so that a batch contains rows of similar length,
    with little padding. Sorting the whole epoch would save a little more, but would keep long rows
    together each time, which causes loss spikes. A window of one batch mixes rows of any length.
    That matters where an update is a mean over tokens: a batch of short rows gives each of its
    tokens more weight. With windows of 16 the loss of the tokens of long outputs was 0.15 nats
    higher (instructions, 1,000 rows).
    """

    window: int = BATCHES_PER_WINDOW
    name: ClassVar[str] = "every_row"
    has_epochs: ClassVar[bool] = True

    def steps_per_epoch(self, pool: RowPool) -> int:
        return pool.steps_per_pass

    def draw(self, pool: RowPool, step: int) -> Draw:
        return Draw(
            batch_of_epoch(
                pool, step, "batches", lambda rng: rng.permutation(len(pool)), window=self.window
            )
        )


@dataclass(frozen=True, slots=True)
class OnePass:
    """The gradient at the current weights."""

    name: ClassVar[str] = "one_pass"
    passes: ClassVar[int] = 1
    copies: ClassVar[int] = 0

    def __call__(self, update: Update, draw: Draw) -> float:
        return update.gradients(draw)


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A part of the run with one loss and one optimizer.

    ``steps`` updates of ``batch_size × accumulate`` rows. ``head`` says whether the last layer is
    trained by gradient (``train``) or refitted to the features at each evaluation (``refit``).
    ``source`` says which rows an update uses, ``stepper`` how its gradient is computed, ``terms``
    what changes the task's losses, one after the other. ``part_rows``: a CPU computes a step in
    micro-batches of at most this many rows of similar length. ``learning_rate`` is the backbone's,
    ``head_learning_rate`` the head's. ``copies`` is the number of copies of the trainable weights
    that are held in addition to those of every run (averages).
    """

    name: str
    steps: int
    batch_size: int
    learning_rate: float
    head_learning_rate: float
    head: Literal["train", "refit"] = "train"
    source: BatchSource = field(default_factory=EveryRow)
    stepper: Stepper = field(default_factory=OnePass)
    terms: tuple[LossTerm, ...] = ()
    optimizer: str = "adamw"
    schedule: str = "linear"
    warmup: float = 0.1
    weight_decay: float = 0.01
    layer_decay: float = 1.0
    clip: float | None = 1.0
    accumulate: int = 1
    part_rows: int | None = None
    copies: int = 0

    @property
    def rows_per_step(self) -> int:
        return self.batch_size * self.accumulate

    @property
    def rows_passed(self) -> int:
        """Rows that pass forward and backward in all its steps: its work."""
        return self.steps * self.rows_per_step * self.passes

    @property
    def passes(self) -> int:
        """The number of forward and backward passes of each row in an update."""
        return self.stepper.passes * self.passes_per_gradient

    @property
    def passes_per_gradient(self) -> int:
        """The number of passes of a row that are held for one gradient."""
        return 2 if any(isinstance(term, OfTwoPasses) for term in self.terms) else 1

    @property
    def warmup_steps(self) -> int:
        return math.ceil(self.warmup * self.steps)

    @property
    def compares_rows(self) -> bool:
        """Whether the rows of an update must pass together."""
        return any(term.compares_rows for term in self.terms)

    def pool(self, examples: Examples, seed: int) -> RowPool:
        """The pool of these rows from which this phase draws."""
        return RowPool(examples, self.rows_per_step, seed, self.name)

    def for_rows(self, examples: Examples, classes: Sequence[str]) -> Phase:
        """The phase, with the loss terms that depend on the training rows made for these rows."""
        return replace(self, terms=tuple(terms_of_rows(self.terms, examples, classes)))

    def to_json(self) -> dict[str, Any]:
        """The phase for JSON, with each strategy by its name."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        strategies = {"source": self.source.name, "stepper": self.stepper.name}
        return {**values, **strategies, "terms": [term.name for term in self.terms]}


def terms_of_rows(
    terms: Sequence[LossTerm], examples: Examples, classes: Sequence[str]
) -> list[LossTerm]:
    """The loss terms; those that depend on the training rows are made for these rows."""
    return [
        one.of_rows(labels_of(examples), classes) if isinstance(one, OfRows) else one
        for one in terms
    ]


@dataclass(frozen=True, slots=True)
class Plan:
    """All phases, and the evaluation points of the run.

    ``evaluate_at`` are global steps, increasing, including 0 and the last step; ``probe_rows`` is
    the number of rows of the training sample.
    """

    phases: tuple[Phase, ...]
    evaluate_at: tuple[int, ...]
    probe_rows: int
    seed: int
    max_minutes: float | None = None

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    @property
    def first_end(self) -> int:
        """The first step at which the run can end: the first one of the last phase."""
        return sum(phase.steps for phase in self.phases[:-1]) + 1

    @property
    def rows_passed(self) -> int:
        """Rows that pass forward and backward in all steps: the run's work."""
        return sum(phase.rows_passed for phase in self.phases)

    @property
    def refits(self) -> int:
        """The number of evaluations after step 0 at which the head is refitted."""
        start, count = 0, 0
        for phase in self.phases:
            end = start + phase.steps
            if phase.head == "refit":
                count += sum(start < step <= end for step in self.evaluate_at)
            start = end
        return count


def steps_for(epochs: float, rows: int, rows_per_step: int) -> int:
    """The number of updates that pass ``rows`` rows at most ``epochs`` times (at least one update);
    the last batch of an epoch is partial."""
    # The small number is for products such as (0.7 · 10) ÷ 0.7, slightly below a whole number.
    return max(1, math.floor(epochs * math.ceil(rows / rows_per_step) + 1e-9))


def affordable_evaluations(trained: float, evaluated: int) -> int:
    """How many evaluations of ``evaluated`` rows cost a tenth of the training on ``trained`` rows,
    where a forward row counts as a third of a training row."""
    return math.floor(EVALUATION_BUDGET * trained / max(evaluated * FORWARD_SHARE, 1e-9))


def evaluation_points(
    phases: tuple[Phase, ...], train_rows: int, valid_rows: int, requested: int, extra_rows: int = 0
) -> tuple[tuple[int, ...], int, str]:
    """The evaluation points, the number of rows of the training sample, and the reason.

    There are about ``requested`` points, fewer where they would cost more than a tenth of the
    training's work (``affordable_evaluations``). First the training sample
    shrinks, not below 100 rows or the size of the validation set. Then points are removed, not
    below one per epoch plus step 0, as far as that is no more than requested. The features of all
    training rows count too in a phase that refits its head, and so do the rows ``extra_rows`` that
    are measured at every evaluation (a general-text set). A phase whose source has no epochs needs
    only an evaluation at its end. A training sample of fewer than 50 rows is then filled up to 50
    where there are as many, at any cost: the cost is small, and a smaller sample shows no gap.
    """
    steps = sum(phase.steps for phase in phases)
    work = sum(phase.rows_passed for phase in phases)
    probe = min(train_rows, max(valid_rows, 1), MOST_PROBE_ROWS)
    extra_rows_per_point = extra_rows + (
        train_rows if any(phase.head == "refit" for phase in phases) else 0
    )
    min_per_phase = [_min_points(phase, train_rows) for phase in phases]
    # A long run on few rows needs no evaluation per epoch: they would cost more than training.
    most = max(requested, len(phases))
    if sum(min_per_phase) > most:
        min_per_phase = [max(1, count * most // sum(min_per_phase)) for count in min_per_phase]
    least_points = 1 + sum(min_per_phase)

    def points_within_budget(probe_rows: int) -> int:
        return affordable_evaluations(work, probe_rows + valid_rows + extra_rows_per_point)

    least_probe = min(probe, max(LEAST_PROBE_ROWS, 0), max(valid_rows, 1))
    if points_within_budget(probe) < requested + 1:
        probe = least_probe
    points = max(least_points, min(requested + 1, points_within_budget(probe), steps + 1))
    steps_at = _spread_points(phases, points, min_per_phase)
    probe = min(train_rows, max(probe, INFORMATIVE_PROBE_ROWS))
    measured_rows = len(steps_at) * (probe + valid_rows + extra_rows_per_point)
    reason = (
        f"{len(steps_at)} evaluations, including the one at step 0, of {probe} training and "
        f"{valid_rows} validation rows take about "
        f"{percent_phrase(measured_rows * FORWARD_SHARE / max(work, 1))} of the training's "
        f"compute. {requested} were requested after step 0; their number is limited by the number "
        f"of steps and to a tenth of the compute, but is at least {least_points}"
    )
    return steps_at, probe, reason


def _min_points(phase: Phase, train_rows: int) -> int:
    """One per epoch; one in total for a phase without epochs."""
    if not phase.source.has_epochs:
        return 1
    return math.ceil(phase.steps / math.ceil(train_rows / phase.rows_per_step))


def _spread_points(phases: tuple[Phase, ...], points: int, least: list[int]) -> tuple[int, ...]:
    """Step 0, then the points that each phase needs, then each further point in the phase whose
    points are furthest apart; evenly spaced inside a phase, including its end."""
    counts = list(least)
    steps = [phase.steps for phase in phases]
    for _ in range(points - 1 - sum(counts)):
        gaps = [n / count if count < n else 0.0 for n, count in zip(steps, counts, strict=True)]
        counts[gaps.index(max(gaps))] += max(gaps) > 0
    start, points_at = 0, {0}
    for n, count in zip(steps, counts, strict=True):
        points_at |= {start + round((i + 1) * n / count) for i in range(count)}
        start += n
    return tuple(sorted(points_at))


def check_phase(phase: Phase) -> None:
    """Raise ``RecipeError`` for contradicting settings before anything runs."""
    if phase.steps < 1:
        raise RecipeError(f"phase {phase.name}", "needs at least one step", phase.steps)


def first_use_steps(
    phases: Sequence[Phase], examples: Examples, seed: int, positions: Ints
) -> Ints:
    """The update, counted from 1, that first uses each of ``positions`` [k] in a run of these
    phases over these rows; −1 for a row that no update uses."""
    first_step = np.full(len(examples), -1, dtype=np.int64)
    steps_before, unused = 0, len(first_step)
    for phase in phases:
        pool = phase.pool(examples, seed)
        for step in range(phase.steps):
            if not unused:
                return first_step[positions]
            rows = rows_drawn(phase.source, pool, step)
            new = np.unique(rows[first_step[rows] < 0])
            first_step[new], unused = steps_before + step + 1, unused - len(new)
        steps_before += phase.steps
    return first_step[positions]


def parts_by_length(draw: Draw, lengths: Ints, parts: int) -> list[Draw]:
    """One step's rows in ``parts`` micro-batches of similar length: the same gradient, less
    padding. ``lengths`` are those of the examples that the draw refers to."""
    order = np.argsort(lengths[draw.positions], kind="stable")
    return [draw.take(part) for part in np.array_split(order, parts) if len(part)]


def shard(rows: Ints, rank: int, world: int) -> Ints:
    """The rows of one process: every ``world``-th, starting at ``rank``."""
    return rows[rank::world]


def probe_positions(labels: Sequence[int] | Ints, count: int, seed: int) -> Ints:
    """The training sample: a fixed random sample of positions, in increasing order."""
    rng = generator(seed, "train_probe")
    return np.sort(rng.permutation(len(labels))[:count])


def batches_by_length(lengths: Ints, positions: Ints, tokens: int) -> Iterator[Ints]:
    """Evaluation batches, longest rows first, each of at most ``tokens`` padded tokens.

    The first batch is the largest, so that a run that does not fit into memory fails at once.
    """
    order = positions[np.argsort(-lengths[positions], kind="stable")]
    start = 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        # A row longer than a batch is a batch by itself.
        size = max(1, tokens // longest)
        yield order[start : start + size]
        start += size
