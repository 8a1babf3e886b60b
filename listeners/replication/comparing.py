"""What a target lacks of many revisions, asked for in as many questions as it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from feeds.errors import TooLarge
from listeners.replication.peer import Differences, Peer
from listeners.replication.retrying import Attempt

Asked = Mapping[str, Sequence[str]]
TooMuch = Callable[[str, str, TooLarge], None]
"""Hears of a revision that cannot be asked about even by itself."""


async def compared(peer: Peer, asked: Asked, attempt: Attempt, too_much: TooMuch) -> Differences:
    """Which of these revisions the peer does not have: in halves where that is too much for one question.

    First the documents are divided, then the revisions of one that has thousands of leaves.
    """
    if not asked:
        return {}
    try:
        return await attempt(lambda: peer.revs_diff(asked))
    except TooLarge as error:
        halves = list(_halves(asked))
        if not halves:
            ((id, revs),) = asked.items()
            for rev in revs:
                too_much(id, rev, error)
    told: dict[str, tuple[list[str], list[str]]] = {}
    for half in halves:
        for id, (missing, ancestors) in (await compared(peer, half, attempt, too_much)).items():
            before = told.setdefault(id, ([], []))
            before[0].extend(missing)
            before[1].extend(each for each in ancestors if each not in before[1])
    return told


def _halves(asked: Asked) -> Iterator[Asked]:
    """Both halves of a question; nothing where there is only one revision of one document."""
    if len(asked) > 1:
        ids = list(asked)
        middle = len(ids) // 2
        yield {id: asked[id] for id in ids[:middle]}
        yield {id: asked[id] for id in ids[middle:]}
        return
    ((id, revs),) = asked.items()
    if len(revs) > 1:
        middle = len(revs) // 2
        yield {id: revs[:middle]}
        yield {id: revs[middle:]}
