"""Folders of trackers: MLflow, Weights & Biases, TensorBoard."""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast.core.decisions import notify
from holdfast.core.errors import DataError
from holdfast.core.packages import need_packages
from holdfast.core.records import Decision
from holdfast.plugins.logs import Log, not_a_log
from holdfast.plugins.logs.choose import TRAIN, VALID
from holdfast.plugins.logs.table import from_rows, parse_number
from holdfast.plugins.logs.text import files_below, flatten, read_objects, several_runs

HISTORY = "wandb-history.jsonl"
LOG_HEADER, LOG_BLOCK, FRAGMENT = 7, 32_768, struct.Struct("<IHB")
EVENT_FILES = "*tfevents*"
# What TensorBoard takes for "keep all"; its default keeps a sample of 10,000 scalars and of 10
# tensors. Of the others one each is the minimum.
SIZE_GUIDANCE = {
    "scalars": 0,
    "tensors": 0,
    "images": 1,
    "audio": 1,
    "histograms": 1,
    "compressedHistograms": 1,
}
RESTART_REASON = "a restarted run writes another file; points are sorted by step"


def is_mlflow(path: Path) -> bool:
    """Whether the folder, or up to two levels below it, has runs' ``metrics``."""
    return path.is_dir() and bool(_mlflow_runs(path))


def read_mlflow(path: Path) -> Log:
    """A run's folder or its ``metrics``, or a folder above with one run in it.

    ``mlruns/<experiment>/<run>/metrics/<name>`` are plain text files. A line is ``timestamp value
    step``, the time in milliseconds; MLflow itself is not needed.
    """
    runs = [run for run in _mlflow_runs(path) if any(run.iterdir())]
    if not runs:
        raise not_a_log(str(path), "contains MLflow runs, but none with a metric")
    if len(runs) > 1:
        raise several_runs(path, [str(run.parent.relative_to(path)) for run in runs])
    (folder,) = runs
    first, last = math.inf, -math.inf

    def points() -> Iterator[dict[str, Any]]:
        nonlocal first, last
        for file in files_below(folder, "*"):
            name = file.relative_to(folder).as_posix()
            with file.open(encoding="utf-8") as lines:
                for place, line in enumerate(lines):
                    cells = line.split()
                    values = [parse_number(cell) for cell in cells]
                    if len(values) < 2 or values[0] is None or values[1] is None:
                        rule = "is not `timestamp value step`"
                        remedy = "Give a folder that MLflow wrote."
                        raise DataError(f"{file}, line {place + 1}", rule, " ".join(cells), remedy)
                    first, last = min(first, values[0]), max(last, values[0])
                    # Early versions wrote no step.
                    yield {"step": values[2] if len(values) > 2 else place, name: values[1]}

    log = from_rows(points(), "mlflow", str(folder))
    seconds = (last - first) / 1000
    return replace(log, seconds=seconds if seconds > 0 and math.isfinite(seconds) else None)


def _mlflow_runs(path: Path) -> list[Path]:
    if path.name == "metrics":
        return [path]
    folders = [f for depth in ("metrics", "*/metrics", "*/*/metrics") for f in path.glob(depth)]
    return [f for f in sorted(folders) if f.is_dir() and (f.parent / "meta.yaml").is_file()]


def is_wandb(path: Path) -> bool:
    """Whether this is a run's history, or a folder with one."""
    if path.is_file():
        return path.name == HISTORY or path.suffix == ".wandb"
    return bool(_wandb_files(path))


def read_wandb(path: Path) -> Log:
    """A history file, a ``run-…`` folder, or ``wandb`` with one run in it. Runs written since 2020
    have only the binary form, which the package ``wandb`` decodes."""
    files = [path] if path.is_file() else _wandb_files(path)
    if len(files) > 1:
        raise several_runs(path, [file.parent.name for file in files])
    (file,) = files
    records = _binary_history(file) if file.suffix == ".wandb" else read_objects(file)
    last: float | None = None

    def numeric_rows() -> Iterator[dict[str, Any]]:
        nonlocal last
        for row in (flatten(one, str(file)) for one in records):
            runtime = parse_number(row.get("_runtime"))
            last = runtime if last is None or (runtime or 0.0) > last else last
            yield {k: v for k, v in row.items() if k == "_step" or not k.startswith("_")}

    log = from_rows(numeric_rows(), "wandb", str(file))
    return replace(log, seconds=last if last is not None and math.isfinite(last) else None)


