"""The write-once register: what is written, refused, read, given up and told."""

from __future__ import annotations

import errno
import os
import resource
import sqlite3
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from disks import Ballast, small_disk
from running import until

from feeds.blobs import CHUNK_BYTES_MAX, BlobFiles, BlobSettings, State, Tag
from feeds.blobs.checksums import crc32c
from feeds.errors import (
    AlreadyWritten,
    BadChecksum,
    BadEpoch,
    BadRequest,
    NewerSchema,
    NotFound,
    NotWritten,
    SpileError,
    StorageFull,
    StoreLocked,
    TooLarge,
    Trimmed,
    Unavailable,
)

ELSEWHERE = f"b^{uuid.UUID(int=7).hex}^3"


@pytest.fixture
def files(tmp_path: Path) -> Iterator[BlobFiles]:
    with BlobFiles.open(tmp_path / "blobs") as opened:
        yield opened
        assert opened.check().problems == []


def test_what_is_appended_is_read_where_it_was_placed(files: BlobFiles) -> None:
    first, second = files.append("a", b"hello"), files.append("a", b"world")
    assert (second.file, second.offset) == (first.file, 5)
    assert files.read(first.file, 0, 10) == b"helloworld"
    assert files.read(first.file, 3, 4) == b"lowo"
    assert files.append("b", b"x").file.startswith("b^")


def test_room_behind_a_chunk_is_left_for_who_asked(files: BlobFiles) -> None:
    first = files.append("a", b"head", extra=6)
    second = files.append("a", b"next")
    assert (first.offset, first.size, second.offset) == (0, 4, 10)
    files.write(first.file, 4, b"behind")
    assert files.read(first.file, 0, 14) == b"headbehindnext"
    room = files.reserve("a", 5)
    assert (room.file, room.offset, room.size) == (first.file, 14, 5)
    assert files.append("a", b"!").offset == 19


def test_a_chunk_is_written_once(files: BlobFiles) -> None:
    place = files.append("a", b"0123456789")
    files.write(place.file, 0, b"0123456789")
    files.write(place.file, 3, b"345")
    for offset, data in [(0, b"x"), (3, b"344"), (9, b"9a"), (5, b"56789a"), (0, b"0123456789a")]:
        with pytest.raises(AlreadyWritten):
            files.write(place.file, offset, data)
    assert files.read(place.file, 0, 10) == b"0123456789"
    files.write(place.file, 10, b"ab")
    files.write(place.file, 8, b"89ab")


def test_what_is_trimmed_never_comes_back(files: BlobFiles) -> None:
    place = files.append("a", b"0123456789")
    files.trim(place.file, 2, 3)
    files.trim(place.file, 3, 1)
    files.trim(place.file, 20, 5)
    for offset, data in [(2, b"234"), (0, b"012"), (20, b"x"), (15, b"x" * 10), (9, b"99" + b"x" * 20)]:
        with pytest.raises(Trimmed):
            files.write(place.file, offset, data)
    with pytest.raises(Trimmed):
        files.read(place.file, 1, 2)
    assert files.read(place.file, 0, 2) + files.read(place.file, 5, 5) == b"0156789"
    rows = [(row.offset, row.size, row.state, row.tag) for row in files.checksum_list(place.file)]
    assert rows == [
        (0, 2, State.WRITTEN, Tag.SPLIT),
        (2, 3, State.TRIMMED, None),
        (5, 5, State.WRITTEN, Tag.SPLIT),
        (20, 5, State.TRIMMED, None),
    ]


def test_a_hole_is_told_with_what_is_there(files: BlobFiles) -> None:
    for offset in (0, 4, 8, 20):
        files.write(ELSEWHERE, offset, b"abcd")
    with pytest.raises(NotWritten) as refused:
        files.read(ELSEWHERE, 2, 20)
    assert refused.value.as_dict()["ranges"] == [[2, 10], [20, 2]]
    assert [chunk.offset for chunk in files.read_chunks(ELSEWHERE, 2, 20)] == [0, 4, 8, 20]
    assert files.read_chunks(ELSEWHERE, 12, 8) == []
    with pytest.raises(NotWritten):
        files.read(f"none^{uuid.UUID(int=8).hex}^0", 0, 1)


