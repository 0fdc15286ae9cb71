"""One monitored run of another trainer, as the guard's engine sees it.

An adapter calls ``evaluate`` at each evaluation, reads ``engine.stop_because``, and calls
``restore`` at the end. This module depends on no library's trainer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from holdfast.core.actions import Continue, RollBack
from holdfast.core.errors import Defect
from holdfast.core.events import Advisor
from holdfast.core.records import Decision, Snapshot, Verdict
from holdfast.monitor.judge import judge
from holdfast.plugins.trainers.foreign import ForeignRun, user_code
from holdfast.plugins.trainers.weights import WeightCopies, without_side_effects
from holdfast.terminal.progress import describe_actions
from holdfast.training.engine import Appliers, GuardEngine, Rules
from holdfast.training.journal import Journal
from holdfast.training.restore import RestorePoint, SavedWeights
from holdfast.training.task import snapshot_fields

GUARD_DISABLED = "the guard disabled itself; training continues without it"


class GuardHandle(Protocol):
    """The guard, as an adapter needs it; see ``guard.Guard``."""

    policy: Any
    hold_out: float | None
    sample_rows: int | None
    evaluations: int | None
    seed: int

    def promise(self, decision: Decision) -> None: ...

    def begin(self, foreign_run: ForeignRun, state: dict[str, Any] | None) -> TrainerRun: ...

    def finish(self) -> None: ...

    def step_aside(
        self, hook: str, error: Exception, watch: TrainerRun | None, output: Callable[[], Path]
    ) -> None: ...


class TrainerRun:
    """The ``training.engine.GuardedTrainer`` of another library's trainer.

    Its rows are measured by its adapter, its weights can be copied, and it can be stopped; the
    adapter says what else can be changed (``ForeignRun.changes``). The rest of the training state
    is out of reach, so it cannot return to an earlier point.

    Parameters
    ----------
    folder : where ``events.jsonl`` goes; created at the first evaluation.
    foreign_run : the module that learns, how its rows are measured, its known facts.
    choose : a function from a history to the position of the best checkpoint.
    advisor : decides about stopping, or ``None``: the guard then only observes, keeps no copy of
        the weights and changes nothing.
    log : receives each change of verdict, each action and each decision, as one line.
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
        """The changes that the trainer allows, in addition to stopping and to restoring the best
        checkpoint at the end.
        """
        return self.foreign_run.changes

    @property
    def step(self) -> int:
        """The step of the current or last evaluation."""
        return self._position[0]

    @property
    def seconds(self) -> float:
        """Wall time since the run began, including the time before a resume."""
        return self._seconds_before + time.perf_counter() - self._clock

    @property
    def device(self) -> str:
        """The device of the model."""
        return str(next(self.foreign_run.model.parameters()).device)

    def begin(self, decisions: Sequence[Decision]) -> None:
        """Write the decisions made so far; once, at the beginning of a run."""
        self._make_folder()
        size = f"{self._weights.megabytes:,.1f} MB"
        copy_words = f"a copy of {size} in host memory"
        because = f"{self._weights.count:,} trainable parameters; restored at the end"
        if self._advisor is None:
            copy_words = "no copy"
            because = "the guard observes: it neither stops nor restores (policy='off')"
        memory = [Decision("best checkpoint in memory", copy_words, because)]
        if not self._weights.tracked:
            because = f"two further copies of {size} would be needed"
            memory.append(Decision("distances of the weights", "not measured", because))
        for decision in (*decisions, *memory):
            self.decide(0, decision)

    def _make_folder(self) -> None:
        with user_code(f"the folder {self.folder}"):
            self.folder.mkdir(parents=True, exist_ok=True)

    def decide(self, step: int, decision: Decision) -> None:
        """Report a decision and write it to the journal."""
        self.decisions.append(decision)
        self._journal.note(step, decision.what, decision.because, chosen=decision.chosen)
        self._log(f"{decision.what}: {decision.chosen} ({decision.because})")

    def note_gradient(self, norm: float) -> None:
        """Store a gradient norm that the trainer logged; the next evaluation takes their mean."""
        self._norms.append(norm)

    def evaluate(self, step: int, epoch: float, examples_seen: int, rate: float) -> None:
        """Run one evaluation. A second one at the same step does nothing."""
        snapshots = self.engine.snapshots
        # A trainer evaluates each of several sets of evaluation rows, with an event for each.
        if snapshots and snapshots[-1].step >= step:
            return
        self._position = (step, epoch, examples_seen, rate)
        before = len(self.engine.actions)
        try:
            self.engine.evaluate()
        finally:
            # What was done before an action that failed, too.
            for words in describe_actions([one for _, one in self.engine.actions[before:]]):
                self._log(f"step {step}: {words}")

    def restore(self, step: int) -> bool:
        """Restore the best checkpoint, where the guard may act; whether other weights were
        loaded."""
        best = self.engine.best
        if self._advisor is None or not best.tensors:
            return False
        because = f"the best checkpoint is step {best.step}"
        if best.step == self.engine.snapshots[-1].step:
            self.engine.record(step, Continue(because, best.step))
            return False
        self._weights.load(best.tensors)
        # The run is over: this opens no branch, and every evaluation stays in its history.
        self.engine.record(step, RollBack(because, best.step))
        return True

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
            # A resumed trainer may have more steps; earlier evaluations stay unchanged.
            planned_steps=self.foreign_run.run_facts.planned_steps,
        )

    def save_weights(self) -> SavedWeights:
        return SavedWeights(self.step, self._weights.copy() if self._advisor is not None else {})

    def restore_point(self) -> None:
        """Not available: optimizer, schedule and rows are the trainer's."""

    def restore_from(self, point: RestorePoint) -> None:
        raise Defect("the guard", "cannot restore a point of another trainer", point.weights.step)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resume needs, in types that the weights-only loader reads."""
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
        """Continue where ``state_dict`` was taken; later lines of the journal are discarded."""
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
        self._journal.restore(state["journal"])

    def _judge(self, history: Sequence[Snapshot], kept: int | None = None) -> Verdict:
        # Without an advisor the last checkpoint remains, whichever is the best.
        saved = None if self._advisor is None else kept
        return judge(history, self.foreign_run.run_facts, saved)
