"""The run folder: its name, its state, and what may be written into it."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from holdfast.core.errors import RunError
from holdfast.core.files import disk_errors

RESULT = "result.json"
RECIPE = "recipe.yaml"
REPORT = "report.html"
CHECKPOINTS = "checkpoints"
BEGUN = "begun.json"
MODEL = "model"


def default_folder(source: str, resume: bool, root: Path = Path("runs")) -> Path:
    """``runs/<source>-<n>``: the next free number, or with ``resume`` the newest that is there."""
    stem = re.sub(r"(\.(csv|tsv|jsonl|json|parquet|yaml|yml|gz))+$", "", Path(source).name)
    stem = re.sub(r"[^\w.-]+", "-", stem.split("@")[0]) or "run"
    taken = [_number(path, stem) for path in root.glob(f"{stem}-*")] if root.is_dir() else []
    last = max([number for number in taken if number is not None], default=0)
    return root / f"{stem}-{last if resume and last else last + 1}"


def agreed_folder(source: str, resume: bool) -> Path:
    """``default_folder``, as the first process chose it where a launcher started several."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return default_folder(source, resume)
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    from holdfast.training.machine import several_on_processor

    PartialState(cpu=several_on_processor())
    chosen = [str(default_folder(source, resume)) if is_main_process() else ""]
    return Path(broadcast_object_list(chosen)[0])


def is_finished(run: Path) -> bool:
    """Whether everything is there: the result, the report, and no checkpoint left."""
    present = all((run / name).exists() for name in (RESULT, REPORT, MODEL))
    return present and not (run / CHECKPOINTS).exists()


@contextlib.contextmanager
def claimed(run: Path, resume: bool) -> Iterator[None]:
    """Make the folder, or refuse to write into one that holds something.

    With ``resume`` an unfinished run may be continued; one without a checkpoint starts anew, and a
    folder that is not there is refused. When the block fails before anything was written, the
    folders that were made are taken away again.
    Among several processes the first alone does this.
    """
    if not is_main_process():
        yield
        return
    with disk_errors(run):
        _check(run, resume)
        made = [folder for folder in (run, *run.parents) if not folder.exists()]
        run.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def is_main_process() -> bool:
    """Whether this process is the only one, or the first of those that a launcher started."""
    return int(os.environ.get("RANK", "0")) == 0


def _check(run: Path, resume: bool) -> None:
    if run.exists() and not run.is_dir():
        raise RunError(str(run), "is a file, not a folder", None, "Choose another --out.")
    if resume and not run.is_dir():
        rule = "does not exist, so there is no run to resume"
        raise RunError(str(run), rule, None, _beside(run))
    if not run.is_dir() or not _holds_something(run):
        return
    if not resume:
        raise RunError(
            str(run), "already holds something, and a run is never overwritten", None,
            "Choose another --out, or continue an interrupted run with --resume.",
        )  # fmt: skip
    if not (run / RECIPE).exists():
        raise RunError(
            str(run), f"is not a run: it has no {RECIPE}", None, "Name the run's folder with --out."
        )


def _beside(run: Path) -> str:
    """The runs that stand where a missing one was looked for, the nearest name first."""
    there = run.parent.iterdir() if run.parent.is_dir() else ()
    runs = [path.name for path in there if (path / RECIPE).exists()]
    if not runs:
        return "Leave --resume out to start a run."
    near = difflib.get_close_matches(run.name, runs, n=1, cutoff=0.0)
    return f"Did you mean --out {run.parent / near[0]}? Leave --resume out to start a new run."


def _holds_something(run: Path) -> bool:
    """Anything but what a process leaves that was killed before it had written the recipe."""
    return any(p.name != CHECKPOINTS and not p.name.endswith(".partial") for p in run.iterdir())


def remove_checkpoints(run: Path) -> None:
    shutil.rmtree(run / CHECKPOINTS, ignore_errors=True)


def need_run(run: Path) -> None:
    """Raise ``RunError`` unless ``run`` is a finished run."""
    if not run.is_dir():
        raise RunError(str(run), "is not a folder", None, "Name the folder of a finished run.")
    if not (run / RESULT).exists() or not (run / MODEL).is_dir():
        state = "is not finished" if (run / RECIPE).exists() else "is not a run"
        raise RunError(
            str(run), state, None, "Name a finished run; continue this one with --resume."
        )


def _number(path: Path, stem: str) -> int | None:
    tail = path.name.removeprefix(f"{stem}-")
    return int(tail) if tail.isdigit() else None