def test_a_large_chunk_is_divided_and_its_own_sum_verified_first(files: BlobFiles) -> None:
    data = os.urandom(3 * CHUNK_BYTES_MAX + 17)
    with pytest.raises(BadChecksum):
        files.append("a", data, checksum=crc32c(data) ^ 1)
    assert files.list_files() == []
    place = files.append("a", data, checksum=crc32c(data))
    assert [row.size for row in files.checksum_list(place.file)] == [CHUNK_BYTES_MAX] * 3 + [17]
    assert files.read(place.file, CHUNK_BYTES_MAX - 5, 10) == data[CHUNK_BYTES_MAX - 5 : CHUNK_BYTES_MAX + 5]
    assert max(map(len, files.pieces(place.file, 0, len(data)))) == CHUNK_BYTES_MAX
    files.trim(place.file, 5, 2 * CHUNK_BYTES_MAX)
    assert files.read(place.file, 0, 5) == data[:5]
    assert files.read(place.file, 2 * CHUNK_BYTES_MAX + 5, 100) == data[2 * CHUNK_BYTES_MAX + 5 :][:100]


def test_many_small_chunks_are_read_as_one_range(files: BlobFiles) -> None:
    pending = [files.append_soon("a", bytes([number % 256]) * 7) for number in range(2_500)]
    places = [each.done.result() for each in pending]
    assert [each.placed for each in pending] == places
    expected = b"".join(bytes([number % 256]) * 7 for number in range(2_500))
    assert files.read(places[0].file, 3, 17_000) == expected[3:17_003]
    assert len(files.read_chunks(places[0].file, 0, 17_500)) == 2_500
    assert len(list(files.checksum_list(places[0].file))) == 2_500
    assert files.stats()["blobs_groups"] < 2_500


def test_files_roll_over_at_their_size_at_an_epoch_and_at_a_restart(tmp_path: Path) -> None:
    names = []
    with BlobFiles.open(tmp_path, BlobSettings(file_bytes_max=10)) as files:
        names.append(files.append("a", b"0123456789").file)
        names.append(files.append("a", b"x").file)
        names.append(files.append("a", b"0123456789" * 5).file)
        names.append(files.append("a", b"y").file)
        files.set_epoch(3)
        names.append(files.append("a", b"z", epoch=3).file)
        assert files.append("a", b"z").file == names[-1]
    with BlobFiles.open(tmp_path) as files:
        assert files.epoch == 3
        names.append(files.append("a", b"z").file)
        assert [file.name for file in files.list_files()] == sorted(names)
    assert len(set(names)) == 6


def test_an_operation_of_another_epoch_is_refused(files: BlobFiles) -> None:
    place = files.append("a", b"x", epoch=0)
    files.set_epoch(2)
    files.set_epoch(2)
    for act in (
        lambda: files.append("a", b"x", epoch=1),
        lambda: files.write(place.file, 5, b"x", epoch=1),
        lambda: files.trim(place.file, 0, 1, epoch=3),
        lambda: files.set_note(place.file, "k", "v", epoch=0),
        lambda: files.reserve("a", 5, epoch=0),
        lambda: files.set_epoch(1),
    ):
        with pytest.raises(BadEpoch):
            act()
    files.write(place.file, 5, b"x", epoch=2)
    files.set_note(place.file, "k", "v", epoch=2)
    info = files.file(place.file)
    assert info is not None
    assert (info.epoch_written, info.epoch_noted) == (2, 2)


def test_a_file_that_is_all_trimmed_is_removed_and_its_name_never_comes_back(tmp_path: Path) -> None:
    with BlobFiles.open(tmp_path, BlobSettings(file_bytes_max=8)) as files:
        place = files.append("a", b"01234567")
        path = tmp_path / "files" / place.file
        files.trim(place.file, 0, 8)
        assert path.exists(), "it is still appended to"
        files.append("a", b"next")
        until(lambda: not path.exists(), "the file is removed once another follows it")
        kept = files.append("a", b"keep")
        files.trim(kept.file, 0, 8)
    with BlobFiles.open(tmp_path) as files:
        for name in (place.file, kept.file):
            assert not (tmp_path / "files" / name).exists()
            with pytest.raises(Trimmed):
                files.write(name, 100, b"x")
            with pytest.raises(Trimmed):
                files.read(name, 0, 1)
            files.trim(name, 0, 100)
        assert files.list_files() == []
        assert {file.name for file in files.list_files(removed=True)} == {place.file, kept.file}
        assert files.check().problems == []


def test_room_that_was_promised_keeps_its_file(tmp_path: Path) -> None:
    with BlobFiles.open(tmp_path, BlobSettings(file_bytes_max=8)) as files:
        place = files.append("a", b"0123", extra=4)
        files.append("a", b"next")
        files.trim(place.file, 0, 4)
        files.write(place.file, 4, b"room")
        files.trim(place.file, 4, 4)
        assert not (tmp_path / "files" / place.file).exists()


