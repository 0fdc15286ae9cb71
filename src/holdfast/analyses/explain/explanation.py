"""Explained predictions: the maps of both methods, how faithful each is and which may be shown;
the rows of one source, and whether their maps together are better than random.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from holdfast.analyses.explain.faithfulness import (
    LEVEL,
    FaithfulnessScores,
    agreement,
    faithfulness,
    joint_p,
)
from holdfast.analyses.explain.masking import Case, Unit, leave_one_out, round_or_none
from holdfast.core.printable import brief_repr
from holdfast.core.records import Floats
from holdfast.core.seeds import generator
from holdfast.core.wording import count_phrase
from holdfast.stats.paired_tests import paired_t, rows_needed_for_power

Worth = Literal["better than random", "not better than random", "too few words", "hardly moves"]
LEAVE_ONE_OUT, GRADIENTS = "leave_one_out", "integrated_gradients"
# The smallest fall of the predicted probability, in the map's order, for a map to be shown.
MIN_FALL = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Map:
    """What each unit contributes by one ``method`` (``values`` [units], in the case's measure), how
    faithful that is, and its ``worth``: only a map ``better than random`` may be shown in
    colours."""

    method: str
    values: Floats
    faithful: FaithfulnessScores
    worth: Worth

    @property
    def shown(self) -> bool:
        return self.worth == "better than random"

    def to_json(self) -> dict[str, Any]:
        scores = self.faithful
        names = ("aopc", "naopc", "naopc_random", "sufficiency", "p")
        return {
            "values": [round_or_none(value) for value in self.values],
            "worth": self.worth,
            **{name: round_or_none(getattr(scores, name)) for name in names},
            "orders": scores.orders,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Reason:
    """Why a model predicts ``target`` for a row: ``score`` is that of the row, ``empty`` that
    without any unit, in ``measure``; ``probability`` and ``empty_probability`` are the same as
    probabilities, and ``probability_without`` [units] the probability without each unit, ``None``
    for a prediction without probabilities.

    ``maps`` are those of integrated gradients, if the model allows them (with the ``gap`` of their
    sum), and of leave-one-out; ``agreement`` is their rank correlation. ``passes`` counts forward
    passes of rows, ``gradient_passes`` those with a backward pass too.
    """

    target: str
    measure: str
    score: float
    empty: float
    probability: float | None
    empty_probability: float | None
    probability_without: Floats | None
    maps: tuple[Map, ...]
    agreement: float | None
    gap: float | None
    passes: int
    gradient_passes: int

    @property
    def map(self) -> Map:
        """The map that is shown: always the first, whatever the worth of the other, since a choice
        between two would invalidate the test."""
        return self.maps[0]

    def to_json(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "measure": self.measure,
            "score": round_or_none(self.score),
            "empty": round_or_none(self.empty),
            "probability": round_or_none(self.probability),
            "probability_empty": round_or_none(self.empty_probability),
            "probability_without": None
            if self.probability_without is None
            else [round_or_none(value) for value in self.probability_without],
            "shown": self.map.shown,
            "worth": self.map.worth,
            "maps": {one.method: one.to_json() for one in self.maps},
            "agreement": round_or_none(self.agreement),
            "gradients_gap": round_or_none(self.gap),
            "passes": {"forward": self.passes, "backward": self.gradient_passes},
        }


def reason_of(case: Case, *names: str | int, maps: Sequence[Floats] = ()) -> Reason:
    """Explain a case. ``names`` seed the random orders: a row has the same explanation whatever
    other rows are explained. ``maps`` are further maps to judge, as ``given_0``, ``given_1``, …

    Integrated gradients come first: in the comparison they were more faithful
    (``benchmarks/results/reasons.md``).
    """
    masked_score = case.masked_score
    gradients = case.gradients() if case.gradients else None
    without_one = leave_one_out(masked_score)
    methods = {} if gradients is None else {GRADIENTS: gradients.values}
    methods |= {LEAVE_ONE_OUT: without_one}
    methods |= {f"given_{place}": values for place, values in enumerate(maps)}
    scores = faithfulness(masked_score, tuple(methods.values()), generator(0, "orders", *names))
    judged_maps = tuple(
        Map(method, values, one, worth_of(case, one))
        for (method, values), one in zip(methods.items(), scores, strict=True)
    )
    to_probability = case.to_probability
    end_probabilities = (
        None
        if to_probability is None
        else to_probability(np.array([masked_score.full, masked_score.empty]))
    )
    probability_without = None
    if to_probability is not None:
        probability_without = to_probability(masked_score.full - without_one)
    return Reason(
        case.target,
        case.measure,
        masked_score.full,
        masked_score.empty,
        None if end_probabilities is None else float(end_probabilities[0]),
        None if end_probabilities is None else float(end_probabilities[1]),
        probability_without,
        judged_maps,
        None if gradients is None else agreement(without_one, gradients.values),
        None if gradients is None else gradients.gap,
        masked_score.passes + (0 if gradients is None else gradients.passes),
        0 if gradients is None else gradients.passes,
    )


def worth_of(case: Case, scores: FaithfulnessScores) -> Worth:
    """The verdict on a map. A row has too few words if no order of them could be distinguished from
    chance; a prediction hardly moves if its probability changes little whatever is removed."""
    if scores.least_p > LEVEL:
        return "too few words"
    if not scores.better:
        return "not better than random"
    if case.to_probability is not None:
        falls = case.to_probability(np.array([case.masked_score.full]))[0] - case.to_probability(
            scores.scores
        )
        if float(falls.max()) < MIN_FALL:
            return "hardly moves"
    return "better than random"


# From this number of rows, a joint test of all maps is used.
MIN_ROWS = 5
FALSE_ALARMS = {
    "share": 0.0325,
    "of": 400,
    "what": "maps of noise that the test called better than random",
    "source": "benchmarks/reasons.py",
}
"""How often a map of random numbers is called better than a random order."""


@dataclass(frozen=True, slots=True, eq=False)
class ExplainedRow:
    """One row: ``texts`` as the model read them (an image's path), ``units`` their parts (for an
    image ``grid``, squares down and across), and a ``Reason`` for each prediction.

    ``because`` says why a row has no reason. ``unread`` words lie beyond the model's maximum
    length; ``joined`` neighbouring words form one unit. ``picture`` is a thumbnail as a data URI.
    ``by_target`` names, for each generated token, the source words that influence it most.
    """

    row: int
    texts: tuple[str, ...] = ()
    units: tuple[Unit, ...] = ()
    reasons: tuple[Reason, ...] = ()
    prediction: object = None
    confidence: float | None = None
    label: object = None
    because: str | None = None
    unread: int = 0
    joined: int = 1
    grid: tuple[int, int] | None = None
    picture: str | None = None
    by_target: tuple[dict[str, Any], ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """The units as written in the texts; for an image its squares by row and column."""
        if self.grid is not None:
            down, across = self.grid
            return tuple(f"{r + 1}/{c + 1}" for r in range(down) for c in range(across))
        return tuple(self.texts[one.part][one.start : one.stop] for one in self.units)

    def to_json(self, together: bool) -> dict[str, Any]:
        """The row for JSON. ``together``: whether maps may be shown at all."""
        shown = [
            {**reason.to_json(), "shown": together and reason.map.shown} for reason in self.reasons
        ]
        block: dict[str, Any] = {
            "row": self.row,
            "prediction": self.prediction,
            "confidence": round_or_none(self.confidence, 6),
            "label": self.label,
            "texts": list(self.texts),
            "units": list(self.words),
            "spans": [[one.part, one.start, one.stop] for one in self.units],
            "unread_words": self.unread,
            "words_a_unit": self.joined,
            "because": self.because,
            "reasons": shown,
        }
        if self.grid is not None:
            block["grid"] = list(self.grid)
        if self.by_target:
            block["by_target"] = list(self.by_target)
        return block


@dataclass(frozen=True, slots=True)
class Together:
    """The maps of one method over all rows. Of ``n`` that a test could judge, ``better`` are each
    better than random orders; ``p`` is for all together. ``naopc`` and ``random`` are means,
    ``low`` to ``high`` the 95 % interval of their paired difference. If these rows are
    inconclusive, about ``rows_to_settle`` rows would show such a difference."""

    method: str
    n: int
    better: int
    p: float | None
    naopc: float | None
    random: float | None
    difference: float | None
    low: float | None
    high: float | None
    rows_to_settle: int | None = None

    @property
    def worth_showing(self) -> bool:
        """Whether maps may be shown; with fewer than five rows each is judged by itself."""
        if self.n < MIN_ROWS:
            return self.n > 0
        return self.p is not None and self.p <= LEVEL

    def to_json(self) -> dict[str, Any]:
        return {
            "n": self.n,
            "better_than_random": self.better,
            "p": None if self.p is None else float(f"{self.p:.3g}"),
            "naopc": round_or_none(self.naopc),
            "naopc_random": round_or_none(self.random),
            "difference": {
                "value": round_or_none(self.difference),
                "low": round_or_none(self.low),
                "high": round_or_none(self.high),
            },
            "rows_to_settle": self.rows_to_settle,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """The result of ``holdfast explain``: ``rows`` of ``source``; ``left`` more rows were not
    explained. ``taken_away`` says how a unit is removed."""

    run: str
    source: str
    task: str
    rows: tuple[ExplainedRow, ...]
    left: int
    taken_away: str
    seconds: float = 0.0
    notes: tuple[str, ...] = field(default=())

    def __repr__(self) -> str:
        rows = count_phrase(len(self.rows) + self.left, "row")
        return brief_repr("Explanation", f"{len(self.rows)} of {rows} of {self.source}", self.run)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[ExplainedRow]:
        return iter(self.rows)

    @property
    def together(self) -> tuple[Together, ...]:
        """The joint result of each method; the first is the one that is shown."""
        methods = dict.fromkeys(one.method for one in self._maps())
        return tuple(_together([m for m in self._maps() if m.method == name]) for name in methods)

    @property
    def worth_showing(self) -> bool:
        """Whether the rows' maps together are better than random orders, or too few to test."""
        methods = self.together
        return bool(methods) and methods[0].worth_showing

    @property
    def agreement(self) -> float | None:
        """The median rank correlation of the two methods; ``None`` without rows."""
        correlations = [
            r.agreement for row in self.rows for r in row.reasons if r.agreement is not None
        ]
        return float(np.median(correlations)) if correlations else None

    @property
    def passes(self) -> int:
        """Number of forward passes of rows."""
        return sum(reason.passes for row in self.rows for reason in row.reasons)

    @property
    def gradient_passes(self) -> int:
        """Number of forward and backward passes of rows."""
        return sum(reason.gradient_passes for row in self.rows for reason in row.reasons)

    def _maps(self) -> list[Map]:
        # Several predictions for one row are not independent.
        return [one for row in self.rows for reason in row.reasons[:1] for one in reason.maps]

    def lines(self) -> Iterator[dict[str, Any]]:
        """One JSON object per row."""
        shown = self.worth_showing
        return (row.to_json(shown) for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "run": self.run,
            "source": self.source,
            "task": self.task,
            "n": len(self.rows),
            "not_explained": self.left,
            "taken_away": self.taken_away,
            "worth_showing": self.worth_showing,
            "faithfulness": {one.method: one.to_json() for one in self.together},
            "agreement": round_or_none(self.agreement),
            "false_alarms": FALSE_ALARMS,
            "passes": {"forward": self.passes, "backward": self.gradient_passes},
            "notes": list(self.notes),
            "rows": list(self.lines()),
        }

    def page(self) -> str:
        """A self-contained HTML page with shaded words where the maps are better than random."""
        from holdfast.report.explanation import render_explained

        return render_explained(self.to_json(), [row.picture for row in self.rows])

    def _repr_html_(self) -> str:
        from html import escape

        # A frame keeps the page's style separate from the notebook's.
        page = escape(self.page(), quote=True)
        return f'<iframe srcdoc="{page}" width="100%" height="480"></iframe>'


def _together(maps: Sequence[Map]) -> Together:
    """Leave out rows of too few words: no order of these could be distinguished from chance."""
    judged = [one for one in maps if one.faithful.least_p <= LEVEL]
    faithful: list[FaithfulnessScores] = [one.faithful for one in judged]
    pairs = [
        (one.naopc, one.naopc_random)
        for one in faithful
        if one.naopc is not None and one.naopc_random is not None
    ]
    naopc_values: Floats = np.array([pair[0] for pair in pairs])
    random: Floats = np.array([pair[1] for pair in pairs])
    gap = paired_t(naopc_values, random)
    p = joint_p(faithful)
    rows_needed, enough = None, len(pairs) >= MIN_ROWS
    if p is not None and p > LEVEL and gap.value > 0:
        rows_needed = rows_needed_for_power(naopc_values - random, gap.value)
    return Together(
        maps[0].method,
        len(judged),
        sum(one.shown for one in judged),
        p,
        float(naopc_values.mean()) if pairs else None,
        float(random.mean()) if pairs else None,
        gap.value,
        gap.low if enough else None,
        gap.high if enough else None,
        rows_needed,
    )
