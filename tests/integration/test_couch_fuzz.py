"""Requests that nobody meant, over every route of CouchDB's protocol: each is answered, and none with a 500."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from broker.couch.table import TABLE

from .http_tools import Served, served

SEEDS = range(8)
REQUESTS = 250
REVS = ["1-a", "2-b", "x", "", "0-1", "99999999999-a", "1-é", "1-\u0001", "-", "1-" + "f" * 32, "1-a,b"]
IDS = [
    "doc",
    "a/b",
    "_design/x",
    "_local/x",
    "_x",
    "",
    " ",
    "é😀",
    "a\u0000b",
    "x" * 600,
    "a//b",
    "%",
    "..",
    "_design/",
]
SCALARS: list[Any] = [None, True, False, 0, 1, -1, 1.5, 1 << 63, 1 << 70, 1e308, *IDS, *REVS, "all", "now", "[", "{}"]
OPTIONS = [
    *(
        "rev",
        "revs",
        "revs_info",
        "conflicts",
        "deleted_conflicts",
        "open_revs",
        "latest",
        "attachments",
        "atts_since",
    ),
    *("meta", "local_seq", "new_edits", "since", "limit", "skip", "style", "descending", "include_docs", "feed"),
    *("heartbeat", "filter", "doc_ids", "keys", "key", "startkey", "endkey", "start_key", "end_key"),
    *("inclusive_end", "update_seq", "count", "view", "states"),
]
KEYS = [
    *("docs", "new_edits", "keys", "selector", "doc_ids", "_id", "_rev", "_deleted", "_attachments", "_revisions"),
    *("_foo", "_revs_info", "n", "data", "stub", "follows", "content_type", "digest", "encoding", "start", "ids"),
    *(
        "admins",
        "members",
        "names",
        "roles",
        "name",
        "password",
        "id",
        "rev",
        "atts_since",
        "doc",
        "length",
        "revpos",
    ),
]
TYPES = [
    *(*["application/json"] * 20, "text/plain", ""),
    *("application/x-www-form-urlencoded", 'multipart/related; boundary="b"', "multipart/related", "a\u007fb"),
]
ACCEPTS = ["application/json", "multipart/mixed", "multipart/related", "*/*", ""]


class Nonsense:
    """Requests out of a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def value(self, depth: int = 0) -> Any:
        kind = self._random.random()
        if depth > 3 or kind < 0.4:
            return self._random.choice(SCALARS)
        if kind < 0.65:
            return [self.value(depth + 1) for _ in range(self._random.randrange(4))]
        return {self._random.choice([*KEYS, *IDS]): self.value(depth + 1) for _ in range(self._random.randrange(5))}

    def doc(self) -> Any:
        """What is nearly a document."""
        doc: dict[str, Any] = {"_id": self._random.choice(["doc", "new", *IDS]), "n": self.value(2)}
        for name in self._random.sample(
            ["_rev", "_deleted", "_attachments", "_revisions", "_foo", "_id"], self._random.choice([0, 0, 1, 1, 2, 3])
        ):
            doc[name] = self._special(name) if self._random.random() < 0.8 else self.value()
        return doc

    def _special(self, name: str) -> Any:
        ids = self._random.choice([["a"], ["b", "a"], [], ["é"], [""]])
        attachment = {key: self.value(2) for key in self._random.sample(KEYS, 3)} | {"data": "aGk="}
        stub = {"stub": True, "digest": self._random.choice(["md5-" + "A" * 22 + "==", "md5-x", "sha256-x", 7])}
        return {
            "_rev": self._random.choice(REVS),
            "_deleted": True,
            "_attachments": {self._random.choice(IDS): self._random.choice([attachment, stub, {"data": "aGk="}])},
            "_revisions": {"start": self._random.choice([1, 2, len(ids)]), "ids": ids},
        }.get(name, 1)

    def _or_none(self, good: Any) -> Any:
        return self._random.choice([good, good, None, self.value(2)])

    def _selector(self) -> Any:
        operator = self._random.choice(["$gt", "$in", "$regex", "$elemMatch", "$exists", "$eq", "$or", "$mod", "$no"])
        return {self._random.choice(["_id", "n", "a.b", "$or", "$and"]): {operator: self.value(1)}}

    def replication(self, *places: Any) -> dict[str, Any]:
        """What is nearly a replication, of which none takes long."""
        ends = [*places, "db", "copy", "none", "Bad", "http://", "ftp://h/x", {"url": "copy", "auth": {}}, {}, 7]
        options = {
            **{"continuous": True, "create_target": True, "cancel": self._random.random() < 0.5, "doc_ids": ["doc"]},
            **{"selector": self._selector(), "filter": "a/b", "since_seq": 0, "_id": self._random.choice(IDS)},
            **{"_rev": self._random.choice(REVS), "_deleted": True, "_replication_state": "x", "id": "x"},
        }
        given = {name: options[name] for name in self._random.sample(sorted(options), self._random.choice([0, 1, 2]))}
        found = {
            "source": self._random.choice(["db", *ends]),
            "target": self._random.choice(["copy", *ends]),
            **given,
        }
        if self._random.random() < 0.2:
            found[self._random.choice(sorted(found))] = self.value(1)
        return found

    def shaped(self, template: str) -> Any:
        """What is nearly what an endpoint wants."""
        if template == "/_replicate":
            return self.replication()
        if template.startswith("/_replicator"):
            far = ("http://127.0.0.1:9/x", {"url": "https://u:p@127.0.0.1:9/x"})
            docs = [self.replication(*far) for _ in range(3)]
            return {"docs": docs} if template.endswith("_bulk_docs") else docs[0]
        ids, revs = self._random.sample(IDS, 2), self._random.sample(REVS, 2)
        shapes: dict[str, Any] = {
            "_bulk_docs": {"docs": [self.doc() for _ in range(3)], "new_edits": self._random.random() < 0.5},
            "_bulk_get": {"docs": [{"id": id, "rev": rev} for id, rev in zip(ids, revs, strict=True)]},
            "_revs_diff": dict.fromkeys(ids, revs),
            "_missing_revs": {"doc": revs, ids[0]: []},
            "_purge": {"doc": revs[:1]},
            "_all_docs": {"keys": [*ids, self.value()]},
            "_local_docs": {"keys": ["_local/x", *ids]},
            "_changes": {"selector": self.value(), "doc_ids": ids},
            "_revs_limit": self._random.choice([1, 1000, 0, "x"]),
            "_find": {"selector": self._selector(), "sort": self._or_none(["n"]), "fields": self._or_none(["n.a"])},
            "_explain": {"selector": self._selector(), "limit": self._or_none(3), "bookmark": self._or_none("nil")},
            "_index": {"index": {"fields": ["n"]}, "name": self._or_none("x"), "ddoc": self._or_none("y")},
            "_dbs_info": {"keys": ["db", *ids]},
            "_session": {"name": "ann", "password": self._random.choice(["x", 1])},
        }
        return shapes.get(template.rpartition("/")[2], self.doc())

    def body(self, template: str) -> bytes:
        kind = self._random.random()
        if kind < 0.6:
            return json.dumps(self.shaped(template)).encode()
        return self.nonsense()

    def nonsense(self) -> bytes:
        kind = self._random.random()
        if kind < 0.1:
            return self._random.randbytes(self._random.randrange(40))
        if kind < 0.15:
            return b"--b\r\nContent-Type: application/json\r\n\r\n" + self.nonsense() + b"\r\n--b\r\n\r\nx\r\n--b--"
        if kind < 0.5:
            value: Any = {"docs": [self.value(1) for _ in range(3)], "new_edits": self._random.random() < 0.5}
        else:
            value = self.value()
        text = json.dumps(value).encode()
        return text[: self._random.randrange(len(text) + 1)] if kind > 0.95 else text

    def query(self) -> dict[str, str]:
        given = {}
        for name in self._random.sample(OPTIONS, self._random.randrange(4)):
            value = self._random.choice(
                [*SCALARS, "true", "false", "all_docs", "longpoll", "continuous", self.value()]
            )
            given[name] = value if isinstance(value, str) else json.dumps(value)
        # So that what follows ends.
        return {**given, "timeout": "1"} if "heartbeat" not in given else {"heartbeat": given["heartbeat"]}

    def path(self, template: str) -> str:
        db = self._random.choice([*["db"] * 20, "none", "Bad", "a%2Fb", "%ff"])
        path = template.replace("{db}", db)
        for name in ("{id}", "{design}", "{name...}", "{local...}", "{view}", "{index...}", "{job}", "{nothing...}"):
            path = path.replace(name, quote(self._random.choice(IDS), safe=self._random.choice(["", "/"])))
        return "/couch" + path

    def headers(self) -> dict[str, str]:
        found = {"Content-Type": self._random.choice(TYPES), "Accept": self._random.choice(ACCEPTS)}
        for name in ("If-Match", "If-None-Match", "Destination", "Range", "Content-MD5", "Last-Event-ID"):
            if self._random.random() < 0.1:
                found[name] = self._random.choice([*REVS, "bytes=0-3", "x?rev=1-a", "*", '"1-a"'])
        return {name: value for name, value in found.items() if value.isascii() and value.isprintable()}


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as running:
        yield running


@pytest.mark.parametrize("seed", SEEDS)
async def test_no_request_makes_the_service_fail(web: Served, seed: int) -> None:
    nonsense, row = Nonsense(seed), TABLE[0]
    for number in range(REQUESTS):
        if number % 10 == 0 or row.template == "/{db}":  # by which it may be gone
            await web.client.put("/couch/db")
            await web.client.put("/couch/db/doc", json={"_attachments": {"a": {"data": "aGk="}}})
        row = TABLE[(seed * REQUESTS + number) % len(TABLE)]
        path, query, body = nonsense.path(row.template), nonsense.query(), nonsense.body(row.template)
        request = web.client.build_request(
            row.method, path, params=query, content=body if row.method != "GET" else None, headers=nonsense.headers()
        )
        answer = await web.client.send(request, stream=True)
        told = (row.method, str(request.url), body, answer.status_code)
        assert answer.status_code < 500, (told, await answer.aread())
        if answer.status_code >= 400:
            refusal = json.loads(await answer.aread())
            assert isinstance(refusal["error"], str) and isinstance(refusal["reason"], str), told
        await answer.aclose()
    assert web.store.check().problems == []
