"""``holdfast report RUN --page``: what a finished run stored of its answers, beside the rows that
they are to. No model is asked.

The answers are those of ``predictions.parquet``; a run without test rows has those to its
validation rows (``answers.parquet``). The texts are read again from the source, and where it is
gone or changed only the few that the run itself kept are there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Required, TypedDict

import numpy as np

from holdfast.contract.predictions import Side, rows_of
from holdfast.contract.run_folder import unsealed
from holdfast.core.decisions import notify
from holdfast.core.errors import DataError, MachineError, RunError
from holdfast.core.outputs import checked_output, writing
from holdfast.core.records import Decision, finite
from holdfast.core.tasks import OF_PICTURES, TAGGERS, WRITERS
from holdfast.data.images.picture import thumbnail
from holdfast.report.numbers import moment
from holdfast.report.predictions_page import CHANCES, Recorded, RecordedRow, draw_page
from holdfast.report.public import last_part, public_name
from holdfast.runs.finished_run import FinishedRun
from holdfast.runs.threshold import load_rule

if TYPE_CHECKING:
    import pyarrow as pa

    from holdfast.data.table import Table
    from holdfast.runs.threshold import ThresholdRule

PICTURE_SIDE = 96
HARDEST = "the hardest, since of others the run itself keeps no text"
WRITTEN = "those that it was asked to write to"


class PredictionRow(TypedDict, total=False):
    """One row of the stored answers; which columns there are depends on the task."""

    row: Required[int]
    label: Any
    prediction: Any
    probabilities: list[float | None] | None
    loss: float | None
    error: float | None


class KeptRow(TypedDict, total=False):
    """A row whose texts stand in ``result.json``."""

    row: int
    text: str | None
    source: str
    reference: str
    generated: str
    untuned: str | None
    image: str


def write_page(run: Path, page: Path, *, force: bool = False) -> None:
    """Write the page of a finished ``run`` to the file ``page``; what it holds is told.

    Raises ``RunError`` for what is no finished run, a run that stored no answers, and a file that
    may not be written.
    """
    target = checked_output(page, [run], force=force)
    recorded, decisions = recorded_of(run)
    drawn = draw_page(recorded)
    with writing(target) as stream:
        stream.write(drawn.html.encode())
    because = recorded.which or "all of them fit"
    if drawn.rows < len(recorded.rows):
        because = "drawn evenly by the run's seed, so that the page stays below 2 MB"
    shown = Decision("examples", f"{drawn.rows:,} of {drawn.of:,} {recorded.side} rows", because)
    private = Decision(
        "privacy",
        "the page holds texts of your data",
        "give it only to those who may read them",
        prominent=True,
    )
    notify(*unsealed([run]), *decisions, shown, private)


def recorded_of(run: Path) -> tuple[Recorded, tuple[Decision, ...]]:
    """What the page of a finished run is made of, and what was decided about its rows."""
    again = FinishedRun(run)
    result = again.result
    side = _side(again)
    columns = again.stored(side)
    table, lost = _table(again, side, columns)
    task = str(result.get("task"))
    rule, told = load_rule([run])
    kept = _kept(result)
    lines = columns.to_pylist()
    rows = _rows(again, task, lines, table, kept)
    rows = _left_to_a_person(rows, lines, rule)
    if not rows:
        raise RunError(
            str(run),
            "stored no answer that could be shown",
            None,
            "For a model that writes: train again with --set generate.rows=200."
            if task in WRITERS
            else "Its source is gone: restore it, or train again.",
        )
    files = (result.get("data") or {}).get("files") or [""]
    recorded = Recorded(
        task=task,
        model=public_name(str(result.get("model") or "")),
        source=last_part(str(files[0])),
        side="test" if side == "test" else "validation",
        rows=tuple(rows),
        of=len(lines),
        classes=again.names,
        carried=_carried(result),
        created=moment(str(result.get("created") or "")),
        which=_which(task, len(rows) < len(lines), table is None),
        chosen=table is None and task not in WRITERS,
        writes=task in WRITERS,
        seed=int(result.get("seed") or 0),
        score=_score(result, side),
    )
    return recorded, (*told, *lost)


def _score(result: Mapping[str, Any], side: Side) -> str:
    """The score that the run gives itself, in a sentence: the rows on the page are not all rows
    there are."""
    block = result.get(side) or {}
    found = (block.get("metrics") or {}).get("accuracy") or {}
    if found.get("value") is None or found.get("low") is None:
        return ""
    value, low, high = (f"{100 * found[end]:.1f}" for end in ("value", "low", "high"))
    rows = f"{block['n']:,} {'test' if side == 'test' else 'validation'} rows"
    level = f"{100 * found.get('level', 0.95):.0f}"
    return f"Accuracy {value} % ({level} % CI {low}–{high}, {rows}), if new rows are like these."


def _which(task: str, some: bool, gone: bool) -> str:
    if not some:
        return ""
    return WRITTEN if task in WRITERS else HARDEST if gone else ""


def _side(again: FinishedRun) -> Side:
    if again.has("test") and len(again.stored("test")):
        return "test"
    if again.has("valid") and len(again.stored("valid")):
        return "valid"
    raise RunError(
        str(again.run),
        "stored no answers to test or validation rows",
        None,
        "Train again with test rows, into another folder.",
    )


def _table(
    again: FinishedRun, side: Side, columns: pa.Table
) -> tuple[Table | None, tuple[Decision, ...]]:
    """The rows in the order of their answers; ``None`` where the source is not as it was."""
    try:
        return rows_of(again.table(side), columns["row"].to_numpy()), ()
    except (DataError, RunError, MachineError) as error:
        because = f"the source is not as it was: {error.what} {error.rule}"
        return None, (Decision("texts", "those that the run itself kept", because),)


def _kept(result: Mapping[str, Any]) -> dict[int, KeptRow]:
    """Rows whose texts stand in ``result.json``: the hardest, and those that were written to."""
    hardest = result.get("hardest") or {}
    written = (result.get("generations") or {}).get("test") or ()
    lists = (hardest.get("loss") or (), hardest.get("confidently_wrong") or (), written)
    return {int(one["row"]): one for lines in lists for one in lines if "row" in one}


def _rows(
    again: FinishedRun,
    task: str,
    lines: Sequence[PredictionRow],
    table: Table | None,
    kept: Mapping[int, KeptRow],
) -> list[RecordedRow]:
    texts = _texts(table, task)
    found = []
    for place, line in enumerate(lines):
        known: KeptRow = kept.get(int(line["row"]), {})
        if task in WRITERS:
            said = line.get("prediction")
            said = known.get("generated") if said is None else said
            # Most rows of such a run were scored and never written to.
            if said is None:
                continue
            label = known.get("reference") or line.get("label") or ""
            text = known.get("source") or (texts[place] if texts else None)
        else:
            said, label = line["prediction"], line["label"]
            text = texts[place] if texts else known.get("text")
        if table is None or "tags" not in table.rows.column_names:
            words: tuple[str, ...] = ()
        else:
            words = tuple(map(str, table.column("tokens")[place]))
        picture = _picture(table, place, known)
        if text is None and not words and not picture:
            continue
        found.append(
            RecordedRow(
                row=int(line["row"]),
                text=text or "",
                said=said,
                label=label,
                right=_right(task, line, said, label),
                sure=_sure(task, line),
                chances=_chances(again.names, line),
                loss=finite(line.get("loss")),
                error=finite(line.get("error")),
                start=known.get("untuned"),
                words=words,
                picture=picture,
            )
        )
    return found


def _texts(table: Table | None, task: str) -> list[str] | None:
    if table is None or task in TAGGERS:
        return None
    if task in OF_PICTURES:
        return [last_part(str(path)) for path in table.column("path")]
    texts = [str(text) for text in table.column("text")]
    if "text_pair" not in table.rows.column_names:
        return texts
    pairs = table.column("text_pair")
    return [f"{one}\n\n{other}" for one, other in zip(texts, pairs, strict=True)]


def _picture(table: Table | None, place: int, known: Mapping[str, object]) -> str:
    if table is not None and "path" in table.rows.column_names:
        return thumbnail(str(table.column("path")[place]), PICTURE_SIDE)
    return str(known.get("image") or "")


def _right(task: str, line: PredictionRow, said: object, label: object) -> bool | None:
    # Of a number it is told how far off it is, of a text that there are many right ones.
    if task in WRITERS or "error" in line:
        return None
    return bool(said == label)


def _sure(task: str, line: PredictionRow) -> float | None:
    chances = [p for p in line.get("probabilities") or () if p is not None]
    if not chances:
        return None
    if not isinstance(line["label"], list):
        return float(max(chances))
    # Of a sentence the least sure word; of several classes the least sure yes or no.
    if task in TAGGERS:
        return float(min(chances))
    return float(min(max(p, 1 - p) for p in chances))


def _chances(names: Sequence[str], line: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    chances = line.get("probabilities") or ()
    if len(chances) != len(names) or any(p is None for p in chances):
        return ()
    ranked = sorted(zip(names, chances, strict=True), key=lambda pair: -pair[1])
    return tuple((name, float(p)) for name, p in ranked[:CHANCES])


def _left_to_a_person(
    rows: list[RecordedRow], lines: Sequence[PredictionRow], rule: ThresholdRule | None
) -> list[RecordedRow]:
    if rule is None:
        return rows
    by_row = {int(line["row"]): line.get("probabilities") for line in lines}
    chances = [by_row[one.row] for one in rows]
    matrix = np.array(chances, dtype=np.float64) if all(chances) else None
    _, _, why = rule.apply([one.said for one in rows], [one.sure for one in rows], matrix)
    return [replace(one, left=reason) for one, reason in zip(rows, why, strict=True)]


def _carried(result: Mapping[str, Any]) -> dict[str, list[str]]:
    """The words that the run's own test showed to carry a class."""
    found: dict[str, list[str]] = {}
    for one in (result.get("reasons") or {}).get("words") or ():
        if one.get("confirmed"):
            found.setdefault(str(one["class"]), []).append(str(one["words"]))
    return found
