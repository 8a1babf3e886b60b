"""What CouchDB's protocol costs beside Spile's own routes, and how fast PouchDB pushes and pulls through it.

The service is a process of its own; rates come from raw sockets, PouchDB from its own Node process (left out where
npm is missing). The face may cost at most half as much again as the native route.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle, repeat
from pathlib import Path
from typing import Any

import httpx
import uvloop

from benchmarks import measuring
from benchmarks.http_requests import BULK_DIFFERENT, load, read_all
from benchmarks.measuring import arguments, percentile, report
from benchmarks.service import RunningService, service

ROOT = Path(__file__).resolve().parents[1]
BULK = 500
ASKED = {
    "bulk_docs_per_s": 9_000,
    "changes_per_s": 60_000,
    "bulk_get_per_s": 10_000,
    **dict.fromkeys(
        (f"{each}_over_native" for each in ("bulk_docs", "bulk_get", "changes", "changes_with_docs")), 1.5
    ),
}

# In memory, so that what is measured is the way, and not a browser's database.
POUCH = """
const [modules, url, count] = [process.argv[2], process.argv[3], Number(process.argv[4])];
const load = (name) => require(require.resolve(name, {paths: [modules]}));
const PouchDB = load("pouchdb-core").plugin(load("pouchdb-adapter-memory")).plugin(load("pouchdb-adapter-http"))
  .plugin(load("pouchdb-replication"));
(async () => {
  const [one, other] = ["one", "other"].map((name) => new PouchDB(name, {adapter: "memory"}));
  const docs = [];
  for (let n = 0; n < count; n++) docs.push({_id: `doc${n}`, n, name: `document ${n}`, where: {city: "Creil"}});
  await one.bulkDocs(docs);
  const began = process.hrtime.bigint();
  await one.replicate.to(url, {batch_size: 500});
  const pushed = process.hrtime.bigint();
  await other.replicate.from(url, {batch_size: 500});
  const pulled = process.hrtime.bigint();
  const rate = (from, to) => count / (Number(to - from) / 1e9);
  console.log(JSON.stringify({pouchdb_push_per_s: rate(began, pushed), pouchdb_pull_per_s: rate(pushed, pulled)}));
  process.exit(0);
})();
"""


def request(method: str, path: str, body: bytes = b"") -> bytes:
    """As raw bytes."""
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def rate(port: int, seconds: float, path: str, bodies: Iterator[bytes]) -> float:
    """Documents a second of one connection that sends batch after batch."""

    def batches(_client: int) -> Iterator[bytes]:
        for body in bodies:
            yield request("POST", path, body)

    found = await load(port, 1, seconds, batches)
    assert not found["failed"]
    return BULK * found["per_s"]


def new_documents() -> Iterator[bytes]:
    """Batches of documents that were never written; made beforehand but for their ids, so that the client, which
    waits while it is answered, costs little itself."""
    chance = random.Random(1)
    docs = [measuring.document(number, chance) for number in range(BULK_DIFFERENT)]
    named = [{**doc, "_id": f"@-{doc['_id']}"} for doc in docs]
    templates = [json.dumps({"docs": named[at : at + BULK]}).encode() for at in range(0, BULK_DIFFERENT, BULK)]
    for number, template in enumerate(cycle(templates)):
        yield template.replace(b"@", b"%07d" % number)


async def measure(running: RunningService, seconds: float, runs: int, documents: int) -> dict[str, Any]:
    """Every figure of the face, beside the native one: taken in turn, so that a machine whose speed changes is the
    same for both."""
    port = int(running.url.rsplit(":", 1)[1])
    async with httpx.AsyncClient(base_url=running.url, timeout=60) as client:
        rows = (await client.get("/barrels/full/changes", params={"limit": BULK})).json()["results"]
    asked = [{"id": row["id"], "rev": row["rev"]} for row in rows]
    native_get = json.dumps({"docs": [{**each, "revs": True} for each in asked]}).encode()
    face_get = json.dumps({"docs": asked}).encode()
    writing = {path: new_documents() for path in ("/barrels/native/docs/_bulk", "/couch/face/_bulk_docs")}
    reading = {
        "/barrels/full/docs/_get": repeat(native_get),
        "/couch/full/_bulk_get?revs=true&latest=true": repeat(face_get),
    }

    async def posted(path: str) -> float:
        return await rate(port, seconds, path, (writing | reading)[path])

    async def streamed(path: str) -> float:
        return documents / (await read_all(port, path))[0]

    figures: dict[str, Any] = {}
    for name, measured, (own, through) in (
        ("bulk_docs", posted, list(writing)),
        ("bulk_get", posted, list(reading)),
        ("changes", streamed, ("/barrels/full/changes", "/couch/full/_changes?style=all_docs")),
        (
            "changes_with_docs",
            streamed,
            ("/barrels/full/changes?docs=true", "/couch/full/_changes?include_docs=true"),
        ),
    ):
        pairs = [(await measured(own), await measured(through)) for _ in range(runs)]
        figures[f"{name}_per_s"] = statistics.median(through for _, through in pairs)
        figures[f"{name}_native_per_s"] = statistics.median(own for own, _ in pairs)
        figures[f"{name}_over_native"] = statistics.median(own / through for own, through in pairs)
    return figures


async def latency(running: RunningService, puts: int) -> dict[str, float]:
    """Milliseconds from a put until its line of a continuous feed."""
    waited = []
    async with httpx.AsyncClient(base_url=running.url, timeout=60) as client:
        await client.put("/couch/live")
        params = {"feed": "continuous", "since": "now", "heartbeat": "1000"}
        async with client.stream("GET", "/couch/live/_changes", params=params) as response:
            lines = response.aiter_lines()
            for number in range(puts):
                began = time.perf_counter()
                put = asyncio.create_task(client.put(f"/couch/live/doc{number}", json={"n": number}))
                while not await anext(lines):
                    pass
                waited.append((time.perf_counter() - began) * 1000)
                (await put).raise_for_status()
    return {"put_to_line_p50_ms": percentile(waited, 0.5), "put_to_line_p99_ms": percentile(waited, 0.99)}


def pouchdb(running: RunningService, documents: int) -> dict[str, float]:
    """Documents a second that PouchDB pushes and pulls; nothing where it cannot be installed."""
    installed = subprocess.run([ROOT / "setup" / "clients"], capture_output=True, text=True, check=False)
    if installed.returncode != 0:
        return {}
    with tempfile.NamedTemporaryFile("w", suffix=".cjs") as script:
        script.write(POUCH)
        script.flush()
        done = subprocess.run(
            ["node", script.name, installed.stdout.strip(), f"{running.url}/couch/pouch", str(documents)],
            capture_output=True,
            text=True,
            check=True,
        )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def fill(running: RunningService, documents: int) -> None:
    """The barrels that are written to and read from."""
    for barrel in ("native", "face", "full"):
        running.create(barrel)
    with httpx.Client(base_url=running.url, timeout=60) as client:
        bodies = new_documents()
        for _ in range(0, documents, BULK):
            client.post("/barrels/full/docs/_bulk", content=next(bodies)).raise_for_status()


def main() -> None:
    """Run it."""
    options = arguments(__doc__ or "", seconds=3, runs=5, documents=50_000, pouchdb=10_000, puts=300)
    with service() as running:
        fill(running, options.documents)
        figures = uvloop.run(measure(running, options.seconds, options.runs, options.documents))
        figures |= uvloop.run(latency(running, options.puts))
        figures |= pouchdb(running, options.pouchdb)
        report("couch", figures, ASKED)


if __name__ == "__main__":
    main()
