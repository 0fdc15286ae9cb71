"""``result.json`` and ``events.jsonl`` of a run folder, written and read with one schema
(``run_shapes.py``); and the seal: checksums of the run's files when it ended.

Output is checked against the schema before it is written, and read again before a run counts as
finished. A detail that the schema refuses is a defect of Holdfast: it is left out and named, since
the model is worth more. So readers accept every finished run.

``result.json`` has ``seal``: ``files`` holds the SHA-256 and the size of every file in ``model/``
and of the run's own (``recipe.yaml``, ``events.jsonl``, the tables), ``base`` those of the folder
of an adapter's base model, and ``result`` the SHA-256 of ``result.json`` without the seal. A
command compares a file before it uses it. ``report.html`` and the model card are not sealed: the
first is only displayed, the second may be edited.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from holdfast.core.errors import Defect, RunError
from holdfast.core.files import json_digest, write_json
from holdfast.core.input_errors import REPORT_IT, raises_defects, reading_errors
from holdfast.core.records import Decision, to_json
from holdfast.core.run_shapes import EVENT_SHAPES, RESULT_SHAPE, SEAL
from holdfast.core.shapes import (
    Shape,
    ShapeError,
    anything,
    check_size,
    parse_object,
    text,
    without_misshapen,
)

RESULT_FILE, EVENTS_FILE, MODEL_FOLDER = "result.json", "events.jsonl", "model"
MODEL_CARD = "README.md"
# What a cross-validated run knows of each row out of fold.
FOLDS_FILE = "folds.parquet"
SEALED_FILES = (
    "recipe.yaml",
    "search.yaml",
    FOLDS_FILE,
    EVENTS_FILE,
    "splits.parquet",
    "predictions.parquet",
    "examples.parquet",
    "answers.parquet",
    "looks.npz",
    # The layer over side columns, where a run has one.
    "features/features.json",
    "features/features.safetensors",
)
# What the loaders of Transformers and PEFT may open beside the files that they are told of. Others
# (a licence, a picture) may lie in ``model/`` as its owner likes.
LOADABLE_SUFFIXES = frozenset(
    {
        ".json",
        ".jinja",
        ".safetensors",
        ".bin",
        ".txt",
        ".model",
        ".spm",
        ".py",
        ".vocab",
        ".bpe",
        ".tiktoken",
        ".pt",
        ".pth",
        ".h5",
        ".msgpack",
    }
)
UNFINISHED_REMEDY = "Give the folder of a finished run; `holdfast train … --resume` finishes one."
RESTORE_REMEDY = "Restore it from a copy, or train again from recipe.yaml into another folder."
ON_PURPOSE = (
    ' If it was changed on purpose, remove "seal" from result.json: Holdfast then checks nothing, '
    "and says so."
)

BASE_MODEL_REMEDY = (
    "An adapter is correct only with the weights that it was trained on: restore them, or train "
    "with model.adapter.merge=true."
)


def read_result(run: Path) -> dict[str, Any]:
    """``result.json``, with the types of all fields that Holdfast reads checked, and its seal if it
    has one. Raises ``RunError`` if it is missing, broken or was changed."""
    path = run / RESULT_FILE
    result = _read_json(path)
    if result.get("schema") != 1:
        rule = "has a schema that this version cannot read"
        remedy = "Make the report with the version of Holdfast that made the run."
        raise RunError(str(path), rule, result.get("schema"), remedy)
    with _run_file_errors(str(path), "does not hold a run's result: "):
        RESULT_SHAPE(result, "")
    seal = result.get(SEAL)
    if seal is not None and seal["result"] != result_digest(result):
        raise RunError(
            str(path), "was changed since the run ended", None, RESTORE_REMEDY + ON_PURPOSE
        )
    return result


def write_result(
    run: Path,
    result: Mapping[str, object],
    model: Mapping[str, object] | None = None,
    base: Mapping[str, object] | None = None,
) -> tuple[Decision, ...]:
    """Write ``result.json`` and read it again. With the checksums of its ``model`` (and of the
    ``base`` of an adapter) it is sealed; a sealed result is sealed again.

    Returns a decision for each detail that was left out; the result holds them too. Raises
    ``RunError`` if the written file cannot be read.
    """
    written, defects = _plain_json(result)
    accepted, left_out = drop_defects(_within_size(written, defects), RESULT_SHAPE)
    decisions = tuple(
        Decision(RESULT_FILE, "a detail left out", f"{REPORT_IT}: {defect}", prominent=True)
        for defect in (*defects, *left_out)
    )
    if decisions:
        accepted["decisions"] = [*(accepted.get("decisions") or ()), *to_json(decisions)]
    written = reseal_result(accepted) if model is None else seal_result(run, accepted, model, base)
    write_json(run / RESULT_FILE, written)
    read_result(run)
    return decisions


def drop_defects(value: object, shape: Shape) -> tuple[Any, tuple[str, ...]]:
    """``value`` (plain JSON) as ``shape`` accepts it, and a sentence about each detail that was
    removed. Raises ``Defect`` if the value itself is wrong, or if defects are to be raised."""
    try:
        accepted, left_out = without_misshapen(shape, value)
    except ShapeError as error:
        raise Defect("what a run writes", str(error)) from error
    if left_out and raises_defects():
        raise Defect("what a run writes", "; ".join(left_out))
    return accepted, left_out


def _plain_json(result: Mapping[str, object]) -> tuple[dict[str, Any], list[str]]:
    """The result as it will be read; values without a JSON form become null, with a sentence for
    each."""
    defects: list[str] = []

    def drop_formless(value: object) -> None:
        if raises_defects():
            raise Defect(
                RESULT_FILE, "holds a value that JSON has no form for", type(value).__name__
            )
        defects.append(f"a value of type {type(value).__name__} has no form in JSON")

    plain: dict[str, Any] = json.loads(json.dumps(to_json(dict(result)), default=drop_formless))
    return plain, defects


def _within_size(result: dict[str, object], defects: list[str]) -> dict[str, Any]:
    """The result within the size limits of the reader: the largest table is set to null until it
    fits, and ``defects`` records each."""
    while True:
        try:
            check_size(result)
        except ValueError as error:
            if raises_defects():
                raise Defect(RESULT_FILE, str(error)) from error
            largest: Any = result
            path: list[str] = []
            while isinstance(largest, dict) and largest:
                path.append(max(largest, key=lambda name: len(json.dumps(largest[name]))))
                parent, largest = largest, largest[path[-1]]
            parent[path[-1]] = None
            defects.append(f"it {error}, so {'.'.join(path)} is null")
        else:
            return result


def read_events(path: Path, partial_end: bool = False) -> list[dict[str, Any]]:
    """The lines of ``events.jsonl``, with the types of all fields that Holdfast reads checked.

    ``partial_end`` skips a last line that is cut off, as in a run that was killed or is being
    written. Raises ``RunError``, which names the line.
    """
    with reading_errors(str(path), RunError, remedy=UNFINISHED_REMEDY):
        raw = _read_bytes(path)
    lines, events = raw.split(b"\n"), []
    for line_number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        source = f"{path}, line {line_number}"
        try:
            with _run_file_errors(source):
                event = parse_object(line.decode())
        # Only the last line can be half written; one that is broken before it was changed.
        except RunError:
            if partial_end and line_number == len(lines):
                break
            raise
        with _run_file_errors(source, "is no event of a run: "):
            text(event.get("event"), "event")
            EVENT_SHAPES.get(event["event"], anything)(event, "")
        events.append(event)
    return events


def _read_json(path: Path) -> dict[str, Any]:
    with _run_file_errors(str(path)):
        return parse_object(_read_bytes(path).decode())


@contextlib.contextmanager
def _run_file_errors(source: str, rule: str = "") -> Iterator[None]:
    """``reading_errors``, with the messages of shapes unchanged."""
    with reading_errors(source, RunError, remedy=RESTORE_REMEDY):
        try:
            yield
        except UnicodeDecodeError:
            rule = "cannot be read: it is not UTF-8"
            raise RunError(source, rule, None, RESTORE_REMEDY) from None
        except ValueError as error:
            raise RunError(source, f"{rule}{error}", None, RESTORE_REMEDY) from error


def _read_bytes(path: Path) -> bytes:
    """The content of a regular file; nothing that could block or never end is opened."""
    if not path.exists() and not path.is_symlink():
        raise RunError(str(path), "is missing", None, UNFINISHED_REMEDY)
    if path.exists() and not path.is_file():
        raise RunError(str(path), "is not a file", None, UNFINISHED_REMEDY)
    return path.read_bytes()


def result_digest(result: Mapping[str, object]) -> str:
    """The SHA-256 of ``result.json`` without its seal."""
    # Of the values, not of the bytes: fields that an editor put in another order say the same.
    return json_digest({name: value for name, value in result.items() if name != SEAL})


def file_digest(path: Path) -> dict[str, Any]:
    """The SHA-256 and the size of a file, in one pass."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"sha256": digest, "bytes": file.tell()}


