"""What every kind of contents promises: blob files, a plain directory, and an S3-compatible store alike."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from contents_tools import KINDS, MIB, Place, feed, got, is_of, make_place, nobody, put, reopened, some, swept
from object_stores import ObjectStore, keys_in_environment, object_store

from feeds.blobs.contents import LOST, PIECE_BYTES_MAX, Contents
from feeds.blobs.opening import open_contents
from feeds.errors import BadChecksum, BadRequest, Conflict, PartialRead, TooLarge

SIZES = [0, 1, 4096, 300_000, MIB, MIB + 1, 3 * MIB + 7, 8 * MIB, 8 * MIB + 1, 17 * MIB + 5]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with object_store(tmp_path_factory.mktemp("moto") / "log") as store, keys_in_environment():
        yield store


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    store = request.getfixturevalue("server") if request.param == "s3" else None
    return make_place(request.param, tmp_path, store)


@pytest.fixture
def contents(place: Place) -> Iterator[Contents]:
    opened = open_contents(place.where)
    yield opened
    opened.close()


@pytest.mark.parametrize("size", SIZES)
def test_what_goes_in_comes_out_with_its_digests(contents: Contents, size: int) -> None:
    data = some(size)
    stored = put(contents, data)
    assert is_of(stored, data)
    assert got(contents, stored) == data
    assert all(len(piece) <= PIECE_BYTES_MAX for piece in contents.read(stored.place, 0, size))
    assert stored.place.isascii() and stored.place.isprintable() and len(stored.place) <= 200


@pytest.mark.parametrize("step", [1000, MIB, 5 * MIB, 100 * MIB])
def test_how_it_is_cut_on_the_way_makes_no_difference(contents: Contents, step: int) -> None:
    data = some(9 * MIB + 11)
    stored = put(contents, data, step=step)
    assert is_of(stored, data)
    assert got(contents, stored) == data


def test_any_range_can_be_read(contents: Contents) -> None:
    data = some(17 * MIB + 5)
    stored = put(contents, data)
    edges = [0, 1, MIB - 1, MIB, MIB + 1, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 16 * MIB, 17 * MIB, 17 * MIB + 5]
    for start in edges:
        for end in (each for each in edges if each >= start):
            assert b"".join(contents.read(stored.place, start, end - start)) == data[start:end], (start, end)


@pytest.mark.parametrize("size", [10, 3 * MIB, 9 * MIB])
def test_a_range_beyond_the_end_is_refused(contents: Contents, size: int) -> None:
    stored = put(contents, some(size))
    for offset, length in ((0, size + 1), (size - 1, 2), (size, 1), (size + 20 * MIB, 5)):
        with pytest.raises(PartialRead) as refused:
            list(contents.read(stored.place, offset, length))
        assert refused.value.details["place"] == stored.place


@pytest.mark.parametrize("size", [10, 3 * MIB, 9 * MIB])
def test_the_same_bytes_twice_are_two_copies(contents: Contents, size: int) -> None:
    data = some(size)
    first, second = put(contents, data), put(contents, data)
    assert first.place != second.place
    contents.remove(first.place)
    assert got(contents, second) == data
    with pytest.raises(LOST) as refused:
        got(contents, first)
    assert refused.value.details["place"] == first.place
    contents.remove(first.place)


def test_what_is_given_up_leaves_nothing(contents: Contents) -> None:
    for size in (0, 10, 3 * MIB, 20 * MIB):
        with contents.begin() as incoming:
            feed(incoming, some(size))
        incoming.abort()
        with pytest.raises(RuntimeError):
            incoming.write(b"more")
    assert swept(contents) == 0


def test_more_and_fewer_bytes_than_announced_are_refused(contents: Contents) -> None:
    data = some(2 * MIB)
    with contents.begin(len(data)) as incoming:
        incoming.write(data[:-1])
        with pytest.raises(BadRequest, match="2097151 bytes, not the 2097152"):
            incoming.finish()
        with pytest.raises(TooLarge):
            incoming.write(b"ab")
        incoming.write(data[-1:])
        assert is_of(incoming.finish(), data)


@pytest.mark.parametrize(
    "cuts", [[0], [10], [MIB], [5 * MIB], [8 * MIB], [3, 10, 3 * MIB, 9 * MIB, 16 * MIB, 17 * MIB]]
)
def test_a_suspended_upload_goes_on_in_the_next_run(place: Place, cuts: list[int]) -> None:
    data = some(17 * MIB + 5)
    contents = open_contents(place.where)
    incoming = contents.begin(len(data))
    state = incoming.state
    done = 0
    for cut in cuts:
        feed(incoming, data[done:cut])
        assert incoming.suspend() == state
        contents = reopened(contents, place)
        incoming = contents.resume(state, len(data))
        assert incoming.size == cut
        done = cut
    feed(incoming, data[done:])
    stored = incoming.finish()
    assert is_of(stored, data)
    assert got(contents, stored) == data
    assert swept(contents, stored.place) == 0
    contents.close()


@pytest.mark.parametrize("size", [10, 9 * MIB, 16 * MIB])
def test_an_upload_whose_finish_nobody_heard_of_goes_on(place: Place, size: int) -> None:
    data = some(size)
    contents = open_contents(place.where)
    incoming = contents.begin()
    feed(incoming, data)
    incoming.suspend()
    contents.resume(incoming.state).finish()
    contents = reopened(contents, place)
    again = contents.resume(incoming.state)
    assert again.size == size
    again.write(b"and more")
    stored = again.finish()
    assert is_of(stored, data + b"and more")
    assert got(contents, stored) == data + b"and more"
    contents.close()


def test_what_a_suspended_upload_holds_can_be_removed(contents: Contents) -> None:
    incoming = contents.begin()
    feed(incoming, some(9 * MIB + 5))
    state = incoming.suspend()
    contents.remove(state)
    contents.remove(state)
    assert swept(contents) == 0


def test_one_at_a_time_writes_an_upload(contents: Contents) -> None:
    incoming = contents.begin()
    feed(incoming, some(3 * MIB))
    for act in (contents.resume, contents.remove):
        with pytest.raises(Conflict, match="being written"):
            act(incoming.state)
    incoming.suspend()
    again = contents.resume(incoming.state)
    assert again.size == 3 * MIB
    again.abort()


@pytest.mark.parametrize("name", ["", "x", "../../etc/passwd", "large^zz", "ob1:", "ob1:" + "g" * 32, "small^a^0:1"])
def test_what_names_no_content_is_refused(contents: Contents, name: str) -> None:
    for act in (
        lambda: list(contents.read(name, 0, 1)),
        lambda: contents.remove(name),
        lambda: contents.resume(name),
    ):
        with pytest.raises(BadRequest, match="names no content"):
            act()


@pytest.mark.parametrize("size", [10, 3 * MIB])
def test_a_copy_that_was_never_here_is_told_as_lost(
    place: Place, contents: Contents, tmp_path: Path, size: int
) -> None:
    elsewhere = open_contents(
        str(tmp_path / "elsewhere") if "://" not in place.where else f"file://{tmp_path}/elsewhere"
    )
    stored = put(elsewhere, some(size))
    elsewhere.close()
    with pytest.raises(LOST) as refused:
        got(contents, stored)
    assert refused.value.details["place"] == stored.place
    contents.remove(stored.place)
    assert swept(contents) == 0


def test_leftovers_are_what_nobody_knows_of(place: Place) -> None:
    contents = open_contents(place.where)
    kept, small = put(contents, some(9 * MIB)), put(contents, some(10))
    put(contents, some(9 * MIB, seed=2))
    put(contents, some(10, seed=2))
    suspended, lost = contents.begin(), contents.begin()
    for each in (suspended, lost):
        feed(each, some(9 * MIB))
        each.suspend()
    contents = reopened(contents, place)
    writing = contents.begin()
    feed(writing, some(9 * MIB))
    known = (kept.place, small.place, suspended.state)
    assert swept(contents, *known) == 3
    assert swept(contents, *known) == 0
    assert got(contents, kept) == some(9 * MIB) and got(contents, small) == some(10)
    resumed = contents.resume(suspended.state)
    assert resumed.size == 9 * MIB
    assert is_of(writing.finish(), some(9 * MIB))
    resumed.abort()
    contents.close()


def test_a_leftover_has_its_time(contents: Contents) -> None:
    stored = put(contents, some(10))
    for _ in range(3):
        assert contents.leftovers(nobody) == 0
    assert got(contents, stored) == some(10)


def test_an_upload_that_grew_is_no_leftover(contents: Contents) -> None:
    incoming = contents.begin()
    feed(incoming, some(9 * MIB))
    incoming.suspend()
    assert contents.leftovers(nobody, left_s=0) == 0
    again = contents.resume(incoming.state)
    feed(again, some(9 * MIB))
    again.suspend()
    assert contents.leftovers(nobody, left_s=0) == 0
    assert contents.resume(incoming.state).size == 18 * MIB


@pytest.mark.parametrize("size", [10, 3 * MIB, 17 * MIB])
def test_a_damaged_copy_is_told_and_harms_no_other(place: Place, size: int) -> None:
    contents = open_contents(place.where)
    sound, bad = put(contents, some(size)), put(contents, some(size, seed=2))
    at = size // 2
    place.flip(bad.place, at)
    contents = reopened(contents, place)
    with pytest.raises(BadChecksum) as refused:
        list(contents.read(bad.place, at, 1))
    assert refused.value.details["place"] == bad.place
    got_before = bytearray()
    with pytest.raises(BadChecksum):
        for piece in contents.read(bad.place, 0, size):
            got_before += piece
    assert got_before == some(size, seed=2)[: len(got_before)] and len(got_before) <= at
    assert got(contents, sound) == some(size)
    contents.close()


@pytest.mark.parametrize("size", [10, 3 * MIB, 17 * MIB])
def test_lost_bytes_are_told_and_harm_no_other(place: Place, size: int) -> None:
    contents = open_contents(place.where)
    gone = put(contents, some(size, seed=2))
    contents = reopened(contents, place)
    sound = put(contents, some(size))
    place.lose(gone.place, size - 1)
    contents = reopened(contents, place)
    with pytest.raises(LOST) as refused:
        got(contents, gone)
    assert refused.value.details["place"] == gone.place
    assert got(contents, sound) == some(size)
    contents.close()


def test_scrubbing_finds_damage_where_the_store_does_not_look_itself(
    request: pytest.FixtureRequest, place: Place
) -> None:
    contents = open_contents(place.where)
    copies = [put(contents, some(size, seed=size)) for size in (10, 20, 3 * MIB, 17 * MIB)]
    for each in (copies[1], copies[3]):
        place.flip(each.place, each.length // 2)
    contents = reopened(contents, place)
    damaged: set[str] = set()
    steps = 0
    while True:
        step = contents.scrub(MIB)
        damaged.update(step.damaged)
        steps += 1
        if step.is_done:
            break
    if "s3" in request.node.name:
        assert steps == 1
    else:
        assert damaged == {copies[1].place, copies[3].place}
        assert steps > 2
        assert list(contents.check())
    contents.close()


def test_an_upload_of_which_bytes_were_damaged_cannot_go_on(place: Place) -> None:
    contents = open_contents(place.where)
    incoming = contents.begin()
    feed(incoming, some(9 * MIB))
    state = incoming.suspend()
    place.flip(state, 5 * MIB)
    contents = reopened(contents, place)
    with pytest.raises(BadChecksum) as refused:
        contents.resume(state)
    assert refused.value.details["place"] == state
    contents.remove(state)
    assert swept(contents) == 0
    contents.close()


def test_contents_keep_their_identity(place: Place) -> None:
    contents = open_contents(place.where)
    before = contents.identity
    contents = reopened(contents, place)
    assert contents.identity == before
    contents.close()


def test_contents_are_for_one_database(place: Place) -> None:
    contents = open_contents(place.where)
    contents.claim("first")
    contents = reopened(contents, place)
    contents.claim("first")
    with pytest.raises(BadRequest, match="another database, 'first'"):
        contents.claim("second")
    assert swept(contents) == 0
    contents.close()


def test_many_write_and_read_at_once(contents: Contents) -> None:
    sizes = [10, 5000, 300_000, 2 * MIB, 9 * MIB]
    with ThreadPoolExecutor(8) as threads:
        stored = list(threads.map(lambda at: put(contents, some(sizes[at % 5], seed=at)), range(40)))
        assert len({each.place for each in stored}) == 40
        found = list(threads.map(lambda each: got(contents, each), stored))
    assert all(found[at] == some(sizes[at % 5], seed=at) for at in range(40))
    assert contents.stats()["incoming"] == 0


def test_removing_one_copy_disturbs_no_reader_of_another(contents: Contents) -> None:
    kept = put(contents, some(9 * MIB))
    ended = threading.Event()

    def churn() -> int:
        count = 0
        while not ended.is_set():
            contents.remove(put(contents, some(100_000)).place)
            count += 1
        return count

    with ThreadPoolExecutor(2) as threads:
        churning = threads.submit(churn)
        try:
            for _ in range(5):
                assert got(contents, kept) == some(9 * MIB)
        finally:
            ended.set()
        assert churning.result() > 0
