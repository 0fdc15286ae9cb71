"""Cross-fitting: train one model on all rows, and evaluate it with networks of folds that did not
learn from the evaluated rows.

With fewer than a few hundred rows, the validation rows that a run can spare are too few to
distinguish checkpoints, and the model lacks them for training. So each row is held out only in one
fold:

    K folds ── each: a short run on the other rows, which predicts the fold at every evaluation
      └─ together: out-of-fold losses of every row at every evaluation
           └─ one run on all rows, diagnosed, stopped and selected by those losses

A fold's run has the updates of the full run in proportion to its rows, so that at the same fraction
of the run it has passed each row equally often; nothing stops it early. Its predictions at an
evaluation are used for the evaluation of the full run at the same fraction. The rest (verdict, best
checkpoint, temperature) works as in an ordinary run, with all rows in place of validation rows.

Anything derived from rows (names of classes, weights of classes, enrichment) is derived inside each
fold from its training rows only. Duplicates and groups stay in one fold (``PreparedData.units``).
Memory holds one trained network at a time. Each finished fold is stored next to the checkpoints, so
that a killed run does not repeat it.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.contract.fit import FittedModel, PreparedData, TrainingPlan
from holdfast.core.decisions import decisions_to, notify, stage
from holdfast.core.errors import Interrupted, MachineError, RecipeError, TrainingError
from holdfast.core.events import Offers
from holdfast.core.records import Decision, Floats, Ints, Snapshot
from holdfast.core.seeds import derive_seed
from holdfast.core.wording import percent_phrase
from holdfast.fits.compose import make_training_plan, with_label_weights
from holdfast.fits.fit import FitFolder, FitPlace, make_job, run_fit
from holdfast.fits.plan_trial import Remake, default_plan, is_affordable, judge_trial, not_tried
from holdfast.methods.closed_form import curve_from_state, curve_to_state
from holdfast.methods.registry import parts_of
from holdfast.models.layers import BACKBONE
from holdfast.models.probes.head_fit import ProbeCurve
from holdfast.plan.defaults import enabled_methods
from holdfast.recipe import Recipe, as_settings
from holdfast.split.folds import Fold, Folds, make_folds
from holdfast.stats.temperature import best_temperature, logit_spread
from holdfast.training.checkpoint import SealedFile
from holdfast.training.engine import pack_snapshot, unpack_snapshot
from holdfast.training.listeners.progress import UpdateProgress
from holdfast.training.loop import fit as train
from holdfast.training.machine.machine import make_accelerator
from holdfast.training.observe import FoldEvaluation, Observer
from holdfast.training.plan import Plan
from holdfast.training.task import labels_of

if TYPE_CHECKING:
    from accelerate import Accelerator

    from holdfast.core.events import Listener
    from holdfast.training.task import Examples


Extend = Callable[[Ints, Ints], PreparedData]
FOLDER = "folds"
TOTAL_KEYS = ("examples_seen", "evaluate_s", "guard_s")
COUNTED_KEYS = ("seconds", *TOTAL_KEYS)
# As long as a checkpoint's version: the end of the file has a fixed length.
FILE_FORMAT = b"holdfast cross-fit  2"
UNUSED = "a finished fold", ": the fold is run again"


@dataclass(frozen=True, slots=True, eq=False)
class FoldRun:
    """The result of one fold's run: its ``held_out`` positions among the run's rows, its
    evaluations on them, the ``probe`` logits [held out, classes] of its linear probe and the
    probe's learning ``curve``; how many times as far apart its logits are on rows that it learned
    as on held-out ones (``inflation``, NaN without one class each); rows passed, and seconds in
    all, for evaluation and for judging."""

    number: int
    held_out: Ints
    history: tuple[Snapshot, ...]
    probe: Floats
    curve: ProbeCurve | None
    inflation: float
    examples_seen: int
    seconds: float
    evaluate_s: float
    guard_s: float

    def to_state(self) -> dict[str, Any]:
        """The fields in types that the weights-only loader reads."""
        import torch

        return {
            "number": self.number,
            "held": torch.as_tensor(self.held_out),
            "history": [pack_snapshot(snapshot) for snapshot in self.history],
            "probe": torch.as_tensor(self.probe),
            "curve": None if self.curve is None else curve_to_state(self.curve),
            "inflation": self.inflation,
            **{name: getattr(self, name) for name in COUNTED_KEYS},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> FoldRun:
        return cls(
            state["number"],
            state["held"].numpy(),
            tuple(unpack_snapshot(snapshot) for snapshot in state["history"]),
            state["probe"].numpy(),
            None if state["curve"] is None else curve_from_state(state["curve"]),
            state["inflation"],
            **{name: state[name] for name in COUNTED_KEYS},
        )


def cross_fit(
    prepared: PreparedData,
    positions: Ints | Sequence[int],
    folds: int,
    settings: Mapping[str, object] | Sequence[str] = (),
    *,
    extend: Extend | None = None,
    finished: Sequence[FoldRun] = (),
    into: FitFolder | None = None,
    listeners: Sequence[Listener] = (),
) -> FittedModel:
    """Train on all rows at ``positions``, with every choice made out of fold.

    It is to ``fit`` what cross-validation is to a hold-out. It returns the same type, but history,
    verdict and best checkpoint are based on the losses of all rows, each from a network that had
    not learned from the row (``FittedModel.job.out_of_fold``).

    ``folds`` is K, at least 2. ``extend`` prepares the data for a fold's own training and held-out
    positions (for example its class names); without it a fold uses ``prepared``. ``finished`` are
    the results of ``run_folds`` with the same arguments, if they are known. The other parameters
    are as for ``fit``.

    Raises ``SplitError`` where a class has fewer units than there are folds, and what ``fit``
    raises.
    """
    start = time.perf_counter()
    rows = np.asarray(positions, dtype=np.int64)
    checkpoints = into.checkpoints if into else None
    training_plan, dealt_folds = _plan_folds(prepared, rows, folds, settings, checkpoints)
    known = {run.number: run for run in finished}
    tried: FoldRun | None = None
    # A search compares the settings that it gives.
    searched = any(key.startswith("train.") for key in as_settings(settings))
    if not (known or searched):
        remake = remake_by(prepared, prepared.with_settings(settings), rows, checkpoints)

        def answer(plan: TrainingPlan) -> FoldRun:
            accelerator = make_accelerator(plan.recipe.train.precision)
            steps = _updates(plan, dealt_folds)[0]
            progress = UpdateProgress("updates of the first fold with this plan", steps)
            first = dealt_folds.folds[0]
            return _answer_fold(prepared, extend, rows, first, plan, accelerator, progress)

        trials = into.begun_trials() if into else None
        if trials is None:
            training_plan, tried = _with_better_plan(training_plan, dealt_folds, remake, answer)
        elif any(trial["kept"] for trial in trials):
            # The last fit of ``holdfast cv`` is resumed with the recipe that was given.
            training_plan = default_plan(training_plan, remake) or training_plan
        known = {} if tried is None else {tried.number: tried}
    runs: list[FoldRun] = []
    earlier_seconds = 0.0

    def evaluate_folds(
        training_plan: TrainingPlan, accelerator: Accelerator, place: FitPlace
    ) -> tuple[TrainingPlan, FoldEvaluation]:
        nonlocal earlier_seconds
        steps = _updates(training_plan, dealt_folds)
        progress = UpdateProgress(f"updates in {folds} folds, then on all rows", sum(steps))
        for fold in dealt_folds:
            file = fold_file(checkpoints, place, fold.number)
            state = file.load(*UNUSED) if place.resume else None
            earlier = known.get(fold.number) if state is None else FoldRun.from_state(state)
            earlier_seconds += earlier.seconds if earlier not in (None, tried) else 0.0
            progress.total -= steps[fold.number] if earlier else 0
            run = earlier or _answer_fold(
                prepared, extend, rows, fold, training_plan, accelerator, progress
            )
            if state is None:
                file.save(run.to_state())
            runs.append(run)
            notify(_fold_decision(run, folds))
        joined = join_folds(runs, training_plan.plan, len(rows))
        best = _best_outputs(joined, labels_of(training_plan.valid))
        return with_label_weights(training_plan, rows, best), joined

    fitted = run_fit(training_plan, start, into=into, listeners=listeners, folds=evaluate_folds)
    return _with_fold_costs(fitted, runs, earlier_seconds)


def _with_better_plan(
    own: TrainingPlan, folds: Folds, remake: Remake, answer: Callable[[TrainingPlan], FoldRun]
) -> tuple[TrainingPlan, FoldRun | None]:
    """The fit's plan or the default one, whichever is better on the first fold, and the run of that
    fold; without it where nothing was tried. ``answer`` runs the first fold with a plan."""
    try:
        usual = plan_to_try(own, folds, remake)
    except (MachineError, RecipeError) as error:
        return replace(own, decisions=(*own.decisions, not_tried(error))), None
    if usual is None:
        return own, None
    with stage("comparing the recipe's plan with the default plan on the first fold"):
        runs = [_unless_it_fails(answer, plan) for plan in (own, usual)]
    histories = [run.history if isinstance(run, FoldRun) else () for run in runs]
    trial, decision = judge_trial((own, histories[0]), (usual, histories[1]))
    plan, run = (usual, runs[1]) if trial.kept else (own, runs[0])
    if not isinstance(run, FoldRun):
        raise run
    ended = [one for one in runs if isinstance(one, FoldRun)]
    totals = {name: sum(getattr(one, name) for one in ended) for name in COUNTED_KEYS}
    chosen = replace(
        plan,
        # Its recipe is the one that was given, which outer folds begin with.
        prepared=own.prepared,
        decisions=(*plan.decisions, decision),
        trials=(trial.to_record(),),
    )
    return chosen, replace(run, **totals)


def remake_by(
    prepared: PreparedData, recipe: Recipe, rows: Ints, checkpoints: Path | None = None
) -> Remake:
    """Makes the plan of the fit on all ``rows`` by this recipe."""

    def remake(train: Mapping[str, object]) -> TrainingPlan:
        open_data = replace(prepared, recipe=recipe.with_changes(train=train))
        return make_training_plan(open_data, rows, rows, (), checkpoints, cross_fitted=True)

    return remake


def plan_to_try(own: TrainingPlan, folds: Folds, remake: Remake) -> TrainingPlan | None:
    """The default plan of a cross-fitted fit, where the first fold is to be run with it, too."""
    usual = default_plan(own, remake)
    if usual is None or not is_affordable(_updates(own, folds), _updates(usual, folds)):
        return None
    return usual


def _unless_it_fails(
    answer: Callable[[TrainingPlan], FoldRun], plan: TrainingPlan
) -> FoldRun | TrainingError | MachineError:
    """The run of the first fold, or why it ended: a loss that is not finite, too little memory."""
    try:
        return answer(plan)
    except (TrainingError, MachineError) as error:
        return error


def _updates(full: TrainingPlan, folds: Folds) -> tuple[int, ...]:
    """The updates of each fold and of the fit on all rows."""
    shares = (len(fold.train) / len(full.valid) for fold in folds)
    return (*(sum(steps_of_fold(full.plan, share)) for share in shares), full.plan.steps)


def run_folds(
    prepared: PreparedData, positions: Ints, folds: int, extend: Extend
) -> tuple[FoldRun, ...]:
    """The runs of the folds alone, as in ``cross_fit``, without a folder."""
    training_plan, dealt_folds = _plan_folds(prepared, positions, folds)
    accelerator = make_accelerator(training_plan.recipe.train.precision)
    steps = _updates(training_plan, dealt_folds)[:folds]
    progress = UpdateProgress(f"updates in {folds} folds of MiniLM (embedded)", sum(steps))
    return tuple(
        _answer_fold(prepared, extend, positions, fold, training_plan, accelerator, progress)
        for fold in dealt_folds
    )


def gains_over_probe(runs: Sequence[FoldRun], labels: Ints) -> Floats:
    """For each row [n] whether the last network of its fold predicts its label, less whether the
    fold's linear probe does: 1, 0 or -1."""
    gains = np.zeros(len(labels))
    for run in runs:
        tuned = np.asarray(run.history[-1].valid_correct, dtype=np.float64)
        gains[run.held_out] = tuned - (run.probe.argmax(axis=1) == labels[run.held_out])
    return gains


