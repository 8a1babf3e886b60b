"""Putting a revision into its tree, as it was written elsewhere or here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from feeds.errors import BadRequest
from feeds.revisions import Revision
from feeds.tree.merge import join
from feeds.tree.model import Key, Node, Tree


@dataclass(frozen=True, slots=True)
class Grafted:
    """What grafting a revision did.

    `tree` is the very tree that was given where nothing was new. `added` are the nodes it did not have,
    newest first: the revision itself, then ancestors known by name only. `healed` are the nodes it had and
    that say more now, as they stand in the new tree: linked to a parent, or no longer missing. `already`
    says that the revision's content was there before, so that there is no body to store.
    """

    tree: Tree
    added: tuple[Node, ...]
    healed: tuple[Node, ...]
    already: bool


def graft(tree: Tree, path: Sequence[Revision], deleted: bool) -> Grafted:
    """The tree with the first revision of `path`, whose further ones are its ancestors, newest first.

    The revision is kept as named and hangs from its nearest known ancestor; unknown ancestors are filled in
    as missing. Nodes that knew no parent are linked where the path tells one, so that the order in which
    histories arrive does not matter. Twice changes nothing. The path may be as short as the revision and its
    parent where that is in the tree. BadRequest when the path is empty or skips a generation.
    """
    _check(path)
    newest = tree.get(path[0].key)
    already = newest is not None and not newest.missing
    if newest is not None and already:
        # The name stands for the content: whoever tells another content under it is not believed.
        deleted = newest.deleted
    grown: dict[Key, Node] | None = None
    added: list[Node] = []
    healed: list[Node] = []
    for at, revision in enumerate(path):
        parent = path[at + 1].digest if at + 1 < len(path) else None
        known = tree.get((revision.generation, revision.digest))
        if known is not None and known.parent == parent and (already or at > 0):
            continue
        told = Node(revision.generation, revision.digest, parent, at == 0 and deleted, at > 0)
        node = told if known is None else join(known, told)
        if node is not known:
            (added if known is None else healed).append(node)
            grown = dict(tree) if grown is None else grown
            grown[node.key] = node
    return Grafted(tree if grown is None else grown, tuple(added), tuple(healed), already)


def _check(path: Sequence[Revision]) -> None:
    if not path:
        raise BadRequest("A history without revisions.", hint="Begin it with the revision itself.")
    generations = [revision.generation for revision in path]
    if generations != list(range(generations[0], generations[0] - len(path), -1)) or generations[-1] < 1:
        raise BadRequest(
            f"The history of {path[0]} does not count down by one.",
            hint="List the revision and its ancestors, newest first, without leaving one out; the last is at "
            "least of generation 1.",
        )
