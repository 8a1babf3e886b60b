"""TLS to services elsewhere: a private authority and a client's certificate, named behind the URL.

For whatever speaks to a service: listeners, peers of a replication, nested calls, and commands.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from certificates import Certificates, tls_door
from cli_tools import spile
from http_tools import Served, eventually, served
from replication_tools import QUICK, alike, brought, subject
from requests_tools import Service, serving

from feeds.errors import BadRequest, SpileError, Unavailable
from listeners import listen_async
from listeners.errors import Unreached
from listeners.links.address import Address, parse_address
from listeners.links.tls import TlsFiles
from listeners.nested import Neighbours, Nest, PeerPlace, Reach
from listeners.replication import Options, Replicator, opened_peer

KINDS = ("https", "mqtts")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


class There:
    """A service behind doors with TLS: one for anybody, one for those who show a certificate."""

    def __init__(self, kind: str, service: Served | Service, certificates: Certificates) -> None:
        self.kind = kind
        self.store = service.store
        self.certificates = certificates
        self.port = service.server.port if isinstance(service, Served) else service.broker.port
        self.doors: dict[bool, int] = {}

    async def open(self, stack: AsyncExitStack) -> None:
        for asks_client in (False, True):
            door = tls_door(self.port, self.certificates, asks_client=asks_client)
            self.doors[asks_client] = await stack.enter_async_context(door)

    def url(
        self, *, ca: bool = True, client: bool = False, asks_client: bool = False, host: str = "127.0.0.1"
    ) -> str:
        """The barrel's URL at one of the doors, with what its TLS needs."""
        place = self.certificates
        files = TlsFiles(
            str(place.ca_pem) if ca else None,
            str(place.client_pem) if client else None,
            str(place.client_key) if client else None,
        )
        return f"{self.kind}://{host}:{self.doors[asks_client]}/geo{files.query}"


@pytest.fixture(params=KINDS)
async def there(request: pytest.FixtureRequest, tmp_path: Path, certificates: Certificates) -> AsyncIterator[There]:
    async with AsyncExitStack() as stack:
        if request.param == "https":
            service: Served | Service = await stack.enter_async_context(served(tmp_path / "there"))
            service.store.create("geo")
        else:
            service = await stack.enter_async_context(serving(tmp_path / "there"))
        made = There(request.param, service, certificates)
        await made.open(stack)
        yield made


async def test_a_replication_goes_on_over_tls_with_an_authority_of_its_own(there: There, tmp_path: Path) -> None:
    async with subject("local", tmp_path / "here") as here, opened_peer(there.url()) as peer:
        here.barrel.attach("a", "f", b"content" * 1000)
        there.store.barrel("geo").put({"_id": "b"})
        await brought(here.peer, peer)
        await brought(peer, here.peer)
        alike(here.barrel, there.store.barrel("geo"))


async def test_a_client_s_certificate_is_shown_where_it_is_asked_for(there: There, tmp_path: Path) -> None:
    async with subject("local", tmp_path / "here") as here:
        there.store.barrel("geo").put({"_id": "b"})
        async with opened_peer(there.url(client=True, asks_client=True)) as peer:
            assert (await brought(peer, here.peer))["written"] == 1
        async with opened_peer(there.url(asks_client=True)) as peer:
            with pytest.raises(Unavailable) as refused:
                await peer.identity()
            assert "?cert=FILE&key=FILE" in refused.value.hint


async def test_what_is_not_trusted_is_told_and_nothing_is_sent(there: There) -> None:
    for url in (there.url(ca=False), there.url(host="localhost")):
        async with opened_peer(url) as peer:
            with pytest.raises(Unreached, match="its certificate is not trusted") as refused:
                await peer.identity()
            assert "?ca=FILE" in refused.value.hint


async def test_a_listener_goes_over_tls_too(there: There) -> None:
    there.store.barrel("geo").put({"_id": "a"})
    url = there.url(client=True, asks_client=True)
    source = url.replace("https://", "wss://")
    async with asyncio.timeout(30), aclosing(listen_async(source, follow=False)) as listening:
        assert [change.id async for change in listening] == ["a"]


async def test_a_listener_that_does_not_trust_the_service_says_so(there: There) -> None:
    with pytest.raises(Unavailable, match="its certificate is not trusted"):
        async with aclosing(listen_async(there.url(ca=False), follow=False, patience_s=0.1)) as listening:
            [change async for change in listening]


