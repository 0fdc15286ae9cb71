"""Two trials, row by row: who is dropped before all rows have spoken.

Rows arrive in pieces, a fold at a time, or all of them at a look of a run. Evidence is an e-value,
so that it may be read after every row: a trial that is no worse than a leader that was named before
is dropped with a chance of ``ERROR`` at most, however often one looks. A leader that these very
rows made the best of many has their luck too: of trials that are all alike 8 % are dropped on 240
rows behind the best of 8, and 18 to 25 % on 240 to 600 rows behind the best of 32 (300 simulated
searches each). That costs a trial as good as the leader, and never the leader; so no p-value is
told. Sibling: ``stats.streams.means.sums_evidence`` holds
under a law that drifts, and needs four times as many rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Floats
from holdfast.search.rules.shrinkage import scores_of

ERROR = 0.1
# Of a run that is not at its end yet, in shares of the score.
MARGIN = 0.02
# Bets, from tiny effects to one that a single row can nearly lose.
STAKES = np.geomspace(0.05, 0.9, 12)


@dataclass(frozen=True, slots=True)
class Race:
    """How a trial stands against the leader.

    ``behind`` is by how much of the score it is worse, over ``rows`` rows; ``e`` the evidence that
    it is worse, the largest so far; ``dropped`` the reason to end it, ``None`` while there is none.
    """

    behind: float
    e: float
    rows: int
    dropped: str | None


def race(trial: Floats, leader: Floats, *, margin: float = 0.0, error: float = ERROR) -> Race:
    """A trial's rows against the leader's, in the order in which they came.

    With g_i the leader's probability of what was right less the trial's on row i, within ±1, the
    evidence after each row is the mean over stakes λ of ∏ (1 + λ (g_i − margin) ÷ (1 + margin)):
    the capital of who bets that the trial is worse by more than ``margin`` (2010.09686). Where it
    is not, the capital is 1 on average at most, and reaches 1/error with the chance ``error`` at
    most (Ville), whatever the law of g. Where it does, the trial is dropped.

    Parameters
    ----------
    trial, leader : [n] losses of the same rows in nats; their order must not depend on them.
    margin : in shares of the score, in [0, 1).
    error : in (0, 1).

    Raises ``Defect`` for rows of different numbers, or a margin or an error outside. No rows: no
    evidence, e = 1.
    """
    if len(trial) != len(leader):
        raise Defect("the trials of a race", "must be of the same rows", (len(trial), len(leader)))
    if not 0 <= margin < 1 or not 0 < error < 1:
        rule = "need 0 ≤ margin < 1 and 0 < error < 1"
        raise Defect("the margin and the error of a race", rule, (margin, error))
    if not len(trial):
        return Race(0.0, 1.0, 0, None)
    scores = scores_of({"trial": trial, "leader": leader})
    gap = scores["leader"] - scores["trial"]
    bets = np.log1p(STAKES * ((gap - margin) / (1 + margin))[:, None])
    most = float(np.exp(bets.cumsum(axis=0)).mean(axis=1).max())
    behind, dropped = float(gap.mean()), None
    if most >= 1 / error:
        beyond = f" by more than {100 * margin:g} points" if margin else ""
        dropped = (
            f"it gives what is right {100 * behind:.1f} points less probability than the best "
            f"trial over {len(gap)} rows, and is worse{beyond} (evidence of {most:.3g} to 1, with "
            "that trial's own luck in it)"
        )
    return Race(behind, max(1.0, most), len(gap), dropped)


def race_at_look(
    losses: Floats,
    share: float,
    leader: Sequence[tuple[float, Floats]],
    *,
    margin: float = MARGIN,
    error: float = ERROR,
) -> Race:
    """A run under way against the leader's when it had come as far.

    ``losses`` [n] are the run's at a look that lies at this ``share`` of its way, in (0, 1];
    ``leader`` the shares and losses [n] of the leader's looks, in their order. They are held
    against those of the leader's last look that was not later; where it has none, the run goes on.
    A run that is far behind half-way may still catch up, hence the ``margin``; each look is a race
    of its own.
    """
    earlier = [rows for at, rows in leader if at <= share + 1e-9]
    if not earlier:
        return Race(0.0, 1.0, 0, None)
    return race(losses, earlier[-1], margin=margin, error=error)
