"""Structs are read in several threads at once from the first time on, which msgspec alone does not outlive."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FIRST_READ = """
import sys, threading
sys.setswitchinterval(1e-6)
from pathlib import Path
from feeds.barrels import BarrelSettings
from feeds.storage.database import Database
with_store = Database(str(Path(sys.argv[1]) / "store"), create=True)
together = threading.Barrier(8)
def read():
    together.wait()
    BarrelSettings.parse({"retain": True, "ttl": 5, "merge": {"rule": "fields"}})
threads = [threading.Thread(target=read) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
with_store.close()
"""


@pytest.mark.parametrize("attempt", range(4))
def test_the_first_to_read_may_be_several_at_once(tmp_path: Path, attempt: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FIRST_READ, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


LISTENS = """
import sys
import msgspec
from feeds import Store
from feeds.structs import _seen
def unseen(each):
    return [below for below in each.__subclasses__() if below not in _seen] + [
        found for below in each.__subclasses__() for found in unseen(below)
    ]
with Store.open(sys.argv[1]) as store:
    barrel = store.create("geo")
    barrel.put({}, id="x")
    from listeners import Listener, listen
    with listen(barrel, since="first") as changes:
        assert next(iter(changes)).id == "x"
        assert not unseen(msgspec.Struct), unseen(msgspec.Struct)
"""


def test_whoever_listens_in_process_has_them_looked_at_before(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LISTENS, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
