"""Who is answered next: requests wait in one line, and every turn takes a fair share of each.

Fair queueing (Demers, Keshav and Shenker, SIGCOMM 1989), with tokens for bits. The line has a time
V of its own, in which every request that waits is given a token a tick: taking t tokens while n
requests wait lets t ÷ n ticks pass. A request that arrives at V has the tag V + the tokens of its
rows before i at its row i, and the rows of the smallest tags are next. So a request of one row does
not wait for the thousand of another; and that one goes on at its share, however many small ones
arrive.

A record of what waits and arithmetic on it: no thread, no clock and no model.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast.plugins.service.records import Full, Late


@dataclass(frozen=True, slots=True)
class QueueBounds:
    """What may wait: ``rows`` and ``tokens`` in all, and as long as a new request would be
    answered within ``seconds``. A request alone may have as many rows as all together."""

    rows: int = 10_000
    tokens: int = 1_000_000
    seconds: float = 1.0


@dataclass(slots=True, eq=False)
class Waiting:
    """A request in the line. ``costs`` [n] are the tokens of its rows in the order in which they
    are asked, ``read`` is what was made of them, ``caller`` who is told; ``deadline`` by the clock
    that ``Line`` is given. ``gone``: nobody waits for it any more."""

    read: Any
    costs: Sequence[int]
    caller: Any = None
    deadline: float = math.inf
    gone: bool = False
    late: bool = False
    taken: int = 0
    answered: int = 0
    tag: float = 0.0
    number: int = 0

    @property
    def left(self) -> int:
        """Tokens that nobody took yet."""
        return sum(self.costs[self.taken :])


@dataclass(slots=True)
class EngineTurn:
    """What is asked together: of each request some of its rows, by their places in its order."""

    parts: list[tuple[Waiting, range]] = field(default_factory=list)
    tokens: int = 0
    rows: int = 0

    @classmethod
    def of(cls, one: Waiting, places: range) -> EngineTurn:
        """A turn of one request alone."""
        costs = one.costs[places.start : places.stop]
        return cls([(one, places)], sum(costs), len(costs))


class RequestQueue:
    """Requests in the order in which their rows are answered. Not to be used by two threads at
    once.

    ``rows`` and ``tokens`` wait now; ``dropped`` counts requests that cost no time because nobody
    waited for them any more, by the reason.
    """

    def __init__(self, bounds: QueueBounds = QueueBounds()) -> None:
        self.bounds = bounds
        self.rows = 0
        self.tokens = 0
        self.dropped = {"gone": 0, "late": 0}
        self._heap: list[tuple[float, int, Waiting]] = []
        self._now = 0.0
        self._numbers = 0

    def __len__(self) -> int:
        """Requests of which no row was taken, or not all."""
        return len(self._heap)

    def refuse(self, rows: int, pace: float) -> None:
        """Raise ``Full`` where ``rows`` more may not wait; ``pace`` is seconds a token."""
        for what, waiting, more, most in (
            ("rows", self.rows, rows, self.bounds.rows),
            ("tokens", self.tokens, 0, self.bounds.tokens),
        ):
            if waiting and waiting + more > most:
                because = f"{waiting:,} {what} are waiting, and at most {most:,} may"
                raise Full(self._until(self.tokens * pace), because)

    def add(self, one: Waiting, now: float, pace: float) -> None:
        """Let a request wait. Raises ``Full`` where too much is waiting already, or where it would
        not be answered by its deadline, ``Late`` where it would not even alone: to come again helps
        the former only. ``pace`` is seconds a token."""
        self.refuse(len(one.costs), pace)
        own = sum(one.costs)
        if now + own * pace > one.deadline:
            raise Late
        ahead = self.ahead(own) * pace
        if ahead > self.bounds.seconds:
            because = f"its turn would come in {ahead:.1f} s, at most {self.bounds.seconds:g} s may"
            raise Full(self._until(ahead), because)
        if now + ahead + own * pace > one.deadline:
            because = (
                f"it would be answered in {ahead + own * pace:.1f} s, and its time is over then"
            )
            raise Full(self._until(ahead), because)
        one.tag, one.number = self._now, self._numbers
        self._numbers += 1
        self.rows += len(one.costs)
        self.tokens += own
        heapq.heappush(self._heap, (one.tag, one.number, one))

    def ahead(self, own: int) -> int:
        """Tokens that are answered before the last row of a request of ``own`` tokens, at most:
        everything that waits, or as many of each request as of the new one."""
        return min(self.tokens, len(self._heap) * own)

    def _until(self, seconds: float) -> float:
        """When to come again [whole s]: when what waits is below its bound."""
        return float(max(1, math.ceil(seconds - self.bounds.seconds)))

    def take(self, now: float, most: int) -> EngineTurn | None:
        """Rows of at most ``most`` tokens (or one row), those of the smallest tags; ``None`` where
        nobody waits. Who is gone or late by ``now`` is dropped."""
        turn = EngineTurn()
        while self._heap:
            one = self._heap[0][2]
            if one.gone or one.deadline <= now:
                heapq.heappop(self._heap)
                self.rows -= len(one.costs) - one.taken
                self.tokens -= one.left
                one.late = not one.gone
                self.dropped["late" if one.late else "gone"] += 1
                continue
            cost = one.costs[one.taken]
            if turn.rows and turn.tokens + cost > most:
                break
            heapq.heappop(self._heap)
            self._take_rows(one, turn, most)
        if not self._heap:
            self._now = 0.0
        return turn if turn.rows else None

    def _take_rows(self, one: Waiting, turn: EngineTurn, most: int) -> None:
        """The request's next rows, as long as no other's turn is before."""
        first = one.taken
        following = self._heap[0][:2] if self._heap else (math.inf, 0)
        while one.taken < len(one.costs) and (one.tag, one.number) <= following:
            cost = one.costs[one.taken]
            if turn.rows and turn.tokens + cost > most:
                break
            # The one that is taken from is not in the heap.
            self._now += cost / (len(self._heap) + 1)
            one.tag += cost
            one.taken += 1
            turn.tokens += cost
            turn.rows += 1
            self.rows -= 1
            self.tokens -= cost
        if one.taken > first:
            turn.parts.append((one, range(first, one.taken)))
        if one.taken < len(one.costs):
            heapq.heappush(self._heap, (one.tag, one.number, one))


@dataclass(slots=True)
class Pace:
    """The mean of the last turns, in which one ``memory`` tokens ago counts half.

    By tokens and not by turns: under load turns are large, and those are what a newcomer waits for.
    """

    memory: float = 4096.0
    _seconds: float = field(default=0.0)
    _tokens: float = field(default=0.0)

    def add(self, tokens: int, seconds: float) -> None:
        """A turn is over."""
        kept = math.exp2(-tokens / self.memory)
        self._seconds = self._seconds * kept + seconds
        self._tokens = self._tokens * kept + tokens

    def doubt(self) -> None:
        """Somebody was refused by this while nobody was answered, so that no turn would ever show
        that the model is quicker by now (the machine may have stood still in the last one): the
        next ones are trusted sooner."""
        self._seconds /= 2

    @property
    def seconds(self) -> float:
        """Seconds a token; 0 where nothing was measured yet."""
        return self._seconds / self._tokens if self._tokens else 0.0
