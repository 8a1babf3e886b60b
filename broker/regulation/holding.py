"""Refusals that wait for a moment before they are told, so that who asks again and again is slowed by that.

They go out client by client, in the order in which those began to wait: as there is room for what they will ask next,
and at an even rate besides. What refusing costs does not grow with the number of those refused, and what one client
is told together, and asks next, crosses the network together.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Final

PER_S: Final = 500
"""Refusals told in a second without there being room: some percent of a core."""
OF_ROOM: Final = 4
"""The part of the room for which refusals are told: each may bring several requests, some moments later."""
LEAST_S: Final = 0.02
"""Of holding: a client on its own machine asks again within a tenth of a millisecond."""
MOST_S: Final = 5.0
"""Of holding, about: when more are held than go out at this rate in that time, more go out. Clients wait longer."""
TICK_S: Final = 0.005
"""Between rounds of telling: a loop's clock may be one of whole milliseconds, on which a shorter pause spins."""


class Pace:
    """How many of those held are told when. Pure: it is told how much time has passed."""

    def __init__(self, per_s: float, most_s: float) -> None:
        self._per_s = per_s
        self._most_s = most_s
        self._owed = 0.0

    def told(self, held: int, elapsed_s: float, room: int = 0) -> int:
        """How many of so many go out now."""
        self._owed += elapsed_s * max(self._per_s, held / self._most_s)
        even = min(held, int(self._owed))
        self._owed = self._owed - even if even < held else 0.0
        return max(even, min(held, room // OF_ROOM))


class Holding:
    """What is held back, to be told later. `room` says how many more requests would be let in.

    To be used on one event loop.
    """

    def __init__(
        self,
        places: int,
        room: Callable[[], int] = lambda: 0,
        *,
        per_s: float = PER_S,
        least_s: float = LEAST_S,
        most_s: float = MOST_S,
    ) -> None:
        self.places = places
        self._room = room
        self._least_s = least_s
        self._pace = Pace(per_s, most_s)
        self._held: OrderedDict[Hashable, deque[tuple[float, Callable[[], None]]]] = OrderedDict()
        self._telling: deque[tuple[float, Callable[[], None]]] = deque()  # of the client whose turn it is
        self._count = 0
        self._looked_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return self._count

    def hold(self, tell: Callable[[], None], whom: Hashable = None) -> None:
        """Call `tell` in a moment; at once where too many are held already. What is for the same client goes out
        together; without `whom` it is one of its own."""
        if self._count >= self.places:
            tell()
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._held.setdefault(tell if whom is None else whom, deque()).append((now, tell))
        self._count += 1
        if self._timer is None:
            self._looked_at = now + self._least_s - TICK_S
            self._timer = loop.call_later(self._least_s, self._tell)

    async def wait(self) -> None:
        """Return in a moment, or at once where too many are held already."""
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.hold(lambda: None if told.done() else told.set_result(None))
        await told

    def let_go(self) -> None:
        """Tell all that are held, now."""
        while self._count:
            self._tell_next()

    def _tell(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        count = self._pace.told(self._count, now - self._looked_at, self._room())
        self._looked_at = now
        try:
            while count and self._count and self._next()[0] + self._least_s <= now:
                count -= 1
                self._tell_next()
        finally:  # one that cannot be told keeps no other from being told
            self._timer = loop.call_later(TICK_S, self._tell) if self._count else None

    def _next(self) -> tuple[float, Callable[[], None]]:
        # Who is held anew while its turn lasts has another one, behind the others.
        if not self._telling:
            self._telling = self._held.popitem(last=False)[1]
        return self._telling[0]

    def _tell_next(self) -> None:
        _, tell = self._next()
        self._telling.popleft()
        self._count -= 1
        tell()
