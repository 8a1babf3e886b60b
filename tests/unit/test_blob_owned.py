"""The owner of a blob file: who works on which bytes of it."""

from __future__ import annotations

import threading

from feeds.blobs.owned import OwnedFile


def test_nobody_takes_a_range_that_failed_before_while_its_room_is_given_back() -> None:
    owned = OwnedFile(1, "f", 0, current=True)
    given_back: list[tuple[int, int, tuple[int, int]]] = []
    claimed = threading.Event()

    def claim() -> None:
        owned.claim(0, 10)
        claimed.set()

    writer = threading.Thread(target=claim)

    def give_back(start: int, end: int, within: tuple[int, int]) -> None:
        given_back.append((start, end, within))
        if start == 10:
            writer.start()
            assert not claimed.wait(0.1)  # else what it writes would be given back as well

    for start in (0, 10):
        owned.claim(start, start + 10)
        owned.void(start, start + 10, give_back)
        owned.release(start)
    writer.join()
    assert given_back == [(0, 10, (0, 10)), (10, 20, (0, 20))]

    owned.claim(20, 30)
    owned.void(20, 30, give_back)
    assert given_back[-1] == (20, 30, (20, 30))  # somebody has touched those before it
