"""Scores with intervals from the losses of target tokens, for every generative model.

Also the probabilities that the models of an ensemble give to each target token, and the record of
generated texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from holdfast.core.decisions import tick
from holdfast.core.errors import Defect
from holdfast.core.records import Floats, Ints, Scores, mean_loss
from holdfast.core.updates import logits_of
from holdfast.metrics.comparison import compare_losses
from holdfast.metrics.resample import (
    POSITIVE,
    RATE,
    RESAMPLES,
    ResampledUnits,
    Resampling,
    undefined,
)
from holdfast.stats.paired_tests import loss_rows
from holdfast.tasks.generation.losses import perplexities, token_losses
from holdfast.tasks.seq2seq.losses import target_tokens
from holdfast.training.plan import batches_by_length
from holdfast.training.task import device_batch

if TYPE_CHECKING:
    import torch

    from holdfast.models.base import Network
    from holdfast.training.task import Examples, TrainingTask


METRICS = ("loss", "token_loss", "perplexity", "token_accuracy")


@dataclass(frozen=True, slots=True)
class TokenOutputs:
    """Some rows, teacher-forced: ``rows`` source positions; ``losses`` the mean loss of a row's
    target tokens, in nats; ``tokens`` how many these are; ``correct`` how many of them were the
    most probable; ``groups`` names or ``None``; all [n]. ``loss`` is the mean over all tokens, and
    ``loss_rows`` [n] the rows of that mean (``stats/paired_tests.py``).
    """

    rows: Ints
    losses: Floats
    tokens: Ints
    correct: Floats
    groups: npt.NDArray[Any] | None = None

    @property
    def loss(self) -> float:
        return mean_loss(self.losses, self.tokens)

    @property
    def loss_rows(self) -> Floats:
        return loss_rows(self.losses, self.tokens)

    @property
    def units(self) -> ResampledUnits:
        """The resampling unit: rows, or the groups they are in."""
        return ResampledUnits.by(self.groups, len(self.rows))


def score_tokens(
    outputs: TokenOutputs, *, seed: int = 0, level: float = 0.95, resamples: int = RESAMPLES
) -> Scores:
    """``loss``: the mean over all target tokens, as evaluations compute it (``token_loss`` is the
    same, by its older name); ``perplexity`` = exp of it; ``token_accuracy``: the share of target
    tokens that were the most probable given those before.

    Intervals are BCa over rows, or Student's over groups, since a row's tokens belong together. No
    rows, or a loss that is not finite: undefined.
    """
    if not len(outputs.rows):
        return Scores(0, dict.fromkeys(METRICS, undefined("there are no rows")))
    if not np.isfinite(outputs.losses).all():
        nothing = undefined("a loss is not finite")
        return Scores(len(outputs.rows), dict.fromkeys(METRICS, nothing))
    losses, tokens = outputs.losses.astype(np.float64), outputs.tokens.astype(np.float64)
    # A row's mean times its tokens is their sum.
    rows = np.column_stack([losses * tokens, tokens, outputs.correct])
    drawing = Resampling(outputs.units, seed, level, resamples)
    result, _ = drawing.sums(rows, _numbers, "tokens")
    metrics = {
        name: drawing.estimate(result, i, within=RATE if name == "token_accuracy" else POSITIVE)
        for i, name in enumerate(METRICS)
    }
    return Scores(len(outputs.rows), metrics, {"tokens": int(outputs.tokens.sum())})


def compare_tokens(
    first: TokenOutputs,
    second: TokenOutputs,
    *,
    names: tuple[str, str] = ("fine-tuned model", "untuned model"),
    seed: int = 0,
) -> dict[str, Any]:
    """The loss a token of the first less that of the second, paired row by row (below 0: the first
    is better), as ``compare_losses`` computes it.

    Raises ``Defect`` where the two do not hold the same rows.
    """
    if not np.array_equal(first.rows, second.rows):
        raise Defect("a paired comparison", "needs the same rows in the same order")
    return compare_losses(
        first.loss_rows,
        second.loss_rows,
        first.units,
        unit="nats per token",
        names=names,
        seed=seed,
    )


def _numbers(table: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        loss, accuracy = table[:, 0] / table[:, 1], table[:, 2] / table[:, 1]
    return np.stack([loss, loss, perplexities(loss), accuracy], axis=1)


TOKENS = 4096


def measure_saved(
    network: Any, task: TrainingTask, examples: Examples, device: torch.device
) -> tuple[Floats, Floats]:
    """Losses [n] and kept outputs [n, 2] of all examples, in their order and in the precision of
    the weights, as a reloaded folder computes them.
    """
    import torch

    network.to(device).eval()
    table, done = np.zeros((len(examples), 3)), 0
    with torch.inference_mode():
        for batch_rows in batches_by_length(examples.lengths, np.arange(len(examples)), TOKENS):
            batch = device_batch(task, examples, batch_rows, device)
            output = task.forward(network, batch)
            losses = task.losses(output, batch)[:, None]
            table[batch_rows] = torch.cat([losses, task.keep(output, batch)], dim=1).cpu().numpy()
            done += len(batch_rows)
            tick(done, len(examples))
    return table[:, 0], table[:, 1:]


def token_chances(
    networks: Sequence[Network], task: TrainingTask, examples: Examples, device: torch.device
) -> tuple[Floats, Ints]:
    """The probability that each of ``networks`` gives to every target token [tokens, networks], and
    the example [tokens] that it belongs to; one network after the other.
    """
    import torch

    order = list(batches_by_length(examples.lengths, np.arange(len(examples)), TOKENS))
    columns: list[Floats] = []
    owner: list[Ints] = []
    for network in networks:
        network.to(device).eval()
        parts = []
        owner = []
        with torch.inference_mode():
            for batch_rows in order:
                batch = device_batch(task, examples, batch_rows, device)
                output = task.forward(network, batch)
                expected = batch["expected"] if "expected" in batch else target_tokens(batch)
                losses = token_losses(logits_of(output), expected)
                parts.append(torch.exp(-losses).double().cpu().numpy())
                owner.append(np.repeat(np.asarray(batch_rows), batch["counts"].cpu().numpy()))
        columns.append(np.concatenate(parts) if parts else np.zeros(0))
    return np.column_stack(columns), np.concatenate(owner) if owner else np.zeros(0, np.int64)


# Below it the most probable token is always drawn, and the quotients overflow.
COLDEST = 1e-6


def drawing(temperature: float, top_p: float = 1.0) -> dict[str, Any]:
    """Arguments of Transformers' ``generate``: greedy decoding, or sampling for a ``temperature``
    above 0; without what a model's own settings would add.
    """
    if temperature < COLDEST:
        return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    return {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": None}


class GeneratedTexts(NamedTuple):
    """Texts in the requested order: ``texts`` [n]; ``sure`` [n], the geometric mean of the
    probabilities of each text's tokens (NaN for an empty one); ``ended`` [n], whether the model
    ended the text itself, rather than stopping at the maximum length.
    """

    texts: Sequence[str]
    sure: Floats
    ended: npt.NDArray[np.bool_]
