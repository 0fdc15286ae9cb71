"""A user's own metric: ``path.py:function``.

The function takes ``(labels, predictions, probabilities)``: class indices [n] (positions in the
sorted classes), predicted class indices [n], probabilities [n, classes] float64; it returns a
number. It declares which direction is better by an attribute ``higher_is_better`` or by the suffix
``:higher`` or ``:lower``; it may have the attributes ``low`` and ``high``, its bounds. What it
cannot compute (NaN, or an exception on a resample with only one class) counts as undefined.

For a generative task it takes ``(references, texts, sources)``, three lists of strings [n].
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from pathlib import Path
from typing import SupportsFloat

from holdfast.core.errors import RecipeError
from holdfast.core.records import Outputs
from holdfast.core.user_code import import_file, member_of
from holdfast.metrics.classes import METRICS, Metric
from holdfast.metrics.texts import TEXT_METRICS, TextMetric, Texts

SETTING = "train.metric"
DIRECTIONS = {"higher": True, "lower": False}
Function = Callable[..., SupportsFloat | None]


def find_metric(name: str) -> Metric:
    """The metric of that name, or the user's function for a name like ``path.py:function``.

    Raises ``RecipeError`` for an unknown name, a file or function that cannot be loaded, and a
    function that does not declare which direction is better.
    """
    if ".py:" not in name:
        return METRICS[name]
    function, shown, higher, low, high, undefined = _loaded(name)

    def compute(outputs: Outputs, classes: tuple[str, ...]) -> float | None:
        arguments = (outputs.labels, outputs.predictions, outputs.probabilities)
        takes = "labels [n], predictions [n] and probabilities [n, classes]"
        return _called(function, arguments, name, takes)

    return Metric(shown, higher, low, high, compute, undefined)


def find_text_metric(name: str) -> TextMetric:
    """``find_metric`` for a generative task."""
    if ".py:" not in name:
        return TEXT_METRICS[name]
    function, shown, higher, low, high, undefined = _loaded(name)

    def of_all(texts: Texts) -> float | None:
        arguments = (list(texts.references), list(texts.texts), list(texts.sources))
        return _called(function, arguments, name, "references, texts and sources, lists of strings")

    return TextMetric(shown, higher, low, high, of_all=of_all, undefined=undefined)


def _loaded(spec: str) -> tuple[Function, str, bool, float, float, str]:
    """The function of ``path.py:function`` or ``path.py:function:lower``, its name, whether higher
    is better, its bounds, and the reason if it is undefined."""
    place, _, rest = spec.rpartition(".py:")
    name, _, direction = rest.partition(":")
    path = Path(place + ".py")
    remedy = "Give the metric as path.py:function; a relative path starts in the current folder."
    module = import_file(SETTING, path, remedy)
    function = member_of(SETTING, module, path.name, name, "function")
    higher = _direction(function, direction, spec)
    low, high = getattr(function, "low", -math.inf), getattr(function, "high", math.inf)
    undefined = f"the function {name} gave no finite number"
    return function, name, higher, float(low), float(high), undefined


def _direction(function: Function, suffix: str, spec: str) -> bool:
    if suffix in DIRECTIONS:
        return DIRECTIONS[suffix]
    given = getattr(function, "higher_is_better", None)
    if suffix or not isinstance(given, bool):
        remedy = (
            f"Append :higher or :lower, or set {spec.split(':')[1]}.higher_is_better = True or"
            " False below the function."
        )
        raise RecipeError(SETTING, "does not say whether higher is better", spec, remedy)
    return given


def _called(
    function: Function, arguments: tuple[object, ...], spec: str, takes: str
) -> float | None:
    """The result of the user's function for these arguments, which ``takes`` describes."""
    try:
        value = function(*arguments)
    except Exception as error:
        rule = f"failed with {type(error).__name__}: {error}"
        raise RecipeError(SETTING, rule, spec, f"Its arguments are {takes}.") from error
    if value is None:
        return None
    # A tensor or an array with a single number is accepted too.
    if not isinstance(value, numbers.Real) and getattr(value, "shape", None) != ():
        raise RecipeError(SETTING, "must return one number", value, f"See {spec}.")
    return float(value)
