"""One update, and which rows it uses."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from holdfast.core.errors import TrainingError
from holdfast.core.records import Ints
from holdfast.models.prefix import train_mode
from holdfast.training.batches import class_batch, epoch_batches, parts_by_length, shard
from holdfast.training.examples import batch_losses_of
from holdfast.training.memory import in_less_memory, pieces
from holdfast.training.prefix_cache import entered

if TYPE_CHECKING:
    from holdfast.training.run import Run

PART_ROWS = 8


def begin_phase(run: Run) -> None:
    """Make the optimizer and the schedule of the present phase."""
    phase = run.phase
    groups = run.job.groups(run.network, phase)
    for group in groups:
        group["base_lr"] = group["lr"]
    run.optimizer = run.job.optimizer(phase.optimizer, groups)
    run.schedule = run.job.schedule(phase.schedule, phase.steps, phase.warmup_steps)


def steps_per_epoch(run: Run) -> int:
    """Updates that pass every training row once, in the present phase."""
    return max(1, math.ceil(len(run.job.train) / run.phase.rows_per_step))


def rows_of_step(run: Run) -> Ints:
    """Positions of the training rows of the next update: a function of seed, phase and step."""
    phase, seed = run.phase, run.plan.seed
    if phase.sampler == "classes":
        return class_batch(
            run.job.train.labels, phase.batch_size, phase.classes_per_batch, seed, run.step_in_phase
        )
    epoch, index = divmod(run.step_in_phase, steps_per_epoch(run))
    return _epoch(run, epoch)[index]


def train_step(run: Run, rows: Ints) -> None:
    """Forward, losses, backward, clip, update; the run's counters move on.

    The gradient is that of Σ weight · loss ÷ Σ weight over the whole update (each row weighs 1, or
    its target tokens), whatever the pieces it is computed in: micro-batches, parts, processes.
    """
    if not run.network.training:
        train_mode(run.network)
    whole = run.phase.loss == "contrast"
    rank, world = run.job.accelerator.process_index, run.job.accelerator.num_processes
    mine = rows if whole else shard(rows, rank, world)
    weight = float(run.job.task.weights(run.job.train, rows).sum())
    total = in_less_memory(run, lambda: _gradients(run, mine, weight))
    total = _combine(run, total, average=whole)
    if not math.isfinite(total):
        raise _not_a_number(run, total)
    run.running_loss = total
    _update(run)
    run.examples_seen += len(rows)
    run.step, run.step_in_phase = run.step + 1, run.step_in_phase + 1
    run.emit("step_done")


def _gradients(run: Run, rows: Ints, weight: float) -> float:
    """Gradients of these rows' share of the update, from nothing; returns its loss."""
    assert run.optimizer is not None
    run.optimizer.zero_grad(set_to_none=True)
    task, examples, total = run.job.task, run.job.train, 0.0
    for piece in [rows] if run.phase.loss == "contrast" else _micro_batches(run, rows):
        share = torch.as_tensor(task.weights(examples, piece) / weight, dtype=torch.float32)
        losses = _losses(run, piece)
        loss = (losses * share.to(losses.device)).sum()
        run.job.accelerator.backward(loss)
        total += float(loss.detach())
    return total


def _micro_batches(run: Run, rows: Ints) -> list[Ints]:
    """The pieces that a step's rows are computed in. A processor takes hardly longer for many small
    batches than for a large one, so there padding is what costs; a GPU is the other way round."""
    count, most = pieces(run), run.phase.part_rows
    if most is not None and run.job.accelerator.device.type == "cpu":
        count = max(count, math.ceil(len(rows) / most))
    return parts_by_length(rows, run.job.train.lengths, count) if len(rows) else []


def _losses(run: Run, rows: Ints) -> torch.Tensor:
    """Per-example losses of these rows, in their order, after every loss term."""
    parts = [rows]
    if run.phase.sampler == "classes":
        count = math.ceil(len(rows) / PART_ROWS)
        parts = parts_by_length(rows, run.job.train.lengths, count)
    task, batches, outputs = run.job.task, [], []
    with run.job.accelerator.autocast():
        for part in parts:
            batch = task.collate(run.job.train, part)
            batch = {name: value.to(run.job.accelerator.device) for name, value in batch.items()}
            batches.append(batch)
            with entered(run.job.cache, run.job.train, part, batch):
                outputs.append(task.forward(run.network, batch))
    joined = len(parts) > 1
    output, batch = task.join(outputs, batches) if joined else (outputs[0], batches[0])
    losses = task.losses(output, batch)
    run.seen = batch_losses_of(rows, losses, output, batch)
    for term in run.job.terms.get(run.phase.name, ()):
        losses = term(batch, output, losses)
    run.emit("loss_ready")
    run.seen = None
    return losses


def _update(run: Run) -> None:
    assert run.optimizer is not None
    parameters = [p for g in run.optimizer.param_groups for p in g["params"]]
    run.gradient_norms.append(_clip(parameters, run.phase.clip))
    run.emit("gradients_ready")
    scale = run.schedule.scale(run.step_in_phase)
    for group in run.optimizer.param_groups:
        group["lr"] = group["base_lr"] * scale
    run.learning_rate = run.phase.learning_rate * scale
    run.optimizer.step()


def _clip(parameters: list[torch.nn.Parameter], limit: float | None) -> float:
    """Scale the gradients down to the norm ``limit`` where theirs is above it; returns theirs. They
    are not touched where it is not, which on a processor would take as long as the norm."""
    learning = [p for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in learning if p.grad is not None])
    if limit is not None and not norm <= limit:
        torch.nn.utils.clip_grads_with_norm_(learning, limit, norm)
    return float(norm)


def _combine(run: Run, total: float, average: bool) -> float:
    """Add the gradients and the loss of all processes (or average, where each did the whole)."""
    accelerator = run.job.accelerator
    if accelerator.num_processes == 1:
        return total
    assert run.optimizer is not None
    parameters = [p for g in run.optimizer.param_groups for p in g["params"]]
    grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = torch.cat(
        [*[g.reshape(-1) for g in grads], torch.tensor([total], device=grads[0].device)]
    )
    flat = accelerator.reduce(flat, reduction="mean" if average else "sum")
    start = 0
    for parameter in parameters:
        parameter.grad = flat[start : start + parameter.numel()].view_as(parameter)
        start += parameter.numel()
    return float(flat[-1])


def _not_a_number(run: Run, loss: float) -> TrainingError:
    return TrainingError(
        f"step {run.step + 1}",
        "gave a training loss that is not a finite number",
        loss,
        f"Lower train.learning_rate (now {run.phase.learning_rate:.2g}) or set "
        "train.precision=float32.",
    )


def _epoch(run: Run, epoch: int) -> list[Ints]:
    """The batches of an epoch of the present phase; the last one asked for is kept."""
    key = (run.phase_index, epoch)
    if run.epoch_batches is None or run.epoch_batches[0] != key:
        batches = epoch_batches(run.job.train.lengths, run.phase, run.plan.seed, epoch)
        run.epoch_batches = (key, batches)
    return run.epoch_batches[1]
