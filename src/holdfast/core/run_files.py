"""``result.json`` and ``events.jsonl`` of a run folder, written and read by one schema
(``run_shapes.py``); and the seal: which bytes the files of a run had when it ended.

What is written is held against the schema first, and read again before a run counts as finished. A
detail that the schema refuses is a defect of Holdfast: it is left out and named, since the model
beside it is worth more. So no run that came to its end is one that its readers refuse.

``result.json`` has ``seal``: ``files`` holds the SHA-256 and the size of every file in ``model/``
and of the run's own (``recipe.yaml``, ``events.jsonl``, the tables), ``base`` those of the folder
whose model an adapter is put on, where there is one, and ``result`` the SHA-256 of ``result.json``
itself without it. A command that uses a file first compares it. ``report.html`` and the model card
are not sealed: the first is only looked at, the second is there to be edited.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from holdfast.core.errors import Defect, RunError
from holdfast.core.files import write_json
from holdfast.core.input_errors import REPORT_IT, door, raises_defects
from holdfast.core.records import Decision, to_json
from holdfast.core.run_shapes import EVENT_SHAPES, RESULT_SHAPE, SEAL
from holdfast.core.shapes import (
    Misshapen,
    Shape,
    anything,
    check_size,
    parse_object,
    text,
    well_shaped,
)

RESULT, EVENTS, MODEL = "result.json", "events.jsonl", "model"
CARD = "README.md"
# What a cross-validated run knows of each row out of fold.
FOLDS = "folds.parquet"
SEALED = (
    "recipe.yaml",
    "search.yaml",
    FOLDS,
    EVENTS,
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
LOADED = frozenset(
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
REPEAT = "Give the folder of a finished run; `holdfast train … --resume` finishes one."
RESTORE = "Restore it from a copy, or train again from recipe.yaml into another folder."
ON_PURPOSE = (
    ' If it was changed on purpose, take "seal" out of result.json: nothing is checked then, and '
    "that is said."
)

BASE = (
    "An adapter answers rightly on the very weights that it was trained on: restore them, or merge "
    "it when training (model.adapter.merge=true)."
)


def read_result(run: Path) -> dict[str, Any]:
    """``result.json``, with the type of every field that Holdfast reads checked, and its own seal
    where it has one. Raises ``RunError`` where it is missing, broken or was changed."""
    path = run / RESULT
    found = _opened(path)
    if found.get("schema") != 1:
        raise RunError(
            str(path),
            "has a schema that this version cannot read",
            found.get("schema"),
            "Make the report with the version of Holdfast that made the run.",
        )
    with _reading(str(path), RESTORE, "does not hold a run's result: "):
        RESULT_SHAPE(found, "")
    seal = found.get(SEAL)
    if seal is not None and seal["result"] != result_mark(found):
        raise RunError(str(path), "was changed since the run ended", None, RESTORE + ON_PURPOSE)
    return found


def write_result(
    run: Path,
    result: Mapping[str, object],
    model: Mapping[str, object] | None = None,
    base: Mapping[str, object] | None = None,
) -> tuple[Decision, ...]:
    """Write ``result.json`` and read it again; with the marks of its ``model`` (and of the ``base``
    that an adapter is put on) it is sealed, and one that is sealed is sealed again.

    Gives a decision for each detail that had to be left out; they stand in the result too. Raises
    ``RunError`` where what was written cannot be read.
    """
    whole, said = _plain(result)
    kept, refused = without_defects(_fitting(whole, said), RESULT_SHAPE)
    told = tuple(
        Decision(RESULT, "a detail left out", f"{REPORT_IT}: {what}", prominent=True)
        for what in (*said, *refused)
    )
    if told:
        kept["decisions"] = [*(kept.get("decisions") or ()), *to_json(told)]
    whole = sealed_again(kept) if model is None else sealed(run, kept, model, base)
    write_json(run / RESULT, whole)
    read_result(run)
    return told


def without_defects(value: object, shape: Shape) -> tuple[Any, tuple[str, ...]]:
    """``value`` (plain JSON) as ``shape`` takes it, and a sentence about each detail that had to
    go. Raises ``Defect`` where the value itself is at fault, or defects are to be raised."""
    try:
        kept, refused = well_shaped(shape, value)
    except Misshapen as error:
        raise Defect("what a run writes", str(error)) from error
    if refused and raises_defects():
        raise Defect("what a run writes", "; ".join(refused))
    return kept, refused


def _plain(result: Mapping[str, object]) -> tuple[dict[str, Any], list[str]]:
    """The result as it will be read; null where a value has no form in JSON, and a sentence."""
    said: list[str] = []

    def formless(value: object) -> None:
        if raises_defects():
            raise Defect(RESULT, "holds a value that JSON has no form for", type(value).__name__)
        said.append(f"a value of type {type(value).__name__} has no form in JSON")

    plain: dict[str, Any] = json.loads(json.dumps(to_json(dict(result)), default=formless))
    return plain, said


def _fitting(result: dict[str, object], said: list[str]) -> dict[str, Any]:
    """The result within the limits of what is read: the table that holds most of too many values
    goes, and ``said`` hears it."""
    while True:
        try:
            check_size(result)
        except ValueError as error:
            if raises_defects():
                raise Defect(RESULT, str(error)) from error
            inside: Any = result
            path: list[str] = []
            while isinstance(inside, dict) and inside:
                path.append(max(inside, key=lambda name: len(json.dumps(inside[name]))))
                parent, inside = inside, inside[path[-1]]
            parent[path[-1]] = None
            said.append(f"it {error}, so {'.'.join(path)} is null")
        else:
            return result


def read_events(path: Path, torn: bool = False) -> list[dict[str, Any]]:
    """The lines of ``events.jsonl``, with the types of what Holdfast reads checked.

    ``torn`` passes over a last line that is cut off, as a run leaves it that is killed or writes
    just now. Raises ``RunError``, which names the line.
    """
    with door(str(path), RunError, remedy=REPEAT):
        raw = _bytes(path)
    lines, found = raw.split(b"\n"), []
    for place, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        what = f"{path}, line {place}"
        try:
            with _reading(what, RESTORE):
                event = parse_object(line.decode())
        # Only the last line can be half written; one that is broken before it was changed.
        except RunError:
            if torn and place == len(lines):
                break
            raise
        with _reading(what, RESTORE, "is no event of a run: "):
            text(event.get("event"), "event")
            EVENT_SHAPES.get(event["event"], anything)(event, "")
        found.append(event)
    return found


def _opened(path: Path) -> dict[str, Any]:
    with _reading(str(path), RESTORE):
        return parse_object(_bytes(path).decode())


@contextlib.contextmanager
def _reading(what: str, remedy: str, rule: str = "") -> Iterator[None]:
    """``door``, with the sentences of shapes as they are."""
    with door(what, RunError, remedy=remedy):
        try:
            yield
        except UnicodeDecodeError:
            raise RunError(what, "cannot be read: it is not UTF-8", None, remedy) from None
        except ValueError as error:
            raise RunError(what, f"{rule}{error}", None, remedy) from error


def _bytes(path: Path) -> bytes:
    """What is in a file; nothing that could block or never end is opened."""
    if not path.exists() and not path.is_symlink():
        raise RunError(str(path), "is missing", None, REPEAT)
    if path.exists() and not path.is_file():
        raise RunError(str(path), "is not a file", None, REPEAT)
    return path.read_bytes()


def result_mark(result: Mapping[str, object]) -> str:
    """The SHA-256 of what ``result.json`` says beside its seal."""
    plain = {name: value for name, value in result.items() if name != SEAL}
    # Of the values, not of the bytes: fields that an editor put in another order say the same.
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def file_mark(path: Path) -> dict[str, Any]:
    """The SHA-256 and the size of a file, in one pass."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"sha256": digest, "bytes": file.tell()}


