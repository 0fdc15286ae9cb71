"""The values that travel between packages: frozen, each with one JSON form.

Objects stay in their package; these records cross. Arrays are NumPy, never tensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from holdfast.core.labels import Label
from holdfast.core.printable import brief_repr

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]

Severity = Literal["info", "warn", "error"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval of confidence ``level``.

    Where the number is undefined, ``value``, ``low`` and ``high`` are ``None`` and ``why`` gives
    the reason. ``note`` qualifies a defined number, e.g. an interval from too few rows.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    level: float = 0.95
    why: str | None = None
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        if self.value is None:
            return {"value": None, "low": None, "high": None, "why": self.why or "undefined"}
        record: dict[str, Any] = {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "level": self.level,
        }
        if self.why:
            record["why"] = self.why
        if self.note:
            record["note"] = self.note
        return record


@dataclass(frozen=True, slots=True)
class Scores:
    """The metrics of one set of rows; ``extra`` holds tables such as the confusion matrix."""

    n: int
    metrics: dict[str, Estimate]
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        metrics = {name: estimate.to_json() for name, estimate in self.metrics.items()}
        return {"n": self.n, "metrics": metrics, **to_json(self.extra)}


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem that the audit found in the data. ``score`` in [0, 1] is how bad it is; ``rows``
    are source positions (at most 100 are written); ``fixed`` says whether it was cleaned."""

    check: str
    severity: Severity
    score: float
    count: int
    rows: tuple[int, ...]
    because: str
    remedy: str
    fixed: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "check": self.check,
            "severity": self.severity,
            "score": round(float(self.score), 6),
            "count": int(self.count),
            "rows": [int(row) for row in self.rows[:100]],
            "because": self.because,
            "remedy": self.remedy,
            "fixed": self.fixed,
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """An automatic choice with its reason. It is always recorded. The terminal prints it with
    ``--verbose``, and otherwise if it is ``prominent``: the user waits for it, or must know.
    ``rows`` is how many rows it changed, where it is about rows."""

    what: str
    chosen: str
    because: str
    prominent: bool = field(default=False, compare=False)
    rows: int = field(default=0, compare=False)

    def to_json(self) -> dict[str, Any]:
        return {"what": self.what, "chosen": self.chosen, "because": self.because}


@dataclass(frozen=True, slots=True)
class Evidence:
    """One number behind a verdict."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    at_step: int | float | None = None


@dataclass(frozen=True, slots=True)
class Remedy:
    """A suggested next step, with the ``--set`` strings that try it.

    ``aim`` is the goal of ``do``, where something else depends on it: more training, or stopping at
    the best checkpoint.
    """

    do: str
    set: tuple[str, ...] = ()
    aim: Literal["longer", "best"] | None = field(default=None, compare=False)

    def to_json(self) -> dict[str, Any]:
        return {"do": self.do, "set": list(self.set)}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The diagnosis of a history of snapshots. ``confidence`` in [0, 1].

    ``harm`` is what got worse on validation while training did not, whatever the label: the
    ``answers`` (predictions), the ``certainty`` (predicted probabilities) only, or ``both``;
    ``None`` if nothing did.

    ``test_comparison`` is added to a finished run's verdict after its test rows were scored
    (``monitor/confirmation.py``): the validation score compared with the test score, or ``{"why":
    …}``. ``test_agrees`` follows from it: ``False`` if the difference is significant and
    contradicts the label, ``None`` if nothing can be shown.
    """

    label: Label
    because: str
    confidence: float
    since_step: int | float | None = None
    cause: str | None = None
    evidence: tuple[Evidence, ...] = ()
    remedies: tuple[Remedy, ...] = ()
    harm: Literal["answers", "certainty", "both"] | None = None
    test_agrees: bool | None = None
    test_comparison: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        return brief_repr("Verdict", self.label, self.because)

    def to_json(self) -> dict[str, Any]:
        """Its fields; the last two only if the verdict was compared with test rows."""
        late = ("test_agrees", "test_comparison")
        names = [
            f.name for f in fields(self) if self.test_comparison is not None or f.name not in late
        ]
        return {name: to_json(getattr(self, name)) for name in names}


@dataclass(frozen=True, slots=True)
class Branch:
    """A stretch of a run between two rollbacks. The first has the number 0 and no parent; a later
    one continues from the evaluation at ``from_step`` of its ``parent``, another branch's number.
    """

    number: int = 0
    parent: int | None = None
    from_step: int = 0


FIRST_BRANCH = Branch()
# ``loss_unit`` of what is written: mean losses are over tokens. Without it, over rows.
TOKEN = "token"


def mean_loss(losses: Floats, tokens: Ints | None = None) -> float:
    """The mean of ``losses`` [n]; if each is a mean over ``tokens`` [n], the mean over all tokens.
    NaN without rows, or without a token."""
    if tokens is None:
        return float(np.mean(losses)) if losses.size else float("nan")
    return float(np.average(losses, weights=tokens)) if tokens.sum() else float("nan")


def softmax(logits: Floats) -> Floats:
    """The exponentials of ``logits`` [n, …, classes] as shares of their sum over the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def log_sum_exp(values: Floats) -> Floats:
    """ln Σ exp of ``values`` [n, …, classes] over the last axis; nothing overflows."""
    top = values.max(axis=-1, keepdims=True)
    return np.asarray(np.log(np.exp(values - top).sum(axis=-1)) + top[..., 0])


def unit_rows(vectors: Floats) -> Floats:
    """Each row of ``vectors`` [n, d] divided by its length; a row of zeros stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0))


