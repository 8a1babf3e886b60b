"""Which copies are nobody's: those that nobody knew of twice, with time enough in between to tell of them.

Times are those of a clock that only runs forward, and of this process: the wall clocks of machines and of object
stores may be wrong by years, and a copy that is taken for an old one would be lost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from feeds.blobs.contents import NAMES_MAX, Known

SUSPECTS_MAX = 100_000  # remembered at a time: some 20 MB; those beyond are seen the next time


class Suspects:
    """What an earlier look found in nobody's hands."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._seen: dict[str, tuple[int, float]] = {}

    def look(self, copies: Iterable[tuple[str, int]], known: Known, left_s: float) -> list[str]:
        """Those of these (name, size; each once) that are nobody's: unknown now and in an earlier look, `left_s` ago
        at least, and of the same size since."""
        with self._guard:
            found: dict[str, tuple[int, float]] = {}
            guilty: list[str] = []
            page: dict[str, int] = {}
            for name, size in copies:
                page[name] = size
                if len(page) == NAMES_MAX:
                    self._judge(page, known, left_s, found, guilty)
                    page = {}
            self._judge(page, known, left_s, found, guilty)
            self._seen = found
            return guilty

    def _judge(
        self,
        page: dict[str, int],
        known: Known,
        left_s: float,
        found: dict[str, tuple[int, float]],
        guilty: list[str],
    ) -> None:
        if not page:
            return
        now = self._clock()
        unknown = page.keys() - known(list(page))
        for name in unknown:
            size, since = self._seen.get(name, (None, now))
            if size != page[name]:
                size, since = page[name], now
            elif now - since >= left_s:
                guilty.append(name)
            if len(found) < SUSPECTS_MAX:
                found[name] = size, since
