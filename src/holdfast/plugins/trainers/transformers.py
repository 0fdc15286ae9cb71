"""The guard as a callback of ``transformers.Trainer`` and of the trainers built on it.

    Trainer.__init__
     └─ on_init_end      rows are held out, where requested
    Trainer.train
     ├─ on_train_begin   refusals; the baseline evaluation, or the state of the checkpoint
     ├─ on_log           gradient norms, as the trainer logs them
     ├─ on_step_end      an evaluation, where the trainer never evaluates
     ├─ on_evaluate      an evaluation, where it does
     ├─ on_save          the guard's state, into the checkpoint's folder
     └─ on_train_end     the last evaluation, the best checkpoint, the report

An error in one of them, except refusals, is reported and does not stop training (``failures.py``).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback

from holdfast.core.actions import ScaleLearningRate, SetWeightDecay
from holdfast.core.curves import TRANSFORMERS
from holdfast.core.errors import DataError, RecipeError, RunError
from holdfast.core.files import write_atomically
from holdfast.core.records import Decision
from holdfast.plugins.trainers.failures import FailsafeCallback
from holdfast.plugins.trainers.foreign import ForeignRun, unsupported_setup
from holdfast.plugins.trainers.processes import Follower, Message, Processes, lead_evaluation
from holdfast.plugins.trainers.rows import (
    TrainerRows,
    default_evaluations,
    evaluation_steps,
    hold_out,
    run_facts,
)
from holdfast.plugins.trainers.watch import GuardHandle, TrainerRun
from holdfast.training.checkpoint import UnusableCheckpoint, read_sealed, write_sealed
from holdfast.training.machine.sharding import local_part

STATE_FILE = "holdfast_guard.pt"
MARK = "guard"
# A version of its own, so that checkpoints of other trainers stay readable when that of Holdfast's
# loop changes.
FORMAT = b"holdfast checkpoint 2"


def write_state(checkpoint: Path, step: int, state: dict[str, Any]) -> None:
    """Write the state into the folder of the checkpoint of ``step``, which the trainer has just
    written.
    """
    stamped = {"step": step, **state}
    write_atomically(
        checkpoint / STATE_FILE, lambda path: write_sealed(path, stamped, MARK, FORMAT)
    )


def read_state(checkpoint: Path, step: int) -> dict[str, Any]:
    """Read what ``write_state`` wrote, without running code.

    Raises ``RunError`` where it is absent, broken or of another step: without it the history, the
    patience and the best checkpoint of the run so far would be lost silently.
    """
    path = checkpoint / STATE_FILE
    if not path.exists():
        raise RunError(
            str(checkpoint),
            "holds no state of the guard, so its history would be lost",
            None,
            "Resume from a checkpoint that was written with the guard's callback, "
            "train from the beginning, or resume without the callback.",
        )
    try:
        state = read_sealed(path, MARK, FORMAT)
    except UnusableCheckpoint as error:
        raise RunError(str(path), str(error), None, "Train from the beginning.") from error
    if state["step"] != step:
        rule = f"is of step {state['step']}, but the checkpoint is of step {step}"
        remedy = "Resume from a checkpoint whose files belong together."
        raise RunError(str(path), rule, None, remedy)
    return state


class GuardCallback(FailsafeCallback, TrainerCallback):
    """The return value of ``Guard.callback()``.

    A callback is not told which trainer calls it, so it searches its callers for the trainer.
    """

    SET_UP = ("on_init_end",)
    BEGINS = "on_train_begin"

    def __init__(self, guard: GuardHandle) -> None:
        self._guard = guard
        self._watch: TrainerRun | None = None
        self._processes = Processes()
        self._stops = False
        self._rows = 0
        # Those of the guard, where the trainer never evaluates.
        self._evaluation_steps: frozenset[int] = frozenset()

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        guard, share = self._guard, self._guard.hold_out
        if share is None:
            return
        owner = data_owner(calling_trainer(self)[0])
        if owner.eval_dataset is not None:
            rule = "is for a trainer without evaluation rows, and this one has some"
            remedy = "Leave hold_out out, or eval_dataset."
            raise RecipeError("Guard(hold_out=…)", rule, share, remedy)
        training, held_out = hold_out(owner.train_dataset, share, guard.seed)
        owner.train_dataset, owner.eval_dataset = training, held_out
        held_out_words = (
            f"{len(held_out)} of {len(training) + len(held_out)} training rows held out"
        )
        because = f"the trainer had none (hold_out={share:g}); exact duplicates stay in one split"
        guard.promise(Decision("evaluation rows", held_out_words, because))

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer, checkpoint = calling_trainer(self)
        _refuse(trainer, self._guard)
        self._processes, self._stops = processes_of(trainer), False
        self._speaks = self._processes.is_main
        foreign_run, saved_state = self._processes.together(
            partial(self._prepare, args, state, kwargs, trainer, checkpoint)
        )
        self._rows = foreign_run.rows_per_epoch
        is_own = _evaluation_strategy(args) == "no"
        self._evaluation_steps = frozenset(foreign_run.evaluation_steps if is_own else ())
        if not self._processes.is_main:
            best = saved_state["best"] if saved_state is not None else {}
            # A loss of the trainer's own may gather figures from all processes.
            measures = self._processes.sharded or foreign_run.by_row
            self._follower = Follower(foreign_run, self._guard.seed, measures, best)

        def begin() -> Message:
            self._watch = self._guard.begin(foreign_run, saved_state)
            return {}

        self._processes.lead(begin)
        # An epoch's evaluation comes after the checkpoint of its last step, and a trainer that
        # resumes there skips it.
        evaluation_missed = (
            _evaluation_strategy(args) == "epoch" and float(state.epoch or 0).is_integer()
        )
        if saved_state is None or evaluation_missed:
            self._evaluate(state, kwargs)

    def _prepare(
        self, args: Any, state: Any, given: dict[str, Any], trainer: Any, checkpoint: str | None
    ) -> tuple[ForeignRun, dict[str, Any] | None]:
        """The run as the guard sees it, and its state where a checkpoint is resumed."""
        resumed = checkpoint is not None and state.global_step > 0
        if resumed and self._processes.sharded:
            raise RunError(
                "the guard",
                "cannot resume a run with sharded weights: its part of the best checkpoint is not "
                "saved for each process",
                None,
                "Train from the beginning, or resume without the callback.",
            )
        loader, scheduler = given["train_dataloader"], given.get("lr_scheduler")
        foreign_run = _foreign_run(self._guard, trainer, loader, state.max_steps)
        facts = replace(foreign_run.run_facts, peak_rate=peak_learning_rate(args, scheduler))
        foreign_run = replace(
            foreign_run,
            run_facts=facts,
            changes=trainer_changes(given["optimizer"], scheduler),
            rate=float(args.learning_rate),
            evaluation_steps=_planned_evaluations(
                args, state, foreign_run, self._guard.evaluations
            ),
        )
        saved_state = read_state(Path(str(checkpoint)), state.global_step) if resumed else None
        return foreign_run, saved_state

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        norm = (kwargs.get("logs") or {}).get("grad_norm")
        if self._watch is not None and norm is not None:
            self._watch.note_gradient(float(norm))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        if self._takes_part and state.global_step in self._evaluation_steps:
            self._evaluate(state, kwargs)
        return self._stop_if_requested(control)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        # Evaluations before and after training are the user's own.
        if self._takes_part and not self._evaluation_steps:
            self._evaluate(state, kwargs)
        return self._stop_if_requested(control)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self._takes_part or self._processes.sharded:
            return
        # Only trials of a search are written elsewhere, and a search is refused.
        folder, step = Path(args.output_dir) / f"checkpoint-{state.global_step}", state.global_step

        def save() -> Message:
            assert self._watch is not None
            write_state(folder, step, self._watch.state_dict())
            return {}

        self._processes.lead(save)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self._takes_part:
            return
        # With load_best_model_at_end (allowed where the guard only observes) the weights are no
        # longer those of the last step.
        if not getattr(args, "load_best_model_at_end", False):
            self._evaluate(state, kwargs)
        watch, self._watch = self._watch, None
        follower, self._follower = self._follower, None

        def restore() -> Message:
            assert watch is not None
            return {"restored": watch.restore(state.global_step)}

        message = self._processes.lead(restore)
        if follower is not None and message["restored"]:
            follower.restore()
        if follower is None:
            # What fails from here on concerns no other process.
            self._guard.finish()

    def _output(self, *arguments: Any) -> Path:
        return Path(arguments[0].output_dir)

    @property
    def _takes_part(self) -> bool:
        return self._watch is not None or self._follower is not None

    def _evaluate(self, state: Any, kwargs: dict[str, Any]) -> None:
        epoch, step, watch = float(state.epoch or 0.0), state.global_step, self._watch
        # The largest learning rate of the next update.
        rate = float(max(group["lr"] for group in kwargs["optimizer"].param_groups))
        if self._follower is not None:
            message = self._follower.evaluate(self._processes, step)
        else:
            assert watch is not None
            evaluate = partial(watch.evaluate, step, epoch, round(epoch * self._rows), rate)
            message = lead_evaluation(self._processes, watch, step, evaluate)
        self._stops = message["stop"]

    def _stop_if_requested(self, control: Any) -> Any:
        if self._takes_part and self._stops:
            control.should_training_stop = True
        return control


def peak_learning_rate(args: Any, scheduler: Any) -> float | None:
    """The peak learning rate of a run, in the unit of its arguments.

    ``None`` where these do not give it: with an optimizer of the user's own, or with a schedule
    that is not one of Transformers', which are factors from 0 to 1 of the initial rate.
    """
    from torch.optim.lr_scheduler import LambdaLR

    inner = getattr(scheduler, "scheduler", scheduler)
    if not isinstance(inner, LambdaLR):
        return None
    initial, learning_rate = max(inner.base_lrs), float(args.learning_rate)
    return learning_rate if math.isclose(initial, learning_rate) else None


def trainer_changes(optimizer: Any, scheduler: Any) -> Mapping[type[Any], Callable[[Any], None]]:
    """Changes of a run through its optimizer and schedule, which its checkpoints keep: every
    learning rate times a factor, and the weight decay of decayed parameters.
    """

    def scale(action: ScaleLearningRate) -> None:
        for group in optimizer.param_groups:
            for name in ("lr", "initial_lr"):
                if name in group:
                    group[name] *= action.factor
        # A schedule computes each rate from the initial ones.
        inner = getattr(scheduler, "scheduler", scheduler)
        if hasattr(inner, "base_lrs"):
            inner.base_lrs = [rate * action.factor for rate in inner.base_lrs]

    def decay(action: SetWeightDecay) -> None:
        for group in optimizer.param_groups:
            if group.get("weight_decay"):
                group["weight_decay"] = action.weight_decay

    return {ScaleLearningRate: scale, SetWeightDecay: decay}


def calling_trainer(callback: Any) -> tuple[Any, str | None]:
    """The trainer that called ``callback``, and the checkpoint folder that it resumes from.

    A ``TrainerCallback`` receives the model and the loaders, but neither the trainer (its rows, its
    loss) nor the checkpoint. Both are local variables of the functions that wait for the callback
    to return, and are read there.

    Raises ``RunError`` where no ``transformers.Trainer`` is among the callers.
    """
    trainer, checkpoint = None, None
    for names in _callers():
        owner = names.get("self")
        if isinstance(owner, Trainer) and callback in owner.callback_handler.callbacks:
            trainer = owner
            folder = names.get("resume_from_checkpoint")
            checkpoint = checkpoint or (folder if isinstance(folder, str) else None)
    if trainer is None:
        rule = "was not called by a transformers.Trainer"
        remedy = "Put guard.callback() into callbacks=[…] of a Trainer."
        raise RunError("the guard's callback", rule, None, remedy)
    return trainer, checkpoint


def _callers() -> Iterator[Mapping[str, Any]]:
    """The local variables of the calling functions, the innermost first."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        yield frame.f_locals
        frame = frame.f_back


