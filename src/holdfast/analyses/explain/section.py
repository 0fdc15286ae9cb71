"""The section "Word importance by class": the words whose removal lowers the log-odds of a class
more than the removal of other words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.report.document import Details, Document, DocumentTable, Passage
from holdfast.report.numbers import count, number, p_value, plural
from holdfast.report.run_files import RunFiles
from holdfast.report.section import CLEAN, RelianceCheck, Section


def reasons(run: RunFiles) -> Document | None:
    """``None`` for runs of older versions, and for tasks without classes of texts."""
    block = run.part("reasons")
    return word_document(block) if block.blocks("words") else None


def word_document(block: Mapping[str, Any]) -> Document:
    """The confirmed words, and all candidates."""
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
        "Words that carry a class",
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
    return Document((Passage(_sentence(block), "user"), Details("All candidate words", more)))


def _sentence(block: Mapping[str, Any]) -> str:
    """The words that were confirmed, class by class."""
    words = block["words"]
    words_by_class: dict[str, list[str]] = {}
    for one in words:
        if one["confirmed"]:
            words_by_class.setdefault(str(one["class"]), []).append(f"“{one['words']}”")
    n_candidates = count(len(words))
    if not words_by_class:
        return (
            f"No class is shown to depend on single words: removing any of {n_candidates} "
            "candidates from test rows did not lower the log-odds of its class significantly more "
            "than removing other words."
        )
    named = "; ".join(
        f"{name}: {', '.join(words_of_class)}" for name, words_of_class in words_by_class.items()
    )
    return (
        f"Classes depend on these words: {named}. Removing them from test rows lowers the class's "
        "log-odds more than removing other words."
    )


def _alarms(block: Mapping[str, Any]) -> str:
    """How the candidates were found, and the false alarm rate."""
    share = 100 * block["false_alarms"]["share"]
    return (
        f"The candidates were fixed on {count(block['rows_searched'])} training and validation "
        "rows, before the model was scored on the test rows. The test confirms a word without "
        f"effect in at most {share:.0f} % of runs. An important word need not be a good reason "
        "for the prediction."
    )


def _odds(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"


def _verdict(one: Mapping[str, Any]) -> str:
    if one["confirmed"]:
        return "confirmed"
    if one["rows_to_settle"]:
        return f"inconclusive: about {count(one['rows_to_settle'])} rows with the word would decide"
    return "not confirmed" if one["n"] else "in no test row"


def _leaking_word(run: RunFiles) -> str | None:
    words = run.part("reasons").blocks("words")
    # Runs by older versions did not test this.
    if not any("gives_away" in one for one in words):
        return None
    leaking = [one for one in words if one["gives_away"]]
    if not leaking:
        return CLEAN
    first = leaking[0]
    more = f"; and {plural(len(leaking) - 1, 'other word')}" if len(leaking) > 1 else ""
    return (
        f"Its predictions of class {first['class']} depend on “{first['words']}”, which is in "
        f"{number(first['of_class'], 'accuracy')} of its texts and in "
        f"{number(first['of_others'], 'accuracy')} of the others{more}: the score may be lower on "
        "texts without it, so remove it from the training texts"
    )


SECTIONS = (
    Section(
        "reasons",
        "Word importance by class",
        reasons,
        reliance=RelianceCheck("shortcuts (words that reveal a class)", _leaking_word, rank=2),
    ),
)
