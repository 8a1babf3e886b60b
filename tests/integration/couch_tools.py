"""CouchDB's replicator as it was recorded, step by step, in raw requests; and what its tests share."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

JSON = {"Content-Type": "application/json"}
_BOUNDARY = re.compile(r'boundary="?([^";]+)"?')


def md5(data: bytes) -> str:
    """The digest of a content as CouchDB writes it."""
    return "md5-" + b64encode(hashlib.md5(data).digest()).decode()


def parts_of(body: bytes, content_type: str) -> list[tuple[dict[str, str], bytes]]:
    """The parts of a multipart body: the lines of each one's head, and its bytes."""
    found = _BOUNDARY.search(content_type)
    assert found is not None, content_type
    marked = (b"\r\n" + body).split(b"\r\n--" + found[1].encode())
    assert marked[-1].strip() == b"--", marked[-1]
    parts = []
    for part in marked[1:-1]:
        head, _, data = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        lines = (line.partition(":") for line in head.decode().split("\r\n") if line)
        parts.append(({name.lower(): value.strip() for name, _, value in lines}, data))
    return parts


def related(doc: dict[str, Any], *contents: tuple[str, bytes, bool]) -> tuple[bytes, str]:
    """A document with contents behind it as CouchDB sends them, compressed where that is said; and its type."""
    lines = [b"--bound\r\nContent-Type: application/json\r\n\r\n" + json.dumps(doc).encode() + b"\r\n--bound"]
    for name, data, compressed in contents:
        sent = gzip.compress(data) if compressed else data
        encoding = "Content-Encoding: gzip\r\n" if compressed else ""
        head = (
            f'\r\nContent-Disposition: attachment; filename="{name}"\r\nContent-Type: text/plain\r\n'
            f"Content-Length: {len(sent)}\r\n{encoding}\r\n"
        )
        lines.append(head.encode() + sent + b"\r\n--bound")
    return b"".join(lines) + b"--", 'multipart/related; boundary="bound"'


def place(id: str) -> str:
    """An id in a URL, as CouchDB's replicator writes it."""
    if id.startswith(("_design/", "_local/")):
        head, _, tail = id.partition("/")
        return f"{head}/{quote(tail, safe='')}"
    return quote(id, safe="")


@dataclass
class Done:
    """What a run of the replicator did."""

    docs_read: int = 0
    docs_written: int = 0
    doc_write_failures: int = 0
    refused: list[Any] = field(default_factory=list)
    since: Any = 0


