"""Databases, which are barrels: telling about them, making and dropping them, and what is done to a whole one."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from broker.couch.errors import CouchError, bad_request
from broker.couch.face import check_json, database, database_name, decoded, json_object, query_of
from broker.http.answers import Answer, json_answer
from broker.http.call import Call
from feeds import Barrel, Write
from feeds.barrels import REVS_LIMIT_MAX
from feeds.errors import Exists, NotFound, SpileError
from feeds.revisions import Revision
from feeds.storage.listing import leaves_of

_EPOCH_PARTS: Final = 1_000_000
_SMALL_BYTES: Final = 64 << 10
_ASKED_BYTES_MAX: Final = 8 << 20
_PURGED_MAX: Final = 1000
_OPEN: Final[dict[str, list[str]]] = {"names": [], "roles": []}


async def tell_database(call: Call) -> Answer:
    """What is told about a database."""
    barrel = database(call)
    return json_answer(await call.in_thread(database_info, barrel))


async def create_database(call: Call) -> Answer:
    """Make a database; how many shards it should have is not asked here."""
    name = database_name(call)
    call.allow("admin", name)
    try:
        await call.in_thread(call.services.store.create, name)
    except Exists as error:
        reason = "The database could not be created, the file already exists."
        raise CouchError(412, "file_exists", reason) from error
    return json_answer({"ok": True}, 201, [(b"location", call.scope["raw_path"].rstrip(b"/"))])


async def drop_database(call: Call) -> Answer:
    """Drop a database with everything in it."""
    if query_of(call).has("rev"):
        raise bad_request("You tried to DELETE a database with a ?=rev parameter. Did you mean to DELETE a document?")
    barrel = database(call, "admin")
    await call.in_thread(call.services.store.drop, barrel.name)
    return json_answer({"ok": True})


def database_info(barrel: Barrel) -> dict[str, Any]:
    """What CouchDB tells about a database. Blocks."""
    info = barrel.info()
    return {
        "db_name": info.name,
        "update_seq": barrel.position(info.seq),
        "purge_seq": "0",
        "sizes": {"file": info.bytes, "external": info.bytes, "active": info.bytes},
        "props": {},
        "doc_del_count": info.deleted_count,
        "doc_count": info.doc_count,
        "disk_format_version": 8,
        "compact_running": False,
        "cluster": {"q": 1, "n": 1, "w": 1, "r": 1},
        "instance_start_time": start_time(info.created, info.epoch),
    }


def start_time(created: str, epoch: str) -> str:
    """A number that stays while the database lives, and is another when it is made anew: when it was made, in
    microseconds as CouchDB once told them, the last of which tell its epoch."""
    seconds = int(datetime.fromisoformat(created).timestamp())
    return f"{seconds}{int(epoch, 36) % _EPOCH_PARTS:06d}"


async def ensure_full_commit(call: Call) -> Answer:
    """Everything that was answered is on the disk already."""
    check_json(call)
    barrel = database(call)
    await call.body(_SMALL_BYTES)
    info = await call.in_thread(barrel.info)
    return json_answer({"ok": True, "instance_start_time": start_time(info.created, info.epoch)}, 201)


async def compact(call: Call) -> Answer:
    """Drop the bodies of superseded revisions; that is done when this is answered."""
    check_json(call)
    barrel = database(call, "admin")
    await call.body(_SMALL_BYTES)
    await call.in_thread(call.services.store.compact, barrel.name)
    return json_answer({"ok": True}, 202)


async def view_cleanup(call: Call) -> Answer:
    """There are no views whose files could be left."""
    check_json(call)
    database(call, "admin")
    await call.body(_SMALL_BYTES)
    return json_answer({"ok": True}, 202)


async def tell_revs_limit(call: Call) -> Answer:
    """How many revisions are remembered of a branch."""
    barrel = database(call)
    settings = await call.in_thread(barrel.current_settings)
    return json_answer(settings.revs_limit)


async def set_revs_limit(call: Call) -> Answer:
    """Change how many revisions are remembered of a branch."""
    barrel = database(call, "admin")
    limit = decoded(await call.body(_SMALL_BYTES), Any)
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= REVS_LIMIT_MAX:
        raise bad_request(f"revs_limit is a whole number from 1 to {REVS_LIMIT_MAX}.")
    await call.in_thread(call.services.store.configure, barrel.name, {"revs_limit": limit})
    return json_answer({"ok": True})


async def tell_purge_limit(call: Call) -> Answer:
    """Purges are not remembered, so that there is no limit on how many."""
    database(call)
    return json_answer(_PURGED_MAX)


async def tell_security(call: Call) -> Answer:
    """Nobody is named here: who may do what is decided by the service's access rules."""
    database(call)
    return json_answer({"admins": _OPEN, "members": _OPEN})


async def set_security(call: Call) -> Answer:
    """Take an object that names nobody; one that would close the database to others is refused, as it would not."""
    database(call, "admin")
    asked = await json_object(call, _SMALL_BYTES)
    for group in ("admins", "members"):
        told = asked.get(group) or {}
        if not isinstance(told, dict):
            raise bad_request(f"`{group}` must be an object of names and roles.")
        named = {part: told.get(part) or [] for part in ("names", "roles")}
        for part, each in named.items():
            if not isinstance(each, list) or not all(isinstance(text, str) for text in each):
                raise bad_request(f"`{part}` of `{group}` must be an array of texts.")
        if named["names"] or set(named["roles"]) - {"_admin"}:
            raise CouchError(
                403, "forbidden", "Who may do what is decided by Spile's access rules, not by _security objects."
            )
    return json_answer({"ok": True})


async def purge(call: Call) -> Answer:
    """Remove leaves here alone: `{id: [rev, …]}`."""
    barrel = database(call, "admin")
    asked = await json_object(call, _ASKED_BYTES_MAX)
    if len(asked) > _PURGED_MAX:
        raise CouchError(413, "request_entity_too_large", f"At most {_PURGED_MAX} documents are purged at once.")
    for id, revs in asked.items():
        if not isinstance(revs, list) or not all(isinstance(rev, str) for rev in revs):
            raise bad_request(f"The revisions of {id!r} must be an array of texts.")
    known = await call.in_thread(leaves_of, barrel, list(asked))
    purged: dict[str, list[str]] = {}
    writes = []
    for id, revs in asked.items():
        leaves = {str(leaf.revision) for leaf in known.get(id, ())}
        purged[id] = [rev for rev in dict.fromkeys(str(Revision.parse(rev)) for rev in revs) if rev in leaves]
        if purged[id]:
            writes.append(Write.purge(id, tuple(purged[id])))
    outcomes = await call.written(barrel.submit(writes)) if writes else []
    for write, outcome in zip(writes, outcomes, strict=True):
        if isinstance(outcome, NotFound):
            purged[write.id] = []
        elif isinstance(outcome, SpileError):
            raise outcome
    return json_answer({"purge_seq": None, "purged": purged}, 201)
