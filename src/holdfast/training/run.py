"""The state of a run: what the loop moves, what listeners see, what a checkpoint keeps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from holdfast.core.errors import Defect
from holdfast.core.events import EVENTS, Advisor, Monitor, Stateful, in_order
from holdfast.core.records import Action, Decision, Ints, Snapshot, Verdict
from holdfast.core.updates import Pool
from holdfast.models.fresh import same_memory
from holdfast.models.quantize import frozen_tensors
from holdfast.training.batch_losses import BatchLosses
from holdfast.training.batches import probe_positions
from holdfast.training.checkpoint import CheckpointStore
from holdfast.training.journal import Journal, restore
from holdfast.training.observe import EVALUATION_TOKENS, Observer
from holdfast.training.plan import Phase, Plan
from holdfast.training.prefix_cache import Passes, PrefixCache

if TYPE_CHECKING:
    from accelerate import Accelerator

    from holdfast.tasks.base import Task, Written

MARK_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Job:
    """Everything a run is made of, ready to go.

    ``decisions`` were made on the way here; the journal begins with them.
    ``groups`` turns a phase into parameter groups (``params``, ``lr``, ``weight_decay``), or none
    where nothing learns; ``choose`` gives the place in the history of the state to keep, which is
    the newest or the one kept before; ``write`` lets the network write texts at every evaluation
    point, where that is asked for. ``cache`` keeps the outputs of frozen first layers.
    ``pretrained`` are the weights as they were loaded, which lie in memory anyway. ``notify`` hears
    what had to be decided to continue a run whose files were damaged.
    """

    network: Any
    task: Task
    train: Any
    valid: Any
    plan: Plan
    accelerator: Accelerator
    groups: Callable[[Any, Phase], list[dict[str, Any]]]
    optimizer: Callable[[str, list[dict[str, Any]]], torch.optim.Optimizer]
    schedule: Callable[[str, int, int], Any]
    choose: Callable[[Sequence[Snapshot]], int]
    monitor: Monitor
    advisor: Advisor | None = None
    write: Callable[[Any], Written] | None = None
    listeners: Sequence[Any] = ()
    decisions: Sequence[Decision] = ()
    journal: Journal = field(default_factory=lambda: Journal(None))
    store: CheckpointStore = field(default_factory=lambda: CheckpointStore(None))
    cache: PrefixCache | None = None
    pretrained: Mapping[str, torch.Tensor] = field(default_factory=dict)
    notify: Callable[[Decision], None] = lambda _: None


@dataclass(slots=True)
class Best:
    """The best state so far: the tensors that learn, on the processor's memory."""

    step: int = -1
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)


