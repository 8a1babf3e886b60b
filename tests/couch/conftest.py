"""A service, and the clients of CouchDB's world that speak to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pouchdb import Pouch, pouch
from running import Running, serve


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Running]:
    """A service on a new store."""
    with serve(tmp_path / "data") as running:
        yield running


@pytest.fixture
def client() -> Iterator[Pouch]:
    """A PouchDB."""
    with pouch() as running:
        yield running
