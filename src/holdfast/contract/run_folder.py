"""The run folder: its name, its state, and what may be written into it."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from holdfast.core import run_files
from holdfast.core.discovery import suggest_name
from holdfast.core.errors import MachineError, RunError
from holdfast.core.files import disk_errors, refuse_link
from holdfast.core.input_errors import reading_errors
from holdfast.core.lock import LOCK_FILE as LOCK
from holdfast.core.lock import locked, refuse_locked
from holdfast.core.machine import process_count, rank
from holdfast.core.records import Decision
from holdfast.core.run_files import (
    FOLDS_FILE,
    check_base,
    check_files,
    check_model,
    is_sealed,
    read_result,
)

RESULT = run_files.RESULT_FILE
MODEL = run_files.MODEL_FOLDER
RECIPE = "recipe.yaml"
REPORT = "report.html"
# The note on a validation row in the file of the split, where a cross-fitted run learned from it.
ALSO_TRAINED_NOTE = "a validation row of the split: also used for training, evaluated out of fold"
# The request of a search (folds, trials): next to the checkpoints until the run is finished.
SEARCH = "search.yaml"
# The trials of a search, in Optuna's storage.
STUDY = "study.journal"
CHECKPOINTS = "checkpoints"
RUN_START = "begun.json"
ELSEWHERE = "Choose a folder that you may write to with --out."
# For a default folder's name, in bytes: a name may have 255.
LONGEST_STEM = 200
# Rows from memory that a run stores as ``NAME.parquet``, and the key of ``data`` for the file's
# path. Others (the rows of a gate) are stored next to them.
DATA_KEYS = {"data": "path", "valid": "valid", "test": "test", "unlabelled": "unlabelled"}
# The files and folders of a run; anything else in its folder belongs to the user.
RUN_FILES = (
    RECIPE,
    SEARCH,
    STUDY,
    RESULT,
    REPORT,
    "events.jsonl",
    "predictions.parquet",
    "splits.parquet",
    "examples.parquet",
    FOLDS_FILE,
    "answers.parquet",
    "openings.jsonl",
    "looks.npz",
    "data.parquet",
    "test.parquet",
    "valid.parquet",
    "unlabelled.parquet",
    "gate.parquet",
    "feedback.parquet",
    "threshold.json",
    "careless.csv",
    MODEL,
    CHECKPOINTS,
    "export",
    "features",
    "tracking",
)


def default_folder(source: str, resume: bool, root: Path = Path("runs")) -> Path:
    """``runs/<source>-<n>``: the next free number, or with ``resume`` the newest existing run."""
    stem = re.sub(r"(\.(csv|tsv|jsonl|json|parquet|conll|yaml|yml|gz))+$", "", Path(source).name)
    stem = re.sub(r"[^\w.-]+", "-", stem.split("@")[0]) or "run"
    stem = stem.encode("utf-8", "replace")[:LONGEST_STEM].decode("utf-8", "ignore")
    numbers = [_number(path, stem) for path in root.glob(f"{stem}-*")] if root.is_dir() else []
    last = max([number for number in numbers if number is not None], default=0)
    return root / f"{stem}-{last if resume and last else last + 1}"


@contextlib.contextmanager
def reserve_folder(source: str, out: Path | None, resume: bool) -> Iterator[Path]:
    """Reserve ``out``, or ``default_folder`` as chosen by the first process where a launcher
    started several.

    A default folder is created at once, so that two runs that start together get two folders. It is
    removed where the block fails before anything was written into it.
    """
    created: list[Path] = []
    folder = out
    if out is None and is_main_process():
        folder, created = _create_default_folder(source, resume)
    if out is None and process_count() > 1:
        folder = _broadcast_folder(folder)
    assert folder is not None
    with remove_empty_on_error(created):
        yield folder


def _broadcast_folder(folder: Path | None) -> Path:
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    from holdfast.training.machine.machine import runs_several_cpu_processes

    PartialState(cpu=runs_several_cpu_processes())
    return Path(broadcast_object_list([str(folder or "")])[0])


def _create_default_folder(source: str, resume: bool) -> tuple[Path, list[Path]]:
    """A default folder that no other process has, and the folders that were created for it."""
    if resume:
        _refuse_run(source)
    root = Path("runs")
    with (
        disk_errors(root),
        reading_errors(str(root), MachineError, "could not be written", ELSEWHERE),
    ):
        while True:
            folder = default_folder(source, resume)
            if resume:
                return folder, []
            created = _missing(folder)
            folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                folder.mkdir()
            except FileExistsError:
                # Another process was faster: the next number.
                continue
            return folder, created


def _refuse_run(source: str) -> None:
    """Refuse a run in place of its data, since ``--resume RUN`` is easily read that way."""
    if source and "\0" not in source and (Path(source) / RECIPE).is_file():
        raise RunError(
            source,
            "is the folder of a run, but SOURCE must be data or a recipe",
            None,
            f"Continue it with: holdfast train {shlex.quote(str(Path(source) / RECIPE))} "
            f"--out {shlex.quote(source)} --resume",
        )


def _missing(folder: Path) -> list[Path]:
    return [path for path in (folder, *folder.parents) if not path.exists()]


@contextlib.contextmanager
def remove_empty_on_error(created: Sequence[Path]) -> Iterator[None]:
    """Remove the folders that are still empty where the block fails."""
    try:
        yield
    except BaseException:
        for folder in created:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def is_finished(run: Path) -> bool:
    """Whether the run is complete: the result, the report, and no checkpoint left."""
    present = all((run / name).exists() for name in (RESULT, REPORT, MODEL))
    return present and not (run / CHECKPOINTS).exists()


@contextlib.contextmanager
def claim_folder(run: Path, resume: bool) -> Iterator[None]:
    """Create and lock the folder; refuse one that is not empty or that another process holds.

    With ``resume`` an unfinished run may be continued; a run without a checkpoint starts from the
    beginning, and a missing folder is refused. Where the block fails before anything was written,
    the created folders are removed again. The log says where the folder cannot be locked. Among
    several processes only the first one does this.
    """
    if not is_main_process():
        yield
        return
    check_place(run, resume)
    with disk_errors(run):
        created = _missing(run)
        # A file system such as /proc refuses with errors of its own.
        with reading_errors(str(run), MachineError, "could not be written", ELSEWHERE):
            run.mkdir(parents=True, exist_ok=True)
    with remove_empty_on_error(created), locked(run):
        with disk_errors(run):
            # Checked again: another process may have written before it released the folder.
            _check(run, resume)
        yield


def is_main_process() -> bool:
    """Whether this process is the only one, or the first of those that a launcher started."""
    return rank() == 0


def check_place(run: Path, resume: bool) -> None:
    """Refuse a folder in which a run cannot be written, or with ``resume`` continued."""
    with disk_errors(run):
        refuse_place(run)
        _check(run, resume)


def refuse_place(run: Path) -> None:
    """Refuse a path that cannot be a run's folder, or one that another process writes into."""
    if "\0" in str(run):
        remedy = "Choose another --out."
        raise RunError(str(run), "has a NUL character, which a path cannot contain", None, remedy)
    if run.is_symlink() and not run.exists():
        rule = f"is a link to {run.readlink()}, which does not exist"
        raise RunError(str(run), rule, None, "Create that folder, or choose another --out.")
    if run.exists() and not run.is_dir():
        raise RunError(str(run), "is a file, not a folder", None, "Choose another --out.")
    refuse_locked(run)


