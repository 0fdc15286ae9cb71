"""Whether a generative model computes its loss in chunks, without the logits of all targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.core.errors import RecipeError
from holdfast.core.machine import MB
from holdfast.core.records import Decision
from holdfast.models.generators.base import LOGIT_BYTES_AT_ONCE, targets_at_once
from holdfast.plan.control import PASSIVE_POLICIES
from holdfast.plan.defaults import extra_methods
from holdfast.plan.memory import rows_in_memory
from holdfast.recipe import Recipe
from holdfast.recipe.resolution import ResolvedRecipe, resolve_recipe
from holdfast.training.plan import Phase

if TYPE_CHECKING:
    from holdfast.models.base import LoadedModel
    from holdfast.training.task import Examples


SETTING = "train.chunk_loss"
# Bytes per logit: in float32, its gradient, and a copy for the softmax.
LOGIT_COPIES = 3
# From this many MB of logits chunking is the default: below, they are a small part of memory.
MIN_LOGITS_MB = 1000.0


def choose_chunk_loss(
    recipe: ResolvedRecipe, loaded: LoadedModel, examples: Examples, phases: tuple[Phase, ...]
) -> tuple[ResolvedRecipe, tuple[Decision, ...]]:
    """The recipe with ``train.chunk_loss`` on or off, and the reason where it is on.

    By default only where the logits of one pass would take more than ``MIN_LOGITS_MB``, so that
    results of small runs stay bitwise the same. Raises ``RecipeError`` where it is requested but
    not possible.
    """
    requested = recipe.train.chunk_loss
    obstacle = _chunking_obstacle(recipe, loaded)
    if requested == "on" and obstacle:
        raise RecipeError(SETTING, obstacle, requested, "Leave it out.")
    if requested == "off" or obstacle:
        return resolve_recipe(recipe, train={"chunk_loss": "off"}), ()
    vocabulary = int(loaded.network.config.vocab_size)
    needed_mb = logits_mb(vocabulary, rows_in_memory(phases) * _longest_targets(examples))
    if requested == "auto" and needed_mb < MIN_LOGITS_MB:
        return resolve_recipe(recipe, train={"chunk_loss": "off"}), ()
    why = "set in the recipe" if requested == "on" else "logits would take the most memory"
    because = (
        f"{why}: for a vocabulary of {vocabulary:,}, the logits of one pass would take "
        f"{needed_mb:,.0f} MB; "
        f"only those of {targets_at_once(vocabulary):,} targets are held at once, and they are "
        "computed again "
        "in the backward pass"
    )
    return resolve_recipe(recipe, train={"chunk_loss": "on"}), (Decision(SETTING, "on", because),)


def chunk_size(recipe: Recipe, loaded: LoadedModel) -> int | None:
    """The number of targets whose logits are held at once; ``None``: all of a pass."""
    if recipe.train.chunk_loss != "on":
        return None
    return targets_at_once(int(loaded.network.config.vocab_size))


def logits_mb(vocabulary: int, targets: int, chunked: bool = False) -> float:
    """MB that logits and their gradients take in one pass."""
    all_targets = LOGIT_COPIES * 4.0 * vocabulary * targets
    return (
        min(all_targets, float(LOGIT_COPIES * LOGIT_BYTES_AT_ONCE)) / MB
        if chunked
        else all_targets / MB
    )


def _chunking_obstacle(recipe: Recipe, loaded: LoadedModel) -> str | None:
    """Why the losses of this run need all logits; ``None`` if they do not."""
    if not getattr(loaded.network, "chunks", False):
        return f"cannot be used for {recipe.task} with this model: its output is not a linear layer"
    train, policy = recipe.train, recipe.control.policy
    logit_readers = {
        "train.label_smoothing": bool(train.label_smoothing),
        "distill.teacher": bool(recipe.distill.teacher),
        # Such a policy may add a method during the run.
        f"control.policy={policy}": policy not in PASSIVE_POLICIES,
    }
    names = extra_methods(recipe) or [name for name, there in logit_readers.items() if there]
    if names:
        return f"does not store logits, and {', '.join(names)} may need them"
    return None


def _longest_targets(examples: Any) -> int:
    counts = getattr(examples, "target_counts", None)
    counts = examples.target_lengths if counts is None else counts
    return int(counts.max()) if len(counts) else 0
