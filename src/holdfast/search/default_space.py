"""The default search space: by task, model and rows, each setting with its reason.

Only settings that the recipe leaves open are searched. The learning rate and the length of training
come first, since they matter most; the rest are settings without one value that is best on every
data set. Every range includes the value of ``train``, so that the first trial is a point of the
space.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from holdfast.core.packaged_models import EMBEDDED
from holdfast.core.tasks import CLASSIFICATION_TASKS, GENERATIVE_TASKS, IMAGE_TASKS
from holdfast.plan.defaults import SMALL_PARAMETERS
from holdfast.recipe import Recipe
from holdfast.recipe.resolution import ResolvedRecipe
from holdfast.search.space import Dimension, SettingCondition, Space, dependencies_first
from holdfast.search.space_request import ADAPTER_KEYS, ADAPTER_KIND

# How far to both sides of the learning rate that is known to work, inside the region that is.
RATE_FACTOR = 4.0
LENGTH_FACTOR = 3.0
CONTRAST = "methods.contrast"
# Layers below which a learning rate for each layer is of no use.
MIN_LAYERS = 4
# Rows below which classes have too few for batches of several.
MIN_ROWS_FOR_CONTRAST = 16
TEXT_FORM, PICTURE_FORM = "swap", "usual"


def has_one_class(recipe: Recipe) -> bool:
    """Whether a row has one class, so that trials have an accuracy."""
    is_class = recipe.data.label_kind in (None, "class")
    return recipe.task in (None, *CLASSIFICATION_TASKS) and is_class


@dataclass(frozen=True, slots=True)
class SpaceFacts:
    """What determines the default space.

    ``recipe`` is as requested, ``default`` with every setting that ``train`` would use. ``region``
    are the learning rates that are known to work; ``contrast_only``: the default plan is contrast
    without fine-tuning. ``layers`` counts the network's layers without its head.
    """

    recipe: Recipe
    default: ResolvedRecipe
    parameters: int
    region: tuple[float, float] | None
    train_rows: int
    layers: int
    contrast_only: bool

    @property
    def is_generative(self) -> bool:
        return self.default.task in GENERATIVE_TASKS

    @property
    def has_head_of_classes(self) -> bool:
        """Whether a head can be fitted in closed form."""
        return has_one_class(self.default)

    @property
    def is_image_task(self) -> bool:
        return self.default.task in IMAGE_TASKS


def default_space(facts: SpaceFacts) -> Space:
    """The default space."""
    dimensions = [*_training(facts), *_network(facts), *_adapter(facts), *_augmentations(facts)]
    open_dimensions = [one for one in dimensions if is_unset(facts.recipe, one.key)]
    keys = {one.key for one in open_dimensions}
    # Without a condition on what the recipe has settled.
    independent = [
        replace(one, when=None) if one.when is not None and one.when.key not in keys else one
        for one in open_dimensions
    ]
    return Space(dependencies_first(independent), user_defined=False)


def is_unset(recipe: Recipe, key: str) -> bool:
    """Whether the recipe does not set this key."""
    first, _, rest = key.partition(".")
    if first in ("methods", "enrich"):
        name, _, setting = rest.partition(".")
        value = getattr(recipe, first).get(name)
        if setting and isinstance(value, Mapping):
            return setting not in value
        return value is None or (bool(setting) and value is True)
    return bool(attrgetter(key)(recipe) == attrgetter(key)(Recipe()))


def _choice(
    key: str, choices: Iterable[object], because: str, when: SettingCondition | None = None
) -> Dimension:
    return Dimension(key, "choice", choices=tuple(choices), when=when, because=because)


def _training(facts: SpaceFacts) -> Iterator[Dimension]:
    """Learning rate, length, batch and head."""
    train = facts.default.train
    rate, within = train.learning_rate, ""
    low, high = float(f"{rate / RATE_FACTOR:.3g}"), float(f"{rate * RATE_FACTOR:.3g}")
    if facts.region is not None:
        low, high = max(low, min(facts.region[0], rate)), min(high, max(facts.region[1], rate))
        within = ", within the range that is known to work"
    because = f"the default {rate:g}, up to {RATE_FACTOR:g} times lower or higher{within}"
    yield Dimension("train.learning_rate", "number", low, high, log=True, because=because)
    contrasts = facts.has_head_of_classes and facts.train_rows >= MIN_ROWS_FOR_CONTRAST
    tuned = SettingCondition(CONTRAST, (False,)) if facts.contrast_only else None
    epochs = 12.0 if facts.contrast_only else max(1.0, train.epochs)
    low, high = max(1.0, epochs / LENGTH_FACTOR), epochs * LENGTH_FACTOR
    because = f"about {epochs:g} epochs are usual here; from a third to three times as many"
    if tuned is None or (contrasts and is_unset(facts.recipe, CONTRAST)):
        yield Dimension("train.epochs", "number", low, high, log=True, when=tuned, because=because)
    because = "whether a run stops after 4 evaluations without a lower validation loss"
    yield _choice("train.patience", (None, 4), because)
    if contrasts:
        yield from _contrast(facts)
    usual_sizes = {4, 8, 16} if facts.is_generative else {8, 16, 32}
    sizes = sorted({one for one in usual_sizes if one <= facts.train_rows / 4} | {train.batch_size})
    if len(sizes) > 1:
        because = "smaller batches give noisier updates and more of them per epoch"
        yield _choice("train.batch_size", sizes, because)
    yield _choice(
        "train.weight_decay", (0.0, 0.01, 0.1), "0, the default, and ten times the default"
    )
    because = "AdamW is the default; RMSprop has no momentum and uses similar learning rates"
    yield _choice("train.optimizer", ("adamw", "rmsprop"), because)
    because = "how the learning rate decays; linear is the default"
    yield _choice("train.schedule", ("linear", "cosine", "constant"), because)
    if facts.has_head_of_classes:
        because = "0.1 prevents overconfidence with few labels"
        yield _choice("train.label_smoothing", (0.0, 0.1), because)
        because = (
            "how the linear head is fitted to the features: the mean of both methods is the default"
        )
        yield _choice("train.head", ("both", "logistic", "discriminant"), because)


def _contrast(facts: SpaceFacts) -> Iterator[Dimension]:
    contrast = facts.default.methods.get("contrast")
    words = ("off", "with") if contrast in (None, False) else ("on", "without")
    because = f"contrast is {words[0]} by default for this many rows; the search tries {words[1]}"
    yield _choice(CONTRAST, (True, False), because)
    steps = int(contrast.get("steps", 50)) if isinstance(contrast, Mapping) else 40
    low, high = max(5, round(steps / 2)), steps * 2
    when, because = (
        SettingCondition(CONTRAST, (True,)),
        f"{steps} updates are usual for this many rows",
    )
    yield Dimension(f"{CONTRAST}.steps", "whole", low, high, log=True, when=when, because=because)
    key, because = f"{CONTRAST}.temperature", "0.05 to 0.3 is usual; 0.1 is the default"
    yield Dimension(key, "number", 0.05, 0.3, log=True, when=when, because=because)


def _network(facts: SpaceFacts) -> Iterator[Dimension]:
    because = "the model's own is the default; none suits few updates, more suits many"
    yield _choice("model.dropout", (None, 0.0, 0.2), because)
    if facts.layers >= MIN_LAYERS and facts.recipe.model.adapter.method is None:
        because = f"lower learning rates keep what the lower of {facts.layers} layers learned"
        yield _choice("train.layer_decay", (1.0, 0.9, 0.75), because)
        usual = facts.default.model.freeze
        choices = dict.fromkeys((usual, 0.5, *(() if facts.is_generative else ("auto",))))
        because = "freezing the lower half is cheaper and memorizes less"
        yield _choice("model.freeze", choices, because)
    pooling = facts.default.model.pooling
    # A model that reads its own way by default may know no other. The embedded one was made for the
    # mean: its own way lost 8 to 80 points in every recorded run (benchmarks/arena).
    other = pooling != "own" and facts.recipe.model.name != EMBEDDED
    if facts.has_head_of_classes and not facts.is_image_task and other:
        because = "how token vectors are pooled: the default, or the model's own head"
        yield _choice("model.pooling", (pooling, "own"), because)


def _adapter(facts: SpaceFacts) -> Iterator[Dimension]:
    kind, when = facts.recipe.model.adapter.method, None
    if facts.recipe.model.adapter.kind is None:
        if not facts.is_generative or facts.parameters < SMALL_PARAMETERS:
            return
        because = "all weights, or a low-rank update (LoRA), which learns less and forgets less"
        usual = facts.default.model.adapter.method or "none"
        yield _choice(ADAPTER_KIND, dict.fromkeys((usual, "none", "lora")), because)
        when = SettingCondition(ADAPTER_KIND, ("lora",))
    if when is not None or kind in ADAPTER_KEYS["model.adapter.rank"]:
        because = "16 is usual; a higher rank lets an adapter learn more"
        yield Dimension("model.adapter.rank", "whole", 2, 64, log=True, when=when, because=because)


def _augmentations(facts: SpaceFacts) -> Iterator[Dimension]:
    if facts.default.task in CLASSIFICATION_TASKS:
        name = PICTURE_FORM if facts.is_image_task else TEXT_FORM
        because = "data augmentation helps on some data sets and harms on others"
        yield _choice(f"enrich.{name}", (False, True), because)


def default_point(space: Space, default: ResolvedRecipe) -> dict[str, Any] | None:
    """The point of the space with the settings of ``train``; ``None`` if they are outside."""
    values = default.model_dump(mode="json")
    point: dict[str, Any] = {}
    for dimension in space:
        if dimension not in space.active(point):
            continue
        value = _value(values, dimension.key)
        if dimension.value_type != "choice" and isinstance(value, (int, float)):
            # What a range was rounded to must not lose its default.
            slack = 1e-6 * max(abs(dimension.low), abs(dimension.high))
            if dimension.low - slack <= value <= dimension.high + slack:
                value = min(max(value, dimension.low), dimension.high)
        if not dimension.contains(value):
            return None
        point[dimension.key] = value
    return point


def _value(values: Mapping[str, Any], key: str) -> Any:
    first, _, rest = key.partition(".")
    if first in ("methods", "enrich"):
        name, _, setting = rest.partition(".")
        section = values[first].get(name, False)
        if setting:
            return section.get(setting) if isinstance(section, Mapping) else None
        return section is not False
    value: Any = values
    for name in key.split("."):
        value = value[name] if isinstance(value, Mapping) else None
    return value
