"""Writing to many documents for upkeep, of which one may be damaged: it must not keep the others from theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from feeds.errors import Damaged
from feeds.writes import Outcome, Write

if TYPE_CHECKING:
    from feeds.store import Store


def write_undamaged(store: Store, key: int, name: str, writes: Sequence[Write]) -> list[Outcome]:
    """An outcome for each, Damaged for those whose rows cannot be read; they are found by halving.

    NotFound where the barrel is dropped meanwhile.
    """
    if not writes:
        return []
    try:
        return store.writer.write(key, name, writes, None, store.settings.document_bytes_max).result()
    except Damaged as damage:
        if len(writes) == 1:
            return [damage]
    half = len(writes) // 2
    return [outcome for part in (writes[:half], writes[half:]) for outcome in write_undamaged(store, key, name, part)]
