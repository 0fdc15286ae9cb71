"""What a run forgot where no general probe was asked for: ``probes.forgetting`` of ``result.json``.

A causal language model: its loss on a small general text before training and now. A classifier of
texts: whether general texts keep the neighbours that the untouched encoder gave them. Neither feeds
the verdict, which reads a probe of every look (``probes.forgetting.data=built-in``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.core.records import Estimate, Floats
from holdfast.core.seeds import generator
from holdfast.data.chat import chats_from_prompts
from holdfast.know.general_text import passages
from holdfast.know.memory.neighbours import neighbours_block
from holdfast.pipeline.question import After, Before, Question
from holdfast.pipeline.token_losses import hearing
from holdfast.stats.paired import paired_bootstrap
from holdfast.training.observe import Observer

if TYPE_CHECKING:
    from holdfast.models.base import Network
    from holdfast.pipeline.ready import Fitted

# What the verdict calls forgotten, of a mean loss (``monitor/limits.py``).
SHARE, MARGIN = 0.05, 0.02


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


def losses_block(fitted: Fitted) -> dict[str, Any] | None:
    """The mean loss on 48 passages before and after, with the paired rise."""
    heard = hearing(fitted)(chats_from_prompts(passages(), "text"))
    assert heard.start is not None
    known = np.isfinite(heard.losses) & np.isfinite(heard.start)
    if known.sum() < 2:
        return None
    after, before, seed = heard.losses[known], heard.start[known], fitted.recipe.seed

    def mean(one: Floats, other: Floats) -> Estimate:
        found = paired_bootstrap(one, other, seed=generator(seed, "general probe"))
        return Estimate(found.value, found.low, found.high)

    nothing = np.zeros(len(after))
    rise = mean(after, before)
    assert rise.value is not None
    assert rise.low is not None
    line = max(MARGIN, SHARE * float(before.mean()))
    forgot = rise.value > line and rise.low > 0
    said = "It forgot some of what it knew" if forgot else "It is not shown that it forgot much"
    because = (
        f"{said}: on {len(after)} general passages the loss went from {before.mean():.3f} to "
        f"{after.mean():.3f} ({rise.low:+.3f} to {rise.high:+.3f})."
    )
    return {
        "what": "general text",
        "n": len(after),
        "before": mean(before, nothing).to_json(),
        "after": mean(after, nothing).to_json(),
        "rise": rise.to_json(),
        "forgot": forgot,
        "because": because,
    }


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
