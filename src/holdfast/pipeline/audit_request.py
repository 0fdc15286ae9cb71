"""What a person asks to be audited, at whichever door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.data.paths import source_path
from holdfast.pipeline.folder import RECIPE
from holdfast.pipeline.request import Request
from holdfast.recipe import Recipe


@dataclass(frozen=True, slots=True)
class AuditRequest:
    """``data`` is what ``holdfast train`` takes as its source, or the folder of a run, whose rows
    are then audited; ``against`` other files. ``names`` are what the user calls files that stand
    for rows in memory. What is ``None`` was not said."""

    data: str
    against: tuple[str, ...] = ()
    text: Sequence[str] | None = None
    label: str | None = None
    group: str | None = None
    settings: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)

    def recipe(self) -> Recipe:
        """The recipe that all this says."""
        own = source_path(self.data) / RECIPE
        source = str(own) if own.is_file() else self.data
        request = Request(
            source, text=self.text, label=self.label, group=self.group, settings=self.settings
        )
        return request.recipe()

    @property
    def inputs(self) -> list[Path]:
        """The files that are read, which no output may take the place of."""
        data = self.recipe().data
        names = (self.data, data.path, data.valid, data.test, *self.against)
        return [source_path(name) for name in names if name]
