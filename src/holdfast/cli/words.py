"""The names that a person may type, and what an unknown one was meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

import typer.core

from holdfast.core.errors import RecipeError
from holdfast.core.printable import printable
from holdfast.core.tasks import TASKS

# As core/records.py has them; importing it would cost every `--help` the time of NumPy.
VERDICTS = (
    "learning",
    "healthy",
    "underfit",
    "overfit",
    "memorizing",
    "miscalibrated",
    "diverging",
    "leaking",
    "noisy_labels",
    "forgetting",
    "inconclusive",
)
LONGEST = 400  # characters of Typer's message
SOURCES = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".gz", ".yaml", ".yml")


class Command(typer.core.TyperCommand):
    """A command that says what an unknown option may have meant."""

    def make_context(self, *args: Any, **more: Any) -> Any:
        try:
            return super().make_context(*args, **more)
        # Its class moved between the packages that Typer stands on; the name and field did not.
        except Exception as error:
            if type(error).__name__ != "NoSuchOption":
                raise tamed(error) from None
            name = str(error.option_name)  # type: ignore[attr-defined]
            known = [
                option
                for param in self.params
                for option in getattr(param, "opts", ())
                if option.startswith("--")
            ]
            raise RecipeError(
                name,
                f"is not an option of holdfast {self.name}",
                None,
                meant(name, known, "--set" in known),
            ) from None


def tamed(error: Exception) -> Exception:
    """An error of Typer's without what would move the cursor of the terminal that it is shown on:
    it repeats what was typed."""
    if isinstance(getattr(error, "message", None), str):
        error.message = printable(error.message, LONGEST)  # type: ignore[attr-defined]
    return error


def meant(name: str, known: list[str], settable: bool) -> str:
    """The remedy for an unknown option: the nearest one, and the recipe key of that very name; only
    where there is neither, a key whose name is like it."""
    keys = list(_keys_like(name)) if settable else []
    exact = [key for key in keys if key.rpartition(".")[2] == _as_key(name)]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.7)
    guesses = [*close, *(f"--set {key}=…" for key in exact or ([] if close else keys))]
    if guesses:
        return f"Did you mean {' or '.join(guesses[:3])}?"
    return "`--help` lists them" + (
        "; every setting of a recipe is --set KEY=VALUE (docs/recipe.md)." if settable else "."
    )


def _keys_like(name: str) -> Iterator[str]:
    """Recipe keys whose last part is the option's name, or close to it."""
    from holdfast.recipe.whole import known_keys

    wanted = _as_key(name)
    keys = {key.rpartition(".")[2]: key for key in known_keys()}
    for last in difflib.get_close_matches(wanted, keys, n=2, cutoff=0.8):
        yield keys[last]


def _as_key(option: str) -> str:
    return option.lstrip("-").replace("-", "_")


def complete_tasks(incomplete: str) -> list[str]:
    """For the shell: the tasks that begin so."""
    return [task for task in TASKS if task.startswith(incomplete)]


def complete_verdicts(incomplete: str) -> list[str]:
    """For the shell: the verdicts that begin so."""
    return [label for label in VERDICTS if label.startswith(incomplete)]
