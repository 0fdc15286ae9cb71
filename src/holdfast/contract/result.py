"""``result.json``, ``predictions.parquet`` and ``splits.parquet`` of a run: records to files.

Also how much a run forgot, by its loss on general rows: ``probes.forgetting`` of ``result.json``.
"""

from __future__ import annotations

import platform
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast._version import __version__
from holdfast.core.discovery import user_path
from holdfast.core.files import write_atomically
from holdfast.core.machine import processor_name
from holdfast.core.records import TOKEN, Estimate, Floats, Outputs, Scores, to_json
from holdfast.core.seeds import generator
from holdfast.core.wording import signed
from holdfast.monitor import limits
from holdfast.monitor.evidence import general_loss_rows
from holdfast.split.split_table import text_keys
from holdfast.stats.paired_tests import Difference, paired_bootstrap
from holdfast.training.loop import TrainingResult

if TYPE_CHECKING:
    import pyarrow as pa

    from holdfast.contract.fit import ScoringResult
    from holdfast.core.actions import Action
    from holdfast.data.table import Splits, Table


PACKAGES = ("torch", "transformers", "accelerate", "datasets", "scikit-learn", "scipy", "numpy")


def data_block(
    table: Table,
    given: Sequence[Table],
    splits: Splits,
    findings: Sequence[object],
    added: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, Any]:
    """``data`` of the contract: how many rows, how they were used, and the findings; and the files
    as they were named, which sentences repeat but a report or a card must not. ``added`` counts the
    added training rows by origin.
    """
    sources = dict.fromkeys(one.source for one in (table, *given))
    return {
        "files": [source for source in sources if user_path(source).exists()],
        "rows": table.source_rows,
        "used": len(splits.train) + len(splits.valid) + len(splits.test),
        "train": len(splits.train),
        "valid": len(splits.valid),
        "test": len(splits.test),
        "added": dict(added),
        "findings": list(findings),
    }


def division_block(splits: Splits, scored: ScoringResult, classes: Sequence[str]) -> dict[str, Any]:
    """How the rows were split: counts per split and class, and what was moved or dropped."""
    split_labels = {
        "train": splits.train.table.column("label"),
        "valid": splits.valid.table.column("label"),
    }
    if scored.outputs is not None:
        # Without test rows, the scored rows are training and validation rows.
        split_labels["test"] = scored.outputs.labels if len(splits.test) else []
    counts = {split: Counter(np.asarray(labels).tolist()) for split, labels in split_labels.items()}
    by_check = {finding.check: finding for finding in splits.findings}
    copies = [
        by_check[name].count for name in ("exact_duplicates", "near_duplicates") if name in by_check
    ]
    return {
        "train": len(splits.train),
        "valid": len(splits.valid),
        "test": len(splits.test),
        "dropped": splits.records["split"].to_pylist().count("dropped"),
        "moved": splits.moved,
        "rows_in_copies": sum(copies),
        "per_class": {
            name: {split: counts[split].get(index, 0) for split in split_labels}
            for index, name in enumerate(classes)
        }
        if scored.outputs is not None
        else None,
    }


def timing_block(
    trained: TrainingResult, total_s: float, train_s: float, scoring: Mapping[str, float]
) -> dict[str, float]:
    """``timing`` of the contract; ``train_s`` is from the loaded model to the restored best."""
    return {
        "total_s": round(total_s, 3),
        "train_s": round(train_s, 3),
        "evaluate_s": round(trained.evaluate_s, 3),
        "guard_s": round(trained.guard_s, 4),
        "examples_per_s": round(trained.examples_seen / train_s, 3) if train_s else 0.0,
        **{name: round(seconds, 3) for name, seconds in scoring.items()},
    }


def scores_block(scores: Scores, opened_at: str | None = None) -> dict[str, Any]:
    block = scores.to_json()
    return {**block, "opened_at": opened_at} if opened_at else block


def brief(scores: Scores) -> dict[str, Any]:
    """Scores without their tables."""
    return {"n": scores.n, "metrics": scores.to_json()["metrics"]}


def baseline_block(
    tests: Mapping[str, dict[str, Any]], baseline_name: str, comparison: Mapping[str, object]
) -> dict[str, Any]:
    """``baseline``: each baseline's scores (``tests``) on the test rows, the ``baseline_name`` to
    compare the model with, and the model's paired ``comparison``.
    """
    return {
        "what": baseline_name,
        "test": tests[baseline_name],
        "all": [{"what": name, "test": test} for name, test in tests.items()],
        "comparison": to_json(comparison),
    }


def run_block(trained: TrainingResult, seed: int = 0) -> dict[str, Any]:
    """The result of the loop: verdict, steps, actions, what it forgot."""
    by_token = any(evaluation.valid_tokens is not None for evaluation in trained.history)
    return {
        **({"loss_unit": TOKEN} if by_token else {}),
        "verdict": to_json(trained.verdict),
        "best_step": trained.best_step,
        "last_step": trained.last_step,
        "stopped_because": trained.stopped_because,
        "actions": actions_block(trained.actions),
        "probes": {"memorization": None, "forgetting": forgetting_block(trained, seed)},
    }


def actions_block(actions: Sequence[tuple[int, Action]]) -> list[dict[str, Any]]:
    """Actions with their step and reason; ``events.jsonl`` has the settings too."""
    return [
        {"step": step, "action": type(action).__name__, "because": action.because}
        for step, action in actions
    ]


