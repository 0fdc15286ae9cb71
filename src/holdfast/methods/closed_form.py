"""The last layer fitted to the features in closed form, instead of by gradient.

Before the first step this is a linear probe: logistic regression on the features of the pretrained
backbone. It is the reported baseline, and the start of the fine-tuning (linear probing first
prevents a random head from distorting the features: LP-FT, 2202.10054). While a contrastive phase
trains the features, it makes each snapshot a complete classifier.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

import numpy as np

from holdfast.core.events import Offer, OfferTrial, Place
from holdfast.methods.balance import Balance
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


def read_features(run: Run, examples: Examples) -> tuple[Floats, Ints]:
    """The features [n, width] and labels [n] of all rows, which the observer then remembers."""
    features = run.observer.features(run.network, examples, np.arange(len(examples)))
    run.observer.remember_features(examples, features)
    return features, labels_of(examples)


class RefitState(TypedDict):
    """The state of a refitted head in a checkpoint: the baseline's weights, reason and curve."""

    baseline: dict[str, torch.Tensor] | None
    because: str
    curve: Sequence[Any] | None


class HeadRefit:
    """Refits the head at snapshot 0, if ``first``, and in every phase whose head is refitted.

    ``fit`` maps features [n, width] and labels [n] to a ``Probe``. ``moved`` does so for features
    that were trained with these labels, which look too easy to some fits
    (``models/probes/head_fit.py``). The first probe is kept: it is the linear-probe baseline. Where
    rows were added to those of the table, the head is fitted to them too (both fits then get
    ``beside``), but the baseline is not. ``held_out``, where given, measures the baseline on the
    validation rows (probe, training features and labels, validation features and labels), before
    any step; the result is stored with the baseline in ``curve``. ``read`` gives the features and
    labels of some examples: a task whose labels are not of entire rows provides its own.
    ``seconds`` is the time of the first fit without passing its rows; 0 before it.
    """

    name, place = "head_refit", "change"

    def __init__(
        self,
        fit: Fit,
        first: bool,
        held_out: HeldOut | None = None,
        read: Read = read_features,
        moved: Fit | None = None,
    ) -> None:
        self._fit = fit
        self._fit_tuned = moved or fit
        self._read = read
        self.first = first
        self._measure_baseline = held_out
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
        added: Any = run.job.added_examples
        sets_head = self.first or not before_any_step
        fit = self._fit if before_any_step else self._fit_tuned
        probe: Probe | None = None
        if before_any_step or added is None:
            start = time.perf_counter()
            probe = fit(features, labels)
            self.seconds = self.seconds or time.perf_counter() - start
        if before_any_step and probe is not None:
            self.baseline = _tensors(probe)
            self.because = probe.because
            self._measure(run, probe, features, labels)
        if added is not None and sets_head:
            added_features, added_labels = self._read(run, added)
            probe = fit(
                features, labels, extra_rows=ExtraRows(added_features, added_labels, added.weights)
            )
        if sets_head and probe is not None:
            head: Any = run.network.head
            with torch.no_grad():
                for name, value in _tensors(as_layer(probe, features, head)).items():
                    if getattr(head, name) is not None:
                        getattr(head, name).copy_(value)

    def _measure(self, run: Run, probe: Probe, features: Floats, labels: Ints) -> None:
        if self._measure_baseline is None:
            return
        if run.job.out_of_fold is not None:
            # Otherwise the fitted model would be evaluated on its own rows.
            self.curve = run.job.out_of_fold.curve
            return
        valid_features, valid_labels = self._read(run, run.job.valid)
        self.curve = self._measure_baseline(probe, features, labels, valid_features, valid_labels)

    def state_dict(self) -> dict[str, Any]:
        curve = None if self.curve is None else curve_to_state(self.curve)
        return {"baseline": self.baseline, "because": self.because, "curve": curve}

    def load_state_dict(self, state: RefitState) -> None:
        self.baseline, self.because = state["baseline"], state["because"]
        if state["curve"] is not None:
            self.curve = curve_from_state(state["curve"])


def curve_to_state(curve: ProbeCurve) -> list[Any]:
    """A curve in types that the weights-only loader reads."""
    import torch

    noise = None if curve.labels is None else list(astuple(curve.labels))
    return [torch.as_tensor(curve.losses), list(curve.points), curve.twins, noise]


def curve_from_state(state: Sequence[Any]) -> ProbeCurve:
    """The curve of a state from ``curve_to_state``."""
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


