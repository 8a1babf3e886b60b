"""The server as CouchDB's clients ask about it: who it is, which databases it has, ids for documents."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final

from broker.couch.databases import database_info
from broker.couch.errors import CouchError, bad_request
from broker.couch.face import json_object, query_of
from broker.couch.query import Query
from broker.http.answers import Answer, json_answer
from broker.http.call import Call
from feeds.errors import NotFound
from feeds.naming import new_id

COUCHDB: Final = "3.5.0"
"""The version whose protocol is spoken: clients look at it to see what they may ask."""
_UUIDS_MAX: Final = 1000
_KEYS_MAX: Final = 100
_ASKED_BYTES_MAX: Final = 1 << 20


async def welcome(call: Call) -> Answer:
    """Who answers here."""
    call.allow("read")
    return json_answer(welcome_of(call.services.store.id, call.services.version))


def welcome_of(store: str, version: str) -> dict[str, Any]:
    """What a CouchDB tells first; `uuid` is the store's own, for as long as it is the same store."""
    uuid = blake2b(store.encode(), digest_size=16, person=b"spile-couch").hexdigest()
    return {
        "couchdb": "Welcome",
        "version": COUCHDB,
        "uuid": uuid,
        "features": ["pluggable-storage-engines"],
        "vendor": {"name": "Spile", "version": version},
    }


async def all_dbs(call: Call) -> Answer:
    """The names of the databases, in order."""
    call.allow("read")
    query = query_of(call)
    names = [barrel.name for barrel in await call.in_thread(call.services.store.barrels)]
    first, last = name_of(query, "startkey", "start_key"), name_of(query, "endkey", "end_key")
    descending = query.flag("descending")
    if descending:
        first, last = last, first
    names = [name for name in names if (first is None or name >= first) and (last is None or name <= last)]
    names.sort(reverse=descending)
    skip, limit = query.number("skip") or 0, query.number("limit")
    return json_answer(names[skip:] if limit is None else names[skip : skip + limit])


def name_of(query: Query, *names: str) -> str | None:
    """A bound of a list of names."""
    value = query.json(*names)
    if value is None or isinstance(value, str):
        return value
    raise bad_request(f"`{names[0]}` must be a name in quotes.")


async def dbs_info(call: Call) -> Answer:
    """What is told about several databases."""
    call.allow("read")
    store = call.services.store
    if call.method == "GET":
        names = [barrel.name for barrel in await call.in_thread(store.barrels)]
    else:
        asked = await json_object(call, _ASKED_BYTES_MAX)
        given = asked.get("keys")
        if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
            raise bad_request("`keys` member must exist and be an array of names.")
        if len(given) > _KEYS_MAX:
            raise bad_request(f"`keys` has more than {_KEYS_MAX} names.")
        names = given
    for name in names:
        call.allow("read", name)

    def info_of(name: str) -> dict[str, Any]:
        try:
            return {"key": name, "info": database_info(store.barrel(name))}
        except NotFound:
            return {"key": name, "error": "not_found"}

    return json_answer(await call.in_thread(lambda: [info_of(name) for name in names]))


async def uuids(call: Call) -> Answer:
    """Ids that no other document has."""
    count = query_of(call).number("count")
    count = 1 if count is None else count
    if count > _UUIDS_MAX:
        raise bad_request(f"count parameter too large; at most {_UUIDS_MAX}")
    headers = [(b"cache-control", b"no-cache")]
    return json_answer({"uuids": [new_id() for _ in range(count)]}, headers=headers)


async def up(call: Call) -> Answer:
    """Whether documents are served. Open to everyone: probes have no user."""
    parts = call.services.health()
    ok = parts["store"].ok if "store" in parts else True
    return json_answer({"status": "ok" if ok else "maintenance_mode", "seeds": {}}, 200 if ok else 404)


async def nowhere(call: Call) -> Answer:
    """Nothing of CouchDB's is served at this address."""
    raise CouchError(404, "not_found", "missing")
