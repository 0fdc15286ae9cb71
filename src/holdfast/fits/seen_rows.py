"""Rows of a new run that an earlier run has seen, whose saved model the new one starts from or
learns from.

A score on rows that the earlier run learned from, or chose its checkpoint by, says nothing about
new rows: what was learned of them reaches the new model through the weights or the outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.contract.run_folder import MODEL, SPLITS
from holdfast.core.decisions import notify
from holdfast.core.discovery import path_exists, user_path
from holdfast.core.errors import RunError
from holdfast.core.packaged_models import PACKAGED_MODELS
from holdfast.core.records import Finding
from holdfast.core.wording import count_phrase
from holdfast.models.loading.card import card_here
from holdfast.prepare.rows import Divided
from holdfast.recipe.parts import AUTO_MODEL
from holdfast.split.split_table import text_keys


@dataclass(frozen=True, slots=True)
class RunRole:
    """What an earlier run is to the new one: the ``check`` of its finding, and the remedy."""

    check: str
    remedy: str


AS_TEACHER = RunRole(
    "teacher_knows",
    "Teacher and student need the same test rows: train both on one split (data.split.seed), or "
    "with the same --test FILE.",
)
AS_START = RunRole(
    "start_knows",
    "Use the same split as that run (its data.split.seed), test on new rows (--test FILE), or use "
    "another base model (--model).",
)


def check_start_rows(name: str, divided: Divided, scores_all: bool) -> None:
    """Raise ``RunError`` where the model ``name`` is that of a finished run that has seen a row on
    which the new run is scored: a test row, or any row if it ``scores_all``. Where the rows of a
    model that Holdfast fine-tuned cannot be found, log a finding."""
    folder = user_path(name)
    if name in (AUTO_MODEL, *PACKAGED_MODELS) or not (path_exists(folder) and folder.is_dir()):
        return
    folder = folder.resolve()
    if folder.name == MODEL and (folder.parent / SPLITS).is_file():
        refuse_seen_rows(folder.parent, divided, AS_START, scores_all)
    elif card_here(folder).fine_tuned:
        because = (
            f"{name} was fine-tuned by Holdfast, and its run folder is missing: if it was trained "
            "on rows that are now test rows, the score is too high"
        )
        remedy = "Make sure that it did not, or name the model inside its run's folder."
        notify(Finding(AS_START.check, "warn", 1.0, 0, (), because, remedy))


def refuse_seen_rows(run: Path, divided: Divided, role: RunRole, scores_all: bool = False) -> None:
    """Raise ``RunError`` where the earlier ``run`` learned from a row that the new one is scored
    on, or used it for validation; log a finding where it learned from validation rows."""
    keys, splits = _rows_of_run(run)
    own = _keys_by_split(divided)
    scored = np.concatenate(list(own.values())) if scores_all else own["test"]
    seen = int(np.isin(scored, keys[splits != "test"]).sum())
    if seen:
        rows = count_phrase(seen, "scored row" if scores_all else "test row")
        rule = f"was trained or validated on {rows} of the new run"
        raise RunError(str(run), rule, None, role.remedy)
    known = np.isin(own["valid"], keys[splits == "train"])
    if not known.any():
        return
    because = (
        f"{run} was trained on {int(known.sum()):,} of the {len(known):,} validation rows, so "
        "validation scores may be too high; no test row is known to it"
    )
    notify(Finding(role.check, "info", float(known.mean()), int(known.sum()), (), because, ""))


def _rows_of_run(run: Path) -> tuple[Any, Any]:
    import pyarrow.compute as pc
    import pyarrow.parquet as parquet

    from holdfast.core.input_errors import reading_errors
    from holdfast.core.run_files import RESTORE_REMEDY, check_files, read_result

    path = run / SPLITS
    with reading_errors(str(path), RunError, remedy=RESTORE_REMEDY):
        check_files(run, read_result(run), [SPLITS])
        table = parquet.read_table(path, columns=["split", "text_key"])
        table = table.filter(pc.is_valid(table["text_key"]))
        splits = np.asarray(table["split"].to_pylist(), dtype=object)
        keys = table["text_key"].to_numpy()
    has_split = np.isin(splits, ("train", "valid", "test"))
    return keys[has_split], splits[has_split]


def _keys_by_split(divided: Divided) -> dict[str, Any]:
    """The keys of the rows of each split; those of test rows without opening them."""
    records = divided.splits.records
    files = records["file"].to_numpy(zero_copy_only=False)
    split = records["split"].to_numpy(zero_copy_only=False)
    keys_by_split: dict[str, list[Any]] = {"train": [], "valid": [], "test": []}
    for table in divided.tables:
        # The records of a file are in the order of its rows.
        row_splits, keys = split[files == table.source][table.column("row")], text_keys(table)
        for split_name, lists in keys_by_split.items():
            lists.append(keys[row_splits == split_name])
    return {split_name: np.concatenate(lists) for split_name, lists in keys_by_split.items()}
