"""Which request is answered next: requests wait in one queue, and every turn takes a fair share of
each.

Fair queueing (Demers, Keshav and Shenker, SIGCOMM 1989), with tokens for bits. The queue has a
virtual time V, in which every waiting request gets one token per tick: taking t tokens while n
requests wait advances V by t ÷ n. A request that arrives at V has, at its row i, the tag V + the
tokens of its rows before i; the rows with the smallest tags are next. So a request of one row does
not wait for the thousand rows of another, and the large one continues at its share, however many
small ones arrive.

This module only keeps records and computes: no thread, no clock and no model.
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
    """What may wait: at most ``rows`` and ``tokens`` in total, and only while a new request would
    be answered within ``max_wait_s``. A single request may have as many rows as all together."""

    rows: int = 10_000
    tokens: int = 1_000_000
    max_wait_s: float = 1.0


@dataclass(slots=True, eq=False)
class WaitingRequest:
    """A request in the queue. ``costs`` [n] are the tokens of its rows in the order of prediction,
    ``parsed`` the parsed rows, ``caller`` the future to set, ``deadline`` a time of the clock that
    the queue is given. ``abandoned``: nobody waits for it any more."""

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
        """Tokens of the rows that no turn has taken yet."""
        return sum(self.costs[self.taken :])


@dataclass(slots=True)
class EngineTurn:
    """Rows that are predicted together: of each request some rows, by their positions in its
    order."""

    parts: list[tuple[WaitingRequest, range]] = field(default_factory=list)
    tokens: int = 0
    rows: int = 0

    @classmethod
    def of_request(cls, request: WaitingRequest, places: range) -> EngineTurn:
        """A turn with only one request."""
        costs = request.costs[places.start : places.stop]
        return cls([(request, places)], sum(costs), len(costs))


class RequestQueue:
    """Requests in the order in which their rows are answered. Not thread-safe.

    ``rows`` and ``tokens`` are those waiting now; ``dropped`` counts requests that were skipped
    because nobody waited for them any more, by reason.
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
        """Requests with rows that no turn has taken yet."""
        return len(self._heap)

    def refuse(self, rows: int, pace: float) -> None:
        """Raise ``QueueFull`` where ``rows`` more may not wait; ``pace`` is seconds per token."""
        for unit, waiting, extra, limit in (
            ("rows", self.rows, rows, self.limits.rows),
            ("tokens", self.tokens, 0, self.limits.tokens),
        ):
            if waiting and waiting + extra > limit:
                because = f"{waiting:,} {unit} are waiting; the limit is {limit:,}"
                raise QueueFull(self._retry_after(self.tokens * pace), because)

    def add(self, request: WaitingRequest, now: float, pace: float) -> None:
        """Let a request wait. Raises ``QueueFull`` where too much is waiting already, or where the
        request would miss its deadline in the queue; ``DeadlineExceeded`` where it would miss it
        even with an empty queue. A retry helps only in the first case. ``pace`` is in seconds per
        token."""
        self.refuse(len(request.costs), pace)
        tokens = sum(request.costs)
        if now + tokens * pace > request.deadline:
            raise DeadlineExceeded
        wait_s = self.ahead(tokens) * pace
        if wait_s > self.limits.max_wait_s:
            because = f"the wait would be {wait_s:.1f} s; the limit is {self.limits.max_wait_s:g} s"
            raise QueueFull(self._retry_after(wait_s), because)
        if now + wait_s + tokens * pace > request.deadline:
            because = f"the response would take {wait_s + tokens * pace:.1f} s, after its deadline"
            raise QueueFull(self._retry_after(wait_s), because)
        request.tag, request.arrival = self._virtual_time, self._arrivals
        self._arrivals += 1
        self.rows += len(request.costs)
        self.tokens += tokens
        heapq.heappush(self._heap, (request.tag, request.arrival, request))

    def ahead(self, tokens: int) -> int:
        """Tokens that are answered before the last row of a request of ``tokens`` tokens, at most:
        all that wait, or as many of each request as of the new one."""
        return min(self.tokens, len(self._heap) * tokens)

    def _retry_after(self, seconds: float) -> float:
        """When to retry [whole s]: once the waiting time is below its limit."""
        return float(max(1, math.ceil(seconds - self.limits.max_wait_s)))

    def next_turn(self, now: float, max_tokens: int) -> EngineTurn | None:
        """Rows of at most ``max_tokens`` tokens (or one row), those with the smallest tags;
        ``None`` where none wait. Requests that are abandoned or past their deadline at ``now`` are
        dropped."""
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
        """Take the request's next rows until another request comes first."""
        first = request.taken
        next_tag = self._heap[0][:2] if self._heap else (math.inf, 0)
        while request.taken < len(request.costs) and (request.tag, request.arrival) <= next_tag:
            cost = request.costs[request.taken]
            if turn.rows and turn.tokens + cost > max_tokens:
                break
            # The request that rows are taken from is not in the heap.
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
    """The running mean of seconds per token, in which a turn ``half_life_tokens`` ago counts half.

    It is weighted by tokens, not by turns: under load turns are large, and those are what a new
    request waits for.
    """

    half_life_tokens: float = 4096.0
    _seconds: float = field(default=0.0)
    _tokens: float = field(default=0.0)

    def add(self, tokens: int, seconds: float) -> None:
        """Add a finished turn."""
        decay = math.exp2(-tokens / self.half_life_tokens)
        self._seconds = self._seconds * decay + seconds
        self._tokens = self._tokens * decay + tokens

    def halve_on_refusal(self) -> None:
        """Trust the next turns sooner. Called when a request is refused while none is running:
        without turns, no measurement would ever show that the model is faster again."""
        self._seconds /= 2

    @property
    def seconds(self) -> float:
        """Seconds per token; 0 where nothing was measured yet."""
        return self._seconds / self._tokens if self._tokens else 0.0
