"""The documents of a barrel that are in conflict: listing them, looking at their leaves, resolving them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from feeds.errors import BadRequest, Damaged, SpileError, TooLarge
from feeds.merging.functions import Attempt
from feeds.rows import ConflictsPage, InConflict
from feeds.storage.reading import Document, Reader, Wanted
from feeds.storage.state import live_names
from feeds.storage.undamaged import write_undamaged
from feeds.writes import Token, Write, Written

if TYPE_CHECKING:
    from feeds.barrel import Barrel
    from feeds.store import Store

PAGE_MAX = 1_000
_STEP = 500  # documents that a rule is asked about in one transaction
LEAVES_BYTES_MAX = 64 * 1024 * 1024  # of one document, shown together


class Conflicts:
    """The conflicts of one barrel. Listing them costs what there are, not what the barrel holds."""

    def __init__(self, store: Store, barrel: Barrel) -> None:
        self._store = store
        self._barrel = barrel

    def page(self, *, after: str = "", limit: int = 100) -> ConflictsPage:
        """Documents in conflict behind the id `after`, 1 to 1,000 of them."""
        if not 1 <= limit <= PAGE_MAX:
            raise BadRequest(f"limit is {limit}", hint=f"Ask for 1 to {PAGE_MAX} documents at a time.")
        rows = _rows(self._store, self._barrel.key, after, limit + 1)
        found = [
            InConflict(row[2], live[0], list(live[1:]), row[1], self._store.merging.reason(self._barrel.key, row[2]))
            for row in rows[:limit]
            for live in (live_names(row[3], row[4], row[6]),)
        ]
        return ConflictsPage(found, found[-1].id if len(rows) > limit else None)

    def leaves(self, id: str) -> list[Document]:
        """The live leaves of a document, the winner first: one where it is not in conflict. Missing, Deleted."""
        with self._store.database.snapshot() as connection:
            reader = Reader(connection, self._store.queries, self._barrel.key, self._store.clock())
            (winner,) = reader.documents([Wanted(id, conflicts=True)])
            if isinstance(winner, SpileError):
                raise winner
            found = [winner]
            size = len(winner.body)
            for rev in winner.extra.pop("_conflicts", []):
                (leaf,) = reader.documents([Wanted(id, rev)])
                if isinstance(leaf, SpileError):
                    raise leaf
                found.append(leaf)
                size += len(leaf.body)
                if size > LEAVES_BYTES_MAX:
                    raise TooLarge(
                        f"The leaves of {id!r} have more than {LEAVES_BYTES_MAX} bytes",
                        hint="Read the document with its conflicts, and then each leaf by its rev.",
                    )
        return found

    def resolve(
        self,
        id: str,
        *,
        rev: str | None = None,
        doc: bytes | str | Mapping[str, Any] | None = None,
        leaves: Sequence[str] = (),
        token: Token | None = None,
    ) -> Written:
        """End the conflict of a document: let the live leaf `rev` stand, or `doc` in place of all of them.

        The others are deleted, in the same change. `leaves` are the live leaves that the caller saw: Conflict where
        there are others by now. Stubs in `doc` may name attachments of any leaf; its `_rev` says which one it is
        written upon, by itself the winner. Conflict where `rev` is no live leaf, or there is no conflict.
        """
        write = self.resolution(id, rev=rev, doc=doc, leaves=leaves)
        return self._barrel.write(write, token)

    def resolution(
        self,
        id: str,
        *,
        rev: str | None = None,
        doc: bytes | str | Mapping[str, Any] | None = None,
        leaves: Sequence[str] = (),
    ) -> Write:
        """The write that `resolve` does."""
        if (rev is None) is (doc is None):
            raise BadRequest(
                "A conflict is resolved by a revision or by a document",
                hint="Send `rev`, the leaf that stands, or `doc`, what stands in place of all of them; not both.",
            )
        if rev is not None:
            return Write.choose(id, rev, leaves=leaves)
        assert doc is not None
        return Write.supersede(id, doc, leaves=leaves, bytes_max=self._store.settings.document_bytes_max)

    def settle(self) -> int:
        """Ask the barrel's merge rule about every conflict there is; how many it settled.

        It is asked by itself about what comes into conflict. This is for what was so before the rule was there, and
        is done with every round of upkeep as well.
        """
        return settle_waiting(self._store, self._barrel.key, self._barrel.name)


def settle_waiting(store: Store, key: int, name: str) -> int:
    """Ask a barrel's merge rule about all conflicts, but not twice about the same leaves; how many it settled.

    NotFound where the barrel is dropped meanwhile.
    """
    settled = 0
    after = ""
    while rows := _rows(store, key, after, _STEP):
        after = rows[-1][2]
        told = {row[2]: _live(row) for row in rows}
        asked = [id for id, leaves in told.items() if not store.merging.gave_up(key, id, leaves)]
        outcomes = write_undamaged(store, key, name, [Write.settle(id) for id in asked])
        settled += sum(isinstance(each, Written) and not each.unchanged for each in outcomes)
        store.merging.note(
            Attempt(key, name, id, told[id], damage.reason)
            for id, damage in zip(asked, outcomes, strict=True)
            if isinstance(damage, Damaged)
        )
        if len(rows) < _STEP:
            break
    return settled


def _live(row: Any) -> tuple[str, ...]:
    """The live leaves that a row names; none where they cannot be read."""
    try:
        return live_names(row[3], row[4], row[6])
    except Damaged:
        return ()


def _rows(store: Store, key: int, after: str, limit: int) -> Sequence[Any]:
    with store.database.reading() as connection:
        return connection.exec_driver_sql(store.queries.conflicts, (key, after, limit)).all()
