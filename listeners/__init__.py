"""Listening to barrels: everything that follows a feed.

`listen` and `listen_async` loop over changes; a `Listener` calls back, tries again and keeps dead letters. Names
are imported when they are first asked for, so that a command that only speaks to a service does not pay for them.
"""

from typing import TYPE_CHECKING

from feeds.lazily import names_of

if TYPE_CHECKING:
    from listeners.callbacks import Retries
    from listeners.changes import Change, Snapshot
    from listeners.dead_letters import BarrelDeadLetters, DeadLetter, DeadLetters, FileDeadLetters, replay
    from listeners.listener import Listener
    from listeners.listening import Listening, listen, listen_async

__getattr__ = names_of(
    __name__,
    {
        "listeners.callbacks": ("Retries",),
        "listeners.changes": ("Change", "Snapshot"),
        "listeners.dead_letters": ("BarrelDeadLetters", "DeadLetter", "DeadLetters", "FileDeadLetters", "replay"),
        "listeners.listening": ("Listening", "listen", "listen_async"),
        "listeners.listener": ("Listener",),
    },
)

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
