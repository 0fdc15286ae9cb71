"""Out of memory in a step: the same update in more pieces, said aloud."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.core.actions import to_record
from holdfast.core.errors import MachineError
from holdfast.training.act import is_out_of_memory, micro_batch_count
from holdfast.training.loop import fit


class Allocator:
    """A task whose forward pass finds no memory for more than ``most`` rows, in training."""

    def __init__(self, task: Any, most: int, said: Exception) -> None:
        self._task, self._most, self._said = task, most, said
        self.refused = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def forward(self, network: Any, batch: Any) -> Any:
        if network.training and len(batch["labels"]) > self._most:
            self.refused += 1
            raise self._said
        return self._task.forward(network, batch)


CPU = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


def weights(job: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in job.network.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize("said", [CPU, torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_the_run_ends_where_it_would_have_with_enough_memory(job: Any, said: Exception) -> None:
    roomy, tight = job(), job()
    allocator = Allocator(tight.task, 2, said)
    object.__setattr__(tight, "task", allocator)
    fit(roomy)
    fitted = fit(tight)
    for name, value in weights(roomy).items():
        torch.testing.assert_close(weights(tight)[name], value, rtol=1e-4, atol=1e-6)
    assert allocator.refused == 2  # 8 rows, then 4; never again after that
    (_, one), (_, two) = fitted.actions
    assert "2 micro-batches of 4" in one.because
    assert to_record(two)["action"] == "HalveBatch"
    assert to_record(two)["settings"] == {"train.batch_size": 2, "train.accumulate": 4}


def test_it_stands_in_the_journal(job: Any, tmp_path: Path) -> None:
    tight = job(tmp_path)
    object.__setattr__(tight, "task", Allocator(tight.task, 4, CPU))
    fit(tight)
    told = [line for line in tight.journal.lines() if line["event"] == "action"]
    assert [line["action"] for line in told] == ["HalveBatch"]
    assert "memory ran out in step 1" in told[0]["because"]


@pytest.mark.slow
def test_dropout_draws_as_if_the_refused_try_had_not_been(job: Any) -> None:
    """A refusal that comes after some pieces were computed leaves no trace in the generator."""
    whole, late = job(dropout=0.5), job(dropout=0.5)
    object.__setattr__(whole, "task", Allocator(whole.task, 4, CPU))
    allocator = Allocator(late.task, 4, CPU)

    def forward(network: Any, batch: Any) -> Any:
        output = late_forward(network, batch)
        if network.training and len(batch["labels"]) > 4:
            raise CPU
        return output

    late_forward = late.task.forward
    allocator.forward = forward  # type: ignore[method-assign]
    object.__setattr__(late, "task", allocator)
    fit(whole)
    fit(late)
    assert all(torch.equal(value, weights(late)[name]) for name, value in weights(whole).items())


@pytest.mark.slow
def test_a_row_that_does_not_fit_alone_is_an_error_that_helps(job: Any) -> None:
    tight = job()
    object.__setattr__(tight, "task", Allocator(tight.task, 0, CPU))
    with pytest.raises(MachineError, match="memory"):
        fit(tight)


def test_rows_that_are_compared_stay_together(job: Any, contrast_phase: Any) -> None:
    tight = job(phases=(contrast_phase(),))
    allocator = Allocator(tight.task, 0, CPU)
    object.__setattr__(tight, "task", allocator)
    with pytest.raises(MachineError):
        fit(tight)
    assert allocator.refused == 1


def test_other_errors_pass_through(job: Any) -> None:
    broken = job()
    object.__setattr__(broken, "task", Allocator(broken.task, 0, RuntimeError("shape")))
    with pytest.raises(RuntimeError, match="shape"):
        fit(broken)
    assert not is_out_of_memory(RuntimeError("shape"))


def test_a_resume_keeps_the_pieces(job: Any) -> None:
    from holdfast.training.act import start_phase
    from holdfast.training.guard import begin_run, checkpoint_state, resume_from

    first = begin_run(job())
    start_phase(first)
    first.halvings = 2
    again = begin_run(job())
    resume_from(again, checkpoint_state(first))
    assert micro_batch_count(again) == 4