def _plan_folds(
    prepared: PreparedData,
    rows: Ints,
    folds: int,
    settings: Mapping[str, object] | Sequence[str] = (),
    checkpoints: Path | None = None,
) -> tuple[TrainingPlan, Folds]:
    """The plan of the fit on all ``rows``, and the folds."""
    training_plan = make_training_plan(
        prepared, rows, rows, settings, checkpoints, cross_fitted=True
    )
    refuse_averages(training_plan.recipe.methods, "train.folds")
    return training_plan, folds_of(training_plan, rows, folds)


def folds_of(training_plan: TrainingPlan, rows: Ints, folds: int) -> Folds:
    """The folds of a cross-fitted fit on all ``rows``."""
    prepared = training_plan.prepared
    return make_folds(
        prepared.units[rows],
        labels_of(training_plan.valid),
        folds,
        fold_seed(prepared),
        class_names=prepared.rows.classes,
    )


def _with_fold_costs(
    fitted: FittedModel, runs: Sequence[FoldRun], earlier_seconds: float
) -> FittedModel:
    """The fit with the cost of its folds added: rows passed, seconds of evaluation and of judging,
    and ``earlier_seconds``, those of folds finished before the run was resumed."""
    trained = fitted.trained
    fold_totals = {name: sum(getattr(run, name) for run in runs) for name in TOTAL_KEYS}
    totals = {name: getattr(trained, name) + value for name, value in fold_totals.items()}
    return replace(
        fitted, trained=replace(trained, **totals), seconds=fitted.seconds + earlier_seconds
    )


