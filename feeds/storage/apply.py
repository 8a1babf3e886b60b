"""The rules of writing: which write is accepted on what the barrel holds, and what it makes of it.

Works on a `BarrelWork`, which has the documents' states and collects the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from feeds.attachments.resolve import resolve
from feeds.attachments.stubs import Stubs, hashed, joined, split, stubs_of
from feeds.body import DOCUMENT_BYTES_MAX, canonical, check_values, merge_patch
from feeds.errors import Conflict, Deleted, Missing, MissingStub, NotFound, TooLarge
from feeds.faults import shown
from feeds.revisions import Revision, next_revision
from feeds.storage.expiry import check_expiry
from feeds.storage.purging import purge
from feeds.storage.schema import MISSING, OWN
from feeds.storage.settling import choose, settle_by_rule, stubs_to_choose_from, supersede
from feeds.storage.state import DocState, decode, revision_of
from feeds.storage.work import BarrelWork
from feeds.tree import EMPTY, Node, Tree, graft, leaves, ordered_leaves, tree_of
from feeds.writes import Verb, Write, Written


def apply(work: BarrelWork, write: Write, bytes_max: int = DOCUMENT_BYTES_MAX) -> Written:
    """Do one write; its document's state must have been fetched. Raises the SpileError that refuses it."""
    state = work.states.get(write.id)
    verb = write.verb
    if verb is Verb.PUT or verb is Verb.SET:
        return _put(work, _swept(work, state), write)
    if verb is Verb.MERGE:
        return _merge(work, _swept(work, state), write, bytes_max)
    if verb is Verb.ATTACH:
        return _attach(work, _swept(work, state), write, bytes_max)
    if verb is Verb.DELETE:
        return _delete(work, _swept(work, state), write)
    if verb is Verb.REPLICATE:
        return _replicate(work, state, write)
    if verb is Verb.EXPIRE:
        return _expire(work, state, write)
    if verb is Verb.PURGE:
        return purge(work, state, write)
    if verb is Verb.CHOOSE:
        return choose(work, _swept(work, state), write)
    if verb is Verb.SUPERSEDE:
        return _supersede(work, _swept(work, state), write)
    return settle_by_rule(work, state, bytes_max) or _as_it_is(work, state, write)


def _swept(work: BarrelWork, state: DocState | None) -> DocState | None:
    """The state with its expiry written, if that has come: what is expired reads as deleted."""
    if state is not None:
        for _ in state.leaves:  # what wins in place of an expired leaf may have expired as well
            if not _has_expired(work, state):
                break
            _extend(work, state, state.id, state.winner, True, b"{}", {}, expired=True)
    return state


def _has_expired(work: BarrelWork, state: DocState) -> bool:
    return not state.deleted and state.expires is not None and state.expires <= work.now


def _check_expiry(work: BarrelWork, deleted: bool, data: dict[str, Any] | None) -> None:
    """What others wrote is taken as it is; what is written here has to say what it means."""
    field = work.settings.ttl_field
    if field is not None and data is not None and not deleted:
        check_expiry(field, data)


def _put(work: BarrelWork, state: DocState | None, write: Write) -> Written:
    if state is None:
        if write.rev is not None:
            raise Conflict(
                f"{write.id!r} was never written here, and you sent _rev {write.rev}",
                hint="Leave _rev out to create the document.",
            )
        _check_expiry(work, write.deleted, write.data)
        stubs = _resolved(work, write, _NONE, 1)
        return _extend(work, None, write.id, None, write.deleted, write.body, write.data, stubs=stubs)
    leaf = _leaf(state, write.rev, any_winner=write.verb is Verb.SET)
    stubs = None
    if write.attachments is not None:
        parent = leaf.revision if leaf is not None else write.rev
        assert parent is not None
        stubs = _resolved(work, write, _stubs_at(work, state, parent), parent.generation + 1)
    if leaf is None:
        return _repeated(work, state, write.rev, write.deleted, write.body, stubs)
    _check_expiry(work, write.deleted, write.data)
    return _extend(work, state, write.id, leaf, write.deleted, write.body, write.data, stubs=stubs)


