"""The upkeep of attachments' contents in a service, collected and scrubbed a part at a time, and how they are.

It runs beside the upkeep of the database, so that an object store that is away holds up nothing else. What there is
to do is known to the store; here it is done every so often, watched, and told.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from broker.health import PartHealth, told_of
from broker.perseverance import Perseverance, Undertaking
from feeds import Store
from feeds.attachments.removing import folder_of
from feeds.blobs import CHUNK_BYTES_MAX
from feeds.blobs.handles import refusal
from feeds.errors import SpileError

log = logging.getLogger("spile.contents")

LOOK_S = 10.0  # between two counts of what is kept, some milliseconds each, and between two steps of scrubbing
SCRUB_S_MIN = 1.0  # between two steps, where many bytes are read
_SCRUB_STEP_BYTES = 8 * 1024 * 1024

_SHARED = (
    "Several processes of one store need one place for attachments: give each the same --blobs, such as "
    "file:///shared/folder or s3://bucket/prefix?endpoint=…."
)
_DAMAGED = "Attach the same files again, which mends them, or restore a backup. `spile check` names them."
_ROUND = Undertaking("upkeep of attachments", "Documents are served; attachments are, when their place is back.")


class ContentsPart:
    """Looks after the contents of one store every so often. To be made on the event loop that it is used on."""

    def __init__(self, store: Store, place: str | Path | None, every_s: float, scrub_bytes_per_second: int) -> None:
        self._store = store
        self._scrub_rate = scrub_bytes_per_second
        self._scrubbed_at = time.monotonic()
        self._step_s = min(LOOK_S, every_s, max(SCRUB_S_MIN, _SCRUB_STEP_BYTES / max(1, scrub_bytes_per_second)))
        self._folder = folder_of(place) if place is not None else _beside(store)
        self._every_s = every_s
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="spile-contents")
        self._perseverance = Perseverance(log)
        self._stopping = asyncio.Event()
        self._fault: SpileError | None = None
        self._looked: dict[str, int] = {}
        self._working: dict[str, Any] = {}
        self._last: dict[str, int] = {}
        self._rounds = 0
        self.task = asyncio.create_task(self._run(), name="spile-contents")

    def stats(self) -> Mapping[str, Any]:
        """Figures of what is kept and on its way, some seconds old, and what the last round did."""
        last = {f"last_{_short(name)}": did for name, did in self._last.items()}
        return {**self._working, **self._looked, "rounds": self._rounds, **last}

    def health(self) -> PartHealth:
        """Whether attachments are served, and what is known to be damaged."""
        figures = {**self._looked, "rounds": self._rounds}
        if self._fault is not None:
            return PartHealth("failing", self._fault.reason, self._fault.hint, figures)
        told = told_of(self.task, self._perseverance.obstacle, figures)
        damaged = self._looked.get("damaged", 0)
        if told.state == "running" and damaged:
            return PartHealth("running", f"{damaged} contents of attachments are damaged", _DAMAGED, figures)
        return told

    async def stop(self) -> None:
        """End after the round that is running."""
        self._stopping.set()
        self._perseverance.stop()
        await asyncio.wait([self.task])
        self._executor.shutdown()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            try:
                self._last = await self._perseverance.carry(
                    _ROUND, lambda: loop.run_in_executor(self._executor, self._round)
                )
                self._fault = None
                self._rounds += 1
            except SpileError as error:
                if not error.retryable:
                    self._fault = told_of_sharing(self._store, error)
                log.warning("%s failed, and is tried later: %s", _ROUND.name, error.reason)
            ends = loop.time() + self._every_s
            while loop.time() < ends and not self._stopping.is_set():
                try:
                    async with asyncio.timeout(self._step_s):
                        await self._stopping.wait()
                except TimeoutError:
                    await loop.run_in_executor(self._executor, self._between)

    def _round(self) -> dict[str, int]:
        done = self._store.blobs.round(scrub_bytes=0)
        self._look()
        return done

    def _between(self) -> None:
        """What is done between two rounds. What hinders it hinders the next one as well, which tells."""
        try:
            self._scrub()
            self._look()
        except SpileError as error:
            log.debug("the contents of attachments cannot be looked at: %s", error.reason)

    def _scrub(self) -> None:
        """Read as many bytes as are due since the last time; for a pause longer than that between two counts, no
        more than for that."""
        now = time.monotonic()
        due = int(self._scrub_rate * (now - self._scrubbed_at))
        if due < CHUNK_BYTES_MAX:
            return  # it would read more than that: chunks are verified as a whole
        self._scrubbed_at = now
        damaged = self._store.blobs.scrub(min(due, max(int(self._scrub_rate * LOOK_S), CHUNK_BYTES_MAX)))
        self._last = {**self._last, "blobs_damaged": self._last.get("blobs_damaged", 0) + damaged}

    def _look(self) -> None:
        """See what is kept: contents, bytes, references, damaged ones, files, and the room that is left.

        Not on the event loop: it reads the database, and waits while the place of contents is being opened.
        """
        blobs = self._store.blobs
        names = {"blobs": "contents", "blob_bytes": "bytes", "blob_refs": "refs", "blobs_damaged": "damaged"}
        counts = {names[name]: count for name, count in blobs.rows.counts().items()}
        try:
            self._looked = {**counts, **self._on_disk()}
        except OSError as error:
            raise refusal(error, "looking at the folder") from error
        self._working = {_short(name): value for name, value in blobs.stats().items()}

    def _on_disk(self) -> dict[str, int]:
        folder = self._folder
        if folder is None or not folder.is_dir():
            return {}
        counts = {"free_bytes": shutil.disk_usage(folder).free}
        files = folder / "files"
        if files.is_dir():
            with os.scandir(files) as entries:
                counts["files"] = sum(1 for _ in entries)
        return counts


def _short(name: str) -> str:
    """A figure's name without the part's; bytes that were written are told apart from those that are kept."""
    return "written_bytes" if name == "blobs_bytes" else name.removeprefix("blobs_").removeprefix("blob_")


def open_contents_of(store: Store) -> None:
    """Open the place of a store's attachments, if it has any, so that a wrong one is found at the start. Blocks.

    Raises what is wrong with it; one that is away is waited for by the upkeep instead.
    """
    if not (store.blobs.is_there and store.blobs.rows.is_used()):
        return
    try:
        _ = store.blobs.contents
    except SpileError as error:
        if error.retryable:
            log.warning("attachments are not served yet: %s", error.reason)
            return
        raise told_of_sharing(store, error) from error


def told_of_sharing(store: Store, error: SpileError) -> SpileError:
    """The error, with what several processes of one store need."""
    if store.database.is_shared and _SHARED not in error.hint:
        error.hint = f"{error.hint} {_SHARED}"
    return error


def _beside(store: Store) -> Path | None:
    return None if store.database.path is None else store.database.path.with_name("blobs")
