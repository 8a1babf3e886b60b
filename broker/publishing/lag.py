"""The topic of each barrel that says how far everyone is behind: what is due on it, and when.

Nothing is looked at, told or kept on the broker for a barrel whose topic nobody could hear.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from broker.lags import Lags, here, worst
from broker.mqtt.contract import Message
from broker.publishing.topics import ID_QOS
from listeners.lags import BrokerLag, LagReport, ListenerLag, StreamLag

LAG_S = 2.0  # between two messages on one topic: whoever is behind is so for longer
AGAIN_S = 10.0  # without a change, as a sign of life
LOOK_S = 0.5  # between two looks at who could hear
SHOWN_MAX = 100  # listeners, and streams, in one message
# Of no use later: a session that is away should not be filled with them.
LAG_QOS = 0

_encode = msgspec.json.Encoder().encode
Wants = Callable[[str], bool]


@dataclass(slots=True)
class _Topic:
    """What was told on one topic; `told` is None where nothing is retained, and unknown (empty) at first."""

    told: bytes | None = b""
    at: float = 0.0


@dataclass(slots=True)
class _Following:
    """Who follows one barrel."""

    listeners: list[ListenerLag] = field(default_factory=list)
    streams: list[StreamLag] = field(default_factory=list)
    publisher: BrokerLag | None = None


class LagTopics:
    """The topics of one broker. `due` is asked often, and answers at once from the newest look."""

    def __init__(self, lags: Lags, broker: str = "embedded", *, clock: Callable[[], float] = time.monotonic) -> None:
        """`broker` is the name under which the publisher's position is stored."""
        self._lags = lags
        self._broker = broker
        self._clock = clock
        self._topics: dict[str, _Topic] = {}
        self._looked_at = 0.0
        self._report: LagReport | None = None
        self._following: dict[str, _Following] = {}

    def due(self, topics: Iterable[tuple[str, str]], wants: Wants) -> list[Message]:
        """The messages to publish now, for barrels given with their topics. What nobody can hear any more is
        cleared; that of a dropped barrel is cleared with the rest of it."""
        now = self._clock()
        if now - self._looked_at < LOOK_S:
            return []
        self._looked_at = now
        found: list[Message] = []
        kept: dict[str, _Topic] = {}
        wanted: list[tuple[str, str, _Topic]] = []
        for barrel, topic in topics:
            state = kept[barrel] = self._topics.get(barrel) or _Topic()
            if wants(topic):
                wanted.append((barrel, topic, state))
            elif state.told is not None:
                found.append(Message(topic, b"", ID_QOS, True))
                state.told = None
        self._topics = kept
        if wanted:
            self._lags.refresh(LAG_S)
            self._read(self._lags.latest)
            found += [message for each in wanted if (message := self._message(*each, now)) is not None]
        return found

    def _message(self, barrel: str, topic: str, state: _Topic, now: float) -> Message | None:
        following = self._following.get(barrel)
        if following is None or (state.told and now - state.at < LAG_S):
            return None
        facts = _facts(following)
        known = _encode(facts)
        if known == state.told and now - state.at < AGAIN_S:
            return None
        state.told, state.at = known, now
        moment = datetime.fromtimestamp(time.time() - self._lags.age_s, UTC)
        at = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return Message(topic, _encode({**facts, "at": at, "here": here()}), LAG_QOS, True)

    def _read(self, report: LagReport | None) -> None:
        """Sort a new look by barrels; a barrel without a position of this broker was not there yet."""
        if report is None or report is self._report:
            return
        self._report = report
        found = {each.barrel: _Following(publisher=each) for each in report.publishers if each.broker == self._broker}
        for listener in report.listeners:
            if listener.barrel in found:
                found[listener.barrel].listeners.append(listener)
        for stream in report.streams:
            if stream.barrel in found and stream.name is None:
                found[stream.barrel].streams.append(stream)
        self._following = found


def _facts(following: _Following) -> dict[str, Any]:
    """What is told of one barrel: the publisher, listeners by name, and streams without one."""
    assert following.publisher is not None
    listeners, others = worst(following.listeners, SHOWN_MAX)
    streams, more = worst(following.streams, SHOWN_MAX)
    told: dict[str, Any] = {
        "publisher": _behind(following.publisher),
        "listeners": {
            each.name: {
                **_behind(each),
                "connected": each.connected,
                **({"snapshot": True} if each.snapshot else {}),
            }
            for each in listeners
        },
    }
    if streams:
        told["streams"] = [{"client": each.client, "stream": each.stream, **_behind(each)} for each in streams]
    if others or more:
        told["left_out"] = others + more
    return told


def _behind(each: BrokerLag | ListenerLag | StreamLag) -> dict[str, Any]:
    return {"seq": each.seq_behind, "seconds": round(each.seconds_behind, 1)}
