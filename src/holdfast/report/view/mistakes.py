"""The sections "Confusion matrix", "Metrics by class" and "Hardest rows"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.core.errors import RunError
from holdfast.report.document import Cell
from holdfast.report.numbers import compact, count, number
from holdfast.report.run_files import Block, RunFiles, TestPrediction
from holdfast.report.view.score import cell

COMPACT_FROM = 13
LONG_NAME = 20
MAX_CLASSES_DRAWN = 160
MAX_HARDEST = 20
TEXT_LIMIT = 700
PICTURE = "data:image/jpeg;base64,"
PICTURE_LIMIT = 12_000
SHADES = 8
REGRESSION = "regression"
MULTI_LABEL = "multi_label_classification"
PER_CLASS = ("precision", "recall", "f1")


@dataclass(frozen=True, slots=True)
class ConfusionMatrixView:
    """Rows are the true class. A line is (class, cells); a cell is (text, shade 0…8, diagonal).
    ``numbered`` columns have a number instead of a name; ``compact`` is for many classes."""

    classes: tuple[str, ...]
    lines: tuple[tuple[str, tuple[tuple[str, int, bool], ...]], ...]
    compact: bool
    numbered: bool
    drawn: bool
    top: tuple[tuple[str, str, str, str], ...]


@dataclass(frozen=True, slots=True)
class MistakeRow:
    """A hard test row. ``text`` is cut at ``TEXT_LIMIT`` characters; ``image`` is a thumbnail as a
    data URI, empty for rows without an image."""

    row: str
    text: str
    label: str
    prediction: str
    confidence: str
    loss: str
    right: bool
    image: str = ""


@dataclass(frozen=True, slots=True)
class Hardest:
    """Two lists: rows by loss, and wrong rows by confidence. With ``numbers`` (regression) no row
    is correct or wrong, and there is no confidence."""

    by_loss: tuple[MistakeRow, ...]
    confident: tuple[MistakeRow, ...]
    has_text: bool
    numbers: bool = False


def confusion_matrix(run: RunFiles) -> ConfusionMatrixView | None:
    """From ``test.confusion``, else counted from ``predictions.parquet``; else ``None``."""
    raw = run.part("test", "confusion")
    if _no_classes(run) or run.part("meta"):
        # The classes of test episodes are not classes of the saved model.
        return None
    classes = raw.texts("classes") or run.part().texts("classes")
    counts = raw.get("counts") or _count_pairs(run.predictions, classes)
    if not classes or not counts:
        return None
    known = [row for row in counts if row and all(isinstance(n, int) for n in row)]
    if [len(row) for row in known] != [len(classes)] * len(classes):
        rule = "must have one count for each pair of classes"
        remedy = "The file was changed by hand or by another tool. Restore it."
        raise RunError("result.json: test.confusion", rule, None, remedy)
    drawn, small = len(classes) <= MAX_CLASSES_DRAWN, len(classes) >= COMPACT_FROM
    return ConfusionMatrixView(
        classes=tuple(classes),
        compact=small,
        drawn=drawn,
        numbered=small or max(map(len, classes)) > LONG_NAME,
        lines=tuple(_line(name, i, counts[i]) for i, name in enumerate(classes)) if drawn else (),
        top=_most_confused(classes, counts),
    )


def class_scores(run: RunFiles) -> tuple[tuple[str, str, tuple[Cell, ...]], ...]:
    """Each class in the run's order: its rows, precision, recall and F1; empty without classes."""
    return tuple(
        (name, count(raw.get("n")), tuple(cell(raw.estimate(key), key) for key in PER_CLASS))
        for name, raw in run.part("test").table("per_class").items()
    )


def hardest(run: RunFiles) -> Hardest | None:
    """From ``hardest`` of result.json, else from ``predictions.parquet``, without the texts."""
    raw = run.part("hardest")
    if raw:
        by_loss, confident = (
            tuple(map(_row, raw.blocks(key)[:MAX_HARDEST])) for key in ("loss", "confidently_wrong")
        )
        return Hardest(by_loss, confident, has_text=True, numbers=_no_classes(run) == REGRESSION)
    # Episodes predict each query row from a few rows: an error says little about the row's label,
    # and the row appears once for each of its episodes.
    if not run.predictions or run.part("generations") or run.part("meta"):
        return None
    wrong = [p for p in run.predictions if p.prediction != p.label]
    losses = sorted(run.predictions, key=lambda p: (-(p.loss or 0.0), p.row))
    by_confidence = sorted(wrong, key=lambda p: (-(p.confidence or 0.0), p.row))
    return Hardest(_plain_rows(losses), _plain_rows(by_confidence), has_text=False)


def has_images(run: RunFiles) -> bool:
    """Whether any of the hardest rows has an image."""
    hardest_rows = hardest(run)
    return hardest_rows is not None and any(
        row.image for row in (*hardest_rows.by_loss, *hardest_rows.confident)
    )


def _no_classes(run: RunFiles) -> str:
    """The problem (regression, multi-label) of a text classification without single classes; else
    empty."""
    problem = run.part().text("problem")
    return problem if problem in (REGRESSION, MULTI_LABEL) else ""


def _count_pairs(predictions: Sequence[TestPrediction], classes: Sequence[str]) -> list[list[int]]:
    place = {name: i for i, name in enumerate(classes)}
    counts = [[0] * len(classes) for _ in classes]
    for p in predictions:
        if p.label in place and p.prediction in place:
            counts[place[p.label]][place[p.prediction]] += 1
    return counts if predictions else []


def _line(
    name: str, index: int, counts: Sequence[int]
) -> tuple[str, tuple[tuple[str, int, bool], ...]]:
    total = sum(counts)
    # A count above 0 is never blank.
    return name, tuple(
        (count(n), max(1, min(SHADES, round(SHADES * n / total))), i == index)
        if n
        else ("", 0, i == index)
        for i, n in enumerate(counts)
    )


def _most_confused(
    classes: Sequence[str], counts: Sequence[Sequence[int]]
) -> tuple[tuple[str, str, str, str], ...]:
    pairs = [(n, i, j) for i, row in enumerate(counts) for j, n in enumerate(row) if n and i != j]
    # Ties in the order of the classes: the same run gives the same page.
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    return tuple(
        (classes[i], classes[j], count(n), number(n / sum(counts[i]), "error"))
        for n, i, j in pairs[:12]
    )


def _row(raw: Block) -> MistakeRow:
    label, prediction = str(raw.get("label", "")), str(raw.get("prediction", ""))
    text, image = raw.text("text"), raw.text("image")
    # Only small JPEG images are shown in the page.
    fits = len(image) <= PICTURE_LIMIT and image.startswith(PICTURE)
    return MistakeRow(
        row=str(raw.get("row", "–")),
        text=text if len(text) <= TEXT_LIMIT else f"{text[:TEXT_LIMIT]} …",
        label=label,
        prediction=prediction,
        confidence=number(raw.get("confidence"), "confidence"),
        loss=compact(raw.get("loss")),
        right=label == prediction,
        image=image if fits else "",
    )


def _plain_rows(rows: Sequence[TestPrediction]) -> tuple[MistakeRow, ...]:
    return tuple(
        MistakeRow(
            str(p.row),
            "",
            p.label,
            p.prediction,
            number(p.confidence, "confidence"),
            compact(p.loss),
            p.label == p.prediction,
        )
        for p in rows[:MAX_HARDEST]
    )
