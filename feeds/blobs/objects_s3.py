"""A bucket of an S3-compatible store, through the package `obstore` (the extra `spile[objects]`).

The library signs, retries what may be retried, and keeps connections; here stand the limits that it is given, and
what its errors mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    GenericError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import S3Store
from tenacity import (
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential,
)

from feeds.errors import Exists, NotFound, SpileError, StorageFull, Unavailable

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config

CONNECT_S = 5.0
RETRIES_MAX = 4  # of one request, with waits of 0.1, 0.2, … s: a store that restarts is not yet an error
TRIES_MAX = 3  # of a put, which the library does not repeat where it cannot know what became of it
_DELETED_MAX = 1000  # of a request: S3's limit
_STREAM_BYTES = 1024 * 1024

_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,64})</Code>")
_STATUS = re.compile(r"status code: ([0-9]{3})")
_BODY = re.compile(r"Server returned|Debug source")

_DENIED = {
    "AccessDenied",
    "AllAccessDisabled",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
}
_FULL = {"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"}
_KEYS_HINT = (
    "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (with AWS_SESSION_TOKEN for temporary ones) of a user that may"
    " list, get, put and delete in this bucket; compare the clock of this machine."
)


@dataclass(frozen=True, slots=True)
class S3Address:
    """Where a bucket is. Credentials come from the environment (`AWS_…`), or from the machine's role."""

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    """None for Amazon's own."""
    region: str | None = None
    path_style: bool = True
    """Whether the bucket stands in the path and not in the host's name; ignored for Amazon's own."""

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/") + (f" at {self.endpoint}" if self.endpoint else "")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the store is waited for, in seconds."""

    request_s: float = 60.0
    """For one request: a segment of 8 MiB at 140 KB/s. A slow reader goes on with another request."""
    answer_s: float = 20.0
    """For the next bytes of an answer."""
    retrying_s: float = 20.0
    """For requests that fail, with the waits between them."""


class S3Bucket:
    """A `Bucket` in S3."""

    scrubs_itself = True

    def __init__(self, address: S3Address, patience: Patience | None = None) -> None:
        self.name = str(address)
        self._patience = patience = patience or Patience()
        with _translated(self.name):
            self._store = _open(address, patience, {"read_timeout": timedelta(seconds=patience.answer_s)})
            # In the library the wait for an answer begins with the request, and would end puts on slow lines.
            self._puts = _open(address, patience, {})

    def make(self, key: str, buffers: Sequence[bytes], *, replace: bool = False) -> None:
        tries = Retrying(
            retry=retry_if_exception(_is_transport),
            stop=stop_after_attempt(TRIES_MAX) | stop_after_delay(self._patience.retrying_s),
            wait=wait_exponential(multiplier=0.1, max=2.0),
            reraise=True,
        )
        mode: Literal["overwrite", "create"] = "overwrite" if replace else "create"
        with _translated(self.name):
            tries(obstore.put, self._puts, key, list(buffers), mode=mode, use_multipart=False)

    def stream(self, key: str, start: int, end: int) -> Iterator[bytes]:
        with _translated(self.name):
            try:
                found = obstore.get(self._store, key, options={"range": (start, end)})
            except GenericError as error:
                if _status(str(error)) == 416:
                    return  # nothing stands there
                raise
            for piece in found.stream(min_chunk_size=_STREAM_BYTES):
                yield bytes(piece)

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        with _translated(self.name):
            for page in obstore.list(self._store, prefix=prefix, chunk_size=_DELETED_MAX):
                for each in page:
                    yield each["path"], each["size"]

    def remove(self, keys: Sequence[str]) -> None:
        for at in range(0, len(keys), _DELETED_MAX):
            with _translated(self.name):
                try:
                    obstore.delete(self._store, list(keys[at : at + _DELETED_MAX]))
                except FileNotFoundError as error:
                    if _code(str(error)) == "NoSuchBucket":
                        raise

    def strays(self) -> Iterator[tuple[str, int]]:
        return iter(())


def _open(address: S3Address, patience: Patience, options: ClientConfig) -> S3Store:
    config: S3Config = {"virtual_hosted_style_request": address.endpoint is None or not address.path_style}
    if address.endpoint is not None:
        config["endpoint"] = address.endpoint
    if address.region is not None:
        config["region"] = address.region
    client: ClientConfig = {
        "allow_http": (address.endpoint or "").startswith("http://"),
        "connect_timeout": timedelta(seconds=CONNECT_S),
        "timeout": timedelta(seconds=patience.request_s),
        **options,
    }
    retry: RetryConfig = {"max_retries": RETRIES_MAX, "retry_timeout": timedelta(seconds=patience.retrying_s)}
    return S3Store(
        address.bucket, prefix=address.prefix or None, config=config, client_options=client, retry_config=retry
    )


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        if _code(str(error)) == "NoSuchBucket":
            raise Unavailable(
                f"There is no bucket for {name}", hint="Make the bucket, or correct its name in the URL."
            ) from None
        raise NotFound(f"There is no such object in {name}") from None
    except (AlreadyExistsError, PreconditionError):
        raise Exists(f"There is such an object in {name}") from None
    except (BaseError, OSError) as error:
        # From None, and without the library's text: it may quote what was signed, and what the server said of keys.
        raise _refusal(error, name) from None


def _refusal(error: Exception, name: str) -> SpileError:
    text = str(error)
    code, status = _code(text), _status(text)
    denied = isinstance(error, PermissionDeniedError | UnauthenticatedError) or status in (401, 403)
    if denied or code in _DENIED:
        return Unavailable(f"{name} refuses the credentials: {code or status or 'denied'}", hint=_KEYS_HINT)
    if status == 507 or code in _FULL:
        return StorageFull(f"{name} takes no more: {code or status}", hint="Make room in the object store.")
    if code or status:
        return Unavailable(f"{name} answers {' '.join(str(each) for each in (status, code) if each)}")
    if "credential" in text.lower() or "169.254.169.254" in text:
        return Unavailable(f"There are no credentials for {name}", hint=_KEYS_HINT)
    return Unavailable(
        f"{name} cannot be reached: {_brief(text)}",
        hint="Look whether the object store runs, and whether its endpoint is right; then try again.",
    )


def _is_transport(error: BaseException) -> bool:
    """Whether no answer came at all."""
    return isinstance(error, GenericError) and _code(str(error)) is None and _status(str(error)) is None


def _code(text: str) -> str | None:
    found = _CODE.search(text)
    return None if found is None else found[1]


def _status(text: str) -> int | None:
    found = _STATUS.search(text)
    return None if found is None else int(found[1])


def _brief(text: str) -> str:
    """What went wrong on the way, in a line and without addresses that may hold a query."""
    for cause in (
        "dns error",
        "Connection refused",
        "tcp connect error",
        "timed out",
        "certificate",
        "connection closed",
    ):
        if cause.lower() in text.lower():
            return cause
    return re.sub(r"https?://\S+", "…", _BODY.split(text)[0]).strip().splitlines()[0][:200]
