"""What a CouchDB's user asks to be replicated, as a task of the service. Pure.

What tunes a replicator of CouchDB's own (its workers, its connections, how often it tries) is read over. What would
change which documents go over, and is not done here, is refused.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from broker.replication.task import Asked, Login, Secrets, Task, is_here, task_of
from feeds.body import canonical
from feeds.errors import BadRequest
from listeners.links.address import checked_token

_PROXIES: Final = ("proxy", "source_proxy", "target_proxy")
_OBJECTS: Final = ("query_params", "create_target_params")


@dataclass(frozen=True, slots=True)
class AskedReplication:
    """A replication, and what was written of it without anything that may not be shown."""

    task: Task
    secrets: Secrets
    body: dict[str, Any]


def read_replication(body: Mapping[str, Any]) -> AskedReplication:
    """The replication that an object asks for; BadRequest for what makes no sense, or is not done here."""
    canonical(body)  # which refuses what could not be kept
    for name in _OBJECTS:
        _typed(body, name, dict, "a JSON object")
    _refuse_others(body)
    source, from_, shown_source = _end(body, "source")
    target, to, shown_target = _end(body, "target")
    asked = Asked(
        source,
        target,
        continuous=flag(body, "continuous"),
        ids=_ids(body),
        selector=_typed(body, "selector", dict, "a JSON object"),
        create_target=flag(body, "create_target"),
    )
    if asked.ids is not None and asked.selector is not None:
        raise BadRequest("`doc_ids`, `filter` and `selector` are mutually exclusive")
    task, secrets = task_of(asked)
    secrets = Secrets(from_ or secrets.source, to or secrets.target)
    return AskedReplication(task, secrets, {**body, "source": shown_source, "target": shown_target})


def flag(body: Mapping[str, Any], name: str) -> bool:
    """A yes or no, which is no where it is not given."""
    return _typed(body, name, bool, "a boolean") or False


def _typed(body: Mapping[str, Any], name: str, type: type, what: str) -> Any:
    value = body.get(name)
    if value is not None and not isinstance(value, type):
        raise BadRequest(f"parameter `{name}` must be {what}")
    return value


def _ids(body: Mapping[str, Any]) -> list[str] | None:
    ids = _typed(body, "doc_ids", list, "an array")
    if ids is not None and not all(isinstance(id, str) for id in ids):
        raise BadRequest("parameter `doc_ids` must be an array of ids")
    return ids  # type: ignore[no-any-return]


def _refuse_others(body: Mapping[str, Any]) -> None:
    """Refuse what would bring over other documents than it does here."""
    if body.get("filter") is not None:
        raise BadRequest(
            "A filter is a function of a design document, which Spile keeps and does not run: use `doc_ids` or a "
            "`selector`"
        )
    if body.get("since_seq") not in (None, 0, "0", ""):
        raise BadRequest("`since_seq` is not done here: a replication goes on from its checkpoint")
    if flag(body, "winning_revs_only"):
        raise BadRequest("`winning_revs_only` is not done here: every leaf of a document goes over")
    proxy = next((name for name in _PROXIES if body.get(name) not in (None, "")), None)
    if proxy is not None:
        raise BadRequest(f"`{proxy}` is not done here: databases are reached directly")


def _end(body: Mapping[str, Any], name: str) -> tuple[str, Login | None, Any]:
    """An end, what it is signed in to with beside its URL, and how it may be shown."""
    given = body.get(name)
    place = given.get("url") if isinstance(given, dict) else given
    if not isinstance(place, str) or not place:
        raise BadRequest(
            f"`{name}` must be the URL of a database, its name if it is one here, or an object with `url`"
        )
    if not isinstance(given, dict):
        return place, None, _shown(place)
    login = _login_of_auth(name, given.get("auth")) or _login_of_headers(name, given.get("headers"))
    if login is not None and is_here(place):
        raise BadRequest(f"`{name}` is a database here, to which nobody signs in")
    return place, login, {"url": _shown(place)}


def _shown(place: str) -> str:
    """The place without user and password."""
    head, separator, rest = place.partition("://")
    if not separator:
        return place
    authority, slash, path = rest.partition("/")
    return head + separator + authority.rpartition("@")[2] + slash + path


class _Basic(msgspec.Struct):
    username: str
    password: str = ""


class _Auth(msgspec.Struct, forbid_unknown_fields=True):
    basic: _Basic | None = None


def _login_of_auth(name: str, given: Any) -> Login | None:
    try:
        basic = msgspec.convert(given or {}, _Auth).basic
    except msgspec.ValidationError:
        raise BadRequest(f'`auth` of `{name}` must be {{"basic": {{"username": …, "password": …}}}}') from None
    return None if basic is None else _login(name, basic.username, basic.password)


def _login_of_headers(name: str, given: Any) -> Login | None:
    headers = given or {}
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise BadRequest(f"`headers` of `{name}` must be an object of texts")
    other = next((header for header in headers if header.lower() != "authorization"), None)
    if other is not None:
        raise BadRequest(f"The header {other[:80]!r} of `{name}` is not sent on: Authorization alone is")
    for value in headers.values():
        scheme, _, credentials = value.strip().partition(" ")
        if scheme.lower() == "bearer" and credentials.strip():
            return Login(token=checked_token(credentials.strip()))
        if scheme.lower() == "basic":
            return _login_of_basic(name, credentials.strip())
        raise BadRequest(f"The header Authorization of `{name}` must be `Basic …` or `Bearer …`")
    return None


def _login_of_basic(name: str, credentials: str) -> Login:
    try:
        user, colon, password = b64decode(credentials, validate=True).decode().partition(":")
    except (Base64Error, ValueError):
        user = colon = password = ""
    if not colon:
        raise BadRequest(f"The header Authorization of `{name}` holds no user and password in base64")
    return _login(name, user, password)


def _login(name: str, user: str, password: str) -> Login:
    if not user:
        raise BadRequest(f"The login of `{name}` names no user; with a token as password any name does")
    return Login(user=user, password=password)
