"""Hundreds of readers beside writers, trims, the scrubber and a change of epoch: nobody sees what is not so."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from feeds.blobs import BlobFiles, BlobSettings, Placed
from feeds.errors import Trimmed

READERS = 200
WRITERS = 8
CHUNKS = 100  # of each writer
READS = 15  # of each reader
TRIMS = 150


class Together:
    """What threads over the same blob files do, each until its work is done."""

    def __init__(self, files: BlobFiles) -> None:
        self.files = files
        self.held: list[tuple[Placed, bytes]] = []
        self.begun = threading.Event()
        self.over = threading.Event()
        self.going: set[Placed] = set()
        self.gone: set[Placed] = set()

    def write(self, chance: random.Random) -> None:
        for number in range(CHUNKS // 10):
            pieces = [chance.randbytes(chance.randint(1, 20_000)) for _ in range(10)]
            pending = [self.files.append_soon("ab"[number % 2], piece, extra=number % 3) for piece in pieces]
            self.held.extend((soon.done.result(), piece) for soon, piece in zip(pending, pieces, strict=True))
            self.begun.set()

    def read(self, chance: random.Random) -> None:
        self.begun.wait()
        for _ in range(READS):
            place, data = chance.choice(self.held)
            start = chance.randrange(place.size)
            size = chance.randint(1, place.size - start)
            gone = place in self.gone
            try:
                assert self.files.read(place.file, place.offset + start, size) == data[start : start + size]
                assert not gone
            except Trimmed:
                assert place in self.going

    def trim(self, chance: random.Random) -> None:
        self.begun.wait()
        for _ in range(TRIMS):
            place, _ = chance.choice(self.held)
            self.going.add(place)
            self.files.trim(place.file, place.offset, place.size)
            self.gone.add(place)

    def scrub(self, _chance: random.Random) -> None:
        while not self.over.wait(0.01):
            assert self.files.scrub(200_000).damaged == []

    def seal(self, chance: random.Random) -> None:
        while not self.over.wait(0.02):
            for info in self.files.list_files():
                if chance.random() < 0.3:
                    self.files.seal(info.name)

    def turn(self, _chance: random.Random) -> None:
        while not self.over.wait(0.05):
            self.files.set_epoch(self.files.epoch + 1)


def test_everybody_at_once(tmp_path: Path) -> None:
    settings = BlobSettings(file_bytes_max=1_000_000, handles_max=4)
    with BlobFiles.open(tmp_path, settings) as files, ThreadPoolExecutor(READERS + WRITERS + 4) as threads:
        together = Together(files)
        acts = [together.write] * WRITERS + [together.trim] + [together.read] * READERS
        keeping = [threads.submit(act, random.Random(0)) for act in (together.scrub, together.turn, together.seal)]
        done = [threads.submit(act, random.Random(who)) for who, act in enumerate(acts)]
        try:
            for each in done:
                each.result()
        finally:
            together.begun.set()
            together.over.set()
        for each in keeping:
            each.result()
        assert len(together.held) == WRITERS * CHUNKS
        assert files.epoch > 0
        assert files.damage() == []
        assert files.check().problems == []
