"""The guard as a callback of a Lightning ``Trainer``.

It evaluates at the end of every validation; its state is in Lightning's own checkpoints. A
``LightningModule`` hides its loss in ``training_step``, so each row goes through it by itself, in
evaluation mode. With ``logits`` given, full batches go through that function.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils import get_total_norm

from holdfast.core.errors import DataError, RecipeError, RunError
from holdfast.core.packages import need_packages
from holdfast.core.records import Decision
from holdfast.core.run_facts import RunFacts
from holdfast.plugins.trainers.failures import FailsafeCallback
from holdfast.plugins.trainers.foreign import ForeignRun, unsupported_setup, user_code
from holdfast.plugins.trainers.losses import Formula, aligned_formula
from holdfast.plugins.trainers.rows import LoaderRows, count_rows, training_sample
from holdfast.plugins.trainers.watch import GuardHandle, TrainerRun
from holdfast.plugins.trainers.weights import without_side_effects
from holdfast.training.task import Measurements

Logits = Callable[[Any, Any], tuple[torch.Tensor, torch.Tensor]]
# What a torchmetrics metric stores in addition to its declared states.
METRIC_STATE = ("_update_count", "_computed", "_forward_cache")


def make_callback(guard: GuardHandle, logits: Logits | None) -> Any:
    """The callback.

    Its class is created here: Lightning has two package names (``lightning`` and
    ``pytorch_lightning``) with unrelated classes, and may be missing.
    """
    need_packages("Guard.lightning_callback", "lightning", install="'holdfast[trainers]'")
    from lightning.pytorch import Callback

    return type("GuardCallback", (_Hooks, Callback), {})(guard, logits)


class _Hooks(FailsafeCallback):
    """Lightning's events, forwarded to the guard."""

    BEGINS = "on_train_start"

    def __init__(self, guard: GuardHandle, logits: Logits | None) -> None:
        self._guard = guard
        self._logits = logits
        self._watch: TrainerRun | None = None
        self._state: dict[str, Any] = {}
        self._watching = False
        self._rows = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        state, self._state = self._state, {}
        _refuse(trainer, self._guard, bool(state))
        rows = ModuleRows(self._guard, trainer, pl_module, self._logits)
        self._rows = rows.train_rows
        self._watch = self._guard.begin(_foreign_run(trainer, pl_module, rows), state or None)
        self._watching = True
        if not state:
            self._evaluate(trainer)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        if self._watch is not None and gradients:
            self._watch.note_gradient(float(get_total_norm(gradients)))

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        # The sanity check and `trainer.validate` are not part of the run.
        if not self._watching or self._watch is None:
            return
        self._evaluate(trainer)
        if self._watch.engine.stop_because is not None:
            trainer.should_stop = True

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if self._watch is not None:
            self._evaluate(trainer)
            self._watch.restore(trainer.global_step)
            self._guard.finish()
        self._watching = False

    def state_dict(self) -> dict[str, Any]:
        return self._watch.state_dict() if self._watch is not None else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        # Lightning restores its callbacks before training begins, when there is no watch yet.
        self._state = state

    def _output(self, *arguments: Any) -> Path:
        return Path(arguments[0].default_root_dir)

    def _evaluate(self, trainer: Any) -> None:
        assert self._watch is not None
        rates = [group["lr"] for o in trainer.optimizers for group in o.param_groups]
        # Batches, since an update may take several; counted over all epochs.
        batches = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        epoch = batches / max(1, trainer.num_training_batches)
        self._watch.evaluate(
            trainer.global_step, epoch, round(epoch * self._rows), float(max(rates, default=0.0))
        )


