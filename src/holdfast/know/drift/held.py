"""A reference as a file of arrays, so that a server needs nothing but the run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.know.drift.rows import Reference, Rows

FORMAT = 1
_NUMBER = "number:"


def to_arrays(reference: Reference, vectors_by: str, mark: str) -> dict[str, npt.NDArray[Any]]:
    """Its arrays by name. ``vectors_by`` says what the vectors are, ``mark`` of which run. Vectors
    are float16 of unit length; no text is among them, and words only where three rows hold them."""
    rows = reference.rows
    facts = {
        "format": FORMAT,
        "vectors_by": vectors_by,
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
    if rows.answers is not None:
        made["answers"] = rows.answers.astype(np.int64)
    if reference.right is not None:
        made["right"] = reference.right.astype(np.float32)
    return {**made, **{_NUMBER + name: x.astype(np.float64) for name, x in rows.numbers.items()}}


def of_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> tuple[Reference, str, str]:
    """The reference, what its vectors are, and of which run. Raises ``ValueError`` for arrays of
    another form."""
    try:
        facts = json.loads(bytes(arrays["facts"]).decode())
        if facts["format"] != FORMAT:
            raise ValueError(f"format {facts['format']}")
        vectors = arrays.get("vectors")
        rows = Rows(
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
        return reference, str(facts["vectors_by"]), str(facts["mark"])
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error


def unit(vectors: Any) -> npt.NDArray[np.float64]:
    """Vectors [n, d] of length 1: a run in memory and its saved folder give the same up to a
    factor. One that is 0 or not finite stays as it is."""
    given = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(given, axis=1, keepdims=True)
    return np.asarray(given / np.where(lengths > 0, lengths, 1.0))
