"""Ending a conflict: one leaf stands, the other live ones are deleted, in one change of the document.

By hand (`choose`, `supersede`), or by the barrel's merge rule in the transaction of the very write that brought the
conflict, so that a crash leaves nothing half done. What is made here depends on nothing but the leaves, so that
replicas that do the same come to the same revisions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from feeds.attachments.stubs import Stub, Stubs, contents_of, hashed, joined
from feeds.errors import Conflict, Deleted, Missing
from feeds.merging.functions import Attempt
from feeds.merging.leaf import LiveLeaf
from feeds.merging.rules import attachments_of
from feeds.merging.settle import Unsettled, settle
from feeds.revisions import Revision, next_revision
from feeds.storage.schema import OWN
from feeds.storage.state import DocState
from feeds.storage.work import BarrelWork
from feeds.tree import Node, graft, leaves, ordered_leaves
from feeds.writes import Write, Written

LEAVES_MAX = 32  # merged at a time; more are merged in turns
LEAVES_BYTES_MAX = 64 * 1024 * 1024

NOTHING = b"{}"  # what a deletion holds


@dataclass(frozen=True, slots=True)
class NewRevision:
    """A revision to be written upon a leaf, with its stored body."""

    revision: Revision
    parent: Revision
    deleted: bool
    body: bytes


def end(leaf: Revision) -> NewRevision:
    """The deletion of a leaf."""
    return NewRevision(next_revision(leaf, True, NOTHING), leaf, True, NOTHING)


def extend(work: BarrelWork, state: DocState, made: Sequence[NewRevision]) -> None:
    """Write these revisions as one change; none twice, and none where they are there already."""
    tree = work.tree(state)
    seq = work.seq + 1
    healed = False
    for new in made:
        grafted = graft(tree, (new.revision, new.parent), new.deleted)
        tree = grafted.tree
        for node in grafted.added:
            work.add_rev(state.doc, node, seq, new.body, OWN)
        for node in grafted.healed:  # it came by replication before, without its parent or without its body
            work.heal_rev(state, node, seq, None if grafted.already else new.body)
            healed = True
    if healed:
        work.flush()
    ordered = ordered_leaves(leaves(tree))
    if [leaf.key for leaf in ordered] != [leaf.key for leaf in state.leaves]:
        work.change(state, state.id, ordered, None, None)


# -- by hand


def choose(work: BarrelWork, state: DocState | None, write: Write) -> Written:
    """Let one live leaf stand, and delete the others."""
    state, live = _live(state, write)
    if len(live) == 1 and write.rev == live[0].revision:
        return Written(state.id, str(write.rev), state.seq, unchanged=True)
    _check_seen(state, live, write)
    chosen = _leaf(state, live, write.rev)
    extend(work, state, [end(leaf.revision) for leaf in live if leaf is not chosen])
    return Written(state.id, str(chosen.revision), work.seq)


def supersede(work: BarrelWork, state: DocState | None, write: Write, stubs: Stubs | None) -> Written:
    """Write a document upon one live leaf, the winner if none is named, and delete the others."""
    state, live = _live(state, write)
    body = joined(stubs or {}, write.body)
    if len(live) == 1 and not write.deleted and work.body_of(state, live[0]) == body:
        return Written(state.id, str(live[0].revision), state.seq, repeated=True)
    _check_seen(state, live, write)
    parent = live[0] if write.rev is None else _leaf(state, live, write.rev)
    if len(live) == 1:
        raise Conflict(
            f"{state.id!r} is not in conflict: its only revision is {live[0].revision}",
            hint="Read it; put the document with that _rev if it is not what you want.",
        )
    revision = next_revision(parent.revision, write.deleted, write.body, hashed(stubs) if stubs else ())
    made = [end(leaf.revision) for leaf in live if leaf is not parent]
    extend(work, state, [NewRevision(revision, parent.revision, write.deleted, body), *made])
    return Written(state.id, str(revision), work.seq)


def stubs_to_choose_from(work: BarrelWork, state: DocState) -> Stubs:
    """The attachments that a merged document may name: those of every live leaf.

    Under each name the one that a rule would take, and the others of it under names that no attachment can have, so
    that they are found by their digests.
    """
    live = [_content(work, state, leaf) for leaf in state.leaves if not leaf.deleted]
    found: dict[str, Stub] = dict(attachments_of(live))
    for leaf in live:
        found.update({f"{leaf.rev}\n{name}": stub for name, stub in leaf.attachments.items()})
    return found


def _live(state: DocState | None, write: Write) -> tuple[DocState, list[Node]]:
    """The document with its live leaves, winner first."""
    if state is None:
        raise Missing(f"{write.id!r} was never written here")
    live = [leaf for leaf in state.leaves if not leaf.deleted]
    if not live:
        raise Deleted(f"{state.id!r} was deleted", rev=str(state.winner.revision))
    return state, live


def _check_seen(state: DocState, live: Iterable[Node], write: Write) -> None:
    """Refuse whoever saw other leaves."""
    if write.leaves and {leaf.key for leaf in live} != {revision.key for revision in write.leaves}:
        raise Conflict(
            f"The live revisions of {state.id!r} are not those that you named",
            hint="Look at the conflict again: something came or was resolved meanwhile.",
            leaves=[str(leaf.revision) for leaf in live],
        )


def _leaf(state: DocState, live: Iterable[Node], revision: Revision | None) -> Node:
    assert revision is not None
    for leaf in live:
        if leaf.key == revision.key:
            return leaf
    raise Conflict(
        f"{revision} is not a live revision of {state.id!r}",
        hint="Look at the conflict again, and name one of its revisions.",
        leaves=[str(leaf.revision) for leaf in live],
    )


def _content(work: BarrelWork, state: DocState, leaf: Node) -> LiveLeaf:
    return LiveLeaf.of(leaf.revision, work.body_of(state, leaf))


# -- by the barrel's rule


def settle_all(work: BarrelWork, bytes_max: int) -> None:
    """Ask the barrel's rule about every document that came into conflict with this operation."""
    while work.unsettled:
        document_id, _ = work.unsettled.popitem()
        settle_by_rule(work, work.states.get(document_id), bytes_max)