def model_files(run: Path) -> list[str]:
    """The files in ``model/`` as names relative to the run, except the model card and hidden files,
    sorted by name."""
    folder = run / MODEL_FOLDER
    inside = sorted(path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    names = [path.relative_to(folder) for path in inside]
    shown = [
        n for n in names if str(n) != MODEL_CARD and not any(p.startswith(".") for p in n.parts)
    ]
    return [f"{MODEL_FOLDER}/{name.as_posix()}" for name in shown]


def seal_model(run: Path) -> dict[str, dict[str, Any]]:
    """The checksums of the model's files."""
    return {name: file_digest(run / name) for name in model_files(run)}


def seal_folder(folder: Path | None) -> dict[str, dict[str, Any]] | None:
    """The checksums of the files that a loader reads from a model's folder; ``None`` without
    one."""
    return (
        None
        if folder is None
        else {path.name: file_digest(path) for path in _loadable_files(folder)}
    )


def _loadable_files(base: Path) -> list[Path]:
    entries = sorted(base.iterdir())
    return [path for path in entries if path.is_file() and path.suffix.lower() in LOADABLE_SUFFIXES]


def seal_result(
    run: Path,
    result: Mapping[str, object],
    model: Mapping[str, object],
    base: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """``result`` (plain JSON) with its seal: the checksums of the ``model`` and of its ``base``,
    and of the other files as they are now."""
    others = {name: file_digest(run / name) for name in SEALED_FILES if (run / name).is_file()}
    seal = {"files": {**model, **others}, "base": base, "result": result_digest(result)}
    return {**result, SEAL: seal}


def reseal_result(result: Mapping[str, Any]) -> dict[str, Any]:
    """``result`` (plain JSON) after something was added: its own checksum is computed again."""
    seal = result.get(SEAL)
    return dict(result) if not seal else {**result, SEAL: {**seal, "result": result_digest(result)}}


def check_files(
    run: Path, result: Mapping[str, Any], names: Iterable[str], remedy: str = RESTORE_REMEDY
) -> None:
    """Raise ``RunError`` for the first of these files that has changed since the run ended. Nothing
    is raised if the run has no seal, or if a file is neither in the seal nor on disk."""
    files = (result.get(SEAL) or {}).get("files")
    if files is None:
        return
    for name in names:
        path = run / name
        if name not in files:
            if path.exists():
                rule = "was not there when the run ended"
                raise RunError(str(path), rule, None, _restore_remedy(remedy))
            continue
        _check_file(path, files[name], remedy=remedy)


def check_model(run: Path, result: Mapping[str, Any]) -> None:
    """Raise ``RunError`` unless every file in ``model/`` that a loader may read is unchanged since
    the run ended: none missing, changed or added."""
    files = (result.get(SEAL) or {}).get("files")
    if files is None:
        return
    known = [name for name in files if name.startswith(f"{MODEL_FOLDER}/")]
    for name in known:
        _check_file(run / name, files[name])
    for name in model_files(run):
        if name not in files and Path(name).suffix.lower() in LOADABLE_SUFFIXES:
            rule = "was not there when the run ended, and a loader may read it"
            raise RunError(str(run / name), rule, None, "Move it out of the model's folder.")


def check_base(base: Path, result: Mapping[str, Any]) -> None:
    """Raise ``RunError`` unless the folder of the pretrained model is the one that the run's
    adapter was trained on."""
    digests = (result.get(SEAL) or {}).get("base") or {}
    check_folder(base, digests, "since the adapter was trained on it", BASE_MODEL_REMEDY)


def check_folder(
    folder: Path, digests: Mapping[str, Mapping[str, object]], since: str, remedy: str
) -> None:
    """Raise ``RunError`` unless these files of a folder are unchanged."""
    for name, mark in digests.items():
        _check_file(folder / name, mark, since, remedy)


def is_sealed(result: Mapping[str, object]) -> bool:
    """Whether the run holds checksums of its files; runs of older versions do not."""
    return bool(result.get(SEAL))


def _check_file(
    path: Path,
    expected: Mapping[str, object],
    since: str = "since the run ended",
    remedy: str = RESTORE_REMEDY,
) -> None:
    with reading_errors(str(path), RunError, remedy=remedy):
        if not path.exists() and not path.is_symlink():
            raise RunError(str(path), "is missing", None, remedy)
        # The size first: most changes of a file of gigabytes show without reading it.
        size = path.stat().st_size
        actual = file_digest(path) if size == expected["bytes"] else {"bytes": size}
    if actual != {"sha256": expected["sha256"], "bytes": expected["bytes"]}:
        difference = "its SHA-256" if actual["bytes"] == expected["bytes"] else "its size"
        rule = f"was changed {since}: {difference} differs"
        raise RunError(str(path), rule, None, _restore_remedy(remedy))


def _restore_remedy(remedy: str) -> str:
    """The remedy for a changed file. If the run's seal shows the change, it also says what to do
    about an intended one."""
    return remedy + ON_PURPOSE if remedy == RESTORE_REMEDY else remedy
