"""Who has subscribed to what: a trie of topic filters, with the QoS each session asked for.

In memory, for one event loop. Filters come in validated. Matches are told in two parts, since filters that begin
with a wildcard reach topics that their owner may not read, and are asked about at delivery.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class _Node(Generic[T]):
    __slots__ = ("below", "children", "here", "one")

    def __init__(self) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.one: _Node[T] | None = None  # what follows a `+`
        self.here: dict[T, int] | None = None  # subscribers of a filter that ends here, with their QoS
        self.below: dict[T, int] | None = None  # the same for a filter that goes on with `#`

    def empty(self) -> bool:
        return not (self.children or self.one or self.here or self.below)


class Subscriptions(Generic[T]):
    """Filters of many subscribers. `version` changes with every change of the filters."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()
        self._wants: dict[str, bool] = {}
        self.version = 0
        self.count = 0

    def add(self, topic_filter: str, subscriber: T, qos: int) -> None:
        """Subscribe, or change the QoS of a subscription that is there."""
        levels = topic_filter.split("/")
        rest = levels[-1] == "#"
        node = self._root
        for level in levels[:-1] if rest else levels:
            if level == "+":
                node.one = node.one or _Node()
                node = node.one
            else:
                node = node.children.setdefault(level, _Node())
        if rest:
            node.below = subscribers = node.below if node.below is not None else {}
        else:
            node.here = subscribers = node.here if node.here is not None else {}
        self.count += subscriber not in subscribers
        subscribers[subscriber] = qos
        self._changed()

    def remove(self, topic_filter: str, subscriber: T) -> bool:
        """Take a subscription back, and the nodes nobody needs any more; False if it was not there."""
        levels = topic_filter.split("/")
        rest = levels[-1] == "#"
        trail: list[tuple[_Node[T], str]] = []
        node = self._root
        for level in levels[:-1] if rest else levels:
            following = node.one if level == "+" else node.children.get(level)
            if following is None:
                return False
            trail.append((node, level))
            node = following
        subscribers = node.below if rest else node.here
        if subscribers is None or subscriber not in subscribers:
            return False
        del subscribers[subscriber]
        if not subscribers:
            if rest:
                node.below = None
            else:
                node.here = None
        for parent, level in reversed(trail):
            child = parent.one if level == "+" else parent.children[level]
            if child is None or not child.empty():
                break
            if level == "+":
                parent.one = None
            else:
                del parent.children[level]
        self.count -= 1
        self._changed()
        return True

    def match(self, topic: str) -> tuple[list[dict[T, int]], list[dict[T, int]]]:
        """The subscribers of matching filters, a dict (subscriber -> QoS) for each filter, not to be changed.

        First of the filters whose first level is literal, then of those that begin with a wildcard.
        """
        levels = topic.split("/")
        narrow: list[dict[T, int]] = []
        wide: list[dict[T, int]] = []
        root = self._root
        first = root.children.get(levels[0])
        if first is not None:
            _walk(first, levels, narrow)
        if not topic.startswith("$"):
            if root.one is not None:
                _walk(root.one, levels, wide)
            if root.below is not None:
                wide.append(root.below)
        return narrow, wide

    def could_match(self, prefix: str) -> bool:
        """Whether any filter could match a topic that begins with these levels; remembered until a change."""
        known = self._wants.get(prefix)
        if known is None:
            if len(self._wants) >= 10_000:
                self._wants.clear()
            known = self._wants[prefix] = self._could_match(prefix.split("/"))
        return known

    def levels(self, prefix: str) -> frozenset[str] | None:
        """Which level may follow these in a topic that some filter matches; None where any may."""
        nodes = self._nodes_of(prefix.split("/"))
        if nodes is None or any(node.below is not None or node.one is not None for node in nodes):
            return None
        return frozenset(level for node in nodes for level in node.children)

    def _could_match(self, levels: list[str]) -> bool:
        nodes = self._nodes_of(levels)
        return nodes is None or any(not node.empty() for node in nodes)

    def _nodes_of(self, levels: list[str]) -> list[_Node[T]] | None:
        """Where filters stand that go on behind these levels; None where one of them takes whatever follows."""
        nodes = [self._root]
        for depth, level in enumerate(levels):
            following: list[_Node[T]] = []
            for node in nodes:
                wildcards = depth > 0 or not level.startswith("$")
                if node.below is not None and wildcards:
                    return None
                child = node.children.get(level)
                if child is not None:
                    following.append(child)
                if node.one is not None and wildcards:
                    following.append(node.one)
            nodes = following
        return nodes

    def _changed(self) -> None:
        self.version += 1
        if self._wants:
            self._wants.clear()


def _walk(start: _Node[T], levels: list[str], found: list[dict[T, int]]) -> None:
    """Add the subscribers below a node, of filters that match from the second level on."""
    node, place, end = start, 1, len(levels)
    branches: list[tuple[_Node[T], int]] = []  # still to be gone through, each from its level on
    while True:
        for at in range(place, end):
            if node.below is not None:
                found.append(node.below)
            child, one = node.children.get(levels[at]), node.one
            if child is None:
                if one is None:
                    break
                node = one
            else:
                if one is not None:
                    branches.append((one, at + 1))
                node = child
        else:
            if node.here is not None:
                found.append(node.here)
            if node.below is not None:
                found.append(node.below)
        if not branches:
            return
        node, place = branches.pop()
