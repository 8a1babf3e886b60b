"""What happens to contents at one moment: uploads that end in two ways, and copies that are removed meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attachment_tools import HOUR, digest, opened, settle
from running import until
from store_tools import Clock, count, refusal, rows

from feeds import Barrel, Store
from feeds.blobs.contents import Contents, Stored
from feeds.blobs.opening import open_contents
from feeds.errors import BadRequest, Conflict, NotFound, Unavailable

LARGE = bytes(range(256)) * 4 * 1024 * 3  # 3 MiB: a file of its own, in several pieces


class Around:
    """Contents, and what happens around some of their calls."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self.before_removing: Callable[[str], None] = lambda place: None

    def remove(self, name: str) -> None:
        self.before_removing(name)
        self._contents.remove(name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._contents, name)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def contents(tmp_path: Path) -> Iterator[Around]:
    made = open_contents(tmp_path / "contents")
    yield Around(made)
    made.close()


@pytest.fixture
def store(database_url: str, contents: Around, clock: Clock) -> Iterator[Store]:
    with opened(database_url, contents, clock) as store:  # type: ignore[arg-type]
        yield store


@pytest.fixture
def geo(store: Store) -> Barrel:
    return store.create("geo")


@contextmanager
def open_contents_there(folder: Path, kind: str) -> Iterator[Contents]:
    contents = open_contents(folder if kind == "local" else f"file://{folder}")
    yield contents
    contents.close()


def sent(store: Store, geo: Barrel, data: bytes = LARGE) -> str:
    """An upload that has all of its bytes."""
    id = store.uploads.start(geo.key).id
    store.uploads.append(geo.key, id, 0, data)
    return id


# -- uploads


def test_an_upload_that_is_finished_while_old_ones_are_given_up_keeps_its_bytes(
    store: Store, geo: Barrel, clock: Clock, contents: Around
) -> None:
    sent(store, geo, LARGE + b"of the first")
    clock.now += 1
    second = sent(store, geo)
    store.uploads.close()  # so that neither is open
    clock.now += 25 * HOUR

    def finish(_place: str) -> None:
        contents.before_removing = lambda place: None
        geo.attach("x", "f", store.uploads.finish(geo.key, second))

    contents.before_removing = finish
    assert store.uploads.expire() == 1
    assert geo.attachment("x", "f").bytes() == LARGE
    assert store.uploads.get(geo.key, second).content is not None


