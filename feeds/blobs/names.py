"""Names of blob files: `<prefix>^<uuid>^<n>`, and what may stand in one that comes from outside."""

from __future__ import annotations

import re

from feeds.errors import BadRequest

PREFIX_BYTES_MAX = 128  # so that the whole name stays below the 255 bytes of most file systems
OFFSET_MAX = 1 << 43  # 8 TiB: half of what ext4 takes in one file, and far from where integers end

_UNFIT = re.compile(r"[/^\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_NAME = re.compile(r"(?P<prefix>[^^]+)\^[0-9a-f]{32}\^(?:0|[1-9][0-9]{0,17})", re.ASCII)


def check_prefix(prefix: str) -> str:
    """The prefix as it is; BadRequest where no file may be named by it."""
    if not prefix or _UNFIT.search(prefix) or len(prefix.encode()) > PREFIX_BYTES_MAX:
        raise BadRequest(
            f"{prefix[:200]!r} cannot begin the names of blob files",
            hint=f"Use 1 to {PREFIX_BYTES_MAX} bytes without '/', '^' and control characters.",
        )
    return prefix


def check_name(name: str) -> str:
    """The name as it is; BadRequest where it names no blob file, so that none leads out of the folder."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise BadRequest(
            f"{name[:300]!r} is no name of a blob file", hint="Names are <prefix>^<32 hex digits>^<number>."
        )
    check_prefix(found["prefix"])
    return name


def check_range(offset: int, size: int) -> int:
    """Where the range ends; BadRequest where it is none."""
    if size < 1 or offset < 0 or offset + size > OFFSET_MAX:
        raise BadRequest(
            f"There is no range of {size} bytes at {offset}", hint=f"Offsets go from 0 to {OFFSET_MAX}, sizes from 1."
        )
    return offset + size
