"""Contents by their digest, for replicators: of a barrel those that its documents have, and no others.

Whoever may read some documents only asks for those of one of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from broker.http.answers import AnyAnswer
from broker.http.call import Call
from broker.http.contents import IMMUTABLE, Found, content_answer
from broker.http.documents import document_path
from broker.http.endpoint import route
from feeds.attachments.held import held_content
from feeds.attachments.stubs import DEFAULT_TYPE, SHA256
from feeds.body import check_id


async def get_blob(call: Call) -> AnyAnswer:
    """The content with this sha256, if some revision in the barrel has it, or one of the document `doc`."""
    name, doc = call.param("barrel"), call.options().text("doc")
    call.allow("read", name, "#" if doc is None else document_path(check_id(doc)))
    barrel = call.services.store.barrel(name)
    digest = SHA256 + call.param("sha256").removeprefix(SHA256)
    content = await call.in_step(held_content, barrel, digest, doc)

    def read(offset: int, length: int) -> Iterator[bytes]:
        return barrel.store.blobs.read(content.sha256, offset, length)

    return await content_answer(call, Found(content, content.sha256, DEFAULT_TYPE, read, cache=IMMUTABLE))


ROUTES = [route("GET", "/barrels/{barrel}/blobs/{sha256}", "get_blob", get_blob, ("doc",))]
