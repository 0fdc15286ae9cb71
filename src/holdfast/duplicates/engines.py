"""Engines that run the blocks and passes of a search: threads of this process, or a Ray cluster.

A search over millions of texts consists of many independent items, and their results are used in
order. So the engine does not change the result.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from holdfast.core.errors import MachineError
from holdfast.core.machine import usable_cores
from holdfast.core.packages import need_packages

T = TypeVar("T")
A = TypeVar("A")
MAX_THREADS = 4


class MapEngine(Protocol):
    """Apply ``work`` to each item and yield the results in the order of the items."""

    def map(self, work: Callable[[A], T], items: Iterable[A]) -> Iterator[T]: ...


@dataclass(frozen=True, slots=True)
class ThreadEngine:
    """Threads of this process, with at most two items per thread in flight. Arrow and NumPy release
    Python's global interpreter lock."""

    count: int = 1

    def map(self, work: Callable[[A], T], items: Iterable[A]) -> Iterator[T]:
        if self.count == 1:
            yield from map(work, items)
            return
        waiting: deque[Future[T]] = deque()
        with ThreadPoolExecutor(self.count) as pool:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= 2 * self.count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()


@dataclass(frozen=True, slots=True)
class RayDataEngine:
    """Ray Data, on the cluster at ``RAY_ADDRESS``, or on one that is started on this machine.

    Data that all items share goes to the object store once. Holdfast must be installed on every
    machine of the cluster. Raises ``MachineError`` if Ray is not installed or cannot be reached.
    """

    def map(self, work: Callable[[A], T], items: Iterable[A]) -> Iterator[T]:
        ray = connect_ray()
        import ray.data as ray_data

        with warnings.catch_warnings():
            # Ray warns about a setting that it sets itself.
            warnings.simplefilter("ignore", DeprecationWarning)
            context = ray_data.DataContext.get_current()
        # The results must be in the order of the items.
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        shared = ray.put(work)
        packed = [{"item": pickle.dumps(item)} for item in items]
        if not packed:
            return

        def apply(row: dict[str, bytes]) -> dict[str, bytes]:
            done = ray.get(shared)(pickle.loads(row["item"]))
            return {"done": pickle.dumps(done)}

        data = ray_data.from_items(packed, override_num_blocks=len(packed)).map(apply)
        for row in data.iter_rows():
            yield pickle.loads(row["done"])


def local_engine() -> MapEngine:
    """One thread per processor, at most ``MAX_THREADS`` (each holds a pass in memory) and at most
    ``OMP_NUM_THREADS``."""
    configured = os.environ.get("OMP_NUM_THREADS", "")
    most_threads = int(configured) if configured.isdigit() and int(configured) > 0 else MAX_THREADS
    return ThreadEngine(min(usable_cores(), most_threads, MAX_THREADS))


def connect_ray(address: str | None = None) -> Any:
    """Ray, connected once per process: to the cluster at ``address`` or ``RAY_ADDRESS``, else to
    one that is started on this machine. Raises ``MachineError`` if that fails."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    need_packages(
        "the engine ray", "ray", install="'holdfast[cluster]'", otherwise="use the engine local"
    )
    import ray

    if not ray.is_initialized():
        arguments = {"address": address} if address else {"include_dashboard": False}
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **arguments)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            raise MachineError(
                "the engine ray",
                f"cannot be started or reached: {error}",
                address or os.environ.get("RAY_ADDRESS"),
                "Check the address. Without an address and without RAY_ADDRESS, Holdfast starts a "
                "cluster on this machine.",
            ) from error
    return ray


def is_ray_connected() -> bool:
    """Whether this process is already connected to Ray."""
    ray = sys.modules.get("ray")
    return bool(ray is not None and ray.is_initialized())
