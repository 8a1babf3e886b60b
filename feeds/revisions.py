"""What a revision is called, and how the name of a new one is worked out.

Pure: text and bytes in, values out. How revisions hang together is in `feeds.tree`; what a canonical
body is, is decided by the documents.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b

import msgspec

from feeds.errors import BadRequest

GENERATION_MAX = 2**31 - 1
DIGEST_CHARACTERS_MAX = 128

# White space, control characters, commas, quotes, backslashes and lone surrogates would break headers, ETags, lists
# and the JSON that a revision is put into as it is.
_REVISION = re.compile(r"([1-9][0-9]{0,9})-([^\s\x00-\x1f\x7f-\x9f,\"'\\\ud800-\udfff]{1,128})")
_SHOWN_CHARACTERS_MAX = 80


class Revision(msgspec.Struct, frozen=True):
    """The name of one version of a document: `N-text`.

    `generation` is N, one more than the parent's; `digest` is 32 lower hex digits when made here, and any
    text as given when replicated.
    """

    generation: int
    digest: str

    @classmethod
    def parse(cls, text: object) -> Revision:
        """The revision that a peer or a user wrote as `N-text`; BadRequest if it is none."""
        found = _REVISION.fullmatch(text) if isinstance(text, str) else None
        if found is None or (generation := int(found[1])) > GENERATION_MAX:
            raise BadRequest(
                f"{repr(text)[:_SHOWN_CHARACTERS_MAX]} is not a revision.",
                hint="A revision is N-text as Spile gave it, such as 2-5f0c…: N counts from 1 to 2147483647, "
                f"the text has 1 to {DIGEST_CHARACTERS_MAX} characters without spaces, commas, quotes, backslashes.",
            )
        return cls(generation, found[2])

    @property
    def key(self) -> tuple[int, str]:
        """What revisions are compared by: generation, then digest in byte order.

        Python compares text by code point, and that is the order of its UTF-8 bytes.
        """
        return (self.generation, self.digest)

    def __str__(self) -> str:
        return f"{self.generation}-{self.digest}"


def revision_digest(
    deleted: bool, parent: str | None, body: bytes, attachments: Sequence[tuple[str, str, str]] = ()
) -> str:
    """The 32 lower hex digits (128 bits) that name a new revision.

    `parent` is the parent revision as text, `body` the canonical JSON, and each attachment its name, its
    type, and the sha256 of its plain bytes (or its link). Equal edits get equal names on every replica:
    attachments count in the order of their names, and every part is framed by its length.
    """
    digest = blake2b(digest_size=16, person=b"spile-rev-1")
    lineage = b"" if parent is None else b"+" + parent.encode()
    digest.update(b"%d%d:%b%d:" % (deleted, len(lineage), lineage, len(body)))
    digest.update(body)
    for attachment in sorted(attachments):
        for part in attachment:
            text = part.encode()
            digest.update(b"%d:%b" % (len(text), text))
    return digest.hexdigest()


def next_revision(
    parent: Revision | None, deleted: bool, body: bytes, attachments: Sequence[tuple[str, str, str]] = ()
) -> Revision:
    """The revision that an edit of `parent` makes, or the first one of a document without parent.

    Arguments as for `revision_digest`. BadRequest when the parent's generation is the last there can be.
    """
    if parent is None:
        return Revision(1, revision_digest(deleted, None, body, attachments))
    if parent.generation >= GENERATION_MAX:
        raise BadRequest(
            f"Revision {parent} is of the last generation there can be.",
            hint="Purge the document and write it again.",
        )
    return Revision(parent.generation + 1, revision_digest(deleted, str(parent), body, attachments))
