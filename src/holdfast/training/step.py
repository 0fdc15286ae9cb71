"""One update, and which rows it uses."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from holdfast.core.errors import TrainingError
from holdfast.core.seeds import derive_seed
from holdfast.core.updates import Draw, ForwardPass, OfTwoPasses, RowPool
from holdfast.models.compute.prefix import train_mode
from holdfast.training.act import micro_batch_count, retry_in_less_memory
from holdfast.training.machine.sharding import gather_tensor, is_sharded, sum_over_processes
from holdfast.training.plan import parts_by_length
from holdfast.training.prefix_cache import cached_prefix
from holdfast.training.restore import RandomState, random_state, set_random_state
from holdfast.training.run import Run, batch_losses_of, running_statistics
from holdfast.training.task import device_batch

COMPARED_PART_ROWS = 8
# The cost of an update, in forward passes of its rows: 2.6 to 3.3 were measured for the default
# plans on a CPU (CR, TREC and BANKING77, 120 to 2,000 rows), including the optimizer.
UPDATE_COST = 2.8
# Tokens are counted for this many updates; the rows of four, or of a tenth of the run's, are timed.
COUNTED_UPDATES, MOST_TIMED_UPDATES, UPDATES_PER_TIMED = 32, 4, 10


def steps_per_epoch(run: Run) -> int:
    """Updates per epoch of the current phase."""
    return run.phase.source.steps_per_epoch(_pool(run))


def draw_of_step(run: Run) -> Draw:
    """The rows of the next update: a function of seed, phase and step."""
    return run.phase.source.draw(_pool(run), run.step_in_phase)


def _pool(run: Run) -> RowPool:
    """The pool of training rows of the current phase."""
    if run.pool is None or run.pool.phase != run.phase.name:
        seed, shuffles = run.plan.seed, run.adjustments.shuffles
        seed = derive_seed(seed, "reshuffle", shuffles) if shuffles else seed
        run.pool = run.phase.pool(run.job.learned_examples, seed)
    return run.pool


def train_step(run: Run, draw: Draw) -> None:
    """Compute the gradient with the phase's stepper, clip it, update, advance the counters."""
    if not run.network.training:
        train_mode(run.network)
    run.running_loss = run.phase.stepper(RunUpdate(run), draw)
    _update(run)
    run.examples_seen += len(draw)
    run.step, run.step_in_phase = run.step + 1, run.step_in_phase + 1
    run.emit("step_done")


