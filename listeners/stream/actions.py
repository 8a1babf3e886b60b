"""What a receiver is told at its beginning, and what it asks of whoever drives it.

Plain values; the decisions are `receiver`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from feeds.errors import SpileError
from feeds.positions import Mark, Position
from feeds.rows import Row
from listeners.stream.messages import BYTES_DEFAULT, WINDOW_DEFAULT, Attachments


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a listener asks for. Window and bytes bound what it may hold unacknowledged."""

    patterns: tuple[str, ...] = ()
    since: Position | Mark | None = None
    name: str | None = None
    window: int = WINDOW_DEFAULT
    bytes: int = BYTES_DEFAULT
    docs: bool = True
    follow: bool = True
    attachments: Attachments = "stubs"
    deletions: bool = False


@dataclass(frozen=True, slots=True)
class ReceiverLimits:
    """Times of the protocol, in seconds. The promise is credit every 20 s; a little earlier leaves room."""

    credit_s: float = 18.0
    silence_s: float = 30.0
    start_s: float = 5.0
    idle_ack_s: float = 0.1
    busy_ack_s: float = 1.0


class Item(msgspec.Struct, frozen=True):
    """One thing to tell the application, in order: a row, or a boundary of a snapshot (`row` is None).

    `ordinal` is what it is acknowledged by. `seq` is a row's own; a boundary's is the array's.
    """

    ordinal: int
    seq: int
    epoch: str
    row: Row | None
    snapshot: bool = False
    boundary: str | None = None


@dataclass(frozen=True, slots=True)
class Send:
    """Send this message; `opens` says that it is an open, which some transports address differently."""

    data: bytes
    opens: bool = False


@dataclass(frozen=True, slots=True)
class Deliver:
    """Tell the application these, after what was delivered before."""

    items: list[Item]


@dataclass(frozen=True, slots=True)
class Discard:
    """Forget what was delivered and not yet told: it will come again."""


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """Everything up to the present was delivered."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The feed is over: completely told, or with an error that no reopening can help."""

    error: SpileError | None = None


Action = Send | Deliver | Discard | CaughtUp | Finished
