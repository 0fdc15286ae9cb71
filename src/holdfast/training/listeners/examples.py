"""How each training row was learned: a data map from the losses of the training itself.

No additional forward pass is needed. Each epoch sees every training row once, in training mode, and
three values are stored: the probability of the row's own label, its margin, and whether the
prediction was correct (Swayamdipta and others 2020, 2009.10795; Pleiss and others 2020, 2001.10528;
Toneva and others 2019, 1812.05159).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import numpy as np

from holdfast.core.records import Floats, Ints, Snapshot
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
    },
)


class ExampleHistory:
    """A listener that builds the data map of a run; its state is part of a checkpoint.

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

    def epoch_end(self, run: Run) -> None:
        here = [(rows, values.float().cpu().numpy()) for rows, values in self._pending]
        for rows, values in gather_objects(here, self._world):
            self._add(rows, values)
        self._pending = []
        self._pass += not run.phase.compares_rows

    def state_dict(self) -> dict[str, Any]:
        import torch

        sums = {f.name: torch.from_numpy(getattr(self._sums, f.name)) for f in fields(_Sums)}
        return {
            "sums": sums,
            "traces": torch.from_numpy(self._traces.losses.copy()),
            "stride": self._traces.stride,
            "pass": self._pass,
            "pending": [(torch.from_numpy(rows), values) for rows, values in self._pending],
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
