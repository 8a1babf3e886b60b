"""What a merge rule is given, and what it may make of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from feeds.attachments.stubs import Stubs, hashed, joined, split
from feeds.revisions import Revision, next_revision

_decode = msgspec.json.Decoder().decode

Meaning = tuple[bytes, tuple[tuple[str, str, str], ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """A content: the canonical JSON of the user's keys, and attachments."""

    text: bytes
    attachments: Stubs

    @property
    def doc(self) -> dict[str, Any]:
        """The user's keys, decoded anew: whoever changes it changes nothing."""
        found: dict[str, Any] = _decode(self.text)
        return found

    @property
    def body(self) -> bytes:
        """The content as it is stored."""
        return joined(self.attachments, self.text)

    @property
    def meaning(self) -> Meaning:
        """What takes part in a revision's digest; whoever agrees in it has the same content."""
        return self.text, tuple(sorted(hashed(self.attachments)))

    def upon(self, parent: Revision) -> LiveLeaf:
        """The leaf that this content makes as a revision of `parent`."""
        revision = next_revision(parent, False, self.text, hashed(self.attachments))
        return LiveLeaf(self.text, self.attachments, revision)


@dataclass(frozen=True, slots=True, eq=False)
class LiveLeaf(Merged):
    """A live leaf with its content."""

    revision: Revision

    @classmethod
    def of(cls, revision: Revision, body: bytes) -> LiveLeaf:
        """The leaf of this stored body."""
        attachments, text = split(body)
        return cls(text, attachments, revision)

    @property
    def rev(self) -> str:
        """Its revision as text."""
        return str(self.revision)
