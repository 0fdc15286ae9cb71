"""The contract of a cleaning step: what it changes, in which order, and what its log can restore.

There are two types, by what they may read. A ``TextTreatment`` turns one text into another and
learns nothing, so it may be used on every split and on later rows. A ``TableTreatment`` compares
rows with each other: it reads the rows of one split, never test rows, and what it read is not used
to clean new rows.

The order in which a recipe names the steps does not matter: they are applied by their ``order``,
and the text steps repeat until a text no longer changes. Hence cleaning cleaned rows changes
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, Generic, TypeVar

from holdfast.core.discovery import Registry, suggest_name
from holdfast.core.errors import RecipeError

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class NoSettings:
    """The settings of a step that has none."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one row, as in a line of the log.

    ``row`` of the source; ``column`` whose cell was ``before`` and is ``after``. If ``column`` is
    ``None``, the row was removed and ``before`` holds its cells. If ``reversible`` is false,
    ``before`` and ``after`` are ``None``: the removed value is not logged.
    """

    row: int
    treatment: str
    column: str | None
    before: str | Mapping[str, str | None] | None
    after: str | None
    because: str
    reversible: bool = True


@dataclass(frozen=True, slots=True)
class TextTreatment(Generic[S]):
    """A cleaning step that turns one text into another.

    Parameters
    ----------
    name : the key under ``treat`` in a recipe.
    settings : a frozen dataclass of its settings, each with a default.
    text : the text and the settings → the new text; the same text if nothing changes.
    pattern : an RE2 pattern that matches every text that may change, so that other texts cost
        nothing.
    because : the reason for the change, as written to the log.
    order : steps of lower order come first.
    answers : whether target texts are cleaned as well, not only inputs.
    default : whether ``train`` applies it by default.
    fixes : the checks whose finding it resolves.
    hides : whether the removed values must not be logged.
    skip_reason : why it skips a text without reading it, "" if it reads it; skipped texts are
        counted.
    """

    name: str
    settings: type[S]
    text: Callable[[str, S], str]
    pattern: str
    because: str
    order: int
    answers: bool = False
    default: bool = False
    fixes: tuple[str, ...] = ()
    hides: bool = False
    skip_reason: Callable[[str], str] | None = None


@dataclass(frozen=True, slots=True)
class RowSet:
    """The rows that a ``TableTreatment`` may read: those of one split, or of a file.

    ``rows`` [n] are row numbers of the source; ``columns`` every cell as written, [n] each,
    ``None`` if it is missing; ``text`` the text columns, ``label`` the label column, ``targets``
    the columns of the texts to be generated. A row needs all its texts, or with ``any_text`` one
    of them (an instruction without an input).
    """

    rows: Sequence[int]
    columns: Mapping[str, Sequence[str | None]]
    text: tuple[str, ...]
    label: str | None = None
    targets: tuple[str, ...] = ()
    any_text: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def record(self, position: int) -> dict[str, str | None]:
        """Every cell of a row."""
        return {name: cells[position] for name, cells in self.columns.items()}

    def texts(self) -> list[tuple[str, ...]]:
        """The texts of each row; a missing text is empty."""
        return [
            tuple(cell or "" for cell in cells)
            for cells in zip(*(self.columns[name] for name in self.text), strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Edit:
    """An edit by a ``TableTreatment``: the cell of ``column`` at ``position`` becomes ``after``,
    or, if ``column`` is ``None``, the row is removed."""

    position: int
    column: str | None
    after: str | None
    because: str


@dataclass(frozen=True, slots=True)
class TableTreatment(Generic[S]):
    """A cleaning step that turns rows into edits; the parameters are those of a ``TextTreatment``.

    ``trains``: whether ``train`` can apply it, on its training rows only.
    """

    name: str
    settings: type[S]
    edits: Callable[[RowSet, S], Sequence[Edit]]
    order: int
    fixes: tuple[str, ...] = ()
    trains: bool = False


Treatment = TextTreatment[Any] | TableTreatment[Any]
TREATMENTS: Registry[Treatment] = Registry("treatment", "treat")


def add_treatment(treatment: Treatment) -> None:
    """Register a cleaning step under its name."""
    TREATMENTS.add(treatment.name, treatment)


def parse_settings(treatment: Treatment, settings: Mapping[str, object] | bool) -> Any:
    """The settings of a cleaning step, as given or by default.

    Raises ``RecipeError`` for an unknown setting or one of the wrong type.
    """
    settings_fields = {one.name: one for one in fields(treatment.settings)}
    values = {} if isinstance(settings, bool) else dict(settings)
    for name, value in values.items():
        where = f"clean.{treatment.name}.{name}"
        if name not in settings_fields:
            remedy = (
                suggest_name(name, list(settings_fields))
                if settings_fields
                else f"The step has no settings: write clean.{treatment.name}: true."
            )
            raise RecipeError(where, "is not a setting of this cleaning step", None, remedy)
        default = settings_fields[name].default
        assert default is not MISSING
        if isinstance(default, tuple) and isinstance(value, (list, tuple)):
            values[name] = tuple(value)
        elif type(value) is not type(default):
            expected = "a list" if isinstance(default, tuple) else type(default).__name__
            remedy = f"Change it, or remove it to use its default, {default!r}."
            raise RecipeError(where, f"must be of the type {expected}", value, remedy)
    return treatment.settings(**values)