def settle_by_rule(work: BarrelWork, state: DocState | None, bytes_max: int) -> Written | None:
    """Merge the live leaves of a document by the barrel's rule; None where it stays as it is."""
    setting = work.settings.merge
    if state is None or setting is None or state.id.startswith("_design/"):
        return None
    written = None
    while True:
        live = [leaf for leaf in state.leaves if not leaf.deleted]
        if len(live) < 2:
            work.unsettled.pop(state.id, None)
            return written
        rule, proven = work.merging.rule(setting)
        found = (
            Unsettled(f"there is no merge function {setting.name!r} here")
            if rule is None
            else settle(_together(work, state, live), rule, bytes_max, proven=proven)
        )
        if found is None or isinstance(found, Unsettled):
            missing = setting.name if rule is None else None
            _tell(work, state, live, "the rule leaves it" if found is None else found.reason, missing)
            work.unsettled.pop(state.id, None)
            return written
        made = [end(revision) for revision in found.ended]
        if found.parent is not None:
            work.holdings.hold(contents_of(found.leaf.attachments))
            made.insert(0, NewRevision(found.leaf.revision, found.parent, False, found.leaf.body))
        extend(work, state, made)
        _tell(work, state, live)
        written = Written(state.id, found.leaf.rev, work.seq)


def _together(work: BarrelWork, state: DocState, live: Sequence[Node]) -> list[LiveLeaf]:
    """As many of the leaves as are merged at a time, two at least."""
    found: list[LiveLeaf] = []
    size = 0
    for node in live[:LEAVES_MAX]:
        leaf = _content(work, state, node)
        size += len(leaf.text)
        if len(found) >= 2 and size > LEAVES_BYTES_MAX:
            break
        found.append(leaf)
    return found


def _tell(
    work: BarrelWork, state: DocState, live: Sequence[Node], reason: str | None = None, missing: str | None = None
) -> None:
    revs = tuple(str(leaf.revision) for leaf in live)
    work.attempts.append(Attempt(work.barrel, work.name, state.id, revs, reason, missing))
