"""Things found by name: registries that contract kits can walk, entry points of other packages, and
suggestions for unknown names and paths.

Groups of entry points: ``holdfast.commands`` (a command's name → its ``Entry``),
``holdfast.functions`` (a public function's name → the function) and ``holdfast.hooks`` (what the
core asks of a plug-in). Holdfast's own plug-ins register in the same way as other packages. Each is
imported on first use.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import itertools
import os
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Generic, Literal, TypeVar

from holdfast.core.errors import MachineError, RecipeError

T = TypeVar("T")

FAMILIES: dict[str, Registry[object]] = {}


class Registry(Mapping[str, T], Generic[T]):
    """A family such as the optimizers: names to entries. An unknown name is refused with the
    nearest known one. Every registry is listed in ``FAMILIES``, so that a test can demand a kit."""

    def __init__(self, family: str, setting: str) -> None:
        self.family = family
        self.setting = setting
        self._entries: dict[str, T] = {}
        FAMILIES[family] = self  # type: ignore[assignment]

    def add(self, name: str, entry: T) -> T:
        """Register ``entry`` as ``name``, replacing an earlier one, and return it."""
        self._entries[name] = entry
        return entry

    def __getitem__(self, name: str) -> T:
        if name in self._entries:
            return self._entries[name]
        rule = f"is not a known {self.family}"
        raise RecipeError(self.setting, rule, name, suggest_name(name, list(self._entries)))

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries


@functools.cache
def import_modules(package: str) -> tuple[ModuleType, ...]:
    """Import every module of a package and its sub-packages, in the order of their names. The
    import registers what each module holds."""
    package_paths = importlib.import_module(package).__path__
    names = sorted(module.name for module in pkgutil.walk_packages(package_paths, f"{package}."))
    return tuple(map(importlib.import_module, names))


class Entry:
    """A command: the ``module`` that holds its ``command``, its line in the list, and examples;
    ``imports`` is the largest library that it imports, if that needs much memory."""

    def __init__(
        self,
        module: str,
        short: str,
        *examples: str,
        imports: Literal["torch", "numpy"] | None = None,
    ) -> None:
        self.module, self.short, self.examples, self.imports = module, short, examples, imports


@functools.cache
def entry_points_by_name(group: str) -> Mapping[str, EntryPoint]:
    """The entry points of a group by name, without importing them."""
    return MappingProxyType(
        {entry_point.name: entry_point for entry_point in entry_points(group=group)}
    )


def load_entry_point(group: str, name: str) -> Any:
    """Load an entry point. Raises ``KeyError`` if no package provides it, and ``MachineError`` if
    the package cannot be imported."""
    entry_point = entry_points_by_name(group)[name]
    try:
        return entry_point.load()
    except (ImportError, AttributeError) as error:
        distribution = entry_point.dist.name if entry_point.dist else entry_point.value
        rule = f"cannot be loaded from {entry_point.value}: {error}"
        remedy = f"Install {distribution} again, or a version that fits this one of Holdfast."
        raise MachineError(f"{name} of {distribution}", rule, None, remedy) from error


MAX_NAMES_SHOWN = 10
MAX_COMPARED_CHARACTERS = (
    200  # characters of an unknown name that are compared, which takes their square
)
MIN_NAME_SIMILARITY = 0.5
MIN_PATH_SIMILARITY = 0.7
MAX_NAMES_COMPARED = 2000  # names that are compared with the one that is missing
# Bytes that a name may have on most file systems.
MAX_FILE_NAME = 255


def suggest_name(name: str, known: Sequence[str]) -> str:
    """A remedy that names the nearest known name, then the others: all of them, or of more than
    ten the ten nearest.

    >>> suggest_name("lr", ["train.epochs", "train.learning_rate"])
    "Did you mean 'train.learning_rate'? Known: train.epochs, train.learning_rate."
    """
    name = name[:MAX_COMPARED_CHARACTERS]
    ranked = sorted({*known}, key=lambda one: (-_similarity(name, one), one))
    best_match = (
        ranked[:1] if ranked and _similarity(name, ranked[0]) >= MIN_NAME_SIMILARITY else []
    )
    guess = f"Did you mean {best_match[0]!r}? " if best_match else ""
    if len(ranked) <= MAX_NAMES_SHOWN:
        return f"{guess}Known: {', '.join(sorted(known))}."
    return f"{guess}The nearest of {len(ranked)} known: {', '.join(ranked[:MAX_NAMES_SHOWN])}."


def _similarity(name: str, known: str) -> float:
    """0 … 1. A dotted key also matches by its last part, and a part of several words by their first
    letters: ``lr`` matches ``train.learning_rate``."""
    name, full_name = (
        name[:MAX_COMPARED_CHARACTERS].casefold(),
        known[:MAX_COMPARED_CHARACTERS].casefold(),
    )
    last = full_name.rpartition(".")[2]
    if "_" in last and name.rpartition(".")[2] == "".join(word[:1] for word in last.split("_")):
        return 0.9
    # The order of SequenceMatcher's arguments is that of difflib.get_close_matches.
    ratios = [difflib.SequenceMatcher(None, one, name).ratio() for one in (full_name, last)]
    # Of two keys that end alike the one that is like the whole name comes first.
    return max(ratios[0], 0.99 * ratios[1])


def folder_phrase(folder: Path) -> str:
    """A folder as a sentence names it: ``.`` becomes "the current folder", never ``in ..``."""
    return "the current folder" if folder == Path() else f"the folder {folder}"


def user_path(name: str | Path) -> Path:
    """The path, with ``~`` as the home folder; unchanged for a user without one."""
    return Path(os.path.expanduser(name))  # noqa: PTH111 - Path.expanduser raises


def short_path(path: Path) -> Path:
    """An absolute path as a person in the current folder would write it."""
    with contextlib.suppress(OSError):
        if path.is_relative_to(Path.cwd()):
            return path.relative_to(Path.cwd())
    return path


def path_exists(path: Path) -> bool:
    """Whether something exists at ``path``. Unlike ``Path.exists``, this is false for a name that
    is too long for the system and for a folder without permission."""
    try:
        return path.exists()
    except OSError:
        return False


def missing_rule(path: Path) -> str:
    """What is wrong with a path at which there is nothing."""
    return "is a link that leads to no file" if path.is_symlink() else "does not exist"


def missing_path_remedy(path: Path, folders: bool = False) -> str:
    """What to do about a missing path: name the missing folder, else the nearest file next to it
    (``folders``: or folder), else the folder that was searched."""
    parent = path.parent
    if not path_exists(parent):
        return f"The folder {parent} does not exist either."
    siblings = _names_in(parent, folders)
    close = difflib.get_close_matches(
        path.name[:MAX_FILE_NAME], sorted(siblings), n=1, cutoff=MIN_PATH_SIMILARITY
    )
    if close:
        return f"Did you mean {parent / close[0]}?"
    return f"Check the name: {folder_phrase(parent)} holds no similar name."


def _names_in(folder: Path, folders: bool) -> list[str]:
    """The first names in a folder; none if it cannot be read."""
    try:
        return [
            e.name
            for e in itertools.islice(folder.iterdir(), MAX_NAMES_COMPARED)
            if folders or e.is_file()
        ]
    except OSError:
        return []
