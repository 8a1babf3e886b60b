"""Gauges of who is how far behind, by barrel and name.

Names are made by clients, so that a bound is on each kind: beyond it those furthest behind are shown, and the others
counted as left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from broker.lags import Lags, worst

SHOWN_MAX: Final = 200
"""Listeners, streams and publishers that get series of their own, of each."""

_LABELS: Final = {
    "listener": ("barrel", "listener"),
    "stream": ("barrel", "client", "stream"),
    "publisher": ("barrel", "broker"),
}


class LagCollector(Collector):
    """The figures of the newest look; none before the first."""

    def __init__(self, lags: Lags) -> None:
        self._lags = lags

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing: what is shown depends on who follows."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The families, in a fixed order."""
        report = self._lags.latest
        if report is None:
            return
        yield GaugeMetricFamily("spile_lag_age_seconds", "seconds since the look", value=self._lags.age_s)
        left_out = GaugeMetricFamily("spile_lag_left_out", "not shown, of each kind", labels=("kind",))
        named = [(each, (each.barrel, each.name)) for each in worst_of(report.listeners, "listener", left_out)]
        streams = worst_of(report.streams, "stream", left_out)
        told = worst_of(report.publishers, "publisher", left_out)
        yield from _behind("listener", named)
        yield _family("listener", "connected", named, lambda each: each.connected)
        yield _family("listener", "snapshot", named, lambda each: each.snapshot)
        yield from _behind("stream", [(each, (each.barrel, each.client, each.stream)) for each in streams])
        yield from _behind("publisher", [(each, (each.barrel, each.broker)) for each in told])
        yield left_out


def worst_of(found: Sequence[Any], kind: str, left_out: GaugeMetricFamily) -> list[Any]:
    """Those that are shown; how many are not is told in `left_out`."""
    shown, others = worst(found, SHOWN_MAX)
    left_out.add_metric([kind], others)
    return shown


Labelled = Iterable[tuple[Any, Sequence[str]]]


def _behind(kind: str, found: Labelled) -> Iterator[GaugeMetricFamily]:
    yield _family(kind, "seq_behind", found, lambda each: each.seq_behind)
    yield _family(kind, "seconds_behind", found, lambda each: each.seconds_behind)


def _family(kind: str, figure: str, found: Labelled, value: Callable[[Any], float]) -> GaugeMetricFamily:
    name = f"spile_{kind}_{figure}"
    family = GaugeMetricFamily(name, f"{kind}: {figure}", labels=_LABELS[kind])
    for each, labels in found:
        family.add_metric(list(labels), float(value(each)))
    return family
