"""Where the fits of a search are carried out: one after another here, or many on a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from holdfast.core.errors import RecipeError
from holdfast.fits.cross_fitting import resumable
from holdfast.search.bench import Bench, work
from holdfast.search.job import FitJob, FitResult, FitStore, FitWatch

ENGINES = ("local", "ray")


class FitEngine(Protocol):
    """Carries out jobs. The same jobs give the same results, whichever engine does them."""

    def run(
        self,
        bench: Bench,
        jobs: Iterator[FitJob],
        *,
        store: FitStore,
        watch: FitWatch | None = None,
    ) -> Iterator[FitResult]:
        """The jobs' results, each as it is there. The next job is asked for only when a worker is
        free, so that a search may choose it by what was found so far. What the ``store`` has is
        not done again. The log gets what befalls fits, not what each of them decides."""
        ...


def engine_of(name: str, address: str | None = None) -> FitEngine:
    """The engine of this name; ``address`` is that of a Ray cluster.

    Raises ``RecipeError`` for a name or an address that does not go with it, ``MachineError`` where
    Ray is not installed or cannot be reached.
    """
    if name not in ENGINES:
        raise RecipeError("--engine", "is none", name, f"There are {', '.join(ENGINES)}.")
    if name == "local":
        if address is not None:
            rule = "is that of a Ray cluster, and the engine is local"
            raise RecipeError("--address", rule, address, "Add --engine ray, or leave it out.")
        return Local()
    from holdfast.search.on_ray import RayEngine

    return RayEngine.of(address)


class Local:
    """The engine of a machine of one's own: a fit has all of its threads."""

    def run(
        self,
        bench: Bench,
        jobs: Iterator[FitJob],
        *,
        store: FitStore,
        watch: FitWatch | None = None,
    ) -> Iterator[FitResult]:
        """See ``FitEngine.run``."""
        for job in jobs:
            done = store.load(job)
            if done is None:
                with resumable(job.key):
                    done = work(bench, job, watch)
                store.save(job, done)
            yield done