def test_a_trim_gives_the_disk_its_room_back(files: BlobFiles, tmp_path: Path) -> None:
    place = files.append("a", os.urandom(CHUNK_BYTES_MAX))
    path = tmp_path / "blobs" / "files" / place.file
    before = path.stat().st_blocks
    files.trim(place.file, 0, CHUNK_BYTES_MAX // 2)
    if not files.stats()["blobs_punched_bytes"]:
        pytest.skip("the file system here cannot punch holes")
    assert path.stat().st_blocks <= before // 2 + 16


def test_notes_are_kept_with_a_file_and_go_with_it(tmp_path: Path) -> None:
    with BlobFiles.open(tmp_path) as files:
        place = files.append("a", b"x")
        files.set_note(place.file, "chain", "1,2")
        files.set_note(place.file, "other", "é")
        files.set_note(place.file, "other", None)
        empty = files.reserve("b", 10).file
        files.set_note(empty, "upload", "7")
        with pytest.raises(NotFound):
            files.set_note(ELSEWHERE, "k", "v")
        with pytest.raises(TooLarge):
            files.set_note(place.file, "k", "v" * 100_000)
    with BlobFiles.open(tmp_path) as files:
        assert files.notes(place.file) == {"chain": "1,2"}
        assert files.notes(empty) == {"upload": "7"}
        files.trim(place.file, 0, 1)
        assert files.notes(place.file) == {}


def test_nonsense_is_refused(files: BlobFiles) -> None:
    for act in (
        lambda: files.append("a/b", b"x"),
        lambda: files.append("a", b""),
        lambda: files.append("a", b"x", extra=-1),
        lambda: files.reserve("a", 0),
        lambda: files.write("../x", 0, b"x"),
        lambda: files.write(ELSEWHERE, -1, b"x"),
        lambda: files.read("../index.db", 0, 1),
        lambda: files.trim(ELSEWHERE, 0, 0),
        lambda: files.file("/etc/passwd"),
        lambda: files.notes("/etc/passwd"),
    ):
        with pytest.raises(BadRequest):
            act()
    assert files.list_files() == []


def test_one_process_holds_the_folder(files: BlobFiles, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from feeds.blobs import BlobFiles; BlobFiles.open(Path(sys.argv[1]))"
    )
    other = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "blobs")], capture_output=True, text=True, check=False
    )
    assert "StoreLocked" in other.stderr
    with pytest.raises(StoreLocked):
        BlobFiles.open(tmp_path / "blobs")


def test_what_is_closed_says_so(tmp_path: Path) -> None:
    files = BlobFiles.open(tmp_path)
    place = files.append("a", b"x")
    soon = files.append_soon("a", b"y")
    files.close()
    files.close()
    assert soon.done.result().offset == 1
    for act in (
        lambda: files.append("a", b"x"),
        lambda: files.reserve("a", 1),
        lambda: files.read(place.file, 0, 1),
        lambda: files.trim(place.file, 0, 1),
    ):
        with pytest.raises(Unavailable):
            act()


def test_a_folder_of_a_newer_spile_is_left_alone(tmp_path: Path) -> None:
    BlobFiles.open(tmp_path).close()
    with sqlite3.connect(tmp_path / "index.db") as index:
        index.execute("UPDATE alembic_version SET version_num = '9999'")
    index.close()
    with pytest.raises(NewerSchema):
        BlobFiles.open(tmp_path)


def test_an_opening_that_fails_in_the_middle_holds_nothing(tmp_path: Path) -> None:
    with BlobFiles.open(tmp_path) as files:
        place = files.append("a", b"x" * 100)
    os.truncate(tmp_path / "files" / place.file, 50)
    BlobFiles.open(tmp_path).close()  # notes that the file is short, and takes that back when it is opened again

    def index(statement: str) -> None:
        connection = sqlite3.connect(tmp_path / "index.db", timeout=0)
        connection.execute(statement)
        connection.close()

    index("CREATE TRIGGER never BEFORE DELETE ON damage BEGIN SELECT RAISE(ABORT, 'never'); END")
    with pytest.raises(SpileError) as failed:  # and is kept here, with all that its traceback holds
        BlobFiles.open(tmp_path)
    assert "never" in failed.value.reason
    index("DROP TRIGGER never")
    BlobFiles.open(tmp_path).close()


