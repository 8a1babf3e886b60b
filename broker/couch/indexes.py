"""`_index`: definitions of indexes, kept as the design documents that CouchDB makes of them.

They are kept for those who ask which there are, and replicated like any document. Spile indexes every path by itself,
so that none of them has to be built.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, Final

from broker.couch.asking import sorted_by
from broker.couch.documents import submit
from broker.couch.errors import CouchError, bad_request
from broker.couch.face import check_reserved, database, json_object
from broker.http.answers import Answer, json_answer
from broker.http.call import Call
from broker.http.routing import decode
from feeds import Barrel, Document, Write
from feeds.body import check_id
from feeds.errors import BadRequest, NotFound
from feeds.storage.listing import list_documents

_ASKED_BYTES_MAX: Final = 1 << 20
_DESIGN: Final = "_design/"
_DESIGNS_MAX: Final = 1_000
_ALL_DOCS: Final = {
    "ddoc": None,
    "name": "_all_docs",
    "type": "special",
    "partitioned": False,
    "def": {"fields": [{"_id": "asc"}]},
}


async def list_indexes(call: Call) -> Answer:
    """Every definition, and the one that is always there."""
    barrel = database(call)
    found = [_ALL_DOCS, *await call.in_thread(lambda: list(_defined(barrel)))]
    return json_answer({"total_rows": len(found), "indexes": found})


async def create_index(call: Call) -> Answer:
    """Keep a definition."""
    barrel = database(call, "write")
    asked = await json_object(call, _ASKED_BYTES_MAX)
    if asked.get("type", "json") != "json":
        raise bad_request("Only indexes of the type `json` are kept.")
    definition = asked.get("index")
    fields = definition.get("fields") if isinstance(definition, dict) else None
    if not isinstance(definition, dict) or not isinstance(fields, list) or not fields:
        raise bad_request("`index` must have an array of `fields`.")
    told = _told(fields)
    digest = blake2b(repr((told, definition.get("partial_filter_selector"))).encode(), digest_size=20).hexdigest()
    name, design = asked.get("name", digest), asked.get("ddoc", digest)
    if not isinstance(name, str) or not isinstance(design, str) or not name or not design:
        raise bad_request("`name` and `ddoc` are texts.")
    id = check_reserved(design if design.startswith(_DESIGN) else _DESIGN + design)
    try:
        check_id(id)
    except BadRequest as error:
        raise CouchError(403, "forbidden", error.reason) from error
    before = await call.in_thread(_read, barrel, id)
    view = {
        "map": {
            "fields": {key: way for each in told for key, way in each.items()},
            "partial_filter_selector": definition.get("partial_filter_selector") or {},
        },
        "reduce": "_count",
        "options": {"def": {"fields": fields}},
    }
    views = _views(before)
    if views.get(name) == view:
        return json_answer({"result": "exists", "id": id, "name": name})
    doc = {**(before or {}), "_id": id, "language": "query", "views": {**views, name: view}}
    await submit(call, barrel, Write.put(doc))
    return json_answer({"result": "created", "id": id, "name": name})


async def delete_index(call: Call) -> Answer:
    """Forget a definition: `_index/{design document}/json/{name}`."""
    barrel = database(call, "write")
    # Split before it is decoded: the slashes of a name are encoded.
    design, kind, name = (decode(part, "index") for part in ["", "", *call.params["index"].rsplit("/", 2)][-3:])
    id = design if design.startswith(_DESIGN) else _DESIGN + design
    before = await call.in_thread(_read, barrel, id) if kind == "json" else None
    views = _views(before)
    if before is None or name not in views:
        raise CouchError(404, "not_found", "missing")
    del views[name]
    write = Write.put({**before, "views": views}) if views else Write.delete(id, rev=before["_rev"])
    await submit(call, barrel, write)
    return json_answer({"ok": True})


def _told(fields: list[Any]) -> list[dict[str, str]]:
    """Fields of an index, each with its direction."""
    return [{".".join(path): "desc" if down else "asc"} for path, down in map(sorted_by, fields)]


def _read(barrel: Barrel, id: str) -> dict[str, Any] | None:
    try:
        return barrel.get(id).data
    except NotFound:
        return None


def _views(design: dict[str, Any] | None) -> dict[str, Any]:
    views = (design or {}).get("views") or {}
    if not isinstance(views, dict):
        raise bad_request("The `views` of that design document are no object.")
    return dict(views)


def _defined(barrel: Barrel) -> Iterator[dict[str, Any]]:
    listed = list_documents(barrel, _DESIGN, "_design0", limit=_DESIGNS_MAX).documents
    for document in barrel.get_many([(each.id, each.rev) for each in listed if not each.deleted]):
        if not isinstance(document, Document) or document.data.get("language") != "query":
            continue
        views = document.data.get("views")
        for name, view in sorted(views.items() if isinstance(views, dict) else ()):
            try:
                # Only here they are in order: the keys of an object have none.
                told = {"fields": _told(view["options"]["def"]["fields"])}
                partial = view["map"].get("partial_filter_selector")
            except (AttributeError, KeyError, TypeError, CouchError):
                continue  # somebody's own, which is no definition
            definition = {**told, "partial_filter_selector": partial} if partial else told
            yield {"ddoc": document.id, "name": name, "type": "json", "partitioned": False, "def": definition}
