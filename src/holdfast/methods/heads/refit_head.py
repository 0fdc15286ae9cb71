"""The head fitted anew to the tuned features, offered for the state to keep.

Fine-tuning moves the features under a head that follows them by small steps, and it ends when the
plan does, not when the head has arrived. At the end the head is fitted in closed form to what the
kept state makes of the training rows, as the mean of logistic regression and discriminant analysis
(``models/probes/head_fit.py``). It is the linear probing of LP-FT (2202.10054) once more, after the
fine-tuning. Of six runs of 400 rows it gained 0.7 points, TREC's six classes most; of one of 1,600
rows it lost 0.3 (benchmarks/methods.md): it is off unless asked for.

The head that was trained is kept wherever the rule that chooses among the looks finds the other one
worse. Nothing is offered where the training means by its head more than these rows say at their own
rates: other losses, rows drawn or weighed otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from holdfast.core.events import Offer, OfferTrial, Place
from holdfast.methods.heads.balance import Balance
from holdfast.methods.registry import METHODS, Method, Parts
from holdfast.training.task import labels_of

if TYPE_CHECKING:
    from holdfast.core.records import Floats
    from holdfast.training.run import Run
    from holdfast.training.task import Examples

# With more rows a trained head has arrived, and another pass over them costs more than it brings.
MOST_ROWS = 20_000


class RefittedHead:
    """The listener; without a state, since it acts once, after the last step."""

    name: ClassVar[str] = "refit_head"
    place: ClassVar[Place] = "change"
    what: ClassVar[str] = "refitted head"

    def offer(self, run: Run, trial: OfferTrial) -> Offer | str:
        """The kept state with a head of its own, or why there is none."""
        import torch

        from holdfast.models.probes.head_fit import fit_head
        from holdfast.models.probes.probe import ExtraRows

        why = _why_not(run)
        if why is not None:
            return why
        job, step = run.job, run.best.step
        run.load_tensors(run.best.tensors)

        def read(examples: Examples) -> Floats:
            features: Floats = run.observer.features(
                run.network, examples, np.arange(len(examples))
            )
            return features

        added: Any = job.added
        beside = None if added is None else ExtraRows(read(added), added.labels, added.weights)
        head: Any = run.network.head
        probe = fit_head(
            read(job.train),
            labels_of(job.train),
            classes=head.out_features,
            seed=run.plan.seed,
            beside=beside,
        )
        made = {"head.weight": probe.weight, "head.bias": probe.bias}
        kind = head.weight.dtype
        tensors = {name: torch.as_tensor(value, dtype=kind) for name, value in made.items()}
        because = f"the features of step {step} under the {probe.because}"
        return Offer({**run.best.tensors, **tensors}, step, because)


def _why_not(run: Run) -> str | None:
    """Why no head is fitted; ``None`` where one is."""
    source: Any
    job, phase, source = run.job, run.phase, run.phase.source
    if phase.head == "refit":
        return "the last phase refits its head at every look"
    if run.best.step == 0:
        return "the state that is kept is the linear probe, which was fitted so"
    if len(job.train) > MOST_ROWS:
        return f"{len(job.train):,} training rows are more than {MOST_ROWS:,}"
    while getattr(source, "inner", None) is not None:
        source = source.inner
    weights = job.task.weights(job.train, np.arange(len(job.train)))
    if phase.terms or isinstance(source, Balance) or np.ptp(weights) > 0:
        return "the fine-tuning asks more of the head than its rows at their own rates say"
    return None


@dataclass(frozen=True, slots=True)
class Refit:
    """It has no settings."""


METHODS.add(
    "refit_head",
    Method(Refit, lambda asked: Parts(listeners=lambda: (RefittedHead(),)), needs_classes=True),
)
