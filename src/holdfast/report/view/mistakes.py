"""Where it is wrong: the confusion matrix, the reliability diagram and the hardest rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from holdfast.core.errors import RunError
from holdfast.report.charts.reliability import Bin, reliability
from holdfast.report.numbers import compact, count, estimate, metrics, number
from holdfast.report.run_files import RunFiles, TestPrediction
from holdfast.report.view.honest import Cell, cell

COMPACT_FROM = 13
LONG_NAME = 20
DRAWN_UP_TO = 160
HARDEST = 20
TEXT_LIMIT = 700
PICTURE = "data:image/jpeg;base64,"
PICTURE_LIMIT = 12_000
SHADES = 8
MOST_DECIMALS = 4
REGRESSION = "regression"
MULTI_LABEL = "multi_label_classification"
PER_CLASS = ("precision", "recall", "f1")


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows are the true class. A line is (class, cells); a cell is (text, shade 0…8, diagonal).
    ``numbered`` columns carry a number instead of a name; ``compact`` is for many classes."""

    classes: tuple[str, ...]
    lines: tuple[tuple[str, tuple[tuple[str, int, bool], ...]], ...]
    compact: bool
    numbered: bool
    drawn: bool
    top: tuple[tuple[str, str, str, str], ...]


@dataclass(frozen=True, slots=True)
class ClassScore:
    """Precision, recall and F1 of one class."""

    name: str
    n: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class CalibrationView:
    """The diagram, its table (range, rows, confidence, accuracy) and the two numbers beside it."""

    chart: Markup
    lines: tuple[tuple[str, str, str, str], ...]
    ece: Cell
    temperature: str


@dataclass(frozen=True, slots=True)
class MistakeRow:
    """One test row that went wrong. ``text`` is cut at ``TEXT_LIMIT`` characters; ``image`` is the
    address of a small copy of a picture, empty for other rows."""

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
    """Two lists: by loss, and wrong by confidence; ``numbers`` are neither wrong nor sure."""

    by_loss: tuple[MistakeRow, ...]
    confident: tuple[MistakeRow, ...]
    has_text: bool
    numbers: bool = False


def matrix(run: RunFiles) -> Matrix | None:
    """From ``test.confusion``, else counted from ``predictions.parquet``; else ``None``."""
    raw = run.part("test", "confusion")
    if _no_classes(run) or run.part("meta"):
        # The classes of test episodes are none that the head of the saved start has.
        return None
    classes = [str(name) for name in raw.get("classes") or run.result.get("classes") or ()]
    counts = raw.get("counts") or _counted(run.predictions, classes)
    if not classes or not counts:
        return None
    _check_square(counts, len(classes))
    drawn = len(classes) <= DRAWN_UP_TO
    small = len(classes) >= COMPACT_FROM
    return Matrix(
        classes=tuple(classes),
        compact=small,
        drawn=drawn,
        numbered=small or max(map(len, classes)) > LONG_NAME,
        lines=tuple(_line(name, i, counts[i]) for i, name in enumerate(classes)) if drawn else (),
        top=_top(classes, counts),
    )


def _check_square(counts: Sequence[object], classes: int) -> None:
    rows = [row for row in counts if isinstance(row, list) and len(row) == classes]
    if len(rows) != classes or not all(isinstance(n, int) for row in rows for n in row):
        raise RunError(
            "result.json: test.confusion",
            "must have one count for each pair of classes",
            None,
            "The file was changed by hand or by another tool; restore it.",
        )


def class_scores(run: RunFiles) -> tuple[ClassScore, ...]:
    """The scores of each class in the run's order; none where there are no classes."""
    return tuple(
        ClassScore(
            str(name),
            count(raw.get("n")),
            tuple(cell(estimate(raw.get(key)), key) for key in PER_CLASS),
        )
        for name, raw in run.table("test", "per_class").items()
    )


def calibration(run: RunFiles) -> CalibrationView | None:
    """From ``test.reliability``; ``None`` when the run has none."""
    bins = [_bin(raw) for raw in run.records("test", "reliability", "bins")]
    filled = [b for b in bins if b is not None]
    if not filled:
        return None
    temperature = run.part("model_facts").get("temperature")
    ece = metrics(run.part("test")).get("ece") or estimate(None)
    return CalibrationView(
        chart=reliability(filled),
        lines=tuple(
            (words, count(b.n), number(b.confidence, "confidence"), number(b.accuracy, "accuracy"))
            for words, b in zip(ranges([(b.low, b.high) for b in filled]), filled, strict=True)
        ),
        ece=cell(ece, "ece"),
        temperature=compact(temperature) if temperature else "",
    )


