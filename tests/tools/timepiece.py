"""A wall clock that can be set in a process of the tests' own, without touching the machine's.

The file named by CLOCK in the environment holds the seconds by which the clock is wrong; it is read at each look.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

VARIABLE = "CLOCK"

_true_time = time.time


def wrong_time() -> float:
    """What the clock shows."""
    file = os.environ.get(VARIABLE)
    return _true_time() if file is None else _true_time() + float(Path(file).read_text() or "0")


def install() -> None:
    """To be called before Spile is imported, for it takes clocks as defaults."""
    time.time = wrong_time
