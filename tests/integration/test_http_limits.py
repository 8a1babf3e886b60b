"""What a client may not do: send too much, too slowly, from elsewhere, or as somebody else."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from broker.http import HttpLimits, OpenAccess
from broker.http.services import Verb
from feeds.errors import Forbidden, Unauthorized

from .http_tools import Served, eventually, fill, served

SMALL = HttpLimits(
    document_bytes_max=1000,
    bulk_bytes_max=5000,
    requests_max=3,
    bytes_max=8000,
    hosts=frozenset(["127.0.0.1", "t"]),
    origins=frozenset(["https://console.example"]),
)
DOC = "/barrels/geo/docs/a"
IMPATIENT = replace(SMALL, body_s_max=0.3)


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path, limits=SMALL) as running:
        running.store.create("geo")
        yield running


def body_of(answer: bytes) -> dict[str, object]:
    found: dict[str, object] = msgspec.json.decode(answer.partition(b"\r\n\r\n")[2])
    return found


async def test_a_declared_size_beyond_the_limit_is_refused(web: Served) -> None:
    answer = await web.client.put(DOC, content=b'{"a":"' + b"x" * 2000 + b'"}')
    assert (answer.status_code, answer.json()["error"], answer.json()["limit"]) == (413, "too_large", 1000)
    assert (await web.client.put(DOC, content=b'{"a":"' + b"x" * 900 + b'"}')).status_code == 201


async def test_a_chunked_body_is_refused_while_it_is_read(web: Served) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"a":"'
        for _ in range(100):
            yield b"x" * 1000
        yield b'"}'

    answer = await web.client.put(DOC, content=chunks())
    assert (answer.status_code, answer.json()["error"]) == (413, "too_large")
    await eventually(lambda: web.app.admission.bytes.used == 0)


async def test_an_endless_body_gets_its_refusal_and_no_memory(web: Served) -> None:
    reader, writer = await web.connect()
    writer.write(b"PUT /barrels/geo/docs/a HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n")

    async def send() -> None:
        while True:
            writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            await writer.drain()

    sending = asyncio.create_task(send())
    async with asyncio.timeout(30):
        head = await reader.readuntil(b"\r\n\r\n")
    assert b" 413 " in head.splitlines()[0]
    sending.cancel()
    writer.close()


@pytest.mark.parametrize("place", ["/barrels/geo/nothing", "/barrels/none/docs/a", "/barrels/geo/docs/_a"])
async def test_who_has_the_connection_closed_reads_its_refusal_after_all_that_it_sends(
    web: Served, place: str
) -> None:
    body = b'{"a":"' + b"x" * 4_000_000 + b'"}'
    head = f"PUT {place} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    reader, writer = await web.connect()
    writer.write(head.encode() + body)
    await writer.drain()
    async with asyncio.timeout(30):
        answer = await reader.read()
    assert answer.splitlines()[0].split()[1][:1] == b"4"
    assert body_of(answer)["reason"]
    writer.close()


async def test_a_bulk_body_has_a_limit_of_its_own(web: Served) -> None:
    docs = b",".join(b'{"n":%d}' % number for number in range(1000))
    answer = await web.client.post("/barrels/geo/docs/_bulk", content=b'{"docs":[' + docs + b"]}")
    assert (answer.status_code, answer.json()["limit"]) == (413, 5000)


@pytest.fixture
async def impatient(tmp_path: Path) -> AsyncIterator[Served]:
    """A service that waits for bodies as long as a test may."""
    async with served(tmp_path, limits=IMPATIENT) as running:
        running.store.create("geo")
        yield running


async def test_a_body_that_stops_coming_is_given_up(impatient: Served) -> None:
    answer = await impatient.raw(
        b"PUT /barrels/geo/docs/a HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: 10\r\n\r\n{"
    )
    assert b" 504 " in answer.splitlines()[0]
    assert body_of(answer)["error"] == "timeout"
    await eventually(lambda: impatient.app.admission.bytes.used == 0)


async def test_a_body_that_trickles_is_given_up(impatient: Served) -> None:
    reader, writer = await impatient.connect()
    writer.write(b"PUT /barrels/geo/docs/a HTTP/1.1\r\nHost: t\r\nContent-Length: 900\r\n\r\n{")

    async def trickle() -> None:
        while True:
            await asyncio.sleep(0.05)
            writer.write(b" ")

    trickling = asyncio.create_task(trickle())
    async with asyncio.timeout(30):
        assert b" 504 " in await reader.readline()
    trickling.cancel()
    writer.close()


async def test_a_client_that_leaves_amid_its_body_leaves_nothing_behind(web: Served) -> None:
    _, writer = await web.connect()
    writer.write(b"PUT /barrels/geo/docs/a HTTP/1.1\r\nHost: t\r\nContent-Length: 500\r\n\r\n{")
    await eventually(lambda: web.app.admission.bytes.used == 500)
    writer.transport.abort()
    await eventually(lambda: web.app.admission.bytes.used == web.app.admission.requests.used == 0)


async def test_bytes_in_work_are_bounded_over_all_requests(web: Served) -> None:
    writers = []
    for size in (4000, 3500):
        _, writer = await web.connect()
        writers.append(writer)
        writer.write(b"POST /barrels/geo/docs/_bulk HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n{" % size)
    await eventually(lambda: web.app.admission.bytes.used == 7500)
    answer = await web.client.post("/barrels/geo/docs/_bulk", content=b" " * 1000 + b'{"docs":[]}')
    assert (answer.status_code, "http_body_bytes" in answer.json()["reason"]) == (503, True)
    assert answer.headers["retry-after"] == "1"
    for writer in writers:
        writer.transport.abort()


async def test_requests_in_work_are_bounded(web: Served) -> None:
    writers = []
    for _ in range(3):
        _, writer = await web.connect()
        writers.append(writer)
        writer.write(b"PUT /barrels/geo/docs/a HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n{")
    await eventually(lambda: web.app.admission.requests.used == 3)
    answer = await web.client.get("/")
    assert (answer.status_code, "http_requests" in answer.json()["reason"]) == (503, True)
    for writer in writers:
        writer.transport.abort()
    await eventually(lambda: web.app.admission.requests.used == 0)
    assert (await web.client.get("/")).status_code == 200


async def test_a_reader_of_a_long_answer_takes_a_place_until_it_has_it(web: Served) -> None:
    barrel = web.store.barrel("geo")
    for start in range(0, 20_000, 1000):
        fill(barrel, 1000, start)
    reader, writer = await web.connect()
    transport = writer.transport
    assert isinstance(transport, asyncio.Transport)
    writer.write(b"GET /barrels/geo/changes?docs=true HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
    await reader.read(10)
    transport.pause_reading()
    assert web.app.admission.requests.used == 1
    transport.resume_reading()
    async with asyncio.timeout(60):
        while await reader.read(1 << 20):
            pass
    await eventually(lambda: web.app.admission.requests.used == 0)
    writer.close()


async def test_a_compressed_body_is_refused_with_a_hint(web: Served) -> None:
    answer = await web.client.put(DOC, content=b"x", headers={"content-encoding": "gzip"})
    assert (answer.status_code, "gzip" in answer.json()["reason"]) == (400, True)


@pytest.mark.parametrize("origin", ["http://evil.example", "null"])
@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "POST"])
async def test_a_page_of_another_origin_changes_nothing(web: Served, method: str, origin: str) -> None:
    path = "/barrels/geo/docs" if method == "POST" else DOC
    answer = await web.client.request(method, path, content=b"{}", headers={"origin": origin})
    assert (answer.status_code, answer.json()["error"]) == (403, "forbidden")
    assert web.store.barrel("geo").head() == 0
    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_own_pages_and_allowed_ones_may_write(web: Served) -> None:
    own = {"origin": web.url}
    assert (await web.client.post("/barrels/geo/docs", json={}, headers=own)).status_code == 201
    allowed = {"origin": "https://console.example"}
    assert (await web.client.post("/barrels/geo/docs", json={}, headers=allowed)).status_code == 201


async def test_another_host_name_is_refused(web: Served) -> None:
    answer = await web.client.get("/", headers={"host": "rebound.example"})
    assert (answer.status_code, answer.json()["error"]) == (403, "forbidden")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: t\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: t\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
        b"GET /" + b"y" * 70_000 + b" HTTP/1.1\r\nHost: t\r\n\r\n",
        b"PUT /barrels/geo/docs/a HTTP/1.1\r\nHost: t\r\nContent-Length: x\r\n\r\n",
        b"PUT /barrels/geo/docs/a HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"PUT /barrels/geo/docs/a HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_bytes_that_are_no_request_are_refused_and_the_service_goes_on(
    web: Served, request_bytes: bytes
) -> None:
    answer = await web.raw(request_bytes)
    assert answer.split()[1].startswith(b"4"), answer[:200]
    assert "reason" in body_of(answer)
    await eventually(lambda: web.app.admission.requests.used == 0)
    assert (await web.client.get("/")).status_code == 200


async def test_an_absolute_target_and_an_asterisk_do_no_harm(web: Served) -> None:
    for target in (b"http://t/barrels", b"*", b"//barrels", b"/barrels?", b"/barrels#x"):
        answer = await web.raw(b"GET %b HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n" % target)
        assert answer.split()[1] in (b"200", b"400", b"404"), (target, answer)


class Guarded(OpenAccess):
    """`Authorization: reader` may read, `writer` may read and write below `_id/own`."""

    def who(self, headers: Sequence[tuple[bytes, bytes]], host: str) -> str:
        name = dict(headers).get(b"authorization", b"").decode()
        if name not in ("reader", "writer"):
            raise Unauthorized
        return name

    def decide(self, who: str, verb: Verb, barrel: str, path: str) -> None:
        if verb == "read" or (who == "writer" and verb == "write" and path.startswith("_id/own")):
            return
        raise Forbidden(f"{who} may not {verb} {path}.")


OPEN = {"/health", "/openapi.json", "/barrels/geo/feed", "/couch/_up", "/couch/_uuids", "/couch/_session"}


async def test_access_is_asked_on_every_route(tmp_path: Path) -> None:
    async with served(tmp_path, access=Guarded()) as web:
        web.store.create("geo").put({}, id="own")
        for method, template, _ in web.app.endpoints.routes:
            path = template.replace("{barrel}", "geo").replace("{id...}", "own").replace("{path...}", "x")
            path = path.replace("{db}", "geo").replace("{id}", "own")
            if method in ("WEBSOCKET", "OPTIONS") or path in OPEN or "{nothing...}" in path:
                continue
            answer = await web.client.request(method, path, content=b"{}")
            assert answer.status_code == 401, (method, path, answer.text)
            assert answer.headers["www-authenticate"]
        reader = {"authorization": "reader"}
        assert (await web.client.get("/barrels/geo/docs/own", headers=reader)).status_code == 200
        assert (await web.client.get("/", headers=reader)).json()["you"] == "reader"
        for method, path in (
            ("PUT", "/barrels/geo/docs/own"),
            ("PATCH", "/barrels/geo/docs/own"),
            ("DELETE", "/barrels/geo/docs/own"),
            ("POST", "/barrels/geo/docs"),
            ("POST", "/barrels/geo/docs/_bulk"),
            ("POST", "/barrels/geo/docs/_purge"),
            ("PUT", "/barrels/geo/local/x"),
            ("POST", "/barrels/new"),
            ("PATCH", "/barrels/geo"),
            ("DELETE", "/barrels/geo"),
        ):
            assert (await web.client.request(method, path, content=b"{}", headers=reader)).status_code == 403, path
        writer = {"authorization": "writer"}
        assert (await web.client.put("/barrels/geo/docs/own/x", json={}, headers=writer)).status_code == 201
        assert (await web.client.put("/barrels/geo/docs/other", json={}, headers=writer)).status_code == 403
        assert (await web.client.post("/barrels/geo/docs", json={"_id": "own/y"}, headers=writer)).status_code == 201
        assert (await web.client.post("/barrels/geo/docs", json={"_id": "z"}, headers=writer)).status_code == 403


async def test_what_is_unexpected_is_answered_with_an_id_that_the_log_knows(
    web: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(name: str) -> None:
        raise RuntimeError("a secret inside")

    monkeypatch.setattr(web.store, "barrel", broken)
    with caplog.at_level(logging.ERROR, "spile.http"):
        answer = await web.client.get("/barrels/geo")
    assert (answer.status_code, answer.json()["error"]) == (500, "internal")
    assert "secret" not in answer.text
    request = answer.json()["reason"].split()[-1]
    assert request in caplog.text
    assert "a secret inside" in caplog.text
    metrics = (await web.client.get("/metrics")).text
    assert 'spile_http_requests_total{method="GET",route="/barrels/{barrel}",status="500"} 1.0' in metrics


async def test_a_failure_amid_an_answer_breaks_it_off(
    web: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from feeds.storage.replay import Replay

    fill(web.store.barrel("geo"), 3000)
    pages = 0
    whole = Replay.next
    counting = threading.Lock()

    def failing(self: Replay, rows_max: int, bytes_max: int = 1 << 62) -> object:
        nonlocal pages
        with counting:
            pages += 1
        if pages > 2:
            raise RuntimeError("the disk is gone")
        return whole(self, rows_max, bytes_max)

    monkeypatch.setattr(Replay, "next", failing)
    answer = await web.raw(b"GET /barrels/geo/changes HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
    assert b" 200 " in answer.splitlines()[0]
    assert not answer.endswith(b"0\r\n\r\n")
    assert "the disk is gone" in caplog.text
