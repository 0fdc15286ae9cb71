"""The state of a run: what the loop moves, what listeners see, what a checkpoint keeps.

What one forward pass of a training step said of its rows.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from holdfast.core.errors import Defect
from holdfast.core.events import EVENTS, Advisor, Monitor, Stateful, in_order
from holdfast.core.records import Decision, Ints, Snapshot, Verdict
from holdfast.core.updates import ForwardPass, RowPool
from holdfast.models.adapters.quantize import frozen_tensors
from holdfast.training.checkpoint import CheckpointStore
from holdfast.training.engine import GuardEngine
from holdfast.training.journal import Journal
from holdfast.training.machine.machine import LossScale
from holdfast.training.machine.sharding import is_sharded, local, summed
from holdfast.training.observe import EVALUATION_TOKENS, FoldEvaluation, FoldLooks, Observer
from holdfast.training.plan import Phase, Plan, probe_positions
from holdfast.training.prefix_cache import PrefixCache, RowPasses
from holdfast.training.restore import NONE, Additions, SavedWeights

if TYPE_CHECKING:
    from accelerate import Accelerator

    from holdfast.core.events import Listener
    from holdfast.models.base import Network, Weights
    from holdfast.training.task import Examples, Task, WrittenMeasurements


MARK_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Job:
    """Everything a run is made of, ready to go.

    ``added`` are examples that are learned from beside ``train``; ``with_added`` are both, in this
    order, with their weights. Nothing but updates and a refitted head reads them.
    ``general`` are examples of what the model knew before, measured at every look; nothing learns
    from them. ``general_rows`` are others of that kind, for what holds on to it.
    ``decisions`` were made on the way here; the journal begins with them.
    ``groups`` turns a phase into parameter groups (``params``, ``lr``, ``weight_decay``), or none
    where nothing learns; ``choose`` gives the place in the history of the state to keep, which is
    the newest or the one kept before; ``write`` lets the network write texts at every evaluation
    point, where that is asked for. ``cache`` keeps the outputs of frozen first layers.
    ``pretrained`` are the weights as they were loaded, which lie in memory anyway. ``additions``
    are what may join the fine-tuning while it goes on. ``out_of_fold`` stands for the validation
    rows where they are learned from too (``valid`` are then ``train``). ``others_s`` gives the
    seconds of what is no step and no pass of a look, the texts of looks and all that follows the
    last step, from what a row takes forward.
    """

    network: Network
    task: Task
    train: Examples
    valid: Examples
    plan: Plan
    accelerator: Accelerator
    groups: Callable[[Any, Phase], list[dict[str, Any]]]
    optimizer: Callable[[str, list[dict[str, Any]]], torch.optim.Optimizer]
    schedule: Callable[[str, int, int], Any]
    choose: Callable[[Sequence[Snapshot]], int]
    monitor: Monitor
    advisor: Advisor | None = None
    write: Callable[[Any], WrittenMeasurements] | None = None
    listeners: Sequence[Any] = ()
    decisions: Sequence[Decision] = ()
    journal: Journal = field(default_factory=lambda: Journal(None))
    store: CheckpointStore = field(default_factory=lambda: CheckpointStore(None))
    cache: PrefixCache | None = None
    pretrained: Mapping[str, torch.Tensor] = field(default_factory=dict)
    added: Examples | None = None
    with_added: Examples | None = None
    general: Examples | None = None
    general_rows: Examples | None = None
    additions: Additions | None = None
    out_of_fold: FoldEvaluation | FoldLooks | None = None
    others_s: Callable[[float], float] | None = None

    @property
    def learnt(self) -> Examples:
        """Everything that updates draw from."""
        return self.train if self.with_added is None else self.with_added


class Run:
    """A run in motion. Public attributes are what listeners may read. ``guarded.begin_run`` makes
    one, with its ``guard``."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.network = job.network
        self.journal = job.journal
        self.plan = job.plan
        self.step = 0
        self.phase_index = 0
        self.step_in_phase = 0
        self.examples_seen = 0
        self.examples_undone = 0
        self.halvings = 0
        self.running_loss = float("nan")
        self.batch_losses: BatchLosses | None = None
        self.gradient_norms: list[float] = []
        self.learning_rate = 0.0
        self.finished = False
        self.pool: RowPool | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self.schedule: Any = None
        self.loss_scale = LossScale(getattr(job.accelerator, "scaler", None))
        self.probe: Ints = probe_positions(job.train.rows, job.plan.probe_rows, job.plan.seed)
        self.observer = Observer(job.accelerator, job.task, tokens_of(job), cache=job.cache)
        self.start: dict[str, torch.Tensor] = {}
        self.previous: Mapping[str, torch.Tensor] = {}
        self._start_here: dict[str, torch.Tensor] = {}
        self._clock = time.perf_counter()
        self._seconds_before = 0.0
        self.switched: dict[str, Sequence[Any]] = {}
        self.hear()
        # Fixed here: what an action freezes is still part of the state.
        self._learning = {n: p for n, p in job.network.named_parameters() if p.requires_grad}
        self._changing = {**self._learning, **running_statistics(job.network)}
        self._asleep: dict[str, torch.Tensor] = {}
        self.dropouts = dropouts_of(job.network)
        self.adjustments = NONE
        # Averages of weights that were tried after the last step (training/snapshot.py).
        self.offers: list[Any] = []
        self.guard: GuardEngine

    @property
    def phase(self) -> Phase:
        return self.plan.phases[min(self.phase_index, len(self.plan.phases) - 1)]

    @property
    def epoch(self) -> float:
        """Passes over the training rows so far, over all phases."""
        return self.examples_seen / max(1, len(self.job.train))

    @property
    def history(self) -> tuple[Snapshot, ...]:
        """The snapshots of the branch that is alive, oldest first."""
        return self.guard.history

    @property
    def looked(self) -> Snapshot:
        """The last snapshot that was taken, from which the run may have gone back."""
        return self.guard.snapshots[-1]

    @property
    def verdict(self) -> Verdict | None:
        """What they show; ``None`` before the first."""
        return self.guard.verdict

    @property
    def best(self) -> SavedWeights:
        """The state to keep so far."""
        return self.guard.best

    @property
    def stop_because(self) -> str | None:
        """Why the run ends before its plan does; ``None`` where it does not."""
        return self.guard.stop_because

    @property
    def seconds(self) -> float:
        """Wall time of the run, over all its processes in time."""
        return self._seconds_before + time.perf_counter() - self._clock

    def continue_clock(self, seconds: float) -> None:
        """Count on from what the run had taken in earlier processes."""
        self._seconds_before, self._clock = seconds, time.perf_counter()

    def emit(self, event: str) -> None:
        """Tell every listener that has a method of this name."""
        if event not in self._handlers:
            raise Defect("the loop", "emitted an event that core/events.py does not name", event)
        for handler in self._handlers[event]:
            handler(self)

    @property
    def listeners(self) -> tuple[Any, ...]:
        """The job's, and those of methods that were switched on."""
        return (*self.job.listeners, *(one for made in self.switched.values() for one in made))

    def hear(self) -> None:
        """Let those who listen now hear what comes."""
        self._handlers = {event: _handlers(event, in_order(self.listeners)) for event in EVENTS}

    def may_learn(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that learn or could: all but what an adapter holds, what the network
        itself keeps fixed, and quantised ones."""
        adapter = getattr(self.network, "adapter", None)
        never = (adapter.frozen_ids if adapter else frozenset()) | getattr(
            self.network, "fixed", frozenset()
        )
        return {
            name: parameter
            for name, parameter in self.network.named_parameters()
            if type(parameter) is torch.nn.Parameter
            and parameter.is_floating_point()
            and id(parameter) not in never
        }

    def thaw(self, names: Collection[str]) -> None:
        """Of the parameters that did not learn from the beginning, let those of these names learn;
        any other that did meanwhile is again what it was. Their memory is shared with the loaded
        network, so they learn in memory of their own."""
        if set(names) == {name for name in self._asleep if name in self._learning}:
            return
        known: Mapping[str, torch.nn.Parameter] = dict(self.network.named_parameters())
        buffers = dict(self.network.named_buffers())
        for name in [name for name in self._asleep if name not in names]:
            tensor = self._asleep.pop(name)
            if name in known:
                parameter = known[name]
                parameter.requires_grad_(False)
                parameter.data, parameter.grad = tensor, None
                del self._learning[name]
            else:
                buffers[name].copy_(tensor)
        for name in names:
            if name not in self._asleep:
                parameter = known[name]
                self._asleep[name] = parameter.data
                parameter.data = parameter.data.clone()
                parameter.requires_grad_(True)
                self._learning[name] = parameter
        order = {name: place for place, name in enumerate(known)}
        self._learning = dict(sorted(self._learning.items(), key=lambda one: order[one[0]]))
        before = self._changing
        self._changing = {**self._learning, **running_statistics(self.network)}
        for name in self._changing.keys() - before.keys() - known.keys():
            self._asleep[name] = buffers[name].detach().clone()
        loaded = {n: t.detach().cpu() for n, t in self._asleep.items()}
        self.start, self.previous = {**loaded, **self.start}, {**loaded, **self.previous}
        self.__dict__.pop("frozen_sum", None)

    def learning_parameters(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that any phase may change, by name; those that are frozen for a while
        with them."""
        return self._learning

    def changing(self) -> dict[str, torch.Tensor]:
        """Everything that training changes, by name: these, and the running statistics of batch
        norms."""
        return self._changing

    def learning_tensors(self) -> dict[str, torch.Tensor]:
        """A copy of them in the processor's memory; of spread ones, of this process's parts."""
        return {n: local(t.detach()).cpu().clone() for n, t in self._changing.items()}

    def load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put such a copy back; what it does not know was as it was loaded."""
        with torch.no_grad():
            for name, tensor in ({**self._asleep, **tensors} if self._asleep else tensors).items():
                local(self._changing[name]).copy_(tensor)

    @contextlib.contextmanager
    def at_start(self) -> Iterator[None]:
        """The network as it was before the first step, for as long as this lasts.

        The tensors change places and nothing is copied; a device that does not hold those of the
        start gets them once, as many as learn. What was passed before keeps its gradient.
        """
        held = {name: tensor.data for name, tensor in self._changing.items()}
        try:
            for name, tensor in self._changing.items():
                device = tensor.device
                if name not in self._start_here:
                    self._start_here[name] = self.start[name].to(device)
                tensor.data = self._start_here[name]
            yield
        finally:
            for name, tensor in self._changing.items():
                tensor.data = held[name]

    def keep_prefix(self) -> None:
        """Compute the outputs of the frozen first layers, once a row, where they are to be kept."""
        job = self.job
        if job.cache is not None:
            job.cache.notify = lambda why: self.journal.note(self.step, "kept outputs dropped", why)
            sets = {"train": job.learnt, "valid": job.valid}
            passes = RowPasses(self.network, job.task, job.accelerator)
            job.cache.fill(passes, sets, tokens_of(job), beginnings={"train": job.train})

    def let_go(self) -> None:
        """Give the optimizer's and the gradients' memory back, and the disk: scoring needs it."""
        if self.job.cache is not None:
            self.job.cache.remove()
        self.optimizer = None
        for parameter in self.network.parameters():
            parameter.grad = None

    def keepers(self) -> dict[str, Stateful]:
        """The listeners with a state, by name."""
        return {x.name: x for x in self.listeners if hasattr(x, "state_dict")}

    @cached_property
    def frozen_sum(self) -> float:
        """A mark of the weights that never change: Σ |w|, of quantised ones their levels and
        scales. Layer by layer and row by row, since the word embeddings in float64 would be the
        largest thing in memory."""
        spread = is_sharded(self.network)
        held = (p for p in self.network.parameters() if not p.requires_grad)
        # Of a spread network this process's parts.
        frozen = map(local, held) if spread else frozen_tensors(self.network)
        rows = (row for t in frozen for row in torch.split(t.detach().reshape(-1), MARK_CHUNK))
        total = float(sum(_float64_sum(row.abs()) for row in rows))
        return summed(self.job.accelerator, [total])[0] if spread else total


def _float64_sum(values: torch.Tensor) -> float:
    # Apple GPUs have no float64.
    values = values.cpu() if values.device.type == "mps" else values
    return float(values.sum(dtype=torch.float64).item())


def running_statistics(network: Weights) -> dict[str, torch.Tensor]:
    """The buffers that batch norms change while they train, by name; none of those of a frozen
    one, which stays in evaluation mode."""
    norms = {id(norm) for norm in learning_norms(network)}
    return {
        f"{name}.{key}": buffer
        for name, module in network.named_modules()
        if id(module) in norms
        for key, buffer in module.named_buffers(recurse=False)
    }


def learning_norms(network: Weights) -> list[torch.nn.modules.batchnorm._BatchNorm]:
    """The batch norms that learn and keep running statistics."""
    return [
        module
        for module in network.modules()
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
        and module.track_running_stats
        and all(p.requires_grad for p in module.parameters())
    ]


def tokens_of(job: Job) -> int:
    """Padded tokens of an evaluation batch."""
    longest = int(max([1, *job.learnt.lengths.tolist(), *job.valid.lengths.tolist()]))
    largest = max(phase.batch_size for phase in job.plan.phases) * longest
    suits = EVALUATION_TOKENS.get(job.accelerator.device.type, EVALUATION_TOKENS["cpu"])
    return max(longest, min(suits, largest))


def _handlers(event: str, listeners: Sequence[Listener]) -> list[Callable[[Run], None]]:
    return [getattr(listener, event) for listener in listeners if hasattr(listener, event)]


def dropouts_of(network: Weights) -> tuple[tuple[torch.nn.Module, str, float], ...]:
    """Every dropout of a network that is on: the module, the attribute that holds its rate, and the
    rate. Attention keeps its own as a plain number."""
    found: list[tuple[torch.nn.Module, str, float]] = []
    for module in network.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            found.append((module, "p", module.p))
        found += [
            (module, name, value)
            for name, value in vars(module).items()
            if "dropout" in name and isinstance(value, float)
        ]
    return tuple(one for one in found if one[2] > 0)


@dataclass(frozen=True, slots=True)
class BatchLosses:
    """``rows`` [batch] positions among the training rows, their ``losses`` [batch] before any loss
    term, ``logits`` [batch, classes] and ``labels`` [batch] where the task is one of classes."""

    rows: Ints
    losses: torch.Tensor
    logits: torch.Tensor | None
    labels: torch.Tensor | None


def batch_losses_of(passed: ForwardPass, losses: torch.Tensor) -> BatchLosses:
    """What a forward pass said; logits only where each row has one class."""
    logits, labels = getattr(passed.output, "logits", None), passed.batch.get("labels")
    one_class = (
        logits is not None
        and labels is not None
        and labels.ndim == 1
        and not labels.is_floating_point()
        and logits.ndim == 2
    )
    known = (logits, labels) if one_class else (None, None)
    return BatchLosses(passed.rows, losses.detach(), *known)