_NONE: Stubs = {}


def _resolved(
    work: BarrelWork, write: Write, parent: Stubs, generation: int, *, replicated: bool = False, patch: bool = False
) -> Stubs | None:
    """The attachments of the revision that a write makes, whose new contents are there; None where it has none."""
    if write.attachments is None:
        return (parent or None) if patch else None
    for name, given in write.attachments.items():
        content = given.content if given is not None else None
        if content is not None and not work.holdings.is_held(content.sha256):
            work.holdings.hold([content.sha256])
            if not work.holdings.is_held(content.sha256):
                raise MissingStub(
                    f"The content of {shown(name)} was given up, as nobody referred to it for a while",
                    hint="Send the content again, and the document soon after it.",
                    name=name,
                    digest=content.digest,
                )
    stubs = resolve(write.attachments, parent, generation, work.holdings, replicated=replicated, patch=patch)
    return stubs or None


def _stubs_at(work: BarrelWork, state: DocState, revision: Revision) -> Stubs:
    """The attachments of a revision, as far as its body is still there."""
    if revision.key == state.winner.key:
        work.load_body(state)
        if state.body is not None:
            return stubs_of(state.body)
    found = work.find_rev(state, revision.key)
    return _NONE if found is None else stubs_of(found[3])


def _stubs_before(work: BarrelWork, state: DocState, path: Sequence[Revision]) -> Stubs:
    """The attachments of the nearest ancestor in a history whose body is here."""
    for revision in path[1:]:
        if revision.key == state.winner.key:
            return _stubs_at(work, state, revision)
        found = work.find_rev(state, revision.key)
        if found is not None and found[3] is not None:
            return stubs_of(found[3])
    return _NONE


def _merge(work: BarrelWork, state: DocState | None, write: Write, bytes_max: int) -> Written:
    if state is None:
        raise Missing(f"{write.id!r} was never written here", hint="Put the document first, or use set.")
    leaf = _leaf(state, write.rev, any_winner=True)
    base = _base_body(work, state, write.rev, leaf)
    before, text = split(base)
    data = merge_patch(decode(text), write.patch)
    check_values(data)
    body = canonical(data)
    if len(body) > bytes_max:
        raise TooLarge(f"With the patch the document has {len(body)} bytes; {bytes_max} are allowed")
    parent = leaf.revision if leaf is not None else write.rev
    assert parent is not None
    stubs = _resolved(work, write, before, parent.generation + 1, patch=True)
    if leaf is None:
        return _repeated(work, state, write.rev, False, body, stubs)
    if body == text and (stubs or _NONE) == before:
        return Written(write.id, str(leaf.revision), state.seq, unchanged=True)
    _check_expiry(work, False, data)
    return _extend(work, state, write.id, leaf, False, body, data, stubs=stubs)


def _attach(work: BarrelWork, state: DocState | None, write: Write, bytes_max: int) -> Written:
    """Put an attachment on a revision, or take one away; where there is no document, it begins with it."""
    assert write.attachments is not None
    ((name, given),) = write.attachments.items()
    there = state is not None and not state.deleted
    if write.rev is None and (state is None or state.deleted):
        if given is None:
            raise Missing(f"{write.id!r} was never written here") if state is None else _gone(state)
        before: Stubs = _NONE
    else:
        if state is None:
            return _put(work, None, write)  # which says why not
        before = split(_base_body(work, state, write.rev, _leaf(state, write.rev, any_winner=True)))[0]
    if given is None and name not in before:
        raise NotFound(f"{write.id!r} has no attachment {shown(name)}", hint="Read the document for those it has.")
    if write.instead is not None:
        now = before[name].meaning[1] if name in before else ""
        mine = given.content.sha256 if given is not None and given.content is not None else ""
        if now not in (write.instead, mine):
            raise Conflict(
                f"The attachment {shown(name)} of {write.id!r} was changed by somebody else meanwhile",
                hint="Look at what is there now, and send yours again if it is still wanted.",
            )
    if there or write.rev is not None:
        assert state is not None
        return _merge(work, state, write, bytes_max)
    leaf = state.winner if state is not None else None
    stubs = _resolved(work, write, _NONE, 1 if leaf is None else leaf.generation + 1)
    return _extend(work, state, write.id, leaf, False, b"{}", None, stubs=stubs)


