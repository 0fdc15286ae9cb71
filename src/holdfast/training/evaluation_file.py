"""``looks.npz``: the row-level results of a run's evaluations, from which it can be judged again.

``events.jsonl`` contains means, but a verdict compares rows. Numbers are restored bit by bit. For a
run that went back, the file contains the evaluations of the branch that was live at its end, on
which its verdict is based.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.core.branches import branch_from
from holdfast.core.errors import RunError
from holdfast.core.files import write_atomically
from holdfast.core.input_errors import raises_defects, reason
from holdfast.core.records import Finding, Snapshot
from holdfast.core.run_facts import LabelNoise, RunFacts
from holdfast.core.run_shapes import BRANCH
from holdfast.core.shapes import (
    Shape,
    any_number,
    boolean,
    count,
    integer,
    list_of,
    mapping_of,
    never,
    number,
    optional,
    pair_of,
    record,
    text,
)

if TYPE_CHECKING:
    import numpy.typing as npt

EVALUATIONS_FILE = "looks.npz"
FORMAT = 1
WITHOUT = "Remove it: Holdfast then uses the verdict that the run stored."
# Logits of very many rows and classes would be larger than the model; the verdict is stored anyway.
MOST_BYTES = 64_000_000
DTYPES = ("float64", "float32", "int64", "int32", "bool")
# ``json`` writes NaN as it is, and a loss or a learning rate may be NaN.
EVALUATION_SHAPES: dict[str, Shape] = {
    **dict.fromkeys(("step", "examples_seen"), list_of(integer)),
    "phase": list_of(text),
    **dict.fromkeys(
        ("epoch", "refined_loss", "temperature", "learning_rate", "seconds"), list_of(any_number)
    ),
    **dict.fromkeys(
        ("gradient_norm", "relative_update", "distance", "general_loss"),
        list_of(optional(any_number)),
    ),
    **dict.fromkeys(("train_metrics", "valid_metrics"), list_of(mapping_of(any_number))),
    **dict.fromkeys(
        (
            "train_correct",
            "valid_correct",
            "valid_logits",
            "general_losses",
            "train_tokens",
            "valid_tokens",
            "general_tokens",
            "train_right",
            "valid_right",
        ),
        list_of(optional(never)),
    ),
    "outputs": list_of(optional(mapping_of(mapping_of(any_number)))),
    "planned_steps": list_of(optional(count)),
    "branch": list_of(BRANCH),
}
RUN_FACTS_SHAPES: dict[str, Shape] = {
    "task": text,
    **dict.fromkeys(
        ("classes", "planned_steps", "planned_looks", "train_rows", "train_tokens", "trainable"),
        optional(count),
    ),
    "peak_rate": optional(number),
    "usual_rates": optional(pair_of(number)),
    "copied_valid": optional(pair_of(count)),
    "probe_curve": list_of(pair_of(number)),
    "refused": list_of(text),
    **dict.fromkeys(
        ("probe_valid_losses", "first_seen", "valid_groups", "train_groups"), optional(never)
    ),
    "findings": list_of(
        record(
            {
                "check": text,
                "severity": text,
                "score": any_number,
                "count": count,
                "rows": list_of(integer),
                "because": text,
                "remedy": text,
                "fixed": boolean,
            },
            ("check", "severity", "rows"),
        )
    ),
    "label_noise": optional(
        record({**dict.fromkeys(("rate", "low", "high", "right", "base"), any_number), "n": count})
    ),
}
HEADER = record(
    {
        "format": integer,
        "holdfast": text,
        "kept": integer,
        "kinds": mapping_of(text),
        "looks": record(EVALUATION_SHAPES, ("step", "epoch", "examples_seen", "phase")),
        "known": record(RUN_FACTS_SHAPES, ("task", "findings")),
    },
    ("format", "holdfast", "kept", "kinds", "looks", "known"),
)


@dataclass(frozen=True, slots=True)
class StoredEvaluations:
    """The arguments of ``monitor.judge.judge``: the snapshots, the run facts and the step of the
    best checkpoint; and the version of Holdfast that wrote them."""

    history: tuple[Snapshot, ...]
    run_facts: RunFacts
    best_step: int
    version: str


def write_evaluations(
    path: Path, history: Sequence[Snapshot], run_facts: RunFacts, best_step: int, version: str
) -> bool:
    """Write them compressed, and read them again as a check. Return ``False``, and leave no file,
    where they exceed 64 MB or cannot be read: the verdict is in ``result.json``."""
    arrays: dict[str, Any] = {}
    plain: dict[str, list[Any]] = {}
    for field in dataclasses.fields(Snapshot):
        values = [getattr(snapshot, field.name) for snapshot in history]
        if all(isinstance(value, np.ndarray) for value in values):
            arrays[f"look_{field.name}"] = np.stack(values)
        else:
            plain[field.name] = [_to_plain(value) for value in values]
    plain_facts = {}
    for field in dataclasses.fields(RunFacts):
        value = getattr(run_facts, field.name)
        if isinstance(value, np.ndarray):
            arrays[f"known_{field.name}"] = value
        else:
            plain_facts[field.name] = _to_plain(value)
    if sum(array.nbytes for array in arrays.values()) > MOST_BYTES:
        path.unlink(missing_ok=True)
        return False
    dtypes = {name: str(array.dtype) for name, array in arrays.items()}
    header = json.dumps(
        {
            "format": FORMAT,
            "holdfast": version,
            "kept": best_step,
            "looks": plain,
            "known": plain_facts,
            "kinds": dtypes,
        }
    )
    stored_arrays = {name: _as_float32(array) for name, array in arrays.items()}

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, told=np.array(header), **stored_arrays)

    write_atomically(path, write)
    try:
        read_evaluations(path)
    except RunError:
        if raises_defects():
            raise
        path.unlink()
        return False
    return True


def read_evaluations(path: Path) -> StoredEvaluations:
    """Read what ``write_evaluations`` wrote. Raises ``RunError`` where the file is broken or of
    another kind."""
    try:
        # Raise ValueError where the file would unpack to more than is ever written: a small file
        # may expand to any number of zeros.
        if not path.is_file():
            raise ValueError("it is not a file")
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > 2 * MOST_BYTES:
            raise ValueError(f"it would unpack to {size:,} bytes")
        # NumPy does not close a file that it opened itself and could not read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            header = json.loads(str(stored["told"]))
            HEADER(header, "")
            if header["format"] != FORMAT:
                raise ValueError(f"format {header['format']} is unknown")
            arrays = {name: _array(stored[name], dtype) for name, dtype in header["kinds"].items()}
        return _stored_evaluations(header, arrays)
    except Exception as error:
        # Anyone may have changed the file: whatever fails, the remedy is the same.
        raise RunError(
            str(path), f"cannot be read as a run's evaluations ({reason(error)})", None, WITHOUT
        ) from error


def _array(array: npt.NDArray[np.generic], dtype: str) -> Any:
    """Numbers or booleans of a type that is written; nothing that Python would have to build from
    bytes."""
    if dtype not in DTYPES or array.dtype.kind not in "fiub":
        raise ValueError(f"an array of {array.dtype} does not belong to a run's evaluations")
    return array.astype(dtype)


def _stored_evaluations(
    header: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[np.generic]]
) -> StoredEvaluations:
    count = len(header["looks"]["step"])
    row_fields = {name[5:]: array for name, array in arrays.items() if name.startswith("look_")}
    fields = dict(header["looks"])
    if "branch" in fields:
        fields["branch"] = [branch_from(one) for one in fields["branch"]]
    history = tuple(
        Snapshot(
            **{name: values[i] for name, values in fields.items()},
            **{name: array[i] for name, array in row_fields.items()},
        )
        for i in range(count)
    )
    row_facts: dict[str, Any] = {
        name[6:]: array for name, array in arrays.items() if name.startswith("known_")
    }
    facts = {name: _to_tuples(value) for name, value in header["known"].items()}
    facts["findings"] = tuple(
        Finding(**{**one, "rows": tuple(one["rows"])}) for one in header["known"]["findings"]
    )
    noise = header["known"].get("label_noise")
    facts["label_noise"] = None if noise is None else LabelNoise(**noise)
    _check_history(history)
    _check_row_facts(row_facts, history)
    return StoredEvaluations(
        history, RunFacts(**facts, **row_facts), header["kept"], header["holdfast"]
    )


def _check_history(history: Sequence[Snapshot]) -> None:
    """Raise ``ValueError`` where the evaluations are not of the same rows."""
    if not history:
        raise ValueError("no evaluations")
    for split in ("train", "valid"):
        rows = {len(getattr(snapshot, f"{split}_losses")) for snapshot in history}
        per_row = (f"{split}_correct", f"{split}_tokens", f"{split}_right")
        shapes = {np.shape(getattr(s, name)) for s in history for name in per_row} - {()}
        flat = all(getattr(snapshot, f"{split}_losses").ndim == 1 for snapshot in history)
        if not flat or len(rows) != 1 or any(shape != (*rows,) for shape in shapes):
            raise ValueError(f"the {split} rows of its evaluations differ")
    logits = {s.valid_logits.shape for s in history if s.valid_logits is not None}
    if any(shape[0] != len(history[0].valid_losses) or 0 in shape[1:] for shape in logits):
        raise ValueError("its logits are of other rows")


def _check_row_facts(
    row_facts: Mapping[str, npt.NDArray[np.generic]], history: Sequence[Snapshot]
) -> None:
    """Raise ``ValueError`` where facts about single rows are of other rows."""
    sizes = {
        "probe_valid_losses": len(history[0].valid_losses),
        "first_seen": len(history[0].train_losses),
        "valid_groups": len(history[0].valid_losses),
        "train_groups": len(history[0].train_losses),
    }
    for name, size in sizes.items():
        if row_facts.get(name) is not None and row_facts[name].shape != (size,):
            raise ValueError(f"{name} is of other rows")


def _as_float32(array: npt.NDArray[np.generic]) -> Any:
    """The same numbers as float32, where they came from float32."""
    if array.dtype == np.float64:
        with np.errstate(over="ignore"):
            short = array.astype(np.float32)
        if np.array_equal(short.astype(np.float64), array, equal_nan=True):
            return short
    return array


def _to_plain(value: object) -> Any:
    """JSON's types, with NaN as it is, which the standard library reads back."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [_to_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _to_tuples(value: object) -> Any:
    return tuple(_to_tuples(item) for item in value) if isinstance(value, list) else value
