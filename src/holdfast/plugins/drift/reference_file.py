"""A reference as a file of arrays, so that a server needs nothing but the run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats
from holdfast.plugins.drift.rows import DriftRows, Reference

FORMAT = 1
_NUMBER = "number:"


def to_arrays(reference: Reference, words: Floats | None, mark: str) -> dict[str, npt.NDArray[Any]]:
    """Its arrays by name; ``words`` [n, d] are vectors of words, ``mark`` says of which run it is.
    Vectors are float16; no text is among them, and words only where three rows hold them."""
    rows = reference.rows
    facts = {
        "format": FORMAT,
        "mark": mark,
        "classes": list(reference.classes),
        "words": dict(reference.words),
        "told_of": reference.told_of,
        "what": reference.what,
        "n": len(rows),
    }
    made: dict[str, npt.NDArray[Any]] = {
        "facts": np.frombuffer(json.dumps(facts, sort_keys=True).encode(), np.uint8)
    }
    if rows.vectors is not None:
        made["vectors"] = rows.vectors.astype(np.float16)
    if words is not None:
        made["word vectors"] = words.astype(np.float16)
    if rows.answers is not None:
        made["answers"] = rows.answers.astype(np.int64)
    if reference.right is not None:
        made["right"] = reference.right.astype(np.float32)
    return {**made, **{_NUMBER + name: x.astype(np.float64) for name, x in rows.numbers.items()}}


def of_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> tuple[Reference, Floats | None, str]:
    """The reference, the vectors of its words, and of which run it is. Raises ``ValueError`` for
    arrays of another form."""
    try:
        facts = json.loads(bytes(arrays["facts"]).decode())
        if facts["format"] != FORMAT:
            raise ValueError(f"format {facts['format']}")
        vectors = arrays.get("vectors")
        rows = DriftRows(
            int(facts["n"]),
            None if vectors is None else vectors.astype(np.float64),
            arrays.get("answers"),
            {k[len(_NUMBER) :]: x for k, x in arrays.items() if k.startswith(_NUMBER)},
        )
        right = arrays.get("right")
        reference = Reference(
            rows,
            tuple(facts["classes"]),
            None if right is None else right.astype(np.float64),
            facts["words"],
            int(facts["told_of"]),
            str(facts["what"]),
        )
        words = arrays.get("word vectors")
        return reference, None if words is None else words.astype(np.float64), str(facts["mark"])
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error


def unit(vectors: Any) -> npt.NDArray[np.float64]:
    """Vectors [n, d] of length 1, to the three digits that a reference keeps: what was written
    down and what arrives are then the same where rows are. One that is 0 or not finite stays so."""
    given = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(given, axis=1, keepdims=True)
    return (given / np.where(lengths > 0, lengths, 1.0)).astype(np.float16).astype(np.float64)
