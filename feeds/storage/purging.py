"""Removing a document, or branches of it, here alone."""

from __future__ import annotations

from feeds.errors import Conflict, Missing
from feeds.storage.state import DocState
from feeds.storage.work import BarrelWork
from feeds.tree import Node, history, ordered_leaves
from feeds.writes import Write, Written


def purge(work: BarrelWork, state: DocState | None, write: Write) -> Written:
    """Remove the whole document without a trace, or only the branches that end in the leaves that are named."""
    if state is None:
        raise Missing(f"{write.id!r} was never written here")
    leaving = {rev.key for rev in write.leaves}
    unknown = leaving - {leaf.key for leaf in state.leaves}
    if unknown:
        raise Conflict(
            f"{write.id!r} has no leaf {', '.join(f'{g}-{d}' for g, d in sorted(unknown))}",
            hint="Purge takes leaves; read them with ?conflicts=true.",
        )
    work.flush()
    work.load_body(state)
    staying = [leaf for leaf in state.leaves if leaf.key not in leaving] if leaving else []
    if staying:
        return _purge_branches(work, state, staying)
    work.log_purge(write.id, state)
    paths = [(work.number(shape), value, state.doc, places) for shape, value, places in state.winner_paths()]
    for key in paths:
        work.run_delete(work.statements.delete_path, key)
    work.run_delete(work.statements.delete_revs, (work.barrel, state.doc))
    work.run_delete(work.statements.delete_doc, (work.barrel, state.doc))
    if state.deleted:
        work.deleted -= 1
    else:
        work.live -= 1
        work.bytes -= len(state.body or b"")
    work.states[write.id] = None
    return Written(write.id, str(state.winner.revision), work.seq)


def _purge_branches(work: BarrelWork, state: DocState, staying: list[Node]) -> Written:
    tree = work.tree(state)
    kept = {revision.key for leaf in staying for revision in history(tree, leaf.revision)}
    for key in tree.keys() - kept:
        work.run_delete(work.statements.delete_rev, (work.barrel, state.doc, *key))
    work.change(state, state.id, ordered_leaves(staying), None, None)
    return Written(state.id, str(state.winner.revision), work.seq)
