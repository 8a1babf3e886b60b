"""What travels between a stream's two ends, and how it is written: open, array, credit, close.

Pure. What the messages mean is `sender` (the service's end) and `receiver` (the listener's end).
"""

from __future__ import annotations

from typing import Generic, Literal, TypeVar, get_args

import msgspec

from feeds.errors import BadRequest, SpileError
from feeds.rows import Row

R = TypeVar("R")

RUN_CHARACTERS_MAX = 64
NAME_BYTES_MAX = 128
PATTERNS_MAX = 1_000
WINDOW_DEFAULT = 1_000
WINDOW_MAX = 100_000
BYTES_DEFAULT = 1 << 20
# What one listener may have on the way. More would only be memory: 64 MiB is seconds of a fast network.
BYTES_MAX = 64 << 20

_SHOWN_CHARACTERS_MAX = 120
_UTF8_BYTES_MAX = 6  # of a character in JSON, where it is written as an escape
_QUOTES_BYTES = 3

Attachments = Literal["stubs", "contents"]
"""How documents tell their attachments: as `stubs`, or with their bytes as base64 `data` (`contents`)."""


class Open(msgspec.Struct, omit_defaults=True, kw_only=True, forbid_unknown_fields=True):
    """A listener asks for a feed, from its first time or again. `run` is a nonce of its own making.

    A field that is not known is refused, as everywhere that a client asks for something: what was meant by it
    (`pattern`, `doc`, something newer) would silently not be done. What the service sends may grow fields.
    """

    run: str
    name: str | None = None
    since: str | int | None = None
    patterns: list[str] = []
    window: int = WINDOW_DEFAULT
    bytes: int = BYTES_DEFAULT
    docs: bool = False
    attachments: Attachments = "stubs"
    deletions: bool = False
    """With patterns: also those of which nobody knows any more what was deleted; their `paths` are empty."""
    follow: bool = True


class End(msgspec.Struct, omit_defaults=True):
    """Why a stream ends: `done` (all was told, and `follow` was off) or the code of an error."""

    code: str
    reason: str | None = None
    hint: str | None = None

    @classmethod
    def of(cls, error: SpileError) -> End:
        """The end that tells of this error."""
        return cls(error.code, error.reason, error.hint)


class Array(msgspec.Struct, Generic[R], omit_defaults=True, kw_only=True):
    """Some rows, and where the listener stands before (`prev`) and after them (`seq`), as positions.

    R is what a row is: encoded text on the way out (`msgspec.Raw`), a row on the way in. An array that only
    tells an error has no positions.
    """

    run: str
    start: bool = False
    prev: str = ""
    seq: str = ""
    rows: list[R]
    caught_up: bool = False
    snapshot: Literal["start", "end"] | None = None
    end: End | None = None


