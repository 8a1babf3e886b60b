"""Attachments over HTTP: sent in parts and fetched in ranges, so that they go on after a cut connection.

A file's upload has a label made from what is attached where, by which a command goes on with what an earlier one sent
before it was stopped.
"""

from __future__ import annotations

import hashlib
import logging
import time
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

import httpx
import msgspec
import tenacity

from broker.cli.backend import Fetched
from broker.cli.files import PIECE_BYTES, Incoming, Outgoing, Tell
from feeds.errors import BadRequest, Conflict, NotFound, SpileError, StorageFull
from listeners.errors import Unreached

__all__ = ["HttpAttachments"]

T = TypeVar("T")
Options = list[tuple[str, Any]]

PART_BYTES = 16 << 20
"""Sent at a time, and held here until it was taken: what a cut connection costs at most."""
SMALL_BYTES = 4 << 20
"""Up to this a file goes in one request."""
ATTEMPTS_UNTOLD = 3
FIRST_S = 10.0
"""How long somebody is waited for who was never there: a service that starts at the same time, hardly another one."""
_PAGE = 1_000

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
    """Sends and fetches. What fails and may pass is tried again until nothing went on for `patience_s`, or for
    `FIRST_S` where nobody was reached so far."""

    def __init__(self, transport: Transport, patience_s: float) -> None:
        self.transport = transport
        self._patience_s = patience_s
        self._went_on_at = 0.0
        self._is_met = False

    def attach(
        self,
        path: str,
        uploads: str,
        doc_id: str,
        file: Outgoing,
        *,
        content_type: str | None,
        rev: str | None,
        tell: Tell,
    ) -> dict[str, Any]:
        """Put a file at `path`, which is of this document; through `uploads` where it is large, going on with what an
        earlier run has sent of it. What the service tells of it."""
        headers = {"Idempotency-Key": f"attach-{uuid.uuid4().hex}"}
        if content_type is not None:
            headers["Content-Type"] = content_type
        options: Options = [] if rev is None else [("rev", rev)]
        body: bytes | None = file.part(0, SMALL_BYTES + 1)
        if body is not None and len(body) <= SMALL_BYTES:
            headers["Repr-Digest"] = _digest(file)
        else:
            upload = _Upload(self, uploads, doc_id, _label(path, file), file, tell)
            options.append(("upload", upload.complete()))
            body = None
        answer = self.persist(lambda: self.transport.send("PUT", path, body, options, headers))
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
            with self.transport.streamed(path, options, headers) as answer:
                if answer.status_code != 206:
                    into.begin()
                tag = answer.headers["etag"]
                total = into.size + int(answer.headers["content-length"])
                for piece in answer.iter_raw(PIECE_BYTES):
                    into.add(piece)
                    self.went_on()
                    tell(into.size, total)
            kind = answer.headers.get("content-type", "application/octet-stream")
            return Fetched(into.size, tag.strip('"'), kind, answer.headers.get("spile-rev"))

        fetched = self.persist(go_on)
        into.check(fetched.digest)
        return fetched

    def persist(self, call: Callable[[], T], may_pass: Callable[[BaseException], bool] | None = None) -> T:
        """What `call` gives, tried again while it fails for what may pass."""
        self.went_on()

        def heard() -> T:
            try:
                found = call()
            except Unreached:
                raise
            except SpileError:
                self._is_met = True
                raise
            self._is_met = True
            return found

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(may_pass or _may_pass),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
            stop=lambda _: time.monotonic() - self._went_on_at >= self._patient_s,
            before_sleep=self._tell_of_waiting,
            reraise=True,
        )
        return retrying(heard)

    @property
    def _patient_s(self) -> float:
        return self._patience_s if self._is_met else min(FIRST_S, self._patience_s)

    def went_on(self) -> None:
        """Something has come through: patience begins anew."""
        self._went_on_at = time.monotonic()

    def _tell_of_waiting(self, state: tenacity.RetryCallState) -> None:
        if state.attempt_number == ATTEMPTS_UNTOLD and state.outcome is not None:
            _log.warning("trying again for up to %.0f s: %s", self._patient_s, state.outcome.exception())