def processes_of(trainer: Any) -> Processes:
    args = trainer.args
    sharded = any(local_part(one) is not one for one in trainer.model.parameters())
    return Processes(args.world_size, args.process_index, sharded)


def data_owner(trainer: Any) -> Any:
    """The object that holds the rows: SetFit keeps texts in a trainer around the one that
    trains.
    """
    if not hasattr(trainer, "setfit_model"):
        return trainer
    import setfit

    owners = (names.get("self") for names in _callers())
    return next((owner for owner in owners if isinstance(owner, setfit.Trainer)), trainer)


def _foreign_run(guard: GuardHandle, trainer: Any, train_loader: Any, steps: int) -> ForeignRun:
    owner = data_owner(trainer)
    if owner.eval_dataset is None or (type(owner.eval_dataset) is dict and not owner.eval_dataset):
        raise DataError(
            f"the {type(owner).__name__}",
            "has no evaluation rows, so overfitting cannot be detected",
            None,
            "Give it eval_dataset=…, or let the guard hold out some of its training "
            "rows: holdfast.Guard(hold_out=0.15), its callback in callbacks=[…] of "
            "the trainer.",
        )
    if owner is not trainer:
        from holdfast.plugins.trainers.setfit import setfit_run

        return setfit_run(guard, owner, steps, len(train_loader.dataset))
    rows, model = TrainerRows(guard, trainer, train_loader), trainer.model
    return ForeignRun(
        model=model,
        measure=rows,
        run_facts=run_facts(trainer, rows, steps),
        output=Path(trainer.args.output_dir),
        trainer=type(trainer).__name__,
        # The name it was loaded from, or its class for a model that was not loaded.
        name=str(getattr(model.config, "_name_or_path", "") or type(model).__name__),
        classes=rows.classes,
        rows_per_epoch=rows.train_rows,
        evaluated_rows=rows.evaluated_rows,
        by_row=rows.formula is None,
        log=TRANSFORMERS,
    )


