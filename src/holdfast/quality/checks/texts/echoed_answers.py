"""Chats whose answer says the question again: a model learns to repeat what it is told."""

from __future__ import annotations

import json

from holdfast.core.wording import counted
from holdfast.data.table import Table
from holdfast.data.texts.normal import normal_text
from holdfast.quality.check import CheckExample, CheckResult, check, result
from holdfast.quality.pairs import EXAMPLES, LISTED, SERIOUS
from holdfast.quality.views import Copied

# Words of a question that an answer may begin with by right are fewer.
LEAST = 8


def _has_turns(table: Table) -> bool:
    return "turns" in table.rows.column_names


@check(
    Copied,
    cannot_see="Answers that say the question again in other words, or after words of their own.",
    error_rate="Exact; 'Repeat after me' is answered so by right.",
    holds_for=_has_turns,
)
def echoed_answers(copied: Copied) -> CheckResult | None:
    """Lists the chats of which an answer is the question before it, or begins with all of it where
    it has eight words or more; but for case, space and punctuation. Score: their share."""
    rows = copied.rows
    found = [at for at, cell in enumerate(rows.table.column("turns")) if _echoes(json.loads(cell))]
    if not found:
        return None
    share = len(found) / len(rows.ids)
    return result(
        rows.ids[found[:LISTED]],
        f"{counted(len(found), 'chat has', 'chats have')} an answer that is its question, or "
        "begins with all of it: the model learns to repeat",
        "Take the question out of these answers, unless repeating is the task.",
        score=share,
        severity="warn" if share >= SERIOUS else "info",
        count=len(found),
        examples=(CheckExample(int(rows.ids[at]), "echo") for at in found[:EXAMPLES]),
    )


def _echoes(turns: list[dict[str, object]]) -> bool:
    before = ""
    for turn in turns:
        text = normal_text(str(turn.get("content") or ""))
        if turn.get("role") != "assistant":
            before = text
        elif before and (
            text == before or (len(before.split()) >= LEAST and text.startswith(before))
        ):
            return True
    return False
