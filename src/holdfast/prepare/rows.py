"""From the recipe's source to split rows: check → load → audit → clean → split → refuse leaks.

Every name from a registry is checked before any row is read. Unlabelled texts that duplicate a row
of the run, in any split, are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.augment.registry import check_enrich, input_type, requested_enrichments
from holdfast.contract.inference import within_limits
from holdfast.core.decisions import decisions_and_findings, notify, record_decisions
from holdfast.core.errors import RecipeError
from holdfast.core.machine import refuse_too_many_threads
from holdfast.core.records import Decision, Finding
from holdfast.core.seeds import generator
from holdfast.core.tasks import LABELLED_TEXT_TASKS
from holdfast.data.load import read_unlabelled_texts, refuse_test_rows
from holdfast.data.table import Splits, Table
from holdfast.duplicates.duplicates import Duplicates, combine_tables, duplicates_of
from holdfast.methods.conflicts import check_conflicts
from holdfast.methods.optimizers import OPTIMIZERS, SCHEDULES
from holdfast.methods.registry import check_methods
from holdfast.plan.defaults import conflict_query
from holdfast.plan.task import resolve_task
from holdfast.prepare.base_model import check_candidates
from holdfast.prepare.clean import clean_like_run, clean_texts, clean_training, resolve_cleaning
from holdfast.prepare.given_files import given_files
from holdfast.prepare.missing_files import refuse_missing_sources
from holdfast.prepare.split_options import split_strategy
from holdfast.quality.clean.apply import CleaningPlan, plan_cleaning
from holdfast.quality.runner import audit_table
from holdfast.recipe import Recipe
from holdfast.recipe.parts import SplitShares
from holdfast.split.split_table import split_table
from holdfast.tasks import task_definition
from holdfast.tasks.generation.samples import execution_of, with_tables
from holdfast.training.listeners.alerts import address_of
from holdfast.training.listeners.trackers import check_trackers

REGISTRIES: Mapping[str, Mapping[str, Any]] = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES}
CODE = "code that runs"
LOSSES = (None, "refined_loss", "loss")


def notify_of_user_code(recipe: Recipe) -> None:
    """Log which parts of a recipe run user code, with the rights of the user. Shell commands are
    not printed, since they may contain secrets."""
    metric = recipe.train.metric
    if metric and ".py:" in metric:
        because = "train.metric names this Python file, which runs with your permissions"
        notify(Decision(CODE, metric, because, prominent=True))
    policy = recipe.control.policy
    if policy and ".py:" in policy:
        because = "control.policy names this Python file, which runs with your permissions"
        notify(Decision(CODE, policy, because, prominent=True))
    if recipe.alert.command:
        because = "the recipe runs a shell command with your permissions on new verdicts"
        notify(Decision(CODE, "alert.command", because, prominent=True))
    user_function = requested_enrichments(recipe.enrich).get("own", {}).get("function")
    if user_function:
        because = "augment.own names this function, which runs with your permissions"
        notify(Decision(CODE, str(user_function), because, prominent=True))


def check_names(recipe: Recipe, find_metric: Callable[[str], object] | None = None) -> None:
    """Refuse an unknown optimizer, schedule, method, enrichment or cleaning step; methods that
    contradict each other; a tracker that is not installed; an alert without an address; more
    threads than the machine has; and, with ``find_metric`` (of the recipe's task), an unknown
    metric. Settings that the recipe leaves open are not checked.

    Raises ``RecipeError``, or ``MachineError`` for a tracker that is not installed and for threads.
    """
    for setting, registry in REGISTRIES.items():
        name = getattr(recipe.train, setting)
        if name is not None:
            registry[name]
    refuse_too_many_threads("train.threads", recipe.train.threads or 1)
    check_methods(recipe.methods)
    check_conflicts(conflict_query(recipe))
    check_enrich(recipe.enrich, input_type(recipe.task))
    plan_cleaning(recipe.treat)
    check_trackers(recipe.track.to)
    if recipe.alert.webhook:
        address_of(recipe.alert.webhook)
    if find_metric is not None and recipe.train.metric not in LOSSES:
        find_metric(recipe.train.metric)


def refuse_meta(recipe: Recipe) -> None:
    """Raise ``RecipeError`` where a recipe of ``holdfast meta`` is given to another command."""
    if recipe.meta.method is not None:
        raise RecipeError(
            "meta.method",
            "makes this a recipe of holdfast meta, which learns a base model from many tasks",
            recipe.meta.method,
            "Repeat it with holdfast meta. To train on one task from its base model, give that "
            "task's rows and --model RUN/model.",
        )


@dataclass(frozen=True, slots=True)
class Divided:
    """The split rows, with all findings and decisions so far. ``recipe`` has their task; ``given``
    are the validation and test rows from separate files. ``unlabelled`` are the texts of
    ``data.unlabelled`` that duplicate none of these rows."""

    recipe: Recipe
    table: Table
    given: tuple[Table, ...]
    splits: Splits
    findings: tuple[Finding, ...]
    decisions: tuple[Decision, ...]
    unlabelled: tuple[str, ...] = ()

    @property
    def tables(self) -> tuple[Table, ...]:
        """All tables of a run; no added row may duplicate one of their rows."""
        return (self.table, *self.given)


def load_and_divide(recipe: Recipe, *, scores_by_folds: bool = False) -> Divided:
    """Load, audit and split the rows that the recipe names. With ``scores_by_folds`` no test rows
    are needed, since the folds give the scores."""
    with within_limits(recipe.data), record_decisions(also_notify=True) as log:
        _refuse_early(recipe)
        notify_of_user_code(recipe)
        recipe, worked_out = resolve_task(recipe)
        notify(*worked_out)
        check_candidates(recipe)
        recipe, treatments = _checked_for_task(recipe)
        table, given = _read_all(recipe, treatments)
        if not scores_by_folds:
            _refuse_without_test(recipe, given)
        split_recipe = with_split_seed(recipe)
        shares, strategy = split_shares(recipe.data.split), split_strategy(split_recipe, table)
        splits = split_table(
            table, seed=split_recipe.seed, fractions=shares, strategy=strategy, **given
        )
        splits = clean_training(splits, treatments)
        notify(*splits.decisions, *splits.findings)
        unlabelled = _unlabelled_texts(split_recipe, table, given)
    decisions, findings = decisions_and_findings(log)
    return Divided(recipe, table, tuple(given.values()), splits, findings, decisions, unlabelled)


def _refuse_early(recipe: Recipe) -> None:
    """Refuse what can be refused before minutes of reading and duplicate search: an unknown name, a
    missing file, a machine that cannot sandbox generated code."""
    refuse_missing_sources(recipe)
    refuse_meta(recipe)
    check_names(recipe)
    execution_of(recipe)


def _checked_for_task(recipe: Recipe) -> tuple[Recipe, CleaningPlan]:
    """The recipe with its cleaning steps named; refuses settings that its task does not allow."""
    features = recipe.data.features
    if features and recipe.task not in LABELLED_TEXT_TASKS:
        rule = f"does not apply to {recipe.task}: it needs single texts with one class each"
        raise RecipeError("data.features", rule, str(features), "Leave it out.")
    check_names(recipe, task_definition(recipe.task).find_metric)
    return resolve_cleaning(recipe)


def _read_all(recipe: Recipe, treatments: CleaningPlan) -> tuple[Table, dict[str, Table]]:
    """The rows of the source and of given files, audited and cleaned."""
    data, definition = recipe.data, task_definition(recipe.task)

    def read(source: str, like: Table | None) -> Table:
        return with_tables(definition.read(source, data, like), recipe)

    table = read(str(data.path), None)
    notify(*table.decisions, *table.findings)
    audited = audit_table(table)
    files_by_split, companions = given_files(data, recipe.task)
    notify(*companions)
    given = {name: read(source, table) for name, source in files_by_split.items()}
    table, given, audited, changed = clean_texts(table, given, audited, treatments)
    notify(*changed, *audited)
    return table, given


def _refuse_without_test(recipe: Recipe, given: Mapping[str, Table]) -> None:
    if recipe.data.split.test or "test" in given or recipe.task in LABELLED_TEXT_TASKS:
        return
    rule = f"must be above 0 for {recipe.task} when no test rows are given"
    remedy = "The test score needs test rows: set a share, or name a file with data.test."
    raise RecipeError("data.split.test", rule, 0, remedy)


def with_split_seed(recipe: Recipe) -> Recipe:
    """The recipe with the seed of the split in place of the run's seed."""
    seed = recipe.data.split.seed
    return recipe if seed is None else recipe.model_copy(update={"seed": seed})


def split_shares(split: SplitShares) -> tuple[float, float, float]:
    """The shares of training, validation and test rows, which sum to 1; without test rows the other
    two are scaled up."""
    if split.test:
        return split.train, split.valid, split.test
    both = split.train + split.valid
    return split.train / both, split.valid / both, 0.0


def _unlabelled_texts(recipe: Recipe, table: Table, given: Mapping[str, Table]) -> tuple[str, ...]:
    """The unlabelled texts that duplicate no row of the source or of a given file."""
    path = recipe.data.unlabelled
    if path is None:
        return ()
    refuse_test_rows(path, recipe.data.test)
    texts_table = clean_like_run(read_unlabelled_texts(path, table, recipe.data.encoding), recipe)
    rows = combine_tables(table, {**given, "unlabelled": texts_table}, recipe.seed)
    return distinct_texts(texts_table, rows.duplicates, rows.mask("unlabelled"), recipe.seed)


CHECK = "unlabelled_rows"
# Nearest neighbours are searched among all pairs of them.
MAX_ROWS = 10_000


def distinct_texts(
    texts_table: Table, copies: Duplicates, is_text: npt.NDArray[np.bool_], seed: int
) -> tuple[str, ...]:
    """One text of each group of duplicates in ``texts_table``, without groups that contain a row of
    the source or of a given file, or are linked to one.

    ``copies`` are the duplicates among all rows and these texts, ``is_text`` [all] marks the texts.
    Above 10,000 a random sample of them is taken.
    """
    texts: list[str] = texts_table.column("text")
    is_copy = duplicates_of(copies, ~is_text, is_text)
    groups = copies.groups[is_text]
    distinct = np.flatnonzero(~is_copy)
    positions = np.sort(distinct[np.unique(groups[distinct], return_index=True)[1]])
    copied = int(is_copy.sum())
    if copied:
        because = (
            f"{copied:,} of {len(texts):,} unlabelled texts were dropped: they duplicate rows of "
            "the source or of a test or validation file, and held-out rows must not be learned "
            "from"
        )
        notify(Finding(CHECK, "info", copied / len(texts), copied, (), because, "", True))
    if len(positions) > MAX_ROWS:
        because = f"{MAX_ROWS:,} of {len(positions):,} unlabelled texts are used, drawn at random"
        notify(Finding(CHECK, "info", 0.0, len(positions), (), because, "", True))
        positions = np.sort(generator(seed, "unlabelled").permutation(positions)[:MAX_ROWS])
    return tuple(texts[i] for i in positions)
