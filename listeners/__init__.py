"""Listening to barrels: everything that follows a feed.

`listen` and `listen_async` loop over changes; a `Listener` calls back, tries again and keeps dead letters.
"""

from feeds.structs import prepare
from listeners.callbacks import Retries
from listeners.changes import Change, Snapshot
from listeners.dead_letters import BarrelDeadLetters, DeadLetter, DeadLetters, FileDeadLetters, replay
from listeners.listen import Listening, listen, listen_async
from listeners.listener import Listener

__all__ = [
    "BarrelDeadLetters",
    "Change",
    "DeadLetter",
    "DeadLetters",
    "FileDeadLetters",
    "Listener",
    "Listening",
    "Retries",
    "Snapshot",
    "listen",
    "listen_async",
    "replay",
]

prepare()  # a program may have listeners in several threads
