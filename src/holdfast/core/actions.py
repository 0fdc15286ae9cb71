"""What may be done to a run that is under guard: a frozen class an action, each with its reason.

| action | what it changes | until |
|---|---|---|
| ``Stop`` | the run ends after this evaluation point | – |
| ``Continue`` | nothing; says that something was looked at | – |
| ``RollBack`` | everything that training depends on, to what it was at an earlier look | – |
| ``ScaleLearningRate`` | the rate of every group and step, times a factor | rolled back |
| ``SetWeightDecay`` | the decay of the weights that decay | rolled back |
| ``SetDropout`` | the rate of the dropouts that are on | rolled back |
| ``Freeze``, ``Unfreeze`` | which layers take part | rolled back |
| ``Extend``, ``Shorten`` | the planned steps of the last phase | rolled back |
| ``SwitchOn`` | a method joins the fine-tuning | rolled back |
| ``StrengthenAugmentation`` | in which forms the rows of the fine-tuning come | rolled back |
| ``ResetHead`` | the last layer, to what it was at the first look | rolled back |
| ``Reshuffle`` | the order of the rows that are still to come | rolled back |
| ``HalveBatch`` | in how many pieces an update is computed, not the update | the end |

An advisor makes them, and whoever trains applies them: each by a table from class to function, so
that a class without an entry is refused, never skipped. ``to_record`` is what ``events.jsonl``
holds of one and ``from_record`` reads it back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, get_args

from holdfast.core.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Stop:
    """The run stops here. ``gain``, ``error`` and ``chance`` are those of the forecast that caused
    the stop (see ``control.stop_rules``), if one did."""

    because: str
    gain: float | None = None
    error: float | None = None
    chance: float | None = None


@dataclass(frozen=True, slots=True)
class Continue:
    """Nothing changes. ``to_step`` is the best checkpoint, where the decision was about it."""

    because: str
    to_step: int | None = None


@dataclass(frozen=True, slots=True)
class RollBack:
    """Go back to the evaluation at ``to_step``, before anything was done there: weights, optimizer,
    schedule, generators, position among the rows, listeners, and the settings that actions have
    changed since. To undo an action, go back to the evaluation at which it was taken.

    ``branch`` names an earlier branch whose last evaluation this is: the run continues that branch,
    with everything it had seen there, as if it had never left it.
    """

    because: str
    to_step: int
    branch: int | None = None


@dataclass(frozen=True, slots=True)
class ScaleLearningRate:
    """Every learning rate times ``factor``, a positive number, in addition to earlier factors and
    the schedule."""

    because: str
    factor: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.factor) and self.factor > 0):
            raise RecipeError("ScaleLearningRate(factor=…)", "must be above 0", self.factor)


@dataclass(frozen=True, slots=True)
class SetWeightDecay:
    """The weight decay, at least 0. Biases and norms have none."""

    because: str
    weight_decay: float = field(metadata={"setting": "train.weight_decay"})

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise RecipeError(
                "SetWeightDecay(weight_decay=…)", "must be at least 0", self.weight_decay
            )


@dataclass(frozen=True, slots=True)
class SetDropout:
    """The rate of every dropout, in [0, 1)."""

    because: str
    dropout: float = field(metadata={"setting": "model.dropout"})

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise RecipeError(
                "SetDropout(dropout=…)", "must be at least 0 and below 1", self.dropout
            )


@dataclass(frozen=True, slots=True)
class Freeze:
    """The weights of these ``layers`` (names, or shell patterns of layers' or parameters' names)
    are no longer trained."""

    because: str
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unfreeze:
    """Train these layers from now on: those that ``Freeze`` froze, and those that the recipe froze
    (``model.freeze``). Weights that an adapter replaces, and weights that the network fixes, stay
    frozen."""

    because: str
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Extend:
    """Extend the last phase by ``steps`` updates or ``epochs`` passes over the rows. Its schedule
    becomes that of the longer phase."""

    because: str
    steps: int | None = None
    epochs: float | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.steps, self.epochs) if value is not None]
        if len(given) != 1 or not given[0] > 0:
            raise RecipeError(
                "Extend(steps=…) or Extend(epochs=…)",
                "takes one of the two, and above 0",
                (self.steps, self.epochs),
            )


@dataclass(frozen=True, slots=True)
class Shorten:
    """End the last phase, and with it the run, after update ``to_step``. Its schedule becomes that
    of the shorter phase: a learning rate that decays to zero reaches it there."""

    because: str
    to_step: int


@dataclass(frozen=True, slots=True)
class SwitchOn:
    """Add a registered ``method`` to the fine-tuning from the next update on, with these
    ``settings``; missing ones are filled in as for a recipe. The second time, its settings change.
    A method that has its own phase cannot be added."""

    because: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A record that is read back holds plain values; so does one that was never written.
        object.__setattr__(self, "settings", dict(self.settings))


@dataclass(frozen=True, slots=True)
class StrengthenAugmentation:
    """Strengthen the data augmentation by ``notches``: what the recipe uses is made stronger, or
    one that suits the rows is switched on."""

    because: str
    notches: int = 1

    def __post_init__(self) -> None:
        if type(self.notches) is not int or self.notches < 1:
            rule = "must be a whole number of at least 1"
            raise RecipeError("StrengthenAugmentation(notches=…)", rule, self.notches)


@dataclass(frozen=True, slots=True)
class ResetHead:
    """Reset the last layer to its weights at the first evaluation (random, or a linear probe) and
    clear its optimizer state. What was learned first then has less influence (2205.07802)."""

    because: str


@dataclass(frozen=True, slots=True)
class Reshuffle:
    """Draw the remaining rows in another order."""

    because: str


@dataclass(frozen=True, slots=True)
class HalveBatch:
    """Compute each update in twice as many pieces: ``accumulate`` batches of ``batch_size``
    rows."""

    because: str
    batch_size: int = field(metadata={"setting": "train.batch_size"})
    accumulate: int = field(metadata={"setting": "train.accumulate"})


Action = (
    Stop
    | Continue
    | RollBack
    | ScaleLearningRate
    | SetWeightDecay
    | SetDropout
    | Freeze
    | Unfreeze
    | Extend
    | Shorten
    | SwitchOn
    | StrengthenAugmentation
    | ResetHead
    | Reshuffle
    | HalveBatch
)
ACTIONS: Mapping[str, type[Action]] = {kind.__name__: kind for kind in get_args(Action)}


def to_record(action: Action) -> dict[str, Any]:
    """``action`` (its class's name), ``because``, and ``settings``: its other fields, under recipe
    names where they are recipe settings."""
    values = ((_setting_name(f), getattr(action, f.name)) for f in fields(action))
    settings = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values
        if name != "because" and value is not None
    }
    return {"action": type(action).__name__, "because": action.because, "settings": settings}


def from_record(action: str, because: str, settings: Mapping[str, object]) -> Action:
    """The action of such a record. Raises ``KeyError`` for an unknown name."""
    action_class: Any = ACTIONS[action]
    values = {
        f.name: tuple(value) if isinstance(value, list) else value
        for f in fields(action_class)
        if (value := settings.get(_setting_name(f))) is not None
    }
    return action_class(because=because, **values)  # type: ignore[no-any-return]


def _setting_name(dataclass_field: Field[object]) -> str:
    return str(dataclass_field.metadata.get("setting", dataclass_field.name))
