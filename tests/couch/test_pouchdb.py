"""PouchDB against Spile: pushing, pulling, syncing live."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pouchdb import Pouch, pouch
from running import Running, serve, until

FILL = """
const docs = [];
for (let n = 0; n < count; n++) docs.push({_id: `${prefix}${String(n).padStart(5, "0")}`, n, name: `document ${n}`});
await local(db).bulkDocs(docs);
"""
PUSH = "return await local(db).replicate.to(url, options || {});"
PULL = "return await local(db).replicate.from(url, options || {});"
# What a database holds: each document's winner with its conflicts, and deletions.
STATE = """
const found = {};
const told = await local(db).changes({style: "all_docs"});
for (const row of told.results) found[row.id] = row.changes.map((change) => change.rev).sort();
return found;
"""


def leaves(service: Running, db: str = "db") -> dict[str, list[str]]:
    """Every leaf of every document as Spile's own changes tell them."""
    rows = service.http.get(f"/barrels/{db}/changes").json()["results"]
    return {row["id"]: sorted(row["changes"]) for row in rows}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two are equal, without a comparison that a failing test would print for minutes."""
    return one == other


@pytest.fixture
def url(service: Running) -> str:
    return f"{service.url}/couch/db"


def test_a_push_makes_the_database_and_brings_every_document(service: Running, client: Pouch, url: str) -> None:
    client.run(FILL, db="a", prefix="doc", count=250)
    done = client.run(PUSH, db="a", url=url, options=None)
    assert (done["ok"], done["docs_written"], done["doc_write_failures"]) == (True, 250, 0)
    assert same(leaves(service), client.run(STATE, db="a"))
    assert service.http.get("/barrels/db/docs/doc00007").json()["name"] == "document 7"


def test_a_pull_brings_every_document_and_a_second_one_nothing(service: Running, client: Pouch, url: str) -> None:
    service.http.post("/barrels/db")
    docs = [{"_id": f"doc{n:05}", "n": n} for n in range(250)]
    service.http.post("/barrels/db/docs/_bulk", json={"docs": docs})
    done = client.run(PULL, db="a", url=url, options=None)
    assert (done["docs_written"], done["doc_write_failures"]) == (250, 0)
    assert same(leaves(service), client.run(STATE, db="a"))
    again = client.run(PULL, db="a", url=url, options=None)
    assert (again["docs_read"], again["docs_written"]) == (0, 0)


def test_updates_and_deletions_go_both_ways(service: Running, client: Pouch, url: str) -> None:
    client.run(FILL, db="a", prefix="doc", count=5)
    client.run(PUSH, db="a", url=url, options=None)
    deleted = service.http.get("/barrels/db/docs/doc00001").json()["_rev"]
    service.http.delete("/barrels/db/docs/doc00001", params={"rev": deleted})
    changed = service.http.get("/barrels/db/docs/doc00002").json()
    service.http.put("/barrels/db/docs/doc00002", json={**changed, "n": 22})
    client.run(PULL, db="a", url=url, options=None)
    assert client.run("return (await local('a').get('doc00002')).n") == 22
    assert client.run("return await local('a').get('doc00001').catch((error) => error.reason)") == "deleted"

    client.run("const doc = await local('a').get('doc00003'); await local('a').remove(doc);")
    client.run("const doc = await local('a').get('doc00004'); doc.n = 44; await local('a').put(doc);")
    client.run(PUSH, db="a", url=url, options=None)
    assert service.http.get("/barrels/db/docs/doc00003").json()["deleted"] is True
    assert service.http.get("/barrels/db/docs/doc00004").json()["n"] == 44
    assert same(leaves(service), client.run(STATE, db="a"))


def test_a_conflict_is_the_same_on_both_sides(service: Running, client: Pouch, url: str) -> None:
    client.run("await local('a').put({_id: 'doc', n: 0});")
    client.run(PUSH, db="a", url=url, options=None)
    rev = service.http.get("/barrels/db/docs/doc").json()["_rev"]
    service.http.put("/barrels/db/docs/doc", json={"_rev": rev, "n": 1})
    client.run("const doc = await local('a').get('doc'); doc.n = 2; await local('a').put(doc);")
    client.run("return await local('a').sync(url)", url=url)

    here = service.http.get("/barrels/db/docs/doc", params={"conflicts": "true"}).json()
    there = client.run("return await local('a').get('doc', {conflicts: true})")
    assert (here["_rev"], here["n"], here["_conflicts"]) == (there["_rev"], there["n"], there["_conflicts"])
    assert len(here["_conflicts"]) == 1


def test_two_pouchdbs_come_to_the_same_through_one_spile(service: Running, client: Pouch, url: str) -> None:
    client.run(FILL, db="a", prefix="a", count=120)
    with pouch() as other:
        other.run(FILL, db="b", prefix="b", count=130)
        client.run("return await local('a').sync(url)", url=url)
        other.run("return await local('b').sync(url)", url=url)
        client.run("return await local('a').sync(url)", url=url)
        assert same(client.run(STATE, db="a"), other.run(STATE, db="b"))
        assert len(leaves(service)) == 250


def test_a_live_sync_brings_what_happens_on_either_side(service: Running, client: Pouch, url: str) -> None:
    client.run(
        "kept.sync = local('a').sync(url, {live: true, retry: true}); kept.sync.on('error', () => {});", url=url
    )
    until(lambda: service.http.get("/barrels/db").status_code == 200, "the database")

    service.http.put("/barrels/db/docs/from-spile", json={"n": 1})
    until(lambda: client.run("return (await local('a').get('from-spile').catch(() => ({}))).n === 1"), "a pull")
    client.run("await local('a').put({_id: 'from-pouch', n: 2});")
    until(lambda: service.http.get("/barrels/db/docs/from-pouch").status_code == 200, "a push")

    rev = service.http.get("/barrels/db/docs/from-pouch").json()["_rev"]
    service.http.delete("/barrels/db/docs/from-pouch", params={"rev": rev})
    until(lambda: client.run("return await local('a').get('from-pouch').then(() => false, () => true)"), "a deletion")
    client.run("kept.sync.cancel()")


def test_attachments_go_both_ways(service: Running, client: Pouch, url: str) -> None:
    data = bytes(range(256)) * 400
    client.run(
        """
        await local('a').put({_id: 'doc', n: 1, _attachments: {
            'small.txt': {content_type: 'text/plain', data: Buffer.from('hello').toString('base64')},
            'a b/ü.bin': {content_type: 'application/octet-stream', data: Buffer.from(hex, 'hex').toString('base64')},
        }});
        """,
        hex=data.hex(),
    )
    client.run(PUSH, db="a", url=url, options=None)
    told = service.http.get("/barrels/db/docs/doc").json()["_attachments"]
    assert {name: each["length"] for name, each in told.items()} == {"small.txt": 5, "a b/ü.bin": len(data)}
    assert service.http.get("/barrels/db/attachments/doc/a%20b%2F%C3%BC.bin").content == data

    service.http.put(
        "/barrels/db/attachments/doc/new.txt", content=b"of spile", headers={"Content-Type": "text/plain"}
    )
    with pouch() as other:
        other.run(PULL, db="b", url=url, options=None)
        read = "return (await local('b').getAttachment('doc', name)).toString('hex')"
        assert bytes.fromhex(other.run(read, name="a b/ü.bin")) == data
        assert bytes.fromhex(other.run(read, name="small.txt")) == b"hello"
        assert bytes.fromhex(other.run(read, name="new.txt")) == b"of spile"
        assert same(leaves(service), other.run(STATE, db="b"))
        other.run("const d = await local('b').get('doc'); d.n = 2; await local('b').put(d);")
        other.run(PUSH, db="b", url=url, options=None)
    assert service.http.get("/barrels/db/docs/doc").json()["n"] == 2
    assert service.http.get("/barrels/db/attachments/doc/a%20b%2F%C3%BC.bin").content == data


@pytest.mark.parametrize(
    "options",
    [{"doc_ids": ["doc00003", "doc00005"]}, {"selector": {"n": {"$in": [3, 5]}}}],
    ids=["doc_ids", "selector"],
)
def test_a_filtered_pull_brings_only_what_is_asked_for(
    service: Running, client: Pouch, url: str, options: dict[str, Any]
) -> None:
    service.http.post("/barrels/db")
    docs = [{"_id": f"doc{n:05}", "n": n} for n in range(200)]
    service.http.post("/barrels/db/docs/_bulk", json={"docs": docs})
    done = client.run(PULL, db="a", url=url, options=options)
    assert done["docs_written"] == 2
    assert sorted(client.run(STATE, db="a")) == ["doc00003", "doc00005"]


def test_a_cancelled_pull_goes_on_where_it_was(service: Running, client: Pouch, url: str) -> None:
    service.http.post("/barrels/db")
    docs = [{"_id": f"doc{n:05}", "n": n} for n in range(500)]
    service.http.post("/barrels/db/docs/_bulk", json={"docs": docs})
    first = client.run(
        """
        const pull = local('a').replicate.from(url, {batch_size: 50});
        pull.on('change', () => pull.cancel());
        return await pull;
        """,
        url=url,
    )
    assert 0 < first["docs_written"] < 500
    second = client.run(PULL, db="a", url=url, options={"batch_size": 50})
    assert first["docs_written"] + second["docs_written"] == 500
    assert same(leaves(service), client.run(STATE, db="a"))


def test_a_document_that_spile_cannot_hold_is_named_and_the_others_come(
    client: Pouch, service: Running, url: str
) -> None:
    client.run("await local('a').bulkDocs([{_id: 'fine'}, {_id: 'line\\nbreak'}, {_id: 'too', big: 'x'}]);")
    denied = client.run(
        """
        const denied = [];
        const push = local('a').replicate.to(url);
        push.on('denied', (error) => denied.push(error.doc ? error.doc : error));
        const done = await push;
        return {done, denied};
        """,
        url=url,
    )
    assert denied["done"]["docs_written"] == 2
    assert denied["done"]["doc_write_failures"] == 1
    assert sorted(leaves(service)) == ["fine", "too"]
    assert "line" in str(denied["denied"])


def test_at_the_root_clients_need_no_path_and_spile_is_still_there(tmp_path: Path, client: Pouch) -> None:
    with serve(tmp_path / "data", SPILE_COUCH_AT_ROOT="true") as service:
        client.run(FILL, db="a", prefix="doc", count=20)
        client.run(PUSH, db="a", url=f"{service.url}/db", options=None)
        assert same(leaves(service), client.run(STATE, db="a"))
        assert service.http.get("/health").json()["ok"] is True
        assert service.http.get("/").json()["service"] == "spile"
        assert service.http.get("/couch/db").json()["doc_count"] == 20


def test_documents_are_found_by_selectors_through_pouchdb(service: Running, client: Pouch, url: str) -> None:
    service.http.post("/barrels/db")
    docs = [{"_id": f"doc{n:05}", "n": n, "room": ["hall", "kitchen"][n % 2]} for n in range(100)]
    service.http.post("/barrels/db/docs/_bulk", json={"docs": docs})
    made = client.run("return await new PouchDB(url).createIndex({index: {fields: ['n']}})", url=url)
    assert made["result"] == "created"
    found = client.run(
        """
        const db = new PouchDB(url);
        return await db.find({selector: {room: "kitchen", n: {$gte: 90}}, sort: [{n: "desc"}], fields: ["n"]});
        """,
        url=url,
    )
    assert found["docs"] == [{"n": 99}, {"n": 97}, {"n": 95}, {"n": 93}, {"n": 91}]
    indexes = client.run("return (await new PouchDB(url).getIndexes()).indexes", url=url)
    assert [each["type"] for each in indexes] == ["special", "json"]
    client.run("await new PouchDB(url).deleteIndex(index)", url=url, index=indexes[1])
    assert len(client.run("return (await new PouchDB(url).getIndexes()).indexes", url=url)) == 1
