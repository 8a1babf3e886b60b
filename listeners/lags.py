"""Who follows which barrel, and how far everyone is behind: listeners with a name, streams, and the publishers.

A stream that is here knows more than its cursor: what does not concern its listener, it has passed. So a listener
that is connected is behind by what it has still to do, and one that is away by all that was written since.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from feeds.errors import NotFound
from feeds.positions import Position
from feeds.storage.lags import Lag
from feeds.store import Store
from listeners.dead_letters import counted


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one stream stands. `handled` is None before it has begun; `snapshot`: it is told everything anew."""

    client: str
    barrel: str
    stream: str
    name: str | None
    handled: Position | None
    snapshot: bool


@dataclass(frozen=True, slots=True)
class Standings:
    """The streams of one service, and the cursors that moved and are not stored yet, by barrel and name."""

    streams: Sequence[Standing] = ()
    cursors: Mapping[tuple[str, str], Position] = field(default_factory=dict)


class ListenerLag(msgspec.Struct, frozen=True, kw_only=True):
    """A listener with a name. `position` is its cursor, and `at` when that moved last; None where none is stored."""

    barrel: str
    name: str
    position: str | None
    at: str | None
    seq_behind: int
    seconds_behind: float
    snapshot: bool
    connected: bool
    client: str | None
    dead_letters: int = 0


class StreamLag(msgspec.Struct, frozen=True, kw_only=True):
    """A stream. `position` is up to where its listener has done everything; None before it has begun."""

    barrel: str
    client: str
    stream: str
    name: str | None
    position: str | None
    seq_behind: int
    seconds_behind: float
    snapshot: bool


class BrokerLag(msgspec.Struct, frozen=True, kw_only=True):
    """What is published to one broker."""

    barrel: str
    broker: str
    position: str
    seq_behind: int
    seconds_behind: float


class LagReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everyone who follows, by barrel and name."""

    listeners: list[ListenerLag]
    streams: list[StreamLag]
    publishers: list[BrokerLag]


def lag_report(
    store: Store, here: Standings | None = None, barrel: str | None = None, *, dead_letters: bool = False
) -> LagReport:
    """Look at all barrels, or at one; NotFound where neither the barrel nor a cursor of that name is there.

    `here` is what the asking service carries. `dead_letters` counts those that listeners keep in their barrels.
    Blocking.
    """
    here = here or Standings()
    cursors: dict[tuple[str, str], tuple[Position | None, float | None]] = {
        (each.barrel, each.listener): (each.position, each.at) for each in store.cursors.all(barrel)
    }
    now = store.clock()
    cursors |= {key: (position, now) for key, position in here.cursors.items() if barrel in (None, key[0])}
    named = {(each.barrel, each.name): each for each in here.streams if each.name is not None}
    cursors = {**dict.fromkeys(named, (None, None)), **cursors}
    if barrel is not None and not cursors:
        store.barrel(barrel)
    places = [(each.barrel, each.handled) for each in here.streams if each.handled is not None]
    places += [(key[0], position) for key, (position, _) in cursors.items() if position is not None]
    lags = dict(zip(places, store.lags.of(places), strict=True))
    letters = {name: _letters(store, name) for name in {key[0] for key in cursors}} if dead_letters else {}

    def listener(key: tuple[str, str]) -> ListenerLag:
        (position, at), stream = cursors[key], named.get(key)
        held = stream.handled if stream is not None and stream.handled is not None else position
        lag = _LEVEL if held is None else lags[key[0], held]
        return ListenerLag(
            barrel=key[0],
            name=key[1],
            position=None if position is None else str(position),
            at=None if at is None else _moment(at),
            seq_behind=lag.seq,
            seconds_behind=round(lag.seconds, 3),
            snapshot=lag.snapshot or (stream is not None and stream.snapshot),
            connected=stream is not None,
            client=None if stream is None else stream.client,
            dead_letters=letters.get(key[0], Counter())[key[1]],
        )

    return LagReport(
        listeners=[listener(key) for key in sorted(cursors)],
        streams=[_stream(each, lags) for each in sorted(here.streams, key=_by_barrel)],
        publishers=[
            BrokerLag(
                barrel=each.barrel,
                broker=each.broker,
                position=str(each.position),
                seq_behind=each.lag.seq,
                seconds_behind=round(each.lag.seconds, 3),
            )
            for each in store.lags.publishers(barrel)
        ],
    )


_LEVEL = Lag(0, 0.0)


def _by_barrel(standing: Standing) -> tuple[str, str, str]:
    return standing.barrel, standing.client, standing.stream


def _stream(standing: Standing, lags: Mapping[tuple[str, Position], Lag]) -> StreamLag:
    handled = standing.handled
    lag = _LEVEL if handled is None else lags[standing.barrel, handled]
    return StreamLag(
        barrel=standing.barrel,
        client=standing.client,
        stream=standing.stream,
        name=standing.name,
        position=None if handled is None else str(handled),
        seq_behind=lag.seq,
        seconds_behind=round(lag.seconds, 3),
        snapshot=lag.snapshot or standing.snapshot,
    )


def _letters(store: Store, barrel: str) -> Counter[str]:
    try:
        return counted(store.barrel(barrel))
    except NotFound:
        return Counter()  # the barrel was dropped, and its letters with it


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
