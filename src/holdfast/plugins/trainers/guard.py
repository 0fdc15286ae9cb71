"""``holdfast.Guard``: the guard of a run, for another library's trainer."""

from __future__ import annotations

import contextlib
import copy
import itertools
import numbers
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from holdfast.control.choice import lowest_calibrated
from holdfast.control.controller import ControlledPlan, Controller
from holdfast.control.ladder import Ladder
from holdfast.control.policy import Policy
from holdfast.control.sight import Can
from holdfast.control.stop_rules import StoppingRule
from holdfast.core.actions import Stop
from holdfast.core.errors import InputError, RecipeError, RunError
from holdfast.core.events import Advisor
from holdfast.core.input_errors import defect_line
from holdfast.core.records import Decision, Snapshot, Verdict
from holdfast.plan.defaults import LEARNING_RATE_REGIONS, model_size
from holdfast.plugins.trainers.foreign import MOST_EVALUATIONS, UserCodeError, user_code

if TYPE_CHECKING:
    import torch
    from lightning.pytorch import Callback
    from transformers import TrainerCallback

    from holdfast.plugins.trainers.foreign import ForeignRun
    from holdfast.plugins.trainers.watch import TrainerRun

PATIENCE = 10
FOLDER = "holdfast"
# For a trainer that does not say its last step.
UNKNOWN_END = 2**31


