"""What a trained model says of some rows: one frozen record a kind of answer.

Each has ``predictions``, ``confidence`` and ``probabilities`` (see ``using.Answers``), and what
scoring needs beyond them.

What a task must define so that its finished runs can be used: records and protocols.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from holdfast.contract.run_folder import RECIPE
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Floats, Ints, Outputs, Scores
from holdfast.data.columns.roles import named_columns
from holdfast.data.limits import Limits, use_limits
from holdfast.data.load import rename_columns
from holdfast.data.memory.texts import raw_of_texts
from holdfast.data.raw import Raw, source_path
from holdfast.data.source import read_first_batch, read_source
from holdfast.data.table import Table
from holdfast.recipe import DataPart, Recipe, override, read_recipe

# What a float32 model can tell of a number.
NUMBER_DIGITS = 7


@dataclass(frozen=True, slots=True)
class ClassPredictions:
    """One class a row. ``probabilities`` [n, classes]; ``outputs`` are the logits that they come
    from, with the losses of the rows whose label is known."""

    names: tuple[str, ...]
    probabilities: Floats
    outputs: Outputs

    @property
    def predictions(self) -> list[str]:
        """The most probable class, the first of several that are."""
        return [self.names[int(k)] for k in self.probabilities.argmax(axis=1)]

    @property
    def confidence(self) -> list[float | None]:
        """Its probability."""
        best = self.probabilities.argmax(axis=1)
        probabilities: list[float | None] = self.probabilities[np.arange(len(best)), best].tolist()
        return probabilities


@dataclass(frozen=True, slots=True)
class LabelSetPredictions:
    """Several labels a row, each its own yes or no. ``probabilities`` [n, labels]; ``raw`` the
    logits that are scored."""

    names: tuple[str, ...]
    probabilities: Floats
    raw: Floats

    @property
    def predictions(self) -> list[list[str]]:
        """The labels above one half."""
        return label_names(self.probabilities > 0.5, self.names)

    @property
    def confidence(self) -> list[float | None]:
        """The probability of the least certain yes or no of a row."""
        least = np.maximum(self.probabilities, 1 - self.probabilities).min(axis=1)
        probabilities: list[float | None] = least.tolist()
        return probabilities


@dataclass(frozen=True, slots=True)
class NumberPredictions:
    """A number a row [n, 1], in the user's unit; it has no confidence."""

    raw: Floats

    @property
    def predictions(self) -> list[float]:
        """Each as far as a float32 model can tell it."""
        return [float(format_number(value)) for value in self.raw[:, 0]]

    @property
    def confidence(self) -> list[float | None]:
        return [None] * len(self.raw)

    @property
    def probabilities(self) -> None:
        return None


@dataclass(frozen=True, slots=True)
class TextPredictions:
    """A text a row; ``sure`` [n] is the geometric mean of the probabilities of its tokens, NaN for
    an empty text; ``cut`` [n], whether it was stopped at the most tokens before it had ended."""

    predictions: Sequence[str]
    sure: Floats
    cut: npt.NDArray[np.bool_]

    @property
    def confidence(self) -> list[float | None]:
        return [float(p) if p == p else None for p in self.sure]

    @property
    def probabilities(self) -> None:
        return None


def label_names(mask: npt.NDArray[np.bool_], names: Sequence[str]) -> list[list[str]]:
    """The names of the labels of each row."""
    return [[names[int(i)] for i in np.flatnonzero(row)] for row in mask]


def format_number(value: float, digits: int = NUMBER_DIGITS) -> str:
    """A number in that many significant digits."""
    return f"{float(value):.{digits}g}"


Data = str | Sequence[object]
PredictionType = Literal["text", "number", "list"]

LIMITS = "data.limits."
NOT_TEXT = (".parquet", ".xlsx")

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class InferenceOptions:
    """How other rows than those of the training are read: their columns, where they are called
    otherwise, their encoding, where it is not to be told from the bytes, and settings below
    ``data.limits`` other than the run's. Of a model that writes: ``max_tokens`` of an answer, where
    not those of the run, and the ``temperature`` above 0 at which tokens are drawn, the same ones
    each time."""

    text: tuple[str, ...] | None = None
    label: str | None = None
    encoding: str | None = None
    limits: tuple[str, ...] = ()
    max_tokens: int | None = None
    temperature: float = 0.0


@dataclass(frozen=True, slots=True)
class PredictionRequest:
    """Rows to be predicted: ``raw`` all as the source writes them, ``table`` those that the model
    can read (``row`` says which), ``because`` why another cannot be, where there is more to say
    than that it has no text."""

    raw: Raw
    table: Table
    because: Mapping[int, str] = field(default_factory=dict)
    decisions: tuple[Decision, ...] = ()


class TaskPredictions(Protocol):
    """What a model says of some rows, in their order; each kind of answer is a frozen record of its
    own in ``answers.py``.

    ``predictions`` [n] are classes, texts, numbers or lists; ``confidence`` [n] in [0, 1], ``None``
    where the model cannot tell; ``probabilities`` [n, names], ``None`` where there are none.
    """

    @property
    def predictions(self) -> Sequence[object]: ...

    @property
    def confidence(self) -> Sequence[float | None]: ...

    @property
    def probabilities(self) -> Floats | None: ...


