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
# From the fastest answer of a small model to the longest time that a client waits.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
MAX_GAUGES = 100

Gauges = Callable[[], Mapping[str, float]]
ObserverSummaries = Callable[[], Mapping[str, Mapping[str, Any]]]


class ServiceCounters(Collector):
    """Counters of one service. ``gauges`` are read when Prometheus scrapes, ``summaries`` are those
    of the observers (their top-level numbers become gauges), ``facts`` the labels of
    ``holdfast_model_info``."""

    def __init__(
        self, gauges: Gauges, summaries: ObserverSummaries, facts: Callable[[], Mapping[str, str]]
    ) -> None:
        # Without this, each counter has a second series with its creation time.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry(auto_describe=False)
        counter = partial(Counter, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self._requests = counter(
            "holdfast_requests", "Responses sent, by endpoint and status", ["endpoint", "status"]
        )
        self._seconds = histogram(
            "holdfast_request_seconds",
            "Seconds from the headers of a request to its response",
            ["endpoint"],
            buckets=SECONDS,
        )
        self._rows = histogram(
            "holdfast_request_rows", "Rows per request that the model predicted", buckets=ROWS
        )
        self._refused = counter("holdfast_refused", "Refused requests, by reason", ["reason"])
        self._abstained = counter(
            "holdfast_rows_left_to_a_person",
            "Rows without a prediction: below the threshold, or without a text",
        )
        self._gone = counter(
            "holdfast_clients_gone", "Clients that disconnected before their response was ready"
        )
        self._gauges, self._summaries, self._facts = gauges, summaries, facts
        self.registry.register(self)
        self._label_cache: dict[tuple[str, int], tuple[Any, Any]] = {}

    def count_answer(self, endpoint: str, status: int, seconds: float) -> None:
        """Count a response that was sent."""
        pair = self._label_cache.get((endpoint, status))
        if pair is None:
            pair = (self._requests.labels(endpoint, str(status)), self._seconds.labels(endpoint))
            self._label_cache[endpoint, status] = pair
        pair[0].inc()
        pair[1].observe(seconds)

    def count_rows(self, rows: int, abstained: int) -> None:
        """Count predicted rows, ``abstained`` of them without a prediction."""
        self._rows.observe(rows)
        if abstained:
            self._abstained.inc(abstained)

    def count_refusal(self, reason: str) -> None:
        """Count a refused request."""
        self._refused.labels(reason.replace(" ", "_")).inc()

    def count_hangup(self) -> None:
        """Count a client that hung up before its response was ready."""
        self._gone.inc()

    def text(self) -> bytes:
        """All metrics, in the format of ``/metrics``."""
        return bytes(generate_latest(self.registry))

    def collect(self) -> Iterable[Metric]:
        """The gauges that are computed at each scrape, in addition to the counters."""
        for name, value in self._gauges().items():
            yield _gauge(f"holdfast_{name}", "Present value", value)
        facts = self._facts()
        help_text = "The model in service"
        info = GaugeMetricFamily("holdfast_model_info", help_text, labels=list(facts))
        info.add_metric(list(facts.values()), 1)
        yield info
        for observer, summary in self._summaries().items():
            help_text = f"Reported by the observer {observer}"
            for name, value in list(numbers(summary))[:MAX_GAUGES]:
                yield _gauge(f"holdfast_{observer}_{name}", help_text, value)


def numbers(summary: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The top-level numbers and booleans, under names that Prometheus accepts."""
    for name, value in summary.items():
        if isinstance(value, (bool, int, float)) and math.isfinite(value):
            yield "".join(c if c.isascii() and c.isalnum() else "_" for c in name), float(value)


def _gauge(name: str, help_: str, value: float) -> Metric:
    family_class = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    family: Metric = family_class(name, help_)
    family.add_metric([], value)  # type: ignore[attr-defined]
    return family
