"""A listener as a program: SOURCE NAME STATE PATTERN…. It appends what it is told to the file STATE.

With a NAME its place is the cursor of that name; with `-` it is the position that stands last in the file. Written
is one line a change, before it is acknowledged; that is the work that it does, and it takes a while.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from audience import told_of

from listeners import Snapshot, listen

WORK_S = 0.003


def main() -> None:
    """Listen until the process is killed."""
    source, name, state, *patterns = sys.argv[1:]
    file = Path(state)
    since = "first" if name != "-" else _place(file)
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, b'{"life": true}\n')
    changes = listen(
        source,
        patterns,
        since=since,
        name=None if name == "-" else name,
        window=20,
        patience_s=None,
        on_snapshot_start=_never,
        on_snapshot_end=_never,
    )
    for change in changes:
        time.sleep(WORK_S)
        told = told_of(change)
        row = {field: getattr(told, field) for field in told.__dataclass_fields__} | {"paths": sorted(told.paths)}
        os.write(descriptor, json.dumps(row).encode() + b"\n")


def _place(file: Path) -> str:
    """The position behind the last change in the file."""
    lines = file.read_text().splitlines() if file.exists() else []
    rows = [row for line in lines if "seq" in (row := json.loads(line))]
    return f"{rows[-1]['seq']}-{rows[-1]['epoch']}" if rows else "first"


def _never(snapshot: Snapshot) -> None:
    raise AssertionError(f"a snapshot at {snapshot.position}, but the position holds")


if __name__ == "__main__":
    main()
