"""What may happen to contents: a process killed in the middle of an upload, a full disk, a store that is away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import pytest
from contents_tools import KINDS, MIB, feed, got, is_of, make_place, put, some, stream, swept
from disks import Ballast, small_disk
from object_stores import BUCKET, ObjectStore, keys_in_environment, object_store
from running import clean_environment, until

from feeds.blobs.contents import Contents
from feeds.blobs.local import LocalContents
from feeds.blobs.objects import ObjectContents
from feeds.blobs.objects_format import folder_of, id_of
from feeds.blobs.objects_s3 import Patience, S3Address, S3Bucket
from feeds.blobs.opening import open_contents
from feeds.errors import Conflict, Damaged, StorageFull, Unavailable

HASTY = Patience(retrying_s=1.0)  # with a store that is not there
VERY_HASTY = Patience(request_s=3.0, answer_s=1.0, retrying_s=1.0)  # with one that says nothing
SLOW_READER = Patience(request_s=3.0)
TOOLS = Path(__file__).parents[1] / "tools"
UPLOAD, MEMORY = TOOLS / "dying_upload.py", TOOLS / "flat_memory.py"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with object_store(tmp_path_factory.mktemp("moto") / "log") as store, keys_in_environment():
        yield store


@pytest.fixture
def opened(server: ObjectStore) -> Iterator[Callable[[Patience], Contents]]:
    """Opens the contents of a test in S3, behind the proxy, with so much patience."""
    address = S3Address(BUCKET, f"far/{uuid4().hex}", f"http://127.0.0.1:{server.proxy.port}", "us-east-1")
    made: list[Contents] = []

    def opening(patience: Patience) -> Contents:
        made.append(ObjectContents(S3Bucket(address, patience)))
        return made[-1]

    yield opening
    server.proxy.heal()
    for each in made:
        each.close()


@pytest.fixture
def far(opened: Callable[[Patience], Contents]) -> Contents:
    """Contents in S3 behind a proxy."""
    return opened(Patience())


@pytest.fixture
def hasty(far: Contents, opened: Callable[[Patience], Contents]) -> Contents:
    """The same, with little patience."""
    return opened(HASTY)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("more", [0, 3, 19])
def test_an_upload_goes_on_after_its_process_was_killed(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, more: int
) -> None:
    place = make_place(kind, tmp_path, request.getfixturevalue("server") if kind == "s3" else None)
    environment = clean_environment()
    process = subprocess.Popen(
        [sys.executable, UPLOAD, place.where], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        state = process.stdout.readline().strip()
        durable = int(process.stdout.readline())
        for _ in range(more):
            assert process.stdout.readline() == "more\n"
    finally:
        process.kill()
        process.communicate()
    contents = open_contents(place.where)
    # What was made durable is there; what was on its way may be. A directory may have objects that were being made.
    assert swept(contents, state) <= (2 if kind == "folder" else 0)
    incoming = contents.resume(state)
    assert durable <= incoming.size <= durable + 20 * (MIB + 17)
    size = 37 * MIB + 5
    feed(incoming, stream(incoming.size, size - incoming.size))
    stored = incoming.finish()
    data = stream(0, size)
    assert is_of(stored, data)
    assert got(contents, stored) == data
    assert swept(contents) == 1, "nobody knows of it any more"
    contents.close()


@pytest.mark.parametrize(("kind", "mib"), [("local", 256), ("folder", 256), ("s3", 128)])
def test_memory_stays_flat_however_large_a_content_is(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, mib: int
) -> None:
    # With 2048 MiB it is the same.
    place = make_place(kind, tmp_path, request.getfixturevalue("server") if kind == "s3" else None)
    done = subprocess.run(
        [sys.executable, MEMORY, place.where, str(mib)], capture_output=True, check=True, env=clean_environment()
    )
    told = json.loads(done.stdout)
    assert told["same"]
    assert told["in_mib"] < 64 and told["out_mib"] < 64, told


@pytest.mark.parametrize("kind", ["local", "folder"])
def test_a_full_disk_is_told_and_harms_nothing(tmp_path: Path, kind: str) -> None:
    with small_disk(tmp_path / "disk", 48) as disk:
        place = make_place(kind, disk, None)
        contents = open_contents(place.where)
        kept = put(contents, some(3 * MIB))
        resumable = contents.begin()
        feed(resumable, some(10 * MIB))
        resumable.suspend()
        ballast = Ballast(disk)
        ballast.grow()
        for size in (100_000, 12 * MIB):
            with pytest.raises(StorageFull):
                put(contents, some(size))
        incoming = contents.resume(resumable.state)
        with pytest.raises(StorageFull):
            feed(incoming, stream(incoming.size, 20 * MIB))
            incoming.suspend()
        with pytest.raises(RuntimeError, match="broken"):
            incoming.write(b"more")
        assert incoming.suspend() == resumable.state
        assert got(contents, kept) == some(3 * MIB)
        ballast.drop()
        assert got(contents, put(contents, some(12 * MIB))) == some(12 * MIB)
        contents.close()
        contents = open_contents(place.where)
        assert got(contents, kept) == some(3 * MIB)
        incoming = contents.resume(resumable.state)
        assert incoming.size >= 10 * MIB
        incoming.abort()
        swept(contents, kept.place)
        contents.close()


def test_a_store_that_is_away_is_told_and_found_again(server: ObjectStore, far: Contents, hasty: Contents) -> None:
    kept = put(far, some(9 * MIB))
    incoming = hasty.begin()
    feed(incoming, some(9 * MIB))
    server.proxy.refuse()
    server.proxy.reset()
    with pytest.raises(Unavailable, match="cannot be reached") as refused:
        put(hasty, some(10))
    assert "test-secret-key" not in str(refused.value.as_dict())
    for act in (lambda: got(hasty, kept), lambda: hasty.remove(kept.place), lambda: swept(hasty)):
        with pytest.raises(Unavailable):
            act()
    with pytest.raises(Unavailable):
        feed(incoming, some(30 * MIB))
    incoming.suspend()
    server.proxy.heal()
    assert got(far, kept) == some(9 * MIB)
    again = far.resume(incoming.state)
    assert again.size in (0, 8 * MIB)
    feed(again, some(9 * MIB)[again.size :])
    assert is_of(again.finish(), some(9 * MIB))


def test_a_store_that_is_silent_is_not_waited_for_without_end(
    server: ObjectStore, far: Contents, opened: Callable[[Patience], Contents]
) -> None:
    kept = put(far, some(10))
    hasty = opened(VERY_HASTY)
    server.proxy.black_hole()
    for act in (lambda: got(hasty, kept), lambda: put(hasty, some(10))):
        with pytest.raises(Unavailable, match="cannot be reached"):
            act()
    server.proxy.heal()
    assert got(far, kept) == some(10)


@pytest.mark.parametrize("after", [100, 5 * MIB, 12 * MIB])
def test_a_connection_that_breaks_is_not_noticed_by_a_reader(server: ObjectStore, far: Contents, after: int) -> None:
    stored = put(far, some(17 * MIB))
    server.proxy.cut_after(after)
    cuts = server.proxy.cuts
    assert got(far, stored) == some(17 * MIB)
    assert server.proxy.cuts == cuts + 1


def test_a_reader_may_be_slower_than_a_request(far: Contents, opened: Callable[[Patience], Contents]) -> None:
    stored = put(far, some(9 * MIB))
    pieces = opened(SLOW_READER).read(stored.place, 0, stored.length)
    found = [next(pieces)]
    over = time.monotonic() + SLOW_READER.request_s
    until(lambda: time.monotonic() > over, "the end of the request that is read from")
    found += pieces
    assert b"".join(found) == some(9 * MIB)


@pytest.mark.parametrize(("way", "after"), [("up", 3 * MIB), ("down", 10)])
def test_a_put_whose_answer_is_lost_is_done_once(server: ObjectStore, far: Contents, way: str, after: int) -> None:
    incoming = far.begin()
    feed(incoming, some(7 * MIB))
    server.proxy.reset()
    server.proxy.cut_after(after, "up" if way == "up" else "down")
    cuts = server.proxy.cuts
    stored = incoming.finish()
    assert server.proxy.cuts == cuts + 1
    assert got(far, stored) == some(7 * MIB)


def test_a_copy_is_not_made_by_two_processes(server: ObjectStore) -> None:
    url = server.url(f"two/{uuid4().hex}")
    one, other = open_contents(url), open_contents(url)
    assert one.identity == other.identity
    first = one.begin()
    second = other.resume(first.state)
    feed(first, some(7 * MIB))
    feed(second, some(7 * MIB, seed=2))
    stored = first.finish()
    with pytest.raises(Conflict, match="another process"):
        second.finish()
    second.suspend()
    assert got(other, stored) == some(7 * MIB)
    one.close()
    other.close()


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_processes_that_begin_at_once_agree_who_the_contents_are(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    place = make_place(kind, tmp_path, request.getfixturevalue("server") if kind == "s3" else None)
    with ThreadPoolExecutor(8) as threads:
        opened = list(threads.map(lambda _: open_contents(place.where), range(8)))
    assert len({each.identity for each in opened}) == 1
    for each in opened:
        each.close()


def test_what_a_crash_left_of_an_object_is_a_leftover(tmp_path: Path) -> None:
    contents = open_contents(f"file://{tmp_path}")
    (tmp_path / "making" / ("a" * 32)).write_bytes(b"half of it")
    assert swept(contents) == 1
    assert list((tmp_path / "making").iterdir()) == []
    contents.close()


def test_wrong_keys_are_named_and_not_shown(tmp_path: Path) -> None:
    with object_store(tmp_path / "log", INITIAL_NO_AUTH_ACTION_COUNT="1") as store:
        keys = {"AWS_ACCESS_KEY_ID": "AKIAWRONGWRONG", "AWS_SECRET_ACCESS_KEY": "wrong-secret", "AWS_REGION": "x"}
        with keys_in_environment(**keys), pytest.raises(Unavailable, match="refuses the credentials") as refused:
            open_contents(store.url("p"))
    told = str(refused.value.as_dict()) + str(refused.value)
    assert "InvalidAccessKeyId" in told and "AWS_ACCESS_KEY_ID" in told
    assert "wrong-secret" not in told and "AKIAWRONGWRONG" not in told
    assert refused.value.__suppress_context__


def test_a_bucket_that_is_not_there_is_named(server: ObjectStore) -> None:
    with pytest.raises(Unavailable, match="no bucket for s3://nowhere/p at http"):
        open_contents(server.url("p", bucket="nowhere"))


def test_no_server_is_told_at_once(server: ObjectStore) -> None:
    with pytest.raises(Unavailable, match="cannot be reached: Connection refused"):
        open_contents(f"s3://{BUCKET}/p?endpoint={quote('http://127.0.0.1:9', safe='')}")


def test_a_prefix_that_another_program_uses_is_left_alone(server: ObjectStore) -> None:
    prefix = f"taken/{uuid4().hex}"
    bucket = S3Bucket(S3Address(BUCKET, prefix, f"http://127.0.0.1:{server.port}"))
    bucket.make("identity", [b"not ours"])
    with pytest.raises(Damaged, match="not one that Spile made"):
        open_contents(server.url(prefix))


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_an_upload_with_a_gap_goes_on_before_it_with_whatever_comes(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    place = make_place(kind, tmp_path, request.getfixturevalue("server") if kind == "s3" else None)
    contents = open_contents(place.where)
    incoming = contents.begin()
    feed(incoming, some(25 * MIB))
    incoming.suspend()
    place.lose(incoming.state, 9 * MIB)  # as where one put failed, and a later one did not
    again = contents.resume(incoming.state)
    assert again.size == 8 * MIB
    data = some(25 * MIB)[: 8 * MIB] + some(18 * MIB, seed=2)
    feed(again, data[8 * MIB :])
    stored = again.finish()
    assert is_of(stored, data)
    assert got(contents, stored) == data
    contents.close()


@pytest.mark.parametrize("offset", [4 * MIB, 3 * MIB + 100, 5 * MIB + 77])
def test_what_was_written_behind_a_gap_may_come_again(tmp_path: Path, offset: int) -> None:
    data = some(9 * MIB)
    contents = LocalContents.open(tmp_path)
    incoming = contents.begin()
    feed(incoming, data[: 3 * MIB])
    incoming.suspend()
    contents.files.write(f"{incoming.state}^0", offset, data[offset : offset + 50_000])
    again = contents.resume(incoming.state)
    assert again.size == 3 * MIB
    feed(again, data[3 * MIB :])
    stored = again.finish()
    assert is_of(stored, data)
    assert got(contents, stored) == data
    contents.close()


def test_an_object_and_its_folders_are_synced_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = open_contents(f"file://{tmp_path}")
    synced: list[Path] = []
    sync = os.fsync

    def watched(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    stored = put(contents, some(10))
    folder = tmp_path / folder_of(id_of(stored.place))
    assert [each.parent.name for each in synced[:1]] == ["making"]
    assert synced[1:] == [tmp_path, tmp_path / "objects", folder.parent, folder]
    contents.close()