class _Upload:
    """One file on its way to the service."""

    def __init__(
        self, link: HttpAttachments, place: str, doc_id: str, label: str | None, file: Outgoing, tell: Tell
    ) -> None:
        self._link = link
        self._place = place
        self._doc: Options = [("doc", doc_id)]
        self._label = label
        self._file = file
        self._tell = tell

    def complete(self) -> str:
        """The id of an upload that has all of the file: of one that was begun before, where there is such a one."""
        begun = None if self._label is None else self._begun_before(self._label)
        if begun is not None:
            try:
                return self._go_on(begun)
            except (BadRequest, NotFound) as error:
                _log.warning("what was sent before is of no use, so all is sent: %s", error.reason)
        headers = {} if self._file.size is None else {"Upload-Length": str(self._file.size)}
        options = [*self._doc, *([] if self._label is None else [("label", self._label)])]
        started = self._link.persist(
            lambda: self._link.transport.send("POST", self._place, options=options, headers=headers)
        )
        return self._go_on(str(msgspec.json.decode(started.content)["upload"]))

    def _begun_before(self, label: str) -> str | None:
        found, after = None, ""
        while True:
            options = [*self._doc, ("limit", _PAGE), ("after", after)]
            told = self._link.persist(partial(self._link.transport.send, "GET", self._place, options=options))
            page: dict[str, Any] = msgspec.json.decode(told.content)
            for each in page["results"]:
                if each.get("label") == label:
                    found = str(each["upload"])
            if page["next"] is None:
                return found
            after = page["next"]

    def _go_on(self, id: str) -> str:
        """Send what is not there yet, and finish it."""
        where = f"{self._place}/{quote(id, safe='')}"
        try:
            told = self._link.persist(lambda: self._link.transport.send("GET", where))
            offset = int(told.headers["upload-offset"])
            self._tell(offset, self._file.size)
            while part := self._file.part(offset, PART_BYTES):
                offset = self._send(where, offset, part, lambda done: self._tell(done, self._file.size))
                self._link.went_on()
            last = {"Upload-Offset": str(offset), "Upload-Complete": "?1", "Repr-Digest": _digest(self._file)}
            self._link.persist(lambda: self._link.transport.send("PATCH", where, headers=last), _may_pass_in_upload)
        except BaseException as error:
            self._leave(where, error)
            raise
        return id

    def _leave(self, where: str, error: BaseException) -> None:
        """Keep what the service has, where the same command can go on with it; else give it up."""
        if self._label is not None and (not isinstance(error, SpileError) or _may_pass_in_upload(error)):
            _log.warning("the same command goes on where this one has stopped, for a day")
            return
        with suppress(SpileError):  # the service gives it up by itself in a day
            self._link.transport.send("DELETE", where)

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
                size = int(self._link.transport.send("GET", where).headers["upload-offset"])
                if not offset <= size < offset + len(part):
                    return size
                if size > at:
                    self._link.went_on()
                at, is_sure = size, True
            headers = {"Upload-Offset": str(at), "Content-Length": str(offset + len(part) - at)}
            try:
                self._link.transport.send("PATCH", where, pieces(), headers=headers)
            except SpileError:
                is_sure = False
                raise
            return offset + len(part)

        return self._link.persist(go_on, _may_pass_in_upload)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, SpileError) and error.retryable and not isinstance(error, StorageFull)


def _may_pass_in_upload(error: BaseException) -> bool:
    """Also that another request has the upload: the service has not noticed yet that its connection was cut."""
    return _may_pass(error) or isinstance(error, Conflict)


def _digest(file: Outgoing) -> str:
    return f"sha-256=:{b64encode(file.digest).decode()}:"


def _label(path: str, file: Outgoing) -> str | None:
    """By what an upload is known again: what becomes of the file, and what it is without reading it. None of a pipe,
    which cannot be read again."""
    if file.size is None:
        return None
    known = f"{path}\n{file.size}\n{file.changed_ns}"
    return f"attach-{hashlib.sha256(known.encode()).hexdigest()}"
