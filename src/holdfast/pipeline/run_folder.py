"""Where a run is written: its journal, its checkpoints, what it began with, who is told of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from holdfast.core.records import Decision
from holdfast.pipeline.alerts import Alerts
from holdfast.pipeline.begun import mark_of, remember
from holdfast.pipeline.compose import Place
from holdfast.pipeline.folder import CHECKPOINTS
from holdfast.pipeline.outline import Outline, outline_model
from holdfast.pipeline.ready import Fitted, Ready, Scored
from holdfast.pipeline.rows import Divided, Notify
from holdfast.pipeline.scoring import opened_before
from holdfast.pipeline.tracking import tracked
from holdfast.training.checkpoint import LEAST_SECONDS, CheckpointStore
from holdfast.training.journal import Journal
from holdfast.training.track import Track

if TYPE_CHECKING:
    from accelerate import Accelerator


class RunFolder:
    """The folder of one run while it is made; ``fit`` asks it to ``begin``.

    With ``resume`` the run there is continued. ``every_s`` is the least time between two
    checkpoints; ``outline`` hears what was made of the model. ``opened_before`` is when an earlier,
    unfinished scoring of this run opened the test rows, if one did. On leaving, trackers are
    closed, also those of a run that broke.
    """

    def __init__(
        self,
        run: Path,
        divided: Divided,
        *,
        resume: bool = False,
        every_s: float = LEAST_SECONDS,
        notify: Notify = lambda _: None,
        outline: Callable[[Outline], None] = lambda _: None,
    ) -> None:
        self.run = run
        self._divided = divided
        self._resume = resume
        self._every_s = every_s
        self._notify = notify
        self._outline = outline
        self._open = contextlib.ExitStack()
        self._tracks: tuple[Track, ...] = ()
        self.opened_before: str | None = None

    @property
    def kept_in(self) -> Path:
        """What goes when the run is finished lies here."""
        return self.run / CHECKPOINTS

    def begin(self, ready: Ready, accelerator: Accelerator) -> Place:
        """Write down what the run begins with, or compare it with what it began with.

        Raises ``RunError`` where a run that is continued began with other rows or settings.
        """
        self._outline(outline_model(ready))
        writes, begun = accelerator.is_main_process, {}
        if writes:
            begun = remember(self.run, ready, self._divided, self._resume, self._notify)
        accelerator.wait_for_everyone()
        mark = mark_of(self.run, self._divided, begun)
        self._tracks = self._open.enter_context(tracked(self.run, ready.recipe, writes))
        journal = Journal(self.run if writes else None)
        # The loop takes the journal back to its last checkpoint, which may be before that.
        self.opened_before = opened_before(journal)
        return Place(
            journal=journal,
            store=CheckpointStore(self.kept_in, self._every_s, self._notify, mark, begun),
            kept_in=self.kept_in,
            resume=self._resume,
            decisions=[Decision(**decision) for decision in begun.get("decisions", ())],
            listeners=(*self._alerts(ready, writes), *self._tracks),
            begun=begun,
        )

    def send_score(self, fitted: Fitted, scored: Scored) -> None:
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

    def _alerts(self, ready: Ready, writes: bool) -> tuple[Any, ...]:
        wanted = ready.recipe.alert
        if not writes or not (wanted.command or wanted.webhook):
            return ()
        name = self.run.name
        return (Alerts(wanted.on, wanted.command, wanted.webhook, name, self._notify),)