def refuse_averages(methods: Mapping[str, object], what: str) -> None:
    """Refuse, beside ``what``, the ``methods`` that make candidates at the end of training
    (averages of weights, a refitted head): these are tested on validation rows of their own, which
    a model trained on all rows does not have."""
    parts = parts_of(enabled_methods(methods))
    offers = [one.name for one in parts.listeners() if isinstance(one, Offers)]
    if offers:
        rule = (
            "cannot be combined with weight averages or head refitting, which need validation rows "
            "of their own"
        )
        raise RecipeError(what, rule, f"methods.{offers[0]}", "Remove one of the two.")


def fold_seed(prepared: PreparedData) -> int:
    """The seed of the folds."""
    return derive_seed(prepared.recipe.seed, "cross-fit")


def _answer_fold(
    prepared: PreparedData,
    extend: Extend | None,
    rows: Ints,
    fold: Fold,
    full_plan: TrainingPlan,
    accelerator: Accelerator,
    progress: Listener,
) -> FoldRun:
    """The run that predicts a ``fold``, given by positions in ``rows``, on data that ``extend``
    prepares for it; its decisions are not reported."""
    of_fold = Fold(rows[fold.train], rows[fold.held_out], fold.number)
    fold_data = extend(of_fold.train, of_fold.held_out) if extend else prepared
    with decisions_to(None):
        # The rows of the full run's sample, so that both networks are measured on the same ones.
        sample = np.flatnonzero(np.isin(fold.train, full_plan.probe))
        run = _run_fold(fold_data, of_fold, sample, full_plan, accelerator, progress)
    return replace(run, held_out=fold.held_out)


