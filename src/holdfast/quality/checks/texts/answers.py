"""Texts to be written by a model: that refuse, break off, or say the question again."""

from __future__ import annotations

import json
import re

import numpy as np

from holdfast.core.wording import count_phrase
from holdfast.data.table import Table
from holdfast.data.texts.general import REFUSAL, UNFINISHED, normal_text
from holdfast.quality.check import CheckExample, CheckResult, check, result
from holdfast.quality.pairs import MAX_EXAMPLES, MAX_ROWS_LISTED, SERIOUS_SHARE
from holdfast.quality.single import text_finding
from holdfast.quality.views import TableCopies, TableRows

_BEGINNING_CHARACTERS = 250


def has_answers(table: Table) -> bool:
    """Where a row has a text to be written."""
    return any(name in table.rows.column_names for name in ("target", "turns"))


def sampled_answers(rows: TableRows) -> list[tuple[int, str]]:
    """Position and text of each answer of the rows looked at: the targets, or what an assistant
    says."""
    table = rows.table.take(rows.sample)
    positions = rows.sample.tolist()
    if "target" in table.rows.column_names:
        return list(zip(positions, table.column("target"), strict=True))
    replies = []
    for position, cell in zip(positions, table.column("turns"), strict=True):
        for turn in json.loads(cell) if cell else []:
            if turn.get("role") == "assistant" and isinstance(turn.get("content"), str):
                replies.append((position, turn["content"]))
    return replies


@check(
    TableRows,
    cannot_see="Refusals in other words or languages; whether one is due.",
    error_rate="Silent on the 12,000 summaries of SAMSum and the 4,210 answers of a set of "
    "instructions, which have none; two of two planted were found.",
    applies_to=has_answers,
)
def refusals(rows: TableRows) -> CheckResult | None:
    """Lists the rows whose answer begins by refusing or by speaking of itself as a language model.
    Score: their share of the rows."""
    notes: dict[int, str] = {}
    for position, answer in sampled_answers(rows):
        match = REFUSAL.search(answer[:_BEGINNING_CHARACTERS])
        if match is not None:
            notes.setdefault(position, f"{answer[max(0, match.start() - 20) :][:80]!r}")
    return text_finding(
        rows,
        list(notes.items()),
        "an answer that refuses or speaks as a language model",
        "Unless the model is to refuse so, leave them out: `treat.rows`.",
    )


_PROSE = re.compile(r"[.!?][\"')\]\u201d\u2019]*\s+\S")
_COMPLETE = re.compile(r"[.!?\u2026\u3002:;)\]}>\"'\u201d\u2019*`|]\s*\Z")
_LEAST_ROWS, _MIN_COMPLETE_SHARE, _LENGTH_QUANTILE = 50, 0.8, 0.5


@check(
    TableRows,
    cannot_see="Answers that break off after a noun or at the end of a sentence, code, lists.",
    error_rate="SAMSum's 12,000 summaries: two named, both end on a comma; 4,210 answers to "
    "instructions: none.",
    applies_to=has_answers,
)
def cut_answers(rows: TableRows) -> CheckResult | None:
    """Lists the rows whose answer is prose of two sentences and more, longer than half of the
    others, and ends on a comma or on a word that no sentence ends with, where eight in ten such
    answers end with a mark. Fewer than 50 such answers: silent. Score: their share of the rows."""
    prose = [(position, text) for position, text in sampled_answers(rows) if _PROSE.search(text)]
    if len(prose) < _LEAST_ROWS:
        return None
    complete = [bool(_COMPLETE.search(text[-20:])) for _, text in prose]
    if np.mean(complete) < _MIN_COMPLETE_SHARE:
        return None
    long = np.quantile([len(text) for _, text in prose], _LENGTH_QUANTILE)
    notes = {
        position: f"…{text[-60:]!r}"
        for (position, text), is_complete in zip(prose, complete, strict=True)
        if not is_complete and len(text) >= long and UNFINISHED.search(text[-20:])
    }
    return text_finding(
        rows,
        list(notes.items()),
        "an answer that breaks off in a sentence",
        "Complete them or leave them out: `treat.rows`.",
    )


# Words of a question that an answer may begin with by right are fewer.
MIN_ECHO_WORDS = 8


def _has_turns(table: Table) -> bool:
    return "turns" in table.rows.column_names


@check(
    TableCopies,
    cannot_see="Answers that say the question again in other words, or after words of their own.",
    error_rate="Exact; 'Repeat after me' is answered so by right.",
    applies_to=_has_turns,
)
def echoed_answers(copied: TableCopies) -> CheckResult | None:
    """Lists the chats of which an answer is the question before it, or begins with all of it where
    it has eight words or more; but for case, space and punctuation. Score: their share."""
    rows = copied.rows
    echoing = [
        at for at, cell in enumerate(rows.table.column("turns")) if _echoes(json.loads(cell))
    ]
    if not echoing:
        return None
    share = len(echoing) / len(rows.ids)
    return result(
        rows.ids[echoing[:MAX_ROWS_LISTED]],
        f"{count_phrase(len(echoing), 'chat has', 'chats have')} an answer that is its "
        "question, or "
        "begins with all of it: the model learns to repeat",
        "Take the question out of these answers, unless repeating is the task.",
        score=share,
        severity="warn" if share >= SERIOUS_SHARE else "info",
        count=len(echoing),
        examples=(CheckExample(int(rows.ids[at]), "echo") for at in echoing[:MAX_EXAMPLES]),
    )


def _echoes(turns: list[dict[str, object]]) -> bool:
    before = ""
    for turn in turns:
        text = normal_text(str(turn.get("content") or ""))
        if turn.get("role") != "assistant":
            before = text
        elif before and (
            text == before or (len(before.split()) >= MIN_ECHO_WORDS and text.startswith(before))
        ):
            return True
    return False
