"""The kinds of contents, each with what a test does to it behind its back."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import obstore
from object_stores import BUCKET, ObjectStore
from obstore.store import S3Store

from feeds.blobs.contents import Contents, Incoming, Stored
from feeds.blobs.local_places import Small, parse
from feeds.blobs.objects_format import HEADER_BYTES, SEGMENT_BYTES, id_of, key_of
from feeds.blobs.opening import open_contents

KINDS = ("local", "folder", "s3")
MIB = 1024 * 1024
_STRIDE = 4096


class Place(Protocol):
    """Where contents are kept: opened again and again, and harmed."""

    where: str

    def flip(self, name: str, offset: int) -> None:
        """Change a byte of a copy."""

    def lose(self, name: str, offset: int) -> None:
        """Take away whatever holds this byte of a copy."""


class Local:
    def __init__(self, folder: Path) -> None:
        self.where = str(folder)

    def flip(self, name: str, offset: int) -> None:
        path, start = self._stands(name)
        _flip(path, start + offset)

    def lose(self, name: str, offset: int) -> None:
        self._stands(name)[0].unlink()

    def _stands(self, name: str) -> tuple[Path, int]:
        copy = parse(name)
        file, offset = (copy.file, copy.offset) if isinstance(copy, Small) else (copy.file(0), 0)
        return Path(self.where, "files", file), offset


class Directory:
    def __init__(self, folder: Path) -> None:
        self.where = f"file://{folder}"
        self._folder = folder

    def flip(self, name: str, offset: int) -> None:
        at, inner = divmod(offset, SEGMENT_BYTES)
        _flip(self._folder / key_of(id_of(name), at), HEADER_BYTES + inner)

    def lose(self, name: str, offset: int) -> None:
        (self._folder / key_of(id_of(name), offset // SEGMENT_BYTES)).unlink()


class S3:
    def __init__(self, store: ObjectStore, *, direct: bool = True) -> None:
        prefix = f"test/{uuid4().hex}"
        self.where = store.url(prefix, direct=direct)
        options = {"endpoint": f"http://127.0.0.1:{store.port}", "client_options": {"allow_http": True}}
        self._objects = S3Store(BUCKET, prefix=prefix, **options)

    def flip(self, name: str, offset: int) -> None:
        at, inner = divmod(offset, SEGMENT_BYTES)
        key = key_of(id_of(name), at)
        data = bytearray(bytes(obstore.get(self._objects, key).bytes()))
        data[HEADER_BYTES + inner] ^= 1
        obstore.put(self._objects, key, bytes(data))

    def lose(self, name: str, offset: int) -> None:
        obstore.delete(self._objects, key_of(id_of(name), offset // SEGMENT_BYTES))


def make_place(kind: str, folder: Path, store: ObjectStore | None) -> Place:
    """A new place of this kind; that of `s3` is in this store."""
    if kind == "local":
        return Local(folder / "blobs")
    if kind == "folder":
        return Directory(folder / "objects")
    assert store is not None, f"{BUCKET} needs a server"
    return S3(store)


def some(size: int, seed: int = 1) -> bytes:
    """So many bytes, which do not repeat."""
    return random.Random(f"{seed} {size}").randbytes(size)


def put(contents: Contents, data: bytes, *, step: int = 300_000) -> Stored:
    """A content stored, written in steps of so many bytes."""
    with contents.begin() as incoming:
        feed(incoming, data, step=step)
        return incoming.finish()


def feed(incoming: Incoming, data: bytes, *, step: int = 300_000) -> None:
    """Write all of it in steps, from a buffer that is used again."""
    for at in range(0, len(data), step):
        buffer = bytearray(data[at : at + step])
        incoming.write(buffer)
        buffer[:] = bytes(len(buffer))


def got(contents: Contents, stored: Stored) -> bytes:
    """All of a content."""
    return b"".join(contents.read(stored.place, 0, stored.length))


def is_of(stored: Stored, data: bytes) -> bool:
    """Whether what is told of a copy is so for these bytes."""
    digests = (hashlib.sha256(data).digest(), hashlib.md5(data).digest())
    return (stored.length, stored.sha256, stored.md5) == (len(data), *digests)


def nobody(names: Iterable[str]) -> set[str]:
    """Of these, nobody knows any."""
    return set()


def swept(contents: Contents, *known: str) -> int:
    """How many leftovers there were, when only these names are known."""
    first = contents.leftovers(lambda names: set(known).intersection(names), left_s=0)
    assert first == 0, "what was never looked at before was removed"
    return contents.leftovers(lambda names: set(known).intersection(names), left_s=0)


def reopened(contents: Contents, place: Place) -> Contents:
    """The same contents in their next run."""
    contents.close()
    return open_contents(place.where)


def _flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        found = os.pread(file.fileno(), 1, at)
        os.pwrite(file.fileno(), bytes([found[0] ^ 1]), at)


def stream(at: int, size: int) -> bytes:
    """A range of bytes without end, the same ones each time."""
    first, last = at // _STRIDE, (at + size) // _STRIDE
    made = b"".join(random.Random(number).randbytes(_STRIDE) for number in range(first, last + 1))
    return made[at - first * _STRIDE : at - first * _STRIDE + size]
