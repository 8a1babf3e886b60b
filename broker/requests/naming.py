"""Uploads of contents by the names that clients give them: which upload of the store each is.

In memory, for one event loop; what is uploaded is the store's. A name that is forgotten, as after a restart, can be
gone on with by the id that every answer tells.
"""

from __future__ import annotations

from dataclasses import dataclass

from feeds.errors import BadRequest, Overloaded

Key = tuple[str, str, str]  # client, barrel, name
Purpose = tuple[str, int, str | None]  # digest, total, the only document that may have it


@dataclass(slots=True)
class Named:
    """One upload of a client."""

    id: str
    purpose: Purpose
    used_at: float
    is_finished: bool = False


class Names:
    """The names of all clients' uploads: a bounded number of each client, and of all."""

    def __init__(self, per_client: int, idle_s: float, names_max: int) -> None:
        """`per_client` of one client are on their way at once; one idle for `idle_s` gives way to another."""
        self._per_client = per_client
        self._idle_s = idle_s
        self._names_max = names_max
        self._named: dict[Key, Named] = {}  # the one unused for longest first

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._named)

    def id(self, client: str, barrel: str, name: str) -> str:
        """The store's id of an upload; a name that is not known is an id itself."""
        named = self._named.get((client, barrel, name))
        return name if named is None else named.id

    def use(self, key: Key, purpose: Purpose, now: float) -> Named | None:
        """The upload of a name, if it is known; BadRequest where it is another one's."""
        named = self._named.pop(key, None)
        if named is None:
            return None
        self._named[key] = named
        if named.purpose != purpose:
            raise BadRequest(
                f"The upload {key[2]!r} was begun with another digest, total or doc.",
                hint="Give every upload a name of its own.",
            )
        named.used_at = now
        return named

    def make_room(self, client: str, now: float) -> tuple[str, str] | None:
        """Let the client begin another one; the barrel and id of one that is to be given up for it.

        Overloaded where all that it has begun are in use.
        """
        begun = [(key, each) for key, each in self._named.items() if key[0] == client and not each.is_finished]
        if len(begun) < self._per_client:
            return None
        key, oldest = begun[0]
        if now - oldest.used_at < self._idle_s:
            raise Overloaded(
                f"You have {len(begun)} uploads begun; {self._per_client} may be.",
                hint=f"Finish one; what is not gone on with for {self._idle_s:.0f} s gives way.",
            )
        del self._named[key]
        return key[1], oldest.id

    def keep(self, key: Key, named: Named) -> None:
        """Remember an upload, and forget the one that was unused for longest where there are too many."""
        self._named.pop(key, None)
        self._named[key] = named
        if len(self._named) > self._names_max:
            del self._named[next(iter(self._named))]

    def forget(self, key: Key) -> None:
        """The upload is not there any more."""
        self._named.pop(key, None)

    def clear(self) -> None:
        """Forget all; their uploads stay, and can be gone on with by their ids."""
        self._named.clear()
