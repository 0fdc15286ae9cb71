"""One watched run of a foreign trainer: observe, diagnose, decide, remember the best.

The same four verbs as in ``training/loop.py``, with the same journal; what differs is who drives.
An adapter calls ``look`` at each evaluation point, reads ``stop_because``, and calls ``restore`` at
the end. Nothing in here knows a library.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from holdfast.core.errors import Defect
from holdfast.core.events import Advisor
from holdfast.core.records import Action, Decision, Snapshot, Verdict
from holdfast.core.run_facts import RunFacts
from holdfast.integrations.guard.still import undisturbed
from holdfast.integrations.guard.weights import Weights
from holdfast.monitor.judge import judge
from holdfast.tasks.base import Measured
from holdfast.training.journal import Journal
from holdfast.training.loop import verdict_line
from holdfast.training.run import pack, unpack

KEPT = ("actions", "stop_because", "evaluate_s", "guard_s", "best_step")


class Watch:
    """What the guard knows of one run.

    Parameters
    ----------
    folder : where ``events.jsonl`` goes; made at the first look.
    model : the module that learns, as the trainer holds it.
    measure : gives the train probe and the evaluation rows, measured; called in evaluation mode.
    circumstances : what the trainer knows of the run.
    advisor : decides about stopping, or ``None``: the guard then only observes, keeps no copy of
        the weights and changes nothing.
    choose : the place in a history of the state to keep.
    say : hears each change of verdict, as one line.
    """

    def __init__(
        self,
        folder: Path,
        model: torch.nn.Module,
        measure: Callable[[], tuple[Measured, Measured]],
        run_facts: RunFacts,
        advisor: Advisor | None,
        choose: Callable[[Sequence[Snapshot]], int],
        seed: int,
        say: Callable[[str], None],
    ) -> None:
        self.folder = folder
        self.run_facts = run_facts
        self.history: list[Snapshot] = []
        self.verdict: Verdict | None = None
        self.actions: list[tuple[int, str, str, dict[str, Any]]] = []
        self.decisions: list[Decision] = []
        self.stop_because: str | None = None
        self.evaluate_s = self.guard_s = 0.0
        self.best_step = -1
        self._best: dict[str, torch.Tensor] = {}
        self._model = model
        self._weights = Weights(model)
        self._measure = measure
        self._advisor = advisor
        self._choose = choose
        self._seed = seed
        self._say = say
        self._journal = Journal(folder)
        self._norms: list[float] = []
        self._clock, self._before = time.perf_counter(), 0.0

    @property
    def seconds(self) -> float:
        """Wall time since the run began, over a resume too."""
        return self._before + time.perf_counter() - self._clock

    @property
    def device(self) -> str:
        """Where the model is."""
        return str(next(self._model.parameters()).device)

    def begin(self, decisions: Sequence[Decision]) -> None:
        """Write what was decided on the way here; once, at the beginning of a run."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for decision in (*decisions, *self._memory()):
            self.decide(0, decision)

    def decide(self, step: int, decision: Decision) -> None:
        """Say a choice that was made without being asked, and write it down."""
        self.decisions.append(decision)
        self._journal.note(step, decision.what, decision.because, chosen=decision.chosen)
        self._say(f"{decision.what}: {decision.chosen} ({decision.because})")

    def note_gradient(self, norm: float) -> None:
        """A gradient norm that the trainer told; the next look takes the mean of them."""
        self._norms.append(norm)

    def look(self, step: int, epoch: float, seen: int, rate: float) -> None:
        """One evaluation point: snapshot, verdict, advice. A second look at a step does nothing."""
        if self.history and self.history[-1].step >= step:
            return
        start = time.perf_counter()
        snapshot = self._snapshot(step, epoch, seen, rate)
        self.history.append(snapshot)
        self._journal.write("snapshot", **snapshot.summary())
        self.evaluate_s += time.perf_counter() - start
        start = time.perf_counter()
        self._remember()
        self._judge(step)
        self.guard_s += time.perf_counter() - start

    def restore(self, step: int) -> None:
        """Put the best state back into the model, where the guard may act."""
        if self._advisor is None or not self._best:
            return
        last = self.history[-1].step
        if self.best_step != last:
            self._weights.load(self._best)
        self._act(
            step,
            Action(
                "RollBack" if self.best_step != last else "Continue",
                f"the state of step {self.best_step} is kept",
                {"to_step": self.best_step},
            ),
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything a resume needs, in types that the weights-only loader reads."""
        return {
            **{name: getattr(self, name) for name in KEPT},
            "seconds": self.seconds,
            "journal": self._journal.text,
            "folder": self.folder.name,
            "norms": self._norms,
            "best": self._best,
            "history": [pack(snapshot) for snapshot in self.history],
            "decisions": [(d.what, d.chosen, d.because) for d in self.decisions],
            "advisor": self._advisor.state_dict() if self._advisor else None,
            "weights": self._weights.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken; later lines of the journal are forgotten."""
        for name in KEPT:
            setattr(self, name, state[name])
        self.actions = [(s, a, b, dict(c)) for s, a, b, c in state["actions"]]
        self.history = [unpack(packed) for packed in state["history"]]
        self.decisions = [Decision(*told) for told in state["decisions"]]
        self._before, self._clock = state["seconds"], time.perf_counter()
        self._norms, self._best = list(state["norms"]), state["best"]
        self._weights.load_state_dict(state["weights"])
        if self._advisor is not None and state["advisor"] is not None:
            self._advisor.load_state_dict(state["advisor"])
        self.verdict = judge(self.history, self.run_facts, self.best_step) if self.history else None
        self.folder.mkdir(parents=True, exist_ok=True)
        if "journal" in state:
            self._journal.restore(state["journal"])
        else:
            self._write_again()

    def _write_again(self) -> None:
        """The journal of a run that an older version began, whose state holds none: its looks and
        actions. Earlier verdicts are not kept apart, and are left out."""
        self._journal.restore("")
        for what in self.decisions:
            self._journal.note(0, what.what, what.because, chosen=what.chosen)
        for snapshot in self.history:
            self._journal.write("snapshot", **snapshot.summary())
        for step, action, because, settings in self.actions:
            self._journal.write("action", step, action=action, because=because, settings=settings)

    def _snapshot(self, step: int, epoch: float, seen: int, rate: float) -> Snapshot:
        with undisturbed(self._model, self._seed):
            probe, valid = self._measure()
        update, distance = self._weights.moved()
        norms, self._norms = self._norms, []
        return Snapshot(
            step=step,
            epoch=round(epoch, 6),
            examples_seen=seen,
            phase="train" if step else "start",
            train_losses=probe.losses,
            valid_losses=valid.losses,
            train_metrics=probe.metrics,
            valid_metrics=valid.metrics,
            refined_loss=valid.refined_loss,
            temperature=valid.temperature,
            learning_rate=rate,
            gradient_norm=sum(norms) / len(norms) if norms else None,
            relative_update=update,
            distance=distance,
            seconds=self.seconds,
            train_correct=probe.correct,
            valid_correct=valid.correct,
            valid_logits=valid.logits,
            # A resumed trainer may be given more steps; what earlier looks saw stays as it was.
            planned_steps=self.run_facts.planned_steps,
        )

    def _remember(self) -> None:
        """Keep a copy of the present state if it is the one to keep."""
        chosen = self._choose(self.history)
        if chosen == len(self.history) - 1:
            self.best_step = self.history[-1].step
            self._best = self._weights.copy() if self._advisor is not None else {}

    def _judge(self, step: int) -> None:
        before = self.verdict
        self.verdict = judge(self.history, self.run_facts, self.best_step)
        found = self.verdict
        if before is None or before.label != found.label:
            self._journal.write("verdict", step, **verdict_line(found))
            self._say(f"step {step}: {found.label.replace('_', ' ')}. {found.because}")
        for action in self._advisor.decide(found, self.history) if self._advisor else ():
            self._act(step, action)

    def _act(self, step: int, action: Action) -> None:
        if action.action == "Stop":
            self.stop_because = action.because
            self._say(f"step {step}: stops, {action.because}")
        elif action.action not in ("Continue", "RollBack"):
            raise Defect("control", "advised what a guard cannot do in another's trainer", action)
        self.actions.append((step, action.action, action.because, dict(action.settings)))
        self._journal.write(
            "action", step, action=action.action, because=action.because, settings=action.settings
        )

    def _memory(self) -> list[Decision]:
        size = f"{self._weights.megabytes:,.1f} MB"
        told = []
        if self._advisor is not None:
            told.append(
                Decision(
                    "best state",
                    f"a copy of {size} in host memory",
                    f"{self._weights.count:,} trainable parameters; it is put back at the end",
                )
            )
        else:
            because = "the guard observes: it neither stops nor restores (policy='off')"
            told.append(Decision("best state", "no copy", because))
        if not self._weights.tracked:
            because = f"two further copies of {size} would be needed"
            told.append(Decision("distances of the weights", "not measured", because))
        return told
