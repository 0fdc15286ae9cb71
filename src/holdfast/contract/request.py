"""A training request, from any entry point: a source and its options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.recipe import Recipe, override, read_recipe

RECIPES = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """A training request: ``source`` is a recipe or data, by its name; ``None`` means not given.

    ``settings`` are ``key=value`` strings. ``out`` is the run's folder; with ``resume`` it is
    continued. ``in_memory`` are rows in memory, see ``prepare.sources``.
    """

    source: str
    model: str | None = None
    download: bool = False
    task: str | None = None
    text: Sequence[str] | None = None
    label: str | None = None
    group: str | None = None
    test: str | None = None
    seed: int | None = None
    settings: Sequence[str] = ()
    out: Path | None = None
    resume: bool = False
    in_memory: Mapping[str, Any] = field(default_factory=dict)

    def recipe(self, read: Callable[[Path], Recipe] = read_recipe) -> Recipe:
        """The recipe of this request: options override a recipe file, and ``settings`` override
        both.

        ``read`` reads that file.
        """
        is_recipe = Path(self.source).suffix.lower() in RECIPES
        if is_recipe:
            recipe = read(Path(self.source))
        else:
            recipe = Recipe().with_changes(data={"path": self.source})
        data = {
            "label": self.label,
            "group": self.group,
            "test": self.test,
            "text": tuple(self.text) if self.text else None,
        }
        model = {"name": self.model, "download": self.download}
        recipe = recipe.with_changes(
            data={key: value for key, value in data.items() if value is not None},
            model={key: value for key, value in model.items() if value},
        )
        extra = [f"seed={self.seed}"] if self.seed is not None else []
        extra += [f"task={self.task}"] if self.task else []
        return override(recipe, [*extra, *self.settings])