class ModuleRows:
    """Measures the training sample and the evaluation rows of a Lightning run, from the trainer's
    own loaders; says how their losses are computed.

    Each row goes through ``training_step`` by itself. With ``logits``, full batches go through that
    function, and ``formula`` (by the shapes only, each logit at its label) computes the rows'
    losses.
    """

    def __init__(self, guard: GuardHandle, trainer: Any, module: Any, logits: Logits | None):
        train, valid = trainer.train_dataloader, _validation_loader(trainer)
        self.train_rows = count_rows(getattr(train, "dataset", None), "the training rows")
        n_valid = count_rows(valid.dataset, "the evaluation rows")
        sample = training_sample(self.train_rows, n_valid, guard.sample_rows, guard.seed)
        loss_source = "your logits" if logits else "training_step, one row at a time"
        because = "a LightningModule's loss is defined in it"
        if logits:
            because = "given to lightning_callback"
        guard.promise(Decision("losses of rows", loss_source, because))
        self.classes = 0
        self.formula: Formula | None = None
        self._trainer, self._module, self._logits = trainer, module, logits
        self._probe, self._valid = LoaderRows(train, sample), LoaderRows(valid)
        self._size = int(getattr(valid, "batch_size", None) or 1)
        if logits is not None:
            with without_side_effects(module, guard.seed), without_logging(module):
                logits_of_batch, labels = self._predict(next(self._valid.batches(self._size))[1])
            self.formula = aligned_formula(logits_of_batch, labels)
            self.classes = logits_of_batch.shape[1] if self.formula.is_classification else 0

    def __call__(self) -> tuple[Measurements, Measurements]:
        with without_logging(self._module):
            probe, valid = (
                part.measure(self.formula, self._size, self._predict, self._row_loss)
                for part in (self._probe, self._valid)
            )
        return probe, valid

    def _predict(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        assert self._logits is not None
        with user_code("lightning_callback(logits=…)"):
            return self._logits(self._module, self._trainer.strategy.batch_to_device(batch))

    def _row_loss(self, batch: Any) -> float:
        with user_code("training_step"):
            device_batch = self._trainer.strategy.batch_to_device(batch)
            output = self._module.training_step(device_batch, 0)
        loss = output.get("loss") if isinstance(output, Mapping) else output
        if not torch.is_tensor(loss) or loss.numel() != 1:
            raise DataError(
                f"{type(self._module).__name__}.training_step",
                "returns no loss to monitor",
                type(output).__name__,
                "Return the loss, or define the outputs: guard.lightning_callback(logits=…).",
            )
        return float(loss)


@contextlib.contextmanager
def without_logging(module: Any) -> Iterator[None]:
    """A block in which ``self.log`` of a module does nothing and its metrics count nothing: an
    evaluation must not appear in the user's logs.
    """
    metrics = [m for m in module.modules() if hasattr(m, "_defaults") and hasattr(m, "compute")]
    metric_states = []
    for metric in metrics:
        names = [name for name in (*metric._defaults, *METRIC_STATE) if hasattr(metric, name)]
        metric_states.append(
            (metric, {name: copy.deepcopy(getattr(metric, name)) for name in names})
        )
    # Attributes of the instance hide the methods of its class until they are deleted.
    module.log = module.log_dict = lambda *_, **__: None
    try:
        yield
    finally:
        del module.log, module.log_dict
        for metric, values in metric_states:
            for name, value in values.items():
                setattr(metric, name, value)


def _validation_loader(trainer: Any) -> Any:
    """The validation loader, of several the first."""
    loaders = trainer.val_dataloaders
    loaders = loaders[0] if isinstance(loaders, (list, tuple)) and loaders else loaders
    if not loaders:
        rule = "has no validation rows, so overfitting cannot be detected"
        remedy = "Give it val_dataloaders=…; `torch.utils.data.random_split` splits a data set."
        raise DataError("the Lightning Trainer", rule, None, remedy)
    return loaders


def _foreign_run(trainer: Any, module: Any, rows: ModuleRows) -> ForeignRun:
    steps = trainer.estimated_stepping_batches
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    writes = rows.formula is not None and rows.formula.is_generative
    return ForeignRun(
        model=module,
        measure=rows,
        output=Path(trainer.default_root_dir),
        trainer="Lightning Trainer",
        name=type(module).__name__,
        classes=tuple(map(str, range(rows.classes))),
        run_facts=RunFacts(
            task="causal-lm" if writes else "text-classification",
            classes=rows.classes or None,
            planned_steps=int(steps) if math.isfinite(steps) else None,
            train_rows=rows.train_rows,
            trainable=trainable,
        ),
    )


def _refuse(trainer: Any, guard: GuardHandle, resumed: bool) -> None:
    """Refuse runs that the guard cannot handle correctly."""
    if trainer.world_size > 1:
        raise unsupported_setup(f"Lightning, {trainer.world_size} processes")
    if guard.hold_out is not None:
        rule = "cannot split the loaders of a Lightning Trainer"
        remedy = "Give it val_dataloaders=…; `torch.utils.data.random_split` splits a data set."
        raise RecipeError("Guard(hold_out=…)", rule, guard.hold_out, remedy)
    if trainer.global_step and not resumed:
        raise RunError(
            "the Lightning Trainer",
            f"resumes at step {trainer.global_step}, and its checkpoint holds no "
            "state of the guard",
            None,
            (
                "Resume from a checkpoint that was written with the guard's callback, or "
                "train from the beginning."
            ),
        )