class CouchReplicator:
    """CouchDB 3.5's replicator from one URL to another. URLs end with a slash."""

    def __init__(self, http: httpx.AsyncClient, source: str, target: str, **options: Any) -> None:
        self.http = http
        self.source = source
        self.target = target
        self.options = options
        told = json.dumps([source, target, options], sort_keys=True)
        self.id = hashlib.md5(told.encode()).hexdigest()

    async def run(self) -> Done:
        """One run to the end of the source's changes."""
        started = {}
        for end in (self.source, self.target):
            told = await self.http.get(end)
            if told.status_code == 404 and end == self.target and self.options.get("create_target"):
                assert (await self.http.put(end)).status_code in (201, 412)
                told = await self.http.get(end)
            assert told.status_code == 200, told.text
            info = told.json()
            assert {"db_name", "update_seq", "instance_start_time"} <= info.keys()
            started[end] = info["instance_start_time"]
        checkpoints = {end: await self._checkpoint(end) for end in (self.source, self.target)}
        done = Done(since=self._common(checkpoints))
        while True:
            rows, last = await self._changes(done.since)
            await self._bring(rows, done)
            done.since = last
            if not rows:
                break
        for end in (self.target, self.source):
            committed = await self.http.post(f"{end}_ensure_full_commit", headers=JSON)
            assert committed.status_code == 201
            assert committed.json() == {"ok": True, "instance_start_time": started[end]}
        for end in (self.target, self.source):
            record = {
                **({"_rev": checkpoints[end]["_rev"]} if "_rev" in checkpoints[end] else {}),
                "_id": f"_local/{self.id}",
                "session_id": "session",
                "source_last_seq": done.since,
                "replication_id_version": 4,
                "history": [{"session_id": "session", "recorded_seq": done.since}],
            }
            put = await self.http.put(f"{end}_local/{self.id}", json=record)
            assert put.status_code == 201, put.text
            assert put.json()["rev"].startswith("0-")
        return done

    async def _checkpoint(self, end: str) -> dict[str, Any]:
        for version in (4, 3, 2, 1):
            id = self.id if version == 4 else hashlib.md5(f"{self.id}{version}".encode()).hexdigest()
            told = await self.http.get(f"{end}_local/{id}")
            assert told.status_code in (200, 404)
            if told.status_code == 200:
                found: dict[str, Any] = told.json()
                return found
        return {}

    def _common(self, checkpoints: dict[str, dict[str, Any]]) -> Any:
        one, other = (checkpoints[end].get("source_last_seq", 0) for end in (self.source, self.target))
        return one if one == other else 0

    async def _changes(self, since: Any) -> tuple[list[dict[str, Any]], Any]:
        shown = since if isinstance(since, str) else json.dumps(since)
        params = {"feed": "normal", "style": "all_docs", "since": shown, "timeout": "10000"}
        url = f"{self.source}_changes"
        if "doc_ids" in self.options:
            params["filter"] = "_doc_ids"
            told = await self.http.post(url, params=params, json={"doc_ids": self.options["doc_ids"]})
        elif "selector" in self.options:
            params["filter"] = "_selector"
            told = await self.http.post(url, params=params, json={"selector": self.options["selector"]})
        else:
            told = await self.http.get(url, params=params)
        assert told.status_code == 200, told.text
        body = told.json()
        left = await self.http.get(url, params={"since": body["last_seq"], "limit": "0"})
        assert left.json()["results"] == [] and left.json()["pending"] == 0
        return body["results"], body["last_seq"]

    async def _bring(self, rows: list[dict[str, Any]], done: Done) -> None:
        asked = {row["id"]: [each["rev"] for each in row["changes"]] for row in rows}
        if not asked:
            return
        told = await self.http.post(f"{self.target}_revs_diff", json=asked)
        assert told.status_code == 200, told.text
        diff = told.json()
        wanted = [
            (id, rev, each.get("possible_ancestors", [])) for id, each in diff.items() for rev in each["missing"]
        ]
        got = await self.http.post(
            f"{self.source}_bulk_get",
            params={"latest": "true", "revs": "true", "attachments": "false"},
            json={
                "revs": True,
                "latest": True,
                "attachments": False,
                "docs": [{"id": id, "rev": rev, "atts_since": since} for id, rev, since in wanted],
            },
            headers={"Accept": "application/json"},
        )
        assert got.status_code == 200, got.text
        assert list(got.json()) == ["results"]
        results = got.json()["results"]
        assert [each["id"] for each in results] == [id for id, _, _ in wanted]
        batch = []
        for (id, rev, since), each in zip(wanted, results, strict=True):
            for doc in each["docs"]:
                if "ok" not in doc:
                    continue
                done.docs_read += 1
                if doc["ok"].get("_attachments"):
                    await self._bring_with_contents(id, rev, since, done)
                else:
                    batch.append(doc["ok"])
        if batch:
            put = await self.http.post(f"{self.target}_bulk_docs", json={"new_edits": False, "docs": batch})
            assert put.status_code == 201, put.text
            failures = put.json()
            assert isinstance(failures, list)
            done.doc_write_failures += len(failures)
            done.refused += failures
            done.docs_written += len(batch) - len(failures)

    async def _bring_with_contents(self, id: str, rev: str, since: list[str], done: Done) -> None:
        params = {"revs": "true", "open_revs": json.dumps([rev]), "latest": "true"}
        if since:
            params["atts_since"] = json.dumps(since)
        got = await self.http.get(f"{self.source}{place(id)}", params=params, headers={"Accept": "multipart/mixed"})
        assert got.status_code == 200, got.text
        assert got.headers["content-type"].startswith("multipart/mixed")
        for head, data in parts_of(got.content, got.headers["content-type"]):
            kind = head["content-type"]
            assert kind.startswith("multipart/related"), kind
            self._check_order(data, kind)
            put = await self.http.put(
                f"{self.target}{place(id)}",
                params={"new_edits": "false"},
                content=data,
                headers={"Content-Type": kind},
            )
            if put.status_code == 412 and since:
                await self._bring_with_contents(id, rev, [], done)
                return
            assert put.status_code == 201, put.text
            assert put.json().keys() == {"ok", "id", "rev"}
            done.docs_written += 1

    def _check_order(self, data: bytes, kind: str) -> None:
        """Contents come in the order of the document's JSON, as long as they are said to be."""
        (_, doc), *contents = parts_of(data, kind)
        stubs = json.loads(doc)["_attachments"]
        following = [(name, each) for name, each in stubs.items() if each.get("follows")]
        assert len(following) == len(contents)
        for (_, each), (head, content) in zip(following, contents, strict=True):
            assert head["content-type"] == each["content_type"]
            assert int(head["content-length"]) == len(content) == each["length"]
            assert each["digest"] == md5(content)
