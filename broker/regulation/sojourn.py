"""How much may be in work so that nobody waits for long: a window that follows what waiting there was.

Pure: it is told the time, and what waited how long. The idea is CoDel's: a queue that empties now and then is a good
one however long it was in between, so it is the shortest wait of an interval that counts. CoDel drops what waits at a
rate that grows; here what comes is refused, so that the client hears of it at once and nothing is done in vain.
"""

from __future__ import annotations

from typing import Final

INTERVAL_S: Final = 0.1
"""Longer than a group's commit, so that each sees some; short, as a flood goes unanswered for so long."""
SHRINK_MOST: Final = 0.5
GROW_MOST: Final = 1.1
"""Of the window, in an interval. It grows slowly: what it lets in too much is only seen once it has waited."""
RATE_KEPT: Final = 0.9
"""Of the best rate that was seen, after an interval: a disk that stands still for a moment is not a slow one."""
CALM_INTERVALS: Final = 10
"""Without a refusal, until the window is lifted."""


class Sojourn:
    """The window in units of work; None while waiting is short, and what limits there are is left to others.

    What is in work waits for as long as it takes to do all of it (Little's law), so the window begins at what is done
    within the target, and is corrected by the waiting that is seen. It is never below `floor`: less in work than that
    would leave the writer idle between its groups.
    """

    def __init__(self, target_s: float, *, floor: int, interval_s: float = INTERVAL_S) -> None:
        self.target_s = target_s
        self.window: float | None = None
        self.since: float | None = None
        """When the window came about; None without one."""
        self.least_s = 0.0
        """The shortest wait of the last interval."""
        self._floor = floor
        self._interval_s = interval_s
        self.within_target: float = floor
        """What can be done within the target, as far as is known."""
        self._began_at: float | None = None
        self._shortest_s: float | None = None
        self._done = 0
        self._per_s = 0.0
        self._in_work_at_begin = 0
        self._turned_away = False
        self._calm = 0

    def waited(self, seconds: float) -> None:
        """Something has been answered that waited so long."""
        if self._shortest_s is None or seconds < self._shortest_s:
            self._shortest_s = seconds

    def done(self, units: int) -> None:
        """So many units are in work no more."""
        self._done += units

    def turned_away(self) -> None:
        """Something was refused because of the window."""
        self._turned_away = True

    def look(self, now: float, in_work: int, stalled_s: float) -> float | None:
        """The window now. `in_work` is in units; `stalled_s` is for how long nothing has been answered that waits."""
        if self._began_at is None:
            self._begin(now, in_work)
        elif now >= self._began_at + self._interval_s:
            self._judge(now, now - self._began_at, stalled_s)
            self._begin(now, in_work)
        return self.window

    def _begin(self, now: float, in_work: int) -> None:
        self._began_at = now
        self._shortest_s = None
        self._done = 0
        self._turned_away = False
        self._in_work_at_begin = in_work

    def _judge(self, now: float, elapsed_s: float, stalled_s: float) -> None:
        intervals = elapsed_s / self._interval_s
        self._per_s = max(self._done / elapsed_s, self._per_s * RATE_KEPT**intervals)
        within_target = self.within_target = max(self._floor, self._per_s * self.target_s)
        least_s = self.least_s = self._shortest_s if self._shortest_s is not None else stalled_s
        window = self.window
        if least_s > self.target_s:
            self._calm = 0
            if window is None:
                self.window, self.since = within_target, now
            elif self._in_work_at_begin > window:
                # Only once the window is kept does the waiting tell whether it is narrow enough.
                self.window = min(window, within_target)
            else:
                self.window = max(self._floor, window * max(SHRINK_MOST, self.target_s / least_s))
        elif window is not None and self._turned_away:
            self._calm = 0
            room = self.target_s / least_s if least_s else 2.0
            wider = max(window * GROW_MOST, min(within_target, window * 2))
            self.window = min(wider, window * room)
        elif window is not None:
            self._calm += int(intervals)
            if self._calm >= CALM_INTERVALS:
                self.window = self.since = None
                self._calm = 0
