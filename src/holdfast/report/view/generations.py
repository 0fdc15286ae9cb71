"""What a model writes: reference, trained and untuned model side by side, and what it repeats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.core.records import Estimate
from holdfast.report.numbers import count, estimate, metric_name, plural
from holdfast.report.run_files import RunFiles
from holdfast.report.view.honest import Cell, cell

COLUMNS = {
    "test": "Test rows",
    "test_untuned": "Test rows, untuned model",
    "train": "Training rows",
    "train_untuned": "Training rows, untuned model",
}
SOURCE_LIMIT = 900


@dataclass(frozen=True, slots=True)
class Text:
    """One row: what it was given, what it should write, and what the two models wrote."""

    row: str
    source: str
    reference: str
    generated: str
    untuned: str | None
    same: bool


@dataclass(frozen=True, slots=True)
class Generations:
    """The section. ``scores`` and ``counts`` are tables with one column a side and model; a line of
    ``counts`` is what is counted, then a number a column."""

    sentence: str
    score_columns: tuple[str, ...]
    scores: tuple[tuple[str, tuple[Cell, ...]], ...]
    count_columns: tuple[str, ...]
    counts: tuple[tuple[str, tuple[str, ...]], ...]
    sides: tuple[tuple[str, tuple[Text, ...]], ...]


def generations(run: RunFiles) -> Generations | None:
    """From ``generations`` of result.json; ``None`` where the task writes no text or nothing was
    generated."""
    raw = run.part("generations")
    sides = (("Test rows", _texts(run, "test")), ("Training rows", _texts(run, "train")))
    if not raw or not any(texts for _, texts in sides):
        return None
    scores = {k: v for k, v in run.table("generations", "scores").items() if k in COLUMNS}
    counts = {k: v for k, v in run.table("generations", "counts").items() if k in COLUMNS}
    shown = [key for key in COLUMNS if key in scores]
    counted = [key for key in COLUMNS if key in counts]
    return Generations(
        sentence=_sentence(run.part("generations", "settings"), counts),
        score_columns=tuple(COLUMNS[key] for key in shown),
        scores=_scores([scores[key] for key in shown]),
        count_columns=tuple(f"{COLUMNS[key]} ({count(counts[key].get('n'))})" for key in counted),
        counts=_counts([counts[key] for key in counted], run.part("generations", "meaning")),
        sides=tuple(side for side in sides if side[1]),
    )


def _texts(run: RunFiles, side: str) -> tuple[Text, ...]:
    return tuple(
        Text(
            row=str(raw.get("row", "–")),
            source=_cut(str(raw.get("source") or "")),
            reference=str(raw.get("reference") or ""),
            generated=str(raw.get("generated") or ""),
            untuned=None if raw.get("untuned") is None else str(raw["untuned"]),
            same=str(raw.get("reference")).split() == str(raw.get("generated")).split(),
        )
        for raw in run.records("generations", side)
    )


def _sentence(settings: Mapping[str, object], counts: Mapping[str, Mapping[str, object]]) -> str:
    beams = settings.get("beams")
    how = "greedily" if beams in (1, None) else f"with {count(beams)} beams"
    rows = " and ".join(
        plural(counts[side].get("n", 0), f"{name} row")
        for side, name in (("test", "test"), ("train", "training"))
        if side in counts
    )
    return f"The same fixed sample for both models, written {how}: {rows}."


def _scores(columns: list[Mapping[str, object]]) -> tuple[tuple[str, tuple[Cell, ...]], ...]:
    names = dict.fromkeys(name for column in columns for name in column)
    unknown = Estimate(None, why="not recorded")
    return tuple(
        (
            metric_name(name),
            tuple(cell(estimate(c[name]) if name in c else unknown, name) for c in columns),
        )
        for name in names
    )


def _counts(
    columns: list[Mapping[str, object]], meaning: Mapping[str, object]
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    names = dict.fromkeys(name for column in columns for name in column if name != "n")
    return tuple(
        (
            str(meaning.get(name) or name.replace("_", " ")),
            tuple(count(column.get(name)) for column in columns),
        )
        for name in names
    )


def _cut(text: str) -> str:
    return text if len(text) <= SOURCE_LIMIT else f"{text[:SOURCE_LIMIT]} …"