def ranges(ends: Sequence[tuple[float, float]]) -> list[str]:
    """Ranges of probabilities as text, with as few decimals (0 to 4) as tell both ends of each
    apart; where four do not, the range is one number."""

    def shown(decimals: int) -> list[tuple[str, str]]:
        return [(f"{100 * low:.{decimals}f}", f"{100 * high:.{decimals}f}") for low, high in ends]

    def tells_apart(pairs: list[tuple[str, str]]) -> bool:
        return all(
            (a != b) == (low != high) for (a, b), (low, high) in zip(pairs, ends, strict=True)
        )

    pairs = next(
        (p for p in map(shown, range(MOST_DECIMALS)) if tells_apart(p)), shown(MOST_DECIMALS)
    )
    return [f"{a}\u00a0%" if a == b else f"{a} – {b}\u00a0%" for a, b in pairs]


def hardest(run: RunFiles) -> Hardest | None:
    """From ``hardest`` of result.json, else from ``predictions.parquet``, without the texts."""
    raw = run.part("hardest")
    if raw:
        lists = run.records("hardest", "loss"), run.records("hardest", "confidently_wrong")
        rows = [tuple(map(_row, lines[:HARDEST])) for lines in lists]
        return Hardest(rows[0], rows[1], has_text=True, numbers=_no_classes(run) == REGRESSION)
    # A query row of an episode was answered from a few rows: that it is wrong says nothing of its
    # label, and it stands there once for each of its episodes.
    if not run.predictions or run.part("generations") or run.part("meta"):
        return None
    wrong = [p for p in run.predictions if p.prediction != p.label]
    losses = sorted(run.predictions, key=lambda p: (-(p.loss or 0.0), p.row))
    sure = sorted(wrong, key=lambda p: (-(p.confidence or 0.0), p.row))
    return Hardest(_plain(losses), _plain(sure), has_text=False)


def has_pictures(run: RunFiles) -> bool:
    """Whether any of the hardest rows shows a picture."""
    found = hardest(run)
    return found is not None and any(row.image for row in (*found.by_loss, *found.confident))


def _no_classes(run: RunFiles) -> str:
    """The problem of a text classification whose labels are no classes; else empty."""
    problem = str(run.result.get("problem") or "")
    return problem if problem in (REGRESSION, MULTI_LABEL) else ""


def _counted(predictions: Sequence[TestPrediction], classes: Sequence[str]) -> list[list[int]]:
    place = {name: i for i, name in enumerate(classes)}
    counts = [[0] * len(classes) for _ in classes]
    for p in predictions:
        if p.label in place and p.prediction in place:
            counts[place[p.label]][place[p.prediction]] += 1
    return counts if predictions else []


def _line(
    name: str, index: int, counts: Sequence[int]
) -> tuple[str, tuple[tuple[str, int, bool], ...]]:
    whole = sum(counts)
    cells = tuple(
        (count(n) if n else "", _shade(n, whole), i == index) for i, n in enumerate(counts)
    )
    return name, cells


def _shade(n: int, whole: int) -> int:
    # What is there at all is never blank.
    return 0 if not n else max(1, min(SHADES, round(SHADES * n / whole)))


def _top(
    classes: Sequence[str], counts: Sequence[Sequence[int]]
) -> tuple[tuple[str, str, str, str], ...]:
    pairs = [(n, i, j) for i, row in enumerate(counts) for j, n in enumerate(row) if n and i != j]
    # Ties in the order of the classes: the same run gives the same page.
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    return tuple(
        (classes[i], classes[j], count(n), number(n / sum(counts[i]), "error"))
        for n, i, j in pairs[:12]
    )


def _bin(raw: Mapping[str, Any]) -> Bin | None:
    if not raw.get("n") or raw.get("accuracy") is None or raw.get("confidence") is None:
        return None
    return Bin(raw["low"], raw["high"], int(raw["n"]), raw["confidence"], raw["accuracy"])


def _row(raw: Mapping[str, Any]) -> MistakeRow:
    label, prediction = str(raw.get("label", "")), str(raw.get("prediction", ""))
    return MistakeRow(
        row=str(raw.get("row", "–")),
        text=_cut(str(raw.get("text") or "")),
        label=label,
        prediction=prediction,
        confidence=number(raw.get("confidence"), "confidence"),
        loss=compact(raw.get("loss")),
        right=label == prediction,
        image=_picture(raw.get("image")),
    )


def _picture(address: object) -> str:
    """A small JPEG inside the page; anything else is left out."""
    fits = isinstance(address, str) and len(address) <= PICTURE_LIMIT
    return str(address) if fits and str(address).startswith(PICTURE) else ""


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_LIMIT else f"{text[:TEXT_LIMIT]} …"


def _plain(rows: Sequence[TestPrediction]) -> tuple[MistakeRow, ...]:
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
        for p in rows[:HARDEST]
    )