def _planned_evaluations(
    args: Any, state: Any, foreign_run: ForeignRun, evaluations: int | None
) -> tuple[int, ...]:
    """The steps of the trainer's evaluations; of the guard's where the trainer has none."""
    strategy, end, rows = _evaluation_strategy(args), state.max_steps, foreign_run.rows_per_epoch
    if strategy == "steps":
        return tuple(range(int(state.eval_steps), end + 1, int(state.eval_steps)))
    update = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    epoch = max(1, math.ceil(rows / update))
    if strategy == "epoch":
        return tuple(range(epoch, end + 1, epoch))
    epochs = end / epoch
    count = evaluations or default_evaluations(epochs * rows, epochs, foreign_run.evaluated_rows)
    return evaluation_steps(end, count)


def _evaluation_strategy(args: Any) -> str:
    """When the trainer evaluates: ``no``, ``steps`` or ``epoch``."""
    return str(getattr(args.eval_strategy, "value", args.eval_strategy))


def _refuse(trainer: Any, guard: GuardHandle) -> None:
    """Refuse runs that the guard cannot handle correctly."""
    listed = trainer.callback_handler.callbacks
    if sum(isinstance(one, GuardCallback) and one._guard is guard for one in listed) > 1:
        rule = "has two callbacks of one guard, which would both stop and restore"
        raise RecipeError("callbacks=[…]", rule, None, "Give it guard.callback() once.")
    plugin, count = getattr(trainer.accelerator.state, "fsdp_plugin", None), trainer.args.world_size
    is_old = trainer.is_fsdp_enabled and getattr(plugin, "fsdp_version", 1) == 1
    setups = {
        "DeepSpeed": trainer.is_deepspeed_enabled,
        "FSDP version 1": is_old,
        f"SetFit, {count} processes": count > 1 and data_owner(trainer) is not trainer,
    }
    for setup, given in setups.items():
        if given:
            raise unsupported_setup(setup)
    if trainer.state.is_hyper_param_search:
        rule = "monitors one run, not the trials of a search"
        raise RunError("the guard", rule, None, "Search without its callback, then train with it.")
    if guard.policy != "off" and trainer.args.load_best_model_at_end:
        rule = "and the guard would both choose the final weights"
        remedy = (
            "Leave it out: the guard restores the best checkpoint. Or observe: Guard(policy='off')."
        )
        raise RecipeError("load_best_model_at_end", rule, True, remedy)
