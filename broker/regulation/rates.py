"""A rate of request units for each client: a bucket that fills evenly, and may be emptied in one go.

Pure: it is told the time. What something cost is often known only afterwards, so a bucket can owe.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

WRITTEN_BYTES: Final = 1 << 10
READ_BYTES: Final = 10 << 10
"""A unit is a KiB written or ten read: a write is worked out, indexed, synced and published, a read is looked up."""
CLIENTS_MAX: Final = 10_000
"""Clients whose bucket is remembered; beyond, those who asked for nothing for the longest time begin anew."""


def units_written(size: int) -> int:
    """What it costs to write so many bytes; every request costs one."""
    return max(1, -(-size // WRITTEN_BYTES))


def units_read(size: int) -> int:
    """What it costs to read so many bytes; every request costs one."""
    return max(1, -(-size // READ_BYTES))


@dataclass(slots=True)
class _Bucket:
    level: float
    at: float


class Rates:
    """The buckets of all clients: `per_s` units flow into each, up to `burst`."""

    def __init__(self, per_s: float, burst: float, clients_max: int = CLIENTS_MAX) -> None:
        self.per_s = per_s
        self.burst = burst
        self._clients_max = clients_max
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, client: str, units: int, now: float) -> float:
        """Take so many units: 0, or after how many seconds there will be enough, when none were taken.

        What costs more than a bucket holds wants a full one, and leaves it owing.
        """
        bucket = self._bucket(client, now)
        missing = min(units, self.burst) - bucket.level
        if missing > 0:
            return missing / self.per_s
        bucket.level -= units
        return 0.0

    def charge(self, client: str, units: int, now: float) -> float:
        """Take units for what is done already; the seconds until the client owes nothing."""
        bucket = self._bucket(client, now)
        bucket.level -= units
        return max(0.0, -bucket.level / self.per_s)

    def _bucket(self, client: str, now: float) -> _Bucket:
        bucket = self._buckets.get(client)
        if bucket is None:
            bucket = self._buckets[client] = _Bucket(self.burst, now)
            if len(self._buckets) > self._clients_max:
                self._buckets.popitem(last=False)
            return bucket
        self._buckets.move_to_end(client)
        if now > bucket.at:
            bucket.level = min(self.burst, bucket.level + (now - bucket.at) * self.per_s)
            bucket.at = now
        return bucket
