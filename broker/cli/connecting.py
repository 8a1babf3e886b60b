"""Who answers a command: the service at a URL, or a store that is opened here. Only what is needed is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.cli.backend import Backend

__all__ = ["connect"]


def connect(url: str | None, database: str | None, *, create: bool = False, blobs: str | None = None) -> Backend:
    """The service at `url` (as `urls.service_url` takes it), or the store of `database`, opened, where that is given.

    With `create` a store that is missing is made; `blobs` is where its attachments are. Raises StoreLocked if another
    process holds the store, Unavailable if it cannot be opened.
    """
    if database is not None:
        from broker.cli.direct import DirectBackend

        return DirectBackend.open(database, create=create, blobs=blobs)
    from broker.cli.over_http import HttpBackend

    return HttpBackend.at(url)