class RunUpdate:
    """An update in progress: the ``Update`` of ``core/updates.py``."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._random_before: RandomState = {}

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        return phase_parameters(self._run)

    def gradients(self, draw: Draw, repeat_pass: bool = False) -> float:
        run, rank = self._run, self._run.job.accelerator.process_index
        compares_rows = run.phase.compares_rows
        local_rows = slice(rank, None, run.job.accelerator.num_processes)
        parts = draw.parts
        local_parts = parts if compares_rows else tuple(part.take(local_rows) for part in parts)
        weight = sum(_weight(run, part) for part in parts)
        if repeat_pass:
            # Two passes with different dropout would be gradients of two functions.
            set_random_state(self._random_before)
        else:
            self._random_before = random_state()
        with _fixed_statistics(run, repeat_pass):
            total = retry_in_less_memory(
                run,
                self._random_before,
                lambda: _gradients(run, local_parts, weight, repeat_pass, parts),
            )
        total = _combine(run, total, average=compares_rows)
        if not math.isfinite(total):
            raise _not_a_number(run, total)
        return total


def examples_of(run: Run, draw: Draw) -> Any:
    """The encoded rows that are passed for a draw."""
    return run.job.learned_examples if draw.examples is None else draw.examples


def _weight(run: Run, draw: Draw) -> float:
    return float(run.job.task.weights(examples_of(run, draw), draw.positions).sum())


@contextlib.contextmanager
def _fixed_statistics(run: Run, second_pass: bool) -> Iterator[None]:
    """Where rows pass again, keep the running statistics of batch norms as the first pass left
    them."""
    buffers = (
        {n: b.clone() for n, b in running_statistics(run.network).items()} if second_pass else {}
    )
    yield
    for name, buffer in running_statistics(run.network).items() if buffers else ():
        buffer.copy_(buffers[name])


def _gradients(
    run: Run, draws: Sequence[Draw], weight: float, second_pass: bool, global_draws: Sequence[Draw]
) -> float:
    """Compute the gradients of these rows' share of the update from zero; return its loss. The
    first draw is of training rows, and only these are reported to listeners. ``global_draws`` are
    the same draws with the rows of every process."""
    assert run.optimizer is not None
    run.optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for draw, global_draw in zip(draws, global_draws, strict=True):
        for loss in _weighted_losses(run, draw, weight, second_pass or draw is not draws[0]):
            run.job.accelerator.backward(loss)
            total += float(loss.detach())
        for _ in range(_spare_passes(run, draw, global_draw)):
            for loss in _weighted_losses(run, global_draw.take(slice(0, 1)), weight, silent=True):
                run.job.accelerator.backward(0.0 * loss)
    return total


def _spare_passes(run: Run, draw: Draw, global_draw: Draw) -> int:
    """How many more passes the process with most rows makes, where all must join each pass."""
    world = run.job.accelerator.num_processes
    if not is_sharded(run.network):
        return 0
    counts = (
        len(_micro_batches(run, global_draw.take(slice(r, None, world)))) for r in range(world)
    )
    return max(counts) - len(_micro_batches(run, draw))


def loss_of(run: Run, draw: Draw) -> float:
    """The loss of an update's rows with the current network, in training mode. Nothing is changed
    or reported. Raises ``TrainingError`` for a loss that is not finite."""
    weight, total = sum(_weight(run, part) for part in draw.parts), 0.0
    with torch.no_grad(), _fixed_statistics(run, True):
        for part in draw.parts:
            total += sum(float(loss) for loss in _weighted_losses(run, part, weight, silent=True))
    if not math.isfinite(total):
        raise _not_a_number(run, total)
    return total


def seconds_of_updates(run: Run) -> float:
    """The estimated time of all updates of the plan in seconds, from forward passes of the rows of
    some updates of each phase in training mode (``_seconds_of_a_pass``). It is for one process;
    nothing is changed, and no random state is used up."""
    state, place = random_state(), (run.phase_index, run.step_in_phase)
    was_training, total = run.network.training, 0.0
    train_mode(run.network)
    try:
        with _fixed_statistics(run, True):
            for number, phase in enumerate(run.plan.phases):
                run.phase_index = number
                forward = _seconds_of_a_pass(run, phase.steps)
                total += UPDATE_COST * forward * phase.passes * phase.steps
    finally:
        run.phase_index, run.step_in_phase = place
        if not was_training:
            run.network.eval()
        set_random_state(state)
    return total


def _seconds_of_a_pass(run: Run, steps: int) -> float:
    """The mean time of one forward pass of an update's rows, over ``steps`` updates of the current
    phase: the median of those among ``COUNTED_UPDATES`` whose tokens are nearest to their mean. The
    first of them also allocates memory and selects kernels."""
    draws = []
    for place in range(0, steps, math.ceil(steps / COUNTED_UPDATES)):
        run.step_in_phase = place
        pieces = [one for part in draw_of_step(run).parts for one in _micro_batches(run, part)]
        draws.append((sum(_tokens(run, piece) for piece in pieces), pieces))
    mean = sum(tokens for tokens, _ in draws) / len(draws)
    draws.sort(key=lambda one: abs(one[0] - mean))
    timed_count = max(1, min(MOST_TIMED_UPDATES, steps // UPDATES_PER_TIMED))
    passes = (_time_forward(run, pieces) * mean / tokens for tokens, pieces in draws[:timed_count])
    return statistics.median(passes)


def _time_forward(run: Run, pieces: Sequence[Draw]) -> float:
    """The seconds of one pass of these micro-batches, as in an update."""
    # On a CPU, storing what a gradient needs doubles the time; on a GPU it hardly matters, and it
    # would run out of memory here before a run can use smaller micro-batches.
    cuda, start = run.job.accelerator.device.type == "cuda", time.perf_counter()
    with torch.set_grad_enabled(not cuda):
        for piece in pieces:
            _output(run, piece)
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _tokens(run: Run, piece: Draw) -> int:
    """The tokens of a micro-batch including its padding."""
    lengths = examples_of(run, piece).lengths
    return sum(
        len(part) * int(lengths[part.positions].max()) for part in _forward_parts(run, piece)
    )


def _weighted_losses(run: Run, draw: Draw, weight: float, silent: bool) -> Iterator[torch.Tensor]:
    """Yield the contribution of each micro-batch to the loss of the update."""
    task, examples = run.job.task, examples_of(run, draw)
    for piece in _micro_batches(run, draw):
        share = task.weights(examples, piece.positions) / weight
        losses = _losses(run, piece, silent)
        yield (losses * torch.as_tensor(share, dtype=torch.float32).to(losses.device)).sum()


def _micro_batches(run: Run, draw: Draw) -> list[Draw]:
    """The micro-batches of a step's rows. On a CPU many small batches take hardly longer than a
    large one, so padding is the main cost; on a GPU it is the other way round."""
    count, most = micro_batch_count(run), run.phase.part_rows
    if run.phase.compares_rows:
        count, most = 1, None
    if most is not None and run.job.accelerator.device.type == "cpu":
        count = max(count, math.ceil(len(draw) / most))
    return parts_by_length(draw, examples_of(run, draw).lengths, count) if len(draw) else []


def _losses(run: Run, draw: Draw, silent: bool) -> torch.Tensor:
    """Per-example losses of these rows, in their order, after every loss term; the terms that
    compare two passes come last."""
    first, losses = _forward_pass(run, draw)
    if run.phase.passes_per_gradient > 1:
        batch_losses = run.batch_losses
        second, others = _forward_pass(run, draw)
        run.batch_losses = batch_losses
        for term in run.phase.terms:
            if isinstance(term, OfTwoPasses):
                losses = term.between(first, second, (losses, others))
    if not silent:
        run.emit("loss_ready")
    run.batch_losses = None
    return losses


def _forward_pass(run: Run, draw: Draw) -> tuple[ForwardPass, torch.Tensor]:
    """A forward pass of these rows, and their losses after the terms of one pass."""
    output, batch = _output(run, draw)
    losses = run.job.task.losses(output, batch)
    forward_pass = ForwardPass(
        draw.rows, batch, output, lambda chosen: _initial_output(run, draw.take(chosen))
    )
    run.batch_losses = batch_losses_of(forward_pass, losses)
    for term in run.phase.terms:
        losses = term(forward_pass, losses)
    return forward_pass, losses


def _forward_parts(run: Run, draw: Draw) -> list[Draw]:
    """The parts of these rows that pass together."""
    if not run.phase.compares_rows:
        return [draw]
    lengths = examples_of(run, draw).lengths
    return parts_by_length(draw, lengths, math.ceil(len(draw) / COMPARED_PART_ROWS))


def _output(run: Run, draw: Draw) -> tuple[Any, dict[str, torch.Tensor]]:
    """The network's output for these rows, and their batch. Rows that are compared pass in small
    parts, whose outputs are joined."""
    parts, examples = _forward_parts(run, draw), examples_of(run, draw)
    task, batches, outputs = run.job.task, [], []
    with run.job.accelerator.autocast():
        for part in parts:
            batch = device_batch(task, examples, part.positions, run.job.accelerator.device)
            batches.append(batch)
            with cached_prefix(run.job.cache, examples, part.positions, batch):
                outputs.append(task.forward(run.network, batch))
    return task.join(outputs, batches) if len(parts) > 1 else (outputs[0], batches[0])


def _initial_output(run: Run, draw: Draw) -> Any:
    """The output of the network from before the first step for these rows."""
    with run.initial_weights(), torch.no_grad():
        run.network.eval()
        try:
            return _output(run, draw)[0]
        finally:
            train_mode(run.network)


def phase_parameters(run: Run) -> list[torch.nn.Parameter]:
    """The parameters that the current phase trains. Those frozen by an action must have no
    gradient, or the optimizer would decay them."""
    assert run.optimizer is not None
    learning = (p for group in run.optimizer.param_groups for p in group["params"])
    return [p for p in learning if p.requires_grad]


def _update(run: Run) -> None:
    assert run.optimizer is not None
    run.loss_scale.unscale(run.optimizer)
    # After every pass and every process: what is added here is clipped with the rest.
    run.emit("backward_done")
    trainable = [p for p in phase_parameters(run) if p.grad is not None]
    local_norm = torch.nn.utils.get_total_norm([p.grad for p in trainable if p.grad is not None])
    norm, limit = float(gather_tensor(local_norm)), run.phase.clip
    # Gradients below the limit are not changed, which would take as long again on a CPU.
    if limit is not None and not norm <= limit:
        torch.nn.utils.clip_grads_with_norm_(trainable, limit, local_norm)
    run.gradient_norms.append(norm)
    run.emit("gradients_ready")
    scale = run.schedule.scale(run.step_in_phase)
    for group in run.optimizer.param_groups:
        group["lr"] = group["base_lr"] * scale
    run.learning_rate = run.phase.learning_rate * scale
    if not run.loss_scale.step(run.optimizer, norm, run.step + 1, run.journal):
        # The gradient of a skipped update has overflowed.
        run.gradient_norms.pop()


def _combine(run: Run, total: float, average: bool) -> float:
    """Add the gradients and the loss of all processes (or average, where each computed all)."""
    accelerator = run.job.accelerator
    if accelerator.num_processes == 1:
        return total
    if is_sharded(run.network):
        # Each process has its shard of the summed gradient already.
        return sum_over_processes(accelerator, [total])[0]
    parameters = phase_parameters(run)
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
        f"Lower train.learning_rate (this phase learns at {run.phase.learning_rate:.2g}) or set "
        "train.precision=float32.",
    )
