"""A running Spile for acceptance tests: a process of its own, on free ports, in a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from running import Running, serve


@pytest.fixture
def spile(tmp_path: Path) -> Iterator[Running]:
    """A service that is stopped, and expected to stop cleanly, at the end of the test."""
    with serve(tmp_path / "data") as running:
        yield running
