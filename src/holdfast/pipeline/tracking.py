"""The trackers of a run, open for as long as it needs them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.pipeline.folder import CHECKPOINTS
from holdfast.training.track import MARK, Track, open_track

if TYPE_CHECKING:
    from holdfast.recipe import Recipe


@contextlib.contextmanager
def tracked(run: Path, recipe: Recipe, main_process: bool) -> Iterator[tuple[Track, ...]]:
    """The listener that ``track.to`` asks for, closed at the end, also of a run that broke; none
    where nothing is asked for, and in processes other than the main one."""
    if not recipe.track.to or not main_process:
        yield ()
        return
    track = open_track(
        recipe.track.to,
        recipe.track.project,
        recipe.track.name or run.resolve().name,
        run,
        run / CHECKPOINTS / MARK,
        recipe.shown(),
    )
    try:
        yield (track,)
    finally:
        track.close()