class Run:
    """A run in motion. Public attributes are what listeners may read."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.network = job.network
        self.journal = job.journal
        self.plan = job.plan
        self.step = 0
        self.phase_index = 0
        self.step_in_phase = 0
        self.examples_seen = 0
        self.halvings = 0
        self.history: list[Snapshot] = []
        self.verdict: Verdict | None = None
        self.actions: list[tuple[int, Action]] = []
        self.best = Best()
        self.stop_because: str | None = None
        self.running_loss = float("nan")
        self.batch_losses: BatchLosses | None = None
        self.gradient_norms: list[float] = []
        self.learning_rate = 0.0
        self.evaluate_s = 0.0
        self.guard_s = 0.0
        self.finished = False
        self.pool: Pool | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self.schedule: Any = None
        self.probe: Ints = probe_positions(job.train.rows, job.plan.probe_rows, job.plan.seed)
        self.observer = Observer(job.accelerator, job.task, tokens_of(job), cache=job.cache)
        self.start: dict[str, torch.Tensor] = {}
        self.previous: dict[str, torch.Tensor] = {}
        self._clock = time.perf_counter()
        self._seconds_before = 0.0
        self._handlers = {event: _handlers(event, in_order(job.listeners)) for event in EVENTS}

    @property
    def phase(self) -> Phase:
        return self.plan.phases[min(self.phase_index, len(self.plan.phases) - 1)]

    @property
    def epoch(self) -> float:
        """Passes over the training rows so far, over all phases."""
        return self.examples_seen / max(1, len(self.job.train))

    @property
    def seconds(self) -> float:
        """Wall time of the run, over all its processes in time."""
        return self._seconds_before + time.perf_counter() - self._clock

    def emit(self, event: str) -> None:
        """Tell every listener that has a method of this name."""
        if event not in self._handlers:
            raise Defect("the loop", "emitted an event that core/events.py does not name", event)
        for handler in self._handlers[event]:
            handler(self)

    def learning_parameters(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that any phase may change, by name."""
        return {n: p for n, p in self.network.named_parameters() if p.requires_grad}

    def changing(self) -> dict[str, torch.Tensor]:
        """Everything that training changes, by name: these, and the running statistics of batch
        norms."""
        return {**self.learning_parameters(), **running_statistics(self.network)}

    def learning_tensors(self) -> dict[str, torch.Tensor]:
        """A copy of them in the processor's memory."""
        return {n: t.detach().cpu().clone() for n, t in self.changing().items()}

    def load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put such a copy back."""
        held = self.changing()
        with torch.no_grad():
            for name, tensor in tensors.items():
                held[name].copy_(tensor)

    def remember_best(self) -> None:
        """Keep the present state, which ``take_snapshot`` has just copied, if it is chosen."""
        if self.job.choose(self.history) == len(self.history) - 1:
            self.best = Best(self.step, self.previous)

    def keep_prefix(self) -> None:
        """Compute the outputs of the frozen first layers, once a row, where they are to be kept."""
        job = self.job
        if job.cache is not None:
            job.cache.notify = lambda why: self.journal.note(self.step, "kept outputs dropped", why)
            sets = {"train": job.train, "valid": job.valid}
            job.cache.fill(Passes(self.network, job.task, job.accelerator), sets, tokens_of(job))

    def let_go(self) -> None:
        """Give the optimizer's and the gradients' memory back, and the disk: scoring needs it."""
        if self.job.cache is not None:
            self.job.cache.remove()
        self.optimizer = None
        for parameter in self.network.parameters():
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Everything a resume needs, in types that the weights-only loader reads."""
        names = (
            "step",
            "phase_index",
            "step_in_phase",
            "examples_seen",
            "running_loss",
            "learning_rate",
            "gradient_norms",
            "evaluate_s",
            "guard_s",
            "stop_because",
            "finished",
            "halvings",
        )
        return {
            **{name: getattr(self, name) for name in names},
            "seconds": self.seconds,
            "journal": self.journal.text,
            "tensors": {n: t.detach() for n, t in self.changing().items()},
            "frozen": self._frozen_sum,
            "start": self.start,
            "previous": self.previous,
            "best": [self.best.step, self.best.tensors],
            **self._optimizer_state(),
            "random": random_state(),
            "history": [pack(snapshot) for snapshot in self.history],
            "actions": [(s, a.action, a.because, dict(a.settings)) for s, a in self.actions],
            "advisor": self.job.advisor.state_dict() if self.job.advisor else None,
            "listeners": {n: kept.state_dict() for n, kept in self._keepers().items()},
        }

    def _keepers(self) -> dict[str, Stateful]:
        """The listeners with a state, by name."""
        return {x.name: x for x in self.job.listeners if hasattr(x, "state_dict")}

    def _optimizer_state(self) -> dict[str, Any]:
        """Nothing of a finished run: its phase is over, and no step follows."""
        if self.optimizer is None or self.finished:
            return {"optimizer": None, "schedule": None}
        return {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}

    def load_state_dict(self, state: dict[str, Any], begin_phase: Callable[[Run], None]) -> None:
        """Continue from ``state_dict``; ``begin_phase`` makes the optimizer of its phase."""
        for name in (
            "step",
            "phase_index",
            "step_in_phase",
            "examples_seen",
            "running_loss",
            "learning_rate",
            "gradient_norms",
            "evaluate_s",
            "guard_s",
            "stop_because",
            "finished",
            "halvings",
        ):
            setattr(self, name, state[name])
        if abs(state["frozen"] - self._frozen_sum) > 1e-6 * max(1.0, abs(state["frozen"])):
            raise Defect("the frozen weights", "are not those of the checkpoint")
        self._seconds_before = state["seconds"]
        self.load_tensors(state["tensors"])
        self.start = same_memory(state["start"], self.job.pretrained)
        self.previous = state["previous"]
        self.best = Best(*state["best"])
        self.history = [unpack(packed) for packed in state["history"]]
        self.actions = [(s, Action(a, b, settings)) for s, a, b, settings in state["actions"]]
        if state["optimizer"] is not None:
            begin_phase(self)
            assert self.optimizer is not None
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
        if self.job.advisor:
            self.job.advisor.load_state_dict(state["advisor"])
        for name, keeper in self._keepers().items():
            if name in state["listeners"]:  # an alert may be set while a run is not finished
                keeper.load_state_dict(state["listeners"][name])
        self.verdict = self.job.monitor(self.history, self.best.step)
        said = self.job.store.said
        restore(self.journal, state["journal"], self.step, said, self.job.notify)
        set_random_state(state["random"])

    @cached_property
    def _frozen_sum(self) -> float:
        """A mark of the weights that never change: Σ |w|, of quantised ones their levels and
        scales. Layer by layer and row by row, since the word embeddings in float64 would be the
        largest thing in memory."""
        frozen = frozen_tensors(self.network)
        rows = (row for t in frozen for row in torch.split(t.reshape(-1), MARK_CHUNK))
        return float(sum(row.abs().sum(dtype=torch.float64).item() for row in rows))


def running_statistics(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The buffers that batch norms change while they train, by name; none of those of a frozen
    one, which stays in evaluation mode."""
    return {
        f"{name}.{key}": buffer
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
        and all(p.requires_grad for p in module.parameters())
        for key, buffer in module.named_buffers(recurse=False)
    }


def tokens_of(job: Job) -> int:
    """Padded tokens of an evaluation batch."""
    longest = int(max([1, *job.train.lengths.tolist(), *job.valid.lengths.tolist()]))
    largest = max(phase.batch_size for phase in job.plan.phases) * longest
    suits = EVALUATION_TOKENS.get(job.accelerator.device.type, EVALUATION_TOKENS["cpu"])
    return max(longest, min(suits, largest))


def _handlers(event: str, listeners: Sequence[Any]) -> list[Callable[[Run], None]]:
    return [getattr(listener, event) for listener in listeners if hasattr(listener, event)]


def random_state() -> dict[str, Any]:
    """Where PyTorch's generators are."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"torch": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: dict[str, Any]) -> None:
    """Put them back there."""
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


_ARRAYS = ("train_losses", "valid_losses", "train_correct", "valid_correct", "valid_logits")


def pack(snapshot: Snapshot) -> dict[str, Any]:
    """A snapshot in types that the weights-only loader reads."""
    fields = {name: getattr(snapshot, name) for name in Snapshot.__slots__}
    for name in _ARRAYS:
        if fields[name] is not None:
            fields[name] = torch.from_numpy(np.ascontiguousarray(fields[name]))
    return fields


def unpack(packed: dict[str, Any]) -> Snapshot:
    """A snapshot from ``pack``."""
    fields = dict(packed)
    for name in _ARRAYS:
        if fields[name] is not None:
            fields[name] = fields[name].numpy()
    return Snapshot(**fields)
