"""Links between clients and the service are cut in the middle of a packet, swallow everything, or crawl."""

from __future__ import annotations

from functools import partial

import pytest
from audience import Listener
from promises import untold
from proxy import Way
from running import until
from trials import Nothing, Trial
from worlds import World, in_worlds

from listeners.links import mqtt_connection, websocket

WAYS: tuple[Way, ...] = ("up", "down")


def test_links_cut_in_the_middle_of_a_packet_lose_nothing(trial: Trial) -> None:
    def cuts() -> int:
        return sum(door.cuts for door in trial.doors)

    trial.everyone()
    rounds = 0
    while rounds < 4 or cuts() < 10:  # how much a link carries in a round is the machine's affair
        rounds += 1
        for door in trial.doors:
            door.cut_after(trial.luck.randint(1, 6_000), trial.luck.choice(WAYS))
        trial.goes_on(40)
    trial.heals()
    trial.holds()


@in_worlds("embedded", long=("external",))
def test_a_link_that_swallows_everything_is_noticed_and_made_anew(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A dead link is noticed by its pings, after half a minute to a minute; that long a test should not take.
    monkeypatch.setattr(mqtt_connection, "_KEEPALIVE_S", 3)
    monkeypatch.setattr(websocket, "Dialing", partial(websocket.Dialing, ping_interval=3, ping_timeout=3))
    trial.everyone()
    trial.goes_on(40)
    for door in trial.doors:
        door.black_hole()
    outside = trial.writes_over("http")
    trial.goes_on(40)
    outside.finish()
    trial.heals()
    trial.goes_on(40)
    trial.holds()


def test_a_slow_link_slows_nobody_else(trial: Trial) -> None:
    trial.everyone()
    slow = trial.listens_over("mqtt")
    other = trial.listens_over("http", cursor="slow")
    subscriber = trial.subscribes()
    for each in (slow, other, subscriber):
        each.door.slow(2_000, 0.02)
    trial.goes_on(250)
    for writer in trial.writers:
        writer.finish()
    histories = trial.ledger.histories()

    def has_all(listener: Listener) -> Nothing:
        return Nothing(untold(listener.journal, histories))

    for listener in trial.listeners[:-2]:
        until(lambda each=listener: has_all(each), "to be told")  # type: ignore[misc]
    assert not has_all(slow)
    assert not has_all(other)
    trial.heals()
    trial.holds()


@in_worlds("external")
def test_links_of_the_service_itself_cut_in_the_middle_of_a_packet_lose_nothing(trial: Trial) -> None:
    trial.everyone()
    for _ in range(4):
        for link in trial.world.links:
            link.cut_after(trial.luck.randint(1, 6_000), trial.luck.choice(WAYS))
        trial.goes_on(40)
    assert all(link.cuts for link in trial.world.links)
    trial.heals()
    trial.holds()


@in_worlds(long=("external",))
@pytest.mark.parametrize("which", ["broker", "database"])
def test_a_link_of_the_service_that_swallows_everything_is_made_anew(world: World, seed: int, which: str) -> None:
    world.variables["SPILE_BROKER_KEEPALIVE"] = "1"
    trial = Trial(world, seed)
    try:
        trial.everyone()
        trial.goes_on(40)
        link = world.links[which == "broker"]
        link.black_hole()
        until(lambda: world.direct("GET", "/health").json()["state"] != "running", "a word of it in /health")
        trial.heals()
        trial.goes_on(40)
        trial.holds()
    finally:
        trial.close()
