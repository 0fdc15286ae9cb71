"""What a run forgot where no general probe was asked for: ``probes.forgetting`` of ``result.json``.

A causal language model: its loss on a small general text before training and now. A classifier of
texts: whether general texts keep the neighbours that the untouched encoder gave them. Neither feeds
the verdict, which reads a probe of every look (``probes.forgetting.data=built-in``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.core.records import Floats
from holdfast.data.chat import chats_from_prompts
from holdfast.know.general_text import SKIPPED, passages
from holdfast.know.memory.neighbours import neighbours_block
from holdfast.pipeline.forgotten import rise_block
from holdfast.pipeline.general import probe_examples
from holdfast.pipeline.question import After, Before, Question
from holdfast.stats.ratio import loss_rows
from holdfast.tasks.token_losses import of_whole_rows
from holdfast.training.observe import Observer

if TYPE_CHECKING:
    from holdfast.models.base import Network
    from holdfast.pipeline.ready import Fitted


def find(before: Before) -> Mapping[str, Any] | None:
    """The whole block: no test row is asked."""
    fitted = before.fitted
    if fitted.ready.sides.general is not None:
        return None
    if fitted.recipe.task == "causal-lm":
        return losses_block(fitted)
    one_text = not fitted.ready.prepared.rows.has_pairs
    return (
        vectors_block(fitted) if fitted.recipe.task == "text-classification" and one_text else None
    )


def confirm(found: Mapping[str, Any], after: After) -> Mapping[str, Any]:
    return found


def losses_block(fitted: Fitted) -> dict[str, Any]:
    """The mean loss of a token on 48 passages before and after, with the paired rise over the
    passages; neither their end nor their first tokens are scored (``EncodedTokens.as_probe``)."""
    table = chats_from_prompts(passages(), "text")
    examples = probe_examples(fitted.encode(table), fitted.ready.loaded)
    job, device = fitted.job, fitted.job.accelerator.device
    observer = Observer(job.accelerator, job.task, alone=True)

    def rows(network: Network) -> Floats:
        losses, _ = observer.measure(network.to(device), examples, np.arange(len(examples)))
        return loss_rows(*of_whole_rows(losses, examples.target_counts, examples.rows))

    after, before = rows(fitted.network), rows(fitted.untuned())
    found = rise_block(before, after, fitted.recipe.seed, "general passages")
    return {"what": "general text", "skipped": SKIPPED, **found}


def vectors_block(fitted: Fitted) -> dict[str, Any]:
    """The neighbours that general texts keep, by what the last layer reads."""
    texts = passages()
    like = fitted.ready.prepared.rows
    # Rows of the run with other texts: whatever a label is, they have one.
    table = like.take(np.arange(len(texts)) % len(like)).with_column("text", texts)
    rows: Any = fitted.ready.kind.encode(table, fitted.ready.loaded, fitted.recipe)
    job = fitted.job

    def vectors(network: Network) -> Floats:
        observer = Observer(job.accelerator, job.task, alone=True)
        return observer.features(network, rows, np.arange(len(texts)))

    before = vectors(fitted.untuned())
    after = vectors(fitted.network.to(job.accelerator.device))
    return neighbours_block(before, after, fitted.recipe.seed)


QUESTION = Question("forgetting", ("probes", "forgetting"), find, confirm)
