"""The registry of enrichments (augmentations): ``enrich: {NAME: {SETTING: …}}`` of a recipe.

An enrichment is a frozen dataclass whose fields are its settings (``setting``) and whose methods
apply it; the decorator ``enrichment`` adds it to ``ENRICHMENTS``. It receives training rows only
(``TrainSplit``). A form of a row is a function of the row and a seed, so a resumed run gives the
same forms.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import numpy as np

from holdfast.core.discovery import Registry, import_modules, suggest_name
from holdfast.core.errors import ModelError, RecipeError
from holdfast.core.seeds import derive_seed
from holdfast.core.settings import checked_settings, make_settings, setting
from holdfast.core.tasks import IMAGE_TASKS

if TYPE_CHECKING:
    from torch import Tensor


S = TypeVar("S")
Of = Literal["text", "pictures"]


@dataclass(frozen=True, slots=True)
class Enrichment:
    """One entry: the frozen ``settings`` class that applies it, the type of input that it is
    ``of``, and in ``known`` the published evidence for its benefit."""

    settings: type[Any]
    of: Of
    known: str


ENRICHMENTS: Registry[Enrichment] = Registry("enrichment", "enrich")


def enrichment(name: str, of: Of, known: str) -> Callable[[type[S]], type[S]]:
    """A decorator that adds a settings class to ``ENRICHMENTS``."""

    def add(settings: type[S]) -> type[S]:
        ENRICHMENTS.add(name, Enrichment(settings, of, known))
        return settings

    return add


def all_enrichments() -> Registry[Enrichment]:
    """The registry after every file of this package has been imported."""
    import_modules(__name__.rpartition(".")[0])
    return ENRICHMENTS


def input_type(task: str | None) -> Of | None:
    """The input type of a task's rows; ``None`` if the task is not known yet."""
    if task is None:
        return None
    return "pictures" if task in IMAGE_TASKS else "text"


def requested_enrichments(enrich: Mapping[str, object]) -> dict[str, Mapping[str, Any]]:
    """The settings of the requested enrichments; ``augment.own`` may be just its function."""
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
            raise RecipeError(f"augment.{name}", rule, given, f"Set augment.{name}=true.")
    return requested


def check_enrich(enrich: Mapping[str, object], of: Of | None = None) -> dict[str, dict[str, Any]]:
    """All settings of the requested enrichments, in their order, given or default, as plain values.

    Raises ``RecipeError`` for an unknown enrichment or one for other rows, and for a setting that
    is unknown, out of bounds or missing.
    """
    known = all_enrichments()
    for name in enrich:
        if name not in known:
            rule = "names an unknown augmentation"
            raise RecipeError("augment", rule, name, suggest_name(name, [*known]))
    checked = {}
    for name, given in requested_enrichments(enrich).items():
        if of is not None and known[name].of != of:
            others = [one for one in known if known[one].of == of]
            remedy = f"Available for these rows: {', '.join(sorted(others))}."
            rows = "images" if known[name].of == "pictures" else "texts"
            raise RecipeError(f"augment.{name}", f"is only for {rows}", None, remedy)
        checked[name] = checked_settings(f"augment.{name}", known[name].settings, given, {})
    return checked


def make_all(requested: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The enrichments with these complete settings, ordered by name."""
    known = all_enrichments()
    return {
        name: make_settings(known[name].settings, requested[name]) for name in sorted(requested)
    }


def names_of(one: object, names: Sequence[str]) -> str:
    """Some settings of an enrichment as a phrase: ``share 0.5, strength 0.1``."""
    return ", ".join(f"{name} {getattr(one, name):g}" for name in names if hasattr(one, name))


Chances = Sequence[np.random.Generator]


@dataclass(frozen=True)
class PictureEnrichment(ABC):
    """An augmentation of images: a batch of images and a random generator for each → the augmented
    batch.

    ``share``: the share of the images that are changed. ``order``: enrichments are applied in this
    order. ``needs_colours``: whether it reads values as colours, so that it must come before the
    model's scaling.
    """

    share: float = setting(1.0, above=0, most=1)
    order: ClassVar[int] = 0
    needs_colours: ClassVar[bool] = False

    @abstractmethod
    def change(self, pixels: Tensor, chances: Chances) -> Tensor:
        """Augmented images of the same shape [n, channels, H, W] and range [0, 1]. All randomness
        for image k comes from ``chances[k]``; its form depends on nothing else."""

    def forms(self, pixels: Tensor, chances: Chances) -> Tensor:
        """The batch with a ``share`` of its images changed."""
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


# A training row as an enrichment receives it: its texts by column name, and its label under
# ``label``.
Row = Mapping[str, Any]


@dataclass(frozen=True)
class TextEnrichment(ABC):
    """An augmentation of texts: rows and a seed for each → the rows in other forms.

    ``share``: the share of an update's rows that are used in another form. ``copies``: how many
    forms a row has; 0 for a new form each time. ``similarity``: a form whose vector has a lower
    cosine similarity to that of its text is not used; with 0 no encoder is needed. ``protect``:
    terms that no form may lose. ``answers``: whether target texts are rewritten too. A form that
    lost a name is not used, unless the enrichment replaces names (``keeps_names``).
    """

    share: float = setting(0.5, above=0, most=1)
    copies: int = setting(0, most=10_000)
    similarity: float = setting(0.0, least=0, most=1)
    protect: tuple[str, ...] = setting(())
    answers: bool = setting(False)
    keeps_names: ClassVar[bool] = True

    @abstractmethod
    def changes(self, texts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Each text in another form, by its seed. The form depends only on the text and the seed.
        A text that cannot be changed is returned unchanged."""

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
    """A text enrichment that makes forms text by text, with ``change``."""

    @abstractmethod
    def change(self, text: str, rng: np.random.Generator) -> str:
        """Another form of a text; all randomness comes from ``rng``."""

    def changes(self, texts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """See ``TextEnrichment.changes``."""
        return [
            self.change(text, np.random.default_rng(seed))
            for text, seed in zip(texts, seeds, strict=True)
        ]


def load_pretrained(auto: str, name: str, model_name: str, remedy: str) -> tuple[Any, Any]:
    """The tokenizer and the model of a folder or a hub name; ``auto`` is the Transformers class
    that loads the model. Code of the model's own never runs. Raises ``ModelError`` if it cannot be
    loaded."""
    import transformers

    from holdfast.models.loading.quiet import quiet_transformers
    from holdfast.models.loading.source import plain_folder

    try:
        folder = plain_folder(name)
    except ModelError as error:
        raise error.reworded(remedy=f"{error.remedy} {remedy}") from error
    try:
        with quiet_transformers():
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            model = getattr(transformers, auto).from_pretrained(folder, trust_remote_code=False)
            return tokenizer, model.eval()
    except (OSError, ValueError, KeyError) as error:
        rule = f"cannot be loaded as {model_name}: {str(error).splitlines()[0][:200]}"
        raise ModelError(name, rule, None, remedy) from error


def count_of(strength: float, words: int) -> int:
    """How many of ``words`` words a strength in (0, 1] changes: that share, at least one."""
    return max(1, round(strength * words))
