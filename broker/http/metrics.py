"""Counting requests, and showing the figures of every part to Prometheus.

The figures come from the parts' own `stats()`; this module only names them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from broker.http.services import Gauges

# From a cached read (0.3 ms) to a write that waited behind a large group.
_BUCKETS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_METHODS: Final = frozenset(("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "WEBSOCKET"))
_OTHER: Final = "other"
_NO_NAME: Final = re.compile(r"[^a-zA-Z0-9_]")


class HttpMetrics:
    """Requests by route and status, and how long their answers took."""

    def __init__(self, registry: CollectorRegistry, gauges: Gauges) -> None:
        self._registry = registry
        self._requests = Counter(
            "spile_http_requests", "HTTP requests answered", ("method", "route", "status"), registry=registry
        )
        self._seconds = Histogram(
            "spile_http_request_seconds",
            "Seconds from a request's headers to its answer's last byte; live feeds are left out",
            ("method", "route"),
            registry=registry,
            buckets=_BUCKETS_S,
        )
        self._counters: dict[tuple[str, str, int], Any] = {}
        self._histograms: dict[tuple[str, str], Any] = {}
        registry.register(_Parts(gauges))

    def observe(self, method: str, route: str, status: int, seconds: float | None) -> None:
        """Count an answer; `seconds` is None for one that has no end of its own."""
        if method not in _METHODS:
            method = _OTHER
        key = (method, route, status)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = self._requests.labels(method, route, str(status))
        counter.inc()
        if seconds is None:
            return
        histogram = self._histograms.get((method, route))
        if histogram is None:
            histogram = self._histograms[method, route] = self._seconds.labels(method, route)
        histogram.observe(seconds)

    def text(self) -> bytes:
        """Everything in the registry, in Prometheus' text format."""
        return generate_latest(self._registry)


class _Parts(Collector):
    def __init__(self, gauges: Gauges) -> None:
        self._gauges = gauges

    def describe(self) -> Iterator[GaugeMetricFamily]:
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for part, stats in self._gauges.items():
            for key, value in stats().items():
                yield from _families(f"spile_{part}_{key}", f"{part}: {key}", value)


def _families(name: str, about: str, value: Any) -> Iterator[GaugeMetricFamily]:
    """A number, figures by name, or of a list how long it is."""
    name = _NO_NAME.sub("_", name)
    if _is_number(value):
        yield GaugeMetricFamily(name, about, value=float(value))
    elif isinstance(value, Mapping):
        yield from _by_name(name, about, value)
    elif isinstance(value, list):
        yield GaugeMetricFamily(name, about, value=float(len(value)))


def _by_name(name: str, about: str, values: Mapping[str, Any]) -> Iterator[GaugeMetricFamily]:
    families: dict[str, GaugeMetricFamily] = {}
    for label, value in values.items():
        figures = value if isinstance(value, Mapping) else {"": value}
        for key, figure in figures.items():
            if _is_number(figure):
                full = _NO_NAME.sub("_", f"{name}_{key}" if key else name)
                family = families.setdefault(
                    full, GaugeMetricFamily(full, f"{about} {key}".strip(), labels=("name",))
                )
                family.add_metric([str(label)], float(figure))
    yield from families.values()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)
