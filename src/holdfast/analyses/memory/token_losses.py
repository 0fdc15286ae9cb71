"""What models that write say of the tokens of rows: one by one, by the trained network and by the
one before training."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from holdfast.analyses.memory.membership import Tokens
from holdfast.analyses.memory.probe import SetScores
from holdfast.core.decisions import tick
from holdfast.core.records import Floats
from holdfast.data.table import Table
from holdfast.tasks.generation.losses import ChunkedOutput
from holdfast.tasks.lm.losses import TokenOutput
from holdfast.tasks.seq2seq.losses import wanted_of
from holdfast.training.batches import by_length
from holdfast.training.task import device_batch

if TYPE_CHECKING:
    import torch

    from holdfast.contract.fit import FittedModel
    from holdfast.models.base import Network
    from holdfast.training.task import Batch, Examples, Task

TOKENS = 4096

Hear = Callable[[Table], SetScores]


def hearing(fitted: FittedModel) -> Hear:
    """A function that asks the kept state of a fit and the network before its first step about
    rows: two forward passes a row."""
    job, start = fitted.job, fitted.untuned()
    device = job.accelerator.device

    def hear(table: Table) -> SetScores:
        tuned = fitted.network.to(device)
        return heard(table, fitted.encode(table), job.task, tuned, start, device)

    return hear


def heard(
    table: Table,
    examples: Examples,
    task: Task,
    tuned: Network,
    start: Network | None,
    device: torch.device,
) -> SetScores:
    """The mean loss of each row's target tokens [n] by both networks (NaN for a row without one),
    and their tokens; ``start`` may be missing."""
    of_row = table.places(np.asarray(examples.rows))
    by_tuned, right = _tokens(tuned, task, examples, device)
    by_start = None if start is None else _tokens(start, task, examples, device)[0]
    lines: list[list[int]] = [[] for _ in range(len(table))]
    for at, row in enumerate(of_row):
        lines[row].append(at)
    nothing = np.zeros(0)

    def joined(parts: list[Floats], row: int) -> Floats:
        return np.concatenate([parts[at] for at in lines[row]] or [nothing])

    def losses(parts: list[Floats]) -> Floats:
        whole = [joined(parts, row) for row in range(len(table))]
        return np.array([-float(one.mean()) if len(one) else np.nan for one in whole])

    if by_start is None:
        return SetScores(table, losses(by_tuned))
    tokens = tuple(
        Tokens(joined(by_tuned, row), joined(by_start, row), joined(right, row).astype(bool))
        for row in range(len(table))
    )
    return SetScores(table, losses(by_tuned), losses(by_start), tokens)


def _sure(
    output: ChunkedOutput | TokenOutput | torch.Tensor, batch: Batch
) -> tuple[torch.Tensor, torch.Tensor]:
    """log p of each target token of a batch, and whether it was the likeliest."""
    if isinstance(output, ChunkedOutput):
        return -output.losses, output.right
    logits = (output.logits if isinstance(output, TokenOutput) else output).float()
    wanted = batch["expected"] if "expected" in batch else wanted_of(batch)
    sure = logits.gather(1, wanted[:, None])[:, 0] - logits.logsumexp(dim=1)
    return sure, logits.argmax(dim=1) == wanted


def _tokens(
    network: Network, task: Task, examples: Examples, device: torch.device
) -> tuple[list[Floats], list[Floats]]:
    """log p of each example's target tokens, and whether each was the likeliest."""
    from holdfast.models.base import evaluating

    found: list[Floats] = [np.zeros(0)] * len(examples)
    right: list[Floats] = [np.zeros(0)] * len(examples)
    done = 0
    with evaluating(network):
        for chosen in by_length(examples.lengths, np.arange(len(examples)), TOKENS):
            batch = device_batch(task, examples, chosen, device)
            output = task.forward(network, batch)
            sure, hit = _sure(output, batch)
            ends = np.cumsum(batch["counts"].cpu().numpy())[:-1]
            for at, one, other in zip(
                chosen,
                np.split(sure.cpu().numpy().astype(np.float64), ends),
                np.split(hit.cpu().numpy().astype(np.float64), ends),
                strict=True,
            ):
                found[at], right[at] = one, other
            done += len(chosen)
            tick(done, len(examples))
    return found, right
