"""What a fake CouchDB is asked and answers."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any

Doc = dict[str, Any]


@dataclass
class Fault:
    """An answer in place of the right one. With `cut` it breaks off."""

    status: int = 500
    body: bytes = b'{"error":"unknown_error","reason":"told to fail"}'
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


@dataclass
class Content:
    """An attachment as it is stored."""

    stored: bytes
    plain_length: int
    content_type: str
    revpos: int
    compressed: bool

    @property
    def digest(self) -> str:
        return "md5-" + b64encode(hashlib.md5(self.stored).digest()).decode()


@dataclass
class Asked:
    """A request, for those who answer it."""

    method: str
    path: str
    options: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def history(doc: Doc) -> list[str]:
    """The revision of a document and those before it."""
    start, names = doc["_revisions"]["start"], doc["_revisions"]["ids"]
    return [f"{start - place}-{name}" for place, name in enumerate(names)]


def told(status: int, body: Any, headers: dict[str, str] | None = None) -> Fault:
    """An answer in JSON."""
    return Fault(status, json.dumps(body).encode(), headers or {})
