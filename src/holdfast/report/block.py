"""An object of ``result.json``, decoded where it is read: behind it nothing is checked again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.core.records import Estimate
from holdfast.report.numbers import estimate


class Block(dict[str, Any]):
    """A value that is absent, null (as in older runs) or of another type (in a stranger's) is read
    as the empty one of the type that is asked for."""

    def block(self, *keys: str) -> Block:
        """The object at ``keys``, the second inside the first."""
        found: Any = self
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return Block(found) if isinstance(found, Mapping) else Block()

    def blocks(self, key: str) -> list[Block]:
        """The objects of a list."""
        found = self.get(key)
        return [Block(one) for one in _items(found) if isinstance(one, Mapping)]

    def table(self, *keys: str) -> dict[str, Block]:
        """The objects of an object, by their names."""
        found = self.block(*keys).items()
        return {str(key): Block(one) for key, one in found if isinstance(one, Mapping)}

    def texts(self, key: str) -> list[str]:
        """The items of a list, as texts."""
        return list(map(str, _items(self.get(key))))

    def text(self, key: str, default: str = "") -> str:
        """A text, or anything else that is written as one."""
        return str(self.get(key) or default)

    def number(self, key: str) -> float | None:
        """A number of either type."""
        found = self.get(key)
        known = isinstance(found, (int, float)) and not isinstance(found, bool)
        return found if known else None

    def whole(self, key: str) -> int | None:
        """A whole number."""
        found = self.get(key)
        return found if isinstance(found, int) else None

    def estimate(self, key: str) -> Estimate:
        """An estimate, or a bare number; where there is none it says why."""
        return estimate(self.get(key))


def _items(found: object) -> list[Any] | tuple[Any, ...]:
    return found if isinstance(found, (list, tuple)) else ()