class Guard:
    """Monitor a run of another trainer: verdicts, early stopping, and the best checkpoint at the
    end.

    At each evaluation of the trainer (at ``evaluations`` steps of its own where the trainer never
    evaluates) it measures a fixed sample of the training rows and all evaluation rows, row by row,
    in evaluation mode, with the trainer's own collator and loss. It judges them with the code that
    judges Holdfast's own runs, and writes ``events.jsonl``, ``result.json`` and ``report.html``.

    Measuring leaves no trace: random generators and the mode of every module are restored. With
    ``policy="off"`` the trained weights are, bit for bit, those of a run without the guard.

    Unlike ``EarlyStoppingCallback`` with ``load_best_model_at_end`` it compares losses row by row
    instead of two means, needs no checkpoint on disk to restore the best state, and its patience
    survives ``resume_from_checkpoint``.

    Parameters
    ----------
    policy : ``"stop"`` stops the run and restores its best checkpoint; ``"off"`` only observes;
        ``"adapt"``, or a policy of your own (``holdfast.control.policy.Policy``), also acts as far
        as the trainer allows: learning rates and weight decay of ``transformers.Trainer`` and of
        trainers built on it. It cannot return to an earlier state, so it acts on the current one.
    patience : evaluations without improvement of the (calibrated) validation loss after which the
        run stops; ``None``: it stops only when it diverges or overfits.
    hold_out : share of the training rows to evaluate on where the trainer has no evaluation rows,
        in (0, 1); exact duplicates stay in one split. Without it such a trainer is refused.
    sample_rows : rows of the training sample; by default as many as there are evaluation rows, at
        least 50 and at most 500.
    evaluations : number of evaluations by the guard itself, where the trainer has none; by default
        as many as cost a tenth of the training, at least 3 and one per epoch, at most 20.
    folder : where its files go; by default ``holdfast`` in the trainer's output folder, with a
        number where that is taken.
    seed : of the training sample and of held-out rows.
    advisor : replaces the guard's decisions; see ``holdfast.core.events.Advisor``.
    choose : a function from a history to the position of the best checkpoint, in place of the
        lowest calibrated validation loss (``control.choice.lowest_calibrated``); it must return the
        newest position or the one that it returned before.
    log : receives the changes of verdict, the actions and the guard's decisions, a line each; by
        default they go to standard error. ``lambda line: None`` silences it.

    Examples
    --------
    >>> guard = holdfast.Guard()                                          # doctest: +SKIP
    >>> trainer = transformers.Trainer(..., callbacks=[guard.callback()]) # doctest: +SKIP
    >>> trainer.train()                                                   # doctest: +SKIP
    >>> guard.verdict.label, guard.best_step                              # doctest: +SKIP
    """

    def __init__(
        self,
        *,
        policy: Literal["stop", "off", "adapt"] | Policy = "stop",
        patience: int | None = PATIENCE,
        hold_out: float | None = None,
        sample_rows: int | None = None,
        evaluations: int | None = None,
        folder: str | Path | None = None,
        seed: int = 0,
        advisor: Advisor | None = None,
        choose: Callable[[Sequence[Snapshot]], int] = lowest_calibrated,
        log: Callable[[str], None] | None = None,
    ) -> None:
        counts = {
            "patience": (patience, 1),
            "sample_rows": (sample_rows, 1),
            "evaluations": (evaluations, 1),
            "seed": (seed, 0),
        }
        functions = {"choose": choose, "log": log or _to_standard_error}
        _check_arguments(policy, counts, hold_out, functions)
        self.policy = policy if isinstance(policy, str) else type(policy).__name__
        self._policy = Ladder() if policy == "adapt" else policy
        self.hold_out = hold_out
        self.sample_rows = sample_rows
        self.evaluations = evaluations
        self.seed = seed
        self._log = log or _to_standard_error
        self._patience = patience
        self._folder = Path(folder) if folder is not None else None
        self._advisor = advisor
        self._choose = choose
        self._watch: TrainerRun | None = None
        self._pending_decisions: list[Decision] = []
        self._advisor_start = copy.deepcopy(advisor.state_dict()) if advisor is not None else {}

    def callback(self) -> TrainerCallback:
        """The callback for ``callbacks=`` of a ``transformers.Trainer``, ``Seq2SeqTrainer``, TRL's
        ``SFTTrainer`` or SetFit's ``Trainer``.
        """
        from holdfast.plugins.trainers.transformers import GuardCallback

        return GuardCallback(self)

    def on_init_end(self, *_: object, **__: object) -> None:
        """What a Trainer calls first where the guard itself stands in ``callbacks``: an error."""
        rule = "contains the Guard itself instead of its callback"
        raise RecipeError("callbacks", rule, None, "Write callbacks=[guard.callback()].")

    def lightning_callback(
        self, logits: Callable[[Any, Any], tuple[torch.Tensor, torch.Tensor]] | None = None
    ) -> Callback:
        """The callback for ``callbacks=`` of a Lightning ``Trainer``.

        ``logits`` takes the module and a batch and returns logits and labels of its rows; the
        losses of all rows of a batch, and the calibrated loss, then come from one pass. Without it
        every row goes through the module's ``training_step`` one at a time.
        """
        from holdfast.plugins.trainers.lightning import make_callback

        callback: Callback = make_callback(self, logits)
        return callback

    @property
    def history(self) -> tuple[Snapshot, ...]:
        """The evaluations so far, oldest first."""
        return self._watch.engine.history if self._watch else ()

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on them; ``None`` before the first evaluation."""
        return self._watch.engine.verdict if self._watch else None

    @property
    def best_step(self) -> int | None:
        """The step of the best checkpoint; ``None`` before the first evaluation."""
        # The first evaluation may have failed before it had a checkpoint.
        is_saved = self._watch is not None and self._watch.engine.best.step >= 0
        return self._watch.engine.best.step if self._watch and is_saved else None

    @property
    def folder(self) -> Path | None:
        """The folder of the current or last run; ``None`` before the first."""
        return self._watch.folder if self._watch else None

    @property
    def stopped_because(self) -> str | None:
        """Why the guard stopped the run; ``None`` where it did not."""
        return self._watch.engine.stop_because if self._watch else None

    def report(self) -> Path:
        """Write ``result.json`` and ``report.html`` from the evaluations so far, and return the
        path of the report. Called automatically at the end of a run.
        """
        from holdfast.plugins.trainers.result import write_result
        from holdfast.report.page import write_report

        if self._watch is None or not self._watch.engine.snapshots:
            raise RunError(
                "the guard", "has not monitored a run yet", None, "Train with its callback first."
            )
        for left_out in write_result(self._watch, self._policy_name, self.seed, self._choose):
            self._log(f"{left_out.what}: {left_out.chosen} ({left_out.because})")
        return write_report(self._watch.folder)

    @property
    def _policy_name(self) -> str:
        """What decided: the policy, or the user's advisor in its place."""
        if self._advisor is None or self.policy == "off":
            return self.policy
        return type(self._advisor).__name__

    def promise(self, decision: Decision) -> None:
        """Store a decision made before the run has a folder; it is written when the run begins."""
        self._pending_decisions.append(decision)

    def begin(self, foreign_run: ForeignRun, state: dict[str, Any] | None) -> TrainerRun:
        """Monitor a new run, or continue the one whose ``state`` a checkpoint stored."""
        from holdfast.plugins.trainers.watch import TrainerRun

        advisor = self._fresh_advisor(foreign_run)
        watch = self._watch = TrainerRun(
            self._run_folder(foreign_run.output, state["folder"] if state is not None else None),
            foreign_run,
            advisor.choose if isinstance(advisor, Controller) else self._position_of_best,
            advisor,
            self.seed,
            self._log,
        )
        pending, self._pending_decisions = self._pending_decisions, []
        if state is not None:
            watch.load_state_dict(state)
        else:
            watch.begin(pending)
        return watch

    def finish(self) -> None:
        """End the run: report its best checkpoint, and write its report."""
        from holdfast.plugins.trainers.result import decide_checkpoint

        assert self._watch is not None
        assert self.verdict is not None
        decide_checkpoint(self._watch, self._choose, restored=self.policy != "off")
        path = self.report()
        self._log(f"{self.verdict.label.replace('_', ' ')}; report: {path}")

    def step_aside(
        self, hook: str, error: Exception, watch: TrainerRun | None, output: Callable[[], Path]
    ) -> None:
        """Report a failure of the guard in ``hook``, and note it in ``events.jsonl``: of the
        ``watch``, or where there is none yet, of a new folder in the trainer's ``output``.

        Raises nothing: a failure that cannot be noted is printed all the same.
        """
        from holdfast.plugins.trainers.watch import GUARD_DISABLED
        from holdfast.training.journal import Journal

        failure = f"failure of the guard in {hook}"
        is_expected = isinstance(error, (InputError, UserCodeError))
        because = str(error) if is_expected else defect_line(error)
        with contextlib.suppress(Exception):
            step, journal = 0, None
            if watch is not None:
                step, journal = watch.step, watch.engine.journal
            else:
                folder = self._run_folder(output(), None)
                folder.mkdir(parents=True, exist_ok=True)
            (journal or Journal(folder)).note(step, failure, because, chosen=GUARD_DISABLED)
        line = f"Warning: {GUARD_DISABLED} ({failure}: {because})"
        try:
            self._log(line)
        except Exception:
            with contextlib.suppress(Exception):
                _to_standard_error(line)

    def _fresh_advisor(self, foreign_run: ForeignRun) -> Advisor | None:
        """A new advisor without memory of the run before."""
        if self.policy == "off":
            return None
        if self._advisor is not None:
            self._advisor.load_state_dict(copy.deepcopy(self._advisor_start))
            return self._advisor
        if isinstance(self._policy, str):
            return self._stopping_rule()
        plan = run_course_of(foreign_run)
        return Controller(
            self._policy, self._stopping_rule(), self._stopping_rule(), self._position_of_best, plan
        )

    def _position_of_best(self, history: Sequence[Snapshot]) -> int:
        """The position that ``choose`` returns, checked."""
        with user_code("Guard(choose=…)"):
            position = self._choose(history)
        if not _is_integer(position) or not 0 <= position < len(history):
            rule = f"a position in the history, 0 to {len(history) - 1}"
            raise UserCodeError(f"Guard(choose=…) must return {rule}, but returned {position!r}")
        return position

    def _stopping_rule(self) -> StoppingRule:
        # Other trainers begin with random heads and warm-ups. How well their first evaluations
        # predict the coming gain was never measured, so no run is stopped for a lack of it. Where
        # calibrated losses tie, the plain loss decides.
        return StoppingRule(
            {}, None, self._patience, lambda s: s.refined_loss + 1e-6 * s.valid_loss
        )

    def _run_folder(self, output: Path, name: str | None) -> Path:
        """The folder of the continued run, or the first of ``folder``, ``folder-2`` … in which no
        run has written.
        """
        first_folder = self._folder or output / FOLDER
        if name is not None:
            return first_folder.with_name(name)
        others = (
            first_folder.with_name(f"{first_folder.name}-{number}") for number in itertools.count(2)
        )
        folders = itertools.chain([first_folder], others)
        return next(place for place in folders if not (place / "events.jsonl").exists())


