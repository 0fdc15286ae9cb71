"""Fits of a search on a Ray cluster, or on the processes of this machine.

A worker does what the local engine does, with as many threads, so the results are the same, bit for
bit on machines of one kind. Looks travel to the process that searches, which answers for the watch:
what it knows of all fits lies in one place. A worker that dies costs its fit's time: the fit is
done again, elsewhere, and that is said.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from holdfast._version import __version__
from holdfast.core.decisions import notify
from holdfast.core.errors import HoldfastError, MachineError
from holdfast.core.records import Decision, Snapshot
from holdfast.core.wording import count_phrase
from holdfast.data.table import Table
from holdfast.duplicates.engines import connect_ray, is_ray_connected
from holdfast.models.compute.processor import quick_dropout
from holdfast.search.bench import Bench, work
from holdfast.search.job import FitJob, FitResult, FitStore, FitWatch
from holdfast.training.machine.machine import flushed_subnormals

if TYPE_CHECKING:
    from types import ModuleType


# How often a fit is begun: one that has cost three workers would cost a fourth.
TRIES = 3
POLL_S = 0.05

# What a worker has prepared: by the bench's mark, one at a time.
_BENCHES: dict[str, Bench] = {}


@dataclass(frozen=True, slots=True)
class RayEngine:
    """``address`` is that of a cluster (``host:port``, ``ray://host:port`` or ``auto``); without it
    ``RAY_ADDRESS`` names one, else one is started on this machine. ``processors`` and ``gpus`` are
    those of the cluster: a fit takes as many processors as it has threads, and a GPU where there
    are some. Who was not connected before (``own``) is not afterwards."""

    address: str | None
    processors: int
    gpus: int
    own: bool = False

    @classmethod
    def of(cls, address: str | None = None) -> RayEngine:
        """Connect. Raises ``MachineError`` where Ray is not installed or cannot be reached."""
        before = is_ray_connected()
        there = connect_ray(address).cluster_resources()
        return cls(address, int(there.get("CPU", 1)), int(there.get("GPU", 0)), not before)

    def run(
        self,
        bench: Bench,
        jobs: Iterator[FitJob],
        *,
        store: FitStore,
        watch: FitWatch | None = None,
    ) -> Iterator[FitResult]:
        """See ``FitEngine.run``; the results come as they are there, in no order."""
        threads = bench.recipe.train.threads or 1
        most = self.gpus or max(1, self.processors // threads)
        told = f"{count_phrase(self.processors, 'processor')}, {count_phrase(self.gpus, 'GPU')}"
        because = f"the cluster has {told}; a fit takes {count_phrase(threads, 'thread')}"
        notify(Decision("fits at a time", str(most), because))
        ray = connect_ray(self.address)
        crew = _Crew(ray, (threads, min(1, self.gpus)), bench, watch)
        # Ray prints of dead workers where results belong.
        with contextlib.redirect_stdout(sys.stderr):
            try:
                yield from _done(crew, jobs, most, store)
            finally:
                crew.leave()
                if self.own:
                    ray.shutdown()


def _done(crew: _Crew, jobs: Iterator[FitJob], most: int, store: FitStore) -> Iterator[FitResult]:
    """The results, with at most so many fits under way."""
    waiting = True
    while waiting or crew.busy:
        while waiting and len(crew.busy) < most:
            job = next(jobs, None)
            if job is None:
                waiting = False
                break
            done = store.load(job)
            if done is None:
                crew.begin(job)
            else:
                yield done
        for job, done in crew.finished():
            store.save(job, done)
            yield done


class _Crew:
    """The fits that are under way."""

    def __init__(
        self, ray: ModuleType, each: tuple[int, int], bench: Bench, watch: FitWatch | None
    ) -> None:
        threads, gpus = each
        self._ray, self._watch = ray, watch
        self._bench = ray.put(pickle.dumps(portable(bench)))
        self._mark = bench.mark
        self._mail = ray.remote(Mailbox).options(num_cpus=0).remote() if watch else None
        variables = {"OMP_NUM_THREADS": str(threads), "RAY_USAGE_STATS_ENABLED": "0"}
        self._task = ray.remote(_carry_out).options(
            num_cpus=threads, num_gpus=gpus, max_retries=0, runtime_env={"env_vars": variables}
        )
        self.busy: dict[Any, tuple[FitJob, int]] = {}

    def begin(self, job: FitJob, tries: int = 1) -> None:
        """Give it to a worker."""
        self.busy[self._task.remote(self._mark, [self._bench], job, self._mail, __version__)] = (
            job,
            tries,
        )

    def finished(self) -> Iterator[tuple[FitJob, FitResult]]:
        """Those that have come to their end within a moment; looks are answered meanwhile."""
        there, _ = self._ray.wait(list(self.busy), num_returns=1, timeout=POLL_S)
        self._answer()
        for one in there:
            job, tries = self.busy.pop(one)
            try:
                found = self._ray.get(one)
            except self._ray.exceptions.RayError as error:
                self._again(job, tries, error)
                continue
            if isinstance(found, HoldfastError):
                raise found
            # Ray's own arrays cannot be written to.
            yield job, pickle.loads(found)

    def leave(self) -> None:
        """Stop what is still under way: it was begun for a search that has ended."""
        for one in self.busy:
            with contextlib.suppress(Exception):
                self._ray.cancel(one, force=True)
        if self._mail is not None:
            self._ray.kill(self._mail)

    def _answer(self) -> None:
        if self._mail is None or self._watch is None:
            return
        for number, key, look in self._ray.get(self._mail.waiting.remote()):
            self._ray.get(self._mail.answer.remote(number, self._watch.look(key, look)))

    def _again(self, job: FitJob, tries: int, error: Exception) -> None:
        """A worker died, or something broke in it that is no error of Holdfast's."""
        cause = getattr(error, "cause", None)
        if isinstance(cause, Exception) and isinstance(error, self._ray.exceptions.RayTaskError):
            # A defect would come again.
            raise cause
        if tries >= TRIES:
            raise MachineError(
                f"the fit {job.key}",
                f"lost its worker {tries} times",
                str(error).splitlines()[0],
                "See the memory of the machines; finished fits are kept: continue with --resume.",
            ) from error
        because = f"its worker died ({type(error).__name__}); only this fit's time is lost"
        notify(Decision(job.key, "begun again", because, prominent=True))
        self.begin(job, tries + 1)


class Mailbox:
    """An actor through which fits ask the process that searches about their looks."""

    def __init__(self) -> None:
        self._asked: dict[int, tuple[str, Snapshot]] = {}
        self._answers: dict[int, asyncio.Future[str | None]] = {}
        self._last = 0

    async def look(self, key: str, look: Snapshot) -> str | None:
        """The watch's answer."""
        self._last += 1
        number = self._last
        self._answers[number] = asyncio.get_running_loop().create_future()
        self._asked[number] = (key, look)
        return await self._answers[number]

    async def waiting(self) -> list[tuple[int, str, Snapshot]]:
        """What was asked since this was asked last."""
        asked, self._asked = self._asked, {}
        return [(number, key, look) for number, (key, look) in asked.items()]

    async def answer(self, number: int, because: str | None) -> None:
        """Let that fit go on."""
        self._answers.pop(number).set_result(because)


@dataclass(frozen=True, slots=True)
class ByMail:
    """The watch as a worker has it."""

    mail: Any

    def look(self, key: str, look: Snapshot) -> str | None:
        """Ask the process that searches, and wait."""
        import ray

        told: str | None = ray.get(self.mail.look.remote(key, replace(look, valid_logits=None)))
        return told


def _carry_out(mark: str, packed: list[Any], job: FitJob, mail: object, version: str) -> Any:
    """In a worker: the one fit, or the error that a person must see."""
    import ray

    try:
        if version != __version__:
            raise MachineError(
                "a machine of the cluster",
                f"has Holdfast {__version__}, and the search is done by {version}",
                None,
                "Install the same version on every machine.",
            )
        if mark not in _BENCHES:
            _BENCHES.clear()
            _BENCHES[mark] = pickle.loads(ray.get(packed[0]))
        # As the process that searches has it: results depend on both to the last bit.
        with flushed_subnormals(), quick_dropout():
            watch = ByMail(mail) if mail is not None else None
            return pickle.dumps(work(_BENCHES[mark], job, watch))
    except HoldfastError as error:
        return error


def portable(bench: Bench) -> Bench:
    """The bench with its rows in memory: another machine does not have the files in which they lie
    here."""
    known = tuple(_in_memory(table) for table in bench.known)
    return replace(bench, rows=_in_memory(bench.rows), known=known, _prepared={})


def _in_memory(table: Table) -> Table:
    import datasets

    rows = table.rows
    arrow = datasets.table.InMemoryTable(rows.with_format("arrow")[:])
    return replace(table, rows=datasets.Dataset(arrow, info=rows.info))
