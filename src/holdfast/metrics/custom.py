"""A user's own metric: ``path.py:function``.

The function takes ``(labels, predictions, probabilities)``: class indices [n] (positions in the
sorted classes), predicted class indices [n], probabilities [n, classes] float64; it returns a
number. It says which way is better by an attribute ``higher_is_better`` or by the suffix
``:higher`` or ``:lower``; it may carry ``low`` and ``high``, its bounds. What it cannot compute
(NaN, or an exception on a resample with one class only) counts as undefined.

Of a task that writes texts it takes ``(references, texts, sources)``, three lists of strings [n].
"""

from __future__ import annotations

import importlib.util
import math
import numbers
from collections.abc import Callable
from pathlib import Path
from typing import Any, SupportsFloat

from holdfast.core.errors import RecipeError
from holdfast.core.records import Outputs
from holdfast.metrics.base import METRICS, Metric
from holdfast.metrics.texts import TEXT_METRICS, TextMetric, Texts

SETTING = "train.metric"
DIRECTIONS = {"higher": True, "lower": False}


def find_metric(name: str) -> Metric:
    """The metric of that name, or the user's function where the name is ``path.py:function``.

    Raises ``RecipeError`` for an unknown name, a file or function that cannot be loaded, and a
    function that does not say which way is better.
    """
    return load_metric(name) if ".py:" in name else METRICS[name]


def find_text_metric(name: str) -> TextMetric:
    """As ``find_metric``, for a task that writes texts."""
    return load_text_metric(name) if ".py:" in name else TEXT_METRICS[name]


def load_metric(spec: str) -> Metric:
    """A metric from ``path.py:function`` or ``path.py:function:lower``."""
    name, function, higher = _named(spec)
    undefined = f"the function {name} gave no finite number"
    return Metric(name, higher, *_bounds(function), _wrap(function, spec), undefined)


def load_text_metric(spec: str) -> TextMetric:
    """A metric of texts from ``path.py:function`` or ``path.py:function:lower``."""
    name, function, higher = _named(spec)
    undefined = f"the function {name} gave no finite number"

    def of_all(made: Texts) -> float | None:
        arguments = (list(made.references), list(made.texts), list(made.sources))
        return _called(function, arguments, spec, "references, texts and sources, lists of strings")

    return TextMetric(name, higher, *_bounds(function), of_all=of_all, undefined=undefined)


def _named(spec: str) -> tuple[str, Callable[..., Any], bool]:
    """The name of a function, the function, and whether more of it is better."""
    path, _, rest = spec.rpartition(".py:")
    name, _, direction = rest.partition(":")
    function = _load_function(Path(path + ".py"), name, spec)
    return name, function, _direction(function, direction, spec)


def _bounds(function: Callable[..., SupportsFloat | None]) -> tuple[float, float]:
    low, high = getattr(function, "low", -math.inf), getattr(function, "high", math.inf)
    return float(low), float(high)


def _load_function(path: Path, name: str, spec: str) -> Callable[..., Any]:
    if not path.is_file():
        raise RecipeError(
            SETTING,
            "names a file that is not there",
            str(path),
            "Give the metric as path.py:function; a relative path starts at the current folder.",
        )
    module = _import(path, spec)
    function = getattr(module, name, None)
    if not callable(function):
        known = sorted(
            key for key, thing in vars(module).items() if callable(thing) and key[0] != "_"
        )
        raise RecipeError(
            SETTING,
            f"names a function that {path.name} does not define",
            name,
            f"It defines: {', '.join(known) or 'none'}.",
        )
    return function  # type: ignore[no-any-return]


def _import(path: Path, spec: str) -> Any:
    # Under a name of its own and not in ``sys.modules``: a user's file may be called like a
    # library.
    found = importlib.util.spec_from_file_location(f"holdfast_metric_{path.stem}", path)
    if found is None or found.loader is None:
        raise RecipeError(SETTING, "names a file that Python cannot import", spec)
    module = importlib.util.module_from_spec(found)
    try:
        found.loader.exec_module(module)
    except Exception as error:
        raise RecipeError(
            SETTING,
            f"names a file that fails on import with {type(error).__name__}: {error}",
            str(path),
            "Run it with python alone to see the line.",
        ) from error
    return module


def _direction(function: Callable[..., SupportsFloat | None], suffix: str, spec: str) -> bool:
    if suffix in DIRECTIONS:
        return DIRECTIONS[suffix]
    given = getattr(function, "higher_is_better", None)
    if suffix or not isinstance(given, bool):
        raise RecipeError(
            SETTING,
            "does not say whether higher is better",
            spec,
            f"Append :higher or :lower, or set {spec.split(':')[1]}.higher_is_better = True or"
            " False below the function.",
        )
    return given


def _wrap(function: Callable[..., SupportsFloat | None], spec: str) -> Callable[..., float | None]:
    def compute(outputs: Outputs, classes: tuple[str, ...]) -> float | None:
        arguments = (outputs.labels, outputs.predictions, outputs.probabilities)
        takes = "labels [n], predictions [n] and probabilities [n, classes]"
        return _called(function, arguments, spec, takes)

    return compute


def _called(
    function: Callable[..., SupportsFloat | None],
    arguments: tuple[object, ...],
    spec: str,
    takes: str,
) -> float | None:
    """What the user's function says of these arguments, which ``takes`` describes."""
    try:
        value = function(*arguments)
    except Exception as error:
        raise RecipeError(
            SETTING,
            f"failed with {type(error).__name__}: {error}",
            spec,
            f"It is called with {takes}.",
        ) from error
    if value is None:
        return None
    # A tensor's or an array's single number is one too.
    if not isinstance(value, numbers.Real) and getattr(value, "shape", None) != ():
        raise RecipeError(SETTING, "must return one number", value, f"See {spec}.")
    return float(value)
