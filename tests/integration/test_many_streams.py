"""Many streams on one service, with patterns of their own: each is told of what it asked for, and of nothing else."""

from __future__ import annotations

from benchmarks.many_streams import streamed


def test_two_hundred_streams_hear_exactly_what_is_for_them() -> None:
    told = streamed("mqtt", streams=200, rate=300, seconds=1, idle_s=0.1)
    assert told["mqtt_missing"] == 0
    assert told["mqtt_strange"] == 0