def _run_fold(
    prepared: PreparedData,
    fold: Fold,
    sample: Ints,
    full_plan: TrainingPlan,
    accelerator: Accelerator,
    progress: Listener,
) -> FoldRun:
    """One fold's run, from the loaded weights, with the settings of ``full_plan``; ``sample`` are
    positions in its training rows, for ``FoldRun.inflation``."""
    start = time.perf_counter()
    fold_data = replace(prepared, recipe=recipe_of_fold(full_plan))
    training_plan = make_training_plan(
        fold_data, fold.train, fold.held_out, planned_for=len(full_plan.train)
    )
    share = len(fold.train) / len(full_plan.valid)
    training_plan = replace(
        training_plan, plan=plan_of_fold(training_plan.plan, full_plan.plan, share)
    )
    job, listeners = make_job(training_plan, accelerator, listeners=[progress])
    # Evaluations inside would report their rows as progress.
    with resumable(f"fold {fold.number + 1}"), stage(None):
        trained = train(job)
    fitted = FittedModel(
        training_plan, job, listeners, trained, Decision("best checkpoint", "the last", ""), 0.0
    )
    (refit,) = listeners
    return FoldRun(
        fold.number,
        fold.held_out,
        tuple(trained.history),
        probe_logits(fitted, training_plan.valid, np.arange(len(training_plan.valid))),
        refit.curve,
        _inflation(fitted, sample),
        trained.examples_seen,
        time.perf_counter() - start,
        trained.evaluate_s,
        trained.guard_s,
    )


