"""Which peers are asked when: so many at once, others when one failed or hesitates, and farther ones last.

Pure: it is told what was begun and what has ended, and when; it decides what is begun next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

HESITATES_S = 1.0
"""Silence after which another one is asked beside: a good answer within a data centre or over a mobile link takes
less, and a dead one's silence lasts until the time is up."""
AT_ONCE_MAX = 8
"""Peers asked at once by one call: each may be sent a document of 8 MiB."""


@dataclass(frozen=True, slots=True)
class Move:
    """To ask a peer for itself, or for what lies `beyond` it."""

    peer: str
    beyond: bool = False


class Plan:
    """The moves of one call that wait, and those that are in flight."""

    def __init__(self, peers: Iterable[str], hesitates_s: float = HESITATES_S) -> None:
        self._near = deque(Move(peer) for peer in peers)
        self._far: deque[Move] = deque()
        self._hesitates_s = hesitates_s
        self._begun: dict[Move, float] = {}

    def go_beyond(self, peer: str) -> None:
        """What lies beyond this peer may be asked, once there is nobody nearer."""
        self._far.append(Move(peer, beyond=True))

    def begin(self, near: int, far: int, now: float) -> list[Move]:
        """What is to be begun now: so many near ones at once, or, where none waits any more, so many far ones.

        Those that hesitate do not count.
        """
        young = self._young(now)
        room = min(near, AT_ONCE_MAX) - len(young)
        moves = self._take(self._near, room)
        if not moves and not self._near and room > 0:
            moves = self._take(self._far, min(far, AT_ONCE_MAX) - sum(move.beyond for move in young))
        for move in moves:
            self._begun[move] = now
        return moves

    def ended(self, move: Move) -> None:
        """This one has answered, or failed."""
        self._begun.pop(move, None)

    def looks_again(self, now: float) -> float | None:
        """When there may be something to begin though nothing has ended: when the next one hesitates."""
        if not self._near and not self._far:
            return None
        return min((self._begun[move] + self._hesitates_s for move in self._young(now)), default=None)

    @property
    def waiting(self) -> list[Move]:
        """Those that nobody was asked yet."""
        return [*self._near, *self._far]

    @property
    def in_flight(self) -> list[Move]:
        """Those that have not answered."""
        return list(self._begun)

    def _young(self, now: float) -> list[Move]:
        return [move for move, at in self._begun.items() if now < at + self._hesitates_s]

    @staticmethod
    def _take(waiting: deque[Move], count: int) -> list[Move]:
        return [waiting.popleft() for _ in range(min(max(0, count), len(waiting)))]
