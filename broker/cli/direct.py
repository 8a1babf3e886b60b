"""The backend that opens a store itself, for when no service runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec

from broker.cli.backend import (
    HERE_ALONE,
    Backend,
    Beyond,
    BulkResult,
    ChangesQuery,
    Fetched,
    FindQuery,
    Found,
    GetQuery,
)
from broker.cli.files import PIECE_BYTES, Incoming, Outgoing, Tell
from broker.cli.nested_direct import asked_reach, asked_search, looked_up, passed_on
from broker.cli.replications import StoreReplications
from broker.contents_place import check_place, contents_place
from feeds import Barrel, BarrelSettings, Store, Written
from feeds.attachments.stubs import DEFAULT_TYPE
from feeds.errors import BadRequest, Deleted, EpochChanged, NotFound, SpileError, StoreLocked
from feeds.paths import encode_segment
from feeds.patterns import Pattern, parse_patterns
from feeds.positions import SEQ_MAX, parse_since

__all__ = ["DirectBackend", "open_store", "place_of"]

PAGE_ROWS = 1000
PAGE_BYTES = 256 * 1024


def open_store(database: str, *, create: bool = False, blobs: str | None = None) -> Store:
    """The store at a database URL, a directory or a `spile.db`, with attachments in `blobs`, else where the service
    has them: SPILE_BLOBS, or a folder of its own. Raises StoreLocked with what to do then."""
    path = Path(database)
    if "://" not in database and path.suffix == ".db":
        database = f"sqlite:///{path}"
    try:
        return Store.open(database, create=create, blobs=place_of(database, blobs))
    except StoreLocked as error:
        hint = "A service runs on this store: speak to it with --url instead of --database, or stop it first."
        raise StoreLocked(error.reason, hint=hint) from error


def place_of(database: str, blobs: str | None = None, data: Path | None = None) -> str | Path | None:
    """Where the attachments of a store are, as the service would have them with this environment."""
    given = blobs or os.environ.get("SPILE_BLOBS") or None
    folder = data if data is not None else Path(os.environ.get("SPILE_DATA") or "data")
    return contents_place(database, folder, None if given is None else check_place(given))


class DirectBackend(Backend):
    """One store in this process; nobody else can write it meanwhile."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @classmethod
    def open(cls, database: str, *, create: bool = False, blobs: str | None = None) -> DirectBackend:
        """Open the store; with `create` it is made where it is missing. Raises as `open_store`."""
        return cls(open_store(database, create=create, blobs=blobs))

    def barrels(self) -> list[dict[str, Any]]:
        return [_plain(info) for info in self._store.barrels()]

    def info(self, barrel: str) -> dict[str, Any]:
        return _plain(self._store.barrel(barrel).info())

    def create(self, barrel: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        return _plain(self._store.create(barrel, BarrelSettings.parse(settings)).info())

    def configure(self, barrel: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        present = self._store.barrel(barrel).settings
        return _plain(self._store.configure(barrel, BarrelSettings.parse(settings, present)))

    def drop(self, barrel: str) -> None:
        self._store.drop(barrel)

    def get(self, barrel: str, doc_id: str, query: GetQuery, beyond: Beyond = HERE_ALONE) -> bytes:
        held, asked = self._store.barrel(barrel), msgspec.structs.asdict(query)
        search = asked_search(beyond, here_only=query.conflicts or query.history)
        try:
            return held.get(doc_id, **asked).json()
        except Deleted:
            raise
        except NotFound:
            if search is None:
                raise
            found = looked_up(held, doc_id, query.rev, search, query.revs)
            return held.get(doc_id, **asked).json() if found is None else found

    def put(
        self,
        barrel: str,
        doc_id: str,
        doc: bytes,
        *,
        rev: str | None = None,
        update: bool = False,
        beyond: Beyond = HERE_ALONE,
    ) -> dict[str, Any]:
        return self._write(barrel, beyond, lambda held: held.put(doc, id=doc_id, rev=rev, update=update))

    def merge(
        self, barrel: str, doc_id: str, patch: bytes, *, rev: str | None = None, beyond: Beyond = HERE_ALONE
    ) -> dict[str, Any]:
        return self._write(barrel, beyond, lambda held: held.merge(doc_id, patch, rev=rev))

    def delete(self, barrel: str, doc_id: str, *, rev: str, beyond: Beyond = HERE_ALONE) -> dict[str, Any]:
        return self._write(barrel, beyond, lambda held: held.delete(doc_id, rev=rev))

    def _write(self, barrel: str, beyond: Beyond, write: Callable[[Barrel], Written]) -> dict[str, Any]:
        reach = asked_reach(beyond)
        held = self._store.barrel(barrel)
        written = write(held)
        return _told(written) | ({} if reach is None else {"p2p": passed_on(held, written, reach)})

    def purge(self, barrel: str, doc_id: str, revs: Sequence[str]) -> dict[str, Any]:
        return _told(self._store.barrel(barrel).purge(doc_id, revs))

    def bulk(self, barrel: str, body: bytes, key: str) -> list[BulkResult]:
        results = []
        for outcome in self._store.barrel(barrel).bulk_json(body):
            if isinstance(outcome, SpileError):
                doc_id = outcome.details.get("id")
                results.append(BulkResult(id=doc_id, error=outcome.code, reason=outcome.reason))
            else:
                results.append(BulkResult(id=outcome.id, rev=outcome.rev, seq=outcome.seq))
        return results

    def attach(
        self,
        barrel: str,
        doc_id: str,
        name: str,
        file: Outgoing,
        *,
        content_type: str | None = None,
        rev: str | None = None,
        tell: Tell,
    ) -> dict[str, Any]:
        held = self._store.barrel(barrel)
        written = held.attach(doc_id, name, _pieces(file, tell), content_type=content_type, rev=rev, length=file.size)
        attached = held.attachment(doc_id, name, rev=written.rev)
        return {**_told(written), "digest": attached.digest, "length": attached.length}

    def fetch(
        self, barrel: str, doc_id: str, name: str, into: Incoming, *, rev: str | None = None, tell: Tell
    ) -> Fetched:
        found = self._store.barrel(barrel).attachment(doc_id, name, rev=rev)
        for piece in found.read():
            into.add(piece)
            tell(into.size, found.length)
        into.check(found.digest or "")
        return Fetched(into.size, found.digest or "", found.content_type or DEFAULT_TYPE, found.rev)

    def detach(self, barrel: str, doc_id: str, name: str, *, rev: str | None = None) -> dict[str, Any]:
        return _told(self._store.barrel(barrel).detach(doc_id, name, rev=rev))

    def conflicts(self, barrel: str, *, limit: int, after: str = "") -> dict[str, Any]:
        return _plain(self._store.barrel(barrel).conflicts.page(after=after, limit=limit))

    def conflict(self, barrel: str, doc_id: str) -> list[bytes]:
        return [leaf.json() for leaf in self._store.barrel(barrel).conflicts.leaves(doc_id)]

    def resolve(
        self,
        barrel: str,
        doc_id: str,
        *,
        rev: str | None = None,
        doc: bytes | None = None,
        leaves: Sequence[str] = (),
    ) -> dict[str, Any]:
        return _told(self._store.barrel(barrel).conflicts.resolve(doc_id, rev=rev, doc=doc, leaves=leaves))

    def find(self, barrel: str, query: FindQuery, *, limit: int, after: str | None = None) -> Found:
        levels = (level if level in ("+", "#") else encode_segment(unquote(level)) for level in query.levels())
        bounds = {
            name: _value(bound) for name, bound in (("from_", query.from_), ("to", query.to)) if bound is not None
        }
        page = self._store.barrel(barrel).find(
            str(Pattern(tuple(levels))),
            prefix=query.prefix,
            order=query.order,
            descending=query.descending,
            docs=query.docs,
            limit=limit,
            after=after,
            **bounds,
        )
        return Found(_raw(page.results), page.next)

    def changes(self, barrel: str, query: ChangesQuery, *, limit: int | None) -> Iterator[bytes]:
        held = self._store.barrel(barrel)
        patterns = parse_patterns(query.patterns)
        since = parse_since(query.since)
        if query.descending:
            newest = held.changes(since, limit=limit, descending=True, patterns=patterns, docs=query.docs)
            yield from map(msgspec.json.encode, newest.results)
            return
        start = held.resolve(since, patterns=bool(patterns))
        if start.snapshot:
            raise EpochChanged(f"the position {query.since} is not one of {barrel} any more")
        left = limit if limit is not None else SEQ_MAX
        with closing(held.replay(start.after, patterns, docs=query.docs, leaves=start.leaves)) as replay:
            caught_up = replay.upto <= start.after
            while left and not caught_up:
                page = replay.next(min(left, PAGE_ROWS), PAGE_BYTES)
                yield from map(msgspec.json.encode, page.rows)
                left -= len(page.rows)
                caught_up = page.caught_up

    def follow(self, barrel: str, query: ChangesQuery) -> Iterator[bytes]:
        raise BadRequest(
            "a store that this command holds cannot change meanwhile, so there is nothing to follow",
            hint="Start the service (`spile serve`) and follow it with --url.",
        )

    def listeners(self, barrel: str | None) -> dict[str, Any]:
        from listeners.lags import lag_report

        return _plain(lag_report(self._store, barrel=barrel, dead_letters=True))

    def forget(self, barrel: str, listener: str) -> None:
        if not self._store.cursors.forget(barrel, listener):
            raise NotFound(f"No listener {listener!r} is known in {barrel!r}", hint="`spile listeners` shows them.")

    def replications(self) -> StoreReplications:
        return StoreReplications(self._store)

    def listening_to(self, barrel: str) -> Barrel:
        """The barrel itself, which `listeners` can follow in process."""
        return self._store.barrel(barrel)

    def close(self) -> None:
        self._store.close()


def _pieces(file: Outgoing, tell: Tell) -> Iterator[bytes]:
    at = 0
    while piece := file.part(at, PIECE_BYTES):
        yield piece
        at += len(piece)
        tell(at, file.size)


def _plain(info: msgspec.Struct) -> dict[str, Any]:
    return msgspec.to_builtins(info)  # type: ignore[no-any-return]


def _told(written: Written) -> dict[str, Any]:
    """A write as the service tells it."""
    told: dict[str, Any] = {"id": written.id, "rev": written.rev, "seq": written.seq}
    told |= {name: True for name in ("repeated", "unchanged") if getattr(written, name)}
    return told


def _raw(values: Sequence[msgspec.Struct]) -> list[msgspec.Raw]:
    return [msgspec.Raw(msgspec.json.encode(value)) for value in values]


def _value(text: str) -> Any:
    """A bound as JSON, or as plain text where it is no JSON."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
