"""What becomes of a document in conflict under a rule: which leaf stands in the end, and which ones end.

Replicas that know the same leaves come to the very same revisions. And they come to rest: a revision is made only for
a content that no leaf has, and a function of a program's own has to absorb what it merged already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from feeds.errors import SpileError
from feeds.merging.leaf import LiveLeaf, Merged
from feeds.merging.rules import Rule
from feeds.revisions import Revision


@dataclass(frozen=True, slots=True)
class Settlement:
    """The leaf that stands in the end, and those that end with a deletion.

    `parent` is the leaf that it is written upon, None where it is one of them.
    """

    leaf: LiveLeaf
    parent: Revision | None
    ended: tuple[Revision, ...]


@dataclass(frozen=True, slots=True)
class Unsettled:
    """Why the conflict stays."""

    reason: str


def settle(
    leaves: Sequence[LiveLeaf], rule: Rule, bytes_max: int, *, proven: bool = False
) -> Settlement | Unsettled | None:
    """What the rule makes of two live leaves or more; None where it wants them to be left.

    A rule that is not `proven` is tried on its own result: merged once more with any of the leaves it has to stay as
    it is. Otherwise replicas that merge in different orders would come to different documents, and in a ring of them
    never to rest.
    """
    ordered = sorted(leaves, key=lambda leaf: leaf.revision.key, reverse=True)
    try:
        merged = rule(ordered)
        if merged is None:
            return None
        if len(merged.text) > bytes_max:
            return Unsettled(f"the merged document has {len(merged.text)} bytes; {bytes_max} are allowed")
        there = next((leaf for leaf in ordered if leaf.meaning == merged.meaning), None)
        parent = None if there is not None else ordered[0].revision
        leaf = there if parent is None else merged.upon(parent)
        assert leaf is not None
        others = [each for each in ordered if each is not there]
        if not proven and not all(_absorbs(rule, leaf, each) for each in others):
            return Unsettled(
                "the rule does not absorb what it merged: its result, merged once more with one of the leaves, is "
                "another one"
            )
    except SpileError as error:
        return Unsettled(error.reason)
    except Exception as error:  # noqa: BLE001 - a program's own function: whatever it raises, the leaves stay
        return Unsettled(f"{type(error).__name__}: {error}")
    return Settlement(leaf, parent, tuple(each.revision for each in others if each.revision != parent))


def _absorbs(rule: Rule, leaf: LiveLeaf, merged_before: LiveLeaf) -> bool:
    pair: list[LiveLeaf] = sorted((leaf, merged_before), key=lambda each: each.revision.key, reverse=True)
    again: Merged | None = rule(pair)
    return again is not None and again.meaning == leaf.meaning
