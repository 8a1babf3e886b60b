"""How long the committer of the blob files waits for more."""

from __future__ import annotations

from feeds.blobs.lingering import LINGER_S_MAX, SMALL_BYTES_MAX, Lingering


def test_it_waits_for_as_many_as_were_answered_no_longer_than_a_part_of_what_they_took() -> None:
    lingering = Lingering()
    assert lingering.limit_s() == 0, "nobody was answered yet"
    for _ in range(100):
        lingering.answered(16, 16 * 4_096, 0.003)
        assert (lingering.wanted, lingering.limit_s()) == (16, 0.00075)
        lingering.came(12)
    lingering.answered(16, 16 * 4_096, 60.0)
    assert lingering.limit_s() == LINGER_S_MAX


def test_where_nobody_comes_it_waits_seldom_and_again_when_they_do() -> None:
    lingering = Lingering()

    def waits(groups: int, came: int) -> int:
        count = 0
        for _ in range(groups):
            lingering.answered(1, 4_096, 0.003)
            if lingering.limit_s():
                count += 1
                lingering.came(came)
        return count

    assert waits(1_000, 0) < 25
    assert waits(1_000, 1) > 900


def test_it_does_not_wait_where_the_bytes_take_the_time() -> None:
    lingering = Lingering()
    lingering.answered(64, SMALL_BYTES_MAX + 1, 0.05)
    assert lingering.limit_s() == 0