def _inflation(fitted: FittedModel, sample: Ints) -> float:
    """See ``FoldRun``; ``sample`` are positions of training rows."""
    training_plan, held_out = fitted.training_plan, fitted.best_evaluation.valid_logits
    has_classes = training_plan.prepared.rows.columns.one_class
    if not has_classes or held_out is None or held_out.ndim != 2 or not len(sample):
        return math.nan
    spread = logit_spread(held_out)
    logits = fitted.measure(training_plan.train, sample)[1]
    return logit_spread(logits) / spread if spread else math.nan


@contextlib.contextmanager
def resumable(where: str) -> Iterator[None]:
    """Name the place of an interruption inside a fit that keeps no checkpoint of its own."""
    try:
        yield
    except Interrupted as error:
        remedy = "Continue it with the same command and --resume."
        raise Interrupted("the run", f"was interrupted in {where}", None, remedy) from error


def has_probe(fitted: FittedModel) -> bool:
    """Whether a linear probe was fitted beside the model, which is more than one itself."""
    probes = [getattr(one, "baseline", None) for one in fitted.listeners]
    return fitted.recipe.model.freeze != BACKBONE and len(probes) == 1 and probes[0] is not None


def probe_logits(fitted: FittedModel, examples: Examples, positions: Ints) -> Floats:
    """The logits of a fit's linear probe for encoded rows [n, classes]."""
    (refit,) = fitted.listeners
    job = fitted.job
    network = fitted.base_network(head=refit.baseline)
    return Observer(job.accelerator, job.task, alone=True).measure(network, examples, positions)[1]


def recipe_of_fold(full_plan: TrainingPlan) -> Any:
    """The recipe of the run on all rows, without settings that would end a fold's run early."""
    return full_plan.recipe.with_changes(
        control={"policy": "off"}, train={"keep": "last", "max_minutes": None, "folds": 0}
    )


def plan_of_fold(fold_plan: Plan, full_plan: Plan, share: float) -> Plan:
    """The plan of ``full_plan`` for a fold with this ``share`` of its rows: every phase has that
    share of its updates, with evaluations at the same fractions. The phases are those of the fold's
    ``fold_plan``, whose terms may depend on its rows; the training sample is not evaluated."""
    steps = steps_of_fold(full_plan, share)
    phases = tuple(replace(one, steps=n) for one, n in zip(fold_plan.phases, steps, strict=True))
    evaluation_steps = {step_of_fold(at, full_plan, steps) for at in full_plan.evaluate_at}
    return replace(
        fold_plan, phases=phases, evaluate_at=tuple(sorted(evaluation_steps)), probe_rows=1
    )


def steps_of_fold(full_plan: Plan, share: float) -> tuple[int, ...]:
    """The number of updates of each phase in a fold with this ``share`` of the rows."""
    return tuple(max(1, round(share * phase.steps)) for phase in full_plan.phases)


def step_of_fold(step: int, full_plan: Plan, steps: Sequence[int]) -> int:
    """The update of a fold, whose phases have these ``steps``, that corresponds to an update of the
    full run: at the same fraction of the same phase."""
    done = 0
    for phase, fold_steps in zip(full_plan.phases, steps, strict=True):
        if step <= phase.steps:
            return done + round(step / phase.steps * fold_steps)
        step, done = step - phase.steps, done + fold_steps
    return done


