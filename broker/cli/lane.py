"""A thread that does one thing after the other, and keeps whoever gives it more than it can hold waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Queue
from typing import Generic, TypeVar

__all__ = ["Lane"]

T = TypeVar("T")


class Lane(Generic[T]):
    """Calls run in the order given, one at a time; `waiting_max` more may wait.

    The thread is a daemon: a command that was interrupted ends without waiting for a call on its way.
    """

    def __init__(self, name: str, *, waiting_max: int) -> None:
        self._calls: Queue[tuple[Callable[[], T], Future[T]] | None] = Queue(maxsize=waiting_max)
        self._closed = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """The answer to come. After a call has raised, later ones are not made but raise the same."""
        future: Future[T] = Future()
        self._calls.put((call, future))
        return future

    def close(self) -> None:
        """Make no more calls; waiting ones are cancelled."""
        self._closed.set()
        while not self._calls.empty():
            entry = self._calls.get_nowait()
            if entry is not None:
                entry[1].cancel()
        self._calls.put(None)

    def _run(self) -> None:
        while (entry := self._calls.get()) is not None:
            call, future = entry
            if self._closed.is_set():
                future.cancel()
                continue
            if self._failed is not None:
                future.set_exception(self._failed)
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - it is raised where the answer is taken
                self._failed = error
                future.set_exception(error)
