"""Contents by their digest, for replicators: of a barrel those that its documents have, and no others."""

from __future__ import annotations

from collections.abc import Iterator

from broker.http.answers import AnyAnswer
from broker.http.call import Call
from broker.http.contents import IMMUTABLE, Found, content_answer
from broker.http.endpoint import route
from feeds.attachments.held import held_content
from feeds.attachments.stubs import DEFAULT_TYPE, SHA256


async def get_blob(call: Call) -> AnyAnswer:
    """The content with this sha256, if some revision in the barrel has it."""
    name = call.param("barrel")
    call.allow("read", name)
    barrel = call.services.store.barrel(name)
    digest = SHA256 + call.param("sha256").removeprefix(SHA256)
    content = await call.in_step(held_content, barrel, digest)

    def read(offset: int, length: int) -> Iterator[bytes]:
        return barrel.store.blobs.read(content.sha256, offset, length)

    return await content_answer(call, Found(content, content.sha256, DEFAULT_TYPE, read, cache=IMMUTABLE))


ROUTES = [route("GET", "/barrels/{barrel}/blobs/{sha256}", "get_blob", get_blob)]
