"""The report section on influential words: those whose removal lowers a class's log-odds more than
the removal of other words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.core.wording import DROPPED_TERMS, about, list_option, signed
from holdfast.report.document import Details, Document, DocumentTable, Passage
from holdfast.report.numbers import count, number, p_value, plural
from holdfast.report.run_files import RunFiles
from holdfast.report.section import CLEAN, RelianceCheck, Section


def reasons(run: RunFiles) -> Document | None:
    """``None`` for runs of older versions, and for tasks other than text classification."""
    block = run.part("reasons")
    return word_document(block) if block.blocks("words") else None


def word_document(block: Mapping[str, Any]) -> Document:
    """The confirmed words, and a table of all candidates."""
    lines = tuple(
        (
            str(one["class"]),
            str(one["words"]),
            count(one["n"]),
            _odds(one["log_odds"]),
            _odds(one["log_odds_of_others"]),
            p_value(one["p"]),
            _verdict(one),
        )
        for one in block["words"]
    )
    table = DocumentTable(
        "Candidate words of each class",
        (
            "Class",
            "Words",
            "Test rows",
            "Drop in log-odds",
            "Drop for other words",
            "p (sign permutations, Holm)",
            "Verdict",
        ),
        lines,
        ("name", "name", "n", "n", "n", "n", ""),
        "region",
    )
    more = (table, Passage(_alarms(block), "remark"))
    return Document((Passage(_sentence(block), "user"), Details("Show all candidate words", more)))


def _sentence(block: Mapping[str, Any]) -> str:
    """The confirmed words, by class."""
    words = block["words"]
    words_by_class: dict[str, list[str]] = {}
    for one in words:
        if one["confirmed"]:
            words_by_class.setdefault(str(one["class"]), []).append(f"“{one['words']}”")
    n_candidates = count(len(words))
    if not words_by_class:
        return (
            f"No influential word is shown: removing any of {n_candidates} candidate words from "
            "test rows did not lower the class's log-odds significantly more than removing other "
            "words."
        )
    named = "; ".join(
        f"{name}: {', '.join(words_of_class)}" for name, words_of_class in words_by_class.items()
    )
    return (
        f"Influential words: {named}. Removing them from test rows lowers the class's log-odds "
        "more than removing other words."
    )


def _alarms(block: Mapping[str, Any]) -> str:
    """How the candidates were found, and how often one is confirmed by chance."""
    share = 100 * block["false_alarms"]["share"]
    return (
        f"Candidates were fixed on {count(block['rows_searched'])} training and validation rows "
        "before the test rows were used. The test confirms a word without influence in at most "
        f"{share:.0f} % of runs. An influential word is not necessarily a good reason for a "
        "prediction."
    )


def _odds(value: float | None) -> str:
    return "–" if value is None else signed(value, "+.2f")


def _verdict(one: Mapping[str, Any]) -> str:
    if one["confirmed"]:
        return "confirmed"
    if one["rows_to_settle"]:
        return f"inconclusive: {about(one['rows_to_settle'])} rows with the word would decide"
    return "not confirmed" if one["n"] else "in no test row"


def _leaking_word(run: RunFiles) -> str | None:
    words = run.part("reasons").blocks("words")
    # Runs of older versions did not check this.
    if not any("gives_away" in one for one in words):
        return None
    leaking = [one for one in words if one["gives_away"]]
    if not leaking:
        return CLEAN
    first = leaking[0]
    more = (
        f", and likewise for {plural(len(leaking) - 1, 'other word')}" if len(leaking) > 1 else ""
    )
    return (
        f"Its predictions of class {first['class']} depend on “{first['words']}”{more}. The word "
        f"is in {number(first['of_class'], 'accuracy')} of the class's texts and in "
        f"{number(first['of_others'], 'accuracy')} of the others. The score may be lower on "
        "texts without it. holdfast train with "
        f"{list_option(DROPPED_TERMS, [str(one['words']) for one in leaking])} deletes it from "
        "all texts, and the score then applies to texts without it"
    )


SECTIONS = (
    Section(
        "reasons",
        "Influential words",
        reasons,
        reliance=RelianceCheck("a shortcut word", _leaking_word, rank=2),
    ),
)
