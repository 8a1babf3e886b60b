"""What the service tells about itself: who it is, how its parts are, its figures, and its description."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from broker.health import worst
from broker.http.answers import Answer, json_answer
from broker.http.call import Call
from broker.http.endpoint import Route, route
from broker.http.metrics import HttpMetrics
from broker.http.openapi import describe
from broker.lags import Lags

_PROMETHEUS = b"text/plain; version=0.0.4; charset=utf-8"


def routes(metrics: HttpMetrics, lags: Lags, all_routes: Callable[[], Sequence[Route]]) -> list[Route]:
    """The routes; the description is of `all_routes`, asked for once everything stands."""
    described: list[Answer] = []

    async def show_metrics(call: Call) -> Answer:
        call.allow("read")
        await lags.look()
        return Answer(200, metrics.text(), content_type=_PROMETHEUS)

    async def show_description(call: Call) -> Answer:
        if not described:
            described.append(json_answer(describe(all_routes(), call.services.version)))
        return described[0]

    return [
        route("GET", "/", "welcome", welcome),
        route("GET", "/health", "health", health),
        route("GET", "/metrics", "metrics", show_metrics),
        route("GET", "/openapi.json", "description", show_description),
    ]


async def welcome(call: Call) -> Answer:
    """Who answers here, which version, and as whom it sees the client."""
    services = call.services
    return json_answer({"service": "spile", "version": services.version, "store": services.store.id, "you": call.who})


async def health(call: Call) -> Answer:
    """The state of every part: 503 while one refuses what it is there for. Open to everyone: probes have no user."""
    parts = call.services.health()
    ok = all(part.ok for part in parts.values())
    told = {name: part.as_dict() for name, part in parts.items()}
    body = {"ok": ok, "state": worst(parts), "version": call.services.version, "parts": told}
    return json_answer(body, 200 if ok else 503)
