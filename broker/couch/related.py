"""Documents that come as `multipart/related`, their contents behind them, plain or compressed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from broker.couch.writing import told_of_write
from broker.http.call import Call
from broker.http.intake import body_through
from broker.http.related import read_related
from feeds import Barrel, Write
from feeds.attachments.given import INLINE_TEXT_MAX
from feeds.errors import SpileError


async def related_write(call: Call, barrel: Barrel, boundary: str, made: Callable[[bytes], Write]) -> Write:
    """The write of a body whose document `made` reads, with all its contents stored."""
    limits = call.services.limits
    text_max = limits.document_bytes_max + INLINE_TEXT_MAX

    def take(body: Iterable[bytes]) -> Write:
        came = read_related(body, boundary, barrel, made, text_max, limits.attachment_bytes_max)
        try:
            (write,) = barrel.absorb((came.write,), follows=came.follows, who=call.who)
        except SpileError as error:
            error.details.setdefault("id", came.write.id)
            raise told_of_write(error) from error
        return write

    return await body_through(call, take, limits.attachment_bytes_max + text_max)
