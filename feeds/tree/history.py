"""The way from a revision back to its oldest known ancestor."""

from __future__ import annotations

from collections.abc import Sequence

from feeds.errors import BadRequest, NotFound
from feeds.revisions import Revision
from feeds.tree.model import Tree


def history(tree: Tree, revision: Revision) -> tuple[Revision, ...]:
    """The revision and its ancestors as far as the tree knows them, newest first.

    NotFound when the tree does not know the revision.
    """
    node = tree.get(revision.key)
    if node is None:
        raise NotFound(f"Revision {revision} is not known here.", hint="Check the revision, or replicate it.")
    path: list[Revision] = []
    while node is not None:
        path.append(Revision(node.generation, node.digest))
        node = None if node.parent is None else tree.get((node.generation - 1, node.parent))
    return tuple(path)


def lineage(start: int, digests: Sequence[str]) -> tuple[Revision, ...]:
    """The path that a document's `_revisions` tells, newest first, for `graft`.

    `start` is the generation of the first digest; each further digest is its parent's. BadRequest when
    there are none, more than generations, or one that cannot stand in a revision.
    """
    if not 0 < len(digests) <= start:
        raise BadRequest(
            f"_revisions starts at {start} and names {len(digests)} revisions.",
            hint="Name the revision and its ancestors, newest first, at most as many as `start` says.",
        )
    return tuple(Revision.parse(f"{start - at}-{digest}") for at, digest in enumerate(digests))
