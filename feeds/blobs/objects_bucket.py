"""What the contents need of whatever keeps objects.

Keys are segments of `[0-9A-Za-z.-]` between slashes. Errors come out as SpileError: NotFound and Exists for an
object, Unavailable for everything that another try may mend, StorageFull.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from feeds.errors import BadRequest, Exists


class Bucket(Protocol):
    """Objects by key."""

    name: str
    """Where it is, for people: no secrets."""
    scrubs_itself: bool
    """Whether the store looks for damage by itself."""

    def make(self, key: str, buffers: Sequence[bytes], *, replace: bool = False) -> None:
        """Store an object, all of it or nothing, durably. Exists where there is one and it is not to be replaced."""

    def stream(self, key: str, start: int, end: int) -> Iterator[bytes]:
        """A range of an object, in pieces of any size. It ends early where the object does. NotFound."""

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Key and size of each object below a prefix, which ends where a segment does."""

    def remove(self, keys: Sequence[str]) -> None:
        """Remove objects; one that is not there is removed."""

    def strays(self) -> Iterator[tuple[str, int]]:
        """As `list`, of what a crash of `make` left behind: names under `making/`, as `remove` takes them."""


def claim(bucket: Bucket, owner: str) -> None:
    """Write down whose the objects are, at the first call; BadRequest where they are another's."""
    try:
        bucket.make("owner", [owner.encode()])
    except Exists:
        found = b"".join(bucket.stream("owner", 0, 4096)).decode(errors="replace")
        if found != owner:
            raise BadRequest(
                f"The contents in {bucket.name} belong to another database, {found[:80]!r}",
                hint="Give each database a folder or prefix of its own. If that database is gone for good, and only"
                " this one needs the contents, remove the object (or file) `owner` there.",
            ) from None
