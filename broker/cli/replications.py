"""The replications of a service, or of a store that the command opened itself, as commands ask for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from feeds.errors import BadRequest, NotFound

if TYPE_CHECKING:
    from feeds import Store

PREFIX_MIN = 4
"""Characters of an id that are enough where no other one begins with them."""


class Replications(Protocol):
    """The tasks; each call gives how a task stands, as the service tells it. Everything raises SpileError."""

    def create(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Have it run from now on."""

    def list(self) -> list[dict[str, Any]]: ...
    def get(self, id: str) -> dict[str, Any]: ...
    def pause(self, id: str) -> dict[str, Any]: ...
    def resume(self, id: str) -> dict[str, Any]: ...
    def cancel(self, id: str) -> dict[str, Any]: ...


class HttpReplications:
    """Those of a service. `ask` makes a request of a method, a path and maybe a body, and reads an object."""

    def __init__(self, ask: Callable[[str, str, bytes | None], dict[str, Any]]) -> None:
        self._ask = ask

    def create(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        return self._ask("POST", "/replications", msgspec.json.encode(asked))

    def list(self) -> list[dict[str, Any]]:
        return self._ask("GET", "/replications", None)["replications"]  # type: ignore[no-any-return]

    def get(self, id: str) -> dict[str, Any]:
        return self._ask("GET", f"/replications/{id}", None)

    def pause(self, id: str) -> dict[str, Any]:
        return self._ask("POST", f"/replications/{id}/pause", None)

    def resume(self, id: str) -> dict[str, Any]:
        return self._ask("POST", f"/replications/{id}/resume", None)

    def cancel(self, id: str) -> dict[str, Any]:
        return self._ask("DELETE", f"/replications/{id}", None)


class StoreReplications:
    """Those of a store, which run when a service has the store."""

    def __init__(self, store: Store) -> None:
        from broker.replication.ledger import Ledger

        self._ledger = Ledger(store)

    def create(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        from broker.replication.task import Asked, task_of

        try:
            task, secrets = task_of(msgspec.convert(asked, Asked))
        except msgspec.ValidationError as error:
            raise BadRequest(f"This is no replication: {error}") from error
        return self._ledger.create(task, secrets, "")[0].shown()

    def list(self) -> list[dict[str, Any]]:
        return [entry.shown() for entry in self._ledger.entries()]

    def get(self, id: str) -> dict[str, Any]:
        return self._ledger.entry(id).shown()

    def pause(self, id: str) -> dict[str, Any]:
        return self._ledger.pause(id).shown()

    def resume(self, id: str) -> dict[str, Any]:
        return self._ledger.resume(id).shown()

    def cancel(self, id: str) -> dict[str, Any]:
        from broker.replication.ledger import CANCELLED

        return self._ledger.cancel(id).shown() | CANCELLED


def whole_id(replications: Replications, given: str) -> str:
    """The id that begins like this; NotFound where none does, BadRequest where several do."""
    found = [each["id"] for each in replications.list() if each["id"].startswith(given)]
    if given in found:
        return given
    if len(given) < PREFIX_MIN or not found:
        raise NotFound(f"There is no replication {given!r}", hint="`spile replications` shows those that there are.")
    if len(found) > 1:
        raise BadRequest(f"{len(found)} replications begin with {given!r}", hint="Give more of the id.")
    return str(found[0])