def as_layer(probe: Probe, features: Floats, head: Any) -> Probe:
    """The probe as the weights of the layer ``head``. For one without a bias, as decoders have,
    W + b μᵀ ÷ ‖μ‖² takes the place of W and b, with μ the mean of its ``features`` [n, D]: the
    logits of a row f change by b (μᵀf ÷ ‖μ‖² − 1), those of the mean by nothing."""
    if head.bias is not None:
        return probe
    mean = np.asarray(features, dtype=np.float64).mean(axis=0)
    weight = probe.weight + np.outer(probe.bias, mean) / (mean @ mean)
    return replace(probe, weight=weight, bias=np.zeros_like(probe.bias))


@dataclass(frozen=True, slots=True)
class ProbeFirst:
    """Whether the fine-tuning starts from the linear probe. It has no settings; the listener is the
    task's, which knows how its head is fitted and keeps the baseline in any case."""


METHODS.add("probe_first", Method(ProbeFirst, lambda settings: Parts()))


# With more rows a trained head has converged, and another pass over them costs more than it gains.
MOST_ROWS = 20_000


class RefittedHead:
    """The head fitted again to the tuned features, offered as checkpoint.

    Fine-tuning moves the features while the head follows in small steps, and it ends when the plan
    does, not when the head has converged. At the end the head is fitted in closed form to the
    features of the training rows at the best checkpoint, as the mean of logistic regression and
    discriminant analysis (``models/probes/head_fit.py``). It is the linear probing of LP-FT
    (2202.10054) once more, after the fine-tuning. No gain over the trained head is shown
    (benchmarks/results/tuned_heads.md): it is off by default.

    The trained head is kept wherever the rule that chooses the checkpoint finds the other one
    worse. Nothing is offered where the training asks for more than a fit to these rows at their own
    rates: other losses, rows drawn or weighted otherwise.

    The listener; without a state, since it acts once, after the last step.
    """

    name: ClassVar[str] = "refit_head"
    place: ClassVar[Place] = "change"
    what: ClassVar[str] = "refitted head"

    def offer(self, run: Run, trial: OfferTrial) -> Offer | str:
        """The best checkpoint with a refitted head, or why there is none."""
        import torch

        from holdfast.models.probes.head_fit import fit_head
        from holdfast.models.probes.probe import ExtraRows

        refusal = _reason_against(run)
        if refusal is not None:
            return refusal
        job, step = run.job, run.best.step
        run.load_tensors(run.best.tensors)

        def read(examples: Examples) -> Floats:
            features: Floats = run.observer.features(
                run.network, examples, np.arange(len(examples))
            )
            return features

        added: Any = job.added_examples
        extra_rows = None if added is None else ExtraRows(read(added), added.labels, added.weights)
        head: Any = run.network.head
        features = read(job.train)
        probe = fit_head(
            features,
            labels_of(job.train),
            classes=head.out_features,
            seed=run.plan.seed,
            extra_rows=extra_rows,
        )
        probe = as_layer(probe, features, head)
        head_values = {"head.weight": probe.weight}
        if head.bias is not None:
            head_values["head.bias"] = probe.bias
        dtype = head.weight.dtype
        tensors = {name: torch.as_tensor(value, dtype=dtype) for name, value in head_values.items()}
        because = f"the features of step {step} with the {probe.because}"
        return Offer({**run.best.tensors, **tensors}, step, because)


def _reason_against(run: Run) -> str | None:
    """Why no head is fitted; ``None`` where one is."""
    source: Any
    job, phase, source = run.job, run.phase, run.phase.source
    if phase.head == "refit":
        return "the last phase refits its head at every evaluation"
    if run.best.step == 0:
        return "the best checkpoint is the linear probe, whose head was fitted this way"
    if len(job.train) > MOST_ROWS:
        return f"{len(job.train):,} training rows are more than {MOST_ROWS:,}"
    while getattr(source, "inner", None) is not None:
        source = source.inner
    weights = job.task.weights(job.train, np.arange(len(job.train)))
    if phase.terms or isinstance(source, Balance) or np.ptp(weights) > 0:
        return "the fine-tuning trains the head with other losses, draws or weights of rows"
    return None


@dataclass(frozen=True, slots=True)
class Refit:
    """It has no settings."""


METHODS.add(
    "refit_head",
    Method(Refit, lambda settings: Parts(listeners=lambda: (RefittedHead(),)), needs_classes=True),
)
