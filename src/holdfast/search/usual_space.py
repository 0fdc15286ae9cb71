"""The space of a search that names none: by task, model and rows, each setting with its reason.

Only what the recipe leaves open is searched. The rate and the length of the training come first,
since they decide most; the rest are settings of which no value is best on every set. Every range
holds what ``train`` would take, so that the first trial is a point of the space.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from holdfast.core.tasks import CLASSIFIERS, OF_PICTURES, WRITERS
from holdfast.plan.defaults import SMALL_PARAMETERS
from holdfast.recipe import Recipe
from holdfast.recipe.parts import EMBEDDED
from holdfast.recipe.resolution import ResolvedRecipe
from holdfast.search.space import Dimension, OnlyWhere, Space, ordered
from holdfast.search.space_request import KIND, OF_ADAPTERS

# How far to both sides of the rate that is known to work, inside the region that is.
RATE_FACTOR = 4.0
LENGTH_FACTOR = 3.0
CONTRAST = "methods.contrast"
# Layers below which a rate for each layer says nothing.
LEAST_LAYERS = 4
# Rows below which classes have too few for batches of several.
LEAST_FOR_CONTRAST = 16
TEXT_FORM, PICTURE_FORM = "swap", "usual"


@dataclass(frozen=True, slots=True)
class SpaceFacts:
    """What the default space is made by.

    ``recipe`` is as it was asked, ``default`` with every setting that ``train`` would take.
    ``model`` is the line of the table of defaults ("small", "base decoder"), ``region`` the
    learning rates that are known to work; ``classes`` is 0 where a row has not one class;
    ``contrast_only``: the default plan is contrast and no fine-tuning. ``layers`` of the network
    without its head. ``length`` is the median of the training rows', in tokens (0: none), and
    ``probe`` the accuracy of a linear probe on the untouched features, where it is known.
    """

    recipe: Recipe
    default: ResolvedRecipe
    model: str
    parameters: int
    region: tuple[float, float] | None
    train_rows: int
    valid_rows: int
    classes: int
    layers: int
    contrast_only: bool = False
    length: int = 0
    probe: float | None = None

    @property
    def writes(self) -> bool:
        return self.default.task in WRITERS

    @property
    def has_head_of_classes(self) -> bool:
        """Whether a row has one class, to which a head can be fitted in closed form."""
        one = self.recipe.data.label_kind in (None, "class")
        return self.default.task in (None, *CLASSIFIERS) and one

    @property
    def pictures(self) -> bool:
        return self.default.task in OF_PICTURES


def usual_space(facts: SpaceFacts) -> Space:
    """The default space."""
    open_ = [one for one in _all(facts) if is_open(facts.recipe, one.key)]
    return Space(ordered([_reachable(one, open_) for one in open_]), own=False)


def is_open(recipe: Recipe, key: str) -> bool:
    """Whether the recipe says nothing of this key."""
    first, _, rest = key.partition(".")
    if first in ("methods", "enrich"):
        name, _, own = rest.partition(".")
        said = getattr(recipe, first).get(name)
        if own and isinstance(said, Mapping):
            return own not in said
        return said is None or (bool(own) and said is True)
    return bool(attrgetter(key)(recipe) == attrgetter(key)(Recipe()))


def _reachable(one: Dimension, others: list[Dimension]) -> Dimension:
    """Without a condition on what the recipe has settled."""
    if one.when is None or any(other.key == one.when.key for other in others):
        return one
    return replace(one, when=None)


def _all(facts: SpaceFacts) -> Iterator[Dimension]:
    yield from _rate_and_length(facts)
    yield from _updates(facts)
    yield from _network(facts)
    yield from _adapter(facts)
    yield from _forms(facts)


def _rate_and_length(facts: SpaceFacts) -> Iterator[Dimension]:
    train = facts.default.train
    low, high = (
        float(f"{train.learning_rate / RATE_FACTOR:.3g}"),
        float(f"{train.learning_rate * RATE_FACTOR:.3g}"),
    )
    within = ""
    if facts.region is not None:
        low, high = (
            max(low, min(facts.region[0], train.learning_rate)),
            min(high, max(facts.region[1], train.learning_rate)),
        )
        within = ", inside the region that is known to work"
    because = (
        f"the default {train.learning_rate:g} and up to {RATE_FACTOR:g} times less or more{within}"
    )
    yield Dimension("train.learning_rate", "number", low, high, log=True, because=because)
    contrasts = facts.has_head_of_classes and facts.train_rows >= LEAST_FOR_CONTRAST
    tuned = OnlyWhere(CONTRAST, (False,)) if facts.contrast_only else None
    epochs = 12.0 if facts.contrast_only else max(1.0, train.epochs)
    low, high = max(1.0, epochs / LENGTH_FACTOR), epochs * LENGTH_FACTOR
    because = f"about {epochs:g} passes are usual here; a third of them and three times as many"
    if tuned is None or (contrasts and is_open(facts.recipe, CONTRAST)):
        yield Dimension("train.epochs", "number", low, high, log=True, when=tuned, because=because)
    yield Dimension(
        "train.patience",
        "choice",
        choices=(None, 4),
        because="whether a run ends when its validation loss has not improved at 4 looks",
    )
    if contrasts:
        yield from _contrast(facts)


def _contrast(facts: SpaceFacts) -> Iterator[Dimension]:
    said = facts.default.methods.get("contrast")
    on = said not in (None, False)
    first = ("on", "without") if on else ("off", "with")
    yield Dimension(
        CONTRAST,
        "choice",
        choices=(True, False),
        because=f"contrast is {first[0]} by default for so many rows; the search tries {first[1]}",
    )
    steps = int(said.get("steps", 50)) if isinstance(said, Mapping) else 40
    yield Dimension(
        f"{CONTRAST}.steps",
        "whole",
        max(5, round(steps / 2)),
        steps * 2,
        log=True,
        when=OnlyWhere(CONTRAST, (True,)),
        because=f"{steps} updates are usual for so many rows",
    )
    yield Dimension(
        f"{CONTRAST}.temperature",
        "number",
        0.05,
        0.3,
        log=True,
        when=OnlyWhere(CONTRAST, (True,)),
        because="0.05 to 0.3 are usual, 0.1 the default",
    )


def _updates(facts: SpaceFacts) -> Iterator[Dimension]:
    train = facts.default.train
    wanted = {4, 8, 16} if facts.writes else {8, 16, 32}
    sizes = sorted({one for one in wanted if one <= facts.train_rows / 4} | {train.batch_size})
    if len(sizes) > 1:
        because = "smaller batches are noisier updates, more of them a pass"
        yield Dimension("train.batch_size", "choice", choices=tuple(sizes), because=because)
    yield Dimension(
        "train.weight_decay",
        "choice",
        choices=(0.0, 0.01, 0.1),
        because="none, the default, ten times it",
    )
    yield Dimension(
        "train.optimizer",
        "choice",
        choices=("adamw", "rmsprop"),
        because="AdamW is the default; RMSprop goes without momentum, at rates of the same size",
    )
    yield Dimension(
        "train.schedule",
        "choice",
        choices=("linear", "cosine", "constant"),
        because="how the rate falls: by the default a straight line",
    )
    if facts.has_head_of_classes:
        yield Dimension(
            "train.label_smoothing",
            "choice",
            choices=(0.0, 0.1),
            because="0.1 keeps the model from being too sure of few labels",
        )
        yield Dimension(
            "train.head",
            "choice",
            choices=("both", "logistic", "discriminant"),
            because="the form of the head that is fitted to the features: the better of both forms "
            "by default",
        )


def _network(facts: SpaceFacts) -> Iterator[Dimension]:
    adapted = facts.recipe.model.adapter.kind is not None
    yield Dimension(
        "model.dropout",
        "choice",
        choices=(None, 0.0, 0.2),
        because="the model's own by default; none for few updates, more for many",
    )
    if facts.layers >= LEAST_LAYERS and not adapted:
        yield Dimension(
            "train.layer_decay",
            "choice",
            choices=(1.0, 0.9, 0.75),
            because=f"lower rates for the lower of {facts.layers} layers keep what they know",
        )
        usual = facts.default.model.freeze
        choices = dict.fromkeys((usual, 0.5, *(() if facts.writes else ("auto",))))
        yield Dimension(
            "model.freeze",
            "choice",
            choices=tuple(choices),
            because="the lower half frozen is cheaper, and learns less by heart",
        )
    pooling = facts.default.model.pooling
    # A model that reads its own way by default may know no other. The embedded one was made for the
    # mean: its own way lost 8 to 80 points in every recorded run (benchmarks/arena).
    other = pooling != "own" and facts.recipe.model.name != EMBEDDED
    if facts.has_head_of_classes and not facts.pictures and other:
        yield Dimension(
            "model.pooling",
            "choice",
            choices=(pooling, "own"),
            because="how token vectors become that of a text: by the default, or its own way",
        )


def _adapter(facts: SpaceFacts) -> Iterator[Dimension]:
    kind = facts.recipe.model.adapter.kind
    when = None
    if kind is None:
        if not facts.writes or facts.parameters < SMALL_PARAMETERS:
            return
        yield Dimension(
            KIND,
            "choice",
            choices=(None, "lora"),
            because="all weights or a low-rank update of them, which learns less and forgets less",
        )
        when = OnlyWhere(KIND, ("lora",))
    if kind is None or kind in OF_ADAPTERS["model.adapter.rank"]:
        yield Dimension(
            "model.adapter.rank",
            "whole",
            2,
            64,
            log=True,
            when=when,
            because="16 is usual; how much an adapter can learn goes with its rank",
        )


def _forms(facts: SpaceFacts) -> Iterator[Dimension]:
    if facts.default.task not in CLASSIFIERS:
        return
    name = PICTURE_FORM if facts.pictures else TEXT_FORM
    yield Dimension(
        f"enrich.{name}",
        "choice",
        choices=(False, True),
        because="other forms of training rows are of use on some sets, and harm on others",
    )


def default_point(space: Space, default: ResolvedRecipe) -> dict[str, Any] | None:
    """Where in the space ``train``'s own settings lie; ``None`` where they lie outside."""
    plain = default.model_dump(mode="json")
    chosen: dict[str, Any] = {}
    for one in space:
        if one not in space.active(chosen):
            continue
        value = _value(plain, one.key)
        if one.kind != "choice" and isinstance(value, (int, float)):
            # What a range was rounded to must not lose its default.
            slack = 1e-6 * max(abs(one.low), abs(one.high))
            value = (
                min(max(value, one.low), one.high)
                if one.low - slack <= value <= one.high + slack
                else value
            )
        if not one.holds(value):
            return None
        chosen[one.key] = value
    return chosen


def _value(plain: Mapping[str, Any], key: str) -> Any:
    first, _, rest = key.partition(".")
    if first in ("methods", "enrich"):
        name, _, own = rest.partition(".")
        said = plain[first].get(name, False)
        if own:
            return said.get(own) if isinstance(said, Mapping) else None
        return said is not False
    value: Any = plain
    for name in key.split("."):
        value = value[name] if isinstance(value, Mapping) else None
    return value
