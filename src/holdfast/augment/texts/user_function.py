"""A user-defined enrichment: ``module:function`` or ``path.py:function``, (row, seed) → row.

The function receives a row and an integer seed. The row is a dict of its texts (``text``; for pairs
also ``text_pair``; for a source and its target ``text`` and ``target``; for a chat ``question`` and
``answer``) and its ``label``. All randomness must come from the seed. It returns the row in another
form with the same label. It runs in the training process, with the rights of the user.
"""

from __future__ import annotations

import copy
import functools
import importlib
import itertools
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.augment.registry import Row, TextEnrichment, enrichment
from holdfast.core.errors import RecipeError
from holdfast.core.settings import setting
from holdfast.core.user_code import import_errors, import_file, member_of

SETTING = "augment.own"
Function = Callable[[dict[str, Any], int], Mapping[str, Any]]
SEEDS = (0, 1, 2_147_483_659)


@functools.cache
def load_function(spec: str) -> Function:
    """The function at ``module:function`` or ``path.py:function``.

    Raises ``RecipeError`` if it does not exist, or its module fails on import.
    """
    place, colon, name = spec.rpartition(":")
    if not colon or not place or not name:
        raise RecipeError(
            SETTING, "is not a function", spec, "Write module:function or path.py:function."
        )
    if place.endswith(".py"):
        remedy = "A relative path starts at the recipe's folder, or at the current folder."
        module = import_file(SETTING, Path(place), remedy)
    else:
        # Like ``python -m``: search the current folder.
        if "" not in sys.path and str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))
        with import_errors(SETTING, spec):
            module = importlib.import_module(place)
    function: Function = member_of(SETTING, module, place, name, "function")
    return function


def check_function(function: Function, rows: Sequence[Row], spec: str = "the function") -> None:
    """Check the contract of an enrichment on some rows: the same row and seed give the same form,
    the given row is not changed, the label and the text names stay, texts stay texts, and the
    global random generators of NumPy and Python are neither used nor seeded.

    Raises ``RecipeError`` with the violated rule and the row.
    """
    for row, seed in itertools.product(rows, SEEDS):
        before = _process_chance()
        given = copy.deepcopy(dict(row))
        new = _called(function, given, seed, spec)
        if given != dict(row):
            raise _broken(spec, "changes the given row", row)
        if _called(function, copy.deepcopy(dict(row)), seed, spec) != new:
            raise _broken(spec, "gives another form for the same row and seed", row)
        if before != _process_chance():
            raise _broken(spec, "uses a global random generator", row)


def _process_chance() -> tuple[Any, ...]:
    return random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]


def _called(function: Function, row: dict[str, object], seed: int, spec: str) -> dict[str, Any]:
    """A form of a row, with the checks that need only one call."""
    given = dict(row)
    try:
        new = function(row, seed)
    except Exception as error:
        raise _broken(spec, f"raised {type(error).__name__}: {error}", given) from error
    if not isinstance(new, Mapping) or set(new) != set(given):
        raise _broken(spec, f"must return a row with {', '.join(given)}", given)
    if new["label"] != given["label"]:
        raise _broken(spec, "must keep the label of the row", given)
    if any(not isinstance(new[name], str) for name in new if name != "label"):
        raise _broken(spec, "must return texts", given)
    return dict(new)


def _broken(spec: str, rule: str, row: Row) -> RecipeError:
    return RecipeError(
        f"{SETTING} {spec}",
        rule,
        dict(row),
        "Write function(row, seed) -> row: return a new dict, and take all randomness from "
        "numpy.random.default_rng(seed).",
    )


@enrichment("own", "text", "depends on your function")
@dataclass(frozen=True, kw_only=True)
class Own(TextEnrichment):
    """``function`` is ``module:function`` or ``path.py:function``."""

    function: str = setting()

    def changes(self, texts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Forms of texts without labels."""
        rows = [{"text": text, "label": None} for text in texts]
        return [str(row["text"]) for row in self.forms(rows, ["text"], seeds)]

    def forms(self, rows: Sequence[Row], parts: Sequence[str], seeds: Sequence[int]) -> list[Row]:
        """The rows with the requested ``parts`` from the function; other parts stay."""
        function = load_function(self.function)
        results = (
            _called(function, dict(row), seed, self.function)
            for row, seed in zip(rows, seeds, strict=True)
        )
        return [
            {**row, **{part: new[part] for part in parts}}
            for row, new in zip(rows, results, strict=True)
        ]

    def ready(self) -> None:
        """Raise ``RecipeError`` if the function cannot be loaded."""
        load_function(self.function)
