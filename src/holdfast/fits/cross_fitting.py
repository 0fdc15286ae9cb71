"""One model from all rows, judged by rows that the judging networks had not learned from.

Below some hundred rows the validation rows that a run can spare are too few to tell one state from
another, and the model misses them. So they are spared for a while only:

    K folds ── each: a short run on the others, which answers the fold at every look
      └─ together: losses of every row at every look, out of fold
           └─ one run on all rows, diagnosed, stopped and chosen by those losses

A fold's run is that of the whole with its updates in proportion to its rows, so that at the same
share of its way it has passed each row as often; nothing stops it. What it answers at a look stands
where the run on all rows has its look at the same share. What follows (verdict, kept state,
temperature) is what an ordinary run does with its validation rows, with all rows in their place.

What is worked out from rows (names of classes, weights of classes, enrichment) is worked out inside
each fold from its training rows alone. Copies and groups stay in one fold (``Prepared.units``).
Memory holds one network that learns at a time. Each finished fold is kept beside the checkpoints,
so that a run that was killed does not repeat it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.contract.fit import FittedModel, PreparedData, TrainingPlan
from holdfast.core.decisions import decisions_to, notify
from holdfast.core.errors import Interrupted, RecipeError
from holdfast.core.events import Offers
from holdfast.core.records import Decision, Floats, Ints, Snapshot
from holdfast.core.seeds import derive_seed
from holdfast.fits.compose import make_ready
from holdfast.fits.fit import FitFolder, FitPlace, fit_ready, make_job
from holdfast.methods.closed_form import curve_from_state, curve_to_state
from holdfast.models.probes.head_fit import ProbeCurve
from holdfast.plan.defaults import method_parts
from holdfast.split.folds import Fold, make_folds
from holdfast.training.checkpoint import SealedFile
from holdfast.training.engine import pack_snapshot, unpack_snapshot
from holdfast.training.loop import fit as train
from holdfast.training.observe import FoldEvaluation, Observer
from holdfast.training.plan import Plan
from holdfast.training.task import labels_of

if TYPE_CHECKING:
    from accelerate import Accelerator

    from holdfast.core.events import Listener
    from holdfast.training.task import Examples


Extend = Callable[[Ints, Ints], PreparedData]
FOLDER = "folds"
SPENT = ("examples_seen", "evaluate_s", "guard_s")
COUNTED = ("seconds", *SPENT)
# As long as that of a checkpoint: what stands at the end of the file has one length.
FORM = b"holdfast cross-fit  1"
UNUSED = "a finished fold", ": the fold is run again"


@dataclass(frozen=True, slots=True, eq=False)
class FoldRun:
    """What one fold's run leaves: its ``held`` positions among the run's rows, its looks at them,
    the ``probe`` logits [held, classes] of its linear probe and what that measured (``curve``);
    rows passed, and seconds in all, for looking and for judging."""

    number: int
    held: Ints
    history: tuple[Snapshot, ...]
    probe: Floats
    curve: ProbeCurve | None
    examples_seen: int
    seconds: float
    evaluate_s: float
    guard_s: float

    def to_state(self) -> dict[str, Any]:
        """In types that the weights-only loader reads."""
        import torch

        return {
            "number": self.number,
            "held": torch.as_tensor(self.held),
            "history": [pack_snapshot(look) for look in self.history],
            "probe": torch.as_tensor(self.probe),
            "curve": None if self.curve is None else curve_to_state(self.curve),
            **{name: getattr(self, name) for name in COUNTED},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> FoldRun:
        return cls(
            state["number"],
            state["held"].numpy(),
            tuple(unpack_snapshot(look) for look in state["history"]),
            state["probe"].numpy(),
            None if state["curve"] is None else curve_from_state(state["curve"]),
            **{name: state[name] for name in COUNTED},
        )


def cross_fit(
    prepared: PreparedData,
    positions: Ints | Sequence[int],
    folds: int,
    settings: Mapping[str, object] | Sequence[str] = (),
    *,
    extend: Extend | None = None,
    into: FitFolder | None = None,
    listeners: Sequence[Listener] = (),
) -> FittedModel:
    """Train on all rows at ``positions``, with every choice made out of fold.

    It is to ``fit`` what cross-validation is to a hold-out: the same value comes back, whose
    history, verdict and kept state rest on the losses of all rows, each by a network that had not
    learned from it (``Fitted.job.out_of_fold``).

    ``folds`` is K, at least 2. ``extend`` gives what is prepared for a fold's own training and held
    positions (its class names, say); without it a fold sees ``prepared``. The rest is as for
    ``fit``.

    Raises ``SplitError`` where a class has fewer units than there are folds, and what ``fit``
    raises.
    """
    start = time.perf_counter()
    rows = np.asarray(positions, dtype=np.int64)
    kept_in = into.kept_in if into else None
    ready = make_ready(prepared, rows, rows, settings, kept_in, cross_fitted=True)
    _refuse_averages(ready)
    parts = make_folds(
        prepared.units[rows],
        labels_of(ready.train),
        folds,
        seed_of(prepared),
        class_names=prepared.rows.classes,
    )
    runs: list[FoldRun] = []
    before = 0.0

    def answered(ready: TrainingPlan, accelerator: Accelerator, place: FitPlace) -> FoldEvaluation:
        nonlocal before
        for fold in parts:
            file = fold_file(kept_in, place, fold.number)
            state = file.load(*UNUSED) if place.resume else None
            if state is None:
                of_fold = Fold(rows[fold.train], rows[fold.held_out], fold.number)
                own = extend(of_fold.train, of_fold.held_out) if extend else prepared
                with decisions_to(None):
                    run = replace(_run_fold(own, of_fold, ready, accelerator), held=fold.held_out)
                file.save(run.to_state())
            else:
                run = FoldRun.from_state(state)
                before += run.seconds
            runs.append(run)
            notify(_told(run, folds))
        return joined(runs, ready.plan, len(rows))

    fitted = fit_ready(ready, start, into=into, listeners=listeners, folds=answered)
    trained = fitted.trained
    spent = {name: sum(getattr(run, name) for run in runs) for name in SPENT}
    more = {name: getattr(trained, name) + value for name, value in spent.items()}
    return replace(fitted, trained=replace(trained, **more), seconds=fitted.seconds + before)


def _refuse_averages(ready: TrainingPlan) -> None:
    """What is tried at the end (averages of weights, a head fitted anew) is tried on validation
    rows, and no fold has any of it to answer with."""
    found = [x.name for x in method_parts(ready.recipe).listeners() if isinstance(x, Offers)]
    if found:
        raise RecipeError(
            "train.folds",
            "does not go together with weights tried at the end, which validation rows judge",
            f"methods.{found[0]}",
            "Leave one of the two out.",
        )


def seed_of(prepared: PreparedData) -> int:
    """Of the folds."""
    return derive_seed(prepared.recipe.seed, "cross-fit")


def _run_fold(
    prepared: PreparedData, fold: Fold, whole: TrainingPlan, accelerator: Accelerator
) -> FoldRun:
    """One fold's run, from the loaded weights, by the settings of the ``whole``."""
    start = time.perf_counter()
    own = replace(prepared, recipe=recipe_of_fold(whole))
    ready = make_ready(own, fold.train, fold.held_out, planned_for=len(whole.train))
    share = len(fold.train) / len(whole.train)
    ready = replace(ready, plan=plan_of_fold(ready.plan, whole.plan, share))
    job, of_kind = make_job(ready, accelerator)
    with resumable(f"fold {fold.number + 1}"):
        trained = train(job)
    fitted = FittedModel(ready, job, of_kind, trained, Decision("kept state", "the last", ""), 0.0)
    (refit,) = of_kind
    return FoldRun(
        fold.number,
        fold.held_out,
        tuple(trained.history),
        probe_logits(fitted, ready.valid, np.arange(len(ready.valid))),
        refit.curve,
        trained.examples_seen,
        time.perf_counter() - start,
        trained.evaluate_s,
        trained.guard_s,
    )


