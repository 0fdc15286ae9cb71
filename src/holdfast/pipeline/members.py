"""The models of several runs that answer together: in memory all at once where that is little, else
one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Generic, TypeVar, overload

from holdfast.core.machine import MB
from holdfast.core.records import Decision
from holdfast.pipeline.available import available_mb
from holdfast.pipeline.folder import MODEL

T = TypeVar("T")
# Of the memory that is there: beyond it models are loaded in turn.
SHARE = 0.5


class InTurn(Sequence[T], Generic[T]):
    """Models that are loaded when they are asked for; the last one asked for is held."""

    def __init__(self, runs: Sequence[Path], load: Callable[[Path], T]) -> None:
        self._runs = tuple(runs)
        self._load = load
        self._held: tuple[int, T] | None = None

    def __len__(self) -> int:
        return len(self._runs)

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...

    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return InTurn(self._runs[index], self._load)
        place = range(len(self))[index]
        if self._held is None or self._held[0] != place:
            # Let go of first, so that two are never held.
            self._held = None
            self._held = (place, self._load(self._runs[place]))
        return self._held[1]

    def __iter__(self) -> Iterator[T]:
        return (self[place] for place in range(len(self)))


def members(runs: Sequence[Path], load: Callable[[Path], T]) -> Sequence[T]:
    """The models of these runs, as ``load`` gives them."""
    if len(runs) > 1 and together_mb(runs) > SHARE * available_mb():
        return InTurn(runs, load)
    return [load(run) for run in runs]


def together_mb(runs: Sequence[Path]) -> float:
    """MB of the files of all their models."""
    files = [path for run in runs for path in (run / MODEL).rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files) / MB


def in_turn(models: object, runs: Sequence[Path]) -> tuple[Decision, ...]:
    """That the models are loaded in turn, where they are."""
    if not isinstance(models, InTurn):
        return ()
    because = f"{len(runs)} models of {together_mb(runs):,.0f} MB are more than half of the memory"
    return (Decision("models", "one at a time", because),)
