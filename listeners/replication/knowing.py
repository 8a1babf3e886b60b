"""Which contents the target has, as far as it was asked or sent them: so that each is asked for and sent once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

KNOWN_MAX = 10_000


class Known:
    """Digests, the latest ones only; with the handle of those that were sent here and are named by it."""

    def __init__(self) -> None:
        self._handles: OrderedDict[str, str | None] = OrderedDict()

    def has(self, digest: str) -> bool:
        """Whether the target has it."""
        return digest in self._handles

    def handle(self, digest: str) -> str | None:
        """How it is to be named, if not by its digest."""
        return self._handles.get(digest)

    def are_held(self, digests: Iterable[str]) -> None:
        """Documents of the target have these."""
        for digest in digests:
            self._add(digest, None)

    def is_sent(self, digest: str, handle: str) -> None:
        """It was sent, and is called so."""
        self._add(digest, handle)

    def forget(self, digests: Iterable[str]) -> None:
        """The target does not have these after all."""
        for digest in digests:
            self._handles.pop(digest, None)

    def _add(self, digest: str, handle: str | None) -> None:
        self._handles[digest] = handle
        self._handles.move_to_end(digest)
        while len(self._handles) > KNOWN_MAX:
            self._handles.popitem(last=False)
