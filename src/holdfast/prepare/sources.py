"""Rows that a Python program holds in memory, stored in the run's folder before the run begins, so
that its recipe repeats it.

Also ``data.mix``: several sources become the rows of one run; each is split and scored by itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.contract.run_folder import (
    CHECKPOINTS,
    DATA_KEYS,
    RECIPE,
    SEARCH,
    is_finished,
    is_main_process,
)
from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError, RunError
from holdfast.core.files import write_atomically
from holdfast.core.input_errors import reading_errors
from holdfast.core.machine import process_count
from holdfast.core.tasks import DECODER_TASKS, ENCODER_DECODER_TASKS, LABELLED_TEXT_TASKS
from holdfast.data.chats.turns import is_template
from holdfast.data.memory.frames import frame_file, write_frame
from holdfast.data.memory.texts import FRAME, naming_data_frame
from holdfast.data.mix import SOURCE, MixedRows, MixSource, mix_sources
from holdfast.plan.task import resolve_task_from_rows
from holdfast.recipe import Recipe

if TYPE_CHECKING:
    import pyarrow as pa


# What the sources of a mix hold, by task.
HOLDS = {
    **dict.fromkeys(LABELLED_TEXT_TASKS, "classes"),
    **dict.fromkeys(ENCODER_DECODER_TASKS, "pairs"),
    **dict.fromkeys(DECODER_TASKS, "chats"),
}
# Keys that say where the rows of one table are.
ONE_TABLE = ("text", "label", "target", "messages", "source", "group", "template", "config")


@contextlib.contextmanager
def store_tables(in_memory: Mapping[str, pa.Table], run: Path) -> Iterator[dict[str, str]]:
    """Write ``data.parquet``, ``test.parquet`` and others into the run's folder; yields the keys of
    the recipe's ``data`` that point to them. They are removed if the run fails before its recipe,
    or the request of a search, was written.

    Raises ``RunError`` where a run is resumed with other rows than it began with.
    """
    files = {name: (run / f"{name}.parquet").resolve() for name in in_memory}
    if is_main_process():
        for name, table in in_memory.items():
            _store(table, files[name], run)
    if in_memory:
        _wait_for_everyone()
    try:
        with _naming_rows(files):
            yield {DATA_KEYS[name]: str(path) for name, path in files.items() if name in DATA_KEYS}
    except BaseException:
        is_recorded = (run / RECIPE).exists() or (run / CHECKPOINTS / SEARCH).exists()
        if is_main_process() and not is_recorded:
            for path in files.values():
                path.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def as_files(recipe: Recipe, in_memory: Mapping[str, pa.Table]) -> Iterator[Recipe]:
    """The recipe of rows in memory for a command without a run folder: they are stored in temporary
    files."""
    files = {name: frame_file(table) for name, table in in_memory.items()}
    try:
        with _naming_rows(files):
            paths = {DATA_KEYS[name]: str(path) for name, path in files.items()}
            yield recipe.with_changes(data=paths)
    finally:
        for path in files.values():
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _naming_rows(files: Mapping[str, Path]) -> Iterator[None]:
    """Name the rows in memory in errors, not their files."""
    with contextlib.ExitStack() as naming:
        for name, path in files.items():
            rows = FRAME if name == "data" else f"the {name} rows"
            naming.enter_context(naming_data_frame(path, rows))
        yield


def _store(table: pa.Table, path: Path, run: Path) -> None:
    if path.exists() and (run / RECIPE).exists():
        check_same_rows({path.stem: table}, run)
    else:
        write_atomically(path, lambda beside: write_frame(table, beside))


def check_same_rows(in_memory: Mapping[str, pa.Table], run: Path) -> None:
    """Raise ``RunError`` where a run began with other rows in memory than those given now."""
    import pyarrow.parquet as parquet

    damaged = (
        "Restore the file, or start a new run with another --out."
        if is_finished(run)
        else "Delete it and resume with the same rows: Holdfast writes it again."
    )
    for name, table in in_memory.items():
        path = run / f"{name}.parquet"
        if not path.exists():
            rule, remedy = f"began without {path.name}", "Give the rows that it began with."
            raise RunError(str(run), rule, None, remedy)
        with reading_errors(str(path), RunError, remedy=damaged):
            existing = parquet.read_table(path)
        if not existing.equals(table):
            raise RunError(
                str(run),
                f"began with other rows than those given now ({path.name})",
                None,
                f"Give the same rows, or start a new run. If they are the same, the file is "
                f"damaged. {damaged}",
            )


def _wait_for_everyone() -> None:
    """Where a launcher started several processes, wait until the first has written the files."""
    if process_count() == 1:
        return
    from accelerate import PartialState

    from holdfast.training.machine.machine import runs_several_cpu_processes

    PartialState(cpu=runs_several_cpu_processes()).wait_for_everyone()


def with_mix(recipe: Recipe, in_memory: Mapping[str, object]) -> tuple[Recipe, Mapping[str, Any]]:
    """The recipe of one table, and the table among the rows in memory, where sources are mixed."""
    if not recipe.data.mix:
        return recipe, in_memory
    if recipe.data.path is not None or "data" in in_memory:
        rule = "and data.path cannot be set together"
        raise RecipeError("data.mix", rule, recipe.data.path, "Remove one of them.")
    first = recipe.data.mix[0]
    data = {
        **{name: getattr(first, name) for name in ("path", "config", "text", "label")},
        "mix": None,
    }
    task = resolve_task_from_rows(recipe.with_changes(data=data))[0].task
    holds = HOLDS.get(str(task))
    if holds is None:
        known = ", ".join(HOLDS)
        raise RecipeError("data.mix", f"does not apply to {task}, only to {known}", None)
    weighted = recipe.data.weights or any(one.weight for one in recipe.data.mix)
    if holds != "classes" and weighted:
        rule = f"applies only to texts with one class each, not to {task}"
        remedy = "Remove it, or repeat the rows in the file."
        raise RecipeError("data.mix: weight", rule, None, remedy)
    for key in ONE_TABLE:
        # A chat template says how chats are written, not where they are.
        if key == "template" and holds == "chats" and is_template(recipe.data.template):
            continue
        if getattr(recipe.data, key) is not None:
            rule = "applies to one table, but data.mix names several"
            remedy = "Set it for each source: data.mix: [{path: …, text: …, label: …}]."
            raise RecipeError(f"data.{key}", rule, getattr(recipe.data, key), remedy)
    mixed = mix_sources(
        [
            MixSource(
                one.path,
                one.name,
                one.config,
                recipe.data.encoding,
                one.text,
                one.label,
                one.labels or {},
            )
            for one in recipe.data.mix
        ],
        holds,
    )
    notify(*mixed.decisions, *mixed.findings)
    one = recipe.with_changes(data=_mixed_data_settings(recipe, mixed)).model_copy(
        update={"task": task}
    )
    return one, {**in_memory, "data": mixed.rows}


def _mixed_data_settings(recipe: Recipe, mixed: MixedRows) -> dict[str, Any]:
    given = {
        name: one.weight
        for name, one in zip(mixed.names, recipe.data.mix or (), strict=True)
        if one.weight is not None
    }
    names = mixed.rows.column_names
    return {
        "mix": None,
        "encoding": None,
        # Chats and plain texts are found by the names of their columns, here and in other files.
        "text": mixed.text if {"label", "target"} & set(names) else None,
        "label": "label" if "label" in names else None,
        "target": "target" if "target" in names else None,
        "source": SOURCE,
        "weights": given or recipe.data.weights,
    }


def mixed_file(recipe: Recipe) -> AbstractContextManager[Recipe]:
    """The same for a command without a run folder: the table is stored in a temporary file."""
    recipe, in_memory = with_mix(recipe, {})
    return as_files(recipe, in_memory) if in_memory else nullcontext(recipe)
