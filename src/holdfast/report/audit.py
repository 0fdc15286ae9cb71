"""The page of an audit, and how a notebook displays an audit. Both are built from the JSON of
``holdfast audit --json`` and the texts of the examples."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from markupsafe import Markup, escape

from holdfast.core.wording import SEVERITY_TITLES, count_phrase
from holdfast.report.glossary import Glossary
from holdfast.report.numbers import sentence
from holdfast.report.page import UNPRINTABLE, asset, environment, standalone
from holdfast.report.section import PagePart
from holdfast.report.view.headline import HeadlineView
from holdfast.report.view.record import SEVERITIES, ChoiceView


class FindingJson(TypedDict):
    """One finding, as in ``audit --json``."""

    check: str
    severity: str
    count: int
    rows: list[int]
    because: str
    remedy: str
    fixed: bool
    cannot_see: str
    error_rate: str


Examples = Mapping[int, Sequence[Mapping[str, Any]]]

NO_ERRORS = "No errors were found that would spoil training on these rows."
NO_OTHER_ERRORS = "No other errors were found."
WORDS = {"error": "error", "warn": "warning", "info": "note"}
# Longer lists of row numbers are cut.
MAX_ROWS_LISTED = 50
MAX_CHARACTERS = 1200
MAX_SNIPPET_PROBLEMS = 6
# Words of each text that are compared and shown; an ellipsis marks the rest.
MOST_WORDS = 160
_WORD = re.compile(r"\s+|\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class ExampleView:
    """A row and, where the finding has pairs, the other row; differing words are marked."""

    note: str
    place: str
    label: str
    text: Markup
    other_place: str = ""
    other_label: str = ""
    other_text: str = ""


@dataclass(frozen=True, slots=True)
class ProblemView:
    """A finding with its examples; ``cannot_see`` and ``error_rate`` describe its check."""

    tone: str
    severity: str
    check: str
    count: str
    because: str
    remedy: str
    rows: str
    fixed: bool
    cannot_see: str
    error_rate: str
    examples: tuple[ExampleView, ...]


def audit_answer(document: Mapping[str, Any]) -> str:
    """The result of the audit in one or two sentences; a missing label comes first."""
    no_label = next((one for one in document["findings"] if one["check"] == "no_label"), None)
    if no_label is not None:
        others = [one for one in document["findings"] if one is not no_label]
        more = audit_answer({**document, "findings": others}).replace(NO_ERRORS, NO_OTHER_ERRORS)
        return f"No label was found: the file {no_label['because']}. {more}"
    counts = {level: _findings_of(document, level) for level in SEVERITY_TITLES}
    errors, warnings = len(counts["error"]), len(counts["warn"])
    if errors:
        more = f" Check {count_phrase(warnings, 'warning')} too." if warnings else ""
        found = f"{count_phrase(errors, 'error')} would spoil training on these rows."
        return f"{found}{more}"
    if warnings:
        return f"{NO_ERRORS} Check {count_phrase(warnings, 'warning')} before training."
    return NO_ERRORS


def render_audit(document: Mapping[str, Any], examples: Examples) -> str:
    """A self-contained page: ``document`` is the JSON of ``audit --json``, ``examples`` the texts
    of the examples by the position of their finding. The same audit gives the same bytes."""
    words = Glossary()
    levels = _problems_by_level(document, examples)
    failing_checks = {finding["check"] for finding in document["findings"]}
    checks_run = {
        "fine": [name for name in document["looked_at"] if name not in failing_checks],
        "blind": list(document["not_looked_at"].items()),
    }
    choices = [
        ChoiceView(str(d["what"]), str(d["chosen"]), str(d["because"]))
        for d in document["decisions"]
    ]
    sections = [
        *([PagePart("problems", "Findings", levels)] if levels else []),
        PagePart("looked", "Checks", checks_run),
        *([PagePart("choices", "Decisions and reasons", choices)] if choices else []),
    ]
    return standalone(_headline(document), sections, words, str(document["task"]))


def audit_snippet(document: Mapping[str, object], examples: Examples) -> str:
    """The HTML of an audit in a notebook: its result and the first findings."""
    problems = [one for _, views in _problems_by_level(document, examples) for one in views]
    page = (
        environment(Glossary())
        .get_template("audit_snippet.html.j2")
        .render(
            style=asset("snippet.css"),
            title=document["source"],
            answer=audit_answer(document),
            tone=_tone(document),
            problems=problems[:MAX_SNIPPET_PROBLEMS],
            more=max(0, len(problems) - MAX_SNIPPET_PROBLEMS),
            about=_coverage_sentence(document),
        )
    )
    return page.translate(UNPRINTABLE)


def _findings_of(document: Mapping[str, Any], severity: str) -> list[tuple[int, FindingJson]]:
    findings = enumerate(document["findings"])
    return [(place, finding) for place, finding in findings if finding["severity"] == severity]


def _tone(document: Mapping[str, Any]) -> str:
    worst = document["findings"][0]["severity"] if document["findings"] else ""
    return {"error": "bad", "warn": "warn"}.get(worst, "good")


def _headline(document: Mapping[str, Any]) -> HeadlineView:
    tone = _tone(document)
    counts = [(len(_findings_of(document, level)), word) for level, word in WORDS.items()]
    label = ", ".join(count_phrase(n, word) for n, word in counts if n) or "none"
    facts = [("Rows", f"{document['rows']:,}"), ("Task", str(document["task"]))]
    if document["label_counts"]:
        facts.append(("Classes", f"{len(document['label_counts']):,}"))
    if document["against"]:
        facts.append(("Compared with", ", ".join(document["against"])))
    return HeadlineView(
        title=str(document["source"]),
        tone=tone,
        tone_word="Findings",
        label=label,
        sentence=audit_answer(document),
        because=_coverage_sentence(document),
        facts=tuple(facts),
    )


def _coverage_sentence(document: Mapping[str, Any]) -> str:
    checks, skipped = len(document["looked_at"]), len(document["not_looked_at"])
    rest = f"; {skipped} skipped as not applicable" if skipped else ""
    return f"{checks} checks ran on {document['rows']:,} rows{rest}. The data were not changed."


def _problems_by_level(
    document: Mapping[str, object], examples: Examples
) -> list[tuple[str, list[ProblemView]]]:
    """The findings by severity, each with its title; severities without findings are left out."""
    views_of_level = [
        (
            title,
            [
                _problem_view(one, examples.get(place, ()))
                for place, one in _findings_of(document, severity)
            ],
        )
        for severity, title in SEVERITY_TITLES.items()
    ]
    return [(title, problems) for title, problems in views_of_level if problems]


def _problem_view(finding: FindingJson, shown: Sequence[Mapping[str, Any]]) -> ProblemView:
    rows = finding["rows"]
    more = (
        f" and {finding['count'] - MAX_ROWS_LISTED:,} more"
        if finding["count"] > MAX_ROWS_LISTED
        else ""
    )
    row_text = ", ".join(str(row) for row in rows[:MAX_ROWS_LISTED])
    return ProblemView(
        SEVERITIES[finding["severity"]],
        finding["severity"],
        finding["check"].replace("_", " "),
        f"{finding['count']:,}",
        sentence(finding["because"]),
        sentence(finding["remedy"]),
        f"{row_text}{more}" if rows else "",
        finding["fixed"],
        finding["cannot_see"],
        finding["error_rate"],
        tuple(_example_view(one) for one in shown),
    )


def _example_view(one: Mapping[str, Any]) -> ExampleView:
    place = f"row {one['row']}"
    if one["other_row"] is None:
        text = one["text"]
        shown = text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]} …"
        return ExampleView(one["note"], place, one["label"], escape(shown))
    text, other = mark_differences(one["text"], one["other_text"])
    file = f" of {one['other_file']}" if one["other_file"] else ""
    other_place = f"row {one['other_row']}{file}"
    return ExampleView(
        one["note"], place, one["label"], text, other_place, one["other_label"], other
    )


def mark_differences(one: str, other: str) -> tuple[Markup, Markup]:
    """Both texts as escaped HTML; what only one of them has is in ``<mark>``."""
    first, second = _tokens(one), _tokens(other)
    matcher = difflib.SequenceMatcher(None, first, second, autojunk=False)
    left, right = Markup(""), Markup("")
    for same, a, b, c, d in matcher.get_opcodes():
        left += _mark_token("".join(first[a:b]), same == "equal")
        right += _mark_token("".join(second[c:d]), same == "equal")
    return left + _ellipsis(one, first), right + _ellipsis(other, second)


def _tokens(text: str) -> list[str]:
    return _WORD.findall(text)[: 2 * MOST_WORDS]


def _mark_token(text: str, same: bool) -> Markup:
    return escape(text) if same or not text else Markup("<mark>") + escape(text) + Markup("</mark>")


def _ellipsis(text: str, pieces: list[str]) -> Markup:
    return Markup(" …") if len(text) > sum(map(len, pieces)) else Markup("")
