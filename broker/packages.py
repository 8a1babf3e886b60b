"""A check at start: `feeds`, `listeners` and `broker` come from one place.

`broker` is also a distribution on PyPI; mixed up with it, the process would fail in strange ways later.
"""

from __future__ import annotations

from pathlib import Path

import broker
import feeds
import listeners
from feeds.errors import Unavailable


def check_packages() -> None:
    """Unavailable when the three packages do not lie beside each other."""
    places = {
        package.__name__: Path(package.__file__ or "").resolve().parent.parent
        for package in (feeds, listeners, broker)
    }
    if len(set(places.values())) > 1:
        told = ", ".join(f"{name} from {place}" for name, place in places.items())
        raise Unavailable(
            f"The packages do not come from one place: {told}",
            hint="Remove the other distribution (pip uninstall broker), or use an environment of its own.",
        )
