"""From a source to an ``Audit``: read → duplicates → views → all checks → the findings, and what
was skipped. An ``Audit`` is a value that can be written as JSON, as a page and in a notebook.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from holdfast.analyses.audit.rows import AuditRows, read_rows
from holdfast.analyses.audit.views import Progress, Views, make_views
from holdfast.contract.inference import within_limits
from holdfast.contract.request import TrainingRequest
from holdfast.contract.run_folder import RECIPE
from holdfast.core.decisions import current_listener, decisions_to
from holdfast.core.printable import brief_repr
from holdfast.core.records import Decision, Finding, to_json
from holdfast.core.tasks import IMAGE_TASKS
from holdfast.core.wording import count_phrase
from holdfast.data.raw import source_path
from holdfast.data.table import Table
from holdfast.duplicates.duplicates import CombinedRows
from holdfast.plan.language import language_findings, sample_texts
from holdfast.quality.check import CheckExample, CheckResult
from holdfast.quality.checks import all_checks
from holdfast.quality.clean.apply import plan_cleaning
from holdfast.quality.clean.texts import mask_personal
from holdfast.quality.label_ranking import rank_for_labelling
from holdfast.quality.leaks import duplicate_groups, pair_leaks
from holdfast.quality.runner import SEVERITY_ORDER, AuditResults, run_checks
from holdfast.quality.views import Embedded, TableRows
from holdfast.recipe import Recipe

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Leak:
    """A row of the source that duplicates one of another file; ``similarity`` in (0, 1], 1 if they
    are equal up to case, space and punctuation."""

    row: int
    other_file: str
    other_row: int
    similarity: float


@dataclass(frozen=True, slots=True)
class LabelIssue:
    """How doubtful the label of a row is: ``score`` in [0, 1], and a suggested label."""

    row: int
    given: str
    suggested: str
    score: float


@dataclass(frozen=True, slots=True)
class LabelQueue:
    """The rows of ``file`` without a label, at most 2,000 of ``count``, in the order in which to
    label them: ``ranked`` by expected gain, else at random, with the reason; ``shown`` are the
    first texts."""

    file: str
    count: int
    ranked: bool
    because: str
    rows: tuple[int, ...]
    shown: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The value of ``label_next``, without texts, which are in the file."""
        return {
            "file": self.file,
            "count": self.count,
            "ranked": self.ranked,
            "because": self.because,
            "rows": list(self.rows),
        }


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A readable example of a finding: the row's text and label, and those of the other row of a
    pair; ``note`` says what to notice."""

    row: int
    text: str
    label: str
    note: str
    other_row: int | None = None
    other_file: str | None = None
    other_text: str = ""
    other_label: str = ""


@dataclass(frozen=True)
class Audit:
    """The result of an audit of ``source``: ``findings``, the worst first, with ``examples`` by
    their index; the groups of duplicate rows (``duplicate_groups``, including those without a
    text); the rows that are also in other files (``leaks``); every row by how doubtful its label is
    (``label_issues``); and which rows without a label to label first (``label_next``).

    ``rows`` is the number of rows of the source; ``columns`` their roles; ``label_counts`` the rows
    of each class. ``seconds`` is the time of each check that ran, ``idle`` are checks that do not
    apply to such rows, ``unseen`` says why a check was skipped, by its name. ``decisions`` were
    made automatically. ``broken`` are checks that failed, which is a defect of Holdfast; all other
    results are complete.
    """

    source: str
    task: str
    rows: int
    columns: Mapping[str, Any]
    label_counts: Mapping[str, int]
    findings: tuple[Finding, ...]
    examples: Mapping[int, tuple[ShownRow, ...]]
    duplicate_groups: tuple[tuple[int, ...], ...] = ()
    leaks: tuple[Leak, ...] = ()
    label_issues: tuple[LabelIssue, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    blind: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()
    unseen: Mapping[str, str] = field(default_factory=dict)
    decisions: tuple[Decision, ...] = ()
    against: tuple[str, ...] = ()
    broken: Mapping[str, str] = field(default_factory=dict)
    label_next: LabelQueue | None = None

    @property
    def worst(self) -> str:
        """``error``, ``warn``, ``info``, or empty without findings."""
        return self.findings[0].severity if self.findings else ""

    @property
    def silent(self) -> tuple[str, ...]:
        """The checks that ran and found nothing."""
        with_findings = {finding.check for finding in self.findings}
        return tuple(name for name in self.seconds if name not in with_findings)

    def to_json(self) -> dict[str, Any]:
        """What ``holdfast audit --json`` prints, schema 1."""
        return {
            "schema": SCHEMA,
            "source": self.source,
            "task": self.task,
            "rows": self.rows,
            "columns": to_json(dict(self.columns)),
            "label_counts": dict(self.label_counts),
            "findings": [_finding_json(finding) for finding in self.findings],
            "duplicate_groups": [list(group) for group in self.duplicate_groups],
            "label_issues": [to_json(issue) for issue in self.label_issues],
            "label_next": None if self.label_next is None else self.label_next.to_json(),
            "leaks": [to_json(leak) for leak in self.leaks],
            "against": list(self.against),
            "looked_at": {name: round(seconds, 3) for name, seconds in self.seconds.items()},
            "not_looked_at": dict(self.unseen),
            "decisions": [decision.to_json() for decision in self.decisions],
        }

    def shown(self) -> dict[int, list[dict[str, Any]]]:
        """The examples of each finding by its index, as plain values, for a page."""
        return {position: to_json(list(rows)) for position, rows in self.examples.items()}

    def __repr__(self) -> str:
        # A prompt needs only the names of the findings, not their sentences.
        names = ", ".join(dict.fromkeys(one.check for one in self.findings)) or "nothing found"
        return brief_repr("Audit", f"{count_phrase(self.rows, 'row')} of {self.source}", names)

    def _repr_html_(self) -> str:
        from holdfast.report.audit import audit_snippet

        return audit_snippet(self.to_json(), self.shown())


def _finding_json(finding: Finding) -> dict[str, Any]:
    """A finding with the limits and error rate of its check. Findings of the reader belong to no
    check and have neither."""
    checks, reliability = all_checks(), {"cannot_see": "", "error_rate": ""}
    if finding.check in checks:
        check = checks[finding.check]
        reliability = {"cannot_see": check.cannot_see, "error_rate": check.error_rate}
    return {**finding.to_json(), **reliability}


# Examples to show of each finding.
SHOWN = 8


# Parts of a recipe with names of what is trained with.
TRAINING_PARTS = ("train", "methods", "enrich", "track", "alert")


def _check_names(recipe: Recipe) -> None:
    """``check_names``, which loads PyTorch, if the recipe says how to train."""
    plan_cleaning(recipe.treat)
    usual = Recipe()
    if any(getattr(recipe, part) != getattr(usual, part) for part in TRAINING_PARTS):
        from holdfast.prepare.rows import check_names

        check_names(recipe)


def audit(
    recipe: Recipe,
    against: Sequence[str] = (),
    *,
    progress: Progress = lambda *_: None,
    names: Mapping[str, str] = MappingProxyType({}),
) -> Audit:
    """Audit the rows that the recipe names, and compare them with the files ``against``.

    ``progress`` is called with the current step. ``names`` are the user's names of files that stand
    for rows in memory.

    Raises ``DataError`` for rows that cannot be read, ``ModelError`` for a model that cannot be.
    """
    decisions: list[Decision] = []
    forward = current_listener()

    def record(event: Decision | Finding) -> None:
        decisions.extend([event] if isinstance(event, Decision) else [])
        forward(event)

    _check_names(recipe)
    # Nothing is trained, so no base model is chosen.
    recipe = recipe.with_changes(model={"name": recipe.model.name_or_embedded})
    with within_limits(recipe.data), decisions_to(record):
        progress("reading", None, None)
        audit_rows = read_rows(recipe, against, names)
        views = make_views(audit_rows, progress)
        return _run_checks(audit_rows, views, decisions, progress)


def _run_checks(
    audit_rows: AuditRows, views: Views, decisions: Sequence[Decision], progress: Progress
) -> Audit:
    table, all_rows = audit_rows.table, views.all_rows
    assert all_rows is not None
    results = run_checks(
        table,
        views.available,
        lambda name: progress(f"checking {name}", None, None),
        # For debugging, a defect must raise with its traceback.
        continue_on_error=os.environ.get("HOLDFAST_TRACEBACK") != "1",
    )
    recipe = audit_rows.recipe
    # The text of an image is its path.
    texts = [] if recipe.task in IMAGE_TASKS else sample_texts(table, recipe.seed)
    language = language_findings(recipe.model.name, texts)
    reading = tuple(
        CheckResult(finding) for finding in (*table.findings, *views.findings, *language)
    )
    ranked = sorted(
        (*results.results, *reading),
        key=lambda one: (SEVERITY_ORDER[one.finding.severity], -one.finding.score),
    )
    columns = table.columns
    return Audit(
        source=table.source,
        task=str(audit_rows.recipe.task),
        rows=table.source_rows,
        columns={
            "text": columns.text[0] if len(columns.text) == 1 else list(columns.text),
            "label": columns.label,
            "group": columns.group,
        },
        label_counts=_label_counts(table),
        findings=tuple(one.finding for one in ranked),
        examples={
            place: _shown_rows(one.examples[:SHOWN], audit_rows)
            for place, one in enumerate(ranked)
            if one.examples
        },
        duplicate_groups=_duplicate_groups(table, all_rows, audit_rows.empty),
        leaks=_leaks(table, all_rows),
        label_issues=_label_issues(views.get(Embedded)),
        label_next=_label_next(views.get(Embedded), audit_rows.recipe.seed),
        seconds=results.seconds,
        blind=tuple(results.skipped),
        idle=results.not_applicable,
        unseen=_unchecked(results, views.missing),
        broken=results.failed,
        decisions=tuple(decisions),
        against=tuple(table.source for table in audit_rows.other_tables.values()),
    )


def _label_counts(table: Table) -> dict[str, int]:
    """Rows of each class, or of each label or tag if a row has several; empty for numbers."""
    if table.columns.label is None or table.columns.label_kind == "number":
        return {}
    several = next((name for name in ("labels", "tags") if name in table.rows.column_names), None)
    if several is not None:
        counts = np.zeros(len(table.names), dtype=np.int64)
        for labels in table.column(several):
            counts[np.unique(labels).astype(np.int64)] += 1
        return dict(zip(table.names, counts.tolist(), strict=True))
    if len(table.classes) < 2:
        return {}
    labels = table.column("label")
    counts = np.bincount(labels[labels >= 0], minlength=len(table.classes))
    return dict(zip(table.classes, counts.tolist(), strict=True))


def _duplicate_groups(
    table: Table, all_rows: CombinedRows, empty: tuple[int, ...]
) -> tuple[tuple[int, ...], ...]:
    """The groups of duplicate rows; rows without a text form one group."""
    ids = table.column("row")
    groups = [tuple(ids[part].tolist()) for part in duplicate_groups(all_rows)]
    return tuple(sorted([*groups, *([empty] if len(empty) > 1 else [])]))


def _leaks(table: Table, all_rows: CombinedRows) -> tuple[Leak, ...]:
    ids, leaks = table.column("row"), []
    for name, other in all_rows.tables.items():
        if name == "source":
            continue
        pairs, other_ids = pair_leaks(all_rows, name), other.column("row")
        leaks += [
            Leak(int(ids[a]), other.source, int(other_ids[b]), round(float(s), 4))
            for a, b, s in zip(pairs.source, pairs.other, pairs.similarity, strict=True)
        ]
    return tuple(leaks)


def _label_issues(view: Embedded | None) -> tuple[LabelIssue, ...]:
    """Every row that the model has read and that has a label, the most doubtful first."""
    ranked = None if view is None else view.label_ranking
    if view is None or ranked is None:
        return ()
    ids, classes = view.rows.ids, view.rows.table.classes
    columns = (ranked.order, ranked.given, ranked.suggested, ranked.score)
    return tuple(
        LabelIssue(int(ids[at]), classes[given], classes[suggested], float(score))
        for at, given, suggested, score in zip(*map(np.ndarray.tolist, columns), strict=True)
    )


def _label_next(view: Embedded | None, seed: int) -> LabelQueue | None:
    """Which rows to label first, of those without a label."""
    if view is None or view.unlabelled is None:
        return None
    pool, vectors = view.unlabelled
    labels = view.rows.labels
    ranking = rank_for_labelling(
        view.vectors, labels, vectors, classes=len(view.rows.table.classes), seed=seed
    )
    ids, texts = pool.column("row"), TableRows(pool).texts
    rows = tuple(int(ids[at]) for at in ranking.order)
    shown = tuple(texts[at] for at in ranking.order[:SHOWN])
    return LabelQueue(pool.source, len(pool), ranking.ranked, ranking.because, rows, shown)


def _unchecked(results: AuditResults, without: Mapping[str, str]) -> dict[str, str]:
    """Why each check was skipped: it had no view, nothing to check, or it failed."""
    checks, reasons = all_checks(), {}
    for name, why in results.skipped.items():
        view_type = checks[name].view_type.__name__
        default = f"not available for these rows ({view_type})"
        reasons[name] = why or without.get(view_type) or default
    broken = {name: f"a bug in Holdfast: {message}" for name, message in results.failed.items()}
    return {**reasons, **broken}


def _shown_rows(examples: Sequence[CheckExample], audit_rows: AuditRows) -> tuple[ShownRow, ...]:
    """The rows of examples with their texts."""
    tables: dict[str | None, Table] = {
        table.source: table for table in audit_rows.other_tables.values()
    }
    for name, table in audit_rows.other_tables.items():
        tables[name] = table
    tables[None] = audit_rows.table
    rows_by_file: dict[str | None, set[int]] = {}
    for one in examples:
        rows_by_file.setdefault(None, set()).add(one.row)
        if one.other_row is not None:
            rows_by_file.setdefault(one.other_file, set()).add(one.other_row)
    texts = {
        name: _texts(tables[name], rows) for name, rows in rows_by_file.items() if name in tables
    }
    nothing = ("", "")
    return tuple(
        ShownRow(
            one.row,
            one.masked if one.masked is not None else texts[None].get(one.row, nothing)[0],
            texts[None].get(one.row, nothing)[1],
            one.note,
            one.other_row,
            one.other_file,
            *(
                texts.get(one.other_file, {}).get(one.other_row, nothing)
                if one.other_row is not None
                else nothing
            ),
        )
        for one in examples
    )


def _texts(table: Table, rows: set[int]) -> dict[int, tuple[str, str]]:
    """The text and the label of some rows of the source, by their row."""
    at = np.flatnonzero(np.isin(table.column("row"), list(rows)))
    part = TableRows(table.take(at))
    images = "path" in table.rows.column_names
    texts = [Path(path).name for path in part.table.column("path")] if images else part.texts
    # Personal data is masked in duplicates too, because they appear on the screen.
    texts = [mask_personal(text) for text in texts]
    has_classes = table.columns.one_class and len(table.classes) > 1
    labels = [table.classes[k] if has_classes and k >= 0 else "" for k in part.labels.tolist()]
    return dict(zip(part.ids.tolist(), zip(texts, labels, strict=True), strict=True))


@dataclass(frozen=True, slots=True)
class AuditRequest:
    """``data`` is a source as for ``holdfast train``, or the folder of a run, whose rows are then
    audited; ``against`` are other files. ``names`` are the user's names of files that stand for
    rows in memory. ``None`` means that the option was not given."""

    data: str
    against: tuple[str, ...] = ()
    text: Sequence[str] | None = None
    label: str | None = None
    group: str | None = None
    settings: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)

    def recipe(self) -> Recipe:
        """The recipe of this request."""
        run_recipe = source_path(self.data) / RECIPE
        source = str(run_recipe) if run_recipe.is_file() else self.data
        request = TrainingRequest(
            source, text=self.text, label=self.label, group=self.group, settings=self.settings
        )
        return request.recipe()

    @property
    def inputs(self) -> list[Path]:
        """The files that are read; no output may replace them."""
        data = self.recipe().data
        names = (self.data, data.path, data.valid, data.test, *self.against)
        return [source_path(name) for name in names if name]
