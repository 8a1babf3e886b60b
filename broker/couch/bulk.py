"""Many documents in one request: writing, comparing and reading them, which is what replicators do most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from broker.couch import local
from broker.couch.errors import CouchError, bad_request, told
from broker.couch.face import check_json, database, decoded, json_object, query_of
from broker.couch.paging import paged_answer
from broker.couch.reading import Beside, as_jsons, read_many
from broker.couch.writing import edited, grafted, told_of_write
from broker.http.answers import Answer, AnyAnswer, encode_json
from broker.http.call import Call
from feeds import Barrel, Document, Outcome, Write, Written
from feeds.errors import BadRequest, NotFound, SpileError
from feeds.revisions import Revision
from feeds.storage.listing import leaves_of

BATCH_MAX: Final = 10_000  # documents in one request; a writer's group is 1,000
_ASKED_BYTES_MAX: Final = 8 << 20
_PAGE: Final = 100
_PAGE_WITH_CONTENTS: Final = 10  # of up to 16 MiB in each document
_LIMITS: Final = (400, 403, 413)

Prepared = Write | SpileError | Written


class _Bulk(msgspec.Struct):
    docs: list[msgspec.Raw] | msgspec.UnsetType = msgspec.UNSET
    new_edits: bool = True


class _Asked(msgspec.Struct):
    id: str
    rev: str | None = None
    atts_since: list[str] | None = None


class _AskedMany(msgspec.Struct):
    docs: list[_Asked]


_read_bulk = msgspec.json.Decoder(_Bulk).decode


async def bulk_docs(call: Call) -> Answer:
    """Write many documents. With `new_edits=false` they were made elsewhere, and only what is refused is answered."""
    check_json(call)
    barrel = database(call, "write")
    body = await call.body(call.services.limits.bulk_bytes_max)
    limits = call.services.limits
    edits, prepared = await call.in_thread(_prepared, barrel, body, limits.document_bytes_max, limits.bulk_bytes_max)
    if any(isinstance(each, Write) and each.is_waiting for each in prepared):
        prepared = await call.in_step(_absorbed, barrel, prepared, call.who)
        call.waits_from_now()
    writes = [each for each in prepared if isinstance(each, Write)]
    outcomes = iter(await call.written(barrel.submit(writes)) if writes else ())
    rows = []
    for each in prepared:
        outcome = next(outcomes) if isinstance(each, Write) else each
        if edits or isinstance(outcome, SpileError):
            rows.append(_row(each, outcome, edits))
    return Answer(201, encode_json(rows))


def _prepared(barrel: Barrel, body: bytes, bytes_max: int, contents_max: int) -> tuple[bool, list[Prepared]]:
    """Whether these are edits, and a write for each document, or why it alone is refused; TooLarge where the contents
    in them, which may come compressed, are more than `contents_max` bytes together. Blocks."""
    request = _bulk_of(body)
    if request.docs is msgspec.UNSET:
        raise bad_request("POST body must include `docs` parameter.")
    if len(request.docs) > BATCH_MAX:
        raise CouchError(413, "request_entity_too_large", f"At most {BATCH_MAX} documents are written at once.")
    make = edited if request.new_edits else grafted
    prepared: list[Prepared] = []
    size = 0
    for doc in request.docs:
        text = bytes(doc)
        try:
            write = make(text, bytes_max)
            size += sum(len(each.data or b"") for each in (write.attachments or {}).values() if each is not None)
            prepared.append(write)
        except CouchError as refusal:
            named = _named(text)
            if local.is_local(str(named.get("_id"))) and named["_id"] != local.PREFIX:
                prepared.append(_local(barrel, named, text))
                continue
            if refusal.told.status == 400:
                raise
            refusal.details.update(id=named.get("_id"), rev=named.get("_rev"))
            prepared.append(refusal)
        if size > contents_max:
            raise CouchError(
                413, "request_entity_too_large", "The attachments have too many bytes: send fewer at once."
            )
    return request.new_edits, prepared


def _bulk_of(body: bytes) -> _Bulk:
    try:
        return _read_bulk(body)
    except msgspec.ValidationError as error:
        whole = decoded(body, Any)
        if not isinstance(whole, dict):
            raise bad_request("Request body must be a JSON object") from error
        if not isinstance(whole.get("docs"), list):
            raise bad_request("`docs` parameter must be an array.") from error
        raise bad_request("`new_edits` parameter must be a boolean.") from error
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise bad_request("invalid UTF-8 JSON") from error


def _named(text: bytes) -> dict[str, Any]:
    """What a refused document calls itself."""
    try:
        doc = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return {}
    return doc if isinstance(doc, dict) else {}


def _local(barrel: Barrel, doc: dict[str, Any], text: bytes) -> Written | SpileError:
    try:
        return local.write_local(barrel, doc["_id"].removeprefix(local.PREFIX), text)
    except SpileError as refusal:
        refusal.details.update(id=doc["_id"], rev=doc.get("_rev"))
        return refusal


def _absorbed(barrel: Barrel, prepared: Sequence[Prepared], who: str) -> list[Prepared]:
    """With the contents that they bring along stored."""
    writes = [each for each in prepared if isinstance(each, Write)]
    stored = iter(barrel.absorb_each(writes, who=who))
    return [next(stored) if isinstance(each, Write) else each for each in prepared]


def _row(given: Prepared, outcome: Outcome, edits: bool) -> dict[str, Any]:
    if isinstance(outcome, Written) and not (edits and outcome.repeated):
        return {"ok": True, "id": outcome.id, "rev": outcome.rev}
    if isinstance(outcome, Written):
        return {"id": outcome.id, "error": "conflict", "reason": "Document update conflict."}
    id = given.id if isinstance(given, Write) else outcome.details.get("id")
    rev = str(given.rev) if isinstance(given, Write) and given.rev is not None else outcome.details.get("rev")
    if outcome.retryable:
        raise outcome  # the whole request: what was written of it is written again without harm
    outcome.details.setdefault("id", id)
    status, error, reason = told(told_of_write(outcome))
    if not edits and status in _LIMITS:
        error = "forbidden"  # the only word after which PouchDB goes on with the other documents
    row = {"id": id, "error": error, "reason": reason}
    return row if edits or rev is None else {"id": id, "rev": rev, "error": error, "reason": reason}


async def revs_diff(call: Call) -> Answer:
    """Which of the revisions in `{id: [rev, …]}` are not here, and what they may descend from."""
    barrel, asked = await _revisions_asked(call)
    return Answer(200, encode_json(await call.in_thread(barrel.revs_diff, asked)))


async def missing_revs(call: Call) -> Answer:
    """Which of the revisions in `{id: [rev, …]}` are not here."""
    barrel, asked = await _revisions_asked(call)
    found = await call.in_thread(barrel.revs_diff, asked)
    return Answer(200, encode_json({"missing_revs": {id: each["missing"] for id, each in found.items()}}))


async def _revisions_asked(call: Call) -> tuple[Barrel, dict[str, list[str]]]:
    barrel = database(call)
    asked = await json_object(call, call.services.limits.bulk_bytes_max)
    for revs in asked.values():
        if not isinstance(revs, list):
            raise bad_request("The revisions of a document must be an array.")
        for rev in revs:
            _check_rev(rev)
    return barrel, dict(asked)


def _check_rev(rev: object) -> None:
    try:
        Revision.parse(rev)
    except BadRequest as error:
        raise bad_request("Invalid rev format") from error


async def bulk_get(call: Call) -> AnyAnswer:
    """Read many documents in the order asked for, each at a revision or at all its leaves."""
    check_json(call)
    barrel = database(call)
    beside = Beside.of(query_of(call))
    body = await call.body(_ASKED_BYTES_MAX)
    asked = await call.in_thread(_asked_of, body)
    if len(asked) > BATCH_MAX:
        raise CouchError(413, "request_entity_too_large", f"At most {BATCH_MAX} documents are read at once.")
    return await paged_answer(call, _results(barrel, asked, beside), contents=beside.attachments)


def _asked_of(body: bytes) -> list[_Asked]:
    try:
        return msgspec.json.decode(body, type=_AskedMany).docs
    except msgspec.ValidationError as error:
        whole = decoded(body, Any)
        if not isinstance(whole, dict) or not isinstance(whole.get("docs"), list):
            raise bad_request("Missing JSON list of 'docs'.") from error
        raise bad_request(f"Each of `docs` is an object with an id, and maybe a rev: {error}") from error
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise bad_request("invalid UTF-8 JSON") from error


def _results(barrel: Barrel, asked: Sequence[_Asked], beside: Beside) -> Iterator[bytes]:
    """The answer in pieces. Blocks."""
    head = b'{"results":['
    size = _PAGE_WITH_CONTENTS if beside.attachments else _PAGE
    for start in range(0, len(asked), size):
        part = asked[start : start + size]
        yield head + b",".join(_some_results(barrel, part, beside))
        head = b","
    yield b"]}" if asked else head + b"]}"


def _some_results(barrel: Barrel, asked: Sequence[_Asked], beside: Beside) -> list[bytes]:
    at_leaves = [each.id for each in asked if each.rev is None]
    leaves = leaves_of(barrel, at_leaves) if at_leaves else {}
    wanted: list[tuple[str, str | None]] = []
    counts = []
    for each in asked:
        if each.rev is not None:
            revs: list[str | None] = [each.rev]
        else:
            revs = [str(leaf.revision) for leaf in leaves.get(each.id, ())] or [None]
        wanted.extend((each.id, rev) for rev in revs)
        counts.append(len(revs))
    found = _read(barrel, wanted, beside)
    documents = [each for each in found if isinstance(each, Document)]
    texts = iter(as_jsons(barrel, documents, beside))
    rows = iter(
        b'{"ok":' + next(texts) + b"}" if isinstance(each, Document) else _not_read(id, rev, each)
        for (id, rev), each in zip(wanted, found, strict=True)
    )
    return [
        b'{"id":%b,"docs":[%b]}' % (encode_json(each.id), b",".join(next(rows) for _ in range(count)))
        for each, count in zip(asked, counts, strict=True)
    ]


def _read(
    barrel: Barrel, wanted: Sequence[tuple[str, str | None]], beside: Beside
) -> Sequence[Document | SpileError]:
    found = read_many(barrel, wanted, beside)
    if any(isinstance(each, SpileError) and each.retryable for each in found):
        raise next(each for each in found if isinstance(each, SpileError) and each.retryable)
    return found


def _not_read(id: str, rev: str | None, error: SpileError) -> bytes:
    if isinstance(error, NotFound):
        name, reason = "not_found", "missing"
    else:
        _, name, reason = told(error)
    return encode_json({"error": {"id": id, "rev": rev or "undefined", "error": name, "reason": reason}})
