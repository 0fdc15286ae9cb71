"""One fit after another, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from holdfast.fits.cross_fitting import resumable
from holdfast.search.bench import Bench
from holdfast.search.job import Done, FitJob, FitWatch
from holdfast.search.store import FitStore
from holdfast.search.work import work


@dataclass(frozen=True, slots=True)
class Local:
    """The engine of a machine of one's own: a fit has all of its threads."""

    workers: int = 1

    def run(
        self,
        bench: Bench,
        jobs: Iterator[FitJob],
        *,
        store: FitStore,
        watch: FitWatch | None = None,
    ) -> Iterator[Done]:
        """See ``Engine.run``."""
        for job in jobs:
            done = store.load(job)
            if done is None:
                with resumable(job.key):
                    done = work(bench, job, watch)
                store.save(job, done)
            yield done
