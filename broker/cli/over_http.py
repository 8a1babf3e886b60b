"""The backend that speaks to a running service over HTTP."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from broker.addresses import without_password
from broker.cli.answers import BulkAnswer, HealthAnswer, LeavesAnswer, ResultsAnswer, read_answer, strange
from broker.cli.attachments_http import HttpAttachments
from broker.cli.backend import (
    HERE_ALONE,
    Backend,
    Beyond,
    BulkResult,
    ChangesQuery,
    Fetched,
    FindQuery,
    Found,
    GetQuery,
)
from broker.cli.elements import elements_of_member
from broker.cli.events import Event, events
from broker.cli.files import Incoming, Outgoing, Tell
from broker.cli.inputs import BadInput
from broker.cli.remote_errors import error_of
from broker.cli.replications import HttpReplications
from broker.cli.urls import barrel_url, service_url, with_files
from feeds.errors import BadRequest, SpileError, Timeout, Unavailable
from listeners.errors import Unreached
from listeners.links.address import checked_token

__all__ = ["HttpBackend"]

T = TypeVar("T")
Options = list[tuple[str, str | int | float | bool | None]]

_log = logging.getLogger("spile.cli")

CONNECT_S_MAX = 5.0
PATIENCE_S = 60.0
"""How long an attachment on its way may stand still."""
ANSWER_S_MAX = 120.0
SILENCE_S_MAX = 30.0
"""The service sends a sign of life at least every 10 s; three missed ones are a lost connection."""

_FAILURES = (httpx.HTTPError, httpx.InvalidURL, UnicodeError)
"""What a request may end with: also where its URL is too long, or its host is none."""
_WRITTEN = ("id", "rev")

RECONNECT_S = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Waits before connecting again, the last one repeated."""


