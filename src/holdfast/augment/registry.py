"""Enrichments by name: what ``enrich: {NAME: {SETTING: …}}`` of a recipe switches on.

An enrichment is a frozen dataclass whose fields are its settings (``setting``) and which knows how
to be applied, and the line above it that adds it to ``ENRICHMENTS`` (``enrichment``). It is given
rows of the training part alone (``TrainSplit``), and what it makes of a row is a function of the
row and a seed, so that a run gives the same forms wherever it is continued.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict, TypeVar, Unpack

import numpy as np

from holdfast.core.discovery import Registry, import_modules, suggest_name
from holdfast.core.errors import ModelError, RecipeError
from holdfast.core.seeds import derive_seed
from holdfast.core.tasks import IMAGE_TASKS

if TYPE_CHECKING:
    from torch import Tensor


S = TypeVar("S")
Of = Literal["text", "pictures"]
MOST = 1_000_000
# What a setting may be, and the type of its default.
KINDS: Mapping[str, type[Any]] = {
    "number": float,
    "whole": int,
    "words": str,
    "several": tuple,
    "truth": bool,
}


@dataclass(frozen=True, slots=True)
class SettingRule:
    """What the values of a setting may be: a ``number`` or a ``whole`` one above ``above`` (where
    that is ``None`` at least ``least``) and at most ``most``; one text (``words``, of ``choices``
    where there are some); ``several`` texts; or a ``truth``."""

    kind: str
    above: float | None = None
    least: float = 0
    most: float = MOST
    choices: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.kind == "truth":
            return "must be true or false"
        if self.kind == "several":
            return "must be a list of texts"
        if self.kind == "words":
            among = f", one of {', '.join(self.choices)}" if self.choices else ""
            return f"must be a text{among}"
        low = f"above {self.above:g}" if self.above is not None else f"at least {self.least:g}"
        number = "a whole number" if self.kind == "whole" else "a number"
        return f"must be {number} {low} and at most {self.most:,g}"

    def hold(self, value: Any) -> bool:
        """Whether ``value`` is within it; true and false are no numbers."""
        if self.kind == "truth":
            return isinstance(value, bool)
        if self.kind == "words":
            known = not self.choices or value in self.choices
            return isinstance(value, str) and bool(value.strip()) and known
        if self.kind == "several":
            listed = isinstance(value, (list, tuple))
            return listed and all(isinstance(one, str) and one.strip() for one in value)
        if type(value) not in (int, float):
            return False
        low = value > self.above if self.above is not None else value >= self.least
        return low and value <= self.most and (self.kind == "number" or float(value).is_integer())


class Bounds(TypedDict, total=False):
    """The fields of ``SettingRule`` that a setting states."""

    above: float
    least: float
    most: float
    choices: tuple[str, ...]


def setting(default: Any = MISSING, **bounds: Unpack[Bounds]) -> Any:
    """A field of an enrichment, of the kind of its ``default``: a number (float), a whole one
    (int), a text, a list of texts (tuple), or true or false; one without a default is a text that
    must be set."""
    value_type = str if default is MISSING else type(default)
    type_name = next(name for name, one in KINDS.items() if one is value_type)
    return field(default=default, metadata={"rule": SettingRule(type_name, **bounds)})


@dataclass(frozen=True, slots=True)
class Enrichment:
    """One entry: the frozen ``settings`` that apply it, what it is ``of``, and in ``known`` what
    is known of its worth, with the source."""

    settings: type[Any]
    of: Of
    known: str


ENRICHMENTS: Registry[Enrichment] = Registry("enrichment", "enrich")


def enrichment(name: str, of: Of, known: str) -> Callable[[type[S]], type[S]]:
    """Adds the settings that stand below it to ``ENRICHMENTS``."""

    def add(settings: type[S]) -> type[S]:
        ENRICHMENTS.add(name, Enrichment(settings, of, known))
        return settings

    return add


def all_enrichments() -> Registry[Enrichment]:
    """The registry after every file of this package has been imported."""
    import_modules(__name__.rpartition(".")[0])
    return ENRICHMENTS


def input_type(task: str | None) -> Of | None:
    """What the rows of a task are; ``None`` where the task is not known yet."""
    if task is None:
        return None
    return "pictures" if task in IMAGE_TASKS else "text"


def requested_enrichments(enrich: Mapping[str, object]) -> dict[str, Mapping[str, Any]]:
    """The settings of those that are switched on; ``enrich.own`` may be its function alone."""
    requested: dict[str, Mapping[str, Any]] = {}
    for name, given in enrich.items():
        if isinstance(given, str) and name == "own":
            requested[name] = {"function": given}
        elif isinstance(given, Mapping):
            requested[name] = given
        elif given is True:
            requested[name] = {}
        elif given is not False:
            rule = "is neither true nor false nor a table of settings"
            raise RecipeError(f"enrich.{name}", rule, given, f"Set enrich.{name}=true.")
    return requested


def check_enrich(enrich: Mapping[str, object], of: Of | None = None) -> dict[str, dict[str, Any]]:
    """Every setting of those that are on, in its order, as given or by default, in plain values.

    Raises ``RecipeError`` for an enrichment that does not exist, or not for rows like these, and
    for a setting that it does not have, one out of its bounds and one that must be set.
    """
    known = all_enrichments()
    for name in enrich:
        if name not in known:
            rule = "names an unknown enrichment"
            raise RecipeError("enrich", rule, name, suggest_name(name, [*known]))
    checked = {}
    for name, given in requested_enrichments(enrich).items():
        if of is not None and known[name].of != of:
            others = [one for one in known if known[one].of == of]
            remedy = f"For these rows there are: {', '.join(sorted(others))}."
            raise RecipeError(f"enrich.{name}", f"is made for {known[name].of}", None, remedy)
        checked[name] = _with_defaults(name, known[name].settings, given)
    return checked


def _with_defaults(name: str, settings: type[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    rules = {one.name: one.metadata["rule"] for one in fields(settings)}
    for key in given:
        if key not in rules:
            rule = f"is not a setting of {name}"
            raise RecipeError(f"enrich.{name}.{key}", rule, None, suggest_name(key, list(rules)))
    found = {}
    for one in fields(settings):
        where, rule = f"enrich.{name}.{one.name}", rules[one.name]
        value = given.get(one.name, one.default)
        if value is MISSING:
            remedy = f"Set {where}: it {rule}."
            raise RecipeError(f"enrich.{name}", f"needs {one.name}", None, remedy)
        if not rule.hold(value):
            raise RecipeError(where, str(rule), value, "Leave it out.")
        found[one.name] = list(value) if isinstance(value, tuple) else value
    return found


def make_all(requested: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The enrichments of settled settings, ready to be applied, in the order of their names."""
    known, enrichments = all_enrichments(), {}
    for name in sorted(requested):
        settings = known[name].settings
        types = {one.name: KINDS[one.metadata["rule"].kind] for one in fields(settings)}
        enrichments[name] = settings(
            **{key: types[key](value) for key, value in requested[name].items()}
        )
    return enrichments


