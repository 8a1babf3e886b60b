"""Checksums of chunks (crc32c), and how bytes are divided into chunks.

crc32c is what processors have an instruction for: more than 10 GiB/s, so that every byte can be verified at every
read. It finds what disks and memory do by accident, in ranges of up to a MiB; whether bytes are what somebody
meant is for the digest of a content to say.
"""

from __future__ import annotations

from google_crc32c import extend, value

from feeds.blobs.values import CHUNK_BYTES_MAX, State, Tag
from feeds.errors import BadChecksum

RawRow = tuple[int, int, int, int, int]  # offset, size, state, checksum, tag


def crc32c(data: bytes) -> int:
    """The checksum of some bytes."""
    return int(value(data))


def cut(offset: int, data: bytes, checksum: int | None, tag: Tag | None = None) -> list[RawRow]:
    """The rows for bytes that shall stand at an offset; BadChecksum where the sender's checksum is another.

    `tag` says who worked out the sums where that is neither the sender nor the arrival.
    """
    size = len(data)
    if size <= CHUNK_BYTES_MAX:
        found = int(value(data))
        if checksum is None:
            return [(offset, size, State.WRITTEN.value, found, (tag or Tag.SERVER).value)]
        _compare(checksum, found, size)
        return [(offset, size, State.WRITTEN.value, found, (tag or Tag.CLIENT).value)]
    own = (tag or (Tag.SERVER if checksum is None else Tag.SPLIT)).value
    rows = []
    whole = 0
    for at in range(0, size, CHUNK_BYTES_MAX):
        piece = data[at : at + CHUNK_BYTES_MAX]
        if checksum is not None:
            whole = int(extend(whole, piece))
        rows.append((offset + at, len(piece), State.WRITTEN.value, int(value(piece)), own))
    if checksum is not None:
        _compare(checksum, whole, size)
    return rows


def _compare(given: int, found: int, size: int) -> None:
    if given != found:
        raise BadChecksum(
            f"The {size} bytes that came have the crc32c {found:08x}, and not {given:08x}. Nothing was stored",
            hint="They were changed on the way: send them again.",
        )
