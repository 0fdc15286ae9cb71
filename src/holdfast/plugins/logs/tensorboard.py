"""TensorBoard event files and folders, read by TensorBoard itself (``holdfast[logs]``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holdfast.core.errors import DataError, MachineError
from holdfast.core.records import Decision
from holdfast.plugins.logs import LOGS, Log, LogReader, not_a_log
from holdfast.plugins.logs.names import TRAIN, VALID
from holdfast.plugins.logs.table import from_rows
from holdfast.plugins.logs.text import files_below

PATTERN = "*tfevents*"
# What TensorBoard takes for "keep all"; by itself it keeps a sample of 10,000 scalars and of 10
# tensors.
ALL_POINTS = 0


def read(path: Path) -> Log:
    """An event file, or a folder with those of one run. Folders named after sets (``train``,
    ``validation``) are one run, and their name stands before the tag. Every scalar is read, none
    sampled."""
    rows: list[dict[str, Any]] = []
    times: list[float] = []
    for file, prefix in _files(path):
        for tag, events in _scalars(file).items():
            for time, step, value in events:
                rows.append({"step": step, prefix + tag: value})
                times.append(time)
    if not rows:
        raise not_a_log(str(path), "holds event files without a scalar")
    seconds = max(times) - min(times)
    return from_rows(
        rows,
        "tensorboard",
        str(path),
        seconds=seconds or None,
        decisions=_event_file_decisions(path),
    )


def accepts(path: Path) -> bool:
    """Whether this looks like such a log; never raises."""
    if path.is_dir():
        return bool(files_below(path, PATTERN))
    return "tfevents" in path.name


def _files(path: Path) -> list[tuple[Path, str]]:
    if path.is_file():
        return [(path, "")]
    files = sorted(files_below(path, PATTERN), key=lambda file: (str(file.parent), file.name))
    folders = {file.parent for file in files}
    strangers = sorted(
        str(f.relative_to(path)) for f in folders if f.name.lower() not in (*TRAIN, *VALID)
    )
    if len(folders) > 1 and len(strangers) > 1:
        shown = ", ".join(strangers[:12])
        raise DataError(str(path), "holds several runs", shown, "Name the folder of one of them.")
    return [(file, _prefix(file, path, folders)) for file in files]


def _prefix(file: Path, path: Path, folders: set[Path]) -> str:
    return f"{file.parent.name}/" if len(folders) > 1 and file.parent != path else ""


def _event_file_decisions(path: Path) -> tuple[Decision, ...]:
    if path.is_file():
        return ()
    count = len(files_below(path, PATTERN))
    because = "a run that is begun again writes another file; points go in order of their step"
    return (Decision("event files", str(count), because),) if count > 1 else ()


def _scalars(file: Path) -> dict[str, list[tuple[float, int, float]]]:
    """Scalars of both kinds: old summaries, and tensors of one number as TensorFlow 2 writes."""
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.util.tensor_util import make_ndarray
    except ImportError as error:
        raise MachineError(
            str(file), "needs TensorBoard to be read", None, "pip install 'holdfast[logs]'"
        ) from error
    sizes = {
        "scalars": ALL_POINTS,
        "tensors": ALL_POINTS,
        # 0 would keep all; one of each is the least.
        "images": 1,
        "audio": 1,
        "histograms": 1,
        "compressedHistograms": 1,
    }
    found = EventAccumulator(str(file), size_guidance=sizes)
    found.Reload()
    tags = found.Tags()
    scalars = {
        t: [(e.wall_time, e.step, e.value) for e in found.Scalars(t)] for t in tags["scalars"]
    }
    for tag in tags["tensors"]:
        # Texts and histograms are tensors too.
        events = [e for e in found.Tensors(tag) if _is_one(e.tensor_proto)]
        values = [(e.wall_time, e.step, make_ndarray(e.tensor_proto)) for e in events]
        single = [
            (t, s, float(v.flat[0])) for t, s, v in values if v.size == 1 and v.dtype.kind == "f"
        ]
        if single:
            scalars[tag] = single
    return scalars


def _is_one(proto: Any) -> bool:
    """Whether a tensor says that it is one number: of any other, whatever size it claims, nothing
    is made."""
    return all(int(dim.size) == 1 for dim in proto.tensor_shape.dim)


LOGS.add("tensorboard", LogReader(accepts, read, "TensorBoard event files or their folder", 1))