def surroundings(threads: int, device: str) -> dict[str, Any]:
    """Versions and machine, to repeat the run."""
    versions = {"holdfast": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    machine = {
        "cpu": processor_name(),
        "threads": threads,
        "device": device,
        "system": f"{platform.system()} {platform.release()}",
    }
    return {"versions": versions, "machine": machine, "created": now()}


def peak_memory_mb() -> float:
    """The largest resident set of this process so far, in MB (10⁶ bytes)."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # In bytes on macOS, in KiB elsewhere.
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_predictions(path: Path, scored: ScoringResult, classes: Sequence[str]) -> None:
    """Write the test rows in the contract's form: a classifier's predictions, or the columns that
    the task returned.
    """
    import pyarrow as pa

    if scored.outputs is None:
        write_parquet(path, pa.table(scored.predictions))
        return
    write_parquet(path, pa.table(class_columns(scored.outputs, classes)))


def class_columns(outputs: Outputs, classes: Sequence[str]) -> dict[str, Any]:
    """A classifier's predictions as the columns of ``predictions.parquet``."""
    import pyarrow as pa

    names = np.asarray(classes, dtype=object)
    return {
        "row": pa.array(outputs.rows, pa.int64()),
        "label": pa.array(names[outputs.labels].tolist(), pa.string()),
        "prediction": pa.array(names[outputs.predictions].tolist(), pa.string()),
        "loss": pa.array(outputs.losses, pa.float64()),
        "probabilities": pa.array(outputs.probabilities.tolist(), pa.list_(pa.float64())),
    }


def write_splits(path: Path, records: pa.Table, tables: Sequence[Table]) -> None:
    """Write one line per source row; files by their absolute path, as in the recipe.

    ``text_key`` is a hash of the normal form of the row's text, by which ``evaluate`` recognises
    it.
    """
    import pyarrow as pa

    records = records.append_column("text_key", _text_keys(records, tables))
    # Each path is resolved once, not once for each row.
    coded = records["file"].combine_chunks().dictionary_encode()
    names = pa.array([_absolute(name) for name in coded.dictionary.to_pylist()], pa.string())
    column = pa.DictionaryArray.from_arrays(coded.indices, names).cast(pa.string())
    at = records.column_names.index("file")
    write_parquet(path, records.set_column(at, "file", column))


def _text_keys(records: pa.Table, tables: Sequence[Table]) -> pa.Array:
    """The key of each record [records], null where the row was not read."""
    import pyarrow as pa

    keys = np.zeros(len(records), dtype=np.uint64)
    missing = np.ones(len(records), dtype=bool)
    files = records["file"].to_numpy(zero_copy_only=False)
    for table in tables:
        # The records of a file are its rows in their order.
        places = np.flatnonzero(files == table.source)[table.column("row")]
        keys[places], missing[places] = text_keys(table), False
    return pa.array(keys, pa.uint64(), mask=missing)


def _absolute(name: str) -> str:
    return str(Path(name).resolve()) if Path(name).exists() else name


def write_parquet(path: Path, table: pa.Table) -> None:
    import pyarrow.parquet as parquet

    write_atomically(path, lambda beside: parquet.write_table(table, beside))


SAID = {
    "forgot": "The model forgot some of what it knew before training",
    "a little": "The model forgot a little of what it knew before training",
    "not shown": "No forgetting is shown",
}


def forgetting_block(trained: TrainingResult, seed: int) -> dict[str, Any] | None:
    """The loss on the general-text set before the first step and at the best checkpoint; ``None``
    without such a set.
    """
    first = general_loss_rows(trained.history[0])
    evaluation = trained.selected_average or next(
        s for s in trained.history if s.step == trained.best_step
    )
    best = general_loss_rows(evaluation)
    if first is None or best is None:
        return None
    return {**rise_block(first, best, seed, "general rows"), "at_step": trained.best_step}


def rise_block(before: Floats, after: Floats, seed: int, rows_name: str) -> dict[str, Any]:
    """The rise of the mean loss from ``before`` to ``after`` [n], the same rows in the same order,
    with a paired interval over them.

    ``verdict``: *forgot* where the verdict on a run would say so, *a little* where the full
    interval is above 0, else *not shown*.
    """
    nothing = np.zeros(len(after))
    start, now = _estimate(before, nothing, seed), _estimate(after, nothing, seed)
    rise = _estimate(after, before, seed)
    block: dict[str, Any] = {
        "n": len(after),
        "before": start.to_json(),
        "after": now.to_json(),
        "rise": rise.to_json(),
    }
    if rise.value is None or rise.low is None or rise.high is None or start.value is None:
        return block
    large = rise.value > max(limits.MARGIN, limits.FORGOTTEN * abs(start.value))
    verdict = "not shown" if not rise.low > 0 else "forgot" if large else "a little"
    because = (
        f"{SAID[verdict]}: on {len(after)} {rows_name} the loss went from "
        f"{start.value:.3f} to {now.value:.3f} (95 % CI of the difference "
        f"{signed(rise.low, '+.3f')} to {signed(rise.high, '+.3f')})."
    )
    return {**block, "forgot": verdict == "forgot", "verdict": verdict, "because": because}


def _estimate(one: Floats, other: Floats, seed: int) -> Estimate:
    difference: Difference = paired_bootstrap(one, other, seed=generator(seed, "general probe"))
    if not np.isfinite(difference.value):
        return Estimate(None, why="a loss on the general-text set is not a finite number")
    return Estimate(difference.value, difference.low, difference.high)
