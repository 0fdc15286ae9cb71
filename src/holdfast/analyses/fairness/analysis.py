"""Is the model as good for every group of rows, and does it answer alike about everybody?"""

from __future__ import annotations

from typing import Any

import numpy as np

from holdfast.analyses.analysis import After, Analysis, Before, NoAnswer
from holdfast.analyses.fairness.columns import FairnessFound, asker, confirm_fairness, find_fairness
from holdfast.analyses.fairness.forms import Ask
from holdfast.contract.fit import FittedModel
from holdfast.core.records import Floats, softmax
from holdfast.data.table import Table
from holdfast.training.observe import Observer


def _find(before: Before) -> FairnessFound | NoAnswer:
    recipe = before.fitted.recipe
    if not len(before.valid):
        return NoAnswer("there are no validation rows to look for gaps on")
    columns = before.beside(before.valid.table)
    predictor = before.predictor
    return find_fairness(
        before.valid,
        columns,
        recipe.probes.fairness,
        asker(predictor),
        predictor.names,
        recipe.seed,
    )


def _confirm(found: FairnessFound, after: After) -> dict[str, Any]:
    columns = after.beside(after.test.table)
    train = after.fitted.ready.sides.train_rows.table
    return confirm_fairness(
        found,
        after.test,
        columns,
        asker(after.predictor),
        start=_start(after.fitted),
        seed=after.fitted.recipe.seed,
        train=(train, lambda: after.beside(train)),
    )


def _start(fitted: FittedModel) -> Ask | None:
    """The untouched backbone with the linear probe on it, where a run has one."""
    probes = [getattr(one, "baseline", None) for one in fitted.listeners]
    head = next((one for one in probes if one is not None), None)
    classes = fitted.ready.sides.train_rows.table.columns.label_kind == "class"
    if head is None or not classes:
        return None
    network: list[Any] = []

    def ask(table: Table) -> Floats:
        # Made when it is first asked: only a finding asks.
        if not network:
            network.append(fitted.untuned(head=head))
        job = fitted.job
        observer = Observer(job.accelerator, job.task, alone=True)
        examples = fitted.encode(table)
        return softmax(observer.measure(network[0], examples, np.arange(len(examples)))[1])

    return ask


QUESTION = Analysis("fairness", ("fairness",), _find, _confirm)