def join_folds(runs: Sequence[FoldRun], plan: Plan, rows: int) -> FoldEvaluation:
    """The folds' evaluations joined to evaluations on all ``rows``, at the steps of ``plan``."""
    by_fold = []
    for run in runs:
        steps = steps_of_fold(plan, (rows - len(run.held_out)) / rows)
        by_step = {place.step: place for place in run.history}
        by_fold.append([by_step[step_of_fold(step, plan, steps)] for step in plan.evaluate_at])
    losses, outputs = [], []
    for place in range(len(plan.evaluate_at)):
        fold_snapshots = [snapshots[place] for snapshots in by_fold]
        losses.append(_in_row_order(runs, [one.valid_losses for one in fold_snapshots], rows))
        logits = [one.valid_logits for one in fold_snapshots]
        outputs.append(_in_row_order(runs, [one for one in logits if one is not None], rows))
    return FoldEvaluation(
        folds=len(runs),
        steps=plan.evaluate_at,
        losses=tuple(losses),
        outputs=tuple(outputs),
        probe=_in_row_order(runs, [run.probe for run in runs], rows),
        curve=_join_curves(runs, rows),
        inflation=_mean_of_known([run.inflation for run in runs]),
        notes=tuple(_fold_note(run, place) for run in runs for place in run.history),
    )


def _mean_of_known(values: Sequence[float]) -> float:
    """Without the values of folds that have none; NaN where no fold has one."""
    known = [value for value in values if math.isfinite(value)]
    return float(np.mean(known)) if known else math.nan


def _best_outputs(joined: FoldEvaluation, labels: Ints) -> Floats:
    """The folds' logits [n, classes] at the evaluation with the lowest calibrated loss."""
    losses = [best_temperature(one, labels)[1] for one in joined.outputs]
    return joined.outputs[int(np.argmin(losses))]


def _in_row_order(runs: Sequence[FoldRun], parts: Sequence[Floats], rows: int) -> Floats:
    """The predictions of each fold for its held-out rows, in the order of all rows."""
    spread = np.full((rows, *parts[0].shape[1:]), np.nan, dtype=parts[0].dtype)
    for run, part in zip(runs, parts, strict=True):
        spread[run.held_out] = part
    return spread


def _join_curves(runs: Sequence[FoldRun], rows: int) -> ProbeCurve | None:
    """The measurements of the folds' linear probes joined: the losses of all rows, the mean of the
    learning curves if all have equally many points, the duplicates."""
    curves = [run.curve for run in runs if run.curve is not None]
    if len(curves) < len(runs):
        return None
    points = [curve.points for curve in curves]
    mean: tuple[tuple[int, float], ...] = ()
    if len({len(one) for one in points}) == 1:
        mean = tuple(
            (
                round(float(np.mean([n for n, _ in points_at]))),
                float(np.mean([loss for _, loss in points_at])),
            )
            for points_at in zip(*points, strict=True)
        )
    twins = (sum(c.twins[0] for c in curves), sum(c.twins[1] for c in curves))
    losses = _in_row_order(runs, [curve.losses for curve in curves], rows)
    noise = curves[0].labels if all(curve.labels for curve in curves) else None
    return ProbeCurve(losses, mean, twins, noise)


def _fold_decision(run: FoldRun, folds: int) -> Decision:
    last = run.history[-1]
    because = (
        f"{last.step} updates on the other folds; on the {len(run.held_out)} rows of this fold, "
        f"accuracy {percent_phrase(last.valid_metrics['accuracy'], 1)}, calibrated loss "
        f"{last.refined_loss:.4f}"
    )
    return Decision(f"fold {run.number + 1} of {folds}", "done", because, prominent=True)


def _fold_note(run: FoldRun, snapshot: Snapshot) -> Mapping[str, Any]:
    """A journal entry for an evaluation of a fold. It is a note, since readers of snapshots expect
    a single curve."""
    return {
        "step": 0,
        "what": "fold evaluation",
        "because": "a run on the other folds predicts these rows, which it has not seen",
        "fold": run.number,
        "fold_step": snapshot.step,
        "phase": snapshot.phase,
        "valid_rows": len(run.held_out),
        "valid_loss": snapshot.valid_loss,
        "refined_loss": snapshot.refined_loss,
        "valid_metrics": snapshot.valid_metrics,
    }


def fold_file(checkpoints: Path | None, place: FitPlace, number: int) -> SealedFile:
    """The file that stores a finished fold until the run is finished; none without a folder."""
    path = checkpoints / FOLDER / f"fold-{number}.pt" if checkpoints else None
    return SealedFile(
        path, f"{place.run_start.mark if place.run_start else ''} fold {number}", FILE_FORMAT
    )
