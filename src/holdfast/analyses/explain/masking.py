"""Predictions for a row with only some of its units (words, punctuation, squares), which is all
that a task must provide to be explained; and the importance of each unit by leave-one-out and by
integrated gradients (arXiv 1703.01365).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from holdfast.contract.predictions import Bools
from holdfast.core.records import Floats, Ints, log_sum_exp
from holdfast.data.texts.general import UNSPACED

if TYPE_CHECKING:
    from torch import Tensor, nn


# In scripts without spaces each letter is a unit, or a sentence would be one word.
_SPACED = rf"(?:(?![{UNSPACED}])\w)+"
_UNIT = re.compile(rf"[{UNSPACED}]|{_SPACED}(?:['’\-]{_SPACED})*|[^\w\s]+")
# In a longer text neighbouring words are joined, since each unit costs passes.
MAX_UNITS = 128


@dataclass(frozen=True, slots=True)
class Unit:
    """``text[start:stop]`` of the ``part``-th text of a row (0, or 1 for the second of a pair)."""

    part: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class RowUnits:
    """The ``units`` of a row and, for each of its tokens, the unit that it belongs to (``owner``
    [tokens], −1 for special tokens). ``words_per_unit`` is how many words a unit holds at most;
    ``unread`` counts the words beyond the model's maximum length."""

    units: tuple[Unit, ...]
    owner: Ints
    words_per_unit: int = 1
    unread: int = 0

    def words(self, texts: Sequence[str]) -> tuple[str, ...]:
        """The units as written in the texts."""
        return tuple(texts[one.part][one.start : one.stop] for one in self.units)


def split_words(text: str, part: int = 0) -> list[Unit]:
    """Words with their hyphens and apostrophes, runs of punctuation, and single letters in scripts
    without spaces.

    >>> [(u.start, u.stop) for u in split_words("Don't, no!")]
    [(0, 5), (5, 6), (7, 9), (9, 10)]
    """
    return [Unit(part, match.start(), match.end()) for match in _UNIT.finditer(text)]


def split_units(
    texts: Sequence[str],
    offsets: Sequence[tuple[int, int]],
    sequences: Sequence[int | None],
    max_units: int = MAX_UNITS,
) -> RowUnits:
    """The units of a tokenized row.

    Parameters
    ----------
    texts : one text, or the two of a pair.
    offsets : for each token, its characters in its text.
    sequences : for each token, the text that it belongs to; ``None`` for special tokens.
    max_units : at least 1; in a longer row ``RowUnits.words_per_unit`` neighbouring words are one.

    A token that covers several words joins them. Words without a token are counted in ``unread``.
    """
    words = [unit for part, text in enumerate(texts) for unit in split_words(text, part)]
    owner = np.full(len(offsets), -1, dtype=np.int64)
    group = np.arange(len(words))
    for piece, ((start, stop), part) in enumerate(zip(offsets, sequences, strict=True)):
        if part is None or stop <= start:
            continue
        inside = [
            place
            for place, unit in enumerate(words)
            if unit.part == part and unit.start < stop and start < unit.stop
        ]
        if inside:
            group[inside] = group[inside].min()
            owner[piece] = inside[0]
    return _merge_units(words, group, owner, max_units)


