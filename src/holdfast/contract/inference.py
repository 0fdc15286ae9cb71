"""Predictions of a trained model: one frozen record for each type of prediction, and the protocols
of predictors.

Each record has ``predictions``, ``confidence`` and ``probabilities`` (see ``TaskPredictions``), and
what scoring needs beyond them. The protocols say what a task must define so that its finished runs
can be used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from holdfast.contract.run_folder import DATA_KEYS, RECIPE
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

# Significant digits of a float32 number.
NUMBER_DIGITS = 7


@dataclass(frozen=True, slots=True)
class ClassPredictions:
    """One class a row. ``probabilities`` [n, classes]; ``outputs`` are the logits behind them, with
    the losses of the rows whose label is known.
    """

    names: tuple[str, ...]
    probabilities: Floats
    outputs: Outputs

    @property
    def predictions(self) -> list[str]:
        """The most probable class, the first one on a tie."""
        return [self.names[int(k)] for k in self.probabilities.argmax(axis=1)]

    @property
    def confidence(self) -> list[float | None]:
        """The predicted probability of the predicted class."""
        best = self.probabilities.argmax(axis=1)
        probabilities: list[float | None] = self.probabilities[np.arange(len(best)), best].tolist()
        return probabilities


@dataclass(frozen=True, slots=True)
class LabelSetPredictions:
    """Several labels a row, each with its own yes or no. ``probabilities`` [n, labels]; ``raw`` the
    logits that are scored.
    """

    names: tuple[str, ...]
    probabilities: Floats
    raw: Floats

    @property
    def predictions(self) -> list[list[str]]:
        """The labels with a probability above 0.5."""
        return label_names(self.probabilities > 0.5, self.names)

    @property
    def confidence(self) -> list[float | None]:
        """The lowest confidence among a row's yes and no predictions."""
        least = np.maximum(self.probabilities, 1 - self.probabilities).min(axis=1)
        probabilities: list[float | None] = least.tolist()
        return probabilities


@dataclass(frozen=True, slots=True)
class NumberPredictions:
    """A number a row [n, 1], in the user's unit; it has no confidence."""

    raw: Floats

    @property
    def predictions(self) -> list[float]:
        """Each number, rounded to the precision of a float32 model."""
        return [float(format_number(value)) for value in self.raw[:, 0]]

    @property
    def confidence(self) -> list[float | None]:
        return [None] * len(self.raw)

    @property
    def probabilities(self) -> None:
        return None


@dataclass(frozen=True, slots=True)
class TextPredictions:
    """A text a row.

    ``sure`` [n] is the geometric mean of the probabilities of its tokens, NaN for an empty text;
    ``cut`` [n] is whether generation stopped at the maximum number of tokens before the text's end.
    """

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
    """How rows for inference are read and texts generated.

    Columns, where the file names them differently; the encoding, where the bytes do not show it;
    and settings below ``data.limits`` other than the run's. For a generative model: ``max_tokens``
    of a text, where not the run's, and the ``temperature`` above 0 at which tokens are sampled with
    ``seed``.
    """

    text: tuple[str, ...] | None = None
    label: str | None = None
    encoding: str | None = None
    limits: tuple[str, ...] = ()
    max_tokens: int | None = None
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class PredictionRequest:
    """Rows to predict: ``raw`` all as the source has them, ``table`` those that the model can read
    (``row`` says which). ``because`` gives the reason for an unreadable row, unless it only lacks a
    text.
    """

    raw: Raw
    table: Table
    because: Mapping[int, str] = field(default_factory=dict)
    decisions: tuple[Decision, ...] = ()


class TaskPredictions(Protocol):
    """A model's predictions for some rows, in their order; each type of prediction is a frozen
    record in this module.

    ``predictions`` [n] are classes, texts, numbers or lists; ``confidence`` [n] in [0, 1], ``None``
    where the model has none; ``probabilities`` [n, names], ``None`` where there are none.
    """

    @property
    def predictions(self) -> Sequence[object]: ...

    @property
    def confidence(self) -> Sequence[float | None]: ...

    @property
    def probabilities(self) -> Floats | None: ...


@dataclass(frozen=True, slots=True)
class LabelledRequest:
    """Labelled rows, read with a model's own classes and columns, and the decisions about them."""

    table: Table
    decisions: tuple[Decision, ...] = ()


class Scorer(Protocol):
    """The score of all labelled rows of a request, or of those at ``positions``."""

    def __call__(self, positions: Ints | None = None) -> Scores: ...


