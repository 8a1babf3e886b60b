"""What every endpoint of the face shares: its database, its body, and how it answers.

Handlers raise the errors of `feeds` as everywhere; here they become CouchDB's answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from broker.couch.cors import cors_headers
from broker.couch.errors import CouchError, bad_request, error_answer
from broker.couch.packing import packed_answer
from broker.couch.query import Query
from broker.http.answers import Answer, AnyAnswer, Header
from broker.http.call import Call
from broker.http.endpoint import Endpoint
from broker.http.services import Verb
from feeds import Barrel
from feeds.barrels import check_barrel_name
from feeds.errors import BadRequest, NotFound, SpileError

T = TypeVar("T")
Handler = Callable[[Call], Awaitable[AnyAnswer]]

_JSON: Final = "application/json"
_DESIGN: Final = "_design/"


class Served(NamedTuple):
    """A row of the face's table. `template` stands below the face's prefix."""

    method: str
    template: str
    handler: Handler
    writes: bool = False
    streams: str | None = None


def endpoint_of(row: Served) -> Endpoint:
    """What stands at the end of its route."""
    name = "couch_" + getattr(row.handler, "__name__", "answer")
    return Endpoint(
        name, _answering(row.handler), writes=row.writes, streams=row.streams, inflates=True, refuse=refusal
    )


def _answering(handler: Handler) -> Handler:
    async def served(call: Call) -> AnyAnswer:
        try:
            _check_encoding(call)
            answer = await packed_answer(call, await handler(call))
        except SpileError as error:
            return refusal(error, call.headers, call.services.limits.origins)
        answer.headers.extend(cors_headers(call.headers, call.services.limits.origins))
        return answer

    return served


def _check_encoding(call: Call) -> None:
    encoding = (call.header(b"content-encoding") or "identity").lower()
    if encoding not in ("identity", "gzip"):
        raise CouchError(415, "bad_content_type", f"{encoding} is not a supported content encoding.")


def refusal(error: SpileError, asked: Sequence[Header], origins: Collection[str]) -> Answer:
    """The answer to a request that is refused, which a page of an allowed origin may read."""
    answer = error_answer(error)
    answer.headers.extend(cors_headers(asked, origins))
    return answer


def database(call: Call, verb: Verb = "read", path: str = "#") -> Barrel:
    """The barrel that the path names, if the client may do this there."""
    name = call.param("db")
    call.allow(verb, name, path)
    try:
        return call.services.store.barrel(name)
    except NotFound as error:
        raise CouchError(404, "not_found", "Database does not exist.") from error


def database_name(call: Call) -> str:
    """The database that is to be made, if it can be called so."""
    name = call.param("db")
    try:
        return check_barrel_name(name)
    except BadRequest as error:
        raise CouchError(
            400,
            "illegal_database_name",
            f"Name: '{name[:128]}'. Only lowercase characters (a-z), digits (0-9), and any of the characters "
            "_, $, (, ), +, -, and / are allowed. Must begin with a letter.",
        ) from error


def document_id(call: Call) -> str:
    """The document in the path; `_design/…` where it stands below that."""
    return check_reserved(call.param("id") if "id" in call.params else _DESIGN + call.param("design"))


def check_reserved(id: str) -> str:
    """The id, if its underscore, where it begins with one, is that of a design document or of a local one."""
    if id.startswith("_") and (not id.startswith(_DESIGN) or id == _DESIGN) and not id.startswith("_local/"):
        raise illegal_id()
    return id


def illegal_id(reason: str = "Only reserved document ids may start with underscore.") -> CouchError:
    """The refusal of an id that CouchDB refuses too."""
    return CouchError(400, "illegal_docid", reason)


def query_of(call: Call) -> Query:
    """The options of the query string."""
    return Query(call.scope["query_string"])


def check_json(call: Call) -> None:
    """Refuse a body that does not say it is JSON: CouchDB wants that of every POST, from those that it knows."""
    call.admit()
    kind = (call.header(b"content-type") or "").partition(";")[0].strip().lower()
    if kind != _JSON:
        raise CouchError(415, "bad_content_type", "Content-Type must be application/json")


async def json_object(call: Call, bytes_max: int) -> Mapping[str, Any]:
    """The body, which must be a JSON object."""
    check_json(call)
    found = decoded(await call.body(bytes_max), dict[str, Any] | list[Any] | str | float | bool | None)
    if not isinstance(found, dict):
        raise bad_request("Request body must be a JSON object")
    return found


def decoded(body: bytes, type: Any) -> Any:
    """A body as `type`."""
    try:
        return msgspec.json.decode(body, type=type)
    except msgspec.ValidationError as error:
        raise bad_request(f"The body is not what is wanted here: {error}") from error
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise bad_request("invalid UTF-8 JSON") from error