@contextlib.contextmanager
def resumable(where: str) -> Iterator[None]:
    """What is said of an interruption inside a fit that keeps no checkpoint of its own."""
    try:
        yield
    except Interrupted as error:
        remedy = "Continue it with the same command and --resume."
        raise Interrupted("the run", f"was interrupted in {where}", None, remedy) from error


def probe_logits(fitted: FittedModel, examples: Examples, positions: Ints) -> Floats:
    """What the linear probe of a fit says of encoded rows [n, classes]."""
    (refit,) = fitted.listeners
    job = fitted.job
    network = fitted.base_network(head=refit.baseline)
    return Observer(job.accelerator, job.task, alone=True).measure(network, examples, positions)[1]


def recipe_of_fold(whole: TrainingPlan) -> Any:
    """The recipe of the run on all rows, with nothing that would end a fold's run early."""
    return whole.recipe.with_changes(
        control={"policy": "off"}, train={"keep": "last", "max_minutes": None, "folds": 0}
    )


def plan_of_fold(own: Plan, whole: Plan, share: float) -> Plan:
    """The ``whole`` run's plan for a fold with this ``share`` of its rows: every phase takes that
    share of its updates, and its looks stand at the same shares of the way. The phases are the
    fold's ``own``, whose terms may depend on its rows; of the train probe nothing is asked."""
    steps = steps_of_fold(whole, share)
    phases = tuple(replace(one, steps=n) for one, n in zip(own.phases, steps, strict=True))
    looks = {look_of_fold(at, whole, steps) for at in whole.evaluate_at}
    return replace(own, phases=phases, evaluate_at=tuple(sorted(looks)), probe_rows=1)