def model_files(run: Path) -> list[str]:
    """The files in ``model/`` as names relative to the run, but for the card and for hidden ones,
    in the order of their names."""
    folder = run / MODEL
    inside = sorted(path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    names = [path.relative_to(folder) for path in inside]
    shown = [n for n in names if str(n) != CARD and not any(p.startswith(".") for p in n.parts)]
    return [f"{MODEL}/{name.as_posix()}" for name in shown]


def seal_model(run: Path) -> dict[str, dict[str, Any]]:
    """The marks of the model's files."""
    return {name: file_mark(run / name) for name in model_files(run)}


def seal_folder(folder: Path | None) -> dict[str, dict[str, Any]] | None:
    """The marks of what a loader reads of a model's folder; ``None`` without one."""
    return None if folder is None else {path.name: file_mark(path) for path in _loaded(folder)}


def _loaded(base: Path) -> list[Path]:
    inside = sorted(base.iterdir())
    return [path for path in inside if path.is_file() and path.suffix.lower() in LOADED]


def sealed(
    run: Path,
    result: Mapping[str, object],
    model: Mapping[str, object],
    base: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """``result`` (plain JSON) with its seal: the marks of the ``model`` and of its ``base``, and of
    the other files as they are now."""
    others = {name: file_mark(run / name) for name in SEALED if (run / name).is_file()}
    seal = {"files": {**model, **others}, "base": base, "result": result_mark(result)}
    return {**result, SEAL: seal}


def sealed_again(result: Mapping[str, Any]) -> dict[str, Any]:
    """``result`` (plain JSON) after something was added to it: its own mark is made anew."""
    seal = result.get(SEAL)
    return dict(result) if not seal else {**result, SEAL: {**seal, "result": result_mark(result)}}


def check_files(
    run: Path, result: Mapping[str, Any], names: Iterable[str], remedy: str = RESTORE
) -> None:
    """Raise ``RunError`` for the first of these files that is not as the run left it; nothing where
    the run has no seal, or the seal does not name the file and it is not there."""
    files = (result.get(SEAL) or {}).get("files")
    if files is None:
        return
    for name in names:
        path = run / name
        if name not in files:
            if path.exists():
                rule = "was not there when the run ended"
                raise RunError(str(path), rule, None, _if_on_purpose(remedy))
            continue
        _check_file(path, files[name], remedy=remedy)


def check_model(run: Path, result: Mapping[str, Any]) -> None:
    """Raise ``RunError`` unless every file in ``model/`` that a loader may read is as the run left
    it: none missing, changed or added."""
    files = (result.get(SEAL) or {}).get("files")
    if files is None:
        return
    known = [name for name in files if name.startswith(f"{MODEL}/")]
    for name in known:
        _check_file(run / name, files[name])
    for name in model_files(run):
        if name not in files and Path(name).suffix.lower() in LOADED:
            raise RunError(
                str(run / name),
                "was not there when the run ended, and a loader may read it",
                None,
                "Move it out of the model's folder.",
            )


def check_base(base: Path, result: Mapping[str, Any]) -> None:
    """Raise ``RunError`` unless the folder of the pretrained model is the one that the run's
    adapter was trained on."""
    marks = (result.get(SEAL) or {}).get("base") or {}
    check_folder(base, marks, "since the adapter was trained on it", BASE)


def check_folder(
    folder: Path, marks: Mapping[str, Mapping[str, object]], since: str, remedy: str
) -> None:
    """Raise ``RunError`` unless these files of a folder are as they were."""
    for name, mark in marks.items():
        _check_file(folder / name, mark, since, remedy)


def is_sealed(result: Mapping[str, object]) -> bool:
    """Whether the run says what its files must be; those of older versions do not."""
    return bool(result.get(SEAL))


def _check_file(
    path: Path,
    wanted: Mapping[str, object],
    since: str = "since the run ended",
    remedy: str = RESTORE,
) -> None:
    with door(str(path), RunError, remedy=remedy):
        if not path.exists() and not path.is_symlink():
            raise RunError(str(path), "is missing", None, remedy)
        # The size first: most changes of a file of gigabytes show without reading it.
        size = path.stat().st_size
        found = file_mark(path) if size == wanted["bytes"] else {"bytes": size}
    if found != {"sha256": wanted["sha256"], "bytes": wanted["bytes"]}:
        what = "its SHA-256" if found["bytes"] == wanted["bytes"] else "its size"
        rule = f"was changed {since}: {what} is another"
        raise RunError(str(path), rule, None, _if_on_purpose(remedy))


def _if_on_purpose(remedy: str) -> str:
    """The remedy of a file that somebody may have changed, where the run's seal is what says so."""
    return remedy + ON_PURPOSE if remedy == RESTORE else remedy
