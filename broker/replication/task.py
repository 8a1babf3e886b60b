"""What is to be replicated, as it is asked for and as it is kept: two ends, what of the barrel, and how.

Pure. The service's own barrels are named by their bare names, all others by URL. What an end is signed in to with
is taken out of what was asked, so that a task can be shown and logged.
"""

from __future__ import annotations

from functools import cached_property
from hashlib import sha256
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import msgspec

from feeds.barrels import check_barrel_name
from feeds.errors import BadRequest
from listeners.links.address import Address, checked_token, login_in, parse_address
from listeners.replication import Filter

Leaves = Literal["ignore", "purge"]

_HINT = "Name a barrel of this service by its name, and another one by URL, as in http://HOST:PORT/BARREL."
_encode = msgspec.json.Encoder(order="deterministic").encode


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """A replication as it is asked for."""

    source: str
    target: str
    continuous: bool = False
    both: bool = False
    patterns: list[str] = []
    ids: list[str] | None = None
    selector: dict[str, Any] | None = None
    leaves: Leaves = "ignore"
    create_target: bool = False
    source_token: str | None = None
    target_token: str | None = None


class Login(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one end is signed in to with."""

    user: str | None = None
    password: str | None = None
    token: str | None = None

    def __repr__(self) -> str:
        """Nothing that may not be logged."""
        return "Login(…)"


class Secrets(msgspec.Struct, frozen=True, omit_defaults=True):
    """The logins of both ends, where there are some."""

    source: Login | None = None
    target: Login | None = None

    @property
    def ends(self) -> list[str]:
        """The ends that have one."""
        return [name for name in ("source", "target") if getattr(self, name) is not None]


class Task(msgspec.Struct, frozen=True, omit_defaults=True, dict=True):
    """A replication, without secrets. `source` and `target` are names of barrels or URLs."""

    source: str
    target: str
    continuous: bool = False
    both: bool = False
    patterns: tuple[str, ...] = ()
    ids: tuple[str, ...] | None = None
    selector: dict[str, Any] | None = None
    leaves: Leaves = "ignore"
    create_target: bool = False

    @cached_property
    def filter(self) -> Filter:
        """What of the barrel is meant; BadRequest where that makes no sense."""
        return Filter.of(patterns=self.patterns, ids=self.ids, selector=self.selector)

    @cached_property
    def id(self) -> str:
        """The same for the same two ends, filter and way of doing it."""
        ends = [_canonical(self.source), _canonical(self.target)]
        told = [*ends, self.continuous, self.both, self.filter.canonical(), self.leaves]
        return sha256(_encode(told)).hexdigest()[:32]

    def __str__(self) -> str:
        """The task as the log names it."""
        return f"{self.source} {'<->' if self.both else '->'} {self.target}"


def task_of(asked: Asked) -> tuple[Task, Secrets]:
    """The task that is asked for, and what it signs in with; BadRequest for what makes no sense."""
    source, from_ = _end("source", asked.source, asked.source_token)
    target, to = _end("target", asked.target, asked.target_token)
    task = Task(
        source,
        target,
        asked.continuous,
        asked.both,
        tuple(asked.patterns),
        None if asked.ids is None else tuple(dict.fromkeys(asked.ids)),
        asked.selector,
        asked.leaves,
        asked.create_target,
    )
    if is_same(source, target):
        raise BadRequest("Source and target are the same barrel", hint="Name two barrels.")
    if task.filter.ids is not None and not task.filter.ids:
        raise BadRequest("ids names no document", hint="Leave ids out to replicate all of them.")
    return task, Secrets(from_, to)


def is_here(place: str) -> bool:
    """Whether an end is a barrel of this service."""
    return "://" not in place


def is_same(one: str, other: str) -> bool:
    """Whether two ends are one, however they are written."""
    return _canonical(one) == _canonical(other)


def with_login(url: str, login: Login | None) -> str:
    """The URL of an end, with user and password if it has any."""
    if login is None or login.user is None:
        return url
    parts = urlsplit(url)
    who = quote(login.user, safe="") + (f":{quote(login.password, safe='')}" if login.password is not None else "")
    return parts._replace(netloc=f"{who}@{parts.netloc}").geturl()


def _end(name: str, place: str, token: str | None) -> tuple[str, Login | None]:
    """An end as it may be shown, and its login."""
    if is_here(place):
        if "#" in place:
            raise _other_store(name)
        if token is not None:
            raise BadRequest(f"{name}_token is for a barrel elsewhere, and {place[:200]!r} is one here", hint=_HINT)
        return check_barrel_name(place), None
    address = parse_address(place)
    if not isinstance(address, Address):
        raise _other_store(name)
    if token is not None and address.kind != "mqtt":
        checked_token(token)
    parts = urlsplit(place)
    if parts.fragment:
        raise BadRequest(f"The URL of the {name} has a fragment", hint=_HINT)
    shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    user, password = login_in(parts)
    return shown, None if user is None and token is None else Login(user, password, token)


def _other_store(name: str) -> BadRequest:
    return BadRequest(
        f"The {name} is in another store, and the service opens its own alone",
        hint=f"{_HINT} `spile replicate` without --background opens stores itself.",
    )


def _canonical(place: str) -> str:
    """One text for one end, however it is written."""
    if is_here(place):
        return place
    address = parse_address(place)
    assert isinstance(address, Address)
    return str(address)
