"""What the model remembers of its training rows: ``probes.memorization`` of ``result.json``, which
``holdfast probe RUN`` shows.

Members are training rows, others the test rows: validation rows chose the state. Losses that exist
are all that is read; models that write, and what they were before training, are asked once more for
single tokens, of a sample, while the run goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.analyses.analysis import Analysis, Session
from holdfast.analyses.memory.probe import Risks, SetScores, remember
from holdfast.analyses.memory.token_losses import Hear, hearing
from holdfast.contract.predictions import ANSWERS, MOST_HEARD, Predictions, Side
from holdfast.core.decisions import notify
from holdfast.core.errors import RunError
from holdfast.core.records import Decision, to_json
from holdfast.core.seeds import generator
from holdfast.core.tasks import WRITERS
from holdfast.core.wording import counted
from holdfast.data.table import Table
from holdfast.prepare.canaries import exposed
from holdfast.runs.finished_run import FinishedRun
from holdfast.stats.threads import one_thread
from holdfast.tasks.lm.verbatim import verbatim
from holdfast.training.listeners.examples import ExampleHistory

if TYPE_CHECKING:
    from holdfast.contract.fit import FittedModel
    from holdfast.contract.writing import Verbatim


TRACE = "loss trace"
# Rows of each set that a model is asked about afterwards.
MOST_ROWS = 3000
OLD = "made by a version of Holdfast that did not keep what the model said of its training rows"


@dataclass(frozen=True, slots=True, eq=False)
class Members:
    """The training rows that are compared, what the loss traces say of all of them, and how the
    test rows will be asked, where their stored losses are not all; ``beside`` is what else the
    block says of training rows."""

    heard: SetScores
    risks: Risks | None = None
    hear: Hear | None = None
    beside: Mapping[str, Any] = field(default_factory=dict)


def find(session: Session) -> Members:
    """Which training rows are compared with the test rows, and by what."""
    fitted, seed = session.fitted, session.recipe.seed
    if fitted is None:
        return Members(_heard_again(session))
    hear = hearing(fitted) if fitted.recipe.task in WRITERS else None
    heard, risks = heard_of(session.train, seed, hear), risks_of(fitted)
    extracted = _extracted(fitted, seed)
    extraction = None if extracted is None else extracted.to_json()
    return Members(heard, risks, hear, {"extraction": extraction, "canaries": exposed(fitted)})


def confirm(members: Members, session: Session, test: Predictions) -> Mapping[str, Any]:
    seed = session.recipe.seed
    others = heard_of(test, seed, members.hear)
    found = remember(members.heard, others, seed, members.risks)
    return replace(found, beside=members.beside).to_json()


ANALYSIS = Analysis("memory", ("probes", "memorization"), find, confirm)


def _extracted(fitted: FittedModel, seed: int) -> Verbatim | None:
    """How many training rows a causal language model completes to the word, which was asked for the
    verdict, and how many of them the model before training does."""
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


def _heard_again(session: Session) -> SetScores:
    """Of a finished run what it stored; of a classifier by an older version, asked now."""
    if session.has("train"):
        return heard_of(session.train, session.recipe.seed)
    table = few_rows(session.train_rows, "train")
    outputs = getattr(session.predictor.answer(table), "outputs", None)
    if outputs is None:
        why = f"{session.recipe.task} runs keep no losses that can be asked for again"
        raise RunError(str(session.run), f"was {OLD}, and {why}", None, "Train it again.")
    return SetScores(table, np.asarray(outputs.losses, dtype=np.float64))


def few_rows(table: Table, side: Side) -> Table:
    """At most 3,000 of the rows, a fixed sample."""
    if len(table) <= MOST_ROWS:
        return table
    order = generator(0, "rows probed", side, counted(len(table), "row")).permutation(len(table))
    return table.take(np.sort(order[:MOST_ROWS]))


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


def probe_run(folder: Path) -> dict[str, Any]:
    """The stored block of a finished run; of a run by an older version, what its files still say.

    Raises ``RunError`` where the folder is no finished run or its sources have changed.
    """
    run = FinishedRun(folder)
    probes = run.result.get("probes") or {}
    found = probes.get("memorization")
    if not isinstance(found, Mapping):
        if not run.has("train"):
            notify(Decision(ANSWERS, "missing", f"{folder} was {OLD}: its model is asked now"))
        # Answers that were changed are refused before the model is asked.
        test, members = run.test, find(run)
        with one_thread():
            found = confirm(members, run, test)
    return memory_document(found, probes.get("forgetting"))


def memory_document(memorization: Mapping[str, object], forgetting: object) -> dict[str, Any]:
    """What ``--json`` prints: a number that is not known is null."""
    plain: dict[str, Any] = to_json(
        {"schema": 1, "memorization": memorization, "forgetting": forgetting}
    )
    return plain
