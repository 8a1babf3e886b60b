"""Answers as JSON: accepted, document, result and rejected, within what a message may hold.

Pure. Documents and results come as JSON already and are spliced in, never parsed again.
"""

from __future__ import annotations

from typing import Any

import msgspec

from feeds import Written
from feeds.errors import SpileError, TooLarge
from listeners.nested import WriteTold

_REASON_CHARACTERS_MAX = 1_000  # a reason may quote a key or an id that is as long as the request was

encode_json = msgspec.json.Encoder(enc_hook=str).encode


def written_fields(written: Written) -> dict[str, Any]:
    """An accepted write as it is told."""
    told: dict[str, Any] = {"id": written.id, "rev": written.rev, "seq": written.seq}
    if written.repeated:
        told["repeated"] = True
    if written.unchanged:
        told["unchanged"] = True
    return told


def accepted(written: Written, token: str | None, p2p: WriteTold | None = None) -> bytes:
    """`{id, rev, seq, repeated?, unchanged?, p2p?, token?}`."""
    told = written_fields(written)
    if p2p is not None:
        told["p2p"] = p2p
    if token is not None:
        told["token"] = token
    return encode_json(told)


def wrapped(key: str, value: bytes, token: str | None, p2p: dict[str, Any] | None = None) -> bytes:
    """`{"<key>": value, p2p?, token?}` around a value that is JSON already."""
    end = b"}" if token is None else b',"token":%b}' % encode_json(token)
    if p2p is not None:
        end = b',"p2p":%b%b' % (encode_json(p2p), end)
    return b'{"%b":%b%b' % (key.encode(), value, end)


def rejected(error: SpileError, recognition: dict[str, str], bytes_max: int) -> bytes:
    """`{error, reason, hint, …details}` and what the request is recognised by; details give way to size."""
    told = error.as_dict()
    told["reason"] = _cut(error.reason)
    told["hint"] = _cut(error.hint)
    answer = encode_json({**told, **recognition})
    if len(answer) > bytes_max:
        told = {key: told[key] for key in ("error", "reason", "hint")}
        answer = encode_json({**told, **recognition})
    return answer


def too_large(size: int, bytes_max: int, hint: str, *, exact: bool = True, **details: Any) -> TooLarge:
    """The refusal of an answer that fits into no message."""
    return TooLarge(
        f"The answer has {'' if exact else 'more than '}{size} bytes; a message takes {bytes_max}.",
        hint=hint,
        size=size,
        limit=bytes_max,
        **details,
    )


def _cut(text: str) -> str:
    text = text.encode(errors="replace").decode()
    return text if len(text) <= _REASON_CHARACTERS_MAX else text[:_REASON_CHARACTERS_MAX] + "…"