def _base_body(work: BarrelWork, state: DocState, rev: Revision | None, leaf: Node | None) -> bytes:
    if leaf is not None:
        if leaf.deleted:
            raise _gone(state) if state.deleted else Deleted(f"The revision {rev} of {state.id!r} is a deletion")
        return state.body if leaf is state.winner and state.body is not None else work.body_of(state, leaf)
    assert rev is not None
    found = work.find_rev(state, rev.key)
    if found is None or found[3] is None:
        raise _stale(state, rev)
    return found[3]


def _delete(work: BarrelWork, state: DocState | None, write: Write) -> Written:
    if state is None:
        raise Missing(f"{write.id!r} was never written here")
    if write.rev is None:
        if state.deleted:
            raise _gone(state)
        raise Conflict(
            f"Deleting {write.id!r} needs the _rev that you mean to delete",
            hint=f"Send the current _rev ({state.winner.revision}) once you know that it may go.",
        )
    leaf = _leaf(state, write.rev)
    if leaf is None:
        return _repeated(work, state, write.rev, True, write.body)
    if leaf.deleted:
        raise Deleted(f"{write.id!r} is deleted already, by revision {write.rev}")
    return _extend(work, state, write.id, leaf, True, write.body, {})


def _gone(state: DocState) -> Deleted:
    """The refusal of what needs a living document, in the words of reading it."""
    how = "has expired" if state.expired else "was deleted"
    return Deleted(f"{state.id!r} {how}", rev=str(state.winner.revision))


def _leaf(state: DocState, rev: Revision | None, any_winner: bool = False) -> Node | None:
    """The leaf to extend; None when `rev` is no leaf. Conflict without `rev` on a live document."""
    if rev is None:
        if any_winner or state.deleted:
            return state.winner
        raise Conflict(
            f"{state.id!r} exists, and you sent no _rev",
            hint="Send its current _rev to update it, or write with update=true to extend whatever is there.",
        )
    for leaf in state.leaves:
        if leaf.generation == rev.generation and leaf.digest == rev.digest:
            return leaf
    return None


def _repeated(
    work: BarrelWork, state: DocState, rev: Revision | None, deleted: bool, body: bytes, stubs: Stubs | None = None
) -> Written:
    """The answer to a write that was accepted before; Conflict when it was not."""
    assert rev is not None
    told = next_revision(rev, deleted, body, hashed(stubs) if stubs else ())
    found = work.find_rev(state, told.key)
    if found is None or found[1] & MISSING:
        raise _stale(state, rev)
    return Written(state.id, str(told), found[2], repeated=True)


def _stale(state: DocState, rev: Revision | None) -> Conflict:
    return Conflict(f"{state.id!r} has changed: {rev} is not one of its current revisions")


def _extend(
    work: BarrelWork,
    state: DocState | None,
    document_id: str,
    parent: Node | None,
    deleted: bool,
    body: bytes,
    data: dict[str, Any] | None,
    expired: bool = False,
    stubs: Stubs | None = None,
) -> Written:
    """Put a new revision on a leaf, or begin the document with it."""
    named = hashed(stubs) if stubs else ()
    revision = next_revision(revision_of(parent) if parent is not None else None, deleted, body, named)
    if stubs:
        body, data = joined(stubs, body), None
    node = Node(revision.generation, revision.digest, parent.digest if parent is not None else None, deleted)
    lived = state is not None and not state.deleted
    if state is None or len(state.leaves) == 1:
        ordered: Sequence[Node] = (node,)
    elif work.find_rev(state, node.key) is not None:
        # It came by replication before, without a word on its parent: what is written here is that link.
        path = (revision, revision_of(parent)) if parent is not None else (revision,)
        known = Write(Verb.REPLICATE, document_id, revision, deleted, data, body, history=path, expired=expired)
        return _replicate(work, state, known, body)
    else:
        ordered = ordered_leaves([leaf for leaf in state.leaves if leaf is not parent] + [node])
    seq = work.seq + 1
    work.add_rev(state.doc if state is not None else seq, node, seq, body, OWN)
    if ordered[0] is node:
        work.change(state, document_id, ordered, body, data, expired)
    else:
        work.change(state, document_id, ordered, None, None, expired)
    return Written(document_id, str(revision), seq, created=not lived and not deleted)


