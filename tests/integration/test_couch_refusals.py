"""Requests that are refused before their endpoint is asked: told in CouchDB's words, so that a page can read them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from broker.http import HttpLimits
from broker.regulation import Regulation, Regulator

from .couch_db import DB
from .http_tools import Served, served

PAGE = "https://app.example"
FROM_PAGE = {"Origin": PAGE}
PAGES = frozenset([PAGE])


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Served]:
    limits = HttpLimits(origins=PAGES, hosts=frozenset(["127.0.0.1"]), document_bytes_max=1000, live_max=1)
    async with served(tmp_path, limits=limits) as running:
        running.store.create("db")
        yield running


def assert_readable(answer: httpx.Response, status: int, error: str) -> None:
    """In CouchDB's words, and a page of the allowed origin may read them."""
    assert (answer.status_code, answer.json()["error"]) == (status, error), answer.text
    assert answer.json().keys() == {"error", "reason"}
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["access-control-allow-credentials"] == "true"


async def test_a_method_that_is_not_served(web: Served) -> None:
    for place in (DB, f"{DB}/_all_docs", "/couch/_nothing/here"):
        answer = await web.client.request("PATCH", place, headers=FROM_PAGE)
        assert_readable(answer, 405, "method_not_allowed")
        assert "GET" in answer.headers["allow"]


async def test_an_address_where_nothing_is(web: Served) -> None:
    assert_readable(await web.client.get("/couch/_nothing/here", headers=FROM_PAGE), 404, "not_found")


async def test_a_name_that_the_service_does_not_go_by(web: Served) -> None:
    assert_readable(await web.client.get(DB, headers={**FROM_PAGE, "Host": "evil.example"}), 403, "forbidden")


async def test_a_page_of_another_origin_reads_nothing_of_its_refusal(web: Served) -> None:
    answer = await web.client.put(f"{DB}/doc", json={}, headers={"Origin": "https://evil.example"})
    assert (answer.status_code, answer.json().keys()) == (403, {"error", "reason"})
    assert "access-control-allow-origin" not in answer.headers


async def test_a_body_that_is_too_large(web: Served) -> None:
    answer = await web.client.put(f"{DB}/doc", json={"a": "x" * 2000}, headers=FROM_PAGE)
    assert_readable(answer, 413, "too_large")


async def test_a_live_feed_more_than_there_may_be(web: Served) -> None:
    web.app.admission.live.take(1)
    answer = await web.client.get(f"{DB}/_changes?feed=continuous", headers=FROM_PAGE)
    assert_readable(answer, 503, "service_unavailable")
    assert answer.headers["retry-after"]


async def test_more_requests_than_there_may_be(tmp_path: Path) -> None:
    async with served(tmp_path, limits=HttpLimits(origins=PAGES, requests_max=1)) as web:
        web.app.admission.requests.take(1)
        answer = await web.client.get(DB, headers=FROM_PAGE)
        assert_readable(answer, 503, "service_unavailable")
        assert answer.headers["retry-after"]
        assert (await web.client.get("/barrels")).json().keys() > {"error", "reason"}  # its own words elsewhere


async def test_a_client_beyond_its_rate(tmp_path: Path) -> None:
    slow = Regulator(Regulation(units_per_s=1, units_burst=1))
    async with served(tmp_path, limits=HttpLimits(origins=PAGES), regulator=slow) as web:
        web.store.create("db")
        answers = [await web.client.get(DB, headers=FROM_PAGE) for _ in range(20)]
        refused = [answer for answer in answers if answer.status_code != 200]
        assert refused
        assert_readable(refused[0], 429, "too_many_requests")
        assert refused[0].headers["retry-after"]


async def test_what_the_service_itself_got_wrong(web: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("broker.couch.databases.database_info", fails)
    assert_readable(await web.client.get(DB, headers=FROM_PAGE), 500, "internal_server_error")
