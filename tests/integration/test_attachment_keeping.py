"""How long contents are kept: once each, as long as a body names them, and not beneath anybody's hands."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from attachment_tools import (
    HOUR,
    attached,
    clean,
    copies,
    damage,
    digest,
    inline,
    opened,
    settle,
)
from databases import Databases
from store_tools import Clock, change, count, held, refusal, replicate, revisions, rows

from feeds import Barrel, Store, StoreSettings
from feeds.errors import BadRequest, Damaged, Exists, MissingStub, NotFound, SpileError
from feeds.storage.backup import Manifest
from feeds.writes import Write


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database_url: str, tmp_path: Path, clock: Clock) -> Iterator[Store]:
    with opened(database_url, tmp_path / "contents", clock) as store:
        yield store


@pytest.fixture
def geo(store: Store) -> Barrel:
    return store.create("geo")


def used(folder: Path) -> int:
    """Bytes on the disk under the blob files."""
    return sum(path.stat().st_blocks * 512 for path in (folder / "files").iterdir())


# -- once each


def test_the_same_file_on_1000_documents_takes_its_space_once(store: Store, geo: Barrel, tmp_path: Path) -> None:
    data = random.Random(1).randbytes(300_000)
    geo.attach("first", "f", data)
    before = used(tmp_path / "contents")
    for begin in range(0, 1_000, 100):
        docs = [{"_id": str(begin + n), "_attachments": {"f": inline(data)}} for n in range(100)]
        assert not [each for each in geo.bulk(docs) if isinstance(each, SpileError)]
    for number in range(20):
        geo.attach(f"streamed {number}", "f", iter([data[:100_000], data[100_000:]]))
    assert count(store, "blobs") == 1
    assert count(store, "blob_refs") == 1_021
    assert used(tmp_path / "contents") < before + len(data)  # pages at the edges of what was given up stay
    assert geo.attachment("999", "f").bytes() == data


def test_writing_it_again_while_it_is_kept_stores_nothing(store: Store, geo: Barrel, clock: Clock) -> None:
    geo.attach("x", "f", b"f")
    (place,) = rows(store, "SELECT place FROM blobs")
    clock.now += 10 * HOUR
    geo.attach("y", "f", b"f")
    geo.attach("z", "f", iter([b"f"]))
    assert rows(store, "SELECT place FROM blobs") == [place]


# -- given up


def test_what_no_body_names_any_more_is_given_up(store: Store, geo: Barrel, clock: Clock) -> None:
    geo.attach("x", "f", b"one")
    geo.attach("x", "f", b"two")
    settle(store, clock)
    assert copies(store) == (2, 0)  # the body that was superseded can still be read
    store.compact("geo")
    settle(store, clock)
    assert copies(store) == (1, 0)
    assert count(store, "blob_refs") == 1
    assert geo.attachment("x", "f").bytes() == b"two"
    assert clean(store)


def test_compaction_by_itself_gives_up_too(store: Store, geo: Barrel, clock: Clock) -> None:
    for number in range(80):
        geo.attach("x", "f", b"%d" % number)
    settle(store, clock)
    assert copies(store)[0] < 80
    assert clean(store)


def test_stemming_gives_up(store: Store, clock: Clock) -> None:
    geo = store.create("short", {"revs_limit": 2})
    for number in range(10):
        geo.attach("x", "f", b"%d" % number)
    settle(store, clock)
    assert copies(store) == (2, 0)
    assert clean(store)


def test_a_purge_gives_up_also_of_one_branch(store: Store, geo: Barrel, clock: Clock) -> None:
    replicate(geo, revisions("x", "a" * 32, _attachments={"f": inline(b"a")}))
    replicate(geo, revisions("x", "b" * 32, _attachments={"f": inline(b"b")}))
    geo.purge("x", ["1-" + "b" * 32])
    settle(store, clock)
    assert copies(store) == (1, 0)
    assert geo.attachment("x", "f").bytes() == b"a"
    geo.purge("x")
    settle(store, clock)
    assert copies(store) == (0, 0)
    assert clean(store)


def test_a_drop_gives_up_once_its_rows_are_gone(store: Store, geo: Barrel, clock: Clock) -> None:
    other = store.create("other")
    for barrel in (geo, other):
        barrel.attach("x", "shared", b"shared")
        barrel.attach("x", "own", barrel.name.encode())
    store.drop("geo")
    for _ in range(5):
        clock.now += HOUR
        store.maintain()
    settle(store, clock)
    assert copies(store) == (2, 0)
    assert other.attachment("x", "shared").bytes() == b"shared"
    assert clean(store)


def test_expiry_gives_up(store: Store, clock: Clock) -> None:
    geo = store.create("short", {"ttl": 60})
    geo.attach("x", "f", b"f")
    clock.now += HOUR
    store.expire()
    store.compact("short")
    settle(store, clock)
    assert copies(store) == (0, 0)
    assert geo.tail(1)[0].attachments is not None
    assert clean(store)


def test_rounds_of_upkeep_collect_as_well(store: Store, geo: Barrel, clock: Clock) -> None:
    geo.attach("x", "f", b"f")
    geo.detach("x", "f")
    store.compact("geo")
    for _ in range(10):
        clock.now += HOUR
        store.maintain()
    assert copies(store) == (0, 0)
    assert store.maintain()["blobs"] == 0


def test_what_was_just_stored_waits_for_its_document(store: Store, geo: Barrel, clock: Clock) -> None:
    (write,) = geo.absorb([Write.put({"_id": "x", "_attachments": {"f": inline(b"f")}})])
    store.collect()
    clock.now += HOUR / 2
    store.collect()
    geo.write(write)
    assert geo.attachment("x", "f").bytes() == b"f"


def test_a_document_that_comes_too_late_is_told_to_send_its_content_again(
    store: Store, geo: Barrel, clock: Clock
) -> None:
    (write,) = geo.absorb([Write.put({"_id": "x", "_attachments": {"f": inline(b"f")}})])
    settle(store, clock)
    error = refusal(lambda: geo.write(write))
    assert isinstance(error, MissingStub)
    assert "again" in error.hint
    assert geo.head() == 0
    geo.put({"_id": "x", "_attachments": {"f": inline(b"f")}})
    assert geo.attachment("x", "f").bytes() == b"f"


def test_a_content_that_comes_back_gets_another_place(store: Store, geo: Barrel, clock: Clock) -> None:
    (content,) = store.blobs.keep([b"f"])
    (before,) = rows(store, "SELECT place FROM blobs")
    settle(store, clock)
    assert copies(store) == (0, 0)
    assert store.blobs.keep([b"f"]) == [content]
    assert rows(store, "SELECT place FROM blobs") != [before]


def test_what_is_being_read_stays_until_it_was_read(store: Store, geo: Barrel, clock: Clock) -> None:
    data = bytes(3_000_000)
    geo.attach("x", "f", data)
    reading = geo.attachment("x", "f").read()
    first = next(reading)
    geo.purge("x")
    settle(store, clock)
    assert copies(store) == (0, 1)
    assert first + b"".join(reading) == data
    settle(store, clock)
    assert copies(store) == (0, 0)


def test_a_writer_and_the_collector_in_one_transaction_do_not_harm_each_other(
    store: Store, geo: Barrel, clock: Clock
) -> None:
    for first in ("writer", "collector"):
        (write,) = geo.absorb([Write.put({"_id": first, "_attachments": {"f": inline(first.encode())}})])
        clock.now += 2 * HOUR
        collecting = threading.Thread(target=store.collect)
        with held(store) as go:
            if first == "writer":
                future = geo.submit([write])
                collecting.start()
            else:
                collecting.start()
                while not store.writer.stats()["writer_waiting"] and collecting.is_alive():
                    pass
                future = geo.submit([write])
            go.set()
        collecting.join()
        (outcome,) = future.result()
        if isinstance(outcome, SpileError):
            assert isinstance(outcome, MissingStub)
        else:
            assert geo.attachment(first, "f").bytes() == first.encode()
    assert clean(store)


def test_ten_writers_fifty_readers_the_scrubber_and_the_collector_at_once(database_url: str, tmp_path: Path) -> None:
    """Nothing is kept longer than a blink, so that the collector takes all that it may at any moment."""
    end = time.monotonic() + 5
    faults: list[BaseException] = []
    with opened(database_url, tmp_path / "contents", time.time, blobs_kept=0.05) as store:  # type: ignore[arg-type]
        geo = store.create("geo", {"revs_limit": 3})

        def write(number: int) -> None:
            chance = random.Random(number)
            while time.monotonic() < end:
                id = f"d{chance.randrange(20)}"
                data = b"%d" % chance.randrange(30) * chance.choice([1, 10, 30_000])
                try:
                    if chance.random() < 0.7:
                        geo.attach(id, f"f{chance.randrange(3)}", data)
                    elif chance.random() < 0.7:
                        geo.put({"_id": id, "_attachments": {"f0": inline(data[:5_000])}}, update=True)
                    else:
                        geo.purge(id)
                except SpileError as error:
                    if error.code not in ("conflict", "missing_stub", "not_found"):
                        raise

        def read() -> None:
            chance = random.Random()
            while time.monotonic() < end:
                try:
                    found = geo.attachment(f"d{chance.randrange(20)}", f"f{chance.randrange(3)}")
                    assert len(found.bytes()) == found.length
                except NotFound:
                    continue

        def collect() -> None:
            while time.monotonic() < end:
                store.compact("geo")
                store.collect()
                store.blobs.contents.scrub(1 << 20)

        def run(job: object, *arguments: object) -> None:
            try:
                job(*arguments)  # type: ignore[operator]
            except BaseException as error:  # noqa: BLE001 - told below
                faults.append(error)

        jobs = [*((write, number) for number in range(10)), *((read,) for _ in range(50)), (collect,)]
        threads = [threading.Thread(target=run, args=job) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert faults == []
        assert count(store, "blobs") > 0
        for id in geo.ids_after("", 100):
            try:
                names = attached(store, "geo", id)
            except NotFound:
                continue
            for name in names:
                assert digest(geo.attachment(id, name).bytes()) == names[name]["digest"]
        assert clean(store)


def test_two_databases_do_not_share_their_contents(tmp_path: Path) -> None:
    place = tmp_path / "contents"
    with Store.open(tmp_path / "one", blobs=place) as first:
        first.create("geo").attach("doc", "a.txt", b"a")
    with Store.open(tmp_path / "other", blobs=place) as other:
        error = refusal(lambda: other.create("geo").attach("doc", "b.txt", b"b"))
        assert isinstance(error, BadRequest)
        assert "belong to another database" in error.reason
        assert "owner" in error.hint


def test_two_processes_on_one_database_write_and_collect_at_once(databases: Databases, tmp_path: Path) -> None:
    end = time.monotonic() + 4
    faults: list[BaseException] = []
    where = f"file://{tmp_path / 'contents'}"
    settings = StoreSettings(blobs_kept=0.05)
    with databases.lent() as url, Store.open(url, settings, blobs=where) as one:
        with Store.open(url, settings, blobs=where) as two:
            one.create("geo", {"revs_limit": 3})

            def write(store: Store, number: int) -> None:
                chance = random.Random(number)
                geo = store.barrel("geo")
                while time.monotonic() < end:
                    id = f"d{chance.randrange(10)}"
                    try:
                        geo.attach(id, "f", b"%d" % chance.randrange(10))
                        if chance.random() < 0.3:
                            geo.purge(id)
                    except SpileError as error:
                        if error.code not in ("conflict", "missing_stub", "not_found"):
                            faults.append(error)

            def collect(store: Store) -> None:
                while time.monotonic() < end:
                    try:
                        store.compact("geo")
                        store.collect()
                    except SpileError as error:
                        faults.append(error)

            jobs = [(write, (store, number)) for number in range(4) for store in (one, two)]
            threads = [threading.Thread(target=job, args=given) for job, given in jobs]
            threads += [threading.Thread(target=collect, args=(store,)) for store in (one, two)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert faults == []
            geo = one.barrel("geo")
            for id in geo.ids_after("", 100):
                stubs = attached(two, "geo", id)
                assert digest(geo.attachment(id, "f").bytes()) == stubs["f"]["digest"]
            assert clean(one)


# -- check and repair


def test_a_check_finds_references_that_are_wrong_and_a_repair_mends_them(store: Store, geo: Barrel) -> None:
    geo.attach("x", "f", b"f")
    geo.attach("y", "g", b"g")
    assert clean(store)
    change(store, "DELETE FROM blob_refs WHERE generation = 1 AND doc = 1")
    assert any("is missing" in problem for problem in store.check().problems)
    assert store.check(repair=True).repaired > 0
    assert clean(store)
    (row,) = rows(store, "SELECT barrel, doc, generation, digest FROM blob_refs WHERE doc = 2")
    (blob,) = rows(store, "SELECT blob FROM blob_refs WHERE doc = 1")
    change(store, "INSERT INTO blob_refs VALUES (?, ?, ?, ?, ?)", *row, *blob)
    assert any("does not name it" in problem for problem in store.check().problems)
    store.check(repair=True)
    assert clean(store)


def test_a_check_finds_a_damaged_content_and_a_repair_marks_it(store: Store, geo: Barrel, tmp_path: Path) -> None:
    geo.attach("x", "f", b"precious" * 100)
    damage(tmp_path / "contents", b"precious" * 100)
    problems = store.check().problems
    assert any(digest(b"precious" * 100) in problem for problem in problems)
    store.check(repair=True)
    assert store.blobs.rows.counts()["blobs_damaged"] == 1
    geo.put({"_id": "y", "_attachments": {"f": inline(b"precious" * 100)}})
    assert geo.attachment("x", "f").bytes() == b"precious" * 100


def test_the_scrubber_of_a_round_marks_what_it_finds(store: Store, geo: Barrel, tmp_path: Path, clock: Clock) -> None:
    geo.attach("x", "f", b"precious" * 100)
    damage(tmp_path / "contents", b"precious" * 100)
    marked = 0
    for _ in range(5):
        clock.now += 60
        marked += store.maintain()["blobs_damaged"]
    assert marked > 0
    assert store.blobs.rows.counts()["blobs_damaged"] == 1


def test_what_a_crash_left_is_removed_and_nothing_else(store: Store, geo: Barrel, clock: Clock) -> None:
    geo.attach("x", "f", b"kept")
    incoming = store.blobs.contents.begin()
    incoming.write(b"nobody's")
    place = incoming.finish().place
    contents = store.blobs.contents
    contents.leftovers(store.blobs.rows.known, left_s=0)
    assert contents.leftovers(store.blobs.rows.known, left_s=0) <= 1
    with pytest.raises(SpileError):
        list(contents.read(place, 0, 8))
    assert geo.attachment("x", "f").bytes() == b"kept"


# -- uploads


def test_an_upload_is_sent_in_parts_and_named_by_its_document(store: Store, geo: Barrel) -> None:
    upload = store.uploads.start(geo.key, "me", length=10, digest=digest(b"0123456789"))
    assert store.uploads.append(geo.key, upload.id, 0, b"01234", "me") == 5
    assert store.uploads.get(geo.key, upload.id, "me").size == 5
    assert store.uploads.append(geo.key, upload.id, 5, iter([b"567", b"89"]), "me") == 10
    content = store.uploads.finish(geo.key, upload.id, "me")
    assert store.uploads.finish(geo.key, upload.id, "me") == content
    assert content.digest == digest(b"0123456789")
    (write,) = geo.absorb([Write.put({"_id": "x", "_attachments": {"f": {"upload": upload.id}}})], who="me")
    geo.write(write)
    assert geo.attachment("x", "f").bytes() == b"0123456789"
    geo.attach("y", "g", content)
    assert geo.attachment("y", "g").bytes() == b"0123456789"


def test_an_upload_is_gone_on_with_after_a_restart(database_url: str, tmp_path: Path) -> None:
    data = random.Random(3).randbytes(3_000_000)
    with opened(database_url, tmp_path / "contents") as store:
        geo = store.create("geo")
        upload = store.uploads.start(geo.key)
        store.uploads.append(geo.key, upload.id, 0, data[:2_000_000])
    with opened(database_url, tmp_path / "contents") as store:
        geo = store.barrel("geo")
        size = store.uploads.get(geo.key, upload.id).size
        assert size == 2_000_000
        store.uploads.append(geo.key, upload.id, size, data[size:])
        geo.attach("x", "f", store.uploads.finish(geo.key, upload.id))
        assert geo.attachment("x", "f").bytes() == data
        assert clean(store)


def test_a_part_at_the_wrong_place_is_refused_and_says_where_to_go_on(store: Store, geo: Barrel) -> None:
    upload = store.uploads.start(geo.key)
    store.uploads.append(geo.key, upload.id, 0, b"abc")
    for offset in (0, 2, 4):
        error = refusal(partial(store.uploads.append, geo.key, upload.id, offset, b"x"))
        assert (error.code, error.details["size"]) == ("conflict", 3)
    assert store.uploads.get(geo.key, upload.id).size == 3


def test_what_came_before_a_part_was_cut_off_stays(store: Store, geo: Barrel) -> None:
    def broken() -> Iterator[bytes]:
        yield b"abc"
        raise ConnectionResetError

    upload = store.uploads.start(geo.key)
    with pytest.raises(ConnectionResetError):
        store.uploads.append(geo.key, upload.id, 0, broken())
    assert store.uploads.append(geo.key, upload.id, 3, b"def") == 6
    assert store.uploads.finish(geo.key, upload.id).digest == digest(b"abcdef")


def test_one_request_at_a_time_goes_on_with_an_upload(store: Store, geo: Barrel) -> None:
    upload = store.uploads.start(geo.key)
    told: list[SpileError] = []

    def twice() -> Iterator[bytes]:
        yield b"abc"
        told.append(refusal(lambda: store.uploads.append(geo.key, upload.id, 0, b"other")))
        told.append(refusal(lambda: store.uploads.finish(geo.key, upload.id)))

    store.uploads.append(geo.key, upload.id, 0, twice())
    assert [error.code for error in told] == ["conflict", "conflict"]
    assert store.uploads.finish(geo.key, upload.id).digest == digest(b"abc")


def test_an_upload_is_nobody_elses(store: Store, geo: Barrel) -> None:
    upload = store.uploads.start(geo.key, "me")
    other = store.create("other")
    for barrel, who in ((geo, "you"), (geo, ""), (other, "me")):
        assert isinstance(refusal(partial(store.uploads.get, barrel.key, upload.id, who)), NotFound)
    store.uploads.append(geo.key, upload.id, 0, b"abc", "me")
    store.uploads.finish(geo.key, upload.id, "me")
    write = Write.put({"_id": "x", "_attachments": {"f": {"upload": upload.id}}})
    assert isinstance(refusal(lambda: geo.absorb([write], who="you")), NotFound)


def test_an_upload_that_is_not_what_was_announced_is_given_up(store: Store, geo: Barrel) -> None:
    upload = store.uploads.start(geo.key, length=3)
    store.uploads.append(geo.key, upload.id, 0, b"ab")
    assert isinstance(refusal(lambda: store.uploads.finish(geo.key, upload.id)), BadRequest)
    store.uploads.append(geo.key, upload.id, 2, b"c")  # shorter is not wrong yet
    assert isinstance(refusal(lambda: store.uploads.finish(geo.key, upload.id, digest=digest(b"xyz"))), BadRequest)
    assert isinstance(refusal(lambda: store.uploads.get(geo.key, upload.id)), NotFound)
    assert copies(store) == (0, 0)


def test_a_document_does_not_take_an_upload_that_is_not_finished(store: Store, geo: Barrel) -> None:
    upload = store.uploads.start(geo.key)
    error = refusal(lambda: geo.put({"_id": "x", "_attachments": {"f": {"upload": upload.id}}}))
    assert isinstance(error, MissingStub)


def test_uploads_are_given_up_by_their_owners_and_by_time(store: Store, geo: Barrel, clock: Clock) -> None:
    aborted, forgotten = store.uploads.start(geo.key), store.uploads.start(geo.key)
    store.uploads.append(geo.key, forgotten.id, 0, b"abc")
    store.uploads.abort(geo.key, aborted.id)
    assert isinstance(refusal(lambda: store.uploads.get(geo.key, aborted.id)), NotFound)
    clock.now += 23 * HOUR
    assert store.maintain()["uploads"] == 0
    clock.now += 2 * HOUR
    assert store.maintain()["uploads"] == 1
    assert count(store, "uploads") == 0


def test_more_uploads_than_are_kept_open_can_be_gone_on_with(store: Store, geo: Barrel) -> None:
    uploads = [store.uploads.start(geo.key) for _ in range(40)]
    for part in (b"abc", b"def"):
        for upload in uploads:
            store.uploads.append(geo.key, upload.id, 0 if part == b"abc" else 3, part)
    for upload in uploads:
        assert store.uploads.finish(geo.key, upload.id).digest == digest(b"abcdef")


# -- backups


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Store]:
    with opened(str(tmp_path / "store"), tmp_path / "store" / "blobs") as store:
        geo = store.create("geo")
        geo.attach("x", "small", b"small")
        geo.attach("x", "large", b"large" * 500_000)
        geo.attach("y", "empty", b"")
        geo.put({"_id": "z", "_attachments": {"l": {"link": "x:y"}}})
        yield store


@pytest.mark.parametrize("way", ["own", "beside"])
def test_a_backup_carries_the_contents(full: Store, tmp_path: Path, way: str) -> None:
    seen: list[tuple[int, int]] = []

    def tell(done: int, total: int) -> None:
        seen.append((done, total))

    if way == "own":
        full.backup(tmp_path / "copy.db", tell)
    else:
        Store.backup_of(tmp_path / "store", tmp_path / "copy.db", tell)
    assert seen[-1][0] == seen[-1][1]
    seen.clear()
    manifest = Store.restore(tmp_path / "copy.db", tmp_path / "again", progress=tell)
    assert seen[-1][0] == seen[-1][1]
    assert len({done for done, _ in seen}) > 2, "contents are told piece by piece"
    assert manifest.damaged == []
    with Store.open(tmp_path / "again") as store:
        geo = store.barrel("geo")
        assert geo.attachment("x", "large").bytes() == b"large" * 500_000
        assert geo.attachment("x", "small").bytes() == b"small"
        assert geo.attachment("y", "empty").bytes() == b""
        geo.attach("x", "new", b"new")
        assert clean(store)
        assert not rows(store, "SELECT name FROM sqlite_master WHERE name = 'contents'")
    assert (tmp_path / "again" / "spile.db").stat().st_size < 1_000_000


def test_nothing_is_removed_while_a_backup_is_taken(full: Store, tmp_path: Path) -> None:
    clock: Clock = full.clock  # type: ignore[assignment]
    done = threading.Event()

    def meddle(_done: int, _total: int) -> None:
        if not done.is_set():
            done.set()
            full.barrel("geo").purge("x")
            settle(full, clock)
            assert copies(full)[1] > 0

    full.backup(tmp_path / "copy.db", meddle)
    assert done.is_set()
    Store.restore(tmp_path / "copy.db", tmp_path / "again")
    with Store.open(tmp_path / "again") as store:
        assert store.barrel("geo").attachment("x", "large").bytes() == b"large" * 500_000
    settle(full, clock)
    assert copies(full)[1] == 0


def test_a_backup_tells_what_is_damaged_and_carries_the_rest(full: Store, tmp_path: Path) -> None:
    damage(tmp_path / "store" / "blobs", b"small")
    manifest: Manifest = full.backup(tmp_path / "copy.db")
    assert manifest.damaged == [digest(b"small").removeprefix("sha256-")]
    Store.restore(tmp_path / "copy.db", tmp_path / "again")
    with Store.open(tmp_path / "again") as store:
        geo = store.barrel("geo")
        assert isinstance(refusal(lambda: geo.attachment("x", "small").bytes()), SpileError)
        assert geo.attachment("x", "large").length == 2_500_000
        geo.attach("q", "small", b"small")
        assert geo.attachment("x", "small").bytes() == b"small"
        assert clean(store)


def test_a_backup_with_other_bytes_in_it_is_not_restored(full: Store, tmp_path: Path) -> None:
    full.backup(tmp_path / "copy.db")
    with sqlite3.connect(tmp_path / "copy.db") as copy:
        copy.execute("UPDATE contents SET data = x'7878787878' WHERE length(data) = 5")
    assert isinstance(refusal(lambda: Store.restore(tmp_path / "copy.db", tmp_path / "again")), Damaged)
    assert not (tmp_path / "again" / "spile.db").exists()


def test_contents_are_not_restored_over_others(full: Store, tmp_path: Path) -> None:
    full.backup(tmp_path / "copy.db")
    (tmp_path / "again" / "blobs").mkdir(parents=True)
    (tmp_path / "again" / "blobs" / "something").write_text("here")
    assert isinstance(refusal(lambda: Store.restore(tmp_path / "copy.db", tmp_path / "again")), Exists)
