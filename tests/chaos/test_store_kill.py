"""A process that writes is killed; whatever it was told is stored is there, and fits together."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from feeds import Store

WRITER = """
import sys, threading
from feeds import Store

store = Store.open(sys.argv[1])
if not store.barrels():
    store.create("geo", {"revs_limit": 20, "ttl": 3600})
geo = store.barrel("geo")
guard = threading.Lock()

def write(who):
    step = 0
    while True:
        step += 1
        id = f"{who}-{step % 40}"
        written = geo.put({"who": who, "n": step, "tags": ["a", step % 7]}, id=id, update=True)
        if step % 11 == 0:
            written = geo.delete(id, rev=written.rev)
        with guard:
            print(written.seq, written.id, written.rev, flush=True)

def upkeep():
    while True:
        store.maintain()
        store.compact("geo")

for who in "abc":
    threading.Thread(target=write, args=(who,)).start()
threading.Thread(target=upkeep).start()
"""


@pytest.mark.parametrize("lives", [3])
def test_every_write_that_was_acknowledged_is_there_after_a_kill(tmp_path: Path, lives: int) -> None:
    acknowledged: dict[int, tuple[str, str]] = {}
    for life in range(1, lives + 1):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            wanted = len(acknowledged) + 150 * life
            for line in writer.stdout:
                seq, id, rev = line.split()
                acknowledged[int(seq)] = (id, rev)
                if len(acknowledged) >= wanted:
                    writer.send_signal(signal.SIGKILL)
                    break
            for line in writer.stdout:  # what it had told before it died
                if line.endswith("\n"):
                    seq, id, rev = line.split()
                    acknowledged[int(seq)] = (id, rev)
        with Store.open(tmp_path, create=False) as store:
            assert store.check().problems == []
            geo = store.barrel("geo")
            assert geo.head() >= max(acknowledged)
            told = {entry.seq: (entry.id, entry.rev) for entry in geo.tail(0, limit=1_000_000)}
            assert set(told) == set(range(1, geo.head() + 1))
            assert {seq: told[seq] for seq in acknowledged} == acknowledged
            assert geo.put({}, id=f"life-{life}").seq == geo.head()
