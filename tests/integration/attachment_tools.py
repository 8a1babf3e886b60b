"""Stores with a place for contents, and what is in them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import md5, sha256
from pathlib import Path
from typing import Any

from store_tools import Clock, careless, count

from feeds import Store, StoreSettings

HOUR = 3_600.0


@contextmanager
def opened(url: str, folder: Path, clock: Clock | None = None, **settings: Any) -> Iterator[Store]:
    """A store whose contents are in `folder`."""
    with Store.open(url, StoreSettings(**settings), clock=clock or Clock(), blobs=folder) as store:
        careless(store)
        yield store


def inline(data: bytes, content_type: str = "text/plain", **fields: Any) -> dict[str, Any]:
    """An attachment as it is sent in a document."""
    return {"data": b64encode(data).decode(), "content_type": content_type, **fields}


def digest(data: bytes) -> str:
    return f"sha256-{sha256(data).hexdigest()}"


def brief(data: bytes) -> str:
    return f"md5-{b64encode(md5(data).digest()).decode()}"


def attached(store: Store, barrel: str, id: str, rev: str | None = None) -> dict[str, Any]:
    """The stubs of a document."""
    found: dict[str, Any] = store.barrel(barrel).get(id, rev=rev).data.get("_attachments", {})
    return found


def copies(store: Store) -> tuple[int, int]:
    """How many contents there are, and how many copies wait to be removed."""
    return count(store, "blobs"), count(store, "blob_trash")


def settle(store: Store, clock: Clock) -> None:
    """Collect as often as it takes until everything that may go is gone."""
    for _ in range(3):
        clock.now += 2 * HOUR
        store.collect()


def clean(store: Store) -> bool:
    """Whether a check finds nothing, and told what it finds."""
    problems = store.check().problems
    assert problems == []
    return True


def damage(folder: Path, data: bytes) -> None:
    """Turn the bits of these bytes in whichever blob file has them."""
    found = 0
    for path in (folder / "files").iterdir():
        with path.open("r+b") as file:
            at = file.read().find(data)
            if at >= 0:
                file.seek(at)
                file.write(bytes(byte ^ 0xFF for byte in data))
                found += 1
    assert found == 1
