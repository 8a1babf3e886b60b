"""Opening inputs: unpacking, telling formats, counting bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import threading
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from broker.cli.inputs import BrokenInput
from broker.cli.sources import Format, check_files, open_source, size_bytes
from feeds.errors import BadRequest, NotFound

NDJSON = b'{"a":1}\n{"a":2}\n'
LINES = b"".join(b'{"n":"%b"}\n' % sha256(b"%d" % number).hexdigest().encode() for number in range(5000))
"""So little alike that packing cannot make it small."""


def read(path: Path, form: Format | None = None) -> tuple[Format, list[object]]:
    with open_source(str(path), form) as source:
        return source.format, [json.loads(piece.raw) for piece in source.pieces()]


@pytest.mark.parametrize(
    ("name", "data", "form"),
    [
        ("x.ndjson", NDJSON, Format.NDJSON),
        ("x", NDJSON, Format.NDJSON),
        ("x.csv", NDJSON, Format.NDJSON),
        ("x.json", b'[{"a":1},{"a":2}]', Format.JSON),
        ("x", b'\xef\xbb\xbf \n[{"a":1},\n{"a":2}]', Format.JSON),
        ("x.json", b'{\n "a":1\n}\n{\n "a":2\n}', Format.JSON),
        ("x.csv", b"a\n1\n2\n", Format.CSV),
        ("x", b"a,b\n1,\n2,\n", Format.CSV),
        ("x.tsv", b"a\tb\n1\t\n2\t\n", Format.CSV),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress, bz2.compress])
def test_format_and_packing_are_told_by_content(
    tmp_path: Path, name: str, data: bytes, form: Format, pack: object
) -> None:
    path = tmp_path / name
    path.write_bytes(pack(data))  # type: ignore[operator]
    assert read(path) == (form, [{"a": 1}, {"a": 2}])


def test_an_empty_file_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.write_bytes(b"")
    assert read(path)[1] == []


def test_a_format_that_was_asked_for_is_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "words"
    path.write_bytes(b"word\none\n")
    assert read(path, Format.CSV) == (Format.CSV, [{"word": "one"}])
    with pytest.raises(BadRequest, match="neither JSON nor"):
        read(path)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (bytes((*gzip.compress(LINES)[:4000], 0, 0, *gzip.compress(LINES)[4002:])), "x.ndjson is damaged"),
        (bytes((*lzma.compress(LINES)[:4000], 0, 0, *lzma.compress(LINES)[4002:])), "x.ndjson is damaged"),
        (b"BZh9" + b"0" * 50, "x.ndjson is damaged"),
        ('{"a":1}'.encode("utf-16"), "not UTF-8"),
        (b"\x28\xb5\x2f\xfd" + b"0" * 50, "zstd"),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_it_is(tmp_path: Path, data: bytes, told: str) -> None:
    path = tmp_path / "x.ndjson"
    path.write_bytes(data)
    with pytest.raises(BadRequest, match=told):
        read(path)


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, partial(bz2.compress, compresslevel=1)])
def test_a_packed_file_that_ends_early_gives_what_it_holds_and_is_named(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "x.ndjson"
    packed = pack(LINES)
    path.write_bytes(packed[: len(packed) * 9 // 10])
    read_before = 0
    with open_source(str(path)) as source, pytest.raises(BrokenInput, match=r"x\.ndjson ends early"):
        for _ in source.pieces():
            read_before += 1
    assert read_before > 3000


def test_standard_input_is_named_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    with io.TextIOWrapper(io.BytesIO(gzip.compress(LINES)[:500])) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        with pytest.raises(BrokenInput, match="standard input ends early"):
            read(Path("-"))


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"x\.json is not there"):
        read(tmp_path / "x.json")
    with pytest.raises(BadRequest, match="cannot be read"):
        read(tmp_path)


def test_files_are_looked_for_before_anything_is_read(tmp_path: Path) -> None:
    here = tmp_path / "here.json"
    here.write_text("[]")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    check_files([str(here), "-", str(pipe), "/dev/null"])
    with pytest.raises(NotFound, match=r"x\.json is not there"):
        check_files([str(here), str(tmp_path / "x.json")])
    with pytest.raises(BadRequest, match="cannot be read"):
        check_files([str(tmp_path)])


def test_bytes_are_counted_as_packed(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(NDJSON * 50_000))
    with open_source(str(path)) as source:
        assert sum(1 for _ in source.pieces()) == 100_000
        assert source.taken_bytes == path.stat().st_size == size_bytes([str(path)])
    assert size_bytes([str(path), "-"]) is None


def test_standard_input_may_come_byte_by_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb", buffering=0) as pipe:
            for byte in b'{"a":1}\n{"a":2}\n':
                pipe.write(bytes((byte,)))

    writer = threading.Thread(target=write, name="writer")
    writer.start()
    with io.TextIOWrapper(os.fdopen(reading, "rb")) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert read(Path("-")) == (Format.NDJSON, [{"a": 1}, {"a": 2}])
    writer.join()