def run_course_of(foreign_run: ForeignRun) -> ControlledPlan:
    """What a policy knows about another trainer's run: its plan, the changes that its trainer
    allows, and the learning rates that are known to work for a model of its size.
    """
    parameters = sum(p.numel() for p in foreign_run.model.parameters())
    planned = foreign_run.run_facts.planned_steps or UNKNOWN_END
    interval = max(1, planned // MOST_EVALUATIONS)
    known = foreign_run.evaluation_steps or range(interval, planned, interval)
    names = [Stop.__name__, *(action_type.__name__ for action_type in foreign_run.changes)]
    return ControlledPlan(
        evaluation_steps=(0, *(step for step in known if step < planned), planned),
        capabilities=Can(actions=tuple(names)),
        rate=foreign_run.rate,
        usual_rates=foreign_run.run_facts.usual_rates
        or LEARNING_RATE_REGIONS[model_size(parameters)],
    )


def _check_arguments(
    policy: Any,
    counts: Mapping[str, tuple[int | None, int]],
    hold_out: float | None,
    functions: Mapping[str, object],
) -> None:
    if policy not in ("stop", "off", "adapt") and not isinstance(policy, Policy):
        remedy = "Use 'stop', 'off', 'adapt' or an object with a method decide(sight)."
        raise RecipeError("Guard(policy=…)", "is not a policy", policy, remedy)
    for name, (value, least) in counts.items():
        if value is not None and (not _is_integer(value) or value < least):
            rule, remedy = f"must be an integer of at least {least}", f"E.g. {max(least, 3)}."
            raise RecipeError(f"Guard({name}=…)", rule, value, remedy)
    if hold_out is not None and not (isinstance(hold_out, numbers.Real) and 0 < hold_out < 1):
        raise RecipeError("Guard(hold_out=…)", "must lie between 0 and 1", hold_out, "E.g. 0.15.")
    for name, function in functions.items():
        if not callable(function):
            remedy = "Give a function, or remove it."
            found = type(function).__name__
            raise RecipeError(f"Guard({name}=…)", "must be a function", found, remedy)


def _is_integer(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _to_standard_error(line: str) -> None:
    sys.stderr.write(f"holdfast: {line}\n")