def names_of(one: object, names: Sequence[str]) -> str:
    """Some settings of an enrichment as one reads them: ``share 0.5, strength 0.1``."""
    return ", ".join(f"{name} {getattr(one, name):g}" for name in names if hasattr(one, name))


Chances = Sequence[np.random.Generator]


@dataclass(frozen=True)
class PictureEnrichment(ABC):
    """Settings that all have, and the joint: a batch of pictures and a generator each in, the batch
    in other forms out.

    ``share``: of the pictures, those that are changed. ``order``: where it stands among others,
    which are applied one after the other; ``needs_colours``: whether it reads values as colours, so
    that it must come before a model's own scaling.
    """

    share: float = setting(1.0, above=0, most=1)
    order: ClassVar[int] = 0
    needs_colours: ClassVar[bool] = False

    @abstractmethod
    def change(self, pixels: Tensor, chances: Chances) -> Tensor:
        """Pictures [n, channels, H, W] in [0, 1] in other forms of the same shape and range, all
        chance of picture k coming from ``chances[k]``: its form depends on nothing else."""

    def forms(self, pixels: Tensor, chances: Chances) -> Tensor:
        """The batch with a ``share`` of its pictures changed."""
        import torch

        indices = [k for k, rng in enumerate(chances) if rng.random() < self.share]
        if not indices:
            return pixels
        places = torch.tensor(indices)
        changed = self.change(pixels[places], [chances[k] for k in indices])
        return pixels.index_copy(0, places, changed)

    def ready(self) -> None:
        """Load what it needs; raises ``MachineError`` or ``RecipeError`` where that is missing."""
        return


