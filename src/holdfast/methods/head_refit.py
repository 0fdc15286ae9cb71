"""The last layer fitted to the features in closed form, instead of by gradient.

Before the first step this is a linear probe: logistic regression on the features of the
pretrained backbone, the reported baseline, and the start of the fine-tuning (linear probing first
keeps the features from being torn by a random head: LP-FT, 2202.10054). While a contrastive phase
moves the features, it turns each snapshot into a whole classifier.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from holdfast.core.records import Floats, Ints
    from holdfast.models.probe import Probe


class HeadRefit:
    """Refits the head at snapshot 0, if ``first``, and in every phase whose head is refitted.

    ``fit`` maps features [n, width] and labels [n] to a ``Probe``. Keeps the first probe: it is
    the linear-probe baseline.
    """

    name = "head_refit"

    def __init__(self, fit: Callable[[Floats, Ints], Probe], first: bool) -> None:
        self._fit = fit
        self._first = first
        self.baseline: dict[str, torch.Tensor] | None = None
        self.because = ""

    def snapshot_due(self, run: Any) -> None:
        import torch

        before_any_step = run.step == 0
        if not before_any_step and run.phase.head != "refit":
            return
        everything = np.arange(len(run.job.train))
        features = run.observer.features(run.network, run.job.train, everything)
        probe = self._fit(features, run.job.train.labels)
        weight = torch.as_tensor(np.asarray(probe.weight), dtype=torch.float32)
        bias = torch.as_tensor(np.asarray(probe.bias), dtype=torch.float32)
        if before_any_step:
            self.baseline = {"weight": weight, "bias": bias}
            self.because = probe.because
        if not before_any_step or self._first:
            with torch.no_grad():
                run.network.head.weight.copy_(weight)
                run.network.head.bias.copy_(bias)

    def state_dict(self) -> dict[str, Any]:
        return {"baseline": self.baseline, "because": self.because}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.baseline, self.because = state["baseline"], state["because"]
