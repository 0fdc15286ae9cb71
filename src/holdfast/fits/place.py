"""Where a fit is written while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from holdfast.contract.fit import RunStart
from holdfast.core.records import Decision
from holdfast.training.checkpoint import CheckpointStore
from holdfast.training.journal import Journal

if TYPE_CHECKING:
    from accelerate import Accelerator

    from holdfast.contract.fit import TrainingPlan


@dataclass(frozen=True, slots=True)
class FitPlace:
    """Where a fit is written while it runs: nowhere, unless a run's folder is given.

    ``decisions`` are what the journal begins with; with ``resume`` the newest state in ``store`` is
    continued. ``listeners`` join the loop's own (alerts, trackers). ``begun`` is what the folder
    keeps of the run's beginning. ``test_rows`` are to be scored at the end.
    """

    journal: Journal = field(default_factory=lambda: Journal(None))
    store: CheckpointStore = field(default_factory=lambda: CheckpointStore(None))
    kept_in: Path | None = None
    resume: bool = False
    decisions: Sequence[Decision] = ()
    listeners: Sequence[Any] = ()
    begun: RunStart | None = None
    test_rows: int | None = None


class FitFolder(Protocol):
    """What a fit asks of the folder that it is written into, a run's (``runs.journal.RunFolder``)
    or none."""

    @property
    def kept_in(self) -> Path:
        """What goes when the run is finished lies here."""

    def begin(self, ready: TrainingPlan, accelerator: Accelerator) -> FitPlace:
        """Write down what the run begins with. Raises ``RunError`` where a run that is continued
        began with other rows or settings."""