@dataclass(frozen=True, slots=True)
class LabelledRequest:
    """Labelled rows as a model's own classes and columns read them, and what was decided."""

    table: Table
    decisions: tuple[Decision, ...] = ()


class Scorer(Protocol):
    """The score of all labelled rows that a model was asked, or of those at ``positions``."""

    def __call__(self, positions: Ints | None = None) -> Scores: ...


class TaskPredictor(Protocol):
    """What a task defines so that its trained models can be used: one, or the average of several.
    ``prediction_type`` is the type of a prediction, ``names`` what there are probabilities of (none
    where it is empty). ``runs.predictor.Predictor`` is the one that calls it."""

    @property
    def prediction_type(self) -> PredictionType: ...

    @property
    def names(self) -> tuple[str, ...]: ...

    def read_rows(self, data: Data, options: InferenceOptions) -> PredictionRequest:
        """Read the rows of a file or a list, without labels."""

    def read_labelled_rows(self, data: str, options: InferenceOptions) -> LabelledRequest:
        """Read the labelled rows of a file."""

    def predict(self, table: Table) -> TaskPredictions:
        """Answer these rows, in their order."""

    def scorer(self, table: Table) -> Scorer:
        """Answer these labelled rows, and hand on what scores the answers."""


@runtime_checkable
class GenerativePredictor(Protocol):
    """A model that writes its answers."""

    def with_generation(self, max_tokens: int | None, temperature: float) -> TaskPredictor:
        """The same, whose answers have at most so many tokens (``None``: those of the run), drawn
        above ``temperature`` 0."""


def check_limits(
    settings: Sequence[str], command: str = "using a run", others: str = ""
) -> tuple[str, ...]:
    """The settings that reading other rows has: those below ``data.limits``. Raises ``RecipeError``
    for any other; ``others`` are what else the command ``command`` has."""
    for setting in settings:
        if not setting.strip().startswith(LIMITS):
            raise RecipeError(
                "--set",
                f"names a key that {command} does not have",
                setting,
                f"There is {others}{LIMITS}KEY=VALUE; all others belong to the run.",
            )
    return tuple(settings)


def within_limits(part: DataPart, settings: Sequence[str] = ()) -> AbstractContextManager[None]:
    """Read what the recipe's limits let be read, or what ``data.limits.KEY=VALUE`` settings do: a
    finished run's recipe is not there to be edited."""
    limits = override(Recipe(data=DataPart(limits=part.limits)), settings).data.limits
    return use_limits(Limits(**limits.model_dump()))


def data_part(run: Path) -> DataPart:
    """What the run's recipe says of its data."""
    return read_recipe(run / RECIPE).data


def encoding_for(
    part: DataPart, data: str, options: InferenceOptions
) -> tuple[str | None, tuple[Decision, ...]]:
    """The encoding in which a file is read: the one that is asked for; else UTF-8 where its bytes
    are; else that of the run's own data, which is said. ``None`` leaves it to the reader."""
    path = source_path(data)
    if options.encoding or not part.encoding or not path.is_file():
        return options.encoding, ()
    if path.name.lower().removesuffix(".gz").endswith(NOT_TEXT) or _is_utf8(path):
        return None, ()
    because = f"{path.name} is not UTF-8, and the run's own data were in {part.encoding}"
    return part.encoding, (Decision("encoding", part.encoding, because),)


def _is_utf8(path: Path) -> bool:
    import codecs

    from holdfast.data.readers.text import open_bytes

    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with open_bytes(path) as stream:
            while block := stream.read(_BLOCK):
                # A text in UTF-16 may be valid UTF-8, but for the NUL beside every letter.
                if "\0" in decoder.decode(block):
                    return False
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def read_prediction_rows(
    part: DataPart, data: Data, options: InferenceOptions, column: str | None = None
) -> tuple[Raw, tuple[Decision, ...]]:
    """Every value of a file, or of a list under the names of the columns that the run reads
    (``column``: where its recipe does not say)."""
    if not isinstance(data, str):
        return raw_of_texts(data, read_columns(part) or ((column,) if column else ())), ()
    encoding, decisions = encoding_for(part, data, options)
    raw = read_source(data, encoding, None)
    return raw, (*decisions, *raw.decisions)


def select_columns(raw: Raw, names: Sequence[str], options: InferenceOptions) -> Raw:
    """The columns that the run reads, under its names for them, and nothing else."""
    view = rename_columns(raw, names, options.text)
    return replace(view, table=view.table.select(list(names)))


def label_for(part: DataPart, options: InferenceOptions) -> str | None:
    """The label column: the one that is asked for, else the run's."""
    return options.label or part.label


def read_columns(part: DataPart) -> tuple[str, ...] | None:
    """The columns that the run's texts were made of; ``None`` for the recipe of an old run that
    does not say."""
    return named_columns(part.template) if part.template else part.text


def group_for(
    part: DataPart, data: str, encoding: str | None
) -> tuple[str | None, tuple[Decision, ...]]:
    """The run's column of groups, where this file has it too; else none, which is said."""
    if part.group is None or part.group in read_first_batch(data, encoding, None).names:
        return part.group, ()
    because = f"there is no column {part.group!r} here, so the intervals take every row for itself"
    return None, (Decision("groups", "none", because),)