def _merge_units(words: list[Unit], group: Ints, owner: Ints, max_units: int) -> RowUnits:
    read = np.unique(group[owner[owner >= 0]])
    words_per_unit = max(1, -(-len(read) // max_units))
    # Words of two texts never form one unit.
    part_of = np.array([words[place].part for place in read], dtype=np.int64)
    chunk = np.empty(len(read), dtype=np.int64)
    count = 0
    for part in np.unique(part_of):
        places = np.flatnonzero(part_of == part)
        chunk[places] = count + np.arange(len(places)) // words_per_unit
        count = int(chunk[places[-1]]) + 1
    to_chunk = np.full(len(words) + 1, -1, dtype=np.int64)
    to_chunk[read] = chunk
    units = []
    for one in range(count):
        members = np.flatnonzero(np.isin(group, read[chunk == one]))
        unit_words = [words[place] for place in members]
        units.append(
            Unit(unit_words[0].part, unit_words[0].start, max(unit.stop for unit in unit_words))
        )
    owners = np.where(owner >= 0, to_chunk[group[owner]], -1) if len(words) else owner
    unread = len(words) - int(np.isin(group, read).sum())
    return RowUnits(tuple(units), owners, words_per_unit, unread)


# Points of the Gauss–Legendre rule: exact for a gradient that is a polynomial of degree 31.
STEPS = 16
# Input values that are passed in one batch.
VALUES_AT_ONCE = 1 << 20


class MaskedScore:
    """The score of a row with some of its ``units`` removed; each set of units is scored once.

    ``score`` maps kept units [m, units] to scores [m]. ``passes`` counts the rows that the model
    has scored.
    """

    def __init__(self, score: Callable[[Bools], Floats], units: int) -> None:
        self._score = score
        self._cache: dict[bytes, float] = {}
        self.units = units
        self.passes = 0

    def __call__(self, keep: Bools) -> Floats:
        keys = [line.tobytes() for line in np.packbits(keep, axis=1)]
        new = {key: place for place, key in enumerate(keys) if key not in self._cache}
        if new:
            self.passes += len(new)
            scores = self._score(keep[list(new.values())])
            self._cache.update(zip(new, map(float, scores), strict=True))
        return np.asarray([self._cache[key] for key in keys])

    @property
    def full(self) -> float:
        """The score of the complete row."""
        return float(self(np.ones((1, self.units), dtype=bool))[0])

    @property
    def empty(self) -> float:
        """The score with every unit removed."""
        return float(self(np.zeros((1, self.units), dtype=bool))[0])


@dataclass(frozen=True)
class Case:
    """One prediction of a model for one row, to be explained.

    ``target`` is the prediction; ``masked_score`` gives its score, in ``measure`` (``log-odds``,
    ``output`` or ``log probability``), with some units removed. ``gradients()`` [units] are the
    integrated gradients of the same score, ``None`` if the model does not allow them; their ``gap``
    is how far their sum is from the score difference that they explain. ``to_probability`` turns
    scores into probabilities; ``None`` if there are none.
    """

    target: str
    measure: str
    masked_score: MaskedScore
    gradients: Callable[[], Gradients] | None = None
    to_probability: Callable[[Floats], Floats] | None = None


@dataclass(frozen=True, slots=True)
class Gradients:
    """``values`` [units]; ``gap``: their sum minus the score difference of the two ends; ``passes``
    forward and backward."""

    values: Floats
    gap: float
    passes: int


def leave_one_out(masked_score: MaskedScore) -> Floats:
    """What each unit contributes to the score [units]: the score of the row minus that of the row
    without the unit.

    If a unit is removed by the mask token, sequential integrated gradients with the mask as
    baseline (arXiv 2305.15853) sum to exactly this over a unit: on the straight path from the
    masked unit to the unit itself nothing else changes, so the integral of the gradient is the
    difference of its ends. This takes one pass per unit instead of one per unit and step.
    """
    return masked_score.full - masked_score(~np.eye(masked_score.units, dtype=bool))


def probability_of_log_odds(scores: Floats) -> Floats:
    """Log-odds → probability."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -np.asarray(scores, dtype=np.float64))))


def log_odds(logits: Floats, place: int) -> Floats:
    """Logits [m, classes] → the log-odds [m] of the class at ``place`` against all others."""
    values = np.asarray(logits, dtype=np.float64)
    others = np.delete(values, place, axis=1)
    return np.asarray(values[:, place] - log_sum_exp(others))


def odds_case(
    outputs: Callable[[Bools], Floats],
    units: int,
    classes: Sequence[str],
    gradients: Callable[[Callable[[Tensor], Tensor]], Gradients] | None,
) -> Case:
    """The case of one predicted class: the log-odds of the most probable class against all others.
    Unlike a probability, log-odds still change when the model is confident. ``outputs``
    [m, classes] are those of the row with only the kept [m, units] of its units, ``gradients``
    those of a score of the network's outputs."""
    place = int(outputs(np.ones((1, units), dtype=bool))[0].argmax())

    def score(output: Tensor) -> Tensor:
        import torch

        others = torch.cat([output[:, :place], output[:, place + 1 :]], dim=1)
        return output[:, place] - torch.logsumexp(others, dim=1)

    return Case(
        classes[place],
        "log-odds",
        MaskedScore(lambda kept: log_odds(outputs(kept), place), units),
        None if gradients is None else lambda: gradients(score),
        probability_of_log_odds,
    )


def in_batches(forward: Callable[[Bools], Tensor], keep: Bools, size: int) -> Floats:
    """The outputs [m, …] of ``forward`` for ``keep`` [m, units], ``size`` rows at a time."""
    import torch

    with torch.inference_mode():
        parts = [forward(keep[at : at + size]) for at in range(0, len(keep), size)]
    return np.concatenate([part.cpu().numpy() for part in parts])


def round_or_none(value: float | None, digits: int = 4) -> float | None:
    """A rounded number for JSON; ``None`` for one that is not finite."""
    return None if value is None or not math.isfinite(value) else round(float(value), digits)


@dataclass(frozen=True, slots=True, eq=False)
class InputGradients:
    """``values`` [...] in the shape of the input: the contribution of each number; ``gap``: their
    sum minus the score difference of the two ends, the error of the integration rule."""

    values: Tensor
    gap: float
    passes: int

    def of_units(self, owner: Ints, units: int, over: int = -1) -> Gradients:
        """The values summed over the dimension ``over`` [tokens], then over the tokens of each unit
        by their ``owner`` [tokens]; tokens of no unit (−1) are left out."""
        pieces = self.values.sum(dim=over)[0].double().cpu().numpy().ravel()
        inside = owner >= 0
        sums = np.bincount(owner[inside], weights=pieces[inside], minlength=units)
        return Gradients(np.asarray(sums, dtype=np.float64), self.gap, self.passes)


def integrated_gradients(
    score: Callable[[Tensor], Tensor], start: Tensor, end: Tensor
) -> InputGradients:
    """The integrated gradients of ``score`` along the straight path from ``start`` to ``end``.

        values = (end − start) · ∫₀¹ ∂score(start + α (end − start)) / ∂input dα

    by the Gauss–Legendre rule of ``STEPS`` points. ``start`` and ``end`` [1, …] are one row;
    ``score`` maps rows [m, …] to scores [m], each row by itself. Their sum is score(end) −
    score(start), except for ``gap``. ``captum.attr.IntegratedGradients`` computes the same. If
    start and end differ in only one word, it is a step of sequential integrated gradients
    (arXiv 2305.15853).
    """
    import torch

    nodes, weights = np.polynomial.legendre.leggauss(STEPS)
    alphas = torch.tensor((nodes + 1) / 2, dtype=end.dtype, device=end.device)
    shares = torch.tensor(weights / 2, dtype=end.dtype, device=end.device)
    shape = (-1, *[1] * (end.dim() - 1))
    total = torch.zeros_like(end)
    size = max(1, VALUES_AT_ONCE // max(1, end.numel()))
    for begin in range(0, STEPS, size):
        part = slice(begin, begin + size)
        points = (start + alphas[part].view(shape) * (end - start)).detach().requires_grad_(True)
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(score(points).sum(), points)
        total += (shares[part].view(shape) * slope).sum(dim=0, keepdim=True)
    with torch.no_grad():
        ends = float(score(end)[0]) - float(score(start)[0])
    values = (total * (end - start)).detach()
    return InputGradients(values, float(values.double().sum()) - ends, STEPS + 2)


@contextmanager
def replaced_embeddings(table: nn.Module, states: Tensor) -> Iterator[None]:
    """Make a model's word embeddings (``table``) return ``states`` [B, T, E] for any input."""

    def give(module: object, inputs: object, output: object) -> Tensor:
        return states

    handle = table.register_forward_hook(give)
    try:
        yield
    finally:
        handle.remove()
