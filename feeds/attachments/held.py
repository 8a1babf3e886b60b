"""Which contents a barrel's documents have: what may be read by its digest.

Knowing a digest opens nothing of other barrels, nor of other documents to those who may read some of them only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from feeds.attachments.given import read_digest
from feeds.attachments.stubs import Content
from feeds.errors import BadRequest, NotFound
from feeds.faults import shown
from feeds.storage.holdings import holding_statements

if TYPE_CHECKING:
    from feeds.barrel import Barrel


def held_content(barrel: Barrel, digest: str, doc: str | None = None) -> Content:
    """The content of this digest (`sha256-<hex>`), if some revision of the barrel has it, or of the document `doc`;
    NotFound otherwise."""
    sha256, _ = read_digest(digest)
    if sha256 is None:
        raise BadRequest(f"{digest} is no sha256", hint="Ask by the `digest` of the attachment's stub.")
    store = barrel.store
    statements = holding_statements(store.statements)
    with store.database.reading() as connection:
        if doc is None:
            row = connection.exec_driver_sql(statements.held_by_digest, (barrel.key, sha256)).first()
        else:
            row = connection.exec_driver_sql(statements.held_by_doc, (barrel.key, sha256, doc)).first()
    if row is None:
        whose = f"No document of {barrel.name!r} has" if doc is None else f"The document {shown(doc)} does not have"
        raise NotFound(f"{whose} the content {digest}", hint="Read the document for what it has now.")
    return Content(*row)
