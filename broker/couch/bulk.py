"""Many documents in one request: writing, comparing and reading them, which is what replicators do most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from broker.couch import local
from broker.couch.errors import CouchError, bad_request, told
from broker.couch.face import check_json, database, decoded, json_object, query_of
from broker.couch.paging import paged_answer
from broker.couch.reading import TOGETHER, TOGETHER_WITH_CONTENTS, Beside, as_json, as_jsons, read_many
from broker.couch.writing import edited, grafted, told_of_write
from broker.http.answers import Answer, AnyAnswer, encode_json
from broker.http.call import Call
from feeds import Barrel, Document, Outcome, Write, Written
from feeds.errors import BadRequest, NotFound, SpileError
from feeds.revisions import Revision
from feeds.storage.listing import leaves_of

BATCH_MAX: Final = 10_000  # documents in one request; a writer's group is 1,000
_ASKED_BYTES_MAX: Final = 8 << 20
_LIMITS: Final = (400, 403, 413)


@dataclass(frozen=True, slots=True)
class _Local:
    """A local document: written once nothing refuses the whole request any more."""

    doc: dict[str, Any]
    text: bytes


Prepared = Write | SpileError | _Local


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
    edits, prepared = await call.in_thread(_prepared, body, limits.document_bytes_max, limits.bulk_bytes_max)
    if any(isinstance(each, Write) and each.is_waiting for each in prepared):
        prepared = await call.in_step(_absorbed, barrel, prepared, call.who)
        call.waits_from_now()
    writes = [each for each in prepared if isinstance(each, Write)]
    written = iter(await call.written(barrel.submit(writes)) if writes else ())
    outcomes = [next(written) if isinstance(each, Write) else each for each in prepared]
    for outcome in outcomes:
        if isinstance(outcome, SpileError) and outcome.retryable:
            raise outcome  # the whole request: what was written of it is written again without harm
    if any(isinstance(each, _Local) for each in prepared):
        outcomes = await call.in_thread(_with_locals, barrel, outcomes)
    rows = [
        _row(each, outcome, edits)
        for each, outcome in zip(prepared, outcomes, strict=True)
        if not isinstance(outcome, _Local) and (edits or isinstance(outcome, SpileError))
    ]
    return Answer(201, encode_json(rows))


def _prepared(body: bytes, bytes_max: int, contents_max: int) -> tuple[bool, list[Prepared]]:
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
            if write.attachments:
                size += sum(len(each.data or b"") for each in write.attachments.values() if each is not None)
            prepared.append(write)
        except CouchError as refusal:
            named = _named(text)
            if local.is_local(str(named.get("_id"))) and named["_id"] != local.PREFIX:
                prepared.append(_Local(named, text))
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


def _with_locals(barrel: Barrel, outcomes: Sequence[Outcome | _Local]) -> list[Outcome | _Local]:
    """With what became of the local documents in their places."""
    return [_local(barrel, each.doc, each.text) if isinstance(each, _Local) else each for each in outcomes]


def _local(barrel: Barrel, doc: dict[str, Any], text: bytes) -> Outcome:
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
    contents = any(beside.since(each.atts_since).attachments for each in asked)
    return await paged_answer(call, _results(barrel, asked, beside, contents), contents=contents)


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


def _results(barrel: Barrel, asked: Sequence[_Asked], beside: Beside, contents: bool) -> Iterator[bytes]:
    """The answer in pieces. Blocks."""
    head = b'{"results":['
    together = TOGETHER_WITH_CONTENTS if contents else TOGETHER
    for begin in range(0, len(asked), together):
        wanted = _revisions_of(barrel, asked[begin : begin + together])
        before: _Asked | None = None
        at = 0
        for found in read_many(
            barrel, [(each.id, rev) for each, rev in wanted], replace(beside, attachments=contents)
        ):
            part = wanted[at : at + len(found)]
            at += len(found)
            text = []
            for (each, _), row in zip(part, _rows(barrel, part, found, beside), strict=True):
                if each is before:
                    text.append(b",")
                else:
                    text.append((head if before is None else b"]},") + b'{"id":%b,"docs":[' % encode_json(each.id))
                text.append(row)
                before, head = each, b","
            yield b"".join(text)
        yield b"]}"
    yield b"]}" if asked else head + b"]}"


def _revisions_of(barrel: Barrel, asked: Sequence[_Asked]) -> list[tuple[_Asked, str | None]]:
    """Which revisions are to be read: those that are named, or else every leaf; None where there is nothing."""
    at_leaves = [each.id for each in asked if each.rev is None]
    leaves = leaves_of(barrel, at_leaves) if at_leaves else {}
    wanted: list[tuple[_Asked, str | None]] = []
    for each in asked:
        revs: list[str | None] = [each.rev]
        if each.rev is None and each.id in leaves:
            revs = [str(leaf.revision) for leaf in leaves[each.id]]
        wanted.extend((each, rev) for rev in revs)
    return wanted


def _rows(
    barrel: Barrel,
    wanted: Sequence[tuple[_Asked, str | None]],
    found: Sequence[Document | SpileError],
    beside: Beside,
) -> list[bytes]:
    for one in found:
        if isinstance(one, SpileError) and one.retryable:
            raise one
    read = [
        (one, beside.since(each.atts_since))
        for (each, _), one in zip(wanted, found, strict=True)
        if isinstance(one, Document)
    ]
    if all(since is beside for _, since in read):
        texts = iter(as_jsons(barrel, [one for one, _ in read], beside))
    else:
        texts = iter([as_json(barrel, one, since) for one, since in read])
    return [
        b'{"ok":' + next(texts) + b"}" if isinstance(one, Document) else _not_read(each.id, rev, one)
        for (each, rev), one in zip(wanted, found, strict=True)
    ]


def _not_read(id: str, rev: str | None, error: SpileError) -> bytes:
    if isinstance(error, NotFound):
        name, reason = "not_found", "missing"
    else:
        _, name, reason = told(error)
    return encode_json({"error": {"id": id, "rev": rev or "undefined", "error": name, "reason": reason}})