def steps_of_fold(whole: Plan, share: float) -> tuple[int, ...]:
    """How many updates each phase has in a fold with this ``share`` of the rows."""
    return tuple(max(1, round(share * phase.steps)) for phase in whole.phases)


def look_of_fold(step: int, whole: Plan, steps: Sequence[int]) -> int:
    """The update of a fold, whose phases have so many ``steps``, that stands for an update of the
    whole: at the same share of the same phase."""
    done = 0
    for phase, own in zip(whole.phases, steps, strict=True):
        if step <= phase.steps:
            return done + round(step / phase.steps * own)
        step, done = step - phase.steps, done + own
    return done


def joined(runs: Sequence[FoldRun], plan: Plan, rows: int) -> FoldEvaluation:
    """The folds' looks as looks at all ``rows``, at the steps of ``plan``."""
    at = []
    for run in runs:
        steps = steps_of_fold(plan, (rows - len(run.held)) / rows)
        by_step = {look.step: look for look in run.history}
        at.append([by_step[look_of_fold(step, plan, steps)] for step in plan.evaluate_at])
    losses, kept = [], []
    for look in range(len(plan.evaluate_at)):
        of_fold = [looks[look] for looks in at]
        losses.append(_spread(runs, [one.valid_losses for one in of_fold], rows))
        logits = [one.valid_logits for one in of_fold]
        kept.append(_spread(runs, [one for one in logits if one is not None], rows))
    return FoldEvaluation(
        folds=len(runs),
        steps=plan.evaluate_at,
        losses=tuple(losses),
        outputs=tuple(kept),
        probe=_spread(runs, [run.probe for run in runs], rows),
        curve=_joined_curve(runs, rows),
        notes=tuple(_line(run, look) for run in runs for look in run.history),
    )


def _spread(runs: Sequence[FoldRun], parts: Sequence[Floats], rows: int) -> Floats:
    """What each fold says of its held rows, in the order of all rows."""
    whole = np.full((rows, *parts[0].shape[1:]), np.nan, dtype=parts[0].dtype)
    for run, part in zip(runs, parts, strict=True):
        whole[run.held] = part
    return whole


def _joined_curve(runs: Sequence[FoldRun], rows: int) -> ProbeCurve | None:
    """What the folds' probes measured, of all rows: the losses, the mean of the learning curves
    where all have as many points, the copies."""
    curves = [run.curve for run in runs if run.curve is not None]
    if len(curves) < len(runs):
        return None
    points = [curve.points for curve in curves]
    mean: tuple[tuple[int, float], ...] = ()
    if len({len(one) for one in points}) == 1:
        mean = tuple(
            (round(float(np.mean([n for n, _ in at]))), float(np.mean([loss for _, loss in at])))
            for at in zip(*points, strict=True)
        )
    twins = (sum(c.twins[0] for c in curves), sum(c.twins[1] for c in curves))
    losses = _spread(runs, [curve.losses for curve in curves], rows)
    return ProbeCurve(losses, mean, twins, curves[0].labels)


def _told(run: FoldRun, folds: int) -> Decision:
    last = run.history[-1]
    because = (
        f"{last.step} updates on the other rows; these {len(run.held)} rows, which they had not "
        f"seen: accuracy {last.valid_metrics['accuracy']:.3f}, loss {last.refined_loss:.4f}"
    )
    return Decision(f"fold {run.number + 1} of {folds}", "done", because, prominent=True)


def _line(run: FoldRun, look: Snapshot) -> Mapping[str, Any]:
    """A look of a fold in the journal. It is a note: readers of snapshots follow one course."""
    return {
        "step": 0,
        "what": "fold look",
        "because": "a run on the other folds answers these rows, which it had not seen",
        "fold": run.number,
        "fold_step": look.step,
        "phase": look.phase,
        "valid_rows": len(run.held),
        "valid_loss": look.valid_loss,
        "refined_loss": look.refined_loss,
        "valid_metrics": look.valid_metrics,
    }


def fold_file(kept_in: Path | None, place: FitPlace, number: int) -> SealedFile:
    """Where a finished fold of a run is kept until the run is finished; nowhere without a
    folder."""
    path = kept_in / FOLDER / f"fold-{number}.pt" if kept_in else None
    return SealedFile(path, f"{place.begun.mark if place.begun else ''} fold {number}", FORM)