async def test_a_continuous_replication_waits_with_the_reason(there: There, tmp_path: Path) -> None:
    async with subject("local", tmp_path / "here") as here, opened_peer(there.url(ca=False)) as peer:
        replicator = Replicator(here.peer, peer, Options(continuous=True, patience=QUICK))
        task = asyncio.create_task(replicator.run())
        await eventually(lambda: replicator.stats()["state"] in ("waiting", "failed"))
        assert "not trusted" in replicator.stats()["reason"]
        replicator.stop()
        await asyncio.wait([task])
        assert isinstance(task.exception(), SpileError | None)


async def test_files_that_are_replaced_count_from_the_next_connection_on(there: There, tmp_path: Path) -> None:
    """An authority or a certificate is renewed while a replication runs, which may be for years."""
    there.store.barrel("geo").put({"_id": "b"})
    files = TlsFiles(*(str(tmp_path / name) for name in ("ca.pem", "client.pem", "client.key")))
    for name in ("elsewhere.pem", "client.pem", "client.key"):
        shutil.copy(there.certificates.place / name, tmp_path / name)
    shutil.copy(tmp_path / "elsewhere.pem", tmp_path / "ca.pem")
    url = there.url(asks_client=True).partition("?")[0] + files.query
    async with subject("local", tmp_path / "here") as here, opened_peer(url) as peer:
        with pytest.raises(Unreached, match="not trusted"):
            await peer.identity()
        shutil.copy(there.certificates.ca_pem, tmp_path / "ca.pem")
        assert (await brought(peer, here.peer))["written"] == 1


async def test_nested_calls_go_over_tls(there: There, tmp_path: Path) -> None:
    async with subject("local", tmp_path / "here") as here:
        parts = urlsplit(there.url(client=True, asks_client=True))
        place = PeerPlace.parse(f"there={parts._replace(path='/').geturl()}")
        nest = Nest(here.store, Neighbours({"there": place}))
        done = await nest.write("geo", {"_id": "FR"}, Reach(2, seconds=60))
        assert done.told.complete, done.told
        assert there.store.barrel("geo").get("FR").rev == done.written.rev
        await nest.close()


async def test_commands_take_the_files_behind_the_url_of_the_service(there: There) -> None:
    there.store.barrel("geo").put({"_id": "a"})
    parts = urlsplit(there.url(client=True, asks_client=True))
    url = parts._replace(path="").geturl()
    if there.kind == "mqtts":
        heard = await asyncio.to_thread(spile, "listen", "geo", "#", "--since", "first", "--once", "--mqtt", url)
        assert (heard.code, heard.value["id"]) == (0, "a"), heard.err
        return
    got = await asyncio.to_thread(spile, "get", "geo", "a", "--url", url)
    assert (got.code, got.value["_id"]) == (0, "a")
    heard = await asyncio.to_thread(spile, "listen", "geo", "#", "--since", "first", "--once", "--url", url)
    assert (heard.code, heard.value["id"]) == (0, "a"), heard.err
    refused = await asyncio.to_thread(spile, "get", "geo", "a", "--url", url.partition("?")[0])
    assert refused.code == 3


def test_the_files_are_read_from_the_url_and_shown_nowhere_else() -> None:
    address = parse_address("mqtts://u:p@h/geo?ca=a%20b/ca.pem&cert=c.pem&key=k.pem")
    assert isinstance(address, Address)
    assert address.files == TlsFiles("a b/ca.pem", "c.pem", "k.pem")
    assert str(address) == "mqtts://h:8883/geo"
    assert address.files.query == "?ca=a%20b/ca.pem&cert=c.pem&key=k.pem"


@pytest.mark.parametrize(
    "url",
    [
        "https://h/geo?x=1",
        "https://h/geo?ca=",
        "https://h/geo?ca",
        "https://h/geo?ca=a&ca=b",
        "https://h/geo?ca=a%00b",
        "http://h/geo?ca=a",
        "mqtt://h/geo?cert=a",
    ],
)
def test_what_else_stands_behind_a_url_is_refused(url: str) -> None:
    with pytest.raises(BadRequest):
        parse_address(url)


def test_files_that_cannot_be_used_are_named(tmp_path: Path, certificates: Certificates) -> None:
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("this is no certificate")
    for files in (
        TlsFiles(ca=str(tmp_path / "nothing")),
        TlsFiles(ca=str(garbage)),
        TlsFiles(cert=str(garbage)),
        TlsFiles(cert=str(certificates.client_pem), key=str(certificates.broker_key)),
        TlsFiles(key=str(certificates.client_key)),
    ):
        with pytest.raises(BadRequest) as refused:
            files.context()
        assert "broker" not in refused.value.hint
