"""What the model remembers of its training rows: ``probes.memorization`` of ``result.json``.

Members are training rows, others the test rows: validation rows chose the state. Losses that exist
are all that is read; models that write, and what they were before training, are asked once more for
single tokens, of a sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.analyses.analysis import After, Analysis, Before
from holdfast.analyses.memory.probe import Risks, SetScores, remember
from holdfast.analyses.memory.token_losses import Hear, hearing
from holdfast.contract.predictions import MOST_HEARD, Predictions
from holdfast.contract.verbatim import Verbatim
from holdfast.core.seeds import generator
from holdfast.core.tasks import WRITERS
from holdfast.prepare.canaries import exposed
from holdfast.tasks.lm.verbatim import verbatim
from holdfast.training.listeners.examples import ExampleHistory

if TYPE_CHECKING:
    from holdfast.contract.fit import FittedModel


TRACE = "loss trace"


@dataclass(frozen=True, slots=True, eq=False)
class Members:
    """The training rows that are compared, what the loss traces say of all of them, and how the
    test rows will be asked, where their stored losses are not all."""

    heard: SetScores
    risks: Risks | None
    hear: Hear | None
    seed: int
    extraction: Verbatim | None = None
    canaries: Mapping[str, Any] | None = None


def find(before: Before) -> Members:
    """Which training rows are compared with the test rows, and by what."""
    fitted, seed = before.fitted, before.fitted.recipe.seed
    hear = hearing(fitted) if fitted.recipe.task in WRITERS else None
    members = heard_of(before.train, seed, hear)
    return Members(members, risks_of(fitted), hear, seed, _extracted(before, seed), exposed(fitted))


def confirm(members: Members, after: After) -> Mapping[str, Any]:
    others = heard_of(after.test, members.seed, members.hear)
    found = remember(members.heard, others, members.seed, members.risks).to_json()
    told = members.extraction
    return {
        **found,
        "extraction": None if told is None else told.to_json(),
        "canaries": members.canaries,
    }


def _extracted(before: Before, seed: int) -> Verbatim | None:
    """How many training rows a causal language model completes to the word, which was asked for the
    verdict, and how many of them the model before training does."""
    fitted = before.fitted
    if fitted.completed is None:
        return None
    table = fitted.ready.sides.train_rows.table
    start = verbatim(fitted.untuned(), fitted.ready.loaded.tokenizer, table, seed)
    return fitted.completed.beside(start)


def heard_of(told: Predictions, seed: int, hear: Hear | None = None) -> SetScores:
    """What a model says of a side, as the attacks read it; token by token of at most 500 rows, a
    fixed sample."""
    if hear is None:
        return SetScores(told.table, told.losses)
    if len(told) <= MOST_HEARD:
        return hear(told.table)
    order = generator(seed, "rows asked token by token", told.side).permutation(len(told))
    return hear(told.table.take(np.sort(order[:MOST_HEARD])))


def risks_of(fitted: FittedModel) -> Risks | None:
    """The range of each training row's losses over the passes; of a long row that was learned in
    parts the largest. ``None`` where the run kept no traces."""
    for listener in fitted.job.listeners:
        made = listener.data_map() if isinstance(listener, ExampleHistory) else None
        if made is not None and np.isfinite(made.loss_range).any():
            table = fitted.ready.sides.train_rows.table
            own = np.asarray(table.column("row"), dtype=np.int64)
            risk = np.full(len(own), -np.inf)
            np.maximum.at(
                risk, table.places(made.rows), np.nan_to_num(made.loss_range, nan=-np.inf)
            )
            return Risks(table, own, np.where(np.isfinite(risk), risk, np.nan), TRACE)
    return None


QUESTION = Analysis("memory", ("probes", "memorization"), find, confirm)