class HttpBackend(Backend):
    """One service at one address, over one connection at a time."""

    def __init__(self, url: str, client: httpx.Client) -> None:
        self._url = url
        self._client = client
        self._attachments = HttpAttachments(self, PATIENCE_S)

    @classmethod
    def at(cls, url: str | None) -> HttpBackend:
        """The service at `url`, as `service_url` takes it; SPILE_TOKEN is sent where it is set.

        A URL may carry `user:password@`. Raises BadRequest for what is no http URL.
        """
        url = service_url(url)
        base, files = with_files(url)
        parts = urlsplit(base)
        token = checked_token(os.environ.get("SPILE_TOKEN") or "")
        try:
            client = httpx.Client(
                base_url=base,
                headers={"Authorization": f"Bearer {token}"} if token else None,
                timeout=httpx.Timeout(ANSWER_S_MAX, connect=CONNECT_S_MAX),
                # A proxy is of no use for a service on this machine, and certificates cost time to load.
                trust_env=parts.hostname not in ("127.0.0.1", "::1", "localhost"),
                verify=files.context() if parts.scheme == "https" else False,
            )
        except httpx.InvalidURL as error:
            raise BadRequest(f"the URL of the service cannot be used: {error}", hint="Check its host.") from error
        return cls(url, client)

    def barrels(self) -> list[dict[str, Any]]:
        return self._object("GET", "/barrels", needed=("barrels",))["barrels"]  # type: ignore[no-any-return]

    def info(self, barrel: str) -> dict[str, Any]:
        return self._object("GET", _barrel(barrel))

    def create(self, barrel: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        return self._object("POST", _barrel(barrel), msgspec.json.encode(settings))

    def configure(self, barrel: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        return self._object("PATCH", _barrel(barrel), msgspec.json.encode(settings))

    def drop(self, barrel: str) -> None:
        self._answer("DELETE", _barrel(barrel))

    def get(self, barrel: str, doc_id: str, query: GetQuery, beyond: Beyond = HERE_ALONE) -> bytes:
        asked = _options(**msgspec.structs.asdict(query), **beyond.options())
        answer = self._answer("GET", _document(barrel, doc_id), options=asked).content
        self._read(answer, dict[str, msgspec.Raw], "_id", "_rev")
        return answer

    def put(
        self,
        barrel: str,
        doc_id: str,
        doc: bytes,
        *,
        rev: str | None = None,
        update: bool = False,
        beyond: Beyond = HERE_ALONE,
    ) -> dict[str, Any]:
        asked = _options(rev=rev, update=update, **beyond.options())
        return self._object("PUT", _document(barrel, doc_id), doc, asked, needed=_WRITTEN)

    def merge(
        self, barrel: str, doc_id: str, patch: bytes, *, rev: str | None = None, beyond: Beyond = HERE_ALONE
    ) -> dict[str, Any]:
        asked = _options(rev=rev, **beyond.options())
        return self._object("PATCH", _document(barrel, doc_id), patch, asked, needed=_WRITTEN)

    def delete(self, barrel: str, doc_id: str, *, rev: str, beyond: Beyond = HERE_ALONE) -> dict[str, Any]:
        asked = _options(rev=rev, **beyond.options())
        return self._object("DELETE", _document(barrel, doc_id), None, asked, needed=_WRITTEN)

    def purge(self, barrel: str, doc_id: str, revs: Sequence[str]) -> dict[str, Any]:
        body = msgspec.json.encode({doc_id: list(revs)})
        answer = self._answer("POST", f"{_barrel(barrel)}/docs/_purge", body)
        (result,) = self._read(answer.content, ResultsAnswer).results
        if "error" in result:
            raise error_of(answer.status_code, msgspec.json.encode(result), self._shown_url)
        return result

    def attach(
        self,
        barrel: str,
        doc_id: str,
        name: str,
        file: Outgoing,
        *,
        content_type: str | None = None,
        rev: str | None = None,
        tell: Tell,
    ) -> dict[str, Any]:
        place, uploads = _attachment(barrel, doc_id, name), f"{_barrel(barrel)}/uploads"
        return self._attachments.attach(place, uploads, doc_id, file, content_type=content_type, rev=rev, tell=tell)

    def fetch(
        self, barrel: str, doc_id: str, name: str, into: Incoming, *, rev: str | None = None, tell: Tell
    ) -> Fetched:
        return self._attachments.fetch(_attachment(barrel, doc_id, name), into, rev=rev, tell=tell)

    def detach(self, barrel: str, doc_id: str, name: str, *, rev: str | None = None) -> dict[str, Any]:
        return self._object("DELETE", _attachment(barrel, doc_id, name), None, _options(rev=rev), needed=_WRITTEN)

    def bulk(self, barrel: str, body: bytes, key: str) -> list[BulkResult]:
        answer = self._answer("POST", f"{_barrel(barrel)}/docs/_bulk", body, headers={"Idempotency-Key": key})
        return self._read(answer.content, BulkAnswer).results

    def conflicts(self, barrel: str, *, limit: int, after: str = "") -> dict[str, Any]:
        answer = self._answer(
            "GET", f"{_barrel(barrel)}/conflicts", options=_options(limit=limit, after=after or None)
        )
        return self._read(answer.content, dict[str, Any], "results", "next")

    def conflict(self, barrel: str, doc_id: str) -> list[bytes]:
        answer = self._answer("GET", f"{_barrel(barrel)}/conflicts/{_segment(doc_id)}")
        return [bytes(leaf) for leaf in self._read(answer.content, LeavesAnswer).leaves]

    def resolve(
        self,
        barrel: str,
        doc_id: str,
        *,
        rev: str | None = None,
        doc: bytes | None = None,
        leaves: Sequence[str] = (),
    ) -> dict[str, Any]:
        by: dict[str, Any] = {"rev": rev}
        if doc is not None:
            try:
                by = {"doc": msgspec.json.decode(doc, type=msgspec.Raw)}
            except (msgspec.DecodeError, UnicodeError) as error:
                raise BadRequest(f"the document is no JSON: {error}", hint="Check the file.") from error
        body = msgspec.json.encode({**by, "leaves": list(leaves)})
        return self._object("POST", f"{_barrel(barrel)}/conflicts/{_segment(doc_id)}", body, needed=_WRITTEN)

    def find(self, barrel: str, query: FindQuery, *, limit: int, after: str | None = None) -> Found:
        asked = _options(
            **{"from": query.from_},
            to=query.to,
            prefix=query.prefix,
            order=query.order,
            descending=query.descending,
            docs=query.docs,
            limit=limit,
            after=after,
        )
        levels = ("*" if level == "#" else level for level in query.levels())
        place = quote("/".join(levels), safe="/%+*")
        answer = self._answer("GET", f"{_barrel(barrel)}/paths/{place}", options=asked)
        return self._read(answer.content, Found)

    def changes(self, barrel: str, query: ChangesQuery, *, limit: int | None) -> Iterator[bytes]:
        with self._streamed(f"{_barrel(barrel)}/changes", _feed(query, limit=limit), ANSWER_S_MAX) as answer:
            try:
                for row in elements_of_member(answer.iter_bytes(), "results"):
                    yield row.raw
            except BadInput as error:
                raise strange(self._shown_url, error) from error

    def follow(self, barrel: str, query: ChangesQuery) -> Iterator[bytes]:
        since = query.since
        failures = 0
        connected = False
        while True:
            try:
                for event in self._events(barrel, query, since):
                    connected, failures = True, 0
                    if event.kind == "end":
                        raise error_of(200, event.data, self._shown_url)
                    if event.data:
                        yield event.data
                    since = event.id or since
                lost = "the service ended the feed"
            except SpileError as error:
                if not (connected and error.retryable):
                    raise
                lost = error.reason
            if not failures:
                _log.warning("connecting again: %s", lost)
            time.sleep(RECONNECT_S[min(failures, len(RECONNECT_S) - 1)])
            failures += 1

    def listeners(self, barrel: str | None) -> dict[str, Any]:
        place = "/listeners" if barrel is None else f"{_barrel(barrel)}/listeners"
        return self._object("GET", place, needed=("listeners", "streams", "publishers"))

    def forget(self, barrel: str, listener: str) -> None:
        self._answer("DELETE", f"{_barrel(barrel)}/listeners/{_segment(listener)}")

    def replications(self) -> HttpReplications:
        return HttpReplications(self._object)

    def listening_to(self, barrel: str) -> str:
        return barrel_url(self._url, barrel)

    def health(self, answer_s_max: float) -> dict[str, Any]:
        """What the service says of its parts, also while one fails."""
        try:
            answer = self._client.get("/health", timeout=answer_s_max)
        except _FAILURES as error:
            raise self._unreachable(error) from error
        health = self._read(answer.content, HealthAnswer)
        return msgspec.to_builtins(health)  # type: ignore[no-any-return]

    def close(self) -> None:
        self._client.close()

    def _events(self, barrel: str, query: ChangesQuery, since: str) -> Iterator[Event]:
        """What one event source tells until its connection ends; at first where it begins."""
        asked = [*_feed(query, since=since), ("feed", "eventsource")]
        with self._streamed(f"{_barrel(barrel)}/changes", asked, SILENCE_S_MAX) as answer:
            yield Event("message", answer.headers.get("spile-position"), b"")
            yield from events(answer.iter_bytes())

    def streamed(
        self, path: str, options: Options, headers: dict[str, str]
    ) -> AbstractContextManager[httpx.Response]:
        """What `HttpAttachments` fetches with."""
        return self._streamed(path, options, SILENCE_S_MAX, headers)

    @contextmanager
    def _streamed(
        self, path: str, asked: Options, silence_s_max: float, headers: dict[str, str] | None = None
    ) -> Iterator[httpx.Response]:
        """An answer that is read as it comes; what breaks off on the way is Unavailable."""
        timeout = httpx.Timeout(silence_s_max, connect=CONNECT_S_MAX)
        try:
            with self._client.stream("GET", path, params=asked, headers=headers, timeout=timeout) as answer:
                if answer.status_code not in (200, 206):
                    raise error_of(answer.status_code, answer.read(), self._shown_url)
                yield answer
        except _FAILURES as error:
            raise self._unreachable(error) from error

    def _object(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        options: Options | None = None,
        needed: Sequence[str] = (),
    ) -> dict[str, Any]:
        return self._read(self._answer(method, path, body, options).content, dict[str, Any], *needed)

    def _answer(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        options: Options | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """The answer to a request with a body of JSON, or none."""
        if body is not None:
            headers = {**(headers or {}), "Content-Type": "application/json"}
        return self.send(method, path, body, options, headers)

    def send(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        options: Options | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """The answer to one request; raises the service's error, Unavailable where there is no service."""
        try:
            answer = self._client.request(method, path, content=body, params=options or None, headers=headers)
        except httpx.TimeoutException as error:
            if isinstance(error, httpx.ConnectTimeout):
                raise self._unreachable(error) from error
            raise Timeout(f"{self._shown_url} did not answer within {ANSWER_S_MAX:.0f} s") from error
        except _FAILURES as error:
            raise self._unreachable(error) from error
        if answer.status_code >= 300:
            raise error_of(answer.status_code, answer.content, self._shown_url)
        return answer

    def _read(self, body: bytes, kind: type[T], *needed: str) -> T:
        return read_answer(body, kind, self._shown_url, *needed)

    @property
    def _shown_url(self) -> str:
        return without_password(self._url)

    def _unreachable(self, error: Exception) -> SpileError:
        if isinstance(error, httpx.InvalidURL):
            return BadRequest(f"the service cannot be asked: {error}", hint="Use a shorter id or value.")
        kind = Unreached if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)) else Unavailable
        return kind(
            f"no service answers at {self._shown_url} ({error})",
            hint="Start one with `spile serve`, name another with --url or SPILE_URL, "
            "or open a store itself with --database.",
        )


def _barrel(name: str) -> str:
    return f"/barrels/{_segment(name)}"


def _document(barrel: str, doc_id: str) -> str:
    return f"{_barrel(barrel)}/docs/{_segment(doc_id)}"


def _attachment(barrel: str, doc_id: str, name: str) -> str:
    return f"{_barrel(barrel)}/attachments/{_segment(doc_id)}/{_segment(name)}"


def _segment(text: str) -> str:
    """One segment of a URL; dots are encoded where they alone would be taken for a step up."""
    return text.replace(".", "%2E") if text in (".", "..") else quote(text, safe="")


def _options(**given: str | int | bool | None) -> Options:
    """What was given, as a query: no None, no False."""
    return [
        (name, "true" if value is True else str(value))
        for name, value in given.items()
        if value is not None and value is not False
    ]


def _feed(query: ChangesQuery, *, since: str | None = None, limit: int | None = None) -> Options:
    asked = _options(since=since or query.since, docs=query.docs, descending=query.descending, limit=limit)
    return asked + [("pattern", pattern) for pattern in query.patterns]
