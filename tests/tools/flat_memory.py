"""A process that passes a content in and out and tells how its memory grew: `flat_memory.py WHERE MIB`.

It prints as JSON: MiB of resident memory beyond the idle of before (`in_mib`, `out_mib`: the highest of each way),
the seconds each took, and whether the same came out.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
import time
from pathlib import Path

TESTS = Path(__file__).parents[1]


def resident_mib() -> float:
    """The memory of this process."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


class Peak:
    """The highest memory in a block, looked at every few milliseconds."""

    def __init__(self) -> None:
        self.mib = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._ended.wait(0.005):
            self.mib = max(self.mib, resident_mib())

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def main(where: str, mib: int) -> None:
    sys.path.insert(0, str(TESTS.parent))
    from feeds.blobs.opening import open_contents

    contents = open_contents(where)
    with contents.begin() as warm:
        warm.write(b"warm" * 1_000_000)
        stored = warm.finish()
    for _ in contents.read(stored.place, 0, stored.length):
        pass
    idle = resident_mib()
    piece = bytes(range(256)) * 4096
    began = time.monotonic()
    with Peak() as going_in, contents.begin(mib << 20) as incoming:
        for at in range(mib):
            incoming.write(at.to_bytes(8, "big") + piece[8:])
        stored = incoming.finish()
    between = time.monotonic()
    digest = hashlib.sha256()
    with Peak() as going_out:
        for data in contents.read(stored.place, 0, stored.length):
            digest.update(data)
    ended = time.monotonic()
    contents.close()
    told = {"in_mib": going_in.mib - idle, "out_mib": going_out.mib - idle, "in_s": between - began}
    told |= {"out_s": ended - between, "same": digest.digest() == stored.sha256, "idle_mib": idle}
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
