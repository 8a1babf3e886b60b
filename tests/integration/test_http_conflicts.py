"""Conflicts over HTTP, on a real store and a real server."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .http_tools import Served, served

PLACE = "/barrels/geo/conflicts"


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as running:
        geo = running.store.create("geo")
        for side in "ab":
            geo.bulk([{"_id": "fr/paris", "_rev": f"1-{side}", "side": side}], new_edits=False)
        yield running


async def test_conflicts_are_listed_shown_and_resolved(web: Served) -> None:
    listed = (await web.client.get(PLACE)).json()
    assert listed == {
        "results": [{"id": "fr/paris", "rev": "1-b", "conflicts": ["1-a"], "seq": 2}],
        "next": None,
    }
    for place in (f"{PLACE}/fr/paris", f"{PLACE}/fr%2Fparis"):
        shown = (await web.client.get(place)).json()
        assert [(leaf["_rev"], leaf["side"]) for leaf in shown["leaves"]] == [("1-b", "b"), ("1-a", "a")]
    chosen = await web.client.post(f"{PLACE}/fr/paris", json={"rev": "1-a", "leaves": ["1-a", "1-b"]})
    assert (chosen.status_code, chosen.json()["rev"], chosen.headers["etag"]) == (200, "1-a", '"1-a"')
    assert (await web.client.get(PLACE)).json()["results"] == []


async def test_a_document_stands_in_place_of_all_and_is_written_once_by_its_key(web: Served) -> None:
    answers = [
        await web.client.post(
            f"{PLACE}/fr/paris",
            content=b'{"doc": {"side": "both", "n": 12345678901234567}}',
            headers={"Idempotency-Key": "k"},
        )
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json()["rev"] == answers[1].json()["rev"]
    read = (await web.client.get("/barrels/geo/docs/fr/paris", params={"conflicts": "true"})).json()
    assert (read["side"], read["n"]) == ("both", 12345678901234567)
    assert "_conflicts" not in read


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"{}", 400, "bad_request"),
        (b"", 400, "bad_request"),
        (b"[1]", 400, "bad_request"),
        (b'{"rev": "1-a", "doc": {}}', 400, "bad_request"),
        (b'{"rev": 1}', 400, "bad_request"),
        (b'{"rev": "x"}', 400, "bad_request"),
        (b'{"doc": 5}', 400, "bad_request"),
        (b'{"doc": {"_id": "other"}}', 400, "bad_request"),
        (b'{"rev": "1-a", "more": 1}', 400, "bad_request"),
        (b'{"rev": "1-c"}', 409, "conflict"),
        (b'{"rev": "1-a", "leaves": ["1-a"]}', 409, "conflict"),
    ],
)
async def test_a_resolution_that_makes_no_sense_is_refused(web: Served, body: bytes, status: int, error: str) -> None:
    answer = await web.client.post(f"{PLACE}/fr/paris", content=body)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert answer.json()["hint"]


async def test_what_is_not_there_is_not_found(web: Served) -> None:
    assert (await web.client.get("/barrels/never/conflicts")).status_code == 404
    assert (await web.client.get(f"{PLACE}/never")).status_code == 404
    assert (await web.client.post(f"{PLACE}/never", json={"rev": "1-a"})).status_code == 404
    assert (await web.client.get(PLACE, params={"limit": "0"})).status_code == 400


async def test_a_rule_is_set_and_taken_away(web: Served) -> None:
    rule = {"rule": "newest", "field": "at"}
    answer = await web.client.patch("/barrels/geo", json={"merge": rule})
    assert answer.json()["settings"]["merge"] == rule
    assert (await web.client.patch("/barrels/geo", json={"merge": {"rule": "no"}})).status_code == 400
    assert (await web.client.patch("/barrels/geo", json={"merge": None})).json()["settings"]["merge"] is None
