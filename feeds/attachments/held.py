"""Which contents a barrel's documents have: what may be read by digest alone, without the name of a document.

Knowing a digest opens nothing of other barrels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from feeds.attachments.given import read_digest
from feeds.attachments.stubs import Content
from feeds.errors import BadRequest, NotFound
from feeds.storage.holdings import holding_statements

if TYPE_CHECKING:
    from feeds.barrel import Barrel


def held_content(barrel: Barrel, digest: str) -> Content:
    """The content of this digest (`sha256-<hex>`), if some revision of the barrel has it; NotFound otherwise."""
    sha256, _ = read_digest(digest)
    if sha256 is None:
        raise BadRequest(f"{digest} is no sha256", hint="Ask by the `digest` of the attachment's stub.")
    store = barrel.store
    with store.database.reading() as connection:
        sql = holding_statements(store.statements).held_by_digest
        row = connection.exec_driver_sql(sql, (barrel.key, sha256)).first()
    if row is None:
        raise NotFound(
            f"No document of {barrel.name!r} has the content {digest}", hint="Read the document for what it has now."
        )
    return Content(*row)
