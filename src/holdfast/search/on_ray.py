"""Fits of a search on a Ray cluster, or on the processes of this machine.

A worker runs the same code as the local engine, with as many threads, so results are identical bit
for bit on machines of one kind. Evaluations are sent to the searching process, which runs the
watch, since it knows all fits. A worker that dies costs only its fit's time: the fit is run again
elsewhere, and the log records it.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from holdfast._version import __version__
from holdfast.core.decisions import notify
from holdfast.core.errors import ErrorMessage, MachineError
from holdfast.core.records import Decision, Snapshot
from holdfast.core.wording import count_phrase
from holdfast.data.table import Table
from holdfast.duplicates.engines import connect_ray, is_ray_connected
from holdfast.models.compute.processor import quick_dropout
from holdfast.search.context import SearchContext, run_job
from holdfast.search.job import FitJob, FitResult, FitStore, FitWatch
from holdfast.training.machine.machine import flushed_subnormals

if TYPE_CHECKING:
    from types import ModuleType


# How often a fit is begun: one that has cost three workers would cost a fourth.
TRIES = 3
POLL_S = 0.05

# What a worker has prepared: by the context's mark, one at a time.
_CONTEXTS: dict[str, SearchContext] = {}


@dataclass(frozen=True, slots=True)
class RayFitEngine:
    """``address`` is that of a cluster (``host:port``, ``ray://host:port`` or ``auto``); without it
    ``RAY_ADDRESS`` names one, else one is started on this machine. ``processors`` and ``gpus`` are
    those of the cluster: a fit uses as many processors as it has threads, and a GPU if there are
    some. ``disconnect_after``: the process was not connected before, and disconnects at the end."""

    is_parallel: ClassVar[bool] = True

    address: str | None
    processors: int
    gpus: int
    disconnect_after: bool = False

    @classmethod
    def connect(cls, address: str | None = None) -> RayFitEngine:
        """Connect. Raises ``MachineError`` if Ray is not installed or cannot be reached."""
        already_connected = is_ray_connected()
        resources = connect_ray(address).cluster_resources()
        return cls(
            address,
            int(resources.get("CPU", 1)),
            int(resources.get("GPU", 0)),
            not already_connected,
        )

    def run(
        self,
        context: SearchContext,
        jobs: Iterator[FitJob],
        *,
        store: FitStore,
        watch: FitWatch | None = None,
    ) -> Iterator[FitResult]:
        """See ``FitEngine.run``; results come as they finish, in no fixed order."""
        threads = context.recipe.train.threads or 1
        max_fits = self.gpus or max(1, self.processors // threads)
        resources = (
            f"{count_phrase(self.processors, 'processor')}, {count_phrase(self.gpus, 'GPU')}"
        )
        because = f"the cluster has {resources}; a fit uses {count_phrase(threads, 'thread')}"
        notify(Decision("parallel fits", str(max_fits), because))
        ray = connect_ray(self.address)
        pool = _FitPool(ray, (threads, min(1, self.gpus)), context, watch)
        # Ray prints of dead workers where results belong.
        with contextlib.redirect_stdout(sys.stderr):
            try:
                yield from _results(pool, jobs, max_fits, store)
            finally:
                pool.stop()
                if self.disconnect_after:
                    ray.shutdown()


def _results(
    pool: _FitPool, jobs: Iterator[FitJob], max_fits: int, store: FitStore
) -> Iterator[FitResult]:
    """The results, with at most ``max_fits`` fits running."""
    jobs_left = True
    while jobs_left or pool.running:
        while jobs_left and len(pool.running) < max_fits:
            job = next(jobs, None)
            if job is None:
                jobs_left = False
                break
            result = store.load(job)
            if result is None:
                pool.begin(job)
            else:
                yield result
        for job, result in pool.finished():
            store.save(job, result)
            yield result


class _FitPool:
    """The running fits."""

    def __init__(
        self, ray: ModuleType, each: tuple[int, int], context: SearchContext, watch: FitWatch | None
    ) -> None:
        threads, gpus = each
        self._ray, self._watch = ray, watch
        self._context = ray.put(pickle.dumps(with_rows_in_memory(context)))
        self._fingerprint = context.fingerprint
        self._mail = ray.remote(Mailbox).options(num_cpus=0).remote() if watch else None
        variables = {"OMP_NUM_THREADS": str(threads), "RAY_USAGE_STATS_ENABLED": "0"}
        self._task = ray.remote(_run_in_worker).options(
            num_cpus=threads, num_gpus=gpus, max_retries=0, runtime_env={"env_vars": variables}
        )
        self.running: dict[Any, tuple[FitJob, int]] = {}

    def begin(self, job: FitJob, tries: int = 1) -> None:
        """Give it to a worker."""
        self.running[
            self._task.remote(self._fingerprint, [self._context], job, self._mail, __version__)
        ] = (job, tries)

    def finished(self) -> Iterator[tuple[FitJob, FitResult]]:
        """The fits that finish within a moment; evaluations are answered meanwhile."""
        done, _ = self._ray.wait(list(self.running), num_returns=1, timeout=POLL_S)
        self._answer_watch()
        for future in done:
            job, tries = self.running.pop(future)
            try:
                packed = self._ray.get(future)
            except self._ray.exceptions.RayError as error:
                self._retry(job, tries, error)
                continue
            if isinstance(packed, ErrorMessage):
                raise packed
            # Ray's own arrays cannot be written to.
            yield job, pickle.loads(packed)

    def stop(self) -> None:
        """Stop the fits that still run, because the search has ended."""
        for future in self.running:
            with contextlib.suppress(Exception):
                self._ray.cancel(future, force=True)
        if self._mail is not None:
            self._ray.kill(self._mail)

    def _answer_watch(self) -> None:
        if self._mail is None or self._watch is None:
            return
        for number, key, snapshot in self._ray.get(self._mail.take_pending.remote()):
            self._ray.get(self._mail.answer.remote(number, self._watch.stop_reason(key, snapshot)))

    def _retry(self, job: FitJob, tries: int, error: Exception) -> None:
        """A worker died, or an error that is not Holdfast's own occurred in it."""
        cause = getattr(error, "cause", None)
        if isinstance(cause, Exception) and isinstance(error, self._ray.exceptions.RayTaskError):
            # A defect would occur again.
            raise cause
        if tries >= TRIES:
            raise MachineError(
                f"the fit {job.key}",
                f"lost its worker {tries} times",
                str(error).splitlines()[0],
                "Check the memory of the machines, then continue with --resume: finished fits are "
                "kept.",
            ) from error
        because = f"its worker died ({type(error).__name__}); only this fit's time is lost"
        notify(Decision(job.key, "begun again", because, prominent=True))
        self.begin(job, tries + 1)


class Mailbox:
    """An actor through which fits ask the searching process whether to continue."""

    def __init__(self) -> None:
        self._pending: dict[int, tuple[str, Snapshot]] = {}
        self._answers: dict[int, asyncio.Future[str | None]] = {}
        self._last = 0

    async def stop_reason(self, key: str, snapshot: Snapshot) -> str | None:
        """The watch's answer."""
        self._last += 1
        number = self._last
        self._answers[number] = asyncio.get_running_loop().create_future()
        self._pending[number] = (key, snapshot)
        return await self._answers[number]

    async def take_pending(self) -> list[tuple[int, str, Snapshot]]:
        """The questions since the last call."""
        pending, self._pending = self._pending, {}
        return [(number, key, snapshot) for number, (key, snapshot) in pending.items()]

    async def answer(self, number: int, because: str | None) -> None:
        """Answer the question of that fit."""
        self._answers.pop(number).set_result(because)


@dataclass(frozen=True, slots=True)
class RemoteWatch:
    """The watch on the worker's side."""

    mail: Any

    def stop_reason(self, key: str, snapshot: Snapshot) -> str | None:
        """Ask the searching process, and wait."""
        import ray

        reason: str | None = ray.get(
            self.mail.stop_reason.remote(key, replace(snapshot, valid_logits=None))
        )
        return reason


def _run_in_worker(
    fingerprint: str, packed: list[Any], job: FitJob, mail: object, version: str
) -> Any:
    """In a worker: run the fit, and return its result or the error that the user must see."""
    import ray

    try:
        if version != __version__:
            rule = f"has Holdfast {__version__}, but the search runs {version}"
            remedy = "Install the same version on every machine."
            raise MachineError("a machine of the cluster", rule, None, remedy)
        if fingerprint not in _CONTEXTS:
            _CONTEXTS.clear()
            _CONTEXTS[fingerprint] = pickle.loads(ray.get(packed[0]))
        # As the process that searches has it: results depend on both to the last bit.
        with flushed_subnormals(), quick_dropout():
            watch = RemoteWatch(mail) if mail is not None else None
            return pickle.dumps(run_job(_CONTEXTS[fingerprint], job, watch))
    except ErrorMessage as error:
        return error


def with_rows_in_memory(context: SearchContext) -> SearchContext:
    """The context with its rows in memory: another machine does not have the files."""
    known = tuple(_in_memory(table) for table in context.known)
    return replace(context, rows=_in_memory(context.rows), known=known, _prepared={})


def _in_memory(table: Table) -> Table:
    import datasets

    rows = table.rows
    arrow = datasets.table.InMemoryTable(rows.with_format("arrow")[:])
    return replace(table, rows=datasets.Dataset(arrow, info=rows.info))
