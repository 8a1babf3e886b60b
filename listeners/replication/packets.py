"""How much goes into one message, for brokers that take no larger ones.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

PACKET_BYTES = 256 * 1024
"""Of one message, where nobody says otherwise: what hosted brokers take, and what Spile answers with at most."""

_FRAME_BYTES = 2 * 1024  # of a message beside what it carries: an id of 512 bytes (escaped), names, digests, a token
_OUTCOME_BYTES = 160
"""What the answer to one document of a bulk request has beside its id: both messages have to fit."""
TOGETHER_MAX = 1_500
"""Documents of one call; the service takes 2,000."""
DIGESTS_MAX = 1_000
"""Contents that are asked about in one call, as many as the service takes."""


def data_bytes(packet_bytes: int) -> int:
    """How much of a content fits into one message, as base64 makes 4 bytes of 3."""
    return max(1, (packet_bytes - _FRAME_BYTES) // 4 * 3)


def packets(texts: Sequence[bytes], packet_bytes: int, most: int = TOGETHER_MAX) -> Iterator[int]:
    """How many of the texts go into each message, in order, `most` at a time; one that is too large goes alone."""
    room = packet_bytes - _FRAME_BYTES
    count = size = 0
    for text in texts:
        more = max(len(text) + 1, _OUTCOME_BYTES)
        if count and (size + more > room or count == most):
            yield count
            count = size = 0
        count += 1
        size += more
    if count:
        yield count
