"""The test rows of a finished run once more, each as somebody else might have written it.

This is another pass over the test rows, for a fixed list of changes that is alike for every run, so
that nothing is chosen by what comes out; it is written into ``openings.jsonl``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.analyses.robustness.judge import Pair, judged, same
from holdfast.analyses.robustness.perturbations import (
    PICTURES,
    TEXTS,
    WORD_BY_WORD,
    missing,
    perturbed,
)
from holdfast.analyses.row_texts import given_labels
from holdfast.analyses.slices.badness import ABSOLUTE, ENTITIES, WRONG, badness, sentence_f1
from holdfast.contract.predictions import Predictions
from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Floats, Ints
from holdfast.core.seeds import generator
from holdfast.core.tasks import WRITERS
from holdfast.data.table import Table
from holdfast.runs.finished_run import FinishedRun

if TYPE_CHECKING:
    import numpy.typing as npt


MOST_ROWS = 500
TEXT_PARTS = ("text", "text_pair")
EXAMPLES = 3


def refuse_task(task: str) -> None:
    """Raises ``RecipeError`` for models that write texts."""
    if task in WRITERS:
        raise RecipeError(
            "holdfast errors --robustness",
            "asks whether an answer flips, which is not defined for a model that writes texts",
            task,
            "Leave it out, and compare what it writes with `holdfast evaluate`.",
        )


def robustness(again: FinishedRun) -> dict[str, Any]:
    """``robustness`` of ``errors --json``: what each change costs, on at most 500 of the test rows
    (a fixed sample), and which were not made and why.

    Only rows that a change did change are asked again; the answers before are those that the run
    stored.
    """
    told, seed = again.told("test"), int(again.result.get("seed") or 0)
    n = len(told)
    if n <= MOST_ROWS:
        chosen = np.arange(n)
    else:
        chosen = np.sort(generator(seed, "robustness rows").permutation(n)[:MOST_ROWS])
    told = told.take(chosen)
    names = list(PICTURES if "path" in told.table.rows.column_names else TEXTS)
    opened = again.reopen("errors --robustness", [*names])
    changes, left_out = changes_of(told.table, seed)
    bad = badness(told)
    pairs: dict[str, Pair] = {}
    examples: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
        for name, change in changes.items():
            table, changed = change(Path(folder))
            notify(Decision(name, f"{len(changed)} of {len(told)} rows", "asked again as changed"))
            part = told.take(changed)
            said = again.predictor.answer(table).predictions if len(changed) else ()
            after = _values(part, said, bad.what)
            flipped = _flipped(part, said)
            codes = part.groups
            pairs[name] = Pair(bad.values[changed], after, flipped, codes)
            examples[name] = _examples(part, table, said, flipped)
    found = judged(pairs, seed=seed)
    return {
        "what": bad.what,
        "n": len(told),
        "of": len(opened.table),
        "openings": opened.count,
        "changes": {name: {**found[name], "examples": examples[name]} for name in found},
        "not_made": left_out,
        "false_alarm_rate": {"value": 0.05, "what": "at most, by Holm, for all changes together"},
    }


Made = Callable[[Path], tuple[Table, Ints]]


def changes_of(table: Table, seed: int) -> tuple[dict[str, Made], dict[str, str]]:
    """How each change is made of these rows, and why others are not."""
    columns = table.rows.column_names
    if "path" in columns:
        return {name: _pictured(table, name, seed) for name in PICTURES}, {}
    left_out: dict[str, str] = {}
    made: dict[str, Made] = {}
    for name in TEXTS:
        why = missing(name)
        if "tokens" in columns and name not in WORD_BY_WORD:
            why = "words would move, and with them their tags"
        if why is None:
            made[name] = (
                _tokens(table, name, seed) if "tokens" in columns else _texts(table, name, seed)
            )
        else:
            left_out[name] = why
    return made, left_out


def _texts(table: Table, name: str, seed: int) -> Made:
    def make(_: Path) -> tuple[Table, Ints]:
        rows, rows_of = table.rows, table.column("row")
        parts = [part for part in TEXT_PARTS if part in rows.column_names]
        old = {part: table.column(part) for part in parts}
        new = {
            part: [
                perturbed(name, text, generator(seed, name, part, int(row)))
                for text, row in zip(old[part], rows_of, strict=True)
            ]
            for part in parts
        }
        changed = [k for k in range(len(table)) if any(new[p][k] != old[p][k] for p in parts)]
        return _with(table, {part: new[part] for part in parts}, changed)

    return make


def _tokens(table: Table, name: str, seed: int) -> Made:
    def make(_: Path) -> tuple[Table, Ints]:
        old, rows = table.column("tokens"), table.column("row")
        new = [
            _same_words(name, list(words), generator(seed, name, int(row)))
            for words, row in zip(old, rows, strict=True)
        ]
        changed = [k for k in range(len(table)) if new[k] != list(old[k])]
        return _with(table, {"tokens": new}, changed)

    return make


def _same_words(name: str, words: list[str], rng: np.random.Generator) -> list[str]:
    """The words of a sentence changed in their places, or as they are where that cannot be."""
    new = perturbed(name, " ".join(words), rng).split(" ")
    return new if len(new) == len(words) else words


def _pictured(table: Table, name: str, seed: int) -> Made:
    def make(folder: Path) -> tuple[Table, Ints]:
        paths = []
        for path, row in zip(table.column("path"), table.column("row"), strict=True):
            to = folder / f"{name}-{int(row)}.png"
            _repaint(path, to, name, generator(seed, name, int(row)))
            paths.append(str(to))
        return _with(table, {"path": paths}, list(range(len(table))))

    return make


def _repaint(path: str, to: Path, name: str, rng: np.random.Generator) -> None:
    import torch
    from PIL import Image

    from holdfast.data.images.picture import read_picture

    image = read_picture(path).image.convert("RGB")
    pixels = torch.from_numpy(np.array(image, dtype=np.float32) / 255).permute(2, 0, 1)[None]
    changed = PICTURES[name](pixels, rng)[0].permute(1, 2, 0).numpy()
    Image.fromarray(np.rint(changed * 255).astype(np.uint8)).save(to)


def _with(
    table: Table, columns: Mapping[str, Sequence[object]], changed: Sequence[int]
) -> tuple[Table, Ints]:
    """The changed rows with these columns in the place of theirs."""
    at = np.asarray(changed, dtype=np.int64)
    taken = table.take(at)
    for name, values in columns.items():
        taken = taken.with_column(name, [values[k] for k in at])
    return taken, at


def _values(told: Predictions, said: Sequence[object], what: str) -> Floats:
    """What is bad about other answers to the same rows, as ``badness`` has it."""
    if not len(said):
        return np.zeros(0)
    if what == ABSOLUTE:
        given = np.asarray(told.table.column("value"), dtype=np.float64)
        return np.asarray(np.abs(np.array([float(str(one)) for one in said]) - given))
    if what == ENTITIES:
        return 1.0 - sentence_f1(given_labels(told.table), said)
    assert what == WRONG
    labels: list[Any] = given_labels(told.table)
    answers: list[Any] = list(said)
    if "labels" in told.table.rows.column_names:
        labels, answers = list(map(set, labels)), list(map(set, answers))
    return np.array([one != own for one, own in zip(answers, labels, strict=True)], np.float64)


def _flipped(told: Predictions, said: Sequence[object]) -> Any:
    """Which answers are other ones; of numbers those that moved by more than the model's usual
    (median) error on these rows, since every number moves a little."""
    before = told.predictions or ()
    if told.errors is not None:
        one, other = (np.array([float(str(x)) for x in side]) for side in (before, said))
        usual = float(np.median(np.abs(told.errors))) if len(told) else 0.0
        return np.abs(other - one[: len(other)]) > usual
    pairs = zip(before[: len(said)], said, strict=True)
    return np.array([not same(_plain(one), _plain(other)) for one, other in pairs], dtype=np.bool_)


def _plain(answer: object) -> object:
    return float(answer) if isinstance(answer, (float, np.floating)) else answer


def _examples(
    told: Predictions, table: Table, said: Sequence[object], flipped: npt.NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """Up to three rows whose answer flipped, as they are and as they were changed."""
    columns = table.rows.column_names
    part = next((name for name in ("text", "tokens") if name in columns), None)
    before = told.predictions or ()
    found = []
    for place in np.flatnonzero(flipped)[:EXAMPLES]:
        entry: dict[str, Any] = {
            "row": int(told.rows[place]),
            "answer": before[place],
            "then": said[place],
        }
        if part is not None:
            entry["text"] = told.table.column(part)[place]
            entry["changed"] = table.column(part)[place]
        found.append(entry)
    return found
