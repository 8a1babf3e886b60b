"""A server that speaks as much of CouchDB's protocol as a replicator asks, and fails where a test wants it to.

It keeps texts compressed and tells the md5 of that, counts with arrays, and asks for cookies, as CouchDB and its kin
do. Revisions are kept as they come; of a document's leaves the winner is the live one with the greatest name.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import parse_qs, unquote

import uvicorn
from couch_tools import parts_of
from couch_words import Asked, Content, Doc, Fault, history, told

from feeds.selector import Selector


class FakeCouch:
    """One database called `db`, which is there already."""

    def __init__(self) -> None:
        self.docs: dict[str, dict[str, Doc]] = {}
        self.contents: dict[tuple[str, str, str], Content] = {}  # by document, revision, name
        self.local: dict[str, Doc] = {}
        self.log: list[str] = []  # ids, the newest state last
        self.asked: list[str] = []
        self.bulk_bytes_max = 1 << 30
        self.multipart = False  # whether revisions come in parts, whatever was asked for
        self.missing: set[str] = set()  # endpoints that this server does not have
        self.passwords: dict[str, str] = {}
        self.sessions: set[str] = set()
        self.start_time = "1700000000"
        self.port = 0
        self.holds = True  # who asks for changes by long-poll
        self._faults: list[tuple[str, str, Fault]] = []
        self._changed = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/db"

    def fails(self, method: str, part: str, *faults: Fault) -> None:
        """The next requests of this method with this in their path are answered so, one after the other."""
        self._faults += [(method, part, fault) for fault in faults]

    def count(self, method: str, part: str) -> int:
        """How many such requests there were."""
        return sum(each.startswith(method) and part in each for each in self.asked)

    def put(self, doc: Doc, **contents: tuple[str, bytes]) -> None:
        """A revision, with attachments of these types and contents."""
        id, rev = doc["_id"], doc["_rev"]
        doc.setdefault("_revisions", {"start": int(rev.split("-")[0]), "ids": [rev.split("-", 1)[1]]})
        for name, (kind, data) in contents.items():
            self._keep(id, rev, name, kind, data, int(rev.split("-")[0]))
        self.docs.setdefault(id, {})[rev] = {key: doc[key] for key in doc if key != "_attachments"}
        if id in self.log:
            self.log[self.log.index(id)] = ""
        self.log.append(id)
        self._changed.set()

    def plain(self, id: str, rev: str, name: str) -> bytes:
        """The bytes of an attachment."""
        content = self.contents[id, rev, name]
        return gzip.decompress(content.stored) if content.compressed else content.stored

    def close(self) -> None:
        """Let those go who wait for a change."""
        self.holds = False
        self._changed.set()

    def leaves(self, id: str) -> list[str]:
        """The leaves of a document, the winner first."""
        revs = self.docs.get(id, {})
        inner = {rev for doc in revs.values() for rev in history(doc)[1:]}

        def rank(rev: str) -> tuple[bool, int, str]:
            number, _, name = rev.partition("-")
            return not revs[rev].get("_deleted", False), int(number), name

        return sorted((rev for rev in revs if rev not in inner), key=rank, reverse=True)

    def _keep(self, id: str, rev: str, name: str, kind: str, data: bytes, revpos: int) -> None:
        compressed = kind.startswith("text/")
        stored = gzip.compress(data, mtime=0) if compressed else data
        self.contents[id, rev, name] = Content(stored, len(data), kind, revpos, compressed)

    # -- requests

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        options = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        path = scope["raw_path"].decode()
        asked = Asked(scope["method"], path, options, headers, body)
        self.asked.append(f"{asked.method} {path}?{scope['query_string'].decode()}")
        fault = self._told_to_fail(asked) or await self._answer(asked)
        length = len(fault.body) + 1000 if fault.cut else len(fault.body)
        told = {"content-type": "application/json", "content-length": str(length), **fault.headers}
        lines = [(name.encode(), value.encode()) for name, value in told.items()]
        await send({"type": "http.response.start", "status": fault.status, "headers": lines})
        await send({"type": "http.response.body", "body": fault.body, "more_body": False})

    def _told_to_fail(self, asked: Asked) -> Fault | None:
        for place, (method, part, fault) in enumerate(self._faults):
            if method == asked.method and part in self.asked[-1]:
                del self._faults[place]
                return fault
        return None

    async def _answer(self, asked: Asked) -> Fault:
        if asked.path == "/_session" and asked.method == "POST":
            return self._sign_in(asked)
        if self.passwords and not self._may(asked):
            return told(401, {"error": "unauthorized", "reason": "You are not authorized to access this db."})
        if asked.path == "/":
            return told(200, {"couchdb": "Welcome", "uuid": "0123456789abcdef", "version": "3.5.0"})
        _, db, *rest = asked.path.split("/")
        if db != "db":
            return told(404, {"error": "not_found", "reason": "Database does not exist."})
        name = rest[0] if rest else ""
        if name in self.missing:
            return told(404, {"error": "not_found", "reason": "missing"})
        known = {
            "": self._info,
            "_changes": self._changes,
            "_revs_diff": self._revs_diff,
            "_bulk_get": self._bulk_get,
            "_bulk_docs": self._bulk_docs,
            "_ensure_full_commit": self._commit,
            "_local": self._local,
        }
        if name in known:
            answer = known[name](asked)
            return await answer if asyncio.iscoroutine(answer) else answer
        id = unquote("/".join(rest[:2]) if name == "_design" else name)
        levels = rest[2:] if name == "_design" else rest[1:]
        if levels:
            return self._attachment(asked, id, unquote("/".join(levels)))
        return self._put(asked, id) if asked.method == "PUT" else self._get(asked, id)

    def _sign_in(self, asked: Asked) -> Fault:
        if not self.passwords:
            return told(404, {"error": "not_found", "reason": "missing"})
        form = {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}
        if self.passwords.get(form["name"]) != form["password"]:
            return told(401, {"error": "unauthorized", "reason": "Name or password is incorrect."})
        cookie = f"AuthSession=session{len(self.asked)}"
        self.sessions.add(cookie)
        return told(200, {"ok": True}, {"set-cookie": f"{cookie}; Version=1; Path=/; HttpOnly"})

    def _may(self, asked: Asked) -> bool:
        if asked.headers.get("cookie") in self.sessions:
            return True
        kind, _, given = asked.headers.get("authorization", "").partition(" ")
        name, _, password = b64decode(given).decode().partition(":") if kind == "Basic" else ("", "", "")
        return bool(password) and self.passwords.get(name) == password

    def _info(self, _: Asked) -> Fault:
        seq = self._seq(len(self.log))
        return told(200, {"db_name": "db", "update_seq": seq, "instance_start_time": self.start_time, "doc_count": 1})

    def _seq(self, number: int) -> list[Any]:
        return [number, f"opaque/{self.start_time}"]

    async def _changes(self, asked: Asked) -> Fault:
        since = asked.options["since"]
        after = 0 if since == "0" else json.loads(since)[0]
        body = asked.json if asked.body else {}
        limit = int(asked.options["limit"])
        while True:
            self._changed.clear()
            told_of = [
                (number, id, self._meant(id, body.get("selector")))
                for number, id in enumerate(self.log, 1)
                if number > after and id and id in body.get("doc_ids", [id])
            ]
            rows = [self._row(number, id, leaves, asked) for number, id, leaves in told_of if leaves]
            if rows or asked.options.get("feed") != "longpoll" or not self.holds:
                break
            await self._changed.wait()
        some = rows[:limit]
        last = some[-1]["seq"] if some and len(rows) > limit else self._seq(max(after, len(self.log)))
        return told(200, {"results": some, "last_seq": last, "pending": len(rows) - len(some)})

    def _meant(self, id: str, selector: Any) -> list[str]:
        """The leaves that a selector matches: CouchDB tells of no others."""
        meant = Selector.parse(selector or {})
        return [rev for rev in self.leaves(id) if meant.matches(self.docs[id][rev])]

    def _row(self, number: int, id: str, leaves: list[str], asked: Asked) -> Doc:
        row: Doc = {"seq": self._seq(number), "id": id, "changes": [{"rev": rev} for rev in leaves]}
        if self.docs[id][leaves[0]].get("_deleted"):
            row["deleted"] = True
        if asked.options.get("include_docs") == "true":
            row["doc"] = {key: value for key, value in self._doc(id, leaves[0]).items() if key != "_revisions"}
        return row

    def _doc(self, id: str, rev: str) -> Doc:
        stubs = {
            name: {
                "content_type": content.content_type,
                "revpos": content.revpos,
                "digest": content.digest,
                "length": content.plain_length,
                "stub": True,
            }
            for (of, at, name), content in self.contents.items()
            if (of, at) == (id, rev)
        }
        doc = self.docs[id][rev]
        return {**doc, "_attachments": stubs} if stubs else doc

    def _revs_diff(self, asked: Asked) -> Fault:
        missing = {}
        for id, revs in asked.json.items():
            known = {rev for doc in self.docs.get(id, {}).values() for rev in history(doc)}
            lacking = [rev for rev in revs if rev not in known]
            if lacking:
                missing[id] = {"missing": lacking, "possible_ancestors": self.leaves(id)}
        return told(200, missing)

    def _bulk_get(self, asked: Asked) -> Fault:
        results = []
        for each in asked.json["docs"]:
            id, rev = each["id"], each["rev"]
            found: Doc = {"error": {"id": id, "rev": rev, "error": "not_found", "reason": "missing"}}
            if rev in self.docs.get(id, {}):
                found = {"ok": self._doc(id, rev)}
            results.append({"id": id, "docs": [found]})
        return told(200, {"results": results})

    def _get(self, asked: Asked, id: str) -> Fault:
        if "open_revs" not in asked.options:
            rev = asked.options.get("rev", "")
            if rev not in self.docs.get(id, {}):
                return told(404, {"error": "not_found", "reason": "missing"})
            return told(200, self._doc(id, rev))
        revs = json.loads(asked.options["open_revs"])
        if not self.multipart:
            known = self.docs.get(id, {})
            return told(200, [{"ok": self._doc(id, rev)} if rev in known else {"missing": rev} for rev in revs])
        body = b"".join(b"\r\n--outer\r\n" + self._part(id, rev) for rev in revs) + b"\r\n--outer--"
        return Fault(200, body, {"content-type": 'multipart/mixed; boundary="outer"'})

    def _part(self, id: str, rev: str) -> bytes:
        if rev not in self.docs.get(id, {}):
            head = b'Content-Type: application/json; error="true"\r\n\r\n'
            return head + json.dumps({"missing": rev}).encode()
        doc = self._doc(id, rev)
        stubs = doc.get("_attachments", {})
        if not stubs:
            return b"Content-Type: application/json\r\n\r\n" + json.dumps(doc).encode()
        follows = {name: {**stub, "follows": True} for name, stub in stubs.items()}
        for each in follows.values():
            del each["stub"]
        text = json.dumps({**doc, "_attachments": follows}).encode()
        lines = [b'Content-Type: multipart/related; boundary="inner"\r\n\r\n--inner\r\n']
        lines.append(b"Content-Type: application/json\r\n\r\n" + text + b"\r\n--inner")
        for name in stubs:
            head = f'\r\nContent-Disposition: attachment; filename="{name}"\r\nContent-Type: text/plain\r\n\r\n'
            lines.append(head.encode() + self.contents[id, rev, name].stored + b"\r\n--inner")
        return b"".join(lines) + b"--"

    def _attachment(self, asked: Asked, id: str, name: str) -> Fault:
        content = self.contents.get((id, asked.options["rev"], name))
        if content is None:
            return told(404, {"error": "not_found", "reason": "Document is missing attachment"})
        headers = {"content-type": content.content_type}
        if not content.compressed:
            return Fault(200, content.stored, headers)
        if "gzip" in asked.headers.get("accept-encoding", ""):
            return Fault(200, content.stored, {**headers, "content-encoding": "gzip"})
        return Fault(200, gzip.decompress(content.stored), headers)

    def _bulk_docs(self, asked: Asked) -> Fault:
        if len(asked.body) > self.bulk_bytes_max:
            return told(413, {"error": "too_large", "reason": "the request entity is too large"})
        refused = []
        for doc in asked.json["docs"]:
            if doc.get("refused"):
                row = {"id": doc["_id"], "rev": doc["_rev"], "error": "forbidden", "reason": "not this one"}
                refused.append(row)
            else:
                self.put(doc)
        return told(201, refused)

    def _put(self, asked: Asked, id: str) -> Fault:
        if "content-length" not in asked.headers:
            return told(411, {"error": "length_required", "reason": "How long is it?"})
        kind = asked.headers.get("content-type", "")
        texts = [({}, asked.body)]
        if kind.startswith("multipart/related"):
            texts = parts_of(asked.body, kind)  # type: ignore[assignment]
        doc = json.loads(texts.pop(0)[1])
        rev = doc["_rev"]
        for name, stub in doc.get("_attachments", {}).items():
            if not stub.get("follows"):
                kept = self._of_ancestor(id, doc, name, stub["revpos"])
                if kept is None:
                    return told(412, {"error": "missing_stub", "reason": f"id:{id}, name:{name}"})
                self.contents[id, rev, name] = kept
                continue
            head, data = texts.pop(0)
            sent = "md5-" + b64encode(hashlib.md5(data).digest()).decode()
            if (sent, len(data), head["content-type"]) != (stub["digest"], stub["length"], stub["content_type"]):
                return told(400, {"error": "bad_request", "reason": "content_md5_mismatch"})
            self._keep(id, rev, name, stub["content_type"], data, stub["revpos"])
        self.put(doc)
        return told(201, {"ok": True, "id": id, "rev": rev})

    def _of_ancestor(self, id: str, doc: Doc, name: str, revpos: int) -> Content | None:
        for rev in history(doc):
            content = self.contents.get((id, rev, name))
            if content is not None and content.revpos == revpos:
                return content
        return None

    def _commit(self, _: Asked) -> Fault:
        return told(201, {"ok": True, "instance_start_time": self.start_time})

    def _local(self, asked: Asked) -> Fault:
        id = asked.path.rpartition("/")[2]
        if asked.method == "PUT":
            rev = f"0-{int(self.local.get(id, {'_rev': '0-0'})['_rev'][2:]) + 1}"
            self.local[id] = {**asked.json, "_rev": rev}
            return told(201, {"ok": True, "id": f"_local/{id}", "rev": rev})
        if id not in self.local:
            return told(404, {"error": "not_found", "reason": "missing"})
        return told(200, self.local[id])


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # they stay the tests' own


@asynccontextmanager
async def fake_couch() -> AsyncIterator[FakeCouch]:
    """The server for the length of the block."""
    couch = FakeCouch()
    config = uvicorn.Config(couch, "127.0.0.1", 0, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = _Server(config)
    task = asyncio.create_task(server.serve(), name="fake couch")
    try:
        async with asyncio.timeout(20):
            while not server.started:
                await asyncio.sleep(0.01)
        couch.port = server.servers[0].sockets[0].getsockname()[1]
        yield couch
    finally:
        couch.close()
        server.should_exit = True
        await asyncio.wait([task], timeout=10)
