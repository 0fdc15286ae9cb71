"""Finished fits of a search, on disk until the run is finished, so that a killed search repeats
none of them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.core.decisions import notify
from holdfast.core.files import write_atomically
from holdfast.core.records import Decision
from holdfast.runs.procedure import FITS
from holdfast.search.job import Done, FitEvaluations, FitJob, FoldScores
from holdfast.training.checkpoint import Unfit, read_sealed, write_sealed

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa
    import torch


# As long as that of a checkpoint: what stands at the end of the file has one length.
FORM = b"holdfast search fit 1"
_ARRAYS = ("losses", "correct", "refined")
_OWN = ("looks", "held", "folder", *_ARRAYS)


class FitStore:
    """``folder`` is the run's ``checkpoints`` (``None``: nothing is kept), ``mark`` that of the
    bench: what was done on other rows or by another recipe is not read."""

    def __init__(self, folder: Path | None, mark: str) -> None:
        self._folder = folder / FITS if folder else None
        self._mark = mark

    def save(self, job: FitJob, done: Done) -> None:
        """Write it whole or not at all."""
        path = self._path(job)
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        state, mark = _packed(done), self._mark_of(job)
        write_atomically(path, lambda beside: write_sealed(beside, state, mark, FORM))

    def load(self, job: FitJob) -> Done | None:
        """What was done of this very job; ``None`` where it is to be done. One whose model was to
        be kept is done again where that is gone."""
        path = self._path(job)
        if path is None or not path.exists():
            return None
        try:
            state = read_sealed(path, self._mark_of(job), FORM)
        except Unfit as error:
            because = f"{path.name} {error}: it is done again"
            notify(Decision("a finished fit", "not used", because))
            return None
        if job.keep is not None and not (job.keep / "model").is_dir():
            return None
        return _unpacked(state, job)

    def _path(self, job: FitJob) -> Path | None:
        return self._folder / f"{job.key}.pt" if self._folder else None

    def _mark_of(self, job: FitJob) -> str:
        return hashlib.sha256(f"{self._mark} {job.mark}".encode()).hexdigest()


def _packed(done: Done) -> dict[str, Any]:
    import torch

    plain = {f.name: getattr(done, f.name) for f in fields(done) if f.name not in _OWN}
    state: dict[str, Any] = {"plain": json.dumps(plain)}
    for name in _ARRAYS:
        state[name] = _tensor(getattr(done, name))
    looks, held = done.looks, done.held
    state["looks"] = {
        "steps": torch.as_tensor(looks.steps),
        "losses": torch.as_tensor(looks.losses),
        "correct": _tensor(looks.correct),
        "metrics": json.dumps(looks.metrics),
        "logits": _tensor(looks.logits),
        "refined": torch.as_tensor(looks.refined),
        "temperature": torch.as_tensor(looks.temperature),
    }
    if held is not None:
        state["held"] = {
            "scores": json.dumps(held.scores),
            "answers": torch.frombuffer(bytearray(_bytes(held.answers)), dtype=torch.uint8),
            "losses": torch.as_tensor(held.losses),
        }
    return state


def _unpacked(state: dict[str, Any], job: FitJob) -> Done:
    looks, held = state["looks"], state.get("held")
    return Done(
        **json.loads(state["plain"]),
        **{name: _array(state[name]) for name in _ARRAYS},
        looks=FitEvaluations(
            looks["steps"].numpy(),
            looks["losses"].numpy(),
            _array(looks["correct"]),
            tuple(json.loads(looks["metrics"])),
            _array(looks["logits"]),
            looks["refined"].numpy(),
            looks["temperature"].numpy(),
        ),
        held=None
        if held is None
        else FoldScores(
            json.loads(held["scores"]), _table(held["answers"]), held["losses"].numpy()
        ),
        folder=job.keep,
    )


def _tensor(array: npt.ArrayLike | None) -> torch.Tensor | None:
    import torch

    return None if array is None else torch.as_tensor(np.asarray(array, dtype=np.float64))


def _array(tensor: torch.Tensor | None) -> Any:
    return None if tensor is None else tensor.numpy()


def _bytes(table: pa.Table) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _table(tensor: torch.Tensor) -> pa.Table:
    import pyarrow as pa

    return pa.ipc.open_stream(pa.py_buffer(tensor.numpy().tobytes())).read_all()
