"""Two services on one database and one broker: one publishes, and the other goes on within 5 s when it dies or hangs.

The one that hung and wakes does no harm: whoever stayed connected has heard every document's newest change, what is
retained is the newest, and every listener at either service was told everything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from beside import Pair, pair, publishes
from running import until
from trials import Trial
from worlds import World

TAKEN_OVER_S = 5.0

pytestmark = pytest.mark.parametrize("kind", ["external"], indirect=True)


@pytest.fixture
def both(trial: Trial, request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Two services with writers and listeners, and a plain subscriber at the broker."""
    with pair(trial) as made:
        trial.subscribes()
        trial.listens_over("http")
        trial.writes_over("http", pause_s=0.005)
        made.takes_part()
        trial.goes_on(40)
        yield made
    request.node.add_report_section("teardown", "beside", made.second.said[-20_000:])


def taken_over(both: Pair, from_: World, fault: Callable[[], None]) -> float:
    """Seconds from the fault until a change that was written after it is heard; the other service publishes then."""
    survivor = both.other(from_)
    heard = both.trial.subscribers[0].messages.heard
    fault()
    began = time.monotonic()
    answer = survivor.direct("PUT", "/barrels/geo/docs/after", params={"update": "true"}, json={"at": began})
    assert answer.is_success, answer.text
    seq = answer.json()["seq"]
    note(both, began, answer.json())
    until(lambda: any(each.body["seq"] == seq for each in heard[-2_000:]), "a change told by the survivor")
    took_s = time.monotonic() - began
    assert publishes(survivor)
    print(f"taken over after {took_s:.2f} s")
    return took_s


def note(both: Pair, at: float, answer: dict[str, object]) -> None:
    """The test's own write is one of those that were accepted."""
    attempt = both.trial.ledger.begin("after", {"at": at})
    both.trial.ledger.accepted(attempt, str(answer["rev"]), int(str(answer["seq"])))


def test_one_of_two_publishes(both: Pair) -> None:
    assert [publishes(each) for each in both.services].count(True) == 1
    follower = both.other(both.holder())
    health = follower.direct("GET", "/health").json()
    assert health["state"] == "running", health
    assert health["parts"]["publisher"]["role"] == "follower"
    assert health["parts"]["mqtt"]["standby"]
    both.holds()


@pytest.mark.alone
def test_a_holder_that_is_killed_is_followed_within_five_seconds(both: Pair) -> None:
    for _ in range(2):
        holder = both.holder()
        took_s = taken_over(both, holder, holder.kill)
        assert took_s < TAKEN_OVER_S
        holder.start()
        both.trial.goes_on(60)
    both.holds()


@pytest.mark.alone
def test_a_holder_that_hangs_is_followed_within_five_seconds_and_wakes_without_harm(both: Pair) -> None:
    for _ in range(2):
        holder = both.holder()
        took_s = taken_over(both, holder, holder.pause)
        assert took_s < TAKEN_OVER_S
        holder.go_on()
        both.trial.goes_on(60)
        until(lambda holder=holder: not publishes(holder), "the one that woke to know that its turn is over")
    both.holds()


def test_a_holder_that_stops_in_order_is_followed_at_once(both: Pair) -> None:
    holder = both.holder()
    taken_over(both, holder, holder.stop)
    holder.start()
    both.trial.goes_on(30)
    both.holds()


@pytest.mark.usefixtures("attentive")
def test_requests_and_streams_over_mqtt_go_on_at_the_next_holder(both: Pair) -> None:
    trial = both.trial
    trial.writes_over("mqtt")
    trial.listens_over("mqtt", "region/Europe")
    trial.goes_on(60)
    holder = both.holder()
    taken_over(both, holder, holder.pause)
    trial.goes_on(60)
    holder.go_on()
    trial.goes_on(60)
    both.holds()
