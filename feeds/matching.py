"""Which paths of a document match some patterns.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from feeds.matcher import Matcher
from feeds.paths import document_paths, id_levels
from feeds.patterns import Pattern

_decode = msgspec.json.Decoder().decode


class PathFilter:
    """Which paths of a document match some patterns."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self._matcher: Matcher[int] = Matcher()
        self._ids = False
        for number, pattern in enumerate(patterns):
            self._matcher.add(pattern.levels, number)
        self._ids = self._matcher.could_match(("_id",))
        self._own = any(pattern.levels[0] != "_id" for pattern in patterns)

    def matching(self, document_id: str, body: bytes | None, deleted: bool) -> list[str]:
        """The document's own paths that match, `_id/…` among them."""
        found = []
        if self._ids and self._matcher.match(("_id", *id_levels(document_id).split("/"))):
            found.append("_id/" + id_levels(document_id))
        if self._own and body is not None and not deleted and not document_id.startswith("_design/"):
            found.extend(self.among([path for path, _ in document_paths(_decode(body))]))
        return found

    def among(self, paths: Sequence[str]) -> list[str]:
        """Those of the paths that match."""
        match = self._matcher.match
        return [path for path in paths if match(path.split("/"))]
