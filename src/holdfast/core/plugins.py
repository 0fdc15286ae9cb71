"""What other packages bring, found by entry points and imported when it is asked for.

Groups: ``holdfast.commands`` (a command's name → its ``Entry``), ``holdfast.functions`` (a public
function's name → the function) and ``holdfast.hooks`` (what the core asks a plug-in for).
Holdfast's own plug-ins register in the same way as anybody's.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any

from holdfast.core.errors import MachineError


class Entry:
    """A command: the ``module`` whose ``command`` it is, its line in the list, and what may be
    typed."""

    def __init__(self, module: str, short: str, *examples: str) -> None:
        self.module, self.short, self.examples = module, short, examples


@functools.cache
def names(group: str) -> Mapping[str, EntryPoint]:
    """The entry points of a group by their names; nothing of them is imported."""
    return MappingProxyType({found.name: found for found in entry_points(group=group)})


def load(group: str, name: str) -> Any:
    """What an entry point names. Raises ``KeyError`` where nobody brings it, and ``MachineError``
    where whoever does cannot be imported."""
    found = names(group)[name]
    try:
        return found.load()
    except (ImportError, AttributeError) as error:
        by = found.dist.name if found.dist else found.value
        raise MachineError(
            f"{name} of {by}",
            f"cannot be loaded from {found.value}: {error}",
            None,
            f"Install {by} again, or a version that fits this one of Holdfast.",
        ) from error
