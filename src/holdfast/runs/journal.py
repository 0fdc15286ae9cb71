"""Where a run is written: its journal, its checkpoints, what it began with, who is told of it.

The trackers of a run, open for as long as it needs them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from holdfast.contract.fit import FittedModel, Scored, TrainingPlan
from holdfast.contract.run_folder import CHECKPOINTS
from holdfast.core.records import Decision
from holdfast.fits.place import FitPlace
from holdfast.prepare.rows import Divided
from holdfast.prepare.sharding import part_of
from holdfast.runs.outline import outline_model
from holdfast.runs.scoring import opened_before
from holdfast.runs.start import Destination, begun_elsewhere, remember
from holdfast.training.checkpoint import CheckpointStore
from holdfast.training.journal import Journal
from holdfast.training.listeners.alerts import Alerts
from holdfast.training.listeners.trackers import MARK, Track, open_track

if TYPE_CHECKING:
    from accelerate import Accelerator

    from holdfast.recipe import Recipe


class RunFolder:
    """The folder of one run while it is made; ``fit`` asks it to ``begin``.

    ``opened_before`` is when an earlier, unfinished scoring of this run opened the test rows, if
    one did. On leaving, trackers are closed, also those of a run that broke.
    """

    def __init__(self, to: Destination, divided: Divided) -> None:
        self._to = to
        self._divided = divided
        self._open = contextlib.ExitStack()
        self._tracks: tuple[Track, ...] = ()
        self.opened_before: str | None = None

    @property
    def run(self) -> Path:
        """The folder itself."""
        return self._to.run

    @property
    def kept_in(self) -> Path:
        """What goes when the run is finished lies here."""
        return self._to.run / CHECKPOINTS

    def begin(self, ready: TrainingPlan, accelerator: Accelerator) -> FitPlace:
        """Write down what the run begins with, or compare it with what it began with.

        Raises ``RunError`` where a run that is continued began with other rows or settings.
        """
        to, writes = self._to, accelerator.is_main_process
        to.outline(outline_model(ready))
        first = remember(to, ready, self._divided) if writes else None
        accelerator.wait_for_everyone()
        begun = first or begun_elsewhere(to.run, ready, self._divided)
        self._tracks = self._open.enter_context(tracked(to.run, ready.recipe, writes))
        journal = Journal(to.run if writes else None)
        # The loop takes the journal back to its last checkpoint, which may be before that.
        self.opened_before = opened_before(journal)
        return FitPlace(
            journal=journal,
            store=CheckpointStore(
                self.kept_in,
                to.every_s,
                begun.mark,
                asdict(begun) if writes else {},
                part_of(ready.recipe, accelerator),
            ),
            kept_in=self.kept_in,
            resume=to.resume,
            decisions=[Decision(**decision) for decision in begun.decisions],
            listeners=(*self._alerts(ready, writes), *self._tracks),
            begun=begun,
            test_rows=len(self._divided.splits.test),
        )

    def send_score(self, fitted: FittedModel, scored: Scored) -> None:
        """The honest score, beside the curves that led to it."""
        for track in self._tracks:
            track.score(fitted.trained.last_step, scored.blocks["test"]["metrics"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def _alerts(self, ready: TrainingPlan, writes: bool) -> tuple[Any, ...]:
        wanted = ready.recipe.alert
        if not writes or not (wanted.command or wanted.webhook):
            return ()
        run = self._to.run.name
        return (Alerts(wanted.on, wanted.command, wanted.webhook, run),)


@contextlib.contextmanager
def tracked(run: Path, recipe: Recipe, main_process: bool) -> Iterator[tuple[Track, ...]]:
    """The listener that ``track.to`` asks for, closed at the end, also of a run that broke; none
    where nothing is asked for, and in processes other than the main one."""
    if not recipe.track.to or not main_process:
        yield ()
        return
    track = open_track(
        recipe.track.to,
        recipe.track.project,
        recipe.track.name or run.resolve().name,
        run,
        run / CHECKPOINTS / MARK,
        recipe.shown(),
    )
    try:
        yield (track,)
    finally:
        track.close()
