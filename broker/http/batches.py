"""Many documents in one request: writing, reading, comparing and purging them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from broker.http.answers import Answer, encode_json, json_answer
from broker.http.call import Call
from broker.http.documents import written_json
from broker.http.endpoint import route
from feeds import Barrel, Document, Outcome, Write
from feeds.errors import BadRequest, SpileError, TooLarge
from feeds.storage.bulk import read_bulk

BATCH_MAX = 10_000  # documents in one request; a writer's group is 1,000
_ASKED_BYTES_MAX = 8 << 20
_ANSWER_BYTES_MAX = 64 << 20
_READ_TOGETHER = 100  # so that an answer which is too large is noticed before all of it is in memory


class Asked(msgspec.Struct):
    """One document to read."""

    id: str
    rev: str | None = None
    revs: bool = False


class AskedMany(msgspec.Struct):
    """The body of `_get`."""

    docs: list[Asked]


async def bulk(call: Call) -> Answer:
    """Write many documents; every one is accepted or refused by itself, and answered in order."""
    name = call.param("barrel")
    call.allow("write", name)
    barrel = call.services.store.barrel(name)
    body = await call.body(call.services.limits.bulk_bytes_max)
    token = call.token("bulk", name, "", body)
    prepared = await call.in_thread(read_bulk, body, call.services.limits.document_bytes_max)
    if any(isinstance(each, Write) and each.is_waiting for each in prepared):
        prepared = await call.in_step(lambda: barrel.absorb_each(prepared, who=call.who))
        call.waits_from_now()
    # Waited for on the loop: a reader's thread that waited for the writer would be missing to readers.
    outcomes = await call.written(barrel.submit(prepared, token=token)) if prepared else []
    results = [_outcome(each, outcome) for each, outcome in zip(prepared, outcomes, strict=True)]
    return json_answer({"results": results})


async def get_many(call: Call) -> Answer:
    """Read many documents, in the order asked for: `{doc}`, or `{id, error, reason}` where there is none."""
    name = call.param("barrel")
    call.allow("read", name)
    barrel = call.services.store.barrel(name)
    asked = (await call.json(AskedMany, _ASKED_BYTES_MAX)).docs
    if len(asked) > BATCH_MAX:
        raise BadRequest(f"{len(asked)} documents are asked for; at most {BATCH_MAX} fit into one request.")
    return await call.in_thread(_read_many, barrel, asked)


async def revs_diff(call: Call) -> Answer:
    """Which of the revisions in `{id: [rev, …]}` are not known here."""
    name = call.param("barrel")
    call.allow("read", name)
    barrel = call.services.store.barrel(name)
    asked = await call.json(dict[str, list[str]], _ASKED_BYTES_MAX)
    return json_answer(await call.in_thread(barrel.revs_diff, asked))


async def purge(call: Call) -> Answer:
    """Remove documents here alone, by `{id: [rev, …]}`: the branches that end in these revisions, or all for `[]`."""
    name = call.param("barrel")
    call.allow("admin", name)
    barrel = call.services.store.barrel(name)
    asked = await call.json(dict[str, list[str]], _ASKED_BYTES_MAX)
    writes = [Write.purge(id, tuple(revs)) for id, revs in asked.items()]
    outcomes = await call.written(barrel.submit(writes)) if writes else []
    results = [_outcome(write, outcome) for write, outcome in zip(writes, outcomes, strict=True)]
    return json_answer({"results": results})


def _outcome(asked: Write | SpileError, outcome: Outcome) -> dict[str, Any]:
    if not isinstance(outcome, SpileError):
        return written_json(outcome)
    return {"id": asked.id, **outcome.as_dict()} if isinstance(asked, Write) else outcome.as_dict()


def _read_many(barrel: Barrel, asked: Sequence[Asked]) -> Answer:
    results: list[bytes] = []
    size = 0
    for start in range(0, len(asked), _READ_TOGETHER):
        for answer in _read_some(barrel, asked[start : start + _READ_TOGETHER]):
            results.append(answer)
            size += len(answer)
            if size > _ANSWER_BYTES_MAX:
                raise TooLarge(
                    f"The documents asked for exceed {_ANSWER_BYTES_MAX} bytes.", hint="Ask for fewer at a time."
                )
    return Answer(200, b'{"results":[' + b",".join(results) + b"]}")


def _read_some(barrel: Barrel, asked: Sequence[Asked]) -> list[bytes]:
    found: dict[int, Document | SpileError] = {}
    for revs in (False, True):
        places = [place for place, one in enumerate(asked) if one.revs is revs]
        wanted = [(asked[place].id, asked[place].rev) for place in places]
        if wanted:
            found.update(zip(places, barrel.get_many(wanted, revs=revs), strict=True))
    return [_one_read(one, found[place]) for place, one in enumerate(asked)]


def _one_read(asked: Asked, found: Document | SpileError) -> bytes:
    if isinstance(found, SpileError):
        rev = {"rev": asked.rev} if asked.rev is not None else {}
        return encode_json({"id": asked.id, **rev, **found.as_dict()})
    return b'{"doc":' + found.json() + b"}"


ROUTES = [
    route("POST", "/barrels/{barrel}/docs/_bulk", "bulk", bulk),
    route("POST", "/barrels/{barrel}/docs/_get", "get_many", get_many, reads=True),
    route("POST", "/barrels/{barrel}/docs/_revs_diff", "revs_diff", revs_diff, reads=True),
    route("POST", "/barrels/{barrel}/docs/_purge", "purge", purge),
]
