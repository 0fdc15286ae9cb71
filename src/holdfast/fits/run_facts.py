"""Facts about a run that a verdict needs in addition to its history, collected before the first
step.

Everything here depends only on the recipe, the rows and measurements before any update, so that a
resumed run gets the same verdict.

Also checks which settings of the verdict's remedies a run could be trained with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np

from holdfast.contract.fit import FittedModel, TrainingPlan
from holdfast.control.controller import Controller
from holdfast.core.decisions import stage
from holdfast.core.errors import InputError
from holdfast.core.events import Monitor
from holdfast.core.records import Ints, Snapshot, Verdict
from holdfast.core.run_facts import RunFacts
from holdfast.core.tasks import DECODER_TASKS, GENERATIVE_TASKS
from holdfast.data.table import Table
from holdfast.fits.policies import is_measured
from holdfast.models.adapters.adapter import home_of
from holdfast.models.adapters.targets import find_targets
from holdfast.models.base import Network
from holdfast.models.layers import count_parameters
from holdfast.monitor.judge import judge
from holdfast.monitor.remedies import FIXED, MOST_VALID
from holdfast.plan.defaults import resolve_settings
from holdfast.prepare.general import methods_with_general, missing_rows_error
from holdfast.prepare.rows import check_names
from holdfast.recipe import Recipe, override
from holdfast.tasks import task_definition
from holdfast.tasks.generation.samples import writer
from holdfast.tasks.lm.verbatim import verbatim_completions
from holdfast.training.engine import verdict_line
from holdfast.training.plan import first_use_steps, probe_positions

if TYPE_CHECKING:
    from holdfast.core.events import Listener


def make_monitor(
    training_plan: TrainingPlan, listeners: Sequence[Listener], advisor: object = None
) -> Monitor:
    """The judge with the facts of this run; ``listeners`` are those of its task: one of them may
    measure a linear probe. An ``advisor`` may have restarted the run at another learning rate."""
    facts = make_run_facts(training_plan)

    def monitor(history: Sequence[Snapshot], kept: int | None = None) -> Verdict:
        known = with_probe(facts, listeners)
        factor = advisor.restart_factor if isinstance(advisor, Controller) else 1.0
        if factor != 1 and history:
            known = replace(known, peak_rate=factor * (known.peak_rate or 0.0))
            first = replace(history[0], learning_rate=factor * history[0].learning_rate)
            history = (first, *history[1:])
        return judge(history, known, kept)

    return monitor


def make_run_facts(training_plan: TrainingPlan) -> RunFacts:
    """The facts that are known before the model is evaluated."""
    labels = getattr(training_plan.train, "labels", None)
    has_classes = (
        labels is not None and np.ndim(labels) == 1 and np.issubdtype(labels.dtype, np.integer)
    )
    classes = getattr(training_plan.task, "classes", None) if has_classes else None
    plan, network, splits = (training_plan.plan, training_plan.loaded.network, training_plan.splits)
    recipe: Recipe = training_plan.recipe
    probe = probe_positions(training_plan.train.rows, plan.probe_rows, plan.seed)
    # Cross-fitting: every training row is a validation row already.
    all_validate = len(training_plan.valid) > 0 and bool(
        np.isin(training_plan.valid.rows, training_plan.train.rows).all()
    )
    # The label type, where it was inferred from the rows.
    if label_type := training_plan.prepared.rows.columns.label_kind:
        recipe = recipe.with_changes(data={"label_kind": label_type})
    return RunFacts(
        task=training_plan.definition.name,
        classes=len(classes) if classes else None,
        planned_steps=training_plan.plan.steps,
        planned_looks=len(training_plan.plan.evaluate_at),
        step_limit=recipe.train.max_steps,
        train_rows=len(training_plan.train),
        train_tokens=int(training_plan.train.lengths.sum()),
        trainable=None if is_measured(training_plan) else count_parameters(network)[1],
        peak_rate=training_plan.recipe.train.learning_rate,
        usual_rates=training_plan.usual_rates,
        findings=(*training_plan.prepared.findings, *training_plan.findings),
        first_seen=first_use_steps(plan.phases, splits.training_examples, plan.seed, probe),
        valid_groups=_groups(training_plan.valid.rows, splits.valid_rows.table, splits.valid_units),
        train_groups=_groups(
            training_plan.train.rows[probe], splits.train_rows.table, splits.train_units
        ),
        refused=(*refused_settings(recipe, network), *(MOST_VALID if all_validate else ())),
    )


def _groups(rows: Ints, table: Table, units: Ints | None) -> Ints | None:
    """Whole numbers that are equal for those of ``rows`` that belong together by the ``units`` of
    their ``table``; ``None`` where no two do."""
    if units is None:
        return None
    known, codes = np.unique(units[table.positions_of(rows)], return_inverse=True)
    return None if len(known) == len(rows) else codes


def with_probe(facts: RunFacts, listeners: Sequence[Listener]) -> RunFacts:
    """The facts with the linear probe that a refitted head measured at step 0, which is part of a
    checkpoint."""
    curves = [getattr(listener, "curve", None) for listener in listeners]
    curve = next((curve_found for curve_found in curves if curve_found is not None), None)
    if curve is None:
        return facts
    return replace(
        facts,
        probe_valid_losses=curve.losses,
        probe_curve=curve.points,
        copied_valid=curve.twins,
        label_noise=curve.labels,
    )


def judge_with_texts(fitted: FittedModel) -> FittedModel:
    """The fitted run with a verdict that also uses the texts that the best checkpoint generates for
    a sample of the validation rows (``generate.rows``), and which targets of training and
    validation rows a causal language model completes verbatim, before any test row is opened.

    Texts from its evaluation are reused. A prompt-tuned model, which generates only once it is
    saved, is judged by its losses only. A changed label is written to the journal.
    """
    training_plan, job, trained = fitted.training_plan, fitted.job, fitted.trained
    recipe = training_plan.recipe
    writes = recipe.task in GENERATIVE_TASKS and recipe.generate.rows
    if not writes or recipe.model.adapter.method == "prompt":
        return fitted
    with stage("generating validation texts"):
        kept = next(one for one in trained.history if one.step == trained.best_step)
        watched = None if trained.selected_average else kept.outputs
        shares = watched or _validation_texts(fitted)
        if recipe.task in DECODER_TASKS:
            fitted, shares = _with_completions(fitted, shares)
    if not shares or shares == trained.history[-1].outputs:
        return fitted
    history = (*trained.history[:-1], replace(trained.history[-1], outputs=shares))
    verdict = job.monitor(history, trained.best_step)
    if verdict.label != trained.verdict.label:
        job.journal.write("verdict", trained.last_step, **verdict_line(verdict))
    return replace(fitted, trained=replace(trained, verdict=verdict, history=history))


def _validation_texts(fitted: FittedModel) -> dict[str, dict[str, float]]:
    """Metrics of the texts generated for validation rows; empty where there are none."""
    training_plan = fitted.training_plan
    samples = training_plan.definition.choose_samples(
        training_plan.loaded,
        training_plan.splits,
        training_plan.recipe,
        training_plan.plan.probe_rows,
    )
    if samples is None or not samples.samples["valid"].references:
        return {}
    valid = replace(samples, samples={"valid": samples.samples["valid"]})
    accelerator = fitted.job.accelerator
    return writer(valid, accelerator)(fitted.network.to(accelerator.device)).shares


def _with_completions(
    fitted: FittedModel, shares: dict[str, dict[str, float]]
) -> tuple[FittedModel, dict[str, dict[str, float]]]:
    """Adds the rows of both splits that are completed verbatim (``verbatim``, of the
    ``verbatim_n`` that are long enough to test)."""
    splits, tokenizer, seed = (
        fitted.training_plan.splits,
        fitted.training_plan.loaded.tokenizer,
        fitted.recipe.seed,
    )
    network = fitted.network.to(fitted.job.accelerator.device).eval()
    with fitted.job.accelerator.autocast():
        both = {
            "train": verbatim_completions(network, tokenizer, splits.train_rows.table, seed),
            "valid": verbatim_completions(network, tokenizer, splits.valid_rows.table, seed),
        }
    extended = {name: dict(share) for name, share in shares.items()}
    for split_name, completions in both.items():
        if completions.n:
            split_shares = extended.setdefault(split_name, {})
            split_shares.update(
                verbatim=len(completions.completed) / completions.n, verbatim_n=float(completions.n)
            )
    return replace(fitted, completed=both["train"]), extended


def refused_settings(recipe: Recipe, network: Network | None = None) -> tuple[str, ...]:
    """Fixed settings of the remedies that would not help: those that ``recipe``, which names its
    task, does not allow, and those that it already has or exceeds (a weight decay of 0.3 where 0.1
    is advised). ``network`` is its model, if it is loaded."""
    # A resolved recipe has another type, so it never equals a recipe that is read.
    plain = override(recipe, ())
    return tuple(setting for setting in FIXED if not _would_help(plain, setting, network))


def check_settings(
    recipe: Recipe, settings: Sequence[str], network: Network | None = None
) -> Recipe:
    """The recipe with more settings, checked. Raises ``InputError`` where they cannot be used for
    training, by the checks of training itself that need neither rows nor a step."""
    changed = override(recipe, settings)
    definition = task_definition(str(recipe.task))
    check_names(changed)
    definition.refuse(changed)
    # Parameters and rows affect numbers, not what is allowed.
    resolve_settings(changed, 10**6, 1000)
    methods = methods_with_general(changed)
    general_source = changed.data.general or changed.probes.forgetting.data
    if methods and general_source is None and changed.task not in DECODER_TASKS:
        raise missing_rows_error(methods[0])
    adapter = changed.model.adapter
    if network is not None and network.adapter is None and adapter.method not in (None, "prompt"):
        find_targets(home_of(network), adapter.method, adapter.targets)
    return changed


def _would_help(recipe: Recipe, setting: str, network: Network | None) -> bool:
    try:
        changed = check_settings(recipe, [setting], network)
    except InputError:
        return False
    return changed != recipe and not _exceeds(recipe, changed, setting)


def _exceeds(recipe: Recipe, changed: Recipe, setting: str) -> bool:
    """Whether the recipe already goes further than the setting. An integer (of blocks, of steps) is
    not compared with a share."""
    more = FIXED[setting]
    if more is None:
        return False
    now, advised = map(attrgetter(setting.partition("=")[0]), (recipe, changed))
    if type(now) is not type(advised) or not isinstance(now, (int, float)):
        return False
    return bool(now > advised if more == "larger" else now < advised)