def _wandb_files(folder: Path) -> list[Path]:
    """Each run once: ``latest-run`` is a link to one of them. The text form is preferred."""
    return files_below(folder, HISTORY) or files_below(folder, "*.wandb")


def _binary_history(file: Path) -> Iterator[dict[str, Any]]:
    """The history records of a log. W&B's package has the messages; a reader of its files it no
    longer has (0.31)."""
    need_packages(str(file), "wandb", install="wandb", otherwise="give the run's history as CSV")
    from wandb.proto import wandb_internal_pb2

    for data in log_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            yield {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}


def log_records(content: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's format, as W&B writes it, until the first that is
    incomplete or damaged: in a killed run that is the last.

    Blocks of 32,768 bytes; a fragment is its checksum (CRC-32 of type and data), its length, its
    type (1 whole, 2 first, 3 middle, 4 last) and the data; fewer than 7 bytes at the end of a block
    are padding (github.com/google/leveldb, doc/log_format.md). W&B puts 7 bytes before the first.
    """
    at, parts = LOG_HEADER, b""
    while True:
        left = LOG_BLOCK - at % LOG_BLOCK
        if left < FRAGMENT.size:
            at += left
        if at + FRAGMENT.size > len(content):
            return
        checksum, length, part = FRAGMENT.unpack_from(content, at)
        at += FRAGMENT.size
        data = content[at : at + length]
        if not 1 <= part <= 4 or zlib.crc32(bytes([part]) + data) != checksum:
            return
        at += length
        parts = data if part in (1, 2) else parts + data
        if part in (1, 4):
            yield parts


def is_tensorboard(path: Path) -> bool:
    """Whether this is an event file, or a folder with one."""
    return bool(files_below(path, EVENT_FILES)) if path.is_dir() else "tfevents" in path.name


def read_tensorboard(path: Path) -> Log:
    """An event file, or a folder with those of one run, read by TensorBoard itself
    (``holdfast[tensorboard]``).

    Folders named after splits (``train``, ``validation``) are one run, and their name precedes the
    tag. Every scalar is read, not a sample.
    """
    files = [path]
    if not path.is_file():
        event_files = files_below(path, EVENT_FILES)
        files = sorted(event_files, key=lambda file: (str(file.parent), file.name))
        if len(files) > 1:
            notify(Decision("event files", str(len(files)), RESTART_REASON))
    folders = {file.parent for file in files}
    run_folders = [folder for folder in folders if folder.name.lower() not in (*TRAIN, *VALID)]
    if len(run_folders) > 1:
        raise several_runs(path, sorted(str(folder.relative_to(path)) for folder in run_folders))
    rows: list[dict[str, Any]] = []
    times: list[float] = []
    for file in files:
        in_subfolder = len(folders) > 1 and file.parent != path
        prefix = f"{file.parent.name}/" if in_subfolder else ""
        for tag, events in _scalars(file).items():
            rows += [{"step": step, prefix + tag: value} for _, step, value in events]
            times += [time for time, _, _ in events]
    if not rows:
        raise not_a_log(str(path), "contains event files without a scalar")
    seconds = max(times) - min(times) or None
    return from_rows(rows, "tensorboard", str(path), seconds=seconds)


def _scalars(file: Path) -> dict[str, list[tuple[float, int, float]]]:
    """Scalars of both kinds: old summaries, and tensors of one number as TensorFlow 2 writes."""
    need_packages(str(file), "tensorboard", install="'holdfast[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    accumulator = EventAccumulator(str(file), size_guidance=SIZE_GUIDANCE)
    accumulator.Reload()
    tags = accumulator.Tags()
    scalars = {
        t: [(e.wall_time, e.step, e.value) for e in accumulator.Scalars(t)] for t in tags["scalars"]
    }
    for tag in tags["tensors"]:
        single = []
        for event in accumulator.Tensors(tag):
            # Texts and histograms are tensors too; a tensor that claims another size than one
            # number is not parsed.
            if all(int(dim.size) == 1 for dim in event.tensor_proto.tensor_shape.dim):
                value = make_ndarray(event.tensor_proto)
                if value.size == 1 and value.dtype.kind == "f":
                    single.append((event.wall_time, event.step, float(value.flat[0])))
        if single:
            scalars[tag] = single
    return scalars
