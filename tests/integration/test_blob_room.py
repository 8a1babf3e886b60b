"""Room on the disk: given back at once, also by a full one, and whole files that go."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from attachment_tools import opened
from disks import Ballast, small_disk
from running import until

from feeds.blobs import BlobFiles, BlobSettings
from feeds.blobs.files import FILES_LISTED_MAX
from feeds.blobs.local import LocalContents
from feeds.blobs.reserve import RESERVE_BYTES
from feeds.errors import BadRequest, NotWritten, StorageFull, Trimmed

MIB = 1024 * 1024
DISK_MIB = 8


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", DISK_MIB) as mounted:
        yield mounted


def used(folder: Path) -> int:
    """Bytes on the disk under the blob files."""
    return sum(path.stat().st_blocks * 512 for path in (folder / "files").iterdir())


def random_bytes(size: int) -> bytes:
    return random.Random(size).randbytes(size)


# -- a full disk


@pytest.mark.parametrize("is_streamed", [True, False], ids=["streamed", "inline"])
def test_an_upload_that_fills_the_disk_leaves_room_for_a_smaller_one(
    disk: Path, tmp_path: Path, is_streamed: bool
) -> None:
    pieces = [random_bytes(MIB - 100) for _ in range(2 * DISK_MIB)]
    with opened(f"sqlite:///{tmp_path}/store/spile.db", disk / "blobs") as store:
        geo = store.create("geo")
        geo.attach("small", "f", b"before")
        for number in range(3):
            with pytest.raises(StorageFull):
                geo.attach("large", "f", iter(pieces) if is_streamed else b"".join(pieces))
            geo.put({"n": number}, id=f"document {number}")
            geo.attach(f"fits {number}", "f", random_bytes(MIB + number))
        assert geo.attachment("small", "f").bytes() == b"before"
        assert [geo.attachment(f"fits {number}", "f").bytes() for number in range(3)] == [
            random_bytes(MIB + number) for number in range(3)
        ]
        assert store.check().problems == []
        assert used(disk / "blobs") < 4 * MIB


def test_what_was_stored_can_be_removed_from_a_disk_that_is_full_to_the_last_byte(disk: Path) -> None:
    with _contents(disk / "blobs") as contents:
        small, large = (_stored(contents, random_bytes(size)) for size in (600_000, 2 * MIB))
        ballast = Ballast(disk)
        ballast.grow()
        for place in (small, large):
            with pytest.raises(StorageFull):
                until(lambda: _stored(contents, random_bytes(100_000)) == "", "the disk is full")
            contents.remove(place)
            until(lambda: (disk / "blobs" / "reserve").stat().st_size, "room is back, and a part of it kept")
            ballast.grow()
        ballast.drop()
        assert contents.files.check().problems == []
        assert used(disk / "blobs") < MIB


def test_room_is_kept_in_reserve_again_once_there_is_some(disk: Path) -> None:
    reserve = disk / "blobs" / "reserve"
    with BlobFiles.open(disk / "blobs") as files:
        place = files.append("a", random_bytes(MIB))
        assert reserve.stat().st_size == RESERVE_BYTES
        ballast = Ballast(disk)
        ballast.grow()
        with pytest.raises(StorageFull):
            until(lambda: files.append("a", b"x").size == 0, "the disk is full")
        files.trim(place.file, 0, MIB)
        assert [info.trimmed for info in files.list_files()] == [MIB]
        ballast.drop()
        files.append("a", b"x")
        until(lambda: reserve.stat().st_size == RESERVE_BYTES, "it is kept again")


def test_a_folder_on_a_full_disk_is_opened(disk: Path) -> None:
    with BlobFiles.open(disk / "blobs") as files:
        kept = files.append("a", b"kept")
        gone = files.append("b", random_bytes(MIB))
    index = sqlite3.connect(disk / "blobs" / "index.db")  # a crash before the file was removed
    with index:
        index.execute("UPDATE chunks SET state = 2 WHERE size = ?", (MIB,))
        index.execute("UPDATE files SET trimmed = written, written = 0 WHERE name = ?", (gone.file,))
    index.close()
    Ballast(disk).grow()
    with BlobFiles.open(disk / "blobs") as files:
        assert files.recovered.removed == [gone.file]
        assert files.read(kept.file, 0, 4) == b"kept"
        files.append("a", b"there is room again")


@pytest.mark.parametrize("size", [3 * MIB, 16_000])
def test_bytes_that_were_refused_take_no_room(disk: Path, size: int) -> None:
    with BlobFiles.open(disk / "blobs") as files:
        first = files.append("a", b"first")
        ballast = Ballast(disk)
        ballast.grow()
        with pytest.raises(StorageFull):
            until(lambda: files.append("a", random_bytes(size)).size == 0, "the disk is full")
        before = used(disk / "blobs")
        for _ in range(50):
            with pytest.raises(StorageFull):
                files.append("a", random_bytes(size))
        assert used(disk / "blobs") <= before + 4 * 4_096  # not that of 50
        ballast.drop()
        last = files.append("a", b"last")
        with pytest.raises(NotWritten):
            files.read(last.file, first.size, last.offset - first.size)
        assert files.check().problems == []


def test_a_resumable_upload_is_gone_on_with_once_the_disk_has_room(disk: Path, tmp_path: Path) -> None:
    data = random_bytes(4 * MIB + 5)
    with opened(f"sqlite:///{tmp_path}/store/spile.db", disk / "blobs") as store:
        geo = store.create("geo")
        upload = store.uploads.start(geo.key, length=len(data))
        ballast = Ballast(disk)
        assert store.uploads.append(geo.key, upload.id, 0, data[: 2 * MIB + 7]) == 2 * MIB + 7
        ballast.grow()
        with pytest.raises(StorageFull):
            store.uploads.append(geo.key, upload.id, 2 * MIB + 7, data[2 * MIB + 7 :])
            store.uploads.finish(geo.key, upload.id)
        ballast.drop()
        size = store.uploads.get(geo.key, upload.id).size
        assert store.uploads.append(geo.key, upload.id, size, data[size:]) == len(data)
        geo.attach("d", "f", store.uploads.finish(geo.key, upload.id))
        assert geo.attachment("d", "f").bytes() == data


def test_a_resumable_upload_outlives_a_stop_on_a_full_disk(disk: Path, tmp_path: Path) -> None:
    data = random_bytes(3 * MIB)
    url = f"sqlite:///{tmp_path}/store/spile.db"
    ballast = Ballast(disk)
    with opened(url, disk / "blobs") as store:
        key = store.create("geo").key
        upload = store.uploads.start(key, length=len(data))
        store.uploads.append(key, upload.id, 0, data[: 2 * MIB + 7])
        ballast.grow()
    ballast.drop()
    with opened(url, disk / "blobs") as store:
        size = store.uploads.get(key, upload.id).size
        assert size <= 2 * MIB + 7, "what was durable by then"
        store.uploads.append(key, upload.id, size, data[size:])
        content = store.uploads.finish(key, upload.id)
        assert b"".join(store.blobs.read(content.sha256)) == data


# -- blocks


def test_neighbours_that_share_a_block_give_it_back_once_both_are_trimmed(tmp_path: Path) -> None:
    size, count = 10_001, 200
    with BlobFiles.open(tmp_path) as files:
        places = [files.append_soon("a", random_bytes(size)).placed for _ in range(count)]
        files.append("a", b"last")
        path = tmp_path / "files" / places[0].file
        block = os.statvfs(tmp_path).f_bsize
        for place in random.Random(1).sample(places, count):
            files.trim(place.file, place.offset, place.size)
        if not files.stats()["blobs_punched_bytes"]:
            pytest.skip("the file system here cannot punch holes")
        assert path.stat().st_blocks * 512 <= 2 * block
        assert files.read(path.name, count * size, 4) == b"last"


def test_a_trim_leaves_its_neighbours_as_they_are(tmp_path: Path) -> None:
    chance = random.Random(2)
    with BlobFiles.open(tmp_path) as files:
        parts = [chance.randbytes(chance.choice((1, 100, 4_095, 4_096, 4_097, 9_000))) for _ in range(300)]
        places = [files.append_soon("a", part).placed for part in parts]
        trimmed = set(chance.sample(range(300), 200))
        for number in trimmed:
            files.trim(places[number].file, places[number].offset, places[number].size)
        for number, (part, place) in enumerate(zip(parts, places, strict=True)):
            if number not in trimmed:
                assert files.read(place.file, place.offset, place.size) == part
        files.scrub(1 << 30)
        assert files.check().problems == []


# -- whole files


def test_a_removed_file_is_gone_and_its_name_is_kept(tmp_path: Path) -> None:
    with BlobFiles.open(tmp_path) as files:
        place = files.append("a", b"0123", extra=100)
        files.write(place.file, 50, b"x")
        empty = files.reserve("b", 10).file
        for name in (place.file, empty):
            files.remove(name)
            assert not (tmp_path / "files" / name).exists()
            with pytest.raises(Trimmed):
                files.write(name, 200, b"x")
            files.remove(name)
        assert files.append("a", b"next").file != place.file
        files.remove(f"a^{'7' * 32}^0")
    with BlobFiles.open(tmp_path) as files:
        for name in (place.file, empty):
            with pytest.raises(Trimmed):
                files.write(name, 0, b"x")
        assert len(files.list_files(removed=True)) == 3
        assert files.check().problems == []


def test_what_was_never_written_of_a_sealed_file_is_given_up(tmp_path: Path) -> None:
    with BlobFiles.open(tmp_path) as files:
        place = files.append("a", b"0123", extra=100)
        files.write(place.file, 50, b"x")
        files.seal(place.file)
        assert files.read(place.file, 0, 4) + files.read(place.file, 50, 1) == b"0123x"
        with pytest.raises(Trimmed):
            files.write(place.file, 4, b"y")
        assert files.append("a", b"next").file != place.file
        files.trim(place.file, 0, 4)
        files.trim(place.file, 50, 1)
        assert not (tmp_path / "files" / place.file).exists()


def test_sealing_waits_for_the_writes_that_are_on_their_way(tmp_path: Path) -> None:
    with BlobFiles.open(tmp_path) as files, ThreadPoolExecutor(8) as threads:
        for number in range(20):
            room = files.reserve("a", 8 * 4_096)
            begun = [threads.submit(files.write, room.file, at * 4_096, bytes([at]) * 4_096) for at in range(1, 8)]
            files.write(room.file, 0, bytes([number]))
            files.seal(room.file)
            info = files.file(room.file)
            assert info is not None
            for at, each in enumerate(begun, 1):
                if each.exception() is None:
                    assert files.read(room.file, at * 4_096, 4_096) == bytes([at]) * 4_096
                else:
                    assert isinstance(each.exception(), Trimmed)


def test_an_upload_that_was_given_up_leaves_no_file(tmp_path: Path) -> None:
    with _contents(tmp_path) as contents:
        for size in (0, 10, MIB, 3 * MIB):
            with contents.begin() as incoming:
                incoming.write(random_bytes(size))
        assert os.listdir(tmp_path / "files") == []
        assert contents.files.list_files() == []


def test_files_of_small_contents_go_with_the_last_of_them_whatever_was_refused(tmp_path: Path) -> None:
    with _contents(tmp_path) as contents:
        kept = _stored(contents, b"kept")
        hole = contents.files.reserve("small", 100)  # as what a crash cut short
        last = _stored(contents, b"last")
    with _contents(tmp_path) as contents:
        contents.leftovers(lambda names: set(names))
        contents.remove(kept)
        assert (tmp_path / "files" / hole.file).exists()
        contents.remove(last)
        assert not (tmp_path / "files" / hole.file).exists()


# -- lists


def test_files_are_listed_a_page_at_a_time(tmp_path: Path) -> None:
    with BlobFiles.open(tmp_path, BlobSettings(file_bytes_max=1)) as files:
        names = sorted(files.append(f"p{number % 5}", b"x").file for number in range(23))
        files.remove(names.pop(7))
        listed: list[str] = []
        while page := files.list_files(listed[-1] if listed else "", 5):
            assert len(page) <= 5
            listed += [info.name for info in page]
        assert listed == names
        assert [info.name for info in files.every_file()] == names
        assert len(list(files.every_file(removed=True))) == 23
        for limit in (0, FILES_LISTED_MAX + 1):
            with pytest.raises(BadRequest):
                files.list_files(limit=limit)


def test_100000_files_are_walked_and_opened(tmp_path: Path) -> None:
    BlobFiles.open(tmp_path).close()
    index = sqlite3.connect(tmp_path / "index.db")
    with index:
        rows = ((f"a^{number:032x}^0", number % 2, 3 * (number % 2), 3 * (number % 2)) for number in range(100_000))
        index.executemany("INSERT INTO files VALUES (NULL, ?, ?, ?, 0, ?, 0, 0)", rows)
        index.execute("INSERT INTO notes SELECT file, 'k', 'v' FROM files WHERE removed = 0")
    index.close()
    with BlobFiles.open(tmp_path) as files:
        assert not files.recovered.short
        assert sum(1 for _ in files.every_file(removed=True)) == 100_000
        assert len(files.list_files(f"a^{50_000:032x}^0")) == FILES_LISTED_MAX


@contextmanager
def _contents(folder: Path) -> Iterator[LocalContents]:
    with closing(LocalContents.open(folder)) as contents:
        yield contents


def _stored(contents: LocalContents, data: bytes) -> str:
    with contents.begin(len(data)) as incoming:
        incoming.write(data)
        return incoming.finish().place
