"""The place of contents is away, or cannot be looked into: that is told, and nothing is taken for damaged or gone."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from attachment_tools import HOUR, opened, settle
from running import until
from store_tools import Clock, count, refusal

from broker.contents import ContentsPart
from feeds import Store
from feeds.blobs.objects import ObjectContents
from feeds.blobs.objects_folder import Folder
from feeds.errors import Unavailable


class Away(Folder):
    """A directory that can be away."""

    is_away = False

    def stream(self, key: str, start: int, end: int) -> Iterator[bytes]:
        if self.is_away:
            raise Unavailable("The directory is away")
        return super().stream(key, start, end)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_folder_of_objects_that_cannot_be_listed_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert list(folder.list("objects/ab/none")) == []
    (tmp_path / "objects" / "ab").mkdir(parents=True)
    loop = tmp_path / "objects" / "ab" / "loop"
    loop.symlink_to(loop)
    assert isinstance(refusal(lambda: list(folder.list("objects/ab/loop"))), Unavailable)


def test_a_backup_fails_while_the_contents_are_away(tmp_path: Path) -> None:
    bucket = Away(tmp_path / "contents")
    contents = ObjectContents(bucket)
    with opened(str(tmp_path / "store"), contents) as store:  # type: ignore[arg-type]
        store.create("geo").attach("x", "f", b"f")
        bucket.is_away = True
        assert isinstance(refusal(lambda: store.backup(tmp_path / "backup")), Unavailable)
        assert not (tmp_path / "backup").exists()
        bucket.is_away = False
        assert store.backup(tmp_path / "backup").damaged == []
    contents.close()


def test_a_backup_beside_a_service_fails_where_the_contents_may_not_be_read(tmp_path: Path) -> None:
    with opened(str(tmp_path / "store"), tmp_path / "store" / "blobs") as store:
        store.create("geo").attach("x", "f", b"f")
        (file,) = (tmp_path / "store" / "blobs" / "files").iterdir()
        kept = file.rename(tmp_path / "kept")
        file.mkdir()
        assert isinstance(refusal(lambda: Store.backup_of(tmp_path / "store", tmp_path / "backup")), Unavailable)
        file.rmdir()
        kept.rename(file)
        assert Store.backup_of(tmp_path / "store", tmp_path / "backup").damaged == []


def test_copies_stay_while_it_cannot_be_known_who_needs_them(tmp_path: Path, clock: Clock) -> None:
    with opened(str(tmp_path / "store"), tmp_path / "contents", clock) as store:
        geo = store.create("geo")
        geo.attach("x", "f", b"f")
        geo.detach("x", "f")
        store.compact("geo")
        hold = tmp_path / "contents" / "hold"
        hold.unlink(missing_ok=True)
        hold.mkdir()
        clock.now += 2 * HOUR
        store.collect()
        clock.now += 2 * HOUR
        assert isinstance(refusal(store.collect), Unavailable)
        hold.rmdir()
        settle(store, clock)
        assert count(store, "blob_trash") == 0


def test_leftovers_are_looked_for_after_the_clock_was_set_back(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(str(tmp_path / "store"), tmp_path / "contents", clock) as store:
        store.create("geo").attach("x", "f", b"f")
        looks: list[float] = []
        monkeypatch.setattr(store.blobs.contents, "leftovers", lambda known: looks.append(clock.now) or 0)
        clock.now += 2 * HOUR
        store.blobs.round()
        clock.now -= 1_000 * HOUR
        store.blobs.round()
        store.blobs.round()
        assert len(looks) == 2


async def test_upkeep_goes_on_after_the_folder_could_not_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(str(tmp_path / "store"), tmp_path / "contents") as store:
        store.create("geo").attach("x", "f", b"f")
        looks = 0
        real = shutil.disk_usage

        def failing(path: Path) -> object:
            nonlocal looks
            looks += 1
            if looks < 3:
                raise OSError(5, "Input/output error")
            return real(path)

        monkeypatch.setattr(shutil, "disk_usage", failing)
        part = ContentsPart(store, tmp_path / "contents", 0.05, 1 << 20)
        try:
            await asyncio.to_thread(until, lambda: part.stats().get("free_bytes"))
            assert not part.task.done()
        finally:
            await part.stop()