class Credit(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What the listener has acknowledged, and how much may be on its way beyond that."""

    run: str
    ack: str
    window: int
    bytes: int


class Close(msgspec.Struct, kw_only=True):
    """The listener wants no more of this run."""

    run: str
    close: Literal[True] = True


class _CreditOrClose(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    run: str
    ack: str | None = None
    window: int = WINDOW_DEFAULT
    bytes: int = BYTES_DEFAULT
    close: bool = False


_FIELDS = {
    "open": ", ".join(field.name for field in msgspec.structs.fields(Open)),
    "credit": ", ".join(field.name for field in msgspec.structs.fields(_CreditOrClose)),
}


class _Run(msgspec.Struct):
    run: str


# What a decoder raises: text that is no UTF-8 and endless nesting come as errors of their own.
_FAULTS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_encoder = msgspec.json.Encoder()
_array_decoder: msgspec.json.Decoder[Array[Row]] = msgspec.json.Decoder(Array[Row])
_open_decoder = msgspec.json.Decoder(Open)
_credit_decoder = msgspec.json.Decoder(_CreditOrClose)
_run_decoder = msgspec.json.Decoder(_Run)


def encode(message: Open | Array[msgspec.Raw] | Credit | Close) -> bytes:
    """The message as JSON, which is the same on every transport."""
    return _encoder.encode(message)


def decode_open(data: bytes) -> Open:
    """The open that a listener sent, within its limits; BadRequest says what is wrong with it.

    `since` and the patterns are only looked at for their types: what they mean is asked later.
    """
    try:
        message = _open_decoder.decode(data)
    except _FAULTS as fault:
        raise _refused("open", fault) from None
    _check_run(message.run)
    if message.name is not None:
        check_listener_name(message.name)
    if len(message.patterns) > PATTERNS_MAX:
        raise BadRequest(
            f"The open has {len(message.patterns)} patterns; a stream takes {PATTERNS_MAX}.",
            hint="Widen the patterns with `+` and `#`, or open several streams.",
        )
    message.window, message.bytes = _window(message.window, message.bytes)
    return message


def decode_credit(data: bytes) -> Credit | Close:
    """The credit or close that a listener sent; BadRequest says what is wrong with it."""
    try:
        message = _credit_decoder.decode(data)
    except _FAULTS as fault:
        raise _refused("credit", fault) from None
    _check_run(message.run)
    if message.close:
        return Close(run=message.run)
    if message.ack is None:
        raise BadRequest("The credit acknowledges no position.", hint='Send {"run", "ack", "window", "bytes"}.')
    window, bytes_ = _window(message.window, message.bytes)
    return Credit(run=message.run, ack=message.ack, window=window, bytes=bytes_)


def decode_array(data: bytes) -> Array[Row]:
    """The array that a service sent; BadRequest when it is none. The rows share the memory of `data`."""
    try:
        return _array_decoder.decode(data)
    except _FAULTS as fault:
        raise _refused("array", fault) from None


def decode_run(data: bytes) -> str | None:
    """The run that a message names, even where the rest of it is wrong; None when that cannot be read."""
    try:
        run = _run_decoder.decode(data).run
        _check_run(run)
    except (*_FAULTS, BadRequest):
        return None
    return run


def fitting(paths: list[str], bytes_max: int | None) -> list[str]:
    """The paths of a row, or the first of them where all would take more of a message than `bytes_max` bytes; one
    at least."""
    if bytes_max is None or sum(map(len, paths)) * _UTF8_BYTES_MAX + len(paths) * _QUOTES_BYTES <= bytes_max:
        return paths
    size = 0
    for count, path in enumerate(paths):
        size += len(_encoder.encode(path)) + 1
        if size > bytes_max and count:
            return paths[:count]
    return paths


def check_attachments(attachments: Attachments) -> Attachments:
    """How attachments are told, if it is one of the two ways; else BadRequest."""
    if attachments not in get_args(Attachments):
        raise BadRequest(f"{attachments!r:.120} is no way to tell attachments.", hint="Choose `stubs` or `contents`.")
    return attachments


def check_listener_name(name: str) -> str:
    """The name, if a cursor can be stored under it; else BadRequest."""
    if not 0 < len(name.encode("utf-8", "surrogatepass")) <= NAME_BYTES_MAX or not name.isprintable():
        raise BadRequest(
            f"{name[:_SHOWN_CHARACTERS_MAX]!r} is no name for a listener.",
            hint=f"Use 1 to {NAME_BYTES_MAX} bytes of text without control characters.",
        )
    return name


def _check_run(run: str) -> None:
    if not 0 < len(run) <= RUN_CHARACTERS_MAX:
        raise BadRequest(
            "`run` is empty or too long.", hint=f"Make a random text of 1 to {RUN_CHARACTERS_MAX} characters."
        )


def _window(window: int, bytes_: int) -> tuple[int, int]:
    if window < 0 or bytes_ < 0:
        raise BadRequest("`window` and `bytes` cannot be negative.", hint="0 lets one row at a time be on its way.")
    return min(window, WINDOW_MAX), min(bytes_, BYTES_MAX)


def _refused(what: str, fault: Exception) -> BadRequest:
    return BadRequest(
        f"The {what} cannot be read: {str(fault)[:_SHOWN_CHARACTERS_MAX]}.",
        hint=f"Send one JSON object; its fields are {_FIELDS[what]}."
        if what in _FIELDS
        else "Send one JSON object with the fields that the documentation of streams lists.",
    )
