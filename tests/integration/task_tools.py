"""A service that runs replications, and another one, with what asks them over HTTP and waits for how they stand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from http_tools import eventually

from broker.serve import Service, serving
from broker.settings import load_settings
from feeds import Barrel

SECONDS = 30.0


class Side:
    """A service, what it holds, and a client of it."""

    def __init__(self, service: Service, http: httpx.AsyncClient) -> None:
        self.service = service
        self.http = http
        self.store = service.store
        self.url = f"http://127.0.0.1:{service.http.port}"

    def barrel(self, name: str = "geo") -> Barrel:
        return self.store.barrel(name)

    def place(self, name: str = "geo", login: str = "") -> str:
        """The barrel's URL."""
        return f"{self.url}/{name}".replace("://", f"://{login}")

    async def ask(self, code: int, method: str, path: str, **more: Any) -> Any:
        """A request, which is answered with this status."""
        answer = await self.http.request(method, path, **more)
        assert answer.status_code == code, answer.text
        return answer.json()

    async def begin(self, source: str, target: str, code: int = 201, **more: Any) -> dict[str, Any]:
        told: dict[str, Any] = await self.ask(
            code, "POST", "/replications", json={"source": source, "target": target, **more}
        )
        return told

    async def stands(self, id: str) -> dict[str, Any]:
        told: dict[str, Any] = await self.ask(200, "GET", f"/replications/{id}")
        return told

    async def until(self, id: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """How it stands once this holds of it."""
        found: dict[str, Any] = {}

        async def look() -> bool:
            found.update(await self.stands(id))
            return holds(found)

        try:
            await eventually(look, SECONDS)
        except TimeoutError:
            raise AssertionError(f"it did not come to stand so: {found}") from None
        return found


def is_in(*states: str) -> Callable[[dict[str, Any]], bool]:
    return lambda told: told["state"] in states


@asynccontextmanager
async def side(folder: Path, **settings: Any) -> AsyncIterator[Side]:
    flags = {"data": folder, "http": "127.0.0.1:0", "mqtt": "127.0.0.1:0", **settings}
    async with serving(load_settings(flags)) as service:
        headers = {"Authorization": f"Bearer {settings['token']}"} if "token" in settings else {}
        url = f"http://127.0.0.1:{service.http.port}"
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as http:
            yield Side(service, http)


class Two:
    """A service with something to tell, and another one that has an empty barrel."""

    def __init__(self, one: Side, other: Side) -> None:
        self.one, self.other = one, other

    async def arrived(self, count: int, name: str = "geo") -> None:
        """Until the other service has so many documents in a barrel, which may not be there yet."""

        def have() -> bool:
            return {each.name: each.doc_count for each in self.other.store.barrels()}.get(name) == count

        await eventually(have, SECONDS)


@asynccontextmanager
async def two_services(folder: Path) -> AsyncIterator[Two]:
    """Two of them: one has 100 documents in `geo`, the other one has `geo` empty."""
    async with side(folder / "one") as one, side(folder / "other") as other:
        one.store.create("geo").bulk([{"_id": f"d{number:03}", "n": number} for number in range(100)])
        other.store.create("geo")
        yield Two(one, other)
