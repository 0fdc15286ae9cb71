"""Where does it fail? Slices of validation rows that are wrong more often, confirmed on test."""

from __future__ import annotations

from typing import Any

from holdfast.know.slices.ask import Hypotheses, confirm_slices, find_slices
from holdfast.pipeline.question import After, Before, Question, Unasked


def find(before: Before) -> Hypotheses | Unasked:
    columns = before.beside(before.valid.table)
    found = find_slices(before.valid, before.train, columns, before.fitted.recipe.seed)
    return Unasked(found) if isinstance(found, str) else found


def confirm(found: Hypotheses, after: After) -> dict[str, Any]:
    columns = after.beside(after.test.table)
    return confirm_slices(found, after.test, columns, after.fitted.recipe.seed)


QUESTION = Question("slices", ("slices",), find, confirm)
