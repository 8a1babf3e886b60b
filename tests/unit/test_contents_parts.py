"""The parts of contents that can be looked at alone: names, headers, digests, suspicion, and what a URL may say."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds.blobs.contents import NAMES_MAX
from feeds.blobs.contents_suspects import Suspects
from feeds.blobs.hashing import PENDING_MAX, Digests, digests_of
from feeds.blobs.local_places import FILE_BYTES, Large, Small, parse, spans
from feeds.blobs.objects_format import (
    BLOCK_BYTES,
    HEADER_BYTES,
    SEGMENT_BYTES,
    header_of,
    id_of,
    key_of,
    place_of,
    read_header,
    segment_of,
)
from feeds.blobs.opening import open_contents
from feeds.errors import BadChecksum, BadRequest, SpileError, Unavailable

ID = "0123456789abcdef" * 2


@given(st.lists(st.binary(max_size=200_000), max_size=8))
def test_digests_are_those_of_all_pieces_in_order(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    assert digests_of(pieces) == (hashlib.sha256(data).digest(), hashlib.md5(data).digest())


def test_threads_for_digests_end() -> None:
    before = threading.active_count()
    finished, stopped = Digests(), Digests()
    for _ in range(3 * PENDING_MAX):
        finished.update(b"x" * 500_000)
        stopped.update(b"x" * 500_000)
    assert threading.active_count() == before + 4
    finished.finish()
    stopped.stop()
    assert threading.active_count() == before


def test_names_of_local_contents_read_back() -> None:
    for copy in (Small(f"small^{ID}^0", 17, 400), Large(ID)):
        assert parse(str(copy)) == copy


@pytest.mark.parametrize(
    "name",
    ["", "large^", f"large^{ID}^0", f"large^{ID}\n", f"small^{ID}^0", f"small^{ID}^0:-1:2", f"../small^{ID}^0:1:2"],
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="names no content"):
        parse(name)


@given(st.integers(0, 5 * FILE_BYTES), st.integers(0, 3 * FILE_BYTES))
def test_ranges_of_a_large_content_follow_each_other(offset: int, length: int) -> None:
    found = spans(Large(ID), offset, length)
    assert sum(size for _, _, size in found) == length
    at = offset
    for file, inner, size in found:
        assert file == f"large^{ID}^{at // FILE_BYTES}"
        assert inner == at % FILE_BYTES
        assert 0 < size <= FILE_BYTES - inner
        at += size


@given(st.binary(max_size=100), st.integers(0, 8 * BLOCK_BYTES - 100), st.integers(0, 10**6))
def test_headers_of_objects_read_back(data: bytes, more: int, at: int) -> None:
    header = header_of(ID, at, [data, bytes(more)])
    packed = header.pack()
    assert len(packed) == HEADER_BYTES
    assert read_header(packed, ID, at) == header
    assert sum(header.block(number) for number in range(len(header.sums))) == len(data) + more


@given(st.lists(st.integers(0, BLOCK_BYTES), max_size=8))
def test_the_header_of_a_segment_does_not_depend_on_how_it_came(sizes: list[int]) -> None:
    data = bytes(range(251)) * (sum(sizes) // 251 + 1)
    ends = [sum(sizes[: at + 1]) for at in range(len(sizes))]
    pieces = [data[end - size : end] for size, end in zip(sizes, ends, strict=True)]
    assert header_of(ID, 0, pieces) == header_of(ID, 0, [data[: sum(sizes)]])


@given(st.integers(0, HEADER_BYTES - 1), st.integers(1, 255))
def test_a_damaged_header_is_seen(at: int, change: int) -> None:
    packed = bytearray(header_of(ID, 3, [b"data"]).pack())
    packed[at] ^= change
    with pytest.raises(BadChecksum, match="damaged"):
        read_header(bytes(packed), ID, 3)


def test_an_object_in_the_wrong_place_is_seen() -> None:
    packed = header_of(ID, 3, [b"data"]).pack()
    for id, at in ((ID, 4), ("0" * 32, 3)):
        with pytest.raises(BadChecksum, match="Another object"):
            read_header(packed, id, at)


def test_keys_of_objects_read_back() -> None:
    assert id_of(place_of(ID)) == ID
    assert segment_of(key_of(ID, 17)) == (ID, 17, False)
    assert segment_of(key_of(ID, 17, SEGMENT_BYTES - 1)) == (ID, 17, True)
    for key in ("identity", "objects/01/x", f"objects/{ID}", f"objects/01/{ID[2:]}/x", f"making/{ID}"):
        assert segment_of(key) is None


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_nobodys_is_what_nobody_knew_of_twice_with_time_in_between() -> None:
    clock = Clock()
    suspects = Suspects(clock)
    copies = [("kept", 1), ("left", 1), ("told late", 1)]
    told = {"kept"}

    def look(*more: tuple[str, int]) -> list[str]:
        return suspects.look([*copies, *more], lambda names: told.intersection(names), 10)

    assert look() == []
    clock.now += 9
    assert look(("new", 1)) == []
    told.add("told late")
    clock.now += 1
    assert look(("new", 1)) == ["left"]
    clock.now += 9
    assert look(("new", 2)) == ["left"], "what has grown is somebody's"
    clock.now += 9
    assert look(("new", 2)) == ["left"]
    clock.now += 1
    assert set(look(("new", 2))) == {"left", "new"}


def test_names_are_asked_about_in_bounded_pages() -> None:
    asked: list[int] = []

    def known(names: Sequence[str]) -> set[str]:
        asked.append(len(names))
        return set(names)

    Suspects().look(((str(at), 1) for at in range(2 * NAMES_MAX + 1)), known, 0)
    assert asked == [NAMES_MAX, NAMES_MAX, 1]


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("ftp://host/x", "'ftp'"),
        ("s3://", "needs a bucket"),
        ("s3://bucket?colour=red", "no option 'colour'"),
        ("s3://bucket?endpoint=host:9000", "endpoint"),
        ("s3://bucket?path_style=maybe", "path_style"),
        ("s3://key:secret@bucket/x", "user or password"),
        ("s3://bucket?endpoint=http://key:secret@host", "endpoint"),
        ("file://", "absolute path"),
        ("file:///", "absolute path"),
        ("file://elsewhere/x", "absolute path"),
        ("s3://[/x", "cannot be read"),
    ],
)
def test_a_url_that_cannot_be_is_refused_without_its_secrets(where: str, told: str) -> None:
    with pytest.raises(BadRequest, match=told) as refused:
        open_contents(where)
    assert "secret" not in str(refused.value.as_dict())


def test_the_missing_package_is_named(tmp_path: Path) -> None:
    # A process of its own, in which the package is not to be found.
    program = (
        "import sys; sys.modules['obstore'] = None\n"
        "from feeds.blobs.opening import open_contents\n"
        "try: open_contents('s3://bucket')\n"
        "except Exception as error: print(type(error).__name__, error.reason, error.hint)\n"
    )
    root = Path(__file__).parents[2]
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=root, check=True
    ).stdout
    assert told.startswith("Unavailable The package obstore is not installed")
    assert "spile[objects]" in told


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for where in (f"file://{tmp_path}/file/x", str(tmp_path / "file" / "x")):
        with pytest.raises(SpileError):
            open_contents(where)
    with pytest.raises(Unavailable):
        open_contents(f"file://{tmp_path}/file")
