"""How each training row was learned: a data map from the losses of the training itself.

No additional forward pass is needed. Each epoch sees every training row once, in training mode, and
three values are stored: the probability of the row's own label, its margin, and whether the
prediction was correct (Swayamdipta and others 2020, 2009.10795; Pleiss and others 2020, 2001.10528;
Toneva and others 2019, 1812.05159).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import numpy as np

from holdfast.core.records import Finding, Floats, Ints, Snapshot
from holdfast.core.wording import count_phrase
from holdfast.stats.series import around, spike_places
from holdfast.training.machine.sharding import gather_objects
from holdfast.training.run import BatchLosses

if TYPE_CHECKING:
    import torch

    from holdfast.training.run import Run

LEARNED_PROBABILITY = 0.5
# Below this mean probability of its label a row counts as hard.
HARD_PROBABILITY = 0.5
LEAST_PASSES = 3
# The number of losses stored per row, and in total. With more passes every second is stored, then
# every fourth. With more rows fewer per row are stored; below eight per row there is no trace.
MOST_KEPT, MOST_NUMBERS, LEAST_KEPT = 64, 4_000_000, 8


# Updates whose losses are compared with those around them; a spike is larger than this share of the
# first losses. More of them than this share of the updates are the noise of hard rows.
RECENT, OF_FIRST, MOST_SPIKES = 64, 0.5, 0.05


@dataclass(frozen=True, slots=True)
class LossSpike:
    """An update whose mean loss is far above the ``usual`` one around it, and its ``rows`` in the
    source."""

    step: int
    loss: float
    usual: float
    rows: tuple[int, ...]


@dataclass(slots=True)
class _Sums:
    """Running sums over passes, one number per row."""

    passes: Floats
    confidence: Floats
    squares: Floats
    margin: Floats
    last: Floats
    right: Floats
    forgotten: Floats
    learnt_at: Floats


@dataclass(frozen=True, slots=True)
class DataMap:
    """One line per training row [n]; NaN where a row was never seen.

    ``confidence`` is the mean over passes of the probability of the row's label (of its target
    tokens: e to the minus mean loss), in [0, 1]; ``variability`` its standard deviation; ``aum``
    the mean of logit(label) − largest other logit (NaN without logits); ``last`` the probability
    at the last pass; ``loss_range`` the inter-quartile range of the losses over the passes in nats,
    how late and how far the row was learned (2411.05743; NaN below four passes); ``learnt_at``
    the first pass from which it was correct to the end (−1: never); ``forgotten`` how often it
    changed from correct to wrong; ``kind`` is below.

    | kind | meaning |
    |---|---|
    | ``easy`` | correct at the end, and with high mean confidence |
    | ``memorized`` | correct at the end, but with low mean confidence: learned late |
    | ``unlearnable`` | wrong at the end, and never correct before |
    | ``forgotten`` | wrong at the end, but correct before |
    | ``relearned`` | correct at the end with low mean confidence, and forgotten in between |
    | ``unclear`` | seen in fewer than three passes |
    """

    rows: Ints
    confidence: Floats
    variability: Floats
    aum: Floats
    last: Floats
    loss_range: Floats
    learnt_at: Ints
    forgotten: Ints
    passes: Ints
    kind: tuple[str, ...]


class _Traces:
    """The losses of each row over the passes [kept, n], float32, NaN where it was not passed."""

    def __init__(self, count: int) -> None:
        fit = min(MOST_KEPT, MOST_NUMBERS // max(count, 1))
        self.losses = np.full((fit if fit >= LEAST_KEPT else 0, count), np.nan, dtype=np.float32)
        self.stride = 1

    def add(self, pass_number: int, rows: Ints, confidence: Floats) -> None:
        """Add the label probabilities of some rows in the pass ``pass_number``."""
        capacity = len(self.losses)
        if not capacity:
            return
        while pass_number // self.stride >= capacity:
            half = self.losses[::2].copy()
            self.losses[: len(half)], self.losses[len(half) :] = half, np.nan
            self.stride *= 2
        if pass_number % self.stride == 0:
            self.losses[pass_number // self.stride, rows] = -np.log(np.maximum(confidence, 1e-38))

    def range(self) -> Floats:
        """The inter-quartile range of each row [n]; NaN below four losses."""
        ranges = np.full(self.losses.shape[1], np.nan)
        enough = (~np.isnan(self.losses)).sum(axis=0) >= 4
        if enough.any():
            high, low = np.nanquantile(self.losses[:, enough], [0.75, 0.25], axis=0)
            ranges[enough] = high - low
        return ranges


# The state of a data map in a checkpoint; one of an older version has no traces.
HistoryState = TypedDict(
    "HistoryState",
    {
        "sums": dict[str, "torch.Tensor"],
        "traces": NotRequired["torch.Tensor"],
        "stride": NotRequired[int],
        "pass": int,
        "pending": Sequence[tuple["torch.Tensor", "torch.Tensor"]],
        "steps": NotRequired[Sequence[int]],
        "recent": NotRequired[Sequence[tuple[int, float, Sequence[int]]]],
        "first": NotRequired[Sequence[float]],
        "spikes": NotRequired[Sequence[tuple[int, float, float, Sequence[int]]]],
    },
)


class ExampleHistory:
    """A listener that builds the data map of a run and finds spikes of its training loss
    (``spikes``); its state is part of a checkpoint.

    A phase whose loss compares rows (contrast) has no losses of single rows and is left out. With
    several processes each row is seen by one of them per pass; they exchange the values at the end.
    """

    name, place = "example_history", "note"

    def __init__(self, rows: Ints, world: int = 1) -> None:
        self._rows = np.asarray(rows, dtype=np.int64)
        self._world = world
        count = len(self._rows)
        self._sums = _Sums(*(np.zeros(count) for _ in fields(_Sums)))
        self._sums.learnt_at[:] = -1
        self._traces = _Traces(count)
        self._pending: list[tuple[Ints, torch.Tensor]] = []
        self._steps: list[int] = []
        self._recent: list[tuple[int, float, tuple[int, ...]]] = []
        self._first: list[float] = []
        self.spikes: list[LossSpike] = []
        self._pass = 0

    def loss_ready(self, run: Run) -> None:
        batch = run.batch_losses
        if batch is None or run.phase.compares_rows:
            return
        rows, values = np.asarray(batch.rows), _row_values(batch)
        # Added examples come after the training rows and are not part of the map.
        is_training_row = rows < len(self._rows)
        if not is_training_row.all():
            rows, values = rows[is_training_row], values[np.flatnonzero(is_training_row)]
        self._pending.append((rows, values))
        self._steps.append(run.step + 1)

    def epoch_end(self, run: Run) -> None:
        here = [
            (step, rows, values.float().cpu().numpy())
            for step, (rows, values) in zip(self._steps, self._pending, strict=True)
        ]
        batches = gather_objects(here, self._world)
        for _, rows, values in batches:
            self._add(rows, values)
        self._find_spikes(batches)
        self._pending, self._steps = [], []
        self._pass += not run.phase.compares_rows

    def _find_spikes(self, batches: Sequence[tuple[int, Ints, Floats]]) -> None:
        """Compare the losses of these updates with those around them, also of earlier epochs."""
        by_step: dict[int, list[tuple[Ints, Floats]]] = {}
        for step, rows, values in batches:
            by_step.setdefault(step, []).append((rows, values))
        for step, parts in sorted(by_step.items()):
            rows, values = (np.concatenate(some) for some in zip(*parts, strict=True))
            if len(rows):
                confidence = values[:, 0].astype(np.float64)
                loss = float(-np.log(np.maximum(confidence, 1e-38)).mean())
                self._recent.append((step, loss, tuple(self._rows[rows].tolist())))
                self._first += [loss] if len(self._first) < 3 else []
        losses = np.array([loss for _, loss, _ in self._recent])
        known = self.spikes[-1].step if self.spikes else 0
        least = OF_FIRST * float(np.median(self._first)) if self._first else 0.0
        for place in spike_places(losses, least):
            step, loss, source_rows = self._recent[place]
            if step > known:
                self.spikes.append(LossSpike(step, loss, around(losses, place), source_rows))
        self._recent = self._recent[-RECENT:]

    def spike_finding(self) -> Finding | None:
        """The spikes, with the rows that are in each of their batches, or else those of the
        largest; ``None`` without one, or where they are so many that hard rows cause them all the
        time."""
        last = self._recent[-1][0] if self._recent else 0
        if not self.spikes or len(self.spikes) > max(1.0, MOST_SPIKES * last):
            return None
        worst = max(self.spikes, key=lambda one: one.loss - one.usual)
        common = set(worst.rows).intersection(*(one.rows for one in self.spikes))
        several = len(self.spikes) > 1 and common
        rows = tuple(sorted(common)) if several else worst.rows
        where = "in the batch of every spike" if several else f"in the batch of step {worst.step}"
        steps = ", ".join(str(one.step) for one in self.spikes[:20])
        because = (
            f"The training loss spikes at {count_phrase(len(self.spikes), 'step')} ({steps}). The "
            f"largest spike is {worst.loss:.3g} at step {worst.step}; the median around it is "
            f"{worst.usual:.3g}. These rows are {where}"
        )
        remedy = (
            "Check these rows for excessive length, wrong labels or another language. If they are "
            "correct, lower train.learning_rate."
        )
        return Finding("loss_spikes", "info", 1.0, len(rows), rows[:100], because, remedy)

    def state_dict(self) -> dict[str, Any]:
        import torch

        sums = {f.name: torch.from_numpy(getattr(self._sums, f.name)) for f in fields(_Sums)}
        return {
            "sums": sums,
            "traces": torch.from_numpy(self._traces.losses.copy()),
            "stride": self._traces.stride,
            "pass": self._pass,
            "pending": [(torch.from_numpy(rows), values) for rows, values in self._pending],
            "steps": list(self._steps),
            "recent": list(self._recent),
            "first": list(self._first),
            "spikes": [astuple(one) for one in self.spikes],
        }

    def load_state_dict(self, state: HistoryState) -> None:
        self._sums = _Sums(
            **{name: values.numpy().copy() for name, values in state["sums"].items()}
        )
        # A checkpoint of an older version has none: its passes are missing in the trace.
        if "traces" in state:
            self._traces.losses = state["traces"].numpy().copy()
            self._traces.stride = state["stride"]
        self._pass = state["pass"]
        self._pending = [(rows.numpy(), values) for rows, values in state["pending"]]
        # Nor does it have the updates of its passes; those are compared with nothing.
        self._steps = list(state.get("steps", [0] * len(self._pending)))
        self._recent = [(s, loss, tuple(rows)) for s, loss, rows in state.get("recent", ())]
        self._first = list(state.get("first", ()))
        self.spikes = [LossSpike(*one[:3], tuple(one[3])) for one in state.get("spikes", ())]

    def data_map(self) -> DataMap | None:
        """The map of the passes so far; ``None`` where no row was seen."""
        sums = self._sums
        if not sums.passes.any():
            return None
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = sums.confidence / sums.passes
            # Rounding may make a variance of 0 slightly negative.
            spread = np.sqrt(np.maximum(sums.squares / sums.passes - mean**2, 0.0))
            aum = sums.margin / sums.passes
        unseen = sums.passes == 0
        return DataMap(
            self._rows,
            mean,
            spread,
            aum,
            np.where(unseen, np.nan, sums.last),
            self._traces.range(),
            sums.learnt_at.astype(np.int64),
            sums.forgotten.astype(np.int64),
            sums.passes.astype(np.int64),
            _row_kinds(sums, mean),
        )

    def _add(self, rows: Ints, values: Floats) -> None:
        """Add ``values`` [rows, 3]: probability of the label, margin, correct or wrong. A row that
        was drawn twice counts twice, in the order of its draws."""
        while len(rows):
            distinct, first = np.unique(rows, return_index=True)
            self._add_distinct(distinct, values[first])
            rows, values = np.delete(rows, first), np.delete(values, first, axis=0)

    def _add_distinct(self, rows: Ints, values: Floats) -> None:
        sums, (confidence, margin, right) = self._sums, values.astype(np.float64).T
        self._traces.add(self._pass, rows, confidence)
        sums.passes[rows] += 1
        sums.confidence[rows] += confidence
        sums.squares[rows] += confidence**2
        sums.margin[rows] += margin
        sums.last[rows] = confidence
        sums.forgotten[rows] += (sums.right[rows] == 1) & (right == 0)
        begins = (right == 1) & (sums.right[rows] == 0)
        sums.learnt_at[rows] = np.where(
            right == 0, -1, np.where(begins, self._pass, sums.learnt_at[rows])
        )
        sums.right[rows] = right


def evaluation_data_map(rows: Ints, history: Sequence[Snapshot]) -> DataMap | None:
    """The same map for the validation rows, with an evaluation in place of a pass; the evaluation
    before the first step is left out. ``None`` without rows or without a later evaluation."""
    import torch

    evaluations = [s for s in history if s.step and len(s.valid_losses) == len(rows)]
    row_history = ExampleHistory(rows)
    for snapshot in evaluations if len(rows) else ():
        losses = torch.from_numpy(np.ascontiguousarray(snapshot.valid_losses))
        values = _row_values(BatchLosses(np.arange(len(rows)), losses, None, None)).numpy()
        if snapshot.valid_correct is not None:
            values[:, 2] = snapshot.valid_correct
        row_history._add(np.arange(len(rows)), values)
        row_history._pass += 1
    return row_history.data_map()


def _row_values(batch: BatchLosses) -> torch.Tensor:
    """Label probability, margin and correct or wrong, for each row [batch, 3]."""
    import torch

    confidence = torch.exp(-batch.losses.detach().float())
    if batch.logits is None or batch.labels is None:
        margin = torch.full_like(confidence, float("nan"))
        return torch.stack([confidence, margin, (confidence > LEARNED_PROBABILITY).float()], dim=1)
    logits, labels = batch.logits.detach().float(), batch.labels[:, None]
    label_logits = logits.gather(1, labels)[:, 0]
    other_logits = logits.scatter(1, labels, float("-inf")).amax(dim=1)
    return torch.stack(
        [confidence, label_logits - other_logits, (label_logits > other_logits).float()], dim=1
    )


def _row_kinds(sums: _Sums, mean: Floats) -> tuple[str, ...]:
    right = sums.right == 1
    ever_right = right | (sums.forgotten > 0)
    kinds = np.where(
        right,
        np.where(mean >= HARD_PROBABILITY, "easy", "memorized"),
        np.where(ever_right, "forgotten", "unlearnable"),
    ).astype(object)
    kinds[right & (mean < HARD_PROBABILITY) & (sums.forgotten > 0)] = "relearned"
    kinds[sums.passes < LEAST_PASSES] = "unclear"
    return tuple(kinds.tolist())
