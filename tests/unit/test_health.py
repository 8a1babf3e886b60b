"""The state of parts: since when it is so, and what the whole is."""

from __future__ import annotations

from broker.health import Health, PartHealth, worst


async def test_it_is_told_since_when_a_part_is_as_it_is() -> None:
    now = [100.0]
    part = [PartHealth("running")]
    health = Health({"store": lambda: part[0]}, clock=lambda: now[0])
    try:
        now[0] = 200.0
        assert health.look()["store"].since == 100.0
        part[0] = PartHealth("failing", "the disk is full")
        assert health.look()["store"].since == 200.0
        now[0] = 300.0
        part[0] = PartHealth("failing", "the disk is gone")
        assert health.look()["store"].since == 200.0
        part[0] = PartHealth("waiting", since=250.0)
        assert health.look()["store"].since == 250.0, "the part knows better"
    finally:
        await health.stop()


def test_the_whole_is_as_its_worst_part() -> None:
    running, waiting, failing = (PartHealth(state) for state in ("running", "waiting", "failing"))
    assert worst({}) == "running"
    assert worst({"a": running, "b": waiting}) == "waiting"
    assert worst({"a": failing, "b": waiting, "c": running}) == "failing"
