"""A listener with a callback: each change is told, tried again, and acknowledged after the callback returned."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, TypeVar

from feeds.errors import BadRequest, SpileError
from listeners.callbacks import Retries, call_until_done
from listeners.changes import Change, Snapshot
from listeners.dead_letters import BarrelDeadLetters, DeadLetters, FileDeadLetters
from listeners.following import PATIENCE_S
from listeners.listening import Listening, OnSnapshot, listen
from listeners.source import Source
from listeners.stream.messages import BYTES_DEFAULT, WINDOW_DEFAULT, Attachments

T = TypeVar("T")
log = logging.getLogger("spile.listeners")


class Listener:
    """Calls `callback` with each change of a feed, in order, one at a time.

    A callback that fails is called again, `retries.attempts` times in all. Then the listener stops with what was
    raised (`on_error="stop"`), or keeps the change as a dead letter and goes on (`"dead_letter"`). With a name it
    goes on after a restart where it was; a change may then be told again, never left out.
    """

    def __init__(
        self,
        source: Source,
        patterns: Iterable[str],
        callback: Callable[[Change], object],
        *,
        name: str | None = None,
        since: str | int | None = None,
        docs: bool = True,
        attachments: Attachments = "stubs",
        follow: bool = True,
        window: int = WINDOW_DEFAULT,
        bytes: int = BYTES_DEFAULT,
        token: str | None = None,
        patience_s: float | None = PATIENCE_S,
        on_error: Literal["stop", "dead_letter"] = "stop",
        dead_letters: DeadLetters | str | Path | None = None,
        retries: Retries | None = None,
        on_snapshot_start: OnSnapshot | None = None,
        on_snapshot_end: OnSnapshot | None = None,
    ) -> None:
        """As `listen`, with a callback. `dead_letters` is a place for them or a file's path; a named listener to a
        `Barrel` keeps them with the barrel if nothing is given. BadRequest when there is no place for them."""
        self._callback = callback
        self._retries = retries or Retries()
        self._stop = threading.Event()
        self._on_snapshot = {"start": on_snapshot_start, "end": on_snapshot_end}
        self.dead_letters = _letters(source, name, dead_letters) if on_error == "dead_letter" else None
        self.failures = 0
        """How often the callback has failed."""
        self._open: Callable[[], Listening] = lambda: listen(
            source,
            patterns,
            since=since,
            name=name,
            docs=docs,
            attachments=attachments,
            follow=follow,
            window=window,
            bytes=bytes,
            token=token,
            patience_s=patience_s,
            on_snapshot_start=lambda boundary: self._boundary("start", boundary),
            on_snapshot_end=lambda boundary: self._boundary("end", boundary),
        )
        self._listening: Listening | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._lock = threading.Lock()

    def run(self) -> None:
        """Listen here until the feed ends, `stop` is called, or something cannot be helped, which is raised:
        what the callback raised, or what `listen` raises."""
        with self._lock:
            if self._stop.is_set():
                return
            self._listening = self._open()
        with self._listening as changes:
            for change in changes:
                if not self._tell(change):
                    break
                changes.acknowledge()

    def start(self) -> Listener:
        """Listen in a thread of its own; what went wrong is raised by `join`."""
        self._thread = threading.Thread(target=self._run_quietly, name="spile listener", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """End after the change that is being told, and wait for it, unless it is the callback that calls this."""
        with self._lock:
            self._stop.set()
            listening = self._listening
        if listening is not None:
            listening.stop_soon()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until a started listener has ended; False if it has not yet. Raises what ended it."""
        if self._thread is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                return False
        if self._error is not None:
            raise self._error
        return True

    @property
    def position(self) -> str | None:
        """Up to where everything is acknowledged; None before the service has answered."""
        return None if self._listening is None else self._listening.position

    def _tell(self, change: Change) -> bool:
        """Whether the listener goes on, with the change done or put aside."""
        try:
            self._call(self._callback, change, repr(change.id))
        except Exception as error:
            self.failures += 1
            if self.dead_letters is None or self._stop.is_set():
                if self._stop.is_set():
                    log.info("Stopped while %s failed: %s", change.id, error)
                    return False
                error.add_note(f"The callback failed {self._retries.attempts} times for {change.id!r}.")
                raise
            log.warning("The change %s of %r is a dead letter: %s", change.position, change.id, error)
            self.dead_letters.add(change, error)
        return True

    def _boundary(self, which: str, boundary: Snapshot) -> None:
        callback = self._on_snapshot[which]
        if callback is not None:
            self._call(callback, boundary, f"the snapshot's {which}")

    def _call(self, callback: Callable[[T], object], value: T, name: str) -> None:
        """Call it until it returns; the log says for what it failed."""

        def failed(error: BaseException, attempt: int) -> None:
            self.failures += 1
            attempts = self._retries.attempts
            log.info("The callback failed for %s (attempt %d of %d): %s", name, attempt, attempts, error)

        call_until_done(callback, value, self._retries, self._stop, failed)

    def _run_quietly(self) -> None:
        try:
            self.run()
        except SpileError as error:
            self._error = error
        except Exception as error:
            log.exception("The listener stopped")
            self._error = error


def _letters(source: Source, name: str | None, given: DeadLetters | str | Path | None) -> DeadLetters:
    if isinstance(given, str | Path):
        return FileDeadLetters(given)
    if given is not None:
        return given
    if name is not None and not isinstance(source, str | Path):
        from feeds.barrel import Barrel

        if isinstance(source, Barrel):
            return BarrelDeadLetters(source, name)
    raise BadRequest(
        "There is no place for dead letters.", hint="Name a file in `dead_letters`, or listen to a Barrel by name."
    )