def _check(run: Path, resume: bool) -> None:
    if resume and not run.is_dir():
        rule = "does not exist, so there is no run to resume"
        raise RunError(str(run), rule, None, _suggest_run(run))
    for folder in run.resolve().parents:
        if folder.name == MODEL and (folder.parent / RESULT).exists():
            remedy = "Choose an --out elsewhere: a file added there makes that run unusable."
            raise RunError(
                str(run), f"is in the model folder of the run {folder.parent}", None, remedy
            )
    if not run.is_dir() or not _holds_something(run):
        return
    if not resume:
        remedy = "Choose another --out, or continue an interrupted run with --resume."
        raise RunError(str(run), "is not empty, and Holdfast never overwrites a run", None, remedy)
    # The file of the first step exists before the last fit of a search writes the recipe.
    if not (run / RECIPE).exists() and not (run / CHECKPOINTS / SEARCH).exists():
        raise RunError(
            str(run), f"is not a run: it has no {RECIPE}", None, "Name the run's folder with --out."
        )
    for path in (*run_files_in(run), *(run / CHECKPOINTS).rglob("*")):
        refuse_link(path)


def _suggest_run(run: Path) -> str:
    """The runs next to a missing one, the nearest name first."""
    there = run.parent.iterdir() if run.parent.is_dir() else ()
    runs = [path.name for path in there if (path / RECIPE).exists()]
    if not runs:
        return "To start a run, omit --resume."
    nearest = difflib.get_close_matches(run.name, runs, n=1, cutoff=0.0)
    return f"Did you mean --out {run.parent / nearest[0]}? To start a new run, omit --resume."


