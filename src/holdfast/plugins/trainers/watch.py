"""One watched run of a foreign trainer, as the guard's engine sees it.

An adapter calls ``look`` at each evaluation point, reads ``engine.stop_because``, and calls
``restore`` at the end. Nothing in here knows a library.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from holdfast.core.actions import Continue, RollBack, to_record
from holdfast.core.errors import Defect
from holdfast.core.events import Advisor
from holdfast.core.records import Decision, Snapshot, Verdict
from holdfast.monitor.judge import judge
from holdfast.plugins.trainers.foreign import ForeignRun, user_code
from holdfast.plugins.trainers.weights import WeightCopies, without_side_effects
from holdfast.training.engine import Appliers, GuardEngine, Rules
from holdfast.training.journal import Journal
from holdfast.training.restore import RestorePoint, SavedWeights
from holdfast.training.task import snapshot_fields

GUARD_DISABLED = "the guard stepped aside; training goes on without it"


class GuardHandle(Protocol):
    """The guard, as an adapter needs it; see ``guard.Guard``."""

    policy: Any
    hold_out: float | None
    probe_rows: int | None
    looks: int
    seed: int

    def promise(self, decision: Decision) -> None: ...

    def begin(self, foreign_run: ForeignRun, state: dict[str, Any] | None) -> TrainerRun: ...

    def finish(self) -> None: ...

    def step_aside(
        self, hook: str, error: Exception, watch: TrainerRun | None, output: Callable[[], Path]
    ) -> None: ...


class TrainerRun:
    """``training.engine.GuardedTrainer`` of a run whose trainer is somebody else's: its rows are
    measured as its adapter says, its weights can be copied, and it can be stopped; what else of it
    can be changed its adapter says too (``ForeignRun.changes``). All that its training depends on
    is out of reach, so it cannot go back.

    Parameters
    ----------
    folder : where ``events.jsonl`` goes; made at the first look.
    foreign_run : the module that learns, how its rows are measured, what is known of it.
    choose : the place in a history of the state to keep.
    advisor : decides about stopping, or ``None``: the guard then only observes, keeps no copy of
        the weights and changes nothing.
    say : hears each change of verdict and each decision, as one line.
    """

    def __init__(
        self,
        folder: Path,
        foreign_run: ForeignRun,
        choose: Callable[[Sequence[Snapshot]], int],
        advisor: Advisor | None,
        seed: int,
        log: Callable[[str], None],
    ) -> None:
        self.folder = folder
        self.foreign_run = foreign_run
        self.decisions: list[Decision] = []
        self._weights = WeightCopies(foreign_run.model)
        self._advisor = advisor
        self._seed = seed
        self._log = log
        self._journal = Journal(folder)
        self._norms: list[float] = []
        self._position: tuple[int, float, int, float] = (0, 0.0, 0, 0.0)
        self._clock, self._seconds_before = time.perf_counter(), 0.0
        self.engine = GuardEngine(self, Rules(self._judge, choose, advisor), self._journal, log)

    @property
    def appliers(self) -> Appliers:
        """What the trainer lets others change; beside it a run can be stopped, and its best state
        put back at the end."""
        return self.foreign_run.changes

    @property
    def step(self) -> int:
        """Of the present or last look."""
        return self._position[0]

    @property
    def seconds(self) -> float:
        """Wall time since the run began, over a resume too."""
        return self._seconds_before + time.perf_counter() - self._clock

    @property
    def device(self) -> str:
        """Where the model is."""
        return str(next(self.foreign_run.model.parameters()).device)

    def begin(self, decisions: Sequence[Decision]) -> None:
        """Write what was decided on the way here; once, at the beginning of a run."""
        self._make_folder()
        size = f"{self._weights.megabytes:,.1f} MB"
        copy_words = f"a copy of {size} in host memory"
        because = f"{self._weights.count:,} trainable parameters; it is put back at the end"
        if self._advisor is None:
            copy_words = "no copy"
            because = "the guard observes: it neither stops nor restores (policy='off')"
        memory = [Decision("best state", copy_words, because)]
        if not self._weights.tracked:
            because = f"two further copies of {size} would be needed"
            memory.append(Decision("distances of the weights", "not measured", because))
        for decision in (*decisions, *memory):
            self.decide(0, decision)

    def _make_folder(self) -> None:
        with user_code(f"the folder {self.folder}"):
            self.folder.mkdir(parents=True, exist_ok=True)

    def decide(self, step: int, decision: Decision) -> None:
        """Say a choice that was made without being asked, and write it down."""
        self.decisions.append(decision)
        self._journal.note(step, decision.what, decision.because, chosen=decision.chosen)
        self._log(f"{decision.what}: {decision.chosen} ({decision.because})")

    def note_gradient(self, norm: float) -> None:
        """A gradient norm that the trainer told; the next look takes the mean of them."""
        self._norms.append(norm)

    def evaluate(self, step: int, epoch: float, examples_seen: int, rate: float) -> None:
        """One evaluation point. A second look at a step does nothing."""
        snapshots = self.engine.snapshots
        # A trainer evaluates each of several sets of evaluation rows, and says so each time.
        if snapshots and snapshots[-1].step >= step:
            return
        self._position = (step, epoch, examples_seen, rate)
        self.engine.evaluate()

    def restore(self, step: int) -> None:
        """Put the best state back into the model, where the guard may act."""
        best = self.engine.best
        if self._advisor is None or not best.tensors:
            return
        because = f"the state of step {best.step} is kept"
        if best.step == self.engine.snapshots[-1].step:
            self.engine.record(step, Continue(because, best.step))
            return
        self._weights.load(best.tensors)
        # The run is over: this opens no branch, and every look stays part of its history.
        self.engine.record(step, RollBack(because, best.step))

    def observe(self) -> Snapshot:
        step, epoch, examples_seen, rate = self._position
        with without_side_effects(self.foreign_run.model, self._seed):
            probe, valid = self.foreign_run.measure()
        update, distance = self._weights.movement()
        norms, self._norms = self._norms, []
        return Snapshot(
            step=step,
            epoch=round(epoch, 6),
            examples_seen=examples_seen,
            phase="train" if step else "start",
            **snapshot_fields(probe, valid),
            learning_rate=rate,
            gradient_norm=sum(norms) / len(norms) if norms else None,
            relative_update=update,
            distance=distance,
            seconds=self.seconds,
            # A resumed trainer may be given more steps; what earlier looks saw stays as it was.
            planned_steps=self.foreign_run.run_facts.planned_steps,
        )

    def save_weights(self) -> SavedWeights:
        return SavedWeights(self.step, self._weights.copy() if self._advisor is not None else {})

    def restore_point(self) -> None:
        """None: optimizer, schedule and rows are the trainer's."""

    def restore_from(self, point: RestorePoint) -> None:
        raise Defect("the guard", "has no restore point of another's trainer", point.weights.step)

    def state_dict(self) -> dict[str, Any]:
        """Everything a resume needs, in types that the weights-only loader reads."""
        best = self.engine.best
        return {
            **self.engine.state_dict(),
            "best_step": best.step,
            "best": dict(best.tensors),
            "seconds": self.seconds,
            "folder": self.folder.name,
            "norms": self._norms,
            "decisions": [(d.what, d.chosen, d.because) for d in self.decisions],
            "advisor": self._advisor.state_dict() if self._advisor else None,
            "weights": self._weights.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken; later lines of the journal are forgotten."""
        self.engine.load_state_dict(state)
        self.engine.best = SavedWeights(state["best_step"], state["best"])
        self.decisions = [Decision(*parts) for parts in state["decisions"]]
        self._seconds_before, self._clock = state["seconds"], time.perf_counter()
        self._norms = list(state["norms"])
        self._weights.load_state_dict(state["weights"])
        if self._advisor is not None and state["advisor"] is not None:
            self._advisor.load_state_dict(state["advisor"])
        self.engine.update_verdict()
        self._make_folder()
        if "journal" in state:
            self._journal.restore(state["journal"])
            return
        # An older version began it, whose state holds no journal. Its looks and actions are written
        # again; earlier verdicts are not kept apart, and are left out.
        self._journal.restore("")
        for decision in self.decisions:
            self._journal.note(0, decision.what, decision.because, chosen=decision.chosen)
        for snapshot in self.engine.snapshots:
            self._journal.write("snapshot", **snapshot.summary())
        for step, action in self.engine.actions:
            self._journal.write("action", step, **to_record(action))

    def _judge(self, history: Sequence[Snapshot], kept: int | None = None) -> Verdict:
        return judge(history, self.foreign_run.run_facts, kept)
