"""Having msgspec look at every Struct while nobody reads one yet.

It looks at a class when it is first read into, and two threads that do so at once end the process (msgspec 0.22: what
the one has begun to note is taken for whole by the other). So whoever starts threads has it look before.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from weakref import WeakSet

import msgspec

_guard = threading.Lock()
_seen: WeakSet[type] = WeakSet()


def prepare() -> None:
    """Have it look at every Struct of the modules that are imported by now."""
    with _guard:
        found: list[type] = [msgspec.Struct]
        while found:
            each: type
            for each in found.pop().__subclasses__():
                found.append(each)
                if each not in _seen:
                    _seen.add(each)
                    with suppress(NameError, TypeError):  # what cannot be looked at cannot be read into either
                        msgspec.json.Decoder(each)
