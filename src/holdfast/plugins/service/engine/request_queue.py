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

from holdfast.plugins.service.records import DeadlineExceeded, QueueFull


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What may wait: ``rows`` and ``tokens`` in all, and as long as a new request would be
    answered within ``max_wait_s``. A request alone may have as many rows as all together."""

    rows: int = 10_000
    tokens: int = 1_000_000
    max_wait_s: float = 1.0


@dataclass(slots=True, eq=False)
class WaitingRequest:
    """A request in the line. ``costs`` [n] are the tokens of its rows in the order in which they
    are asked, ``parsed`` is what was made of them, ``caller`` who is told; ``deadline`` by the clock
    that ``Line`` is given. ``abandoned``: nobody waits for it any more."""

    parsed: Any
    costs: Sequence[int]
    caller: Any = None
    deadline: float = math.inf
    abandoned: bool = False
    expired: bool = False
    taken: int = 0
    answered: int = 0
    tag: float = 0.0
    arrival: int = 0

    @property
    def tokens_left(self) -> int:
        """Tokens that nobody took yet."""
        return sum(self.costs[self.taken :])


@dataclass(slots=True)
class EngineTurn:
    """What is asked together: of each request some of its rows, by their places in its order."""

    parts: list[tuple[WaitingRequest, range]] = field(default_factory=list)
    tokens: int = 0
    rows: int = 0

    @classmethod
    def of_request(cls, request: WaitingRequest, places: range) -> EngineTurn:
        """A turn of one request alone."""
        costs = request.costs[places.start : places.stop]
        return cls([(request, places)], sum(costs), len(costs))


class RequestQueue:
    """Requests in the order in which their rows are answered. Not to be used by two threads at
    once.

    ``rows`` and ``tokens`` wait now; ``dropped`` counts requests that cost no time because nobody
    waited for them any more, by the reason.
    """

    def __init__(self, limits: QueueLimits = QueueLimits()) -> None:
        self.limits = limits
        self.rows = 0
        self.tokens = 0
        self.dropped = {"gone": 0, "late": 0}
        self._heap: list[tuple[float, int, WaitingRequest]] = []
        self._virtual_time = 0.0
        self._arrivals = 0

    def __len__(self) -> int:
        """Requests of which no row was taken, or not all."""
        return len(self._heap)

    def refuse(self, rows: int, pace: float) -> None:
        """Raise ``Full`` where ``rows`` more may not wait; ``pace`` is seconds a token."""
        for unit, waiting, extra, limit in (
            ("rows", self.rows, rows, self.limits.rows),
            ("tokens", self.tokens, 0, self.limits.tokens),
        ):
            if waiting and waiting + extra > limit:
                because = f"{waiting:,} {unit} are waiting, and at most {limit:,} may"
                raise QueueFull(self._retry_after(self.tokens * pace), because)

    def add(self, request: WaitingRequest, now: float, pace: float) -> None:
        """Let a request wait. Raises ``Full`` where too much is waiting already, or where it would
        not be answered by its deadline, ``Late`` where it would not even alone: to come again helps
        the former only. ``pace`` is seconds a token."""
        self.refuse(len(request.costs), pace)
        tokens = sum(request.costs)
        if now + tokens * pace > request.deadline:
            raise DeadlineExceeded
        wait_s = self.ahead(tokens) * pace
        if wait_s > self.limits.max_wait_s:
            because = f"its turn would come in {wait_s:.1f} s, at most {self.limits.max_wait_s:g} s may"
            raise QueueFull(self._retry_after(wait_s), because)
        if now + wait_s + tokens * pace > request.deadline:
            because = (
                f"it would be answered in {wait_s + tokens * pace:.1f} s, and its time is over then"
            )
            raise QueueFull(self._retry_after(wait_s), because)
        request.tag, request.arrival = self._virtual_time, self._arrivals
        self._arrivals += 1
        self.rows += len(request.costs)
        self.tokens += tokens
        heapq.heappush(self._heap, (request.tag, request.arrival, request))

    def ahead(self, tokens: int) -> int:
        """Tokens that are answered before the last row of a request of ``tokens`` tokens, at most:
        everything that waits, or as many of each request as of the new one."""
        return min(self.tokens, len(self._heap) * tokens)

    def _retry_after(self, seconds: float) -> float:
        """When to come again [whole s]: when what waits is below its bound."""
        return float(max(1, math.ceil(seconds - self.limits.max_wait_s)))

    def next_turn(self, now: float, max_tokens: int) -> EngineTurn | None:
        """Rows of at most ``max_tokens`` tokens (or one row), those of the smallest tags; ``None`` where
        nobody waits. Who is gone or late by ``now`` is dropped."""
        turn = EngineTurn()
        while self._heap:
            request = self._heap[0][2]
            if request.abandoned or request.deadline <= now:
                heapq.heappop(self._heap)
                self.rows -= len(request.costs) - request.taken
                self.tokens -= request.tokens_left
                request.expired = not request.abandoned
                self.dropped["late" if request.expired else "gone"] += 1
                continue
            cost = request.costs[request.taken]
            if turn.rows and turn.tokens + cost > max_tokens:
                break
            heapq.heappop(self._heap)
            self._take_rows(request, turn, max_tokens)
        if not self._heap:
            self._virtual_time = 0.0
        return turn if turn.rows else None

    def _take_rows(self, request: WaitingRequest, turn: EngineTurn, max_tokens: int) -> None:
        """The request's next rows, as long as no other's turn is before."""
        first = request.taken
        next_tag = self._heap[0][:2] if self._heap else (math.inf, 0)
        while request.taken < len(request.costs) and (request.tag, request.arrival) <= next_tag:
            cost = request.costs[request.taken]
            if turn.rows and turn.tokens + cost > max_tokens:
                break
            # The one that is taken from is not in the heap.
            self._virtual_time += cost / (len(self._heap) + 1)
            request.tag += cost
            request.taken += 1
            turn.tokens += cost
            turn.rows += 1
            self.rows -= 1
            self.tokens -= cost
        if request.taken > first:
            turn.parts.append((request, range(first, request.taken)))
        if request.taken < len(request.costs):
            heapq.heappush(self._heap, (request.tag, request.arrival, request))


@dataclass(slots=True)
class Pace:
    """The mean of the last turns, in which one ``half_life_tokens`` tokens ago counts half.

    By tokens and not by turns: under load turns are large, and those are what a newcomer waits for.
    """

    half_life_tokens: float = 4096.0
    _seconds: float = field(default=0.0)
    _tokens: float = field(default=0.0)

    def add(self, tokens: int, seconds: float) -> None:
        """A turn is over."""
        decay = math.exp2(-tokens / self.half_life_tokens)
        self._seconds = self._seconds * decay + seconds
        self._tokens = self._tokens * decay + tokens

    def halve_on_refusal(self) -> None:
        """Somebody was refused by this while nobody was answered, so that no turn would ever show
        that the model is quicker by now (the machine may have stood still in the last one): the
        next ones are trusted sooner."""
        self._seconds /= 2

    @property
    def seconds(self) -> float:
        """Seconds a token; 0 where nothing was measured yet."""
        return self._seconds / self._tokens if self._tokens else 0.0
