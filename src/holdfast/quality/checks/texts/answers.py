"""Checks of target texts and chat replies: refusals, truncated answers, echoed questions."""

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
    """Whether the rows have a target text or chat turns."""
    return any(name in table.rows.column_names for name in ("target", "turns"))


def sampled_answers(rows: TableRows) -> list[tuple[int, str]]:
    """Position and text of each answer of the sampled rows: the targets, or the assistant's
    turns."""
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
    cannot_see="Refusals in other words or languages; whether a refusal is appropriate.",
    error_rate="Reports nothing on the 12,000 summaries of SAMSum and the 4,210 answers of an "
    "instruction set, which have no refusals. It found two of two planted refusals.",
    applies_to=has_answers,
)
def refusals(rows: TableRows) -> CheckResult | None:
    """Lists the rows whose answer begins with a refusal or with a phrase like "as a language
    model". Score: their share of the rows."""
    notes: dict[int, str] = {}
    for position, answer in sampled_answers(rows):
        match = REFUSAL.search(answer[:_BEGINNING_CHARACTERS])
        if match is not None:
            notes.setdefault(position, f"{answer[max(0, match.start() - 20) :][:80]!r}")
    return text_finding(
        rows,
        list(notes.items()),
        "an answer that refuses or speaks as a language model",
        "Remove these rows (`clean.rows`), unless the model should learn such refusals.",
    )


_PROSE = re.compile(r"[.!?][\"')\]\u201d\u2019]*\s+\S")
_COMPLETE = re.compile(r"[.!?\u2026\u3002:;)\]}>\"'\u201d\u2019*`|]\s*\Z")
_LEAST_ROWS, _MIN_COMPLETE_SHARE, _LENGTH_QUANTILE = 50, 0.8, 0.5


@check(
    TableRows,
    cannot_see="Answers that break off after a noun or at the end of a sentence; code; lists.",
    error_rate="In SAMSum's 12,000 summaries it reports two, and both end with a comma. In 4,210 "
    "answers to instructions it reports none.",
    applies_to=has_answers,
)
def cut_answers(rows: TableRows) -> CheckResult | None:
    """Lists the rows whose answer seems truncated: it has two sentences or more, is longer than
    half of the other answers, and ends with a comma or with a word that cannot end a sentence. It
    needs 50 such prose answers, 80 % of which end with a punctuation mark. Score: their share of
    the rows."""
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
        "an answer that breaks off in the middle of a sentence",
        "Complete these answers, or remove the rows (`clean.rows`).",
    )


# An answer may legitimately begin with a shorter question.
MIN_ECHO_WORDS = 8


def _has_turns(table: Table) -> bool:
    return "turns" in table.rows.column_names


@check(
    TableCopies,
    cannot_see="Answers that paraphrase the question, or repeat it after other words.",
    error_rate="Exact. For prompts such as 'Repeat after me' an echo is correct.",
    applies_to=_has_turns,
)
def echoed_answers(copied: TableCopies) -> CheckResult | None:
    """Lists the chats in which an answer repeats the question before it, or begins with it if the
    question has eight words or more (ignoring case, space and punctuation). Score: their share."""
    rows = copied.rows
    echoing = [
        at for at, cell in enumerate(rows.table.column("turns")) if _echoes(json.loads(cell))
    ]
    if not echoing:
        return None
    share = len(echoing) / len(rows.ids)
    return result(
        rows.ids[echoing[:MAX_ROWS_LISTED]],
        f"{count_phrase(len(echoing), 'chat has', 'chats have')} an answer that repeats its "
        "question or begins with it: the model learns to echo",
        "Remove the question from these answers, unless repeating is the task.",
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
