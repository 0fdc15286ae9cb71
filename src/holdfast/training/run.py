"""The state of a run: what the loop changes, what listeners see, what a checkpoint stores; and the
results of one forward pass of a training step.
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
from holdfast.core.events import EVENTS, Advisor, Monitor, Stateful, order_listeners
from holdfast.core.records import Decision, Ints, Snapshot, Verdict
from holdfast.core.updates import ForwardPass, RowPool
from holdfast.models.adapters.quantize import frozen_tensors
from holdfast.training.checkpoint import CheckpointStore
from holdfast.training.engine import GuardEngine
from holdfast.training.journal import Journal
from holdfast.training.machine.machine import LossScale
from holdfast.training.machine.sharding import is_sharded, local_part, sum_over_processes
from holdfast.training.observe import EVALUATION_TOKENS, FoldEvaluation, FoldMeasurements, Observer
from holdfast.training.plan import Phase, Plan, probe_positions
from holdfast.training.prefix_cache import PrefixCache, RowPasses
from holdfast.training.restore import NO_ADJUSTMENTS, Additions, SavedWeights

if TYPE_CHECKING:
    from accelerate import Accelerator

    from holdfast.core.events import Listener
    from holdfast.models.base import Network, Weights
    from holdfast.training.task import Examples, GenerationMeasurements, TrainingTask


MARK_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Job:
    """Everything a run consists of, ready to start.

    ``added_examples`` are examples that are learned from in addition to ``train``;
    ``train_with_added`` are both, in this order, with their weights. Only updates and a refitted
    head read them. ``general_examples`` are general examples that the base model knew, measured at
    every evaluation and never trained on. ``general_replay`` are others of that kind, for methods
    that preserve that knowledge. ``decisions`` were made before the run; the journal begins with
    them. ``groups`` turns a phase into parameter groups (``params``, ``lr``, ``weight_decay``), or
    none where nothing is trainable. ``choose`` gives the index in the history of the checkpoint to
    keep, which is the newest or the one kept before. ``write_texts`` lets the network generate
    texts at every evaluation, where the recipe requests it. ``cache`` stores the outputs of frozen
    first layers. ``pretrained`` are the weights as loaded, which are in memory anyway.
    ``additions`` may join the fine-tuning while it runs. ``out_of_fold`` replaces the validation
    rows where they are trained on too (``valid`` are then ``train``). ``overhead_s`` gives the
    seconds of everything that is neither a step nor a forward pass of an evaluation, that is, text
    generation at evaluations and all that follows the last step, from the forward time of a row.
    """

    network: Network
    task: TrainingTask
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
    write_texts: Callable[[Any], GenerationMeasurements] | None = None
    listeners: Sequence[Any] = ()
    decisions: Sequence[Decision] = ()
    journal: Journal = field(default_factory=lambda: Journal(None))
    store: CheckpointStore = field(default_factory=lambda: CheckpointStore(None))
    cache: PrefixCache | None = None
    pretrained: Mapping[str, torch.Tensor] = field(default_factory=dict)
    added_examples: Examples | None = None
    train_with_added: Examples | None = None
    general_examples: Examples | None = None
    general_replay: Examples | None = None
    additions: Additions | None = None
    out_of_fold: FoldEvaluation | FoldMeasurements | None = None
    overhead_s: Callable[[float], float] | None = None

    @property
    def learned_examples(self) -> Examples:
        """Everything that updates draw from."""
        return self.train if self.train_with_added is None else self.train_with_added


class Run:
    """A run in progress. Public attributes are what listeners may read. ``guard.begin_run`` makes
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
        self.observer = Observer(
            job.accelerator, job.task, evaluation_batch_tokens(job), cache=job.cache
        )
        self.initial_tensors: dict[str, torch.Tensor] = {}
        self.previous: Mapping[str, torch.Tensor] = {}
        self._initial_on_device: dict[str, torch.Tensor] = {}
        self._clock = time.perf_counter()
        self._seconds_before = 0.0
        self.switched_listeners: dict[str, Sequence[Any]] = {}
        self.register_listeners()
        # Fixed here: parameters that an action freezes are still part of the state.
        self._trainable = {n: p for n, p in job.network.named_parameters() if p.requires_grad}
        self._changing_tensors = {**self._trainable, **running_statistics(job.network)}
        self._thawed_originals: dict[str, torch.Tensor] = {}
        self.dropouts = dropouts_of(job.network)
        self.adjustments = NO_ADJUSTMENTS
        # Averages of weights that were tried after the last step (training/snapshot.py).
        self.offers: list[Any] = []
        self.guard: GuardEngine

    @property
    def phase(self) -> Phase:
        return self.plan.phases[min(self.phase_index, len(self.plan.phases) - 1)]

    @property
    def epoch(self) -> float:
        """Passes over the training rows so far, in all phases."""
        return self.examples_seen / max(1, len(self.job.train))

    @property
    def history(self) -> tuple[Snapshot, ...]:
        """The snapshots of the live branch, oldest first."""
        return self.guard.history

    @property
    def last_snapshot(self) -> Snapshot:
        """The last snapshot that was taken, from which the run may have gone back."""
        return self.guard.snapshots[-1]

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on the history; ``None`` before the first evaluation."""
        return self.guard.verdict

    @property
    def best(self) -> SavedWeights:
        """The best checkpoint so far."""
        return self.guard.best

    @property
    def stop_because(self) -> str | None:
        """Why the run ends before its plan does; ``None`` where it does not."""
        return self.guard.stop_because

    @property
    def seconds(self) -> float:
        """Wall time of the run, including earlier processes before a resume."""
        return self._seconds_before + time.perf_counter() - self._clock

    def continue_clock(self, seconds: float) -> None:
        """Add the time that the run took in earlier processes."""
        self._seconds_before, self._clock = seconds, time.perf_counter()

    def emit(self, event: str) -> None:
        """Call the method of this name of every listener that has one."""
        if event not in self._handlers:
            raise Defect("the loop", "emitted an event that is missing in core/events.py", event)
        for handler in self._handlers[event]:
            handler(self)

    @property
    def listeners(self) -> tuple[Any, ...]:
        """The job's listeners, and those of methods that were switched on."""
        return (
            *self.job.listeners,
            *(one for made in self.switched_listeners.values() for one in made),
        )

    def register_listeners(self) -> None:
        """Connect the current listeners to the events."""
        self._handlers = {
            event: _handlers(event, order_listeners(self.listeners)) for event in EVENTS
        }

    def unfreezable_parameters(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that are trainable or can be made so: all except the frozen ones of an
        adapter, parameters that the network itself fixes, and quantised ones."""
        adapter = getattr(self.network, "adapter", None)
        fixed_ids = (adapter.frozen_ids if adapter else frozenset()) | getattr(
            self.network, "fixed", frozenset()
        )
        return {
            name: parameter
            for name, parameter in self.network.named_parameters()
            if type(parameter) is torch.nn.Parameter
            and parameter.is_floating_point()
            and id(parameter) not in fixed_ids
        }

    def thaw(self, names: Collection[str]) -> None:
        """Make these parameters trainable, of those that were not trainable at the beginning; reset
        any other that was trained meanwhile. Their memory is shared with the loaded network, so
        training uses a copy."""
        if set(names) == {name for name in self._thawed_originals if name in self._trainable}:
            return
        parameters: Mapping[str, torch.nn.Parameter] = dict(self.network.named_parameters())
        buffers = dict(self.network.named_buffers())
        for name in [name for name in self._thawed_originals if name not in names]:
            tensor = self._thawed_originals.pop(name)
            if name in parameters:
                parameter = parameters[name]
                parameter.requires_grad_(False)
                parameter.data, parameter.grad = tensor, None
                del self._trainable[name]
            else:
                buffers[name].copy_(tensor)
        for name in names:
            if name not in self._thawed_originals:
                parameter = parameters[name]
                self._thawed_originals[name] = parameter.data
                parameter.data = parameter.data.clone()
                parameter.requires_grad_(True)
                self._trainable[name] = parameter
        positions = {name: place for place, name in enumerate(parameters)}
        self._trainable = dict(sorted(self._trainable.items(), key=lambda one: positions[one[0]]))
        changing_before = self._changing_tensors
        self._changing_tensors = {**self._trainable, **running_statistics(self.network)}
        for name in self._changing_tensors.keys() - changing_before.keys() - parameters.keys():
            self._thawed_originals[name] = buffers[name].detach().clone()
        loaded = {n: t.detach().cpu() for n, t in self._thawed_originals.items()}
        self.initial_tensors, self.previous = (
            {**loaded, **self.initial_tensors},
            {**loaded, **self.previous},
        )
        self.__dict__.pop("frozen_sum", None)

    def trainable_parameters(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that any phase may change, by name, including those that are temporarily
        frozen."""
        return self._trainable

    def changing_tensors(self) -> dict[str, torch.Tensor]:
        """Everything that training changes, by name: these parameters and the running statistics of
        batch norms."""
        return self._changing_tensors

    def copy_tensors(self) -> dict[str, torch.Tensor]:
        """A copy of them in CPU memory; of sharded ones, of this process's shards."""
        return {n: local_part(t.detach()).cpu().clone() for n, t in self._changing_tensors.items()}

    def load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Load such a copy; tensors that it does not contain are reset to their loaded values."""
        with torch.no_grad():
            for name, tensor in (
                {**self._thawed_originals, **tensors} if self._thawed_originals else tensors
            ).items():
                local_part(self._changing_tensors[name]).copy_(tensor)

    @contextlib.contextmanager
    def initial_weights(self) -> Iterator[None]:
        """A context in which the network has its weights from before the first step.

        Tensors are swapped and nothing is copied; a device that does not hold the initial tensors
        gets them once, as many as are trainable. Earlier forward passes keep their gradient.
        """
        current = {name: tensor.data for name, tensor in self._changing_tensors.items()}
        try:
            for name, tensor in self._changing_tensors.items():
                device = tensor.device
                if name not in self._initial_on_device:
                    self._initial_on_device[name] = self.initial_tensors[name].to(device)
                tensor.data = self._initial_on_device[name]
            yield
        finally:
            for name, tensor in self._changing_tensors.items():
                tensor.data = current[name]

    def fill_prefix_cache(self) -> None:
        """Compute the outputs of the frozen first layers once per row, where they are cached."""
        job = self.job
        if job.cache is not None:
            job.cache.notify = lambda why: self.journal.note(
                self.step, "cached outputs deleted", why
            )
            sets = {"train": job.learned_examples, "valid": job.valid}
            passes = RowPasses(self.network, job.task, job.accelerator)
            job.cache.fill(
                passes, sets, evaluation_batch_tokens(job), beginnings={"train": job.train}
            )

    def release_memory(self) -> None:
        """Free the memory of the optimizer and the gradients, and the disk: scoring needs it."""
        if self.job.cache is not None:
            self.job.cache.remove()
        self.optimizer = None
        for parameter in self.network.parameters():
            parameter.grad = None

    def stateful_listeners(self) -> dict[str, Stateful]:
        """The listeners with a state, by name."""
        return {x.name: x for x in self.listeners if hasattr(x, "state_dict")}

    @cached_property
    def frozen_sum(self) -> float:
        """A checksum of the weights that never change: Σ |w|; for quantised weights of their levels
        and scales. It goes layer by layer and row by row, since the word embeddings in float64
        would be the largest object in memory."""
        sharded = is_sharded(self.network)
        fixed_parameters = (p for p in self.network.parameters() if not p.requires_grad)
        # Of a sharded network, this process's shards.
        frozen = map(local_part, fixed_parameters) if sharded else frozen_tensors(self.network)
        rows = (row for t in frozen for row in torch.split(t.detach().reshape(-1), MARK_CHUNK))
        total = float(sum(_float64_sum(row.abs()) for row in rows))
        return sum_over_processes(self.job.accelerator, [total])[0] if sharded else total


def _float64_sum(values: torch.Tensor) -> float:
    # Apple GPUs have no float64.
    values = values.cpu() if values.device.type == "mps" else values
    return float(values.sum(dtype=torch.float64).item())


def running_statistics(network: Weights) -> dict[str, torch.Tensor]:
    """The buffers that batch norms change in training, by name; without those of a frozen one,
    which stays in evaluation mode."""
    norms = {id(norm) for norm in learning_norms(network)}
    return {
        f"{name}.{key}": buffer
        for name, module in network.named_modules()
        if id(module) in norms
        for key, buffer in module.named_buffers(recurse=False)
    }


def learning_norms(network: Weights) -> list[torch.nn.modules.batchnorm._BatchNorm]:
    """The trainable batch norms that keep running statistics."""
    return [
        module
        for module in network.modules()
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
        and module.track_running_stats
        and all(p.requires_grad for p in module.parameters())
    ]


def evaluation_batch_tokens(job: Job) -> int:
    """Padded tokens of an evaluation batch."""
    longest = int(max([1, *job.learned_examples.lengths.tolist(), *job.valid.lengths.tolist()]))
    largest = max(phase.batch_size for phase in job.plan.phases) * longest
    device_tokens = EVALUATION_TOKENS.get(job.accelerator.device.type, EVALUATION_TOKENS["cpu"])
    return max(longest, min(device_tokens, largest))


def _handlers(event: str, listeners: Sequence[Listener]) -> list[Callable[[Run], None]]:
    return [getattr(listener, event) for listener in listeners if hasattr(listener, event)]


def dropouts_of(network: Weights) -> tuple[tuple[torch.nn.Module, str, float], ...]:
    """Every active dropout of a network: the module, the attribute that holds its rate, and the
    rate. Attention keeps its own as a plain number."""
    dropouts: list[tuple[torch.nn.Module, str, float]] = []
    for module in network.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            dropouts.append((module, "p", module.p))
        dropouts += [
            (module, name, value)
            for name, value in vars(module).items()
            if "dropout" in name and isinstance(value, float)
        ]
    return tuple(one for one in dropouts if one[2] > 0)


@dataclass(frozen=True, slots=True)
class BatchLosses:
    """``rows`` [batch] positions among the training rows, their ``losses`` [batch] before any loss
    term, ``logits`` [batch, classes] and ``labels`` [batch] for classification tasks."""

    rows: Ints
    losses: torch.Tensor
    logits: torch.Tensor | None
    labels: torch.Tensor | None


def batch_losses_of(passed: ForwardPass, losses: torch.Tensor) -> BatchLosses:
    """The losses and labels of a forward pass; logits only where each row has one class."""
    logits, labels = getattr(passed.output, "logits", None), passed.batch.get("labels")
    one_class = (
        logits is not None
        and labels is not None
        and labels.ndim == 1
        and not labels.is_floating_point()
        and logits.ndim == 2
    )
    class_outputs = (logits, labels) if one_class else (None, None)
    return BatchLosses(passed.rows, losses.detach(), *class_outputs)