def _replicate(work: BarrelWork, state: DocState | None, write: Write, body: bytes | None = None) -> Written:
    """Graft a revision as it was made elsewhere; `body` is the stored one, where that is known already."""
    assert write.rev is not None
    name = str(write.rev)
    path = write.history
    if state is None:
        tree = EMPTY
    else:
        found = work.find_rev(state, write.rev.key)
        line = len(state.leaves) == 1
        if found is not None and not found[1] & MISSING and (len(path) == 1 or (line and _old(work, state, path))):
            return Written(write.id, name, min(found[2], state.seq), repeated=True)
        if line and len(path) > 1 and path[1].key == state.winner.key and _old(work, state, path):
            tree, path = tree_of(state.leaves), path[:2]  # the usual case: one more upon the only leaf
        else:
            tree = work.tree(state)
    lived = state is not None and not state.deleted
    grafted = graft(tree, _near(tree, path, work.settings.revs_limit), write.deleted)
    data = write.data
    if body is None:
        body = write.body
        if write.attachments is not None and not grafted.already:
            parent = _stubs_before(work, state, path) if state is not None else _NONE
            stubs = _resolved(work, write, parent, write.rev.generation, replicated=True)
            body, data = joined(stubs or _NONE, body), None
    seq = work.seq + 1
    doc = state.doc if state is not None else seq
    told = None if grafted.already else write.rev.key
    for node in grafted.added:
        work.add_rev(doc, node, seq, body if node.key == told else None)
    for node in grafted.healed:
        assert state is not None
        work.heal_rev(state, node, seq, body if node.key == told else None)
    if grafted.healed:
        work.flush()  # so that the next write to the document reads the tree as it is now
    # What was healed may turn leaves into ancestors: a branch hangs from another, or its missing part came.
    ordered = ordered_leaves(leaves(grafted.tree))
    if state is not None and [leaf.key for leaf in ordered] == [leaf.key for leaf in state.leaves]:
        return Written(write.id, name, state.seq, repeated=grafted.already)
    if ordered[0].key == told:
        work.change(state, write.id, ordered, body, data, write.expired)
    else:
        work.change(state, write.id, ordered, None, None, write.expired)
    if grafted.already:
        return Written(write.id, name, seq, repeated=True)
    return Written(write.id, name, seq, created=not lived and not write.deleted)


def _old(work: BarrelWork, state: DocState, path: Sequence[Revision]) -> bool:
    """Whether a history tells no ancestor that is older than what is known of the document's only branch."""
    return path[: work.settings.revs_limit][-1].generation >= work.oldest(state)


def _near(tree: Tree, path: Sequence[Revision], limit: int) -> Sequence[Revision]:
    """The history as far back as it is kept, but never short of an ancestor that is known here."""
    if len(path) <= limit:
        return path
    known = next((at for at, revision in enumerate(path) if at > 0 and revision.key in tree), 0)
    return path[: max(limit, known + 1)]


def _expire(work: BarrelWork, state: DocState | None, write: Write) -> Written:
    if state is None or not _has_expired(work, state):
        return _as_it_is(work, state, write)
    return _extend(work, state, write.id, state.winner, True, b"{}", {}, expired=True)


def _as_it_is(work: BarrelWork, state: DocState | None, write: Write) -> Written:
    return Written(write.id, "" if state is None else str(state.winner.revision), work.seq, unchanged=True)


def _supersede(work: BarrelWork, state: DocState | None, write: Write) -> Written:
    stubs = None
    if state is not None and not state.deleted:
        _check_expiry(work, write.deleted, write.data)
        if write.attachments is not None:
            parent = write.rev or state.winner.revision
            stubs = _resolved(work, write, stubs_to_choose_from(work, state), parent.generation + 1)
    return supersede(work, state, write, stubs)
