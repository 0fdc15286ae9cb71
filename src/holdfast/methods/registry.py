"""Methods by name: what ``methods: {NAME: {SETTING: …}}`` of a recipe switches on.

A method is a frozen dataclass whose fields are its settings (``setting``), the parts that it adds
to a run (``Parts``), and one line that adds it to ``METHODS``. Steppers, sources and loss terms are
frozen values; a listener has a state and is created again for every run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from holdfast.core.discovery import Registry, import_modules, suggest_name
from holdfast.core.errors import RecipeError
from holdfast.core.events import Listener
from holdfast.core.settings import checked_settings, make_settings
from holdfast.core.updates import BatchSource, LossTerm, Stepper

if TYPE_CHECKING:
    from holdfast.models.base import LoadedModel
    from holdfast.training.task import Examples


@dataclass(frozen=True, slots=True)
class RunContext:
    """What is known about a run when the settings that its recipe leaves open are computed;
    ``classes`` is their number, 0 where a row has none."""

    train_rows: int
    learning_rate: float
    classes: int = 0


@dataclass(frozen=True, slots=True)
class Stage:
    """A phase of its own before the fine-tuning, which continues with the resulting network; its
    ``name`` is that of its method.

    ``head`` says how the last layer follows: ``train`` by gradient like the others, ``refit`` in
    closed form at each evaluation (``methods/closed_form.py``).
    """

    name: str
    steps: int
    batch_size: int
    learning_rate: float
    source: BatchSource
    terms: tuple[LossTerm, ...]
    head: Literal["train", "refit"] = "train"


def nothing_needed(*_: object) -> tuple[()]:
    """Nothing: for a method without a state, or without a requirement on the model."""
    return ()


@dataclass(frozen=True, slots=True)
class Parts:
    """What methods add to a run.

    ``stages`` come before the fine-tuning. ``stepper`` computes the gradient of every update, in
    all phases. ``source`` draws the rows of the fine-tuning and ``terms`` change its losses.
    ``listeners`` creates the objects with a state, again for every run; together they hold
    ``copies`` of the trainable weights. ``listeners_for`` creates those that need the loaded model
    (``models.base.LoadedModel``: the network of this fit, its tokenizer). ``prepares`` is called
    before the first step with a network of the fit's own, of which it may change the computation:
    it reports what it did and what will have no effect, or raises ``RecipeError`` where the network
    lacks what the method needs. ``add_general_rows`` adds general rows to those that a source draws
    for the fine-tuning.
    """

    stages: tuple[Stage, ...] = ()
    stepper: Stepper | None = None
    source: BatchSource | None = None
    terms: tuple[LossTerm, ...] = ()
    listeners: Callable[[], Sequence[Listener]] = nothing_needed
    copies: int = 0
    listeners_for: Callable[[LoadedModel], Sequence[Listener]] = nothing_needed
    prepares: Callable[[LoadedModel], object] = nothing_needed
    add_general_rows: Callable[[BatchSource, Examples], BatchSource] | None = None

    @property
    def changes_finetuning(self) -> bool:
        """Whether any part applies only to the fine-tuning."""
        return bool(self.terms) or self.source is not None or self.add_general_rows is not None


@dataclass(frozen=True, slots=True)
class Method:
    """One entry: ``parts`` of the ``settings``, a frozen dataclass; ``worked_out`` those of its
    settings whose default depends on the run. ``needs_classes``: it is not applicable where a row
    has no class; ``needs_one_answer``: nor where a row has several labels or a number.
    ``needs_general``: it needs general rows, which the base model knew (``data.general``). ``key``
    is the recipe setting that switches it on, where that is not ``methods.NAME``. ``joins``: it can
    be switched on during a run."""

    settings: type[Any]
    parts: Callable[[Any], Parts]
    worked_out: Callable[[RunContext], dict[str, Any]] = lambda _: {}
    needs_classes: bool = False
    needs_one_answer: bool = False
    needs_general: bool = False
    key: str | None = None
    joins: bool = True


METHODS: Registry[Method] = Registry("method", "methods")


def all_methods() -> Registry[Method]:
    """The registry after every file of this package has been imported."""
    import_modules(__name__.rpartition(".")[0])
    return METHODS


def check_methods(requested: Mapping[str, object]) -> None:
    """Refuse an unknown method, one that has a key of its own, and a setting that the method does
    not have or whose value is not valid."""
    methods = all_methods()
    own_keys = {name: entry.key for name, entry in methods.items() if entry.key is not None}
    for name, given in requested.items():
        if name not in methods:
            method_names = [one for one in methods if one not in own_keys]
            raise RecipeError(
                "methods", "names an unknown method", name, suggest_name(name, method_names)
            )
        if name in own_keys:
            rule = "is switched on by a key of its own"
            raise RecipeError(f"methods.{name}", rule, None, f"Set {own_keys[name]}.")
        if isinstance(given, Mapping):
            checked_settings(f"methods.{name}", methods[name].settings, given, {})


def complete_settings(name: str, given: Mapping[str, object], known: RunContext) -> dict[str, Any]:
    """Every setting of a method, in order: as given, computed, or by default; checked."""
    method = all_methods()[name]
    return checked_settings(f"methods.{name}", method.settings, given, method.worked_out(known))


def parts_of(requested: Mapping[str, Mapping[str, Any]]) -> Parts:
    """The parts of all these methods (name: settings) together, in the order of their names.

    Raises ``RecipeError`` where two of them would both draw the rows, or both compute the gradient.
    """
    parts_by_method: dict[str, Parts] = {}
    for name in sorted(requested):
        method = all_methods()[name]
        parts_by_method[name] = method.parts(make_settings(method.settings, requested[name]))
    for part, does in (("stepper", "computes the gradient"), ("source", "draws the rows")):
        names = [
            name for name, parts in parts_by_method.items() if getattr(parts, part) is not None
        ]
        if len(names) > 1:
            rule = f"exclude each other: each {does} of an update in its own way"
            remedy = "Leave one of them out."
            raise RecipeError(f"methods.{names[0]} and methods.{names[1]}", rule, None, remedy)
    all_parts = tuple(parts_by_method.values())
    return Parts(
        tuple(stage for parts in all_parts for stage in parts.stages),
        next((parts.stepper for parts in all_parts if parts.stepper), None),
        next((parts.source for parts in all_parts if parts.source), None),
        tuple(term for parts in all_parts for term in parts.terms),
        lambda: tuple(listener for parts in all_parts for listener in parts.listeners()),
        sum(parts.copies for parts in all_parts),
        lambda loaded: tuple(one for parts in all_parts for one in parts.listeners_for(loaded)),
        lambda loaded: [parts.prepares(loaded) for parts in all_parts],
        next((parts.add_general_rows for parts in all_parts if parts.add_general_rows), None),
    )
