"""The rows of a Lightning run, measured with the module's own loss or with logits that it gives."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from holdfast.core.errors import DataError
from holdfast.core.records import Decision
from holdfast.plugins.trainers.foreign import theirs
from holdfast.plugins.trainers.losses import Formula, aligned_formula, plain
from holdfast.plugins.trainers.rows import counted, probe_rows
from holdfast.plugins.trainers.still import undisturbed
from holdfast.plugins.trainers.trainer_rows import RowSet
from holdfast.plugins.trainers.watch import GuardHandle
from holdfast.training.task import Measured

Logits = Callable[[Any, Any], tuple[torch.Tensor, torch.Tensor]]
# What a torchmetrics metric remembers beside the states that it declares.
COUNTED = ("_update_count", "_computed", "_forward_cache")


class ModuleRows:
    """Measures the train probe and the evaluation rows of a Lightning run.

    Each row goes alone through ``training_step``; with ``logits`` whole batches go through that,
    and ``formula`` (by the shapes alone, each logit at its label) gives the losses of their rows.
    """

    def __init__(
        self,
        trainer: Any,
        module: Any,
        probe: RowSet,
        valid: RowSet,
        logits: Logits | None,
        size: int,
    ) -> None:
        self.train_rows = len(probe.dataset)
        self.classes = 0
        self.formula: Formula | None = None
        self._trainer, self._module = trainer, module
        self._probe, self._valid = probe, valid
        self._logits, self._size = logits, size

    def __call__(self) -> tuple[Measured, Measured]:
        with silent(self._module):
            return self._measure(self._probe), self._measure(self._valid)

    def find(self) -> None:
        """Decide by one batch how losses are computed; the module in evaluation mode."""
        if self._logits is None:
            return
        with silent(self._module):
            logits, labels = self._call(next(self._valid.batches(self._size))[1])
        self.formula = aligned_formula(logits, labels)
        self.classes = logits.shape[1] if self.formula.classifies else 0

    def _measure(self, part: RowSet) -> Measured:
        if self.formula is None:
            return plain(np.array([self._alone(batch) for _, batch in part.batches(1)]))
        answers = (self._call(batch) for _, batch in part.batches(self._size))
        return self.formula.measure_answers(answers)

    def _call(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        assert self._logits is not None
        with theirs("lightning_callback(logits=…)"):
            return self._logits(self._module, self._sent(batch))

    def _alone(self, batch: Any) -> float:
        with theirs("training_step"):
            found = self._module.training_step(self._sent(batch), 0)
        loss = found.get("loss") if isinstance(found, Mapping) else found
        if not torch.is_tensor(loss) or loss.numel() != 1:
            raise DataError(
                f"{type(self._module).__name__}.training_step",
                "gives no loss to watch",
                type(found).__name__,
                "Return the loss, or say how the outputs come about: "
                "guard.lightning_callback(logits=…).",
            )
        return float(loss)

    def _sent(self, batch: Any) -> Any:
        return self._trainer.strategy.batch_to_device(batch)


def module_rows(guard: GuardHandle, trainer: Any, module: Any, logits: Logits | None) -> ModuleRows:
    """The rows of a run, from the trainer's own loaders; says how their losses are computed."""
    train, valid = trainer.train_dataloader, _validation(trainer)
    rows = counted(getattr(train, "dataset", None), "the training rows")
    others = counted(valid.dataset, "the evaluation rows")
    chosen = probe_rows(rows, others, guard.probe_rows, guard.seed)
    how = "your logits" if logits else "training_step, each row alone"
    because = "given to lightning_callback" if logits else "a LightningModule's loss lies in there"
    guard.promise(Decision("losses of rows", how, because))
    size = int(getattr(valid, "batch_size", None) or 1)
    found = ModuleRows(trainer, module, RowSet(train, chosen), RowSet(valid), logits, size)
    with undisturbed(module, guard.seed):
        found.find()
    return found


@contextlib.contextmanager
def silent(module: Any) -> Iterator[None]:
    """A block in which ``self.log`` of a module says nothing and its metrics count nothing: what a
    look does must not stand in the user's logs."""
    metrics = [m for m in module.modules() if hasattr(m, "_defaults") and hasattr(m, "compute")]
    kept = [(metric, _counts(metric)) for metric in metrics]
    # Attributes of the instance hide the methods of its class until they are deleted.
    module.log = module.log_dict = lambda *_, **__: None
    try:
        yield
    finally:
        del module.log, module.log_dict
        for metric, values in kept:
            for name, value in values.items():
                setattr(metric, name, value)


def _counts(metric: Any) -> dict[str, Any]:
    names = [name for name in (*metric._defaults, *COUNTED) if hasattr(metric, name)]
    return {name: copy.deepcopy(getattr(metric, name)) for name in names}


def _validation(trainer: Any) -> Any:
    """The validation loader, of several the first."""
    found = trainer.val_dataloaders
    found = found[0] if isinstance(found, (list, tuple)) and found else found
    if not found:
        raise DataError(
            "the Lightning Trainer",
            "has no validation rows, so nobody can say whether it overfits",
            None,
            "Give it val_dataloaders=…; `torch.utils.data.random_split` divides.",
        )
    return found