class TaskPredictor(Protocol):
    """What a task defines so that its trained models can be used: one, or the average of several.

    ``prediction_type`` is the type of a prediction, ``names`` the names of its probabilities (empty
    where there are none). ``runs.predictor.Predictor`` calls it.
    """

    @property
    def prediction_type(self) -> PredictionType: ...

    @property
    def names(self) -> tuple[str, ...]: ...

    def read_rows(self, data: Data, options: InferenceOptions) -> PredictionRequest:
        """Read the rows of a file or a list, without labels."""

    def read_labelled_rows(self, data: str, options: InferenceOptions) -> LabelledRequest:
        """Read the labelled rows of a file."""

    def predict(self, table: Table) -> TaskPredictions:
        """Predict these rows, in their order."""

    def scorer(self, table: Table) -> Scorer:
        """Predict these labelled rows, and return the function that scores the predictions."""


@runtime_checkable
class GenerativePredictor(Protocol):
    """A predictor that generates texts."""

    def with_generation(self, max_tokens: int | None, temperature: float) -> TaskPredictor:
        """The same predictor with at most ``max_tokens`` tokens a text (``None``: as the run),
        sampled above ``temperature`` 0.
        """


def check_limits(
    settings: Sequence[str], command: str = "using a run", others: str = ""
) -> tuple[str, ...]:
    """Settings for reading other rows: those below ``data.limits``.

    Raises ``RecipeError`` for any other; ``others`` are further options of the command ``command``.
    """
    for setting in settings:
        if not setting.strip().startswith(LIMITS):
            remedy = f"Use {others}{LIMITS}KEY=VALUE; all other settings belong to the run."
            raise RecipeError("--set", f"names a key that {command} does not have", setting, remedy)
    return tuple(settings)


def within_limits(part: DataPart, settings: Sequence[str] = ()) -> AbstractContextManager[None]:
    """Read within the recipe's limits, or within ``data.limits.KEY=VALUE`` settings, since a
    finished run's recipe cannot be edited.
    """
    limits = override(Recipe(data=DataPart(limits=part.limits)), settings).data.limits
    return use_limits(Limits(**limits.model_dump()))


def run_recipe(run: Path) -> Recipe:
    """The recipe of a run. Rows that the run stored itself (``data.parquet``) are read from its
    folder, wherever that was moved to; other data stays where the recipe says."""
    recipe = read_recipe(run / RECIPE)
    stored = {key: (run / f"{name}.parquet").resolve() for name, key in DATA_KEYS.items()}
    given = {key: Path(getattr(recipe.data, key) or "").name for key in stored}
    own = {k: str(path) for k, path in stored.items() if given[k] == path.name and path.is_file()}
    return recipe.with_changes(data=own) if own else recipe


def data_part(run: Path) -> DataPart:
    """The data part of the run's recipe."""
    return run_recipe(run).data


def encoding_for(
    part: DataPart, data: str, options: InferenceOptions
) -> tuple[str | None, tuple[Decision, ...]]:
    """The encoding in which a file is read.

    The requested one; else UTF-8 where the bytes are valid UTF-8; else that of the run's own data,
    with a decision that says so. ``None`` leaves it to the reader.
    """
    path = source_path(data)
    if options.encoding or not part.encoding or not path.is_file():
        return options.encoding, ()
    if path.name.lower().removesuffix(".gz").endswith(NOT_TEXT) or _is_utf8(path):
        return None, ()
    because = f"{path.name} is not UTF-8, and the run's own data has the encoding {part.encoding}"
    return part.encoding, (Decision("encoding", part.encoding, because),)


def _is_utf8(path: Path) -> bool:
    import codecs

    from holdfast.data.readers.text import open_bytes

    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with open_bytes(path) as stream:
            while block := stream.read(_BLOCK):
                # UTF-16 text may be valid UTF-8, except for a NUL next to every letter.
                if "\0" in decoder.decode(block):
                    return False
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def read_prediction_rows(
    part: DataPart, data: Data, options: InferenceOptions, column: str | None = None
) -> tuple[Raw, tuple[Decision, ...]]:
    """Every value of a file, or of a list under the names of the run's columns (``column``: where
    its recipe does not name them).
    """
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
    """The label column: the requested one, else the run's."""
    return options.label or part.label


def read_columns(part: DataPart) -> tuple[str, ...] | None:
    """The columns that the run's texts are made of; ``None`` for the recipe of an old run that does
    not name them.
    """
    return named_columns(part.template) if part.template else part.text


def group_for(
    part: DataPart, data: str, encoding: str | None
) -> tuple[str | None, tuple[Decision, ...]]:
    """The run's group column, where this file has it too; else none, with a decision that says
    so.
    """
    if part.group is None or part.group in read_first_batch(data, encoding, None).names:
        return part.group, ()
    because = f"column {part.group!r} is missing here, so the intervals treat rows as independent"
    return None, (Decision("groups", "none", because),)