def _holds_something(run: Path) -> bool:
    """Whether anything exists except the leftovers of a process that was killed before it had
    written the recipe.
    """
    left = (CHECKPOINTS, LOCK)
    return any(p.name not in left and not p.name.endswith(".partial") for p in run.iterdir())


def run_files_in(run: Path) -> list[Path]:
    """The existing files and folders in ``run`` that belong to a run."""
    return [run / name for name in RUN_FILES if os.path.lexists(run / name)]


def remove_checkpoints(run: Path) -> None:
    shutil.rmtree(run / CHECKPOINTS, ignore_errors=True)


def is_guarded(run: Path) -> bool:
    """Whether ``run`` is a folder of ``Guard``: the report on another trainer's run."""
    return not os.path.lexists(run / RECIPE) and (run / RESULT).is_file()


def need_run(run: Path) -> None:
    """Raise ``RunError`` unless ``run`` is a finished run."""
    with reading_errors(str(run), RunError, "cannot be opened", "Check its permissions."):
        if not run.is_dir():
            runs = [str(run.parent / one.parent.name) for one in run.parent.glob(f"*/{RESULT}")]
            remedy = suggest_name(str(run), runs) if runs else "Name the folder of a finished run."
            raise RunError(str(run), "is not a folder", None, remedy)
        if os.path.lexists(run / RESULT) and os.path.lexists(run / MODEL):
            return
        refuse_locked(run)
        if is_guarded(run):
            raise RunError(
                str(run),
                "is a Guard folder, which holds no model: the trainer saved the model elsewhere",
                None,
                f"Read {REPORT} there; commands that need a model need a run of `holdfast train`.",
            )
        if not (run / RECIPE).exists():
            raise RunError(str(run), "is not a run", None, "Name the folder of a finished run.")
        raise RunError(
            str(run),
            "is not finished",
            None,
            "Name a finished run; continue this one with `holdfast train … --resume`.",
        )


def open_run(run: Path) -> dict[str, Any]:
    """``result.json`` of a finished run whose recipe is unchanged since its end; raises
    ``RunError`` for any other.
    """
    need_run(run)
    result = read_result(run)
    check_files(run, result, [RECIPE])
    return result


def model_of(run: Path) -> Path:
    """The model folder of a finished run; raises ``RunError`` for any other.

    Every file in it (and in the folder of its adapter's base model) must be as the run left it. All
    code that loads a run's model gets the folder from here.
    """
    from holdfast.models.adapters.save import base_folder

    result = open_run(run)
    check_model(run, result)
    if (base := base_folder(run / MODEL)) is not None:
        check_base(base, result)
    return run / MODEL


def unsealed_decisions(runs: Sequence[Path]) -> tuple[Decision, ...]:
    """The decision that the files of runs without checksums cannot be checked."""
    return unchecked_decisions([run for run in runs if not is_sealed(open_run(run))], "model files")


def unchecked_decisions(runs: Sequence[Path], files_name: str) -> tuple[Decision, ...]:
    """The decision that ``files_name`` of these runs have no checksums; nothing without such
    runs.
    """
    if not runs:
        return ()
    names = ", ".join(map(str, runs))
    because = f"{RESULT} of {names} holds no SHA-256: an older version wrote it, or it was removed"
    return (Decision(files_name, "not checked", because),)


def _number(path: Path, stem: str) -> int | None:
    tail = path.name.removeprefix(f"{stem}-")
    return int(tail) if tail.isdecimal() else None


PREDICTIONS, SPLITS = "predictions.parquet", "splits.parquet"
