"""Attachments over HTTP: sent in parts and fetched in ranges, so that they go on after a cut connection."""

from __future__ import annotations

import logging
import time
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

import httpx
import msgspec
import tenacity

from broker.cli.backend import Fetched
from broker.cli.files import PIECE_BYTES, Incoming, Outgoing, Tell
from feeds.errors import Conflict, SpileError, StorageFull

__all__ = ["HttpAttachments"]

T = TypeVar("T")
Options = list[tuple[str, Any]]

PART_BYTES = 16 << 20
"""Sent at a time, and held here until it was taken: what a cut connection costs at most."""
SMALL_BYTES = 4 << 20
"""Up to this a file goes in one request."""
ATTEMPTS_UNTOLD = 3

_log = logging.getLogger("spile.cli")


class Transport(Protocol):
    """How requests are sent; every error comes out as SpileError."""

    def send(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        options: Options | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response: ...

    def streamed(
        self, path: str, options: Options, headers: dict[str, str]
    ) -> AbstractContextManager[httpx.Response]: ...


class HttpAttachments:
    """Sends and fetches. What fails and may pass is tried again until nothing went on for `patience_s`."""

    def __init__(self, transport: Transport, patience_s: float) -> None:
        self._transport = transport
        self._patience_s = patience_s
        self._went_on_at = 0.0

    def attach(
        self, path: str, uploads: str, file: Outgoing, *, content_type: str | None, rev: str | None, tell: Tell
    ) -> dict[str, Any]:
        """Put a file at `path`, through `uploads` where it is large; what the service tells of it."""
        headers = {"Idempotency-Key": f"attach-{uuid.uuid4().hex}"}
        if content_type is not None:
            headers["Content-Type"] = content_type
        options: Options = [] if rev is None else [("rev", rev)]
        body: bytes | None = file.part(0, SMALL_BYTES + 1)
        if body is not None and len(body) <= SMALL_BYTES:
            headers["Repr-Digest"] = _digest(file)
        else:
            options.append(("upload", self._upload(uploads, file, tell)))
            body = None
        answer = self._persist(lambda: self._transport.send("PUT", path, body, options, headers))
        told: dict[str, Any] = msgspec.json.decode(answer.content)
        tell(told["length"], told["length"])
        return told

    def fetch(self, path: str, into: Incoming, *, rev: str | None, tell: Tell) -> Fetched:
        """Fetch what is at `path`; verified."""
        options: Options = [] if rev is None else [("rev", rev)]
        tag = ""

        def go_on() -> Fetched:
            nonlocal tag
            headers = {"Accept-Encoding": "identity"}
            if tag and into.size:
                headers |= {"Range": f"bytes={into.size}-", "If-Range": tag}
            with self._transport.streamed(path, options, headers) as answer:
                if answer.status_code != 206:
                    into.begin()
                tag = answer.headers["etag"]
                total = into.size + int(answer.headers["content-length"])
                for piece in answer.iter_raw(PIECE_BYTES):
                    into.add(piece)
                    self._went_on()
                    tell(into.size, total)
            kind = answer.headers.get("content-type", "application/octet-stream")
            return Fetched(into.size, tag.strip('"'), kind, answer.headers.get("spile-rev"))

        fetched = self._persist(go_on)
        into.check(fetched.digest)
        return fetched

    def _upload(self, uploads: str, file: Outgoing, tell: Tell) -> str:
        """The id of an upload that has all of the file."""
        headers = {} if file.size is None else {"Upload-Length": str(file.size)}
        begun = self._persist(lambda: self._transport.send("POST", uploads, headers=headers))
        id = str(msgspec.json.decode(begun.content)["upload"])
        where = f"{uploads}/{quote(id, safe='')}"
        offset = 0
        try:
            while part := file.part(offset, PART_BYTES):
                offset = self._send(where, offset, part, lambda done: tell(done, file.size))
                self._went_on()
            last = {"Upload-Offset": str(offset), "Upload-Complete": "?1", "Repr-Digest": _digest(file)}
            self._persist(lambda: self._transport.send("PATCH", where, headers=last), _may_pass_in_upload)
        except BaseException:
            with suppress(SpileError):  # the service gives it up by itself in a day
                self._transport.send("DELETE", where)
            raise
        return id

    def _send(self, where: str, offset: int, part: bytes, tell: Callable[[int], None]) -> int:
        """Send a part, from wherever the service is in it; where it is afterwards."""
        view = memoryview(part)
        at, is_sure = offset, True

        def pieces() -> Iterator[bytes]:
            for begin in range(at - offset, len(part), PIECE_BYTES):
                yield bytes(view[begin : begin + PIECE_BYTES])
                tell(min(offset + begin + PIECE_BYTES, offset + len(part)))

        def go_on() -> int:
            nonlocal at, is_sure
            if not is_sure:
                size = int(self._transport.send("GET", where).headers["upload-offset"])
                if not offset <= size < offset + len(part):
                    return size
                if size > at:
                    self._went_on()
                at, is_sure = size, True
            headers = {"Upload-Offset": str(at), "Content-Length": str(offset + len(part) - at)}
            try:
                self._transport.send("PATCH", where, pieces(), headers=headers)
            except SpileError:
                is_sure = False
                raise
            return offset + len(part)

        return self._persist(go_on, _may_pass_in_upload)

    def _persist(self, call: Callable[[], T], may_pass: Callable[[BaseException], bool] | None = None) -> T:
        self._went_on()
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(may_pass or _may_pass),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
            stop=lambda _: time.monotonic() - self._went_on_at >= self._patience_s,
            before_sleep=self._tell_of_waiting,
            reraise=True,
        )
        return retrying(call)

    def _went_on(self) -> None:
        self._went_on_at = time.monotonic()

    def _tell_of_waiting(self, state: tenacity.RetryCallState) -> None:
        if state.attempt_number == ATTEMPTS_UNTOLD and state.outcome is not None:
            _log.warning("trying again for up to %.0f s: %s", self._patience_s, state.outcome.exception())


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, SpileError) and error.retryable and not isinstance(error, StorageFull)


def _may_pass_in_upload(error: BaseException) -> bool:
    """Also that another request has the upload: the service has not noticed yet that its connection was cut."""
    return _may_pass(error) or isinstance(error, Conflict)


def _digest(file: Outgoing) -> str:
    return f"sha-256=:{b64encode(file.digest).decode()}:"
