"""Forgetting in a run without a general-text set: ``probes.forgetting`` of ``result.json``.

A causal language model: its loss on a small general text before and after training. A text
classifier: whether general texts keep the nearest neighbours that the base model's features gave
them. Neither counts for the verdict, which reads the general-text set of every evaluation
(``probes.forgetting.data=built-in``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.analyses.analysis import Analysis, FittedSession
from holdfast.contract.predictions import Predictions
from holdfast.contract.result import rise_block
from holdfast.core.records import Estimate, Floats, Ints, unit_rows
from holdfast.core.seeds import generator
from holdfast.core.tasks import DECODER_TASKS, LABELLED_TEXT_TASKS
from holdfast.data.chats.chat import chats_from_prompts
from holdfast.data.texts.general import SKIPPED, passages
from holdfast.duplicates.vectors import nearest_neighbours
from holdfast.prepare.general import probe_examples
from holdfast.stats.paired_tests import loss_rows, paired_bootstrap
from holdfast.training.observe import Observer
from holdfast.training.task import losses_by_row

if TYPE_CHECKING:
    from holdfast.contract.fit import FittedModel
    from holdfast.models.base import Network


NEAREST = 5


def nearest(vectors: Floats) -> Ints:
    """The five nearest other rows of each row [n, 5] by cosine, nearest first."""
    return nearest_neighbours(unit_rows(np.asarray(vectors, dtype=np.float64)), NEAREST).index


def neighbour_overlap(before: Floats, after: Floats) -> Floats:
    """The share of each row's five nearest neighbours before training that still are so [n]."""
    neighbours_before, neighbours_after = nearest(before), nearest(after)
    return np.array(
        [np.isin(a, b).mean() for a, b in zip(neighbours_before, neighbours_after, strict=True)]
    )


def neighbours_block(before: Floats, after: Floats, seed: int) -> dict[str, Any]:
    """``probes.forgetting`` of a run whose texts have vectors before and after training: the share
    of neighbours ``kept`` with its interval over texts, next to ``chance``."""
    overlap = neighbour_overlap(before, after)
    n = len(overlap)
    interval = paired_bootstrap(overlap, np.zeros(n), seed=generator(seed, "neighbours"))
    chance = NEAREST / (n - 1)
    limits = f"95 % CI {100 * interval.low:.0f}–{100 * interval.high:.0f}"
    span = f"{limits}; by chance {100 * chance:.0f} %"
    because = (
        f"On {n} general texts, {100 * interval.value:.0f} % of each text's {NEAREST} nearest "
        f"neighbours in the base model's features are the same after training ({span})."
    )
    return {
        "what": "neighbours",
        "n": n,
        "kept": Estimate(interval.value, interval.low, interval.high).to_json(),
        "chance": chance,
        "because": because,
    }


def find(session: FittedSession) -> Mapping[str, Any] | None:
    """Compute the whole block: no test row is used."""
    fitted = session.fitted
    if fitted.training_plan.splits.general is not None:
        return None
    if fitted.recipe.task in DECODER_TASKS:
        return losses_block(fitted)
    one_text = not fitted.training_plan.prepared.rows.has_pairs
    return vectors_block(fitted) if fitted.recipe.task in LABELLED_TEXT_TASKS and one_text else None


def confirm(
    block: Mapping[str, object], session: FittedSession, test: Predictions
) -> Mapping[str, Any]:
    return block


def losses_block(fitted: FittedModel) -> dict[str, Any]:
    """The mean loss per token on 48 passages before and after training, with the paired rise over
    the passages; the end and first tokens of each are not scored (``EncodedTokens.as_probe``)."""
    table = chats_from_prompts(passages(), "text")
    examples = probe_examples(fitted.encode(table), fitted.training_plan.loaded)
    job, device = fitted.job, fitted.job.accelerator.device
    observer = Observer(job.accelerator, job.task, alone=True)

    def row_losses(network: Network) -> Floats:
        losses, _ = observer.measure(network.to(device), examples, np.arange(len(examples)))
        return loss_rows(*losses_by_row(losses, examples.target_counts, examples.rows))

    after, before = row_losses(fitted.network), row_losses(fitted.base_network())
    rise = rise_block(before, after, fitted.recipe.seed, "general passages")
    return {"what": "general text", "skipped": SKIPPED, **rise}


def vectors_block(fitted: FittedModel) -> dict[str, Any]:
    """The neighbours that general texts keep, in the features that the last layer reads."""
    texts = passages()
    run_rows = fitted.training_plan.prepared.rows
    # Rows of the run with other texts, so that each has a label, whatever its type.
    table = run_rows.take(np.arange(len(texts)) % len(run_rows)).with_column("text", texts)
    rows: Any = fitted.training_plan.definition.encode(
        table, fitted.training_plan.loaded, fitted.recipe
    )
    job = fitted.job

    def vectors(network: Network) -> Floats:
        observer = Observer(job.accelerator, job.task, alone=True)
        return observer.features(network, rows, np.arange(len(texts)))

    before = vectors(fitted.base_network())
    after = vectors(fitted.network.to(job.accelerator.device))
    return neighbours_block(before, after, fitted.recipe.seed)


ANALYSIS = Analysis("forgetting", ("probes", "forgetting"), find, confirm)
