"""Rows as drift sees them (``know/drift``): what a run's model says of a table, and the run's
reference, which is kept as ``reference.npz`` in its folder."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.core.errors import MachineError, RunError
from holdfast.core.files import write_atomically
from holdfast.core.records import Decision, Floats, Ints
from holdfast.core.run_files import SEAL, check_files
from holdfast.core.seeds import generator
from holdfast.data.tag_scheme import OUTSIDE
from holdfast.know.drift.facts import facts_of
from holdfast.know.drift.held import of_arrays, to_arrays, unit
from holdfast.know.drift.rows import Reference, Rows
from holdfast.know.drift.words import hashed_words, rows_with
from holdfast.know.texts import read_texts
from holdfast.pipeline.again import Again
from holdfast.pipeline.row_vectors import row_vectors
from holdfast.pipeline.rows import Notify

if TYPE_CHECKING:
    from holdfast.data.table import Table
    from holdfast.pipeline.predictor import Predictor
    from holdfast.pipeline.using import Answers

REFERENCE = "reference.npz"
# Validation rows that are kept; of a model that writes, whose answers take longest.
MOST, MOST_WRITTEN = 1000, 100
# What vectors are: of the run's own model, or of hashed words, for which no model is asked.
MODEL, WORDS = "model", "words"
WRITE = ("seq2seq", "causal-lm")


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A run's reference, and what its vectors are (``MODEL`` or ``WORDS``)."""

    reference: Reference
    vectors_by: str


def held_reference(again: Again, notify: Notify) -> Held:
    """The run's reference: from its file, or made now of its validation rows and kept there.

    Raises ``RunError`` where neither the file nor the rows are there.
    """
    path = again.run / REFERENCE
    if path.is_file():
        return read_reference(again.run, again.result)
    if not again.has("valid"):
        raise _nothing(path, "a version of Holdfast made it that kept no answers to such rows")
    try:
        made = make_reference(again, notify)
    except RunError as error:
        raise _nothing(path, str(error).split("\n")[0]) from error
    because = f"of {len(made.reference)} validation rows, read again from the source of {again.run}"
    try:
        write_reference(again.run, made, mark_of(again.result))
    except (OSError, MachineError) as error:
        because += f"; it is not kept, since {REFERENCE} cannot be written: {error}"
    notify(Decision("reference", f"{len(made.reference)} rows", because))
    return made


def read_reference(run: Path, result: dict[str, Any]) -> Held:
    """The reference in the run's folder. Raises ``RunError`` where it is damaged, or of a model
    that is not there any more."""
    path = run / REFERENCE
    if REFERENCE in ((result.get(SEAL) or {}).get("files") or {}):
        check_files(run, result, [REFERENCE])
    remedy = f"Delete it: it is made again where the rows that {run} was made of are there."
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            reference, by, mark = of_arrays({name: arrays[name] for name in arrays.files})
    except (OSError, ValueError, zipfile.BadZipFile, KeyError, EOFError) as error:
        raise RunError(str(path), "cannot be read", str(error)[:200], remedy) from error
    if mark != mark_of(result):
        raise RunError(str(path), "is of another run", None, remedy)
    return Held(reference, by)


def write_reference(run: Path, held: Held, mark: str) -> None:
    stream = io.BytesIO()
    arrays: dict[str, Any] = dict(to_arrays(held.reference, held.vectors_by, mark))
    np.savez_compressed(stream, **arrays)
    made = stream.getvalue()
    write_atomically(run / REFERENCE, lambda beside: _write(beside, made))


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def mark_of(result: dict[str, Any]) -> str:
    """What tells the model of a run from others: its weights' sums, the seal's first."""
    files = (result.get(SEAL) or {}).get("files") or {}
    sums = sorted(f"{k} {v['sha256']}" for k, v in files.items() if k.startswith("model/"))
    return hashlib.sha256("\n".join(sums).encode()).hexdigest()[:16] if sums else "unsealed"


def make_reference(again: Again, notify: Notify) -> Held:
    """Of at most ``MOST`` validation rows, a fixed sample, read again from the run's source."""
    told = again.told("valid")
    task, seed = str(again.result["task"]), int(again.result.get("seed") or 0)
    most = MOST_WRITTEN if task in WRITE else MOST
    if len(told) > most:
        order = generator(seed, "reference of drift").permutation(len(told))
        told = told.take(np.sort(order[:most]))
    predictor, table = again.predictor, told.table
    texts = read_texts(table)
    vectors, by = None, MODEL
    predictions: Sequence[object] | None = told.predictions
    confidence: Sequence[float | None] = [None] * len(told)
    if told.sure is not None:
        confidence = [float(p) if p == p else None for p in told.sure]
    if again.out_of_fold:
        why = "its model learned from every row, and is surer of these than of new ones"
        notify(Decision("vectors of the reference", "of words", why))
    else:
        vectors = row_vectors(predictor, table)
    if vectors is None:
        by, vectors = WORDS, None if texts is None else hashed_words(texts)
    if predictions is None:
        answers = predictor.answer(table)
        predictions, confidence = answers.predictions, answers.confidence
    rows = _rows(task, again.names, texts, predictions, confidence, vectors)
    right = None if told.wrong is None else 1.0 - told.wrong
    words = rows_with(texts or ())
    reference = Reference(rows, _classes(task, again.names, predictions), right, words, len(told))
    return Held(reference, by)


def rows_of_answers(
    held: Held, task: str, table: Table, answers: Answers, predictor: Predictor
) -> Rows:
    """What arrived, as the reference holds its own: texts beside, which the caller may show."""
    texts = read_texts(table)
    vectors = row_vectors(predictor, table) if held.vectors_by == MODEL else None
    if held.vectors_by == WORDS and texts is not None:
        vectors = hashed_words(texts)
    return _rows(
        task, held.reference.classes, texts, answers.predictions, answers.confidence, vectors
    )


def _rows(
    task: str,
    classes: Sequence[str],
    texts: tuple[str, ...] | None,
    predictions: Sequence[object],
    confidence: Sequence[float | None],
    vectors: Floats | None,
) -> Rows:
    known = _classes(task, classes, predictions)
    answers: Ints | None = None
    said: Sequence[object] = predictions
    if known:
        place = {name: at for at, name in enumerate(known)}
        answers = np.array([place.get(str(one), -1) for one in predictions], dtype=np.int64)
        said = ()
    outside = OUTSIDE if task == "token-classification" else None
    numbers = facts_of(texts, said, confidence, outside)
    usable = None if vectors is None else unit(vectors)
    return Rows(len(predictions), usable, answers, numbers, texts)


def _classes(task: str, names: Sequence[str], predictions: Sequence[object]) -> tuple[str, ...]:
    """The classes of answers that are one class each."""
    one_class = task.endswith("-classification") and task != "token-classification"
    first = next((one for one in predictions if one is not None), None)
    return tuple(names) if one_class and isinstance(first, str) else ()


def _nothing(path: Path, why: str) -> RunError:
    return RunError(
        str(path),
        "is missing, and cannot be made: what arrives is held against validation rows",
        why,
        "Put the rows that the run was made of back to where its recipe.yaml says, and ask once "
        "more: the reference is then kept in the run's folder. Or train again.",
    )
