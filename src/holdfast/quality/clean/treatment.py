"""The contract of a treatment: what it changes, in which order, and what its log can give back.

Two types, by what they may read. A ``TextTreatment`` turns one text into another and learns
nothing, so that it may be used on every split, and on rows that come later. A ``TableTreatment``
compares rows with each other: it is given the rows of one split, never test rows, and no new row is
cleaned by what it read.

Whoever names treatments in whatever order gets the same rows: they are applied by their ``order``,
the row treatments again and again until a text no longer changes. Hence treating what was treated
changes nothing.
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
    """Of a treatment that has none."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one row, as a line of the log holds it.

    ``row`` of the source; ``column`` whose cell was ``before`` and is ``after``, or ``None`` where
    the whole row (``before``, its cells) was left out. With ``reversible`` false both are ``None``:
    what was there is not written anywhere.
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
    """A text in, a text out.

    Parameters
    ----------
    name : the key below ``treat`` of a recipe.
    settings : a frozen dataclass of its settings, each with a default.
    text : the text and the settings → the text; the same where nothing is to be done.
    pattern : a pattern of RE2 that matches every text that may change, so that others cost nothing.
    because : what was done, as a log says it.
    order : treatments of lower order come first.
    answers : whether texts to be written by a model are cleaned as well, not only inputs.
    default : whether ``train`` does it by default.
    fixes : the checks whose finding it resolves.
    hides : whether what it takes out must not be written down.
    skip_reason : why it skips a text without reading it, "" where it reads it; skipped texts are
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

    ``rows`` [n] are those of the source; ``columns`` every cell as written, [n] each, ``None``
    where one is missing; ``text`` the columns that are read, ``label`` that of the labels.
    """

    rows: Sequence[int]
    columns: Mapping[str, Sequence[str | None]]
    text: tuple[str, ...]
    label: str | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def record(self, position: int) -> dict[str, str | None]:
        """Every cell of a row."""
        return {name: cells[position] for name, cells in self.columns.items()}

    def texts(self) -> list[tuple[str, ...]]:
        """The texts of each row, empty where one is missing."""
        return [
            tuple(cell or "" for cell in cells)
            for cells in zip(*(self.columns[name] for name in self.text), strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Edit:
    """What a ``TableTreatment`` wants done: the cell of ``column`` at ``position`` becomes
    ``after``, or, where ``column`` is ``None``, the row is left out."""

    position: int
    column: str | None
    after: str | None
    because: str


@dataclass(frozen=True, slots=True)
class TableTreatment(Generic[S]):
    """Rows in, edits out; the parameters are those of a ``TextTreatment``.

    ``trains``: whether ``train`` can do it, on its training rows alone.
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
    """Register a treatment under its name."""
    TREATMENTS.add(treatment.name, treatment)


def parse_settings(treatment: Treatment, settings: Mapping[str, object] | bool) -> Any:
    """The settings of a treatment, as given or by default.

    Raises ``RecipeError`` for one that it does not have, or of another type.
    """
    settings_fields = {one.name: one for one in fields(treatment.settings)}
    values = {} if isinstance(settings, bool) else dict(settings)
    for name, value in values.items():
        where = f"treat.{treatment.name}.{name}"
        if name not in settings_fields:
            remedy = (
                suggest_name(name, list(settings_fields))
                if settings_fields
                else "It has none: set it to true."
            )
            raise RecipeError(where, "is not a setting of this treatment", None, remedy)
        default = settings_fields[name].default
        assert default is not MISSING
        if isinstance(default, tuple) and isinstance(value, (list, tuple)):
            values[name] = tuple(value)
        elif type(value) is not type(default):
            expected = "a list" if isinstance(default, tuple) else type(default).__name__
            raise RecipeError(
                where, f"must be of the type {expected}", value, "See docs/recipe.md."
            )
    return treatment.settings(**values)