def finite(value: object) -> float | None:
    """A number as a float; ``None`` for a value that is not finite or not a number."""
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The measurements of one evaluation. Losses are in nats, one per example, in evaluation mode,
    over the same examples each time, so that two snapshots are paired row by row. If each loss is a
    mean over tokens, ``train_tokens``, ``valid_tokens`` and ``general_tokens`` are the numbers of
    tokens, and mean losses are means over all tokens; ``train_right`` and ``valid_right`` count,
    for each example, the tokens that were predicted correctly.

    ``train_losses`` is the training sample (training rows before augmentation), ``valid_losses``
    the validation rows. ``refined_loss`` is the calibrated validation loss: the mean after the
    temperature that minimises it. ``relative_update`` is ‖Δw‖ ÷ ‖w‖ since the previous snapshot,
    ``distance`` is ‖w − w₀‖ ÷ ‖w₀‖ over the trainable backbone weights, ``gradient_norm`` the mean
    since the previous snapshot before clipping. ``general_loss`` is the mean loss on a general-text
    set, where there is one: what the model may forget; ``general_losses`` are its rows'.
    ``outputs`` are shares of the generated texts (copies of the source, of training targets,
    repetition …) by set: ``valid`` and ``train``, and ``test`` in runs by older versions.
    ``planned_steps`` is the number of planned updates at that moment, where it may change later.
    ``branch`` is the stretch of the run; two snapshots of one step belong to two branches.
    """

    step: int
    epoch: float
    examples_seen: int
    phase: str
    train_losses: Floats
    valid_losses: Floats
    train_metrics: dict[str, float]
    valid_metrics: dict[str, float]
    refined_loss: float
    temperature: float
    learning_rate: float
    gradient_norm: float | None
    relative_update: float | None
    distance: float | None
    seconds: float
    train_correct: npt.NDArray[np.bool_] | None = None
    valid_correct: npt.NDArray[np.bool_] | None = None
    valid_logits: Floats | None = None
    general_loss: float | None = None
    outputs: dict[str, dict[str, float]] | None = None
    planned_steps: int | None = None
    branch: Branch = FIRST_BRANCH
    general_losses: Floats | None = None
    train_tokens: Ints | None = None
    valid_tokens: Ints | None = None
    general_tokens: Ints | None = None
    train_right: Floats | None = None
    valid_right: Floats | None = None

    @property
    def train_loss(self) -> float:
        """Mean loss of the training sample; NaN when it is empty."""
        return mean_loss(self.train_losses, self.train_tokens)

    @property
    def valid_loss(self) -> float:
        """Mean raw validation loss; NaN when there are no validation rows."""
        return mean_loss(self.valid_losses, self.valid_tokens)

    def summary(self) -> dict[str, Any]:
        """The line that ``events.jsonl`` keeps: means, not rows."""
        if self.valid_tokens is None:
            units = {}
        else:
            # What the mean losses are means over, and how many on each side.
            token_counts = {"train_tokens": self.train_tokens, "valid_tokens": self.valid_tokens}
            totals = {
                name: int(of_rows.sum())
                for name, of_rows in token_counts.items()
                if of_rows is not None
            }
            units = {"loss_unit": TOKEN, **totals}
        record: dict[str, Any] = to_json(
            {
                "step": self.step,
                "epoch": self.epoch,
                "examples_seen": self.examples_seen,
                "phase": self.phase,
                "train_loss": self.train_loss,
                "valid_loss": self.valid_loss,
                "refined_loss": self.refined_loss,
                "temperature": self.temperature,
                "train_metrics": self.train_metrics,
                "valid_metrics": self.valid_metrics,
                "learning_rate": self.learning_rate,
                "gradient_norm": self.gradient_norm,
                "relative_update": self.relative_update,
                "distance": self.distance,
                "seconds": round(self.seconds, 3),
                "train_rows": int(self.train_losses.size),
                "valid_rows": int(self.valid_losses.size),
                **(units),
                **({} if self.general_loss is None else {"general_loss": self.general_loss}),
                **({"outputs": self.outputs} if self.outputs else {}),
                **({"planned_steps": self.planned_steps} if self.planned_steps else {}),
                **({"branch": self.branch} if self.branch.number else {}),
            }
        )
        return record


@dataclass(frozen=True, slots=True)
class Outputs:
    """A classifier's predictions for some rows, in the order of ``rows``.

    ``rows`` [n] source positions; ``labels`` [n] class indices; ``logits`` [n, classes] float32;
    ``losses`` [n] cross-entropy in nats; ``groups`` [n] strings or ``None``.
    """

    rows: Ints
    labels: Ints
    logits: Floats
    losses: Floats
    groups: npt.NDArray[Any] | None = None

    @property
    def probabilities(self) -> Floats:
        """Softmax of the logits, float64, [n, classes]."""
        return softmax(self.logits.astype(np.float64))

    @property
    def predictions(self) -> Ints:
        """The class with the largest logit, [n]; the lower index on a tie."""
        return np.asarray(self.logits.argmax(axis=1))


def to_json(value: object) -> Any:
    """Plain JSON values: records become objects, NaN and infinities become ``null``."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_json(item) for item in value]
    if isinstance(value, np.ndarray):
        return to_json(value.tolist())
    if isinstance(value, np.generic):
        return to_json(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value
