"""What a method's listener may read of a run, and what it may do to it.

``training`` stands below this package, so its ``Run`` is described here by what is used of it. A
listener is given the run itself, with all that is here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

if TYPE_CHECKING:
    import torch

    from holdfast.core.records import Decision, Floats, Ints, Snapshot
    from holdfast.core.updates import BatchSource, LossTerm
    from holdfast.models.base import Network
    from holdfast.models.probes.curve import ProbeCurve


class EncodedRows(Protocol):
    """Encoded rows, as ``training.task.Examples`` describes them."""

    @property
    def rows(self) -> Ints: ...

    @property
    def lengths(self) -> Ints: ...

    def __len__(self) -> int: ...

    def take(self, positions: Ints) -> Self: ...


class LabelledRows(EncodedRows, Protocol):
    """Rows with a label each, ``labels`` [n]."""

    @property
    def labels(self) -> Ints: ...


class AddedRows(LabelledRows, Protocol):
    """Rows beside those of the table, each with its weight, ``weights`` [n]."""

    @property
    def weights(self) -> Floats: ...


class PhaseView(Protocol):
    """The present phase: its updates, and how rows, losses and head are treated in it."""

    @property
    def steps(self) -> int: ...

    @property
    def source(self) -> BatchSource: ...

    @property
    def terms(self) -> Sequence[LossTerm]: ...

    @property
    def head(self) -> Literal["train", "refit"]: ...


class PlanView(Protocol):
    """The planned updates of all phases, and the seed."""

    @property
    def steps(self) -> int: ...

    @property
    def seed(self) -> int: ...


class BestState(Protocol):
    """The state that a run keeps: its look, and its weights by name."""

    @property
    def step(self) -> int: ...

    @property
    def tensors(self) -> Mapping[str, torch.Tensor]: ...


class Notes(Protocol):
    """The journal, as far as a method writes in it."""

    def note(self, step: int, what: str, because: str, **fields: object) -> None: ...


class FeatureReader(Protocol):
    """What passes rows through the network, and need not pass those again that it remembers."""

    def features(self, network: Network, examples: EncodedRows, positions: Ints) -> Floats: ...

    def remember(self, examples: EncodedRows, features: Floats) -> None: ...


class OutOfFold(Protocol):
    """What stands for the validation rows where they are learned from too."""

    @property
    def curve(self) -> ProbeCurve | None: ...


class JobView(Protocol):
    """Of what a run is made. ``task`` and ``accelerator`` are ``training.task.Task`` and
    Accelerate's."""

    @property
    def train(self) -> LabelledRows: ...

    @property
    def valid(self) -> LabelledRows: ...

    @property
    def added(self) -> AddedRows | None: ...

    @property
    def general_rows(self) -> Any: ...

    @property
    def task(self) -> Any: ...

    @property
    def accelerator(self) -> Any: ...

    @property
    def out_of_fold(self) -> OutOfFold | None: ...

    @property
    def journal(self) -> Notes: ...

    def notify(self, decision: Decision, /) -> None: ...


class AdjustmentsView(Protocol):
    """What actions changed: ``frozen`` names the parameters that they froze."""

    @property
    def frozen(self) -> Sequence[str]: ...


class RunView(Protocol):
    """A run in motion, as ``training.run.Run`` describes it."""

    @property
    def job(self) -> JobView: ...

    @property
    def network(self) -> Network: ...

    @property
    def journal(self) -> Notes: ...

    @property
    def plan(self) -> PlanView: ...

    @property
    def phase(self) -> PhaseView: ...

    @property
    def phase_index(self) -> int: ...

    @property
    def step(self) -> int: ...

    @property
    def step_in_phase(self) -> int: ...

    @property
    def best(self) -> BestState: ...

    @property
    def looked(self) -> Snapshot: ...

    @property
    def history(self) -> Sequence[Snapshot]: ...

    @property
    def start(self) -> Mapping[str, torch.Tensor]: ...

    @property
    def previous(self) -> Mapping[str, torch.Tensor]: ...

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """There is one from the first phase's beginning to the last step."""

    @property
    def observer(self) -> FeatureReader: ...

    @property
    def adjustments(self) -> AdjustmentsView: ...

    def changing(self) -> Mapping[str, torch.Tensor]: ...

    def learning_parameters(self) -> Mapping[str, torch.nn.Parameter]: ...

    def load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None: ...

    def at_start(self) -> AbstractContextManager[None]: ...
