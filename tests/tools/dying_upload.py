"""A process that uploads one content without end, until it is killed: `dying_upload.py WHERE`.

It prints the state of the upload, then after each piece that it suspended how much is durable; beyond that it goes on
writing. What it writes is `stream(at)` of `contents_tools`.
"""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def main(where: str) -> None:
    sys.path[:0] = [str(TESTS.parent), str(TESTS / "tools"), str(TESTS / "integration")]
    from contents_tools import MIB, stream

    from feeds.blobs.opening import open_contents

    contents = open_contents(where)
    incoming = contents.begin()
    print(incoming.state, flush=True)
    while True:
        for _ in range(10):
            incoming.write(stream(incoming.size, MIB + 17))
        incoming.suspend()
        print(incoming.size, flush=True)
        incoming = contents.resume(incoming.state)
        for _ in range(20):
            incoming.write(stream(incoming.size, MIB + 17))
            print("more", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
