"""Many topic filters against one topic: who wants to hear it.

Pure, in memory, and not for several threads at once. Filters come in as levels that someone else has
validated (`feeds.patterns`, or the broker for plain MQTT); what a subscriber is, is the caller's.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from typing import Any, Generic, TypeVar

from feeds.errors import BadRequest

T = TypeVar("T", bound=Hashable)

# Keys of a trie node beside the literal levels. They are not text, so that no topic can name them.
_ONE = 1  # the node below `+`
_REST = 2  # the subscribers of a filter that goes on with `#`
_HERE = 3  # the subscribers of a filter that ends here

# A tuple of one subscriber takes 48 bytes where a set takes 216; most filters have one.
_TUPLE_MAX = 8


class Matcher(Generic[T]):
    """A trie of topic filters. A node is one dict: level -> node, and the three keys above.

    With `dollar`, wildcards in the first level do not match topics that begin with `$`, which is the rule
    for MQTT topics and not for paths.
    """

    __slots__ = ("_count", "_dollar", "_root")

    def __init__(self, *, dollar: bool = False) -> None:
        self._root: dict[Any, Any] = {}
        self._dollar = dollar
        self._count = 0

    def __len__(self) -> int:
        """How many pairs of filter and subscriber there are."""
        return self._count

    def add(self, levels: Sequence[str], subscriber: T) -> bool:
        """Let the subscriber hear what matches; False if it did with this filter already.

        BadRequest when the filter is empty or has levels after `#`.
        """
        if not levels or "#" in levels[:-1]:
            raise BadRequest(f"{'/'.join(levels)!r} is not a topic filter.", hint="Use `#` as the last level only.")
        node = self._root
        for level in levels[:-1]:
            node = node.setdefault(_ONE if level == "+" else level, {})
        key = _REST
        if levels[-1] != "#":
            node = node.setdefault(_ONE if levels[-1] == "+" else levels[-1], {})
            key = _HERE
        group: Collection[T] = node.get(key, ())
        if subscriber in group:
            return False
        if isinstance(group, set):
            group.add(subscriber)
        else:
            node[key] = (*group, subscriber) if len(group) < _TUPLE_MAX else {*group, subscriber}
        self._count += 1
        return True

    def remove(self, levels: Sequence[str], subscriber: T) -> bool:
        """Take back what `add` did, and the nodes that nobody needs any more; False if it was not there."""
        trail: list[tuple[dict[Any, Any], Any]] = []
        node = self._root
        rest = bool(levels) and levels[-1] == "#"
        for level in levels[:-1] if rest else levels:
            key = _ONE if level == "+" else level
            trail.append((node, key))
            if key not in node:
                return False
            node = node[key]
        last = _REST if rest else _HERE
        group: Collection[T] = node.get(last, ())
        if subscriber not in group:
            return False
        if len(group) == 1:
            del node[last]
        elif isinstance(group, set):
            group.remove(subscriber)
        else:
            node[last] = tuple(other for other in group if other != subscriber)
        for parent, key in reversed(trail):
            if parent[key]:
                break
            del parent[key]
        self._count -= 1
        return True

    def match(self, levels: Sequence[str]) -> set[T]:
        """Everyone with a filter that matches the topic or path of these levels, each once."""
        found: set[T] = set()
        nodes, levels = self._start(levels)
        for level in levels:
            below: list[dict[Any, Any]] = []
            for node in nodes:
                if _REST in node:
                    found.update(node[_REST])
                if level in node:
                    below.append(node[level])
                if _ONE in node:
                    below.append(node[_ONE])
            if not below:
                return found
            nodes = below
        for node in nodes:
            if _REST in node:
                found.update(node[_REST])
            if _HERE in node:
                found.update(node[_HERE])
        return found

    def could_match(self, prefix_levels: Sequence[str]) -> bool:
        """Whether any filter could match a topic that begins with these levels."""
        nodes, levels = self._start(prefix_levels)
        for level in levels:
            below: list[dict[Any, Any]] = []
            for node in nodes:
                if _REST in node:
                    return True
                if level in node:
                    below.append(node[level])
                if _ONE in node:
                    below.append(node[_ONE])
            nodes = below
        # Empty nodes are pruned, so that whatever stands here leads to a filter. Only the root may be empty.
        return any(nodes)

    def _start(self, levels: Sequence[str]) -> tuple[list[dict[Any, Any]], Sequence[str]]:
        """The nodes to begin at and the levels to go: past the first one where `$` forbids wildcards."""
        if self._dollar and levels and levels[0].startswith("$"):
            node = self._root.get(levels[0])
            return ([] if node is None else [node]), levels[1:]
        return [self._root], levels
