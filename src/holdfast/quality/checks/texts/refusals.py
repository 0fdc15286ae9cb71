"""Answers to be learned that refuse, are empty or break off."""

from __future__ import annotations

import json

from holdfast.data.table import Table
from holdfast.data.texts.phrases import REFUSAL
from holdfast.quality.check import CheckResult, check
from holdfast.quality.single import single_finding
from holdfast.quality.views import TableRows

_BEGINNING = 250


def with_answers(table: Table) -> bool:
    """Where a row has a text to be written."""
    return any(name in table.rows.column_names for name in ("target", "turns"))


def answers(rows: TableRows) -> list[tuple[int, str]]:
    """Position and text of each answer of the rows looked at: the targets, or what an assistant
    says."""
    table = rows.table.take(rows.sample)
    positions = rows.sample.tolist()
    if "target" in table.rows.column_names:
        return list(zip(positions, table.column("target"), strict=True))
    said = []
    for position, cell in zip(positions, table.column("turns"), strict=True):
        for turn in json.loads(cell) if cell else []:
            if turn.get("role") == "assistant" and isinstance(turn.get("content"), str):
                said.append((position, turn["content"]))
    return said


@check(
    TableRows,
    cannot_see="Refusals in other words or languages; whether one is due.",
    error_rate="Silent on the 12,000 summaries of SAMSum and the 4,210 answers of a set of "
    "instructions, which have none; two of two planted were found.",
    holds_for=with_answers,
)
def refusals(rows: TableRows) -> CheckResult | None:
    """Lists the rows whose answer begins by refusing or by speaking of itself as a language model.
    Score: their share of the rows."""
    found: dict[int, str] = {}
    for position, answer in answers(rows):
        match = REFUSAL.search(answer[:_BEGINNING])
        if match is not None:
            found.setdefault(position, f"{answer[max(0, match.start() - 20) :][:80]!r}")
    return single_finding(
        rows,
        list(found.items()),
        "an answer that refuses or speaks as a language model",
        "Unless the model is to refuse so, leave them out: `treat.rows`.",
    )
