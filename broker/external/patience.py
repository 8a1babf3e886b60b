"""For how long a broker may leave a message without its acknowledgement.

Pure: the time comes in. Brokers take a connection's messages in order, so that only the oldest can be one that is not
taken; how long the others have waited tells how slow the link is.
"""

from __future__ import annotations


class Patience:
    """Looks at the oldest message that is under way on one connection."""

    def __init__(self, ack_s: float) -> None:
        self._ack_s = ack_s
        self._mid: int | None = None
        self._since = 0.0
        self._looked_at = 0.0

    def is_over(self, oldest: tuple[int, float] | None, heard_at: float, now: float) -> bool:
        """Whether the broker does not take this message; `oldest` has its id and when it was sent, None is for none.

        It has to have said something since: where it has, it lives, and it is this message that it does not take.
        """
        if oldest is None:
            self._mid = None
        else:
            mid, sent_at = oldest
            if mid != self._mid:
                self._mid = mid
                self._since = sent_at if sent_at >= self._looked_at else now
        self._looked_at = now
        return self._mid is not None and now - self._since > self._ack_s and heard_at > self._since
