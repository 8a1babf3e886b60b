"""A request's body: JSON taken apart into the client's fields and its token.

Pure. What the fields mean is known to those who serve the request.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol, TypeVar

import msgspec

from feeds.body import canonical, read_json
from feeds.errors import BadRequest
from feeds.writes import TOKEN_BYTES_MAX, Token

T = TypeVar("T")


class Part(Protocol):
    """A part of something larger that is sent in several requests; its bytes are `data`, in base64."""

    upload: str
    data: str


P = TypeVar("P", bound=Part)


class _Named(msgspec.Struct):
    token: Any = msgspec.field(default=msgspec.UNSET, name="_token")


# Passes over all other fields without making anything of them, so that refusing is cheaper than serving.
_find_token = msgspec.json.Decoder(_Named).decode


@dataclass(frozen=True, slots=True)
class Body:
    """A request's fields without `_token`, and the token that it carried."""

    fields: dict[str, Any]
    token: str | None

    def as_(self, kind: type[T]) -> T:
        """The fields as a struct (or a mapping of known types); BadRequest says what does not fit."""
        try:
            return msgspec.convert(self.fields, kind)
        except msgspec.ValidationError as error:
            raise BadRequest(f"The request is not what is wanted here: {error}") from None

    def bound(self, who: str, verb: str, barrel: str, id: str) -> Token | None:
        """The token bound to this very request, its body hashed without it; None where there is none."""
        if self.token is None:
            return None
        return Token.of(self.token, who, verb, barrel, id, canonical(self.fields))


def read_body(payload: bytes) -> Body:
    """Take a payload apart; an empty one is no fields. BadRequest for what is no JSON object."""
    return read_fields(payload, check_object, "The body") if payload else Body({}, None)


def read_part(
    payload: bytes, kind: type[P], take: Callable[[Body], None] = lambda body: None
) -> tuple[P, bytes, str | None]:
    """Take the payload of a part apart: what it says, its bytes, and its token; `take` takes off its own first."""
    body = read_body(payload)
    take(body)
    part = body.as_(kind)
    try:
        return part, b64decode(part.data, validate=True), body.token
    except ValueError as error:
        raise BadRequest(f"`data` is not base64: {error}", upload=part.upload) from None


def read_fields(payload: bytes, check: Callable[[Any], dict[str, Any]], what: str) -> Body:
    """Take a payload apart that is `what`; `check` refuses JSON that is no object in the words of that."""
    fields = check(read_json(payload, what=what))
    token = fields.pop("_token", None)
    return Body(fields, None if token is None else checked_token(token))


def check_object(fields: Any) -> dict[str, Any]:
    """The fields, if they are an object; else BadRequest."""
    if type(fields) is not dict:
        raise BadRequest("The body is no JSON object.", hint='Send an object, like {"name": "value"}.')
    return fields


def checked_token(token: Any) -> str:
    """The token, if it is one; else BadRequest."""
    if not _is_token(token):
        raise BadRequest(f"`_token` is not text of 1 to {TOKEN_BYTES_MAX} bytes.", hint="A UUID does well.")
    return str(token)


def recognition(payload: bytes) -> dict[str, str]:
    """What a client recognises a refused request by: its token, or the sha256 of what is no request."""
    if not payload:
        return {}
    try:
        token = _find_token(payload).token
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return {"sha256": sha256(payload).hexdigest()}
    if token is msgspec.UNSET:
        return {}
    return {"token": token} if _is_token(token) else {"sha256": sha256(payload).hexdigest()}


def _is_token(token: Any) -> bool:
    return isinstance(token, str) and 1 <= len(token.encode(errors="replace")) <= TOKEN_BYTES_MAX
