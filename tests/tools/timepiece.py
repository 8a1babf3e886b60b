"""A wall clock that can be set in a process of the tests' own, without touching the machine's.

The file named by CLOCK in the environment holds the seconds by which the clock is wrong; it is read at each look, and
so is replaced as a whole.
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
    return _true_time() if file is None else _true_time() + float(Path(file).read_text())


def set_wrong_by(file: Path, seconds: float) -> None:
    """From now on the clock is wrong by so much."""
    beside = file.with_suffix(".next")
    beside.write_text(str(seconds))
    beside.replace(file)


def install() -> None:
    """To be called before Spile is imported, for it takes clocks as defaults."""
    time.time = wrong_time
