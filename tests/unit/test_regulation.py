"""What lets requests in: fair shares, a window that follows the waiting, rates of clients, and paced refusals."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.regulation import Limit, Regulation, Regulator, Ticket
from broker.regulation.holding import Holding, Pace
from broker.regulation.rates import Rates, units_read, units_written
from broker.regulation.shares import Shares
from broker.regulation.sojourn import Sojourn
from feeds.errors import Overloaded, RateLimited

CLIENTS = st.sampled_from(["a", "b", "c", "d", "e"])


# A limit


@given(most=st.integers(1, 50), asked=st.lists(st.tuples(CLIENTS, st.integers(0, 20)), max_size=60))
def test_a_limit_is_kept_whoever_asks_and_is_empty_again_in_the_end(most: int, asked: list[tuple[str, int]]) -> None:
    limit = Limit("things", most)
    taken = []
    for client, amount in asked:
        alone = not limit.used
        try:
            limit.take(amount, client)
        except Overloaded:
            continue
        taken.append((client, amount))
        assert limit.used <= most or alone or limit.used == taken[0][1]
    for client, amount in taken:
        limit.give(amount, client)
    assert limit.used == 0
    limit.take(most, "anyone")


@given(most=st.integers(20, 1_000), greedy=st.integers(1, 5))
def test_those_who_take_what_they_get_leave_room_for_another(most: int, greedy: int) -> None:
    limit = Limit("things", most)
    held: Counter[str] = Counter()
    going = True
    while going:
        going = False
        for number in range(greedy):
            try:
                limit.take(1, f"g{number}")
            except Overloaded:
                continue
            held[f"g{number}"] += 1
            going = True
    assert limit.used >= most * 8 // 9
    assert max(held.values()) - min(held.values()) <= 1
    if most >= 8 * greedy + 1:
        limit.take(1, "another")


# Shares of a window


@given(window=st.integers(10, 500), takes=st.lists(st.tuples(CLIENTS, st.integers(1, 9)), max_size=300))
def test_a_newcomer_gets_its_equal_part_whatever_others_hold(window: int, takes: list[tuple[str, int]]) -> None:
    shares = Shares()
    for client, units in takes:
        if shares.may(client, units, window):
            shares.take(client, units)
    others = len(shares)
    assert shares.may("newcomer", max(1, window // (others + 1)), window)
    assert shares.total <= 2 * window + 9


@given(window=st.integers(1, 500))
def test_who_is_alone_gets_all(window: int) -> None:
    shares = Shares()
    for _ in range(window):
        assert shares.may("a", 1, window)
        shares.take("a", 1)
    assert not shares.may("a", 1, window)


@given(window=st.integers(40, 500))
def test_what_a_modest_client_leaves_is_lent_and_the_greedy_one_is_refused_first(window: int) -> None:
    shares = Shares()
    shares.take("modest", 2)
    while shares.may("greedy", 1, window):
        shares.take("greedy", 1)
    assert shares.held_by("greedy") >= (window - 4) * 8 // 9 - 1
    assert shares.may("modest", 1, window)


def test_a_window_that_became_narrow_refuses_only_those_who_hold_too_much_of_it() -> None:
    shares = Shares()
    shares.take("greedy", 1_000)
    assert not shares.may("greedy", 1, 100)
    assert shares.may("modest", 20, 100)


# The window


LIMIT = 512  # what a window is let in by before it knows better


@dataclass
class Played:
    """What a simulated service has done in its last seconds."""

    served_per_s: float
    refused_per_s: float
    waited_s: list[float]


def play(capacity: int, rate: float, seconds: float, *, settled_s: float = 2) -> Played:
    """A writer that commits what waits in groups, and clients that ask at a rate whatever becomes of it."""
    sojourn = Sojourn(0.1, floor=16)
    waiting: deque[float] = deque()
    step_s, now, due, served, refused = 0.001, 0.0, 0.0, 0, 0
    group, ready_at, told_at = 0, 0.0, 0.0
    waited: list[float] = []
    while now < seconds:
        now += step_s
        while group and now >= ready_at:
            for _ in range(group):
                took = now - waiting.popleft()
                sojourn.waited(took)
                if now > settled_s:
                    served += 1
                    waited.append(took)
            sojourn.done(group)
            told_at = now
            group = min(len(waiting), 64)
            ready_at += group / capacity
        if not group and waiting:
            group = min(len(waiting), 64)
            ready_at = now + group / capacity
        due += rate * step_s
        while due >= 1:
            due -= 1
            window = sojourn.look(now, len(waiting), now - max(told_at, waiting[0]) if waiting else 0.0)
            if window is not None and len(waiting) + 1 > window:
                sojourn.turned_away()
                refused += now > settled_s
            elif len(waiting) >= LIMIT:
                refused += now > settled_s
            else:
                waiting.append(now)
    past = seconds - settled_s
    return Played(served / past, refused / past, waited)


@pytest.mark.parametrize("capacity", [800, 3_000, 10_000])
@pytest.mark.parametrize("times", [1.5, 5.0, 20.0])
def test_more_than_can_be_done_leaves_throughput_and_waiting_as_they_should_be(capacity: int, times: float) -> None:
    played = play(capacity, capacity * times, 6)
    assert played.served_per_s >= 0.95 * capacity
    assert sorted(played.waited_s)[int(len(played.waited_s) * 0.99)] <= 0.2
    assert played.refused_per_s > 0


@given(share=st.floats(0.05, 0.7), capacity=st.integers(500, 5_000))
def test_what_can_be_done_is_never_refused(share: float, capacity: int) -> None:
    assert play(capacity, capacity * share, 2, settled_s=0).refused_per_s == 0


@given(
    steps=st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 5_000), st.floats(0, 5), st.booleans(), st.booleans()), max_size=80
    )
)
def test_the_window_is_never_below_its_floor_and_ends_when_nobody_waits(
    steps: list[tuple[float, int, float, bool, bool]],
) -> None:
    sojourn = Sojourn(0.1, floor=16)
    now = 0.0
    for pause, in_work, waited, told, turned in steps:
        now += pause
        if told:
            sojourn.waited(waited)
        if turned:
            sojourn.turned_away()
        window = sojourn.look(now, in_work, waited)
        assert window is None or window >= 16
        assert (sojourn.since is None) is (window is None)
    for _ in range(12):
        now += 0.11
        sojourn.waited(0.001)
        sojourn.look(now, 1, 0.0)
    assert sojourn.window is None


@given(waits=st.lists(st.floats(0.11, 3), min_size=3, max_size=40))
def test_the_window_narrows_for_as_long_as_waiting_does_not_fall(waits: list[float]) -> None:
    sojourn = Sojourn(0.1, floor=16)
    now, before = 0.0, float("inf")
    sojourn.look(now, 1_000, 0.0)
    for wait in waits:
        now += 0.1
        sojourn.waited(wait)
        window = sojourn.look(now, 16, 0.0)
        assert window is not None
        assert window <= before
        assert window < before or window == 16
        before = window


def test_one_quick_answer_in_an_interval_shows_that_the_queue_is_a_good_one() -> None:
    sojourn = Sojourn(0.1, floor=16)
    sojourn.look(0.0, 100, 0.0)
    sojourn.waited(5.0)
    sojourn.waited(0.01)
    assert sojourn.look(0.2, 100, 0.0) is None


def test_a_writer_that_stands_still_is_noticed_without_any_answer() -> None:
    sojourn = Sojourn(0.1, floor=16)
    sojourn.look(0.0, 100, 0.0)
    assert sojourn.look(0.2, 400, 0.2) == 16


def test_a_moment_in_which_the_disk_stands_still_leaves_the_window_to_what_it_did_before() -> None:
    sojourn = Sojourn(0.1, floor=16)
    sojourn.look(0.0, 100, 0.0)
    sojourn.done(400)
    sojourn.waited(0.01)
    sojourn.look(0.1, 100, 0.0)
    window = sojourn.look(0.3, 400, 0.2)
    assert window is not None
    assert 300 < window < 400


# Rates


@given(
    per_s=st.floats(0.5, 1_000),
    burst=st.floats(1, 1_000),
    asked=st.lists(st.tuples(st.floats(0, 2), st.integers(1, 300)), min_size=1, max_size=80),
)
def test_nobody_uses_more_than_its_rate_and_burst(per_s: float, burst: float, asked: list[tuple[float, int]]) -> None:
    rates = Rates(per_s, burst)
    now, used, largest = 0.0, 0.0, 0
    for pause, units in asked:
        now += pause
        seconds = rates.take("a", units, now)
        if not seconds:
            used += units
            largest = max(largest, units)
        else:
            assert rates.take("a", units, now) == seconds
        assert used <= burst + per_s * now + largest + 1e-6


@given(per_s=st.floats(0.5, 1_000), burst=st.floats(1, 1_000), units=st.integers(1, 2_000))
def test_after_the_time_that_was_told_it_is_let_in(per_s: float, burst: float, units: int) -> None:
    rates = Rates(per_s, burst)
    rates.charge("a", units, 0.0)
    seconds = rates.take("a", 1, 0.0)
    if seconds:
        assert rates.take("a", 1, seconds + 1e-6) == 0.0


def test_the_buckets_that_are_remembered_are_bounded() -> None:
    rates = Rates(1, 1, clients_max=3)
    for name in "abcd":
        assert rates.take(name, 1, 0.0) == 0.0
    assert len(rates) == 3
    assert rates.take("d", 1, 0.0) > 0
    assert rates.take("a", 1, 0.0) == 0.0


def test_a_unit_is_a_kib_written_or_ten_read() -> None:
    assert [units_written(size) for size in (0, 1, 1_024, 1_025)] == [1, 1, 1, 2]
    assert [units_read(size) for size in (0, 10_240, 10_241)] == [1, 1, 2]


# Refusals that are held


@given(arrivals=st.lists(st.integers(0, 40), min_size=1, max_size=200), after=st.integers(0, 100))
def test_what_is_held_goes_out_evenly_and_none_stays(arrivals: list[int], after: int) -> None:
    pace = Pace(per_s=500, most_s=2.0)
    held = 0
    for coming in arrivals:
        held += coming
        told = pace.told(held, 0.005)
        assert 0 <= told <= min(held, 4 + held // 100)
        held -= told
    assert pace.told(held, 0.0, room=40) == min(held, 10)
    for _ in range(4_000):
        held -= pace.told(held, 0.005)
    assert held == 0


def test_when_many_are_held_more_go_out_so_that_nobody_waits_for_ever() -> None:
    pace = Pace(per_s=1_000, most_s=2.0)
    assert [pace.told(10_000, 0.005) for _ in range(3)] == [25, 25, 25]
    assert pace.told(10, 0.005) == 5


async def test_beyond_its_places_nothing_is_held() -> None:
    told: list[int] = []
    holding = Holding(2)
    for number in range(3):
        holding.hold(lambda number=number: told.append(number))  # type: ignore[misc]
    assert told == [2]
    async with asyncio.timeout(30):
        await Holding(1).wait()
        while len(told) < 3:
            await asyncio.sleep(0)
    assert told == [2, 0, 1]
    assert len(holding) == 0


async def test_what_is_held_for_one_client_goes_out_together_and_nobody_is_passed_over() -> None:
    told: list[str] = []
    holding = Holding(20, lambda: 8, per_s=0.0, least_s=0.0)  # two for each look at the room

    def hold(name: str, again: bool = False) -> None:
        def tell() -> None:
            told.append(name)
            if again:
                hold(name)

        holding.hold(tell, name)

    for name in "abcab":
        hold(name, again=name == "a")
    async with asyncio.timeout(30):
        while len(holding):
            await asyncio.sleep(0)
    assert "".join(told) == "aabbcaa"


async def test_one_that_cannot_be_told_keeps_no_other_from_being_told() -> None:
    failed: list[str] = []
    told: list[int] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, what: failed.append(str(what["exception"])))

    def breaks() -> None:
        raise RuntimeError("it broke")

    holding = Holding(20, least_s=0.0)
    holding.hold(breaks)
    holding.hold(lambda: told.append(1))
    async with asyncio.timeout(30):
        while len(holding):
            await asyncio.sleep(0)
    assert (failed, told) == (["it broke"], [1])


# All of it together


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def pressed(regulator: Regulator, clock: Clock, client: str = "greedy", count: int = 200) -> list[Ticket]:
    """So many writes of one client in work, of which one was told after half a second."""
    tickets = [regulator.admit(client, 100, writes=True) for _ in range(count)]
    told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(regulator.wait_for(told, clock.now))
    await asyncio.sleep(0)
    clock.now += 0.5
    told.set_result(1)
    assert await waiting == 1
    return tickets


async def test_when_writes_wait_for_long_the_greedy_are_refused_and_others_are_not() -> None:
    clock = Clock()
    regulator = Regulator(clock=clock)
    tickets = await pressed(regulator, clock)
    with pytest.raises(Overloaded) as refused:
        regulator.admit("greedy", 100, writes=True)
    assert refused.value.details == {"retry_after": 1}
    regulator.admit("modest", 100, writes=True).release()
    regulator.admit("greedy", 100, writes=False)
    assert regulator.stats()["refused"] == {"queue_ms_target": 1, "units_per_second": 0}
    assert regulator.health().figures["pressed"]
    for ticket in tickets:
        ticket.release()
        ticket.release()
    assert regulator.stats()["units"] == 0
    regulator.admit("greedy", 100, writes=True)


async def test_the_longer_it_lasts_the_later_clients_are_asked_to_come_again() -> None:
    clock = Clock()
    regulator = Regulator(clock=clock)
    await pressed(regulator, clock)
    clock.now += 0.05
    with pytest.raises(Overloaded):
        regulator.admit("greedy", 100, writes=True)
    stuck = asyncio.create_task(regulator.wait_for(asyncio.get_running_loop().create_future(), clock.now))
    await asyncio.sleep(0)
    clock.now += 35
    with pytest.raises(Overloaded) as refused:
        regulator.admit("greedy", 100, writes=True)
    assert refused.value.details["retry_after"] == 4
    stuck.cancel()


def test_a_rate_is_kept_by_client_and_says_when_to_come_again() -> None:
    clock = Clock()
    regulator = Regulator(Regulation(units_per_s=2, units_burst=4), clock=clock)
    regulator.admit("a", 4_096, writes=True)
    with pytest.raises(RateLimited) as refused:
        regulator.admit("a", 3_000, writes=True)
    assert refused.value.details == {"retry_after": 2}
    regulator.admit("b", 0, writes=False)
    assert regulator.has_read("b", 100 << 10) == pytest.approx(3.0)
    clock.now += 2
    regulator.admit("a", 4_000, writes=True)
