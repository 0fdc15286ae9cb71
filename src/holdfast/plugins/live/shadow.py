"""Shadow comparison: both models predict each request, and one prediction is shown. Which of the
two is correct more often?

A row with equal predictions decides nothing, whatever its label. So the share of differing rows is
counted on all rows, without labels, and labels are needed only for differing rows. At a share of 10
%, one such label is worth ten of rows drawn from all.

The labels must not depend on which prediction was shown. Only labels of randomly drawn rows count
(from all rows, or from the differing ones) whose annotator did not see the shown prediction;
``apart`` counts the others by reason. ``closer_prediction`` says which of two predictions for a row
is better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from holdfast.analyses.compare.verdict import pair_rows
from holdfast.analyses.row_texts import LabelType
from holdfast.core.records import Floats, Ints
from holdfast.core.tasks import GENERATIVE_TASKS, TAGGING_TASKS
from holdfast.plugins.live.stream import Peaks, Verdict, e_values, first_verdict, pair_peaks
from holdfast.stats.streams.rates import below_evidence, rate_limits

# Error rate of the limits of the share of differing rows. "Equivalent" needs these limits and the
# labels' evidence, and errs on either side in 5 % at most.
SHARE_ERROR = 0.005
SIDE_EVIDENCE = 1 / (0.05 - SHARE_ERROR)
# Stakes against any margin between −1 and 1, the same for all, so that the evidence is monotone
# where the margin on differing rows is known only within limits; the last is for some 10,000
# labels.
STAKES: Floats = 0.45 * 2.0 ** (-np.arange(10.0) / 2)
STEPS = 40


@dataclass(frozen=True, slots=True)
class Shadow:
    """The evidence about a challenger and the shown model; an immutable value, so that a service
    stores it as JSON (``to_json``, ``from_json``) and continues after a restart.

    Of ``rows`` that both predicted, ``unlike`` had different predictions. Of these, among labels
    that count, the challenger was better in ``wins``, the shown model in ``losses``, and neither in
    ``neither``. ``alike`` labels were of rows with equal predictions. ``apart`` has, for each
    reason why labels do not count, how many were won, lost and neither. ``margin`` (a share) is the
    difference that does not matter, ``budget`` the maximum number of labels of differing rows.

    ``peaks`` are the largest log e-values so far: the challenger is better; it is worse; it is
    better by less than the margin; worse by less. ``decided_at`` is the number of labels after
    which the verdict was first reached; a verdict stays.
    """

    margin: float = 0.01
    budget: int | None = None
    rows: int = 0
    unlike: int = 0
    wins: int = 0
    losses: int = 0
    neither: int = 0
    alike: int = 0
    apart: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    peaks: Peaks = (0.0, 0.0, 0.0, 0.0)
    decided: Verdict = "undecided"
    decided_at: int | None = None

    @property
    def labels(self) -> int:
        """Labels that count, of rows on which the two differ."""
        return self.wins + self.losses + self.neither

    @property
    def budget_spent(self) -> bool:
        """Whether the budget is used up without a verdict."""
        open_ = self.decided == "undecided"
        return open_ and self.budget is not None and self.labels >= self.budget

    @property
    def verdict(self) -> Verdict:
        """The verdict, as ``Arms`` has one."""
        return self.decided

    @property
    def share(self) -> tuple[float, float, float]:
        """The share of rows with different predictions, with limits that hold at all times at once
        in 99.5 % of streams; NaN without rows."""
        value = self.unlike / self.rows if self.rows else math.nan
        return (value, *rate_limits(self.unlike, self.rows, SHARE_ERROR))

    def add_rows(self, rows: int, unlike: int) -> Shadow:
        """The state after ``rows`` more rows that both predicted, ``unlike`` of them
        differently."""
        after = replace(self, rows=self.rows + rows, unlike=self.unlike + unlike)
        if after.decided == "undecided" and after.share[2] <= after.margin:
            # Models with almost always equal predictions cannot differ by more.
            return replace(after, decided="equivalent", decided_at=after.labels)
        return after

    def add_labels(self, signs: Ints) -> Shadow:
        """The state after more labels that count, of differing rows, in order of arrival: 1 where
        the challenger's prediction is better, −1 where the shown one's is, 0 neither, [n]. Labels
        past the budget do not count."""
        new_signs = np.asarray(signs, dtype=np.int64)
        if self.budget is not None and self.decided == "undecided":
            new_signs = new_signs[: max(self.budget - self.labels, 0)]
        if not len(new_signs):
            return self
        wins = self.wins + np.cumsum(new_signs == 1)
        losses = self.losses + np.cumsum(new_signs == -1)
        count = self.labels + np.arange(1, len(new_signs) + 1)
        # On differing rows the margin is larger in proportion, since they are fewer.
        margin = min(self.margin / self.share[2], 0.999)
        peaks = pair_peaks(wins, losses, count, margin, self.peaks, STAKES)
        return replace(
            self,
            wins=int(wins[-1]),
            losses=int(losses[-1]),
            neither=self.neither + int((new_signs == 0).sum()),
            peaks=tuple(peaks[-1].tolist()),
            **first_verdict(self.decided, peaks, count, SIDE_EVIDENCE),
        )

    def exclude_label(self, because: str, sign: int) -> Shadow:
        """The state after a label that does not count, of a differing row."""
        won, lost, neither = self.apart.get(because, (0, 0, 0))
        counts = (won + (sign == 1), lost + (sign == -1), neither + (sign == 0))
        return replace(self, apart={**self.apart, because: counts})

    @property
    def difference(self) -> tuple[float, float, float]:
        """The challenger's accuracy gain over all rows, with limits that hold at all times at once
        in 95 % of streams; the value is NaN without a label."""
        _, least, most = self.share
        if not self.labels:
            return math.nan, -most, most
        low = -_margin_limit(self.losses, self.wins, self.labels)
        high = _margin_limit(self.wins, self.losses, self.labels)
        value = (self.wins - self.losses) / self.labels * self.unlike / max(self.rows, 1)
        return value, low * (most if low < 0 else least), high * (most if high > 0 else least)

    @property
    def evidence(self) -> dict[str, float]:
        """The largest e-value of each claim so far."""
        return e_values(self.peaks)

    def to_json(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in self.__slots__}
        plain["apart"] = {name: list(counts) for name, counts in self.apart.items()}
        plain["peaks"] = list(self.peaks)
        # Stored comparisons have it by this name.
        return {name if name != "decided" else "verdict": one for name, one in plain.items()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Shadow:
        """The state from ``to_json``."""
        plain = {name: value for name, value in stored.items() if name in cls.__slots__}
        apart = {name: tuple(counts) for name, counts in plain["apart"].items()}
        plain |= {"peaks": tuple(plain["peaks"]), "apart": apart}
        return cls(**plain, decided=stored["verdict"])


def _margin_limit(wins: int, losses: int, labels: int) -> float:
    """The smallest margin within (−1, 1) on differing rows that the first does not reach."""
    won, lost, n = (np.array([one]) for one in (wins, losses, labels))
    need = math.log(2 / (0.05 - SHARE_ERROR))
    lower, upper = -1.0, 1.0
    for _ in range(STEPS):
        middle = (lower + upper) / 2
        reached = float(below_evidence(won, lost, n, middle, STAKES)[0]) >= need
        lower, upper = (lower, middle) if reached else (middle, upper)
    return upper


def answer_kind(task: str, label: Any) -> LabelType:
    """The label type of a row of ``task``, whose label is JSON."""
    if task in TAGGING_TASKS:
        return "tags"
    if task in GENERATIVE_TASKS:
        return "text"
    if isinstance(label, (list, tuple)):
        return "several"
    # A class is written as text, even one that is called 3.
    return "number" if isinstance(label, (int, float)) and not isinstance(label, bool) else "class"


def closer_prediction(task: str, label: Any, first: Any, second: Any) -> int:
    """1 where the ``first`` prediction is closer to the label, −1 where the second is, else 0.

    A class is correct or wrong; sets of labels and tags are compared by the row's F1, numbers by
    absolute error, texts by ROUGE-L. ``None`` (no prediction below the threshold) counts as a wrong
    class, an empty set or text, and as farther off than any number.
    """
    if first == second:
        return 0
    answer_type = answer_kind(task, label)
    if answer_type == "number":
        first, second = _number(first), _number(second)
        if first is None or second is None:
            return int(first is not None) - int(second is not None)
    if answer_type == "class":
        label, first, second = str(label), _name(first), _name(second)
    gap = pair_rows(answer_type, [label], [first], [second]).gap[0]
    if np.isnan(gap):
        # The F1 is undefined where both the prediction and the label are empty.
        return int(_same(label, first)) - int(_same(label, second))
    return int(np.sign(gap))


def _same(label: Any, answer: Any) -> bool:
    return sorted(label) == sorted(answer or ())


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _name(value: Any) -> str | None:
    return None if value is None else str(value)
