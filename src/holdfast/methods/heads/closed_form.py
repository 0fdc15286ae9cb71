"""The last layer fitted to the features in closed form, instead of by gradient.

Before the first step this is a linear probe: logistic regression on the features of the
pretrained backbone, the reported baseline, and the start of the fine-tuning (linear probing first
keeps the features from being torn by a random head: LP-FT, 2202.10054). While a contrastive phase
moves the features, it turns each snapshot into a whole classifier.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from holdfast.methods.registry import METHODS, Method, Parts
from holdfast.models.probes.probe import ExtraRows
from holdfast.training.task import labels_of

if TYPE_CHECKING:
    import torch

    from holdfast.core.records import Floats, Ints
    from holdfast.models.probes.head_fit import ProbeCurve
    from holdfast.models.probes.probe import Probe
    from holdfast.training.run import Run
    from holdfast.training.task import Examples

    Fit = Callable[..., Probe]
    HeldOut = Callable[[Probe, Floats, Ints, Floats, Ints], ProbeCurve]
    Read = Callable[[Run, Any], tuple[Floats, Ints]]


def rows_read(run: Run, examples: Examples) -> tuple[Floats, Ints]:
    """The features [n, width] and labels [n] of all rows; the observer need not pass them again."""
    features = run.observer.features(run.network, examples, np.arange(len(examples)))
    run.observer.remember(examples, features)
    return features, labels_of(examples)


class RefitState(TypedDict):
    """What a checkpoint keeps of a refitted head: the baseline's weights, reason and curve."""

    baseline: dict[str, torch.Tensor] | None
    because: str
    curve: Sequence[Any] | None


class HeadRefit:
    """Refits the head at snapshot 0, if ``first``, and in every phase whose head is refitted.

    ``fit`` maps features [n, width] and labels [n] to a ``Probe``; ``moved`` does so for features
    that were moved by these labels, which some ways to fit take for easy
    (``models/probes/head_fit.py``). Keeps the first probe: it is the linear-probe baseline. Where
    rows were added to those of the table, the head is fitted to them too (both are then given
    ``beside``), and the baseline is not. ``held_out``, where given, measures the baseline on the
    validation rows (probe, training features and labels, validation features and labels), before
    any step; what it found stays with the baseline in ``curve``. ``read`` gives the features and
    labels of some examples: a task whose labels are not of whole rows brings its own. ``seconds``
    is what the first fit took beside passing its rows; 0 before it.
    """

    name, place = "head_refit", "change"

    def __init__(
        self,
        fit: Fit,
        first: bool,
        held_out: HeldOut | None = None,
        read: Read = rows_read,
        moved: Fit | None = None,
    ) -> None:
        self._fit = fit
        self._moved = moved or fit
        self._read = read
        self.first = first
        self._held_out = held_out
        self.baseline: dict[str, torch.Tensor] | None = None
        self.because = ""
        self.curve: ProbeCurve | None = None
        self.seconds = 0.0

    def snapshot_due(self, run: Run) -> None:
        import torch

        before_any_step = run.step == 0
        if not before_any_step and run.phase.head != "refit":
            return
        features, labels = self._read(run, run.job.train)
        added: Any = run.job.added
        used = self.first or not before_any_step
        fit = self._fit if before_any_step else self._moved
        probe: Probe | None = None
        if before_any_step or added is None:
            start = time.perf_counter()
            probe = fit(features, labels)
            self.seconds = self.seconds or time.perf_counter() - start
        if before_any_step and probe is not None:
            self.baseline = _tensors(probe)
            self.because = probe.because
            self._measure(run, probe, features, labels)
        if added is not None and used:
            others, marks = self._read(run, added)
            probe = fit(features, labels, beside=ExtraRows(others, marks, added.weights))
        if used and probe is not None:
            with torch.no_grad():
                for name, value in _tensors(probe).items():
                    getattr(run.network.head, name).copy_(value)

    def _measure(self, run: Run, probe: Probe, features: Floats, labels: Ints) -> None:
        if self._held_out is None:
            return
        if run.job.out_of_fold is not None:
            # Its own rows would be judged by what was fitted to them.
            self.curve = run.job.out_of_fold.curve
            return
        held, marks = self._read(run, run.job.valid)
        self.curve = self._held_out(probe, features, labels, held, marks)

    def state_dict(self) -> dict[str, Any]:
        curve = None if self.curve is None else curve_to_state(self.curve)
        return {"baseline": self.baseline, "because": self.because, "curve": curve}

    def load_state_dict(self, state: RefitState) -> None:
        self.baseline, self.because = state["baseline"], state["because"]
        if state["curve"] is not None:
            self.curve = curve_from_state(state["curve"])


def curve_to_state(kept: ProbeCurve) -> list[Any]:
    """A curve in types that the weights-only loader reads."""
    import torch

    noise = None if kept.labels is None else list(astuple(kept.labels))
    return [torch.as_tensor(kept.losses), list(kept.points), kept.twins, noise]


def curve_from_state(state: Sequence[Any]) -> ProbeCurve:
    """The same from ``curve_to_state``."""
    from holdfast.core.run_facts import LabelNoise
    from holdfast.models.probes.head_fit import ProbeCurve

    losses, points, (twins, of), labels = state
    pairs = tuple((int(n), float(loss)) for n, loss in points)
    noise = None if labels is None else LabelNoise(*labels)
    return ProbeCurve(losses.numpy(), pairs, (int(twins), int(of)), noise)


def _tensors(probe: Probe) -> dict[str, torch.Tensor]:
    import torch

    parts = {"weight": probe.weight, "bias": probe.bias}
    return {n: torch.as_tensor(np.asarray(v), dtype=torch.float32) for n, v in parts.items()}


@dataclass(frozen=True, slots=True)
class ProbeFirst:
    """Whether the fine-tuning starts from the probe; it has no settings, and the listener is the
    task's, which knows how its head is fitted and keeps the baseline either way."""


METHODS.add("probe_first", Method(ProbeFirst, lambda asked: Parts()))
