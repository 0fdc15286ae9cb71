"""Which settings of the judge's remedies a run could be trained with, by the checks of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

from holdfast.core.errors import InputError
from holdfast.models.adapter import home_of
from holdfast.models.adapter_targets import find_targets
from holdfast.models.base import Network
from holdfast.monitor.remedies import FIXED
from holdfast.pipeline.defaults import resolve
from holdfast.pipeline.general import methods_with_general, needs_rows
from holdfast.pipeline.kinds import kind_of
from holdfast.pipeline.names import check_names
from holdfast.pipeline.task import WRITING
from holdfast.recipe import Recipe, override


def refused_settings(recipe: Recipe, network: Network | None = None) -> tuple[str, ...]:
    """Those of the remedies' settings of fixed value that ``recipe``, which names its task, refuses
    beside its own, and those that it has already or exceeds (a weight decay of 0.3 where 0.1 is
    advised); ``network`` is its model, where that is at hand."""
    # A resolved recipe is of another type, and equals none that is read.
    plain = override(recipe, ())
    return tuple(setting for setting in FIXED if not _would_help(plain, setting, network))


def check_settings(
    recipe: Recipe, settings: Sequence[str], network: Network | None = None
) -> Recipe:
    """The recipe with more settings, which may be trained. Raises ``InputError`` where it may not,
    by the checks that training itself makes and that need neither rows nor a step."""
    changed = override(recipe, settings)
    kind = kind_of(str(recipe.task))
    check_names(changed)
    kind.refuse(changed)
    # Parameters and rows choose numbers, not what is allowed.
    resolve(changed, 10**6, 1000)
    needing = methods_with_general(changed)
    named = changed.data.general or changed.probes.forgetting.data
    if needing and named is None and changed.task != WRITING:
        raise needs_rows(needing[0])
    adapter = changed.model.adapter
    if network is not None and network.adapter is None and adapter.kind not in (None, "prompt"):
        find_targets(home_of(network), adapter.kind, adapter.targets)
    return changed


def _would_help(recipe: Recipe, setting: str, network: Network | None) -> bool:
    try:
        changed = check_settings(recipe, [setting], network)
    except InputError:
        return False
    return changed != recipe and not _exceeds(recipe, changed, setting)


def _exceeds(recipe: Recipe, changed: Recipe, setting: str) -> bool:
    """Whether the recipe does more of the same than it would with the setting. A whole number (of
    blocks, of steps) is not held against a share."""
    more = FIXED[setting]
    if more is None:
        return False
    now, advised = (_value(one, setting.partition("=")[0]) for one in (recipe, changed))
    if type(now) is not type(advised) or not isinstance(now, (int, float)):
        return False
    return bool(now > advised if more == "larger" else now < advised)


def _value(recipe: Recipe, key: str) -> Any:
    return reduce(getattr, key.split("."), recipe)
