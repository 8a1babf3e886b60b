"""Finding documents by their ids on the command line, in a store and through a service."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cli_tools import Service, spile

from feeds import Store

IDS = ["FRA", "FRX", "a/b c", "a/50%", "é"]


@pytest.fixture(scope="module", params=["database", "url"])
def at(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    data = tmp_path_factory.mktemp("data")
    with Store.open(data) as store:
        store.create("geo").bulk([{"_id": id, "n": number} for number, id in enumerate(IDS)])
    if request.param == "database":
        yield "--database", str(data)
        return
    with Service(data) as running:
        yield "--url", running.url


@pytest.mark.parametrize(
    ("question", "ids"),
    [
        (["_id/FRA"], ["FRA"]),
        (["_id/+"], ["FRA", "FRX", "é"]),
        (["_id/#"], ["FRA", "FRX", "a/50%", "a/b c", "é"]),
        (["_id/a/#", "--descending"], ["a/b c", "a/50%"]),
        (["_id/a/b c"], ["a/b c"]),
        (["_id/a/50%"], ["a/50%"]),
        (["_id", "--prefix", "FR"], ["FRA", "FRX"]),
        (["_id", "--from", "FRB", "--to", "b", "--limit", "2"], ["FRX", "a/50%"]),
        (["_id/none"], []),
    ],
)
def test_documents_are_found_by_id(at: tuple[str, str], question: list[str], ids: list[str]) -> None:
    ended = spile("find", "geo", *question, *at)
    assert (ended.code, [hit["id"] for hit in ended.values]) == (0, ids)


def test_a_found_document_comes_with_its_path(at: tuple[str, str]) -> None:
    hit = spile("find", "geo", "_id/a/50%", "--docs", *at).value
    assert (hit["path"], hit["value"], hit["doc"]["n"]) == ("_id/a/50%25", "a/50%", 3)