def test_a_full_disk_refuses_and_harms_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", mib=24) as disk:
        with BlobFiles.open(disk / "blobs") as files:
            place = files.append("a", b"before")
            ballast = Ballast(disk)
            ballast.grow()
            refusals: list[SpileError] = []
            for size in (2 * CHUNK_BYTES_MAX, 1_000):
                for _ in range(20):
                    try:
                        files.append("a", b"x" * size)
                    except SpileError as error:
                        refusals.append(error)
            assert refusals
            assert {type(error) for error in refusals} == {StorageFull}
            assert files.read(place.file, 0, 6) == b"before"
            ballast.drop()
            again = files.append("a", b"after")
            assert files.read(again.file, again.offset, 5) == b"after"
            assert files.check().problems == []


def test_writers_wait_while_too_much_is_on_its_way(tmp_path: Path) -> None:
    settings = BlobSettings(waiting_bytes_max=1_000, waiting_max=3)
    with BlobFiles.open(tmp_path, settings) as files:
        deepest = 0
        for number in range(200):
            files.append_soon("a", b"x" * (900 if number % 2 else 10))
            stats = files.stats()
            deepest = max(deepest, stats["blobs_waiting"])
            assert stats["blobs_waiting_bytes"] <= 1_000
        assert deepest <= 3
        assert files.read(files.append("a", b"y" * 5_000).file, 0, 10) == b"x" * 10


def test_writers_that_take_all_the_room_do_not_wait_for_each_other_for_ever(tmp_path: Path) -> None:
    settings = BlobSettings(waiting_max=2, waiting_bytes_max=1_000, file_bytes_max=400)
    with BlobFiles.open(tmp_path, settings) as files, ThreadPoolExecutor(16) as writers:

        def write(who: int) -> bool:
            places = [files.append(f"p{who % 5}", bytes([who]) * 150, extra=10) for _ in range(10)]
            for place in places[::2]:
                files.trim(place.file, place.offset, 160)
            return all(files.read(place.file, place.offset, 150) == bytes([who]) * 150 for place in places[1::2])

        assert all(writers.map(write, range(16)))
        assert files.check().problems == []


def test_after_a_sync_that_failed_nothing_more_is_trusted_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BlobFiles.open(tmp_path) as files:
        before = files.append("a", b"before")

        def broken(_fd: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        with monkeypatch.context() as disk:
            disk.setattr(os, "fdatasync", broken)
            with pytest.raises(Unavailable):
                files.append("a", b"lost")
        with pytest.raises(Unavailable):
            files.write(before.file, 100, b"x")
        after = files.append("a", b"after")
        assert after.file != before.file
        assert files.read(before.file, 0, 6) == b"before"
        with pytest.raises(NotWritten):
            files.read(before.file, 6, 4)
    with BlobFiles.open(tmp_path) as files:
        files.write(before.file, 6, b"again")
        assert files.read(before.file, 0, 11) == b"beforeagain"
        assert files.check().problems == []


def test_a_row_is_committed_only_after_its_bytes_were_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[int, int]] = []
    sync = os.fdatasync

    def watched(fd: int) -> None:
        index = sqlite3.connect(tmp_path / "index.db")
        rows = index.execute("SELECT coalesce(sum(size), 0) FROM chunks").fetchone()[0]
        index.close()
        sync(fd)
        synced.append((os.fstat(fd).st_size, rows))

    with BlobFiles.open(tmp_path) as files:
        monkeypatch.setattr(os, "fdatasync", watched)
        for size in (10, 100_000, 20):
            files.append("a", b"x" * size)
    assert synced == [(10, 0), (100_010, 10), (100_030, 100_010)]


def test_a_file_that_cannot_be_opened_now_is_not_called_damaged(tmp_path: Path) -> None:
    with BlobFiles.open(tmp_path, BlobSettings(handles_max=1)) as files:
        place = files.append("a", b"x")
        files.append("b", b"y")
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            with pytest.raises(Unavailable):
                files.read(place.file, 0, 1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert files.read(place.file, 0, 1) == b"x"
        assert files.damage() == []


def test_writers_of_one_place_agree_on_one(tmp_path: Path) -> None:
    with BlobFiles.open(tmp_path) as files, ThreadPoolExecutor(8) as writers:
        for at in range(0, 300, 10):
            together = threading.Barrier(8)

            def write(who: int, at: int = at, together: threading.Barrier = together) -> int | None:
                together.wait()
                try:
                    files.write(ELSEWHERE, at + who % 2, bytes([who % 4]) * 5)
                except AlreadyWritten:
                    return None
                return who % 4

            stored = [who for who in writers.map(write, range(8)) if who is not None]
            assert len(stored) == 2, "one stored its bytes, and its twin found them there"
            assert len(set(stored)) == 1
        assert files.check().problems == []
