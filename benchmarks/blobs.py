"""Blob files, and contents on them: one stream, small appends, and reading, beside bare files in the same run."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

from benchmarks.measuring import arguments, folder, median_of, report, syncs_per_second
from feeds.blobs import BlobFiles
from feeds.blobs.local import LocalContents

MIB = 1024 * 1024
SMALL = 4096
WRITERS = 32

ASKED = {
    "write_to_bare_file": 0.6,
    "read_to_slower_of_sha256_and_bare": 0.6,
    "appends_4k_per_s_32_writers": 5_000,
    "content_write_to_bare_file": 0.6,
    "content_write_to_slower_of_digests_and_bare": None,
    "content_read_to_slower_of_sha256_and_bare": 0.6,
}


def touch_memory(place: Path, piece: bytes, mib: int) -> None:
    """Write so much to a file and drop it: on virtual machines pages of the cache that were never used cost up to
    eight times the system's time, and whoever of those compared came to them first would pay for it."""
    bare_write(place / "touched", piece, mib)
    (place / "touched").unlink()


def bare_write(path: Path, piece: bytes, mib: int) -> float:
    """MiB a second of a new file that is written and then synced."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    began = time.perf_counter()
    for _ in range(mib):
        os.write(fd, piece)
    os.fdatasync(fd)
    elapsed = time.perf_counter() - began
    os.close(fd)
    return mib / elapsed


def stream(files: BlobFiles, piece: bytes, mib: int) -> tuple[float, str]:
    """MiB a second of the same bytes in one stream of durable chunks, and the file they went to."""
    began = time.perf_counter()
    room = files.reserve("stream", mib * MIB)
    last = [files.write_soon(room.file, room.offset + at * MIB, piece) for at in range(mib)]
    for each in last:
        each.result()
    return mib / (time.perf_counter() - began), room.file


def small_appends(files: BlobFiles, count: int) -> float:
    """Durable appends of 4 KiB a second, of 32 threads that each wait for theirs."""
    piece = os.urandom(SMALL)
    each = count // WRITERS

    def write() -> None:
        for _ in range(each):
            files.append("small", piece)

    threads = [threading.Thread(target=write) for _ in range(WRITERS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return each * WRITERS / (time.perf_counter() - began)


def bare_read(path: Path) -> float:
    """MiB a second of reading a file in pieces of a MiB."""
    began = time.perf_counter()
    size = 0
    with path.open("rb", buffering=0) as file:
        while data := file.read(MIB):
            size += len(data)
    return size / MIB / (time.perf_counter() - began)


def sha256(path: Path) -> float:
    """MiB a second of what `sha256sum` does."""
    began = time.perf_counter()
    with path.open("rb") as file:
        hashlib.file_digest(file, "sha256")
    return path.stat().st_size / MIB / (time.perf_counter() - began)


def read(files: BlobFiles, name: str, size: int) -> float:
    """MiB a second of verified pieces."""
    began = time.perf_counter()
    got = sum(len(piece) for piece in files.pieces(name, 0, size))
    assert got == size
    return size / MIB / (time.perf_counter() - began)


def digests(piece: bytes, mib: int) -> float:
    """MiB a second of sha256 and md5 over the same bytes, each on a thread of its own, and nothing else."""

    def work_out(name: str) -> None:
        digest = hashlib.new(name)
        for _ in range(mib):
            digest.update(piece)

    threads = [threading.Thread(target=work_out, args=(name,)) for name in ("sha256", "md5")]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return mib / (time.perf_counter() - began)


def content(contents: LocalContents, piece: bytes, mib: int) -> tuple[float, float]:
    """MiB a second of the same bytes as a content, whose sha256 and md5 are worked out; and of reading it again."""
    began = time.perf_counter()
    with contents.begin(mib * MIB) as incoming:
        for _ in range(mib):
            incoming.write(piece)
        stored = incoming.finish()
    written = mib / (time.perf_counter() - began)
    began = time.perf_counter()
    got = sum(len(data) for data in contents.read(stored.place, 0, stored.length))
    assert got == mib * MIB
    return written, mib / (time.perf_counter() - began)


def measure(mib: int, appends: int) -> dict[str, float]:
    """All figures once."""
    piece = os.urandom(MIB)
    with folder() as place, BlobFiles.open(place / "blobs") as files:
        touch_memory(place, piece, 4 * mib)
        before = bare_write(place / "bare", piece, mib)
        written, name = stream(files, piece, mib)
        after = bare_write(place / "bare-after", piece, mib)
        bare = (before + after) / 2
        plain, hashed = bare_read(place / "bare"), sha256(place / "bare")
        verified = read(files, name, mib * MIB)
        both = digests(piece, mib)
        stored, fetched = content(LocalContents(files, place), piece, mib)
        return {
            "bare_write_mib_per_s": bare,
            "write_mib_per_s": written,
            "write_to_bare_file": written / bare,
            "bare_read_mib_per_s": plain,
            "sha256_mib_per_s": hashed,
            "read_mib_per_s": verified,
            "read_to_slower_of_sha256_and_bare": verified / min(plain, hashed),
            "content_write_mib_per_s": stored,
            "digests_mib_per_s": both,
            "content_write_to_bare_file": stored / bare,
            "content_write_to_slower_of_digests_and_bare": stored / min(bare, both),
            "content_read_mib_per_s": fetched,
            "content_read_to_slower_of_sha256_and_bare": fetched / min(plain, hashed),
            "appends_4k_per_s_32_writers": small_appends(files, appends),
            "syncs_per_s": syncs_per_second(place),
        }


def main() -> None:
    """Run it."""
    options = arguments(__doc__ or "", runs=3, mib=1_024, appends=32_000)
    report("blobs", median_of(options.runs, lambda: measure(options.mib, options.appends)), ASKED)


if __name__ == "__main__":
    main()
