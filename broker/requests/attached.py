"""Attachments in what is written: contents that come inline, or were uploaded, are stored before their document is.

Blocking work goes to the readers' threads; the client's turn is held meanwhile, so that its writes keep their order.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from feeds import Barrel, Write
from feeds.errors import SpileError

if TYPE_CHECKING:
    from broker.requests.serving import Asked, Serving


async def with_contents(serving: Serving, asked: Asked, barrel: Barrel, write: Write) -> Write:
    """The write with its contents stored; raises what is wrong with them."""
    if not write.is_waiting:
        return write
    named = _by_id(serving, asked, write)
    (stored,) = await serving.in_thread(lambda: barrel.absorb([named], who=asked.who))
    return stored


async def all_with_contents(
    serving: Serving, asked: Asked, barrel: Barrel, prepared: list[Write | SpileError]
) -> list[Write | SpileError]:
    """The same of many writes: what is wrong with one stands in its place."""
    if not any(isinstance(each, Write) and each.is_waiting for each in prepared):
        return prepared
    named = [_by_id(serving, asked, each) if isinstance(each, Write) else each for each in prepared]
    return await serving.in_thread(lambda: barrel.absorb_each(named, who=asked.who))


def _by_id(serving: Serving, asked: Asked, write: Write) -> Write:
    """The write with the store's ids in place of the client's own names for uploads."""
    given = write.attachments or {}
    if not any(each is not None and each.upload is not None for each in given.values()):
        return write
    client, barrel = asked.client.name, asked.place.barrel
    found = {
        name: each
        if each is None or each.upload is None
        else replace(each, upload=serving.names.id(client, barrel, each.upload))
        for name, each in given.items()
    }
    return msgspec.structs.replace(write, attachments=found)
