"""Generation during training: a bounded, fixed sample of validation rows and of the training sample
is generated, measured and checked for copies at every evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.contract.written_text import Sample, WrittenSamples
from holdfast.core.discovery import load_entry_point
from holdfast.core.errors import RecipeError, RunError
from holdfast.core.records import Decision, Ints
from holdfast.core.wording import percent_phrase
from holdfast.data.columns.extra import with_column
from holdfast.data.table import Table
from holdfast.metrics import TEXT_METRICS, TextMetric, Texts, find_text_metric
from holdfast.metrics.texts import EXECUTION_NAME as EXECUTION
from holdfast.models.compute.prefix import evaluation_mode
from holdfast.recipe import Recipe
from holdfast.tasks.generation.text_scores import COUNTS, count_copies, sample_positions
from holdfast.training.plan import FORWARD_SHARE, probe_positions
from holdfast.training.task import GenerationMeasurements

if TYPE_CHECKING:
    from accelerate import Accelerator

    from holdfast.models.base import Network
    from holdfast.training.task import Examples


TABLES = "tables"
# A plug-in runs generated code.
HOOKS = "holdfast.hooks"


Decisions = tuple[Decision, ...]


def text_metric_of(recipe: Recipe) -> TextMetric | None:
    """The metric of generated texts that ``train.metric`` names, if it is one.

    Raises ``RecipeError`` where no text is generated, or where code has no table to run on.
    """
    name = recipe.train.metric
    if name is None or (name not in TEXT_METRICS and ".py:" not in name):
        return None
    if not recipe.generate.rows:
        rule = f"{name} is a metric of generated texts, and generate.rows generates none"
        remedy = "Raise generate.rows, or choose the checkpoint by loss."
        raise RecipeError("train.metric", rule, 0, remedy)
    return execution_of(recipe, needed=True) if name == EXECUTION else find_text_metric(name)


def execution_of(recipe: Recipe, needed: bool = False) -> TextMetric | None:
    """Execution accuracy as ``generate.execute`` defines it; ``None`` where code is not run."""
    part = recipe.generate
    if part.execute is None and part.table is None and not needed:
        return None
    if part.execute is None or part.table is None:
        rule = "and generate.table belong together: both say how generated code is run"
        remedy = "E.g. --set generate.execute=sql --set generate.table=COLUMN."
        raise RecipeError("generate.execute", rule, f"{part.execute}, {part.table}", remedy)
    metric: TextMetric = load_entry_point(HOOKS, "execution_metric")(
        part.execute,
        seconds=part.code_seconds,
        memory_mb=part.code_memory_mb,
        unsafe=part.execute_unsafe,
    )
    return metric


def extra_metrics(recipe: Recipe) -> tuple[TextMetric, ...]:
    """Metrics of generated rows in addition to the overlaps: a user's metric, execution
    accuracy.
    """
    user_metric = text_metric_of(recipe) if ".py:" in str(recipe.train.metric) else None
    return tuple(metric for metric in (user_metric, execution_of(recipe)) if metric is not None)


def check_own_metric(run: Path, recipe: Recipe) -> tuple[Decision, ...]:
    """The decision that using this finished run executes the metric file that its recipe names.

    Raises ``RunError`` where that file lies in the run's own folder: no run of yours has its metric
    there, and a folder from somebody else may bring one along.
    """
    spec = str(recipe.train.metric)
    if ".py:" not in spec:
        return ()
    path = Path(f"{spec.rpartition('.py:')[0]}.py")
    if path.resolve().is_relative_to(run.resolve()):
        raise RunError(
            str(path),
            "is a metric that came with the run's folder; Holdfast does not execute it",
            None,
            "Read it first. Then move it out of the folder, write its new path in "
            'the run\'s recipe.yaml, and remove "seal" from result.json.',
        )
    because = "the run's recipe names this Python file, and it runs with your permissions"
    return (Decision("metric", spec, because),)


def with_tables(table: Table, recipe: Recipe) -> Table:
    """The rows with the tables that generated code runs on, where it is run."""
    column, data = recipe.generate.table, recipe.data
    if column is None:
        return table
    return with_column(table, TABLES, column, encoding=data.encoding, config=data.config)


def watches(recipe: Recipe) -> bool:
    """Whether texts are generated at the evaluations."""
    return text_metric_of(recipe) is not None or (
        recipe.generate.watch and recipe.generate.rows > 0
    )


def watched_positions(
    train: Examples, valid: Examples, probe_rows: int, recipe: Recipe
) -> dict[str, Ints]:
    """Which examples of each split are generated: of the validation rows and of the training
    sample.
    """
    rows, seed = recipe.generate.rows, recipe.seed
    probe = probe_positions(train.rows, probe_rows, seed)
    return {
        "train": probe[sample_positions(len(probe), rows, seed, "watched", "train")],
        "valid": sample_positions(len(valid), rows, seed, "watched", "valid"),
    }


def writer(
    watch: WrittenSamples, accelerator: Accelerator
) -> Callable[[Any], GenerationMeasurements]:
    """The function that the loop calls to generate. Every process generates the full sample, so
    that all choose alike; decoding is deterministic.
    """

    def write(network: Network) -> GenerationMeasurements:
        metrics, shares = {}, {}
        with evaluation_mode(network), accelerator.autocast():
            for split, sample in watch.samples.items():
                texts = sample.write(network, accelerator.device)
                metrics[split] = _measured(watch.metric, sample, texts)
                # The counts of copying ÷ rows, and n, the number of these rows.
                counts = count_copies(sample.sources, sample.references, texts, watch.answers)
                n = counts["n"]
                shares[split] = {
                    "n": float(n),
                    **{name: counts[name] / n if n else float("nan") for name in COUNTS},
                }
        return GenerationMeasurements(metrics, shares)

    return write


def _measured(metric: TextMetric | None, sample: Sample, texts: list[str]) -> dict[str, float]:
    if metric is None:
        return {}
    value = metric.compute(Texts(sample.references, texts, sample.sources, sample.tables))
    return {metric.name: float("nan") if value is None else value}


def sample_decisions(
    recipe: Recipe, watch: WrittenSamples | None, train: Examples, evaluations: int, work: int
) -> Decisions:
    """The decisions on running generated code and on the texts at the evaluations."""
    decisions = (_written_at_looks(watch, train, evaluations, work),) if watch else ()
    language = recipe.generate.execute
    if execution_of(recipe) is None or language is None:
        return decisions
    because = (
        "nobody has read it, and the references of the rows are run as code too: "
        f"{load_entry_point(HOOKS, 'isolation')(language, recipe.generate.execute_unsafe)}"
    )
    return (
        *decisions,
        Decision("generated code", f"{language} in its own process", because, prominent=True),
    )


def _written_at_looks(
    watch: WrittenSamples, train: Examples, evaluations: int, work: int
) -> Decision:
    """What the texts at the evaluations are for, and what they cost relative to the training.

    ``work`` is how many rows the training passes. A generated token counts as a token of a forward
    pass, which is its lowest possible cost: tokens are generated one at a time.
    """
    sizes = {split: len(sample.references) for split, sample in watch.samples.items()}
    length = float(train.lengths.mean())
    written = evaluations * sum(sizes.values()) * (length + watch.new_tokens) * FORWARD_SHARE
    share = written / max(1.0, work * length)
    measured_name = watch.metric.name if watch.metric else "copies and repetition"
    because = (
        f"to measure {measured_name} at each of {evaluations} evaluations; up to "
        f"{watch.new_tokens} tokens a text cost at least {percent_phrase(share)} of the "
        "training's work (generate.rows, train.evaluations)"
    )
    sample_sizes = f"{sizes['valid']} validation and {sizes['train']} training rows"
    return Decision("generated texts at evaluations", sample_sizes, because)
