"""The training loop.

    fit
     ├─ run_start
     ├─ snapshot 0                       (the model before any step: the baseline)
     ├─ for each phase
     │   ├─ phase_start
     │   ├─ for each epoch
     │   │   ├─ epoch_start
     │   │   ├─ for each batch
     │   │   │   ├─ batch_ready
     │   │   │   ├─ forward → per-example loss
     │   │   │   ├─ loss_ready           (+ each LossTerm)
     │   │   │   ├─ backward
     │   │   │   ├─ backward_done        (a penalty adds its gradient)
     │   │   │   ├─ gradients_ready      (clip)
     │   │   │   └─ step_done            (optimizer and schedule have moved)
     │   │   └─ epoch_end
     │   └─ at each evaluation point
     │       ├─ snapshot_due             (a refitted head)
     │       ├─ snapshot → verdict → advice → act
     │       └─ snapshot_taken           (checkpoint)
     ├─ averages of the weights, where a listener offers some: kept by the same choice
     ├─ restore the best checkpoint
     └─ run_end

At each event, listeners that change the run come first, then those that record it, then those that
notify others, each group by name (``core/events.py``). The strategies of the phase
(``core/updates.py``) decide how the rows of a batch are drawn, how its gradient is computed and
which terms its losses pass. The drawing shows one pass per update.

Evaluation points come from step counts, so they may be inside an epoch. A checkpoint may be
written after any step, since a resumed run is bit-identical wherever it continues.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from holdfast.core.actions import Action, Stop
from holdfast.core.errors import Interrupted, MachineError, TrainingError
from holdfast.core.records import Snapshot, Verdict
from holdfast.core.seeds import derive_seed
from holdfast.training.act import is_out_of_memory, start_phase
from holdfast.training.guard import begin_run, checkpoint_state, end_run, resume_from
from holdfast.training.machine.sharding import is_sharded
from holdfast.training.machine.signals import StopSignals
from holdfast.training.run import Job, Run
from holdfast.training.snapshot import OfferResult, evaluate_offers, selected_average
from holdfast.training.step import draw_of_step, steps_per_epoch, train_step


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """The result of a finished run. The network holds the best checkpoint; ``initial_tensors`` are
    the trainable tensors before the first step. ``history`` is that of the branch that was live at
    the end; ``examples_seen`` counts all rows trained on, including those of other branches.
    ``offers`` are the averages of weights that were tried; where one is kept, ``selected_average``
    is its evaluation, and ``best_step`` the step of the newest weights in it. ``evaluations`` are
    those of every branch."""

    history: Sequence[Snapshot]
    verdict: Verdict
    actions: Sequence[tuple[int, Action]]
    best_step: int
    last_step: int
    stopped_because: str
    examples_seen: int
    train_s: float
    evaluate_s: float
    guard_s: float
    initial_tensors: Mapping[str, torch.Tensor]
    offers: Sequence[OfferResult] = ()
    selected_average: Snapshot | None = None
    evaluations: Sequence[Snapshot] = ()


def fit(job: Job, resume: bool = False) -> TrainingResult:
    """Train ``job.network`` in place and leave it at its best checkpoint.

    Raises ``Interrupted`` when the user asked to stop (a checkpoint was written), ``TrainingError``
    when a loss is not finite, ``MachineError`` when memory runs out.
    """
    torch.manual_seed(derive_seed(job.plan.seed, "dropout", job.accelerator.process_index))
    run = begin_run(job)
    run.emit("run_start")
    with StopSignals() as signals, memory_errors("the training step"):
        _start_or_resume(run, resume)
        if not run.finished:
            _run_phases(run, signals)
            evaluate_offers(run)
            run.finished = True
            run.load_tensors(run.best.tensors)
            _save_checkpoint(run)
            # For a request that came while the last checkpoint was being written.
            if _any_process(run, signals.stop_requested):
                raise _interrupted(run)
        end_run(run)
    run.emit("run_end")
    return _training_result(run)


def _start_or_resume(run: Run, resume: bool) -> None:
    """Continue from the newest checkpoint, or evaluate the model before any step."""
    state = run.job.store.load() if resume else None
    if state is not None:
        resume_from(run, state)
    if not run.finished:
        run.fill_prefix_cache()
    if state is None:
        # Discard what a run left here that was killed before its first checkpoint.
        run.journal.restore("")
        run.journal.note_decisions(0, *run.job.decisions)
        for line in run.job.out_of_fold.notes if run.job.out_of_fold else ():
            run.journal.note(**line)
        _evaluate(run)


def _run_phases(run: Run, signals: StopSignals) -> None:
    while run.phase_index < len(run.plan.phases) and run.stop_because is None:
        if run.step_in_phase == 0:
            start_phase(run)
            run.emit("phase_start")
        _run_steps(run, signals)
        if run.step_in_phase >= run.phase.steps:
            run.phase_index, run.step_in_phase = run.phase_index + 1, 0


def _run_steps(run: Run, signals: StopSignals) -> None:
    """The steps of the current phase, until its end or until the run went back to the beginning of
    a phase. A rollback may lead into an earlier phase, so no state of a phase is kept here."""
    while run.step_in_phase < run.phase.steps and run.stop_because is None:
        if run.step_in_phase % steps_per_epoch(run) == 0:
            run.emit("epoch_start")
        run.emit("batch_ready")
        try:
            train_step(run, draw_of_step(run))
        except TrainingError:
            if not _undo_broken_trial(run):
                raise
            if run.step_in_phase == 0:
                return
            continue
        if run.step_in_phase % steps_per_epoch(run) == 0 or run.step_in_phase == run.phase.steps:
            run.emit("epoch_end")
        limit = run.plan.max_minutes
        if (
            limit is not None
            and run.stop_because is None
            and _any_process(run, run.seconds >= limit * 60)
        ):
            run.guard.act(Stop(f"the limit of {limit:g} minutes (train.max_minutes) is reached"))
        if run.step in run.plan.evaluate_at or run.stop_because is not None:
            _evaluate(run)
        _checkpoint_if_due(run, signals)
        if run.step_in_phase == 0:
            return


def _undo_broken_trial(run: Run) -> bool:
    """Whether a failed step belonged to a trial that an evaluation has ended."""
    branch_before = run.guard.branch
    if run.guard.returns_to() is None or run.step <= run.guard.history[-1].step:
        return False
    _evaluate(run)
    return run.guard.branch != branch_before or run.stop_because is not None


def _evaluate(run: Run) -> None:
    run.guard.evaluate()
    run.emit("snapshot_taken")


def _checkpoint_if_due(run: Run, signals: StopSignals) -> None:
    if _any_process(run, signals.stop_requested):
        _save_checkpoint(run)
        raise _interrupted(run)
    alone = run.job.accelerator.num_processes == 1
    # Clocks differ between processes, and all must save at the same step.
    if run.job.store.is_due if alone else run.step in run.plan.evaluate_at:
        _save_checkpoint(run)


def _interrupted(run: Run) -> Interrupted:
    if not run.job.store.is_enabled:
        return Interrupted(
            "the fit",
            f"was interrupted at step {run.step}",
            None,
            "Call fit again: it starts anew.",
        )
    return Interrupted(
        "the run",
        f"was interrupted at step {run.step}; a checkpoint is written",
        None,
        "Continue it with the same command and --resume.",
    )


def _save_checkpoint(run: Run) -> None:
    accelerator = run.job.accelerator
    sharded = is_sharded(run.network)
    state = checkpoint_state(run) if sharded or accelerator.is_main_process else {}
    if sharded and not accelerator.is_main_process:
        run.job.store.save(run.step, state)
    if sharded:
        # A step counts once the first process has written it: then the others have.
        accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        run.job.store.save(run.step, state)
    accelerator.wait_for_everyone()


def _any_process(run: Run, local_value: bool) -> bool:
    """Whether the value is true in any process: all must leave the loop at the same step."""
    if run.job.accelerator.num_processes == 1:
        return local_value
    flag = torch.tensor([float(local_value)], device=run.job.accelerator.device)
    total = run.job.accelerator.reduce(flag, reduction="sum")
    return bool(total.item() > 0)


@contextlib.contextmanager
def memory_errors(subject: str) -> Iterator[None]:
    """Turn the back ends' out-of-memory errors into one clear error about ``subject``."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        remedy = (
            "Halve train.batch_size and double train.gradient_accumulation_steps, or lower "
            "model.max_length."
        )
        raise MachineError(subject, "needs more memory than is available", None, remedy) from error


def _every_step_taken(steps: int) -> str:
    return f"all {steps} planned steps were taken" if steps > 1 else "the planned step was taken"


def _training_result(run: Run) -> TrainingResult:
    assert run.verdict is not None
    return TrainingResult(
        history=tuple(run.history),
        verdict=run.verdict,
        actions=tuple(run.guard.actions),
        best_step=run.best.step,
        last_step=run.step,
        stopped_because=run.stop_because or _every_step_taken(run.plan.steps),
        examples_seen=run.examples_seen + run.examples_undone,
        train_s=run.seconds,
        evaluate_s=run.guard.evaluate_s,
        guard_s=run.guard.guard_s,
        initial_tensors=run.initial_tensors,
        offers=tuple(run.offers),
        selected_average=selected_average(run),
        evaluations=tuple(run.guard.snapshots),
    )
