"""Files that are cut, changed and lost behind the register's back: what is damaged is named, and nothing else is."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from feeds.blobs import BlobFiles, BlobSettings, Placed, State
from feeds.errors import AlreadyWritten, BadChecksum, PartialRead

CHUNK = 700


def filled(folder: Path, count: int = 60) -> dict[Placed, bytes]:
    """Chunks of two prefixes, in several files."""
    chance = random.Random(1)
    with BlobFiles.open(folder, BlobSettings(file_bytes_max=8_000)) as files:
        pieces = [chance.randbytes(chance.randint(1, CHUNK)) for _ in range(count)]
        return {files.append("ab"[number % 2], piece): piece for number, piece in enumerate(pieces)}


def outcome(files: BlobFiles, place: Placed) -> bytes | str:
    try:
        return files.read(place.file, place.offset, place.size)
    except (BadChecksum, PartialRead) as error:
        return error.code if place.file in error.reason else error.reason


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def test_bytes_behind_the_last_acknowledged_one_vanish(tmp_path: Path) -> None:
    held = filled(tmp_path)
    names = {place.file for place in held}
    sizes = {name: (tmp_path / "files" / name).stat().st_size for name in names}
    for name in names:
        with (tmp_path / "files" / name).open("ab") as file:
            file.write(os.urandom(5_000))
    with BlobFiles.open(tmp_path) as files:
        assert files.recovered.cut == dict.fromkeys(names, 5_000)
        assert {name: (tmp_path / "files" / name).stat().st_size for name in names} == sizes
        assert {place: outcome(files, place) for place in held} == held
        assert files.damage() == []
        assert files.check().problems == []


@pytest.mark.parametrize("seed", range(25))
def test_damage_at_random_places_is_found_and_named_and_harms_nothing_else(tmp_path: Path, seed: int) -> None:
    held = filled(tmp_path)
    chance = random.Random(seed)
    expected: dict[Placed, bytes | str] = dict(held)
    names = sorted({place.file for place in held})
    cut = {name: chance.randrange(8_000) for name in chance.sample(names, 2)}
    lost = chance.choice([None, *names])
    for name in names:
        path = tmp_path / "files" / name
        for _ in range(chance.randrange(3)):
            at = chance.randrange(path.stat().st_size)
            flip(path, at)
            hit = next(place for place in held if place.file == name and 0 <= at - place.offset < place.size)
            now = path.read_bytes()[hit.offset : hit.offset + hit.size]
            expected[hit] = held[hit] if now == held[hit] else "bad_checksum"
    for place in held:
        if place.file == lost or place.offset + place.size > cut.get(place.file, 1 << 40):
            expected[place] = "partial_read"
    for name, size in cut.items():
        path = tmp_path / "files" / name
        if size < path.stat().st_size:
            os.truncate(path, size)
    if lost is not None:
        (tmp_path / "files" / lost).unlink()
    damaged = {(place.file, place.offset, place.size) for place, what in expected.items() if isinstance(what, str)}
    with BlobFiles.open(tmp_path) as files:
        assert bool(files.recovered.short) == ("partial_read" in expected.values())
        found = files.scrub(1 << 30).damaged
        assert {(damage.file, damage.offset, damage.size) for damage in found} == damaged
        assert {place: outcome(files, place) for place in held} == expected
        files.set_epoch(files.epoch)
        for file, offset, size in damaged:
            assert any(
                each.file == file and each.offset < offset + size and each.offset + each.size > offset
                for each in files.damage()
            )
        assert len(files.check().problems) >= len(damaged)
        placed = files.append("a", b"it goes on")
        assert files.read(placed.file, 0, 10) == b"it goes on"


def test_the_scrubber_goes_on_where_it_ended(tmp_path: Path) -> None:
    held = filled(tmp_path)
    looked_at = steps = 0
    while True:
        with BlobFiles.open(tmp_path) as files:
            done = files.scrub(2_000)
        looked_at, steps = looked_at + done.chunks, steps + 1
        if done.finished:
            break
    assert looked_at == len(held)
    assert steps > 3


def test_the_very_bytes_heal_a_damaged_chunk(tmp_path: Path) -> None:
    held = filled(tmp_path, 4)
    place, data = next((place, data) for place, data in held.items() if place.size > 10)
    flip(tmp_path / "files" / place.file, place.offset + 3)
    with BlobFiles.open(tmp_path) as files:
        assert files.scrub().damaged[0].offset == place.offset
        with pytest.raises(BadChecksum):
            files.write(place.file, place.offset, data[:5])
        with pytest.raises((BadChecksum, AlreadyWritten)):
            files.write(place.file, place.offset, bytes(len(data)))
        files.set_epoch(0)
        assert len(files.damage()) == 1
        files.write(place.file, place.offset, data)
        assert files.read(place.file, place.offset, place.size) == data
        files.set_epoch(0)
        assert files.damage() == []
        assert files.check().problems == []


def test_damage_that_is_trimmed_is_forgotten(tmp_path: Path) -> None:
    held = filled(tmp_path, 4)
    place = next(place for place in held if place.size > 10)
    flip(tmp_path / "files" / place.file, place.offset + 3)
    with BlobFiles.open(tmp_path) as files:
        files.scrub()
        with pytest.raises(BadChecksum):
            files.trim(place.file, place.offset, 5)
        files.trim(place.file, place.offset, place.size)
        assert files.damage() == []
        assert files.check().problems == []


def test_a_file_that_is_put_back_is_whole_again(tmp_path: Path) -> None:
    held = filled(tmp_path)
    name = next(iter(held)).file
    path = tmp_path / "files" / name
    path.rename(tmp_path / "aside")
    with BlobFiles.open(tmp_path) as files:
        assert [damage.file for damage in files.damage()] == [name]
    shutil.move(tmp_path / "aside", path)
    with BlobFiles.open(tmp_path) as files:
        assert files.damage() == []
        assert {place: outcome(files, place) for place in held} == held


def test_what_is_not_ours_is_told_and_left(tmp_path: Path) -> None:
    filled(tmp_path, 4)
    stranger = tmp_path / "files" / "README"
    stranger.write_text("hello")
    with BlobFiles.open(tmp_path) as files:
        assert files.recovered.foreign == ["README"]
        assert [problem for problem in files.check().problems if "README" in problem] == files.check().problems
    assert stranger.read_text() == "hello"


def test_the_check_finds_an_index_that_does_not_agree_with_itself(tmp_path: Path) -> None:
    held = filled(tmp_path, 6)
    place = next(iter(held))
    with BlobFiles.open(tmp_path) as files:
        files._committer.call(
            lambda ledger: ledger.session.run("UPDATE files SET written = written + 1 WHERE name = ?", (place.file,))
        )
        assert ["its counts are" in problem for problem in files.check().problems] == [True]
        assert {row.state for row in files.checksum_list(place.file)} == {State.WRITTEN}


def test_a_step_of_the_scrubber_keeps_to_its_bytes(tmp_path: Path) -> None:
    with BlobFiles.open(tmp_path) as files:
        for _ in range(20):
            files.append_soon("a", bytes(100_000))
        files.append("a", b"last")
        steps = [files.scrub(250_000)]
        while not steps[-1].finished:
            steps.append(files.scrub(250_000))
        assert max(step.bytes for step in steps) <= 350_000
        assert sum(step.bytes for step in steps) == 2_000_004