def test_an_upload_is_not_given_up_while_it_is_finished(
    store: Store, geo: Barrel, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = sent(store, geo)
    clock.now += 25 * HOUR
    told: list[Any] = []
    accept = store.blobs.accept

    def accepted(*given: Any, **more: Any) -> Any:
        content = accept(*given, **more)
        told.append(refusal(lambda: store.uploads.abort(geo.key, id)))
        told.append(refusal(lambda: store.uploads.append(geo.key, id, len(LARGE), b"more")))
        told.append(store.uploads.expire())
        return content

    monkeypatch.setattr(store.blobs, "accept", accepted)
    geo.attach("x", "f", store.uploads.finish(geo.key, id))
    assert [type(each) for each in told] == [Conflict, Conflict, int]
    assert told[-1] == 0
    assert geo.attachment("x", "f").bytes() == LARGE


def test_an_upload_that_another_process_gave_up_becomes_no_content(
    store: Store, geo: Barrel, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = sent(store, geo)
    accept = store.blobs.accept

    def accepted(*given: Any, **more: Any) -> Any:
        store.writer.call(lambda transaction: transaction.session.run("DELETE FROM uploads", ()))
        return accept(*given, **more)

    monkeypatch.setattr(store.blobs, "accept", accepted)
    assert isinstance(refusal(lambda: store.uploads.finish(geo.key, id)), Conflict)
    assert count(store, "blobs") == 0


def test_of_two_who_finish_an_upload_the_second_does_no_harm(
    store: Store, geo: Barrel, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = sent(store, geo)
    row = store.uploads._row(geo.key, id, "")
    content = store.uploads.finish(geo.key, id)
    with monkeypatch.context() as patched:  # whoever looked before, and comes after
        looks = iter([row])
        real = store.uploads._row
        patched.setattr(store.uploads, "_row", lambda *given: next(looks, None) or real(*given))
        assert isinstance(refusal(lambda: store.uploads.append(geo.key, id, len(LARGE), b"more")), Conflict)
    geo.attach("x", "f", content)
    assert geo.attachment("x", "f").bytes() == LARGE


def test_an_upload_that_takes_more_than_a_day_is_not_given_up(store: Store, geo: Barrel, clock: Clock) -> None:
    id = store.uploads.start(geo.key).id

    def slowly() -> Iterator[bytes]:
        for _ in range(3):
            clock.now += 20 * HOUR
            yield b"piece"

    assert store.uploads.append(geo.key, id, 0, slowly()) == 15
    assert rows(store, "SELECT touched FROM uploads") == [(clock.now,)]


def test_an_upload_whose_bytes_are_damaged_can_be_given_up(database_url: str, tmp_path: Path, clock: Clock) -> None:
    with opened(database_url, tmp_path / "contents", clock) as store:
        geo = store.create("geo")
        id = sent(store, geo)
    for path in (tmp_path / "contents" / "files").iterdir():
        path.write_bytes(bytes(path.stat().st_size))
    with opened(database_url, tmp_path / "contents", clock) as store:
        store.uploads.abort(store.barrel("geo").key, id)
        assert count(store, "uploads") == 0
    assert not list((tmp_path / "contents" / "files").iterdir())


@pytest.mark.parametrize("is_first", [True, False])
def test_an_upload_has_to_be_what_was_announced_both_times(store: Store, geo: Barrel, is_first: bool) -> None:
    others, own = digest(b"other"), digest(b"bytes")
    begun, ended = (own, others) if is_first else (others, own)
    id = store.uploads.start(geo.key, digest=begun).id
    store.uploads.append(geo.key, id, 0, b"bytes")
    assert isinstance(refusal(lambda: store.uploads.finish(geo.key, id, digest=ended)), BadRequest)
    assert isinstance(refusal(lambda: store.uploads.get(geo.key, id)), NotFound)


# -- copies that are removed


@pytest.mark.parametrize("kind", ["local", "folder"])
def test_a_copy_that_was_being_written_is_no_leftover(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "contents"
    with open_contents_there(folder, kind) as contents:
        incoming = contents.begin()
        incoming.write(LARGE * 6)
        is_known = False

        def known(names: Sequence[str]) -> set[str]:
            """At the third look it is finished, and becomes known, right behind the answer."""
            nonlocal is_known
            aside = {name for name in names if name.startswith("making/")}  # of puts in the background
            found = set(names) if is_known else aside
            if len(names) > len(aside) and not is_known:
                looks.append(names)
                if len(looks) == 3:
                    stored.append(incoming.finish())
                    is_known = True
            return found

        looks: list[Sequence[str]] = []
        stored: list[Stored] = []
        until(lambda: contents.leftovers(known, left_s=0) == 0 and bool(stored), seconds=30)
        assert b"".join(contents.read(stored[0].place, 0, stored[0].length)) == LARGE * 6


def test_a_copy_that_cannot_be_removed_is_in_nobody_elses_way(
    store: Store, geo: Barrel, clock: Clock, contents: Around
) -> None:
    for number in range(6):
        clock.now += 1
        geo.attach("x", "f", b"%d" % number)
    first = rows(store, "SELECT place FROM blobs ORDER BY at")[0][0]

    def refuse(place: str) -> None:
        if place == first:
            raise Unavailable("not this one")

    contents.before_removing = refuse
    store.compact("geo")
    settle(store, clock)
    assert rows(store, "SELECT place FROM blob_trash") == [(first,)]
    contents.before_removing = lambda place: None
    settle(store, clock)
    assert count(store, "blob_trash") == 0


def test_removing_is_given_up_soon_where_the_contents_are_away(
    store: Store, geo: Barrel, clock: Clock, contents: Around
) -> None:
    for number in range(20):
        geo.attach("x", "f", b"%d" % number)
    store.compact("geo")
    settle_once = 2 * HOUR
    clock.now += settle_once
    store.collect()
    tried: list[str] = []

    def refuse(place: str) -> None:
        tried.append(place)
        raise Unavailable("away")

    contents.before_removing = refuse
    clock.now += settle_once
    store.collect()
    assert 1 <= len(tried) <= 3
    contents.before_removing = lambda place: None
    settle(store, clock)
    assert count(store, "blob_trash") == 0


def test_nothing_is_removed_while_somebody_needs_all_of_it(store: Store, geo: Barrel, clock: Clock) -> None:
    geo.attach("x", "f", b"f")
    geo.detach("x", "f")
    store.compact("geo")
    with store.blobs.holding():
        settle(store, clock)
        assert count(store, "blob_trash") == 1
    settle(store, clock)
    assert count(store, "blob_trash") == 0


def test_what_stands_in_a_file_that_could_not_be_synced_can_be_given_up(
    database_url: str, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(database_url, tmp_path / "contents", clock) as store:
        geo = store.create("geo")
        geo.attach("x", "f", b"durable")
        with monkeypatch.context() as patched:

            def failing(fd: int) -> None:
                raise OSError(5, "Input/output error")

            patched.setattr(os, "fdatasync", failing)
            assert isinstance(refusal(lambda: geo.attach("x", "g", b"not durable")), Unavailable)
        assert geo.attachment("x", "f").bytes() == b"durable"
        geo.detach("x", "f")
        store.compact("geo")
        settle(store, clock)
        assert (count(store, "blobs"), count(store, "blob_trash")) == (0, 0)


def test_contents_that_are_away_are_not_told_as_damaged(
    store: Store, geo: Barrel, contents: Around, monkeypatch: pytest.MonkeyPatch
) -> None:
    geo.attach("x", "f", b"f")

    def away(place: str, offset: int, length: int) -> Iterator[bytes]:
        raise Unavailable("The contents cannot be reached")

    with monkeypatch.context() as patched:
        patched.setattr(contents, "read", away, raising=False)
        report = store.check(repair=True)
        assert any("was not looked at" in problem for problem in report.problems)
    assert rows(store, "SELECT flags FROM blobs") == [(0,)]
    assert store.check().problems == []
