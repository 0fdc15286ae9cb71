"""What does it get wrong? Confusions and hardest rows, beside the training rows nearest to them."""

from __future__ import annotations

from typing import Any

from holdfast.know.errors import errors_of, learned_rows
from holdfast.know.neighbours import Learned
from holdfast.pipeline.question import After, Before, Question
from holdfast.training.examples import ExampleHistory


def find(before: Before) -> tuple[Learned | None]:
    """Nothing is looked for: what the training rows were like is put in order."""
    kinds: dict[int, str] = {}
    for listener in before.fitted.job.listeners:
        made = listener.data_map() if isinstance(listener, ExampleHistory) else None
        if made is not None:
            kinds |= dict(zip(made.rows.tolist(), made.kind, strict=True))
    table = before.fitted.ready.sides.train_rows.table
    return (learned_rows(table, kinds, before.fitted.recipe.seed),)


def confirm(found: tuple[Learned | None], after: After) -> dict[str, Any]:
    return errors_of(after.valid, after.test, found[0])


QUESTION = Question("errors", ("errors",), find, confirm)
