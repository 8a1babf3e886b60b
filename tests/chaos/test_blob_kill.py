"""A process with 32 writers of blobs is killed, again and again: what was acknowledged is there, byte for byte."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
from pathlib import Path

from feeds.blobs import BlobFiles, State
from feeds.errors import Trimmed

WRITER = """
import hashlib, os, random, sys, threading
from pathlib import Path
from feeds.blobs import BlobFiles, BlobSettings

files = BlobFiles.open(Path(sys.argv[1]), BlobSettings(file_bytes_max=4_000_000))

def tell(verb, place, data):
    os.write(1, f"{verb} {place.file} {place.offset} {place.size} {hashlib.sha256(data).hexdigest()}\\n".encode())

def write(who):
    chance = random.Random(f"{sys.argv[2]} {who}")
    held = []
    while True:
        data = chance.randbytes(chance.choice([10, 4096, 4096, 4096, 30_000, 1_200_000 if who == 0 else 100]))
        kind = chance.random()
        if kind < 0.7:
            place = files.append(f"p{who % 3}", data)
        else:
            place = files.append(f"p{who % 3}", data, extra=50)
            files.write(place.file, place.offset + place.size, data[:10])
        tell("stored", place, data)
        held.append((place, data))
        if kind > 0.9:
            place, data = held.pop(chance.randrange(len(held)))
            tell("trimming", place, data)
            files.trim(place.file, place.offset, place.size)
            tell("trimmed", place, data)

for who in range(32):
    threading.Thread(target=write, args=(who,)).start()
while True:
    files.scrub(100_000)
"""

LIVES = 4
Told = dict[tuple[str, int, int], tuple[str, str]]  # file, offset, size: the last word of it, and its sha256


def hear(line: str, told: Told) -> None:
    verb, file, offset, size, digest = line.split()
    told[(file, int(offset), int(size))] = (verb, digest)


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    told: Told = {}
    for life in range(LIVES):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), f"{seed} {life}"], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            wanted = len(told) + chance.randint(50, 1_500)
            for line in writer.stdout:
                hear(line, told)
                if len(told) >= wanted:
                    writer.send_signal(signal.SIGKILL)
                    break
            for line in writer.stdout:  # what it had told before it died
                if line.endswith("\n"):
                    hear(line, told)
        with BlobFiles.open(tmp_path) as files:
            assert files.recovered.short == {}
            assert files.recovered.foreign == []
            for place, (verb, digest) in told.items():
                try:
                    found = hashlib.sha256(files.read(*place)).hexdigest()
                except Trimmed:
                    assert verb != "stored", place
                else:
                    assert verb != "trimmed", place
                    assert found == digest, place
            assert files.damage() == []
            assert files.check().problems == []
            for file in files.list_files():
                size = (tmp_path / "files" / file.name).stat().st_size
                written = [row.end for row in files.checksum_list(file.name) if row.state is State.WRITTEN]
                assert size == max(written, default=0), "nothing stands behind the last acknowledged byte"
    assert len(told) > 200