# A row of the training part as an enrichment is given it: its texts by the name of their column,
# and under ``label`` what it is labelled with.
Row = Mapping[str, Any]


@dataclass(frozen=True)
class TextEnrichment(ABC):
    """Settings that all have, and the joint: rows and a seed each in, the rows in other forms out.

    ``share``: of the rows of an update, those that are passed in another form. ``copies``: how many
    forms a row has; 0 for a new one each time that it comes up. ``similarity``: a form whose vector
    has a smaller cosine to its text's is not used; 0 asks no encoder. ``protect``: terms that no
    form may lose. ``answers``: whether what a model is to write is rewritten too.
    A form that lost a name is not used, but of one whose work is to put another there
    (``keeps_names``).
    """

    share: float = setting(0.5, above=0, most=1)
    copies: int = setting(0, most=10_000)
    similarity: float = setting(0.0, least=0, most=1)
    protect: tuple[str, ...] = setting(())
    answers: bool = setting(False)
    keeps_names: ClassVar[bool] = True

    @abstractmethod
    def changes(self, texts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Each text in another form, by its seed: the same for the same two, whatever else is
        asked with it. One that cannot be changed is given back as it is."""

    def forms(self, rows: Sequence[Row], parts: Sequence[str], seeds: Sequence[int]) -> list[Row]:
        """The rows with their ``parts`` in another form."""
        texts = [str(row[part]) for row in rows for part in parts]
        each = [
            seed if place == 0 else derive_seed(seed, "part", place)
            for seed in seeds
            for place in range(len(parts))
        ]
        new = iter(self.changes(texts, each))
        return [{**row, **{part: next(new) for part in parts}} for row in rows]

    def ready(self) -> None:
        """Load what it needs; raises ``MachineError`` or ``RecipeError`` where that is missing."""
        return


@dataclass(frozen=True)
class EachText(TextEnrichment):
    """One whose forms are made text by text, by ``change``."""

    @abstractmethod
    def change(self, text: str, rng: np.random.Generator) -> str:
        """Another form of a text, all chance coming from ``rng``."""

    def changes(self, texts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """See ``TextEnrichment.changes``."""
        return [
            self.change(text, np.random.default_rng(seed))
            for text, seed in zip(texts, seeds, strict=True)
        ]


def load_pretrained(auto: str, name: str, model_name: str, remedy: str) -> tuple[Any, Any]:
    """The tokenizer and the model, by a folder or a name on the hub: ``auto`` is the class of
    Transformers that loads it. Raises ``ModelError`` where it cannot be loaded."""
    import transformers

    from holdfast.models.loading.quiet import quiet_transformers

    try:
        with quiet_transformers():
            tokenizer = transformers.AutoTokenizer.from_pretrained(name)
            return tokenizer, getattr(transformers, auto).from_pretrained(name).eval()
    except (OSError, ValueError, KeyError) as error:
        rule = f"cannot be loaded as {model_name}: {str(error).splitlines()[0][:200]}"
        raise ModelError(name, rule, None, remedy) from error


def count_of(strength: float, words: int) -> int:
    """How many of ``words`` words a strength in (0, 1] changes: its share, at least one."""
    return max(1, round(strength * words))
