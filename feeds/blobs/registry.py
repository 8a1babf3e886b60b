"""Every file's one owner in this process, by name, and how files come and go."""

from __future__ import annotations

import logging
import threading
from weakref import WeakValueDictionary

from feeds.blobs.committer import Committer
from feeds.blobs.handles import Handles, refusal
from feeds.blobs.index import Index
from feeds.blobs.ledger import Ledger
from feeds.blobs.names import check_name
from feeds.blobs.owned import OwnedFile, removed

logger = logging.getLogger("spile.blobs")


_STRIPES = 64


class Registry:
    """The files that are worked on now, and all that were appended to in this run. Thread-safe.

    Others are forgotten when nobody holds their owner any more: there may be millions of files.
    """

    def __init__(self, index: Index, committer: Committer, handles: Handles) -> None:
        self._index = index
        self._committer = committer
        self._handles = handles
        self._owned: WeakValueDictionary[str, OwnedFile] = WeakValueDictionary()
        self._sequenced: dict[str, OwnedFile] = {}
        # For what is not among the owned yet: one of them is held while a file is looked up or made.
        self._guards = [threading.Lock() for _ in range(_STRIPES)]

    def find(self, name: str) -> OwnedFile | None:
        """A file's owner; None where there is no such file. Trimmed for one that was removed."""
        found = self._owned.get(name)
        if found is None:
            with self._guard(check_name(name)):
                found = self._owned.get(name) or self._load(name)
        if found is not None and found.removed:
            raise removed(name)
        return found

    def obtain(self, name: str) -> OwnedFile:
        """As `find`, but a file that is not there is made."""
        found = self.find(name)
        if found is not None:
            return found
        with self._guard(name):
            return self._owned.get(name) or self._load(name) or self._make(name, sequenced=False)

    def make(self, name: str) -> OwnedFile:
        """A new file, to be appended to."""
        with self._guard(name):
            found = self._sequenced[name] = self._make(name, sequenced=True)
        return found

    def _guard(self, name: str) -> threading.Lock:
        return self._guards[hash(name) % _STRIPES]

    def _make(self, name: str, sequenced: bool) -> OwnedFile:
        """The name is in the index before it is on disk, so that no file is there that nobody knows."""
        file = self._committer.call(lambda ledger: ledger.made(name))
        try:
            self._handles.create(name)
        except OSError as error:
            raise refusal(error, "making a file") from error
        found = self._owned[name] = OwnedFile(file, name, 0, current=sequenced)
        return found

    def _load(self, name: str) -> OwnedFile | None:
        row = self._index.file(name)
        if row is None:
            return None
        if row[2]:
            raise removed(name)
        found = self._owned[name] = OwnedFile(row[0], name, row[3], current=False)
        return found

    def is_current(self, name: str) -> bool:
        """Whether the file is still appended to."""
        found = self._sequenced.get(name)
        return found is not None and found.current

    def retire(self, owner: OwnedFile) -> None:
        """Nothing is appended to a file any more; it is removed if all of it is trimmed."""
        owner.retire()

        def remove(ledger: Ledger) -> None:
            extent = ledger.extent(owner.file)
            if extent[1] and not owner.removed and owner.removable(*extent):
                ledger.removed(owner.file)

        def gone() -> None:
            if owner.removed:
                self.removed(owner)

        self._committer.tell(remove, gone)

    def retire_all(self) -> None:
        """Every file is left behind."""
        for owner in list(self._sequenced.values()):
            if owner.current:
                self.retire(owner)

    def removed(self, owner: OwnedFile) -> None:
        """The index has a file as removed: take it from the disk."""
        self._owned.pop(owner.name, None)
        self._sequenced.pop(owner.name, None)
        try:
            self._handles.remove(owner.name)
        except OSError as error:
            logger.warning("%s cannot be removed, and will be at the next start: %s", owner.name, error)
