"""Contents on their way in and out: how many at once, and the threads that wait for disks and object stores.

Apart from the threads that read documents, so that who stores or fetches large contents slows no one else.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from broker.http.services import HttpLimits
from broker.regulation import Limit

_STEPS: Final = 16  # pieces read or documents' attachments stored at the same moment; each takes milliseconds


class Transfers:
    """The bounds and the threads of one HTTP face. A thread is begun when it is first needed."""

    def __init__(self, limits: HttpLimits) -> None:
        self.uploads = Limit("http_uploads", limits.uploads_max)
        self.downloads = Limit("http_downloads", limits.downloads_max)
        self.uploading = ThreadPoolExecutor(limits.uploads_max, "spile-upload")
        """A thread for each upload, from its first byte to its last."""
        self.stepping = ThreadPoolExecutor(_STEPS, "spile-contents")
        """For what ends soon."""

    def close(self) -> None:
        """Let the threads end; no request needs them any more."""
        for threads in (self.uploading, self.stepping):
            threads.shutdown(wait=True)


class Place:
    """A place in a limit, given back once."""

    __slots__ = ("_give",)

    def __init__(self, limit: Limit, client: str, amount: int = 1) -> None:
        """Overloaded where there is none."""
        limit.take(amount, client)
        self._give: Callable[[], None] | None = lambda: limit.give(amount, client)

    def release(self) -> None:
        """It is free again."""
        give, self._give = self._give, None
        if give is not None:
            give()
