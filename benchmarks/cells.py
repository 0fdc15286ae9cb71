"""A benchmark as cells: each run once, each kept as one JSON line.

A cell is a small dict that says what is run (``{"data": "cr", "rows": 100, "seed": 0,
"system": "trainer"}``). Its result is a flat dict of numbers and words. A killed benchmark
continues where it was. ``claims.py`` makes the pages from the lines.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import itertools
import json
import os
import platform
import re
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

from holdfast.core.errors import Interrupted

Cell = Mapping[str, Any]
Result = dict[str, Any]

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"


def grid(**axes: Iterable[Any]) -> list[dict[str, Any]]:
    """Every combination; the last axis changes fastest, so put the systems to compare last: they
    then run side by side on the same rows, and a slow minute of the machine hits them all.

    >>> grid(seed=[0, 1], system=["a", "b"])[:2]
    [{'seed': 0, 'system': 'a'}, {'seed': 0, 'system': 'b'}]
    """
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def run_cells(
    name: str,
    cells: Sequence[Cell],
    run_one: Callable[[Cell], Result | None],
    out: Path | None = None,
    *,
    minutes: float | None = None,
    jobs: int = 1,
) -> list[Result | None]:
    """Run the cells that have no result yet, in the order given, and print the table.

    Results are appended to ``out`` (by default ``results/<name>.jsonl``) the moment they are
    there. ``minutes`` (or the environment's ``BENCH_MINUTES``) starts no new cell after that time.
    ``jobs`` above 1 runs as many at a time, each in a process of its own with one thread;
    ``run_one`` is then a function of a module. A cell that raises is reported, not recorded, and
    tried again next time. Returns one result a cell, ``None`` where it was not run.
    """
    path = out or RESULTS / f"{name}.jsonl"
    limit = minutes if minutes is not None else float(os.environ.get("BENCH_MINUTES", "inf"))
    deadline = time.monotonic() + 60 * limit
    done = stored(path)
    todo = [(n, cell) for n, cell in enumerate(cells, 1) if key(cell) not in done]
    run = _in_turn if jobs == 1 else functools.partial(_at_once, jobs)
    for number, cell, result_of in run(todo, run_one, deadline):
        print(f"{name} {number}/{len(cells)} {shown(cell)}", flush=True)
        result = result_of()
        if result is not None:
            append(path, cell, result)
            done[key(cell)] = result
    results = [done.get(key(cell)) for cell in cells]
    print(table(cells, results))
    return results


def run_command(
    name: str,
    about: str,
    cells: Callable[..., Sequence[Cell]],
    run_one: Callable[[Cell], Result | None],
    parts: Sequence[str] = (),
) -> None:
    """The command of a benchmark. Where its cells come in ``parts``, ``cells`` takes the name of
    one of them."""
    parser = argparse.ArgumentParser(description=about.partition("\n\n")[0])
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--minutes", type=float, help="start no cell after that time")
    if parts:
        parser.add_argument("--part", choices=parts, default=parts[0])
    given = vars(parser.parse_args())
    part = [given.pop("part")] if parts else []
    run_cells(name, cells(*part), run_one, **given)


def stored(path: Path) -> dict[str, Result]:
    """The results in a file by cell; the last line wins, and half a line (a kill) is no result."""
    found: dict[str, Result] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[key(record["cell"])] = record["result"]
    return found


def key(cell: Cell) -> str:
    """The cell's identity: its JSON with sorted keys."""
    return json.dumps(dict(cell), sort_keys=True, ensure_ascii=False)


def table(cells: Sequence[Cell], results: Sequence[Result | None]) -> str:
    """A Markdown table of the cells that were run, its columns the cell's keys and the results'."""
    done = [(c, r) for c, r in zip(cells, results, strict=True) if r is not None]
    names = list(dict.fromkeys(name for cell, _ in done for name in cell))
    values = list(dict.fromkeys(name for _, result in done for name in result))
    rows = [[*names, *values]]
    for cell, result in done:
        rows.append(
            [word(cell.get(name)) for name in names] + [word(result.get(n)) for n in values]
        )
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    told = f"{len(done)} of {len(cells)} cells"
    return "\n".join([told, "", lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def word(value: Any) -> str:
    """A number at four significant digits; nothing as an empty field."""
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def shown(cell: Cell) -> str:
    return " ".join(f"{name}={value}" for name, value in cell.items())


def machine() -> dict[str, str]:
    """What a figure depends on: processor, cores, threads, versions."""
    parts = {"python": platform.python_version(), "system": platform.system()}
    parts |= {"cpu": processor(), "cores": str(os.cpu_count())}
    parts["threads"] = os.environ.get("OMP_NUM_THREADS", "unset")
    for package in ("holdfast", "torch", "transformers", "setfit"):
        parts[package] = _version(package)
    return parts


Turn = Iterator[tuple[int, Cell, Callable[[], Result | None]]]


def _in_turn(
    todo: Sequence[tuple[int, Cell]], run_one: Callable[[Cell], Result | None], deadline: float
) -> Turn:
    for number, cell in todo:
        if time.monotonic() < deadline:
            yield number, cell, functools.partial(_attempt, cell, run_one)


def _at_once(
    jobs: int,
    todo: Sequence[tuple[int, Cell]],
    run_one: Callable[[Cell], Result | None],
    deadline: float,
) -> Turn:
    """The cells as they end, ``jobs`` processes at a time, each begun new for one thread."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    # A spawned process reads its number of threads from its environment, before any import.
    before = {name: os.environ.get(name) for name in threads}
    os.environ.update(threads)
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_end_with_parent)
    left = iter(todo)
    running: dict[Future[Result | None], tuple[int, Cell]] = {}
    try:
        while True:
            while len(running) < jobs and time.monotonic() < deadline:
                if (following := next(left, None)) is None:
                    break
                running[pool.submit(_attempt, following[1], run_one)] = following
            if not running:
                return
            for ended in wait(running, return_when=FIRST_COMPLETED).done:
                yield (*running.pop(ended), ended.result)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _end_with_parent() -> None:
    """A benchmark that is killed leaves nobody behind who goes on computing, or waits for work."""

    def wait_for_it() -> None:
        parent = parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=wait_for_it, daemon=True).start()


def _attempt(cell: Cell, run_one: Callable[[Cell], Result | None]) -> Result | None:
    try:
        return run_one(cell)
    except Interrupted:
        # Asked to end, which is meant of the benchmark.
        raise
    except Exception:
        traceback.print_exc()
        print(f"{shown(cell)}: failed, not recorded", flush=True)
        return None


def append(path: Path, cell: Cell, result: Result) -> None:
    """Add a result to a file; of one cell the last line counts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    record = {"cell": dict(cell), "result": result, "when": when, "machine": machine()}
    line = json.dumps(record, ensure_ascii=False)
    # A kill may have left half a line behind: begin on a fresh one.
    old = path.read_bytes() if path.exists() else b""
    broken = bool(old) and not old.endswith(b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write(("\n" if broken else "") + line + "\n")
        file.flush()
        os.fsync(file.fileno())


def processor() -> str:
    """The processor's name, and what it multiplies bfloat16 with."""
    info = Path("/proc/cpuinfo")
    told = info.read_text() if info.exists() else ""
    names = re.findall(r"model name\s*:\s*(.+)", told)
    name = names[0] if names else platform.processor() or platform.machine()
    units = [u for u in ("amx_bf16", "avx512_bf16") if re.search(rf"\b{u}\b", told)]
    return f"{name} with {units[0]}" if units else name


def gpu() -> dict[str, str]:
    """The name of the GPU, as a figure of a result, where there is one."""
    import torch

    return {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
