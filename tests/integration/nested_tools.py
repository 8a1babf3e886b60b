"""Several whole services that know each other by name, each behind a proxy that can be hurt."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from http_tools import Served, served
from proxy import Proxy

from broker.http import Access
from feeds import Barrel

GEO = "geo"


def patient(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with as much time as there may be, where a nested call is asked for and says nothing else."""
    nested = any(name in options for name in ("p2p_write", "p2p_read"))
    return {"p2p_timeout": 60_000, **options} if nested else dict(options)


@dataclass
class Town:
    """Services by name; `proxies` stand before them for the others."""

    services: dict[str, Served]
    proxies: dict[str, Proxy]

    def barrel(self, name: str) -> Barrel:
        return self.services[name].store.barrel(GEO)

    def having(self, id: str, rev: str) -> set[str]:
        """The services that have this revision of a document."""
        return {name for name in self.services if not self.barrel(name).revs_diff({id: [rev]})}

    async def put(self, at: str, id: str, doc: Mapping[str, Any], **options: Any) -> httpx.Response:
        """Write a document with options of the query; headers as `Idempotency_Key`."""
        headers = {name.replace("_", "-"): value for name, value in options.items() if name[0].isupper()}
        asked = {name: value for name, value in options.items() if not name[0].isupper()}
        place = f"/barrels/{GEO}/docs/{id}"
        return await self.services[at].client.put(place, json=dict(doc), params=patient(asked), headers=headers)

    async def get(self, at: str, id: str, **options: Any) -> httpx.Response:
        return await self.services[at].client.get(f"/barrels/{GEO}/docs/{id}", params=patient(options))

    async def stop(self, name: str) -> None:
        """End a service; its proxy finds nobody any more."""
        await self.services[name].server.stop()
        self.proxies[name].reset()


@asynccontextmanager
async def town(
    folder: Path,
    sees: Mapping[str, Sequence[str]],
    *,
    access: Mapping[str, Access] | None = None,
    secrets: Mapping[tuple[str, str], str] | None = None,
    hesitates_s: float = 60.0,
) -> AsyncIterator[Town]:
    """Services that see each other as told; `secrets` are what one shows the other."""
    async with AsyncExitStack() as stack:
        services: dict[str, Served] = {}
        proxies: dict[str, Proxy] = {}
        for name in sees:
            proxies[name] = stack.enter_context(Proxy(lambda name=name: services[name].server.port))
        for name, others in sees.items():
            peers = []
            for other in others:
                secret = (secrets or {}).get((name, other))
                who = "" if secret is None else f":{secret}@"
                peers.append(f"{other}=http://{who}127.0.0.1:{proxies[other].port}")
            service = served(folder / name, peers=peers, access=(access or {}).get(name), hesitates_s=hesitates_s)
            services[name] = await stack.enter_async_context(service)
            services[name].store.create(GEO)
            services[name].client.timeout = httpx.Timeout(90)
        yield Town(services, proxies)


def holders(answer: httpx.Response) -> list[str]:
    """By which ways the answer says that the document is reached."""
    return [holder["peer"] for holder in answer.json()["p2p"]["holders"]]


def failures(answer: httpx.Response) -> dict[str, tuple[str, str]]:
    """By way, the step and the error of those that failed."""
    return {miss["peer"]: (miss["step"], miss["error"]) for miss in answer.json()["p2p"]["failed"]}
