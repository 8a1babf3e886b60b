"""How a browser is told to treat what users have stored.

Pure. Attachments are served from the service's own origin, so that a page among them would act with the rights of
whoever opens it. Therefore: nothing is guessed (`nosniff`); what may hold a program is a download; and whatever is
shown all the same is in a sandbox, without scripts, forms and requests to this service.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from broker.http.answers import Header

SANDBOX: Final = b"default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox"

_SHOWN: Final = frozenset(
    (
        "text/plain",
        "application/json",
        "image/png",
        "image/jpeg",
        "image/gif",
        "image/webp",
        "image/avif",
        "image/bmp",
    )
)
"""Types that browsers show and that cannot hold a program; SVG and PDF can. All of `audio/` and `video/` as well."""
_PLAYED: Final = ("audio/", "video/")
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$&+.^_`|~ ()@,=-]+")


def browser_headers(name: str, content_type: str) -> list[Header]:
    """The headers that go with a content of this type, under this name."""
    kind = content_type.partition(";")[0].strip().lower()
    shown = kind in _SHOWN or kind.startswith(_PLAYED)
    return [
        (b"content-disposition", disposition("inline" if shown else "attachment", _last_level(name))),
        (b"x-content-type-options", b"nosniff"),
        (b"content-security-policy", SANDBOX),
    ]


def disposition(kind: str, file: str) -> bytes:
    """`Content-Disposition` (RFC 6266), with the name as it is where that is plain text of ASCII."""
    if _TOKEN.fullmatch(file):
        return f'{kind}; filename="{file}"'.encode()
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", file).strip("_") or "content"
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(file, safe='')}".encode()


def _last_level(name: str) -> str:
    """What browsers make of a path: the file."""
    return name.rstrip("/").rpartition("/")[2] or "content"
