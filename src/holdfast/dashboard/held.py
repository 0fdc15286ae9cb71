"""What the pages of a dashboard share: its runs, its store, and what is kept between requests."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.core.run_files import EVENTS, RESULT
from holdfast.dashboard.access import Access
from holdfast.dashboard.one_run import Whole, whole_run
from holdfast.dashboard.runs import Runs
from holdfast.dashboard.trying import Tried, Trier

if TYPE_CHECKING:
    from holdfast.service.labelling import Labelling
    from holdfast.store.store import Store

# Whole runs that are kept, and rows that were tried.
MOST_KEPT, MOST_TRIED = 8, 200


@dataclass(frozen=True, slots=True)
class Asked:
    """A row that was tried, and what the run at ``path`` said of it."""

    path: Path
    row: Mapping[str, Any]
    tried: Tried


@dataclass
class Dashboard:
    """What the pages are made of: the ``runs``, who may come in, the ``store`` where there is
    one, whether it is being stopped (``closing``), and what is kept between requests."""

    runs: Runs
    access: Access
    store: Store | None = None
    trier: Trier = field(default_factory=Trier)
    clock: Callable[[], float] = time.time
    closing: Callable[[], bool] = lambda: False
    streams: int = 0
    tried: OrderedDict[str, Asked] = field(default_factory=OrderedDict)
    kept: OrderedDict[tuple[Any, ...], Whole] = field(default_factory=OrderedDict)

    def whole(self, path: Path) -> Whole:
        """A finished run, read once for all of its tabs."""
        marks = tuple((path / name).stat().st_mtime_ns for name in (RESULT, EVENTS))
        key = (path, *marks)
        if key not in self.kept:
            self.kept[key] = whole_run(path)
            while len(self.kept) > MOST_KEPT:
                self.kept.popitem(last=False)
        return self.kept[key]

    def remember(self, path: Path, row: Mapping[str, Any], tried: Tried) -> str:
        """Keep a row that was tried until somebody says what is right for it; its name."""
        name = secrets.token_urlsafe(12)
        self.tried[name] = Asked(path, row, tried)
        while len(self.tried) > MOST_TRIED:
            self.tried.popitem(last=False)
        return name

    @cached_property
    def labelling(self) -> Labelling:
        """The queue of the store to label."""
        from holdfast.service.labelling import Labelling

        assert self.store is not None
        return Labelling(self.store, clock=self.clock)
