"""The contract of a treatment: what it changes, in which order, and what its log can give back.

Two types, told apart by what they may look at. A ``RowTreatment`` reads one text and gives another:
it learns nothing, so that it may be used on every side, and on rows that come later. A
``TableTreatment`` compares rows with each other: it is given the rows of one side, never test rows,
and no new row is treated by what it saw.

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
class RowTreatment(Generic[S]):
    """A text in, a text out.

    Parameters
    ----------
    name : the key below ``treat`` of a recipe.
    settings : a frozen dataclass of its settings, each with a default.
    text : the text and the settings → the text; the same where nothing is to be done.
    seen : a pattern of RE2 that matches every text that may change, so that others cost nothing.
    because : what was done, as a log says it.
    order : treatments of lower order come first.
    answers : whether texts to be written by a model are treated as well, not only what is read.
    default : whether ``train`` does it without being asked.
    fixes : the checks whose finding it settles.
    hides : whether what it takes out must not be written down.
    unread : why it leaves a text alone without a look for what to change, "" where it looks; such
        texts are counted.
    """

    name: str
    settings: type[S]
    text: Callable[[str, S], str]
    seen: str
    because: str
    order: int
    answers: bool = False
    default: bool = False
    fixes: tuple[str, ...] = ()
    hides: bool = False
    unread: Callable[[str], str] | None = None


@dataclass(frozen=True, slots=True)
class RowSet:
    """The rows that a ``TableTreatment`` may look at: those of one side, or of a whole file that
    somebody cleans.

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
    """Rows in, edits out; the parameters are those of a ``RowTreatment``.

    ``trains``: whether ``train`` can do it, on its training rows alone.
    """

    name: str
    settings: type[S]
    edits: Callable[[RowSet, S], Sequence[Edit]]
    order: int
    fixes: tuple[str, ...] = ()
    trains: bool = False


Treatment = RowTreatment[Any] | TableTreatment[Any]
TREATMENTS: Registry[Treatment] = Registry("treatment", "treat")


def add(treatment: Treatment) -> None:
    """Register a treatment under its name."""
    TREATMENTS.add(treatment.name, treatment)


def settle(treatment: Treatment, given: Mapping[str, object] | bool) -> Any:
    """The settings of a treatment, as given or by default.

    Raises ``RecipeError`` for one that it does not have, or of another type.
    """
    known = {one.name: one for one in fields(treatment.settings)}
    values = {} if isinstance(given, bool) else dict(given)
    for name, value in values.items():
        where = f"treat.{treatment.name}.{name}"
        if name not in known:
            remedy = suggest_name(name, list(known)) if known else "It has none: set it to true."
            raise RecipeError(where, "is not a setting of this treatment", None, remedy)
        default = known[name].default
        assert default is not MISSING
        if isinstance(default, tuple) and isinstance(value, (list, tuple)):
            values[name] = tuple(value)
        elif type(value) is not type(default):
            wanted = "a list" if isinstance(default, tuple) else type(default).__name__
            raise RecipeError(where, f"must be of the type {wanted}", value, "See docs/recipe.md.")
    return treatment.settings(**values)
