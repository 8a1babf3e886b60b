"""`_replicator`: documents, each of which describes a replication.

They are no barrel of the store but names for its tasks, so that a document and what it describes are one: nothing has
to be carried from one to the other, and a login is kept with the task alone. All of it is the operator's.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from broker.couch import jobs
from broker.couch.asked_replication import read_replication
from broker.couch.documents import base_revision
from broker.couch.errors import CouchError, bad_request, told
from broker.couch.face import check_json, decoded, document_id, json_object, query_of
from broker.couch.listing import Range, check_keys
from broker.couch.writing import edited
from broker.health import moment
from broker.http.answers import Answer, encode_json, etag, json_answer, revisions_in
from broker.http.call import Call
from broker.http.replications import tasks_of
from broker.replication.documents import Described
from broker.replication.tasks import Tasks
from feeds import Write
from feeds.errors import BadRequest, NotFound, SpileError
from feeds.storage.ids import LAST
from feeds.storage.replicator import StoredDocument

_DOCUMENT_BYTES_MAX: Final = 1 << 20
_BULK_BYTES_MAX: Final = 8 << 20
_BULK_MAX: Final = 1000
_TOLD: Final = "_replication_"
"""What begins so was added by the service, and is read over where it comes back."""
_ADMINS: Final = {"names": [], "roles": ["_admin"]}


def operators(call: Call) -> Tasks:
    """The replications, if the client may administer the service."""
    call.allow("admin")
    return tasks_of(call)


async def tell_replicator(call: Call) -> Answer:
    """What is told about the database."""
    found = await operators(call).ask(lambda register: register.after())
    live = sum(not each.deleted for each in found)
    info = {
        "db_name": jobs.DATABASE,
        "update_seq": str(found[-1].stored.seq if found else 0),
        "purge_seq": "0",
        "sizes": {
            name: sum(len(each.stored.body or "") for each in found) for name in ("file", "external", "active")
        },
        "props": {},
        "doc_del_count": len(found) - live,
        "doc_count": live,
        "disk_format_version": 8,
        "compact_running": False,
        "cluster": {"q": 1, "n": 1, "w": 1, "r": 1},
        "instance_start_time": "0",
    }
    return json_answer(info)


async def make_replicator(call: Call) -> Answer:
    """It is always there."""
    call.allow("admin")
    raise CouchError(412, "file_exists", "The database could not be created, the file already exists.")


async def drop_replicator(call: Call) -> Answer:
    """It stays: its documents are deleted one by one."""
    call.allow("admin")
    raise CouchError(403, "forbidden", "_replicator is always there. Delete its documents to cancel replications.")


async def tell_security(call: Call) -> Answer:
    """Only who administers the service may do anything here."""
    call.allow("admin")
    return json_answer({"admins": _ADMINS, "members": _ADMINS})


async def nothing_there(call: Call) -> Answer:
    """What other databases serve and this one does not."""
    call.allow("admin")
    raise CouchError(404, "not_found", "_replicator holds descriptions of replications: this is not served of it.")


async def get_replication(call: Call) -> Answer:
    """The document, with how its replication ended if it has."""
    tasks, id = operators(call), document_id(call)
    found = await tasks.ask(lambda register: register.get(id))
    rev = query_of(call).text("rev")
    if rev is not None and rev != found.stored.rev:
        raise NotFound(f"{rev!r} is not the present revision")
    tag, held = etag(found.stored.rev), call.header(b"if-none-match")
    if held is not None and found.stored.rev in revisions_in(held):
        return Answer(304, b"", [(b"etag", tag)])
    return json_answer(document_of(found), headers=[(b"etag", tag)])


async def put_replication(call: Call) -> Answer:
    """Describe a replication, which runs from now on."""
    tasks, rev = operators(call), base_revision(call, query_of(call))
    write = _write(await call.body(_DOCUMENT_BYTES_MAX), id=document_id(call), rev=rev)
    return _answer(await _submit(call, tasks, write), 201)


async def post_replication(call: Call) -> Answer:
    """As `put_replication`, with the id in the document, or one that is made here."""
    tasks = operators(call)
    check_json(call)
    return _answer(await _submit(call, tasks, _write(await call.body(_DOCUMENT_BYTES_MAX))), 201)


async def delete_replication(call: Call) -> Answer:
    """Cancel what a document describes, and delete it."""
    tasks, id, rev = operators(call), document_id(call), base_revision(call, query_of(call))
    return _answer(await tasks.delete(id, rev), 200)


async def bulk_replications(call: Call) -> Answer:
    """Write and delete several of them, each by itself."""
    tasks = operators(call)
    asked = await json_object(call, _BULK_BYTES_MAX)
    docs = asked.get("docs")
    if not isinstance(docs, list) or not all(isinstance(doc, dict) for doc in docs):
        raise bad_request("POST body must include `docs`, an array of objects.")
    if len(docs) > _BULK_MAX:
        raise CouchError(413, "request_entity_too_large", f"At most {_BULK_MAX} documents are written at once.")
    if asked.get("new_edits") is False:
        raise bad_request("Revisions that were made elsewhere are not kept in _replicator.")
    rows: list[dict[str, Any]] = []
    for doc in docs:
        try:
            written = await _submit(call, tasks, _write(_text(doc)))
            rows.append({"ok": True, "id": written.id, "rev": written.rev})
        except SpileError as error:
            _, name, reason = told(error)
            rows.append({"id": doc.get("_id"), "error": name, "reason": reason})
    return json_answer(rows, 201)


async def list_replications(call: Call) -> Answer:
    """The documents by their ids, or those that are asked for by `keys`."""
    tasks, query = operators(call), query_of(call)
    if call.method == "POST":
        query = query.over(await json_object(call, _BULK_BYTES_MAX))
    asked = Range.of(query, ("", LAST))
    found = {each.id: each for each in await tasks.ask(lambda register: register.after())}
    live = sorted(id for id, each in found.items() if not each.deleted)
    if query.has("keys"):
        keys = query.json("keys")
        check_keys(keys, query)
        chosen = list(keys)
    else:
        chosen = [id for id in live if asked.low <= id < asked.high]
    if asked.descending:
        chosen.reverse()
    chosen = chosen[asked.skip :] if asked.limit is None else chosen[asked.skip : asked.skip + asked.limit]
    rows = [_listed(key, found.get(key) if isinstance(key, str) else None, asked.docs) for key in chosen]
    return json_answer({"total_rows": len(live), "offset": asked.skip, "rows": rows})


def document_of(found: Described) -> dict[str, Any]:
    """A document as it is read: never with what its replication signs in with."""
    stored = found.stored
    if found.deleted:
        return {"_id": stored.id, "_rev": stored.rev, "_deleted": True}
    return {"_id": stored.id, "_rev": stored.rev, **found.body, **_state(found)}


def _state(found: Described) -> dict[str, Any]:
    """What the service adds when a replication has come to its end."""
    if not found.ended:
        return {}
    ended = found.told()
    told = {"state": jobs.state_of(ended), "state_time": jobs.iso(moment(found.stored.at)), "id": ended["id"]}
    if told["state"] == "failed":
        told["state_reason"] = ended["reason"]
    else:
        told["stats"] = {**jobs.stats_of(ended), "start_time": jobs.iso(ended["created"])}
    return {f"{_TOLD}{name}": value for name, value in told.items() if value is not None}


def _listed(key: Any, found: Described | None, docs: bool) -> dict[str, Any]:
    if found is None:
        return {"key": key, "error": "not_found"}
    value = {"rev": found.stored.rev, **({"deleted": True} if found.deleted else {})}
    row: dict[str, Any] = {"id": found.id, "key": found.id, "value": value}
    if docs:
        row["doc"] = None if found.deleted else document_of(found)
    return row


def _write(text: bytes, *, id: str | None = None, rev: str | None = None) -> Write:
    """A document that somebody writes, without what the service had added to it."""
    if _TOLD.encode() in text:
        doc = decoded(text, dict[str, msgspec.Raw])
        text = encode_json({name: value for name, value in doc.items() if not name.startswith(_TOLD)})
    write = edited(text, _DOCUMENT_BYTES_MAX, id=id, rev=rev)
    if write.id.startswith("_design/"):
        raise CouchError(403, "forbidden", "_replicator holds descriptions of replications, and no design documents.")
    if write.attachments:
        raise CouchError(403, "forbidden", "A description of a replication has no attachments.")
    return write


def _text(doc: dict[str, Any]) -> bytes:
    try:
        return encode_json(doc)
    except (OverflowError, UnicodeError) as error:
        raise CouchError(403, "forbidden", f"The document cannot be kept: {error}") from error


async def _submit(call: Call, tasks: Tasks, write: Write) -> StoredDocument:
    rev = None if write.rev is None else str(write.rev)
    if write.deleted:
        return await tasks.delete(write.id, rev)
    try:
        asked = read_replication(decoded(write.body, dict[str, Any]))
    except CouchError:
        raise
    except BadRequest as error:
        raise CouchError(403, "forbidden", error.reason) from error
    who = call.who
    return await tasks.change(
        lambda register: register.put(write.id, rev, asked.body, asked.task, asked.secrets, who)
    )


def _answer(written: StoredDocument, status: int) -> Answer:
    body = encode_json({"ok": True, "id": written.id, "rev": written.rev})
    return Answer(status, body, [(b"etag", etag(written.rev))])
