"""How the rows were split, and which were moved or dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from holdfast.report.charts.svg import element
from holdfast.report.numbers import NBSP, count, plural
from holdfast.report.run_files import Block, RunFiles

SPLITS = ("train", "valid", "test", "dropped")
SPLIT_NAMES = {"train": "Training", "valid": "Validation", "test": "Test", "dropped": "Removed"}


@dataclass(frozen=True, slots=True)
class DivisionView:
    """The section. ``parts`` are (style, name, rows, share); ``classes`` (name, rows of each of
    ``class_splits``, rows, bar). ``noted`` are rows with the same note: (split, note, rows, first
    row)."""

    sentence: str
    bar: Markup
    parts: tuple[tuple[str, str, str, str], ...]
    facts: tuple[str, ...]
    notes: tuple[str, ...]
    class_splits: tuple[str, ...]
    classes: tuple[tuple[str, tuple[str, ...], str, Markup], ...]
    noted: tuple[tuple[str, str, str, str], ...]
    noted_left_out: str


def division(run: RunFiles) -> DivisionView:
    """From ``division`` of result.json; for older runs from ``data`` and ``splits.parquet``."""
    counts = {**run.split_counts, **run.part("data"), **run.part("division")}
    sizes = {part: int(counts.get(part) or 0) for part in SPLITS}
    total = sum(sizes.values())
    names = dict(SPLIT_NAMES)
    if run.part("valid").get("out_of_fold"):
        names["train"] = "Training and validation (cross-fitted)"
    shown = [
        part
        for part, n in sizes.items()
        if n or (part != "dropped" and not run.part(part).get("out_of_fold"))
    ]
    class_splits = [part for part in SPLITS[:3] if part in shown]
    return DivisionView(
        sentence=_sentence(run, sizes),
        bar=stacked_bar(list(sizes.items()), total),
        parts=tuple(
            (part, names[part], count(sizes[part]), f"{100 * sizes[part] / total:.1f}{NBSP}%")
            for part in shown
            if total
        ),
        facts=_fact_lines(run.part("division")),
        notes=tuple(run.part("division").texts("notes")),
        class_splits=tuple(names[part] for part in class_splits),
        classes=_class_lines(run.part("division").table("per_class"), class_splits),
        noted=tuple(
            (SPLIT_NAMES.get(one.split, one.split), one.note, count(one.count), str(one.first))
            for one in run.noted
        ),
        noted_left_out=plural(run.noted_left_out, "more note") if run.noted_left_out else "",
    )


def _sentence(run: RunFiles, sizes: Mapping[str, int]) -> str:
    data = run.part("data")
    if not any(sizes.values()):
        return "This run did not record its splits."
    usage = _split_usage(run, sizes)
    if data.get("rows") is None:
        return usage
    used = data.get("used") or sum(sizes[part] for part in SPLITS[:3])
    if used > data["rows"] or run.part("settings", "data").get("test"):
        # ``rows`` does not count test rows from a separate file.
        words = f"{plural(data['rows'], 'row')} read, and {count(sizes['test'])} test rows"
        return f"{words} from a separate source: {usage}"
    return f"{plural(data['rows'], 'row')} read, {count(used)} used: {usage}"


def _split_usage(run: RunFiles, sizes: Mapping[str, int]) -> str:
    """How many rows each split has; for a split without rows, what replaces it."""
    validation = f"{count(sizes['valid'])} for validation (every choice)"
    if run.part("valid").get("out_of_fold"):
        folds = run.part("valid").get("folds", "several")
        validation = f"validation out of fold on the same rows ({folds} folds)"
    testing = f"{count(sizes['test'])} for the test score"
    if run.part("test").get("out_of_fold"):
        folds = run.part("test").get("folds", "several")
        testing = f"the test score out of fold on all rows ({folds} outer folds)"
    elif run.part("cv") and not sizes["test"]:
        testing = "the test score out of fold on the same rows"
    return f"{count(sizes['train'])} for training, {validation} and {testing}."


def _fact_lines(counts: Mapping[str, object]) -> tuple[str, ...]:
    facts = []
    if counts.get("copy_groups") is not None:
        groups = plural(counts["copy_groups"], "group")
        rows = plural(counts.get("rows_in_copies", 0), "row")
        facts.append(
            f"{groups} of duplicates and near-duplicates ({rows}); each group is in one split only."
        )
    if counts.get("moved"):
        rows = plural(counts["moved"], "row")
        facts.append(f"{rows} moved to the split of their duplicates or group.")
    if counts.get("dropped"):
        facts.append(f"{plural(counts['dropped'], 'row')} removed.")
    return tuple(facts)


def _class_lines(
    rows_of_class: Mapping[str, Block], splits: Sequence[str]
) -> tuple[tuple[str, tuple[str, ...], str, Markup], ...]:
    sizes = {
        name: [int(row.get(part) or 0) for part in splits] for name, row in rows_of_class.items()
    }
    largest = max(map(sum, sizes.values()), default=0)
    return tuple(
        (
            name,
            tuple(map(count, row)),
            count(sum(row)),
            stacked_bar(list(zip(splits, row, strict=True)), largest),
        )
        for name, row in sizes.items()
    )


def stacked_bar(parts: Sequence[tuple[str, int]], total: int) -> Markup:
    """A bar as long as the sum of ``parts`` ÷ ``total``; empty where ``total`` is 0. Hidden from
    screen readers, since the same numbers are always next to it."""
    if total <= 0:
        return Markup("")
    boxes, at = [], 0.0
    for style, n in parts:
        width = 100 * n / total
        if n > 0:
            boxes.append(element("rect", x=at, y=0, width=width, height=10, class_=style))
        at += width
    return element(
        "svg",
        *boxes,
        class_="stack",
        viewBox="0 0 100 10",
        preserveAspectRatio="none",
        aria_hidden="true",
    )
