"""The section "Generated text": reference, output and output of the base model for each row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.core.metric_names import metric_name
from holdfast.core.printable import shorten
from holdfast.core.records import Estimate
from holdfast.report.document import Cell
from holdfast.report.numbers import count, plural
from holdfast.report.run_files import Block, RunFiles
from holdfast.report.view.score import cell

COLUMNS = {
    "test": "Test rows",
    "test_untuned": "Test rows, base model",
    "test_constant": "Test rows, most frequent answer",
    "train": "Training rows",
    "train_untuned": "Training rows, base model",
}
SOURCE_LIMIT = 900


@dataclass(frozen=True, slots=True)
class GeneratedText:
    """One row: its input, its reference, and the outputs of the two models."""

    row: str
    source: str
    reference: str
    generated: str
    untuned: str | None
    same: bool


@dataclass(frozen=True, slots=True)
class GenerationsView:
    """The section. ``scores`` and ``counts`` are tables with one column for each split and model; a
    line of ``counts`` is what is counted, then a number for each column."""

    sentence: str
    score_columns: tuple[str, ...]
    scores: tuple[tuple[str, tuple[Cell, ...]], ...]
    count_columns: tuple[str, ...]
    counts: tuple[tuple[str, tuple[str, ...]], ...]
    splits: tuple[tuple[str, tuple[GeneratedText, ...]], ...]


def generations(run: RunFiles) -> GenerationsView | None:
    """From ``generations`` of result.json; ``None`` where no text was generated."""
    raw = run.part("generations")
    sides = (("Test rows", _texts(raw, "test")), ("Training rows", _texts(raw, "train")))
    if not any(texts for _, texts in sides):
        return None
    scores_of_set, tallies, meaning = raw.table("scores"), raw.table("counts"), raw.block("meaning")
    scores = {key: scores_of_set[key] for key in COLUMNS if key in scores_of_set}
    counts = {key: tallies[key] for key in COLUMNS if key in tallies}
    unknown = Estimate(None, why="not recorded")
    return GenerationsView(
        sentence=_sentence(raw.block("settings").get("beams"), counts),
        score_columns=tuple(COLUMNS[key] for key in scores),
        scores=tuple(
            (
                metric_name(name),
                tuple(
                    cell(one.estimate(name) if name in one else unknown, name)
                    for one in scores.values()
                ),
            )
            for name in dict.fromkeys(name for one in scores.values() for name in one)
        ),
        count_columns=tuple(f"{COLUMNS[key]} ({count(n.get('n'))})" for key, n in counts.items()),
        counts=tuple(
            (
                meaning.text(name, name.replace("_", " ")),
                tuple(count(one.get(name)) for one in counts.values()),
            )
            for name in dict.fromkeys(name for one in counts.values() for name in one)
            if name != "n"
        ),
        splits=tuple(split_texts for split_texts in sides if split_texts[1]),
    )


def _texts(block: Block, split: str) -> tuple[GeneratedText, ...]:
    return tuple(
        GeneratedText(
            row=str(raw.get("row", "–")),
            source=shorten(raw.text("source"), SOURCE_LIMIT),
            reference=raw.text("reference"),
            generated=raw.text("generated"),
            untuned=None if raw.get("untuned") is None else str(raw["untuned"]),
            same=str(raw.get("reference")).split() == str(raw.get("generated")).split(),
        )
        for raw in block.blocks(split)
    )


def _sentence(beams: object, counts: Mapping[str, Block]) -> str:
    how = "greedy decoding" if beams in (1, None) else f"beam search with {count(beams)} beams"
    rows = " and ".join(
        plural(counts[split].get("n", 0), f"{name} row")
        for split, name in (("test", "test"), ("train", "training"))
        if split in counts
    )
    base = (
        ""
        if "train_untuned" in counts or "test_untuned" not in counts
        else "; the base model generated texts only for the test rows"
    )
    return f"Texts were generated with {how} for a fixed sample of {rows}{base}."
