"""Whether a model that writes computes its losses without the logits of all targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.core.errors import RecipeError
from holdfast.core.machine import MB
from holdfast.core.records import Decision
from holdfast.models.generators.base import LOGIT_BYTES_AT_ONCE, targets_at_once
from holdfast.plan.defaults import PASSIVE, own_methods
from holdfast.plan.memory import held_rows
from holdfast.recipe import Recipe
from holdfast.recipe.resolution import ResolvedRecipe, resolved
from holdfast.training.plan import Phase

if TYPE_CHECKING:
    from holdfast.models.base import LoadedModel
    from holdfast.training.task import Examples


SETTING = "train.chunk_loss"
# Float32 logits, their gradient, and what the softmax keeps.
COPIES = 3
# MB of these from which it is done unasked: below, they are no large part of a run's memory.
PAYS_MB = 1000.0


def choose_chunks(
    recipe: ResolvedRecipe, loaded: LoadedModel, examples: Examples, phases: tuple[Phase, ...]
) -> tuple[ResolvedRecipe, tuple[Decision, ...]]:
    """The recipe with ``train.chunk_loss`` on or off; why, where it is on.

    Unasked only where the logits of one pass would take more than ``PAYS_MB``, so that the numbers
    of small runs stay what they are to the bit. Raises ``RecipeError`` where it is asked for and
    cannot be done.
    """
    wanted = recipe.train.chunk_loss
    hindered = _hindered(recipe, loaded)
    if wanted == "on" and hindered:
        raise RecipeError(SETTING, hindered, wanted, "Leave it out.")
    if wanted == "off" or hindered:
        return resolved(recipe, train={"chunk_loss": "off"}), ()
    words = int(loaded.network.config.vocab_size)
    size = logits_mb(words, held_rows(phases) * _targets(examples))
    if wanted == "auto" and size < PAYS_MB:
        return resolved(recipe, train={"chunk_loss": "off"}), ()
    why = "set in the recipe" if wanted == "on" else "they are the largest thing of a step"
    because = (
        f"{why}: the logits of a pass over a vocabulary of {words:,} would take {size:,.0f} MB; "
        f"those of {targets_at_once(words):,} targets are there at once, and computed once more "
        "in the backward pass"
    )
    return resolved(recipe, train={"chunk_loss": "on"}), (Decision(SETTING, "on", because),)


def chunk_of(recipe: Recipe, loaded: LoadedModel) -> int | None:
    """Of how many targets the logits are there at once; ``None``: of all of a pass."""
    if recipe.train.chunk_loss != "on":
        return None
    return targets_at_once(int(loaded.network.config.vocab_size))


def logits_mb(vocabulary: int, targets: int, chunked: bool = False) -> float:
    """What logits and their gradients take in a pass, MB."""
    whole = COPIES * 4.0 * vocabulary * targets
    return min(whole, float(COPIES * LOGIT_BYTES_AT_ONCE)) / MB if chunked else whole / MB


def _hindered(recipe: Recipe, loaded: LoadedModel) -> str | None:
    """Why the losses of this run need all logits."""
    if not getattr(loaded.network, "chunks", False):
        return f"cannot be used for {recipe.task} with this model: its logits are no plain layer"
    train, policy = recipe.train, recipe.control.policy
    readers = {
        "train.label_smoothing": bool(train.label_smoothing),
        "distill.teacher": bool(recipe.distill.teacher),
        # Such a policy may add a method on the way.
        f"control.policy={policy}": policy not in PASSIVE,
    }
    names = own_methods(recipe) or [name for name, there in readers.items() if there]
    if names:
        return f"keeps no logits, and {', '.join(names)} may read them"
    return None


def _targets(examples: Any) -> int:
    counts = getattr(examples, "target_counts", None)
    counts = examples.target_lengths if counts is None else counts
    return int(counts.max()) if len(counts) else 0
