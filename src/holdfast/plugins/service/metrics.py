"""``ServiceCounters``: the service's own numbers in Prometheus's text format.

Names and units follow its conventions (seconds, bytes, ``_total``). No label holds anything that a
caller chose: paths are those of the endpoints, so that nobody can make new series without end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

TYPE = CONTENT_TYPE_LATEST
# From an answer of a small model to the longest that is waited for.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
MOST_GAUGES = 100

Now = Callable[[], Mapping[str, float]]
Said = Callable[[], Mapping[str, Mapping[str, Any]]]


class ServiceCounters(Collector):
    """Counters of one service. ``now`` are gauges that are asked for when somebody looks, ``said``
    what each observer says (the numbers of its first level become gauges), ``facts`` the labels of
    ``holdfast_model_info``."""

    def __init__(self, now: Now, said: Said, facts: Callable[[], Mapping[str, str]]) -> None:
        # A second series for each that says when it began, which nobody here asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry(auto_describe=False)
        counter = partial(Counter, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self._requests = counter(
            "holdfast_requests",
            "Answers that were given, by endpoint and status",
            ["endpoint", "status"],
        )
        self._seconds = histogram(
            "holdfast_request_seconds",
            "From the read head of a request to its sent answer",
            ["endpoint"],
            buckets=SECONDS,
        )
        self._rows = histogram(
            "holdfast_request_rows",
            "Rows of a request that was answered by the model",
            buckets=ROWS,
        )
        self._refused = counter(
            "holdfast_refused", "Requests that were refused, by reason", ["reason"]
        )
        self._left = counter(
            "holdfast_rows_left_to_a_person",
            "Rows without a prediction: below the threshold, or nothing to read",
        )
        self._gone = counter(
            "holdfast_clients_gone", "Clients that hung up before their answer was ready"
        )
        self._now, self._said, self._facts = now, said, facts
        self.registry.register(self)
        self._known: dict[tuple[str, int], tuple[Any, Any]] = {}

    def answered(self, endpoint: str, status: int, seconds: float) -> None:
        """An answer went out."""
        found = self._known.get((endpoint, status))
        if found is None:
            found = (self._requests.labels(endpoint, str(status)), self._seconds.labels(endpoint))
            self._known[endpoint, status] = found
        found[0].inc()
        found[1].observe(seconds)

    def predicted(self, rows: int, left: int) -> None:
        """So many rows were answered, ``left`` of them without a prediction."""
        self._rows.observe(rows)
        if left:
            self._left.inc(left)

    def refused(self, reason: str) -> None:
        """A request was refused."""
        self._refused.labels(reason.replace(" ", "_")).inc()

    def gone(self) -> None:
        """A client hung up before its answer was ready."""
        self._gone.inc()

    def text(self) -> bytes:
        """All of it, as ``/metrics`` gives it."""
        return bytes(generate_latest(self.registry))

    def collect(self) -> Iterable[Metric]:
        """What is asked for at each look, beside the counters."""
        for name, value in self._now().items():
            yield _gauge(f"holdfast_{name}", "Now", value)
        facts = self._facts()
        what = "The model that answers"
        info = GaugeMetricFamily("holdfast_model_info", what, labels=list(facts))
        info.add_metric(list(facts.values()), 1)
        yield info
        for observer, words in self._said().items():
            what = f"Said by the observer {observer}"
            for name, value in list(numbers(words))[:MOST_GAUGES]:
                yield _gauge(f"holdfast_{observer}_{name}", what, value)


def numbers(words: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers and truths of the first level, under names that Prometheus takes."""
    for name, value in words.items():
        if isinstance(value, (bool, int, float)) and math.isfinite(value):
            yield "".join(c if c.isascii() and c.isalnum() else "_" for c in name), float(value)


def _gauge(name: str, help_: str, value: float) -> Metric:
    kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    family: Metric = kind(name, help_)
    family.add_metric([], value)  # type: ignore[attr-defined]
    return family
