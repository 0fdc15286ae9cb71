"""The list of runs: searched, narrowed, sorted, a page of it; and a score drawn as a small bar."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup

from holdfast.core.records import Estimate
from holdfast.plugins.dashboard.summary import STATES, Summary
from holdfast.report.answer.score import FALLING
from holdfast.report.charts.svg import element
from holdfast.report.numbers import interval, is_rate, metric_name, number

PAGE = 50
LONGEST = 200
WIDE, HIGH = 120.0, 14.0


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for. ``words`` must all stand in a run's name, task, model, data, verdict or
    state; ``sort`` is a column, with a minus the other way round."""

    words: str = ""
    task: str = ""
    state: str = ""
    verdict: str = ""
    sort: str = "-when"
    page: int = 1

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Query:
        """The query of an address; what it does not know is left out."""
        page = given.get("page", "1")
        sort = given.get("sort", "-when")
        return cls(
            words=given.get("q", "")[:LONGEST].strip(),
            task=given.get("task", "")[:LONGEST],
            state=given.get("state", "")[:LONGEST],
            verdict=given.get("verdict", "")[:LONGEST],
            sort=sort if sort.removeprefix("-") in COLUMNS else "-when",
            page=max(1, int(page)) if page.isascii() and page.isdecimal() and len(page) < 7 else 1,
        )

    def address(self, **changes: object) -> str:
        """The address of this query with some of it changed; a page of its own begins anew."""
        made = replace(self, **{"page": 1, **changes})  # type: ignore[arg-type]
        asked = {
            "q": made.words,
            "task": made.task,
            "state": made.state,
            "verdict": made.verdict,
            "sort": "" if made.sort == "-when" else made.sort,
            "page": "" if made.page == 1 else str(made.page),
        }
        kept = {name: value for name, value in asked.items() if value}
        return "/?" + urlencode(kept) if kept else "/"


@dataclass(frozen=True, slots=True)
class ListPage:
    """A page of the list: ``total`` runs were found of ``of``; ``columns`` are headings, where a
    click on them leads, and how the list is sorted by them now; ``choices`` are what there is to
    narrow it by."""

    query: Query
    runs: tuple[Summary, ...]
    total: int
    of: int
    pages: int
    columns: tuple[tuple[str, str, str], ...]
    choices: Mapping[str, tuple[str, ...]]

    @property
    def first(self) -> int:
        """The place of the first run shown, from 1."""
        return (self.query.page - 1) * PAGE + 1


def page_of(summaries: Sequence[Summary], query: Query) -> ListPage:
    """The page of the list that ``query`` asks for; a page beyond the last is the last."""
    words = query.words.casefold().split()
    found = [
        one
        for one in summaries
        if all(word in one.searched for word in words)
        and query.task in ("", one.task)
        and query.state in ("", one.state)
        and query.verdict in ("", one.verdict)
    ]
    value = COLUMNS[query.sort.removeprefix("-")][1]
    found.sort(key=lambda one: one.name)
    # What has no value stands last, whichever way round.
    known = [one for one in found if value(one) is not None]
    known.sort(key=value, reverse=query.sort.startswith("-"))
    found = known + [one for one in found if value(one) is None]
    pages = max(1, math.ceil(len(found) / PAGE))
    query = replace(query, page=min(query.page, pages))
    start = (query.page - 1) * PAGE
    return ListPage(
        query,
        tuple(found[start : start + PAGE]),
        len(found),
        len(summaries),
        pages,
        tuple(_column(query, one) for one in COLUMNS),
        {
            "task": tuple(sorted({one.task for one in summaries} - {""})),
            "state": tuple(x for x in STATES if any(one.state == x for one in summaries)),
            "verdict": tuple(sorted({one.verdict for one in summaries} - {""})),
        },
    )


def score_text(summary: Summary) -> tuple[str, str, str]:
    """The score, its interval and what it is: ``91.2 %``, ``87.6 – 93.8 %``, ``Accuracy``."""
    score, metric = summary.score, summary.metric
    title = metric_name(metric) if metric else ""
    span = interval(score, metric) if score.value is not None else ""
    return number(score.value, metric), span, title


def score_bar(score: Estimate, metric: str) -> Markup:
    """A share with its interval on a line from 0 to 100 %; empty for other numbers."""
    if score.value is None or not is_rate(metric) or not 0 <= score.value <= 1:
        return Markup("")

    def x(value: float) -> float:
        return 4 + min(1.0, max(0.0, value)) * (WIDE - 8)

    middle = HIGH / 2
    parts = [element("line", x1=4, x2=WIDE - 4, y1=middle, y2=middle, class_="grid")]
    if score.low is not None and score.high is not None:
        ends = {"x1": x(score.low), "x2": x(score.high)}
        parts.append(element("line", y1=middle, y2=middle, class_="whisker", **ends))
    parts.append(element("circle", cx=x(score.value), cy=middle, r=3.5, class_="dot"))
    return element(
        "svg",
        element("g", *parts, class_="main"),
        class_="mini",
        viewBox=f"0 0 {WIDE:g} {HIGH:g}",
        width=WIDE,
        height=HIGH,
        aria_hidden="true",
    )


def _column(query: Query, name: str) -> tuple[str, str, str]:
    title, _, falls = COLUMNS[name]
    now = {name: "ascending", f"-{name}": "descending"}.get(query.sort, "")
    first, other = (f"-{name}", name) if falls else (name, f"-{name}")
    return title, query.address(sort=other if query.sort == first else first), now


def _better(summary: Summary) -> tuple[str, float] | None:
    """Scores of a kind beside each other, the better ones on one side."""
    value = summary.score.value
    if value is None:
        return None
    return summary.metric, -value if summary.metric in FALLING else value


COLUMNS: Mapping[str, tuple[str, Callable[[Summary], Any], bool]] = {
    "name": ("Run", lambda one: one.name.casefold(), False),
    "score": ("Score", _better, True),
    "verdict": ("Verdict", lambda one: one.verdict or None, False),
    "state": ("State", lambda one: STATES.index(one.state), False),
    "when": ("Last sign", lambda one: one.when, True),
}
"""Of each column its title, what it is sorted by, and whether the largest comes first."""
