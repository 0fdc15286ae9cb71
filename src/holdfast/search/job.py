"""One fit of a search: its request, its result, and its storage until the run is finished, so that
a killed search repeats no finished fit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from holdfast.core.records import Floats, Ints, Snapshot
from holdfast.runs.procedure import SEARCH_FITS
from holdfast.training.checkpoint import SealedFile

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa
    import torch

# As long as that of a checkpoint: what stands at the end of the file has one length.
FILE_FORMAT = b"holdfast search fit 1"
_ARRAYS = ("losses", "correct", "refined")


@dataclass(frozen=True, slots=True, eq=False)
class FitJob:
    """One fit that a search requests.

    ``key`` is its name in the search: letters, digits and hyphens. ``train``, ``valid`` and
    ``held_out`` are positions among the context's rows, each row in at most one of them;
    ``held_out`` rows (may be empty) only score. ``settings`` are ``key: value`` as in a recipe.
    ``may_fail``: if a fit with these settings is impossible, its ``FitResult`` gives the reason,
    and the search continues.
    """

    key: str
    train: Ints
    valid: Ints
    held_out: Ints
    settings: Mapping[str, Any] = field(default_factory=dict)
    may_fail: bool = False

    @property
    def fingerprint(self) -> str:
        """A text that is equal only for equal jobs."""
        rows = [side.tolist() for side in (self.train, self.valid, self.held_out)]
        # Fits stored by earlier versions have a fourth part, which was always this.
        parts = [self.key, rows, dict(self.settings), "None"]
        return json.dumps(parts, sort_keys=True, default=str)


@dataclass(frozen=True, slots=True, eq=False)
class FitEvaluations:
    """The L evaluations of a fit on its validation rows: ``steps`` [L], ``losses`` [L, n] per
    example in nats, ``correct`` [L, n] or ``None``, and the ``metrics`` of each evaluation by name.
    ``logits`` [L, n, classes] of a classifier; ``refined`` [L] are mean losses after the best
    ``temperature`` [L]."""

    steps: Ints
    losses: Floats
    correct: Floats | None
    metrics: tuple[Mapping[str, float], ...]
    logits: Floats | None
    refined: Floats
    temperature: Floats


@dataclass(frozen=True, slots=True, eq=False)
class FoldScores:
    """Scores and predictions of the best checkpoint on held-out rows: ``scores`` in the form of a
    ``test`` block, ``predictions`` in the columns of ``predictions.parquet``, ``losses`` [m] per
    example, and the logits of the fit's linear ``probe`` [m, classes], where it has one."""

    scores: Mapping[str, Any]
    predictions: pa.Table
    losses: Floats
    probe: Floats | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FitResult:
    """A finished job.

    ``best`` is the index of the best checkpoint among the ``evaluations`` (``None`` if it is a
    weight average that was not evaluated). ``losses`` [n], ``correct`` [n] and ``metrics`` are of
    the validation rows at that checkpoint; ``refined`` [n] are the calibrated losses if a row has
    one class, else the losses. ``planned`` is the number of planned updates, ``seconds`` the wall
    time. ``stopped`` is the reason why a watch stopped it, ``None`` if none did. ``recipe`` holds
    every setting as resolved. ``failed`` says why there was no fit.
    """

    key: str
    settings: Mapping[str, Any]
    evaluations: FitEvaluations
    losses: Floats
    seconds: float
    ended: str
    best: int | None = None
    correct: Floats | None = None
    refined: Floats | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    best_step: int = 0
    last_step: int = 0
    planned: int = 0
    examples_seen: int = 0
    parameters: int = 0
    verdict: Mapping[str, Any] = field(default_factory=dict)
    stopped: str | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    held_out: FoldScores | None = None
    failed: str | None = None

    @property
    def held_out_scores(self) -> FoldScores:
        """The scores of the held-out rows, for a job that has some."""
        assert self.held_out is not None
        return self.held_out


class FitWatch(Protocol):
    """Follows the fits of a search and may stop one."""

    def stop_reason(self, key: str, snapshot: Snapshot) -> str | None:
        """A reason to stop the job ``key`` now; ``None`` to continue."""
        ...


class FitStore:
    """Finished fits on disk. ``folder`` is the run's ``checkpoints`` (``None``: nothing is stored),
    ``fingerprint`` that of the context: fits on other rows or by another recipe are not read."""

    def __init__(self, folder: Path | None, fingerprint: str) -> None:
        self._folder = folder / SEARCH_FITS if folder else None
        self._fingerprint = fingerprint

    def save(self, job: FitJob, result: FitResult) -> None:
        """Write it completely or not at all."""
        if self._folder is not None:
            self._file(job).save(_pack(result))

    def load(self, job: FitJob) -> FitResult | None:
        """The stored result of exactly this job; ``None`` if it must be run."""
        state = self._file(job).load("a finished fit", ": it is run again")
        return None if state is None else _unpack(state)

    def _file(self, job: FitJob) -> SealedFile:
        path = self._folder / f"{job.key}.pt" if self._folder else None
        return SealedFile(path, f"{self._fingerprint} {job.fingerprint}", FILE_FORMAT)


def _pack(result: FitResult) -> dict[str, Any]:
    import pyarrow as pa
    import torch

    separate = ("evaluations", "held_out", *_ARRAYS)
    plain = {
        one.name: getattr(result, one.name) for one in fields(result) if one.name not in separate
    }
    state: dict[str, Any] = {
        "plain": json.dumps(plain),
        **{name: _tensor(getattr(result, name)) for name in _ARRAYS},
        "looks": {
            one.name: _tensor(getattr(result.evaluations, one.name))
            for one in fields(result.evaluations)
            if one.name != "metrics"
        },
    }
    state["looks"]["metrics"] = json.dumps(result.evaluations.metrics)
    if result.held_out is not None:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, result.held_out.predictions.schema) as writer:
            writer.write_table(result.held_out.predictions)
        state["held"] = {
            "scores": json.dumps(result.held_out.scores),
            "answers": torch.frombuffer(bytearray(sink.getvalue()), dtype=torch.uint8),
            "losses": _tensor(result.held_out.losses),
            "probe": _tensor(result.held_out.probe),
        }
    return state


def _unpack(state: dict[str, Any]) -> FitResult:
    import pyarrow as pa

    evaluations = {name: _array(one) for name, one in state["looks"].items() if name != "metrics"}
    evaluations["metrics"] = tuple(json.loads(state["looks"]["metrics"]))
    held_out = state.get("held")
    if held_out is not None:
        stream = pa.ipc.open_stream(pa.py_buffer(_array(held_out["answers"]).tobytes()))
        held_out = FoldScores(
            json.loads(held_out["scores"]),
            stream.read_all(),
            _array(held_out["losses"]),
            # Fits stored by an earlier version have none.
            _array(held_out.get("probe")),
        )
    arrays = {name: _array(state[name]) for name in _ARRAYS}
    return FitResult(
        **json.loads(state["plain"]),
        **arrays,
        evaluations=FitEvaluations(**evaluations),
        held_out=held_out,
    )


def _tensor(array: npt.ArrayLike | None) -> torch.Tensor | None:
    import torch

    return None if array is None else torch.as_tensor(np.asarray(array))


def _array(tensor: torch.Tensor | None) -> Any:
    return None if tensor is None else tensor.numpy()
