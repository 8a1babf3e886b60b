"""The trials' own tools: a model that misses a broken promise, or a proxy that does no harm, would prove nothing."""

from __future__ import annotations

import random
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from meddling import Meddling, Packets, published
from mqtt_tools import publish_packet
from promises import (
    Body,
    Heard,
    Journal,
    Ledger,
    Messages,
    Told,
    Truth,
    misheard,
    misled,
    read_truth,
    unheard,
    untold,
)
from proxy import Proxy
from running import until

from feeds import Store, Write

EUROPE, ASIA = {"region": "Europe"}, {"region": "Asia"}


# The model


class Written:
    """A barrel with three documents, written as a ledger says: `stays` twice, `moves` out of Europe, `goes`."""

    def __init__(self, folder: Path) -> None:
        self.url = str(folder)
        self.ledger = Ledger()
        with Store.open(self.url) as store:
            geo = store.create("geo")
            revs: dict[str, str] = {}
            writes: list[tuple[str, Body | None]] = [
                *(("stays", EUROPE), ("moves", EUROPE), ("goes", EUROPE)),
                *(("stays", {**EUROPE, "n": 2}), ("moves", ASIA), ("goes", None)),
            ]
            for id, body in writes:
                attempt = self.ledger.begin(id, body)
                write = Write.put(body, id=id, update=True) if body else Write.delete(id, rev=revs[id])
                (told,) = geo.submit([write]).result()
                revs[id] = told.rev  # type: ignore[union-attr]
                self.ledger.accepted(attempt, told.rev, told.seq)  # type: ignore[union-attr]

    def truth(self) -> Truth:
        return read_truth(self.url, "geo", self.ledger)

    def rows(self, *seqs: int, patterns: bool = False) -> list[Told]:
        """What a faithful listener is told at these seqs."""
        truth = self.truth()
        rows = []
        for seq in seqs:
            entry = truth.log[seq]
            paths = (
                frozenset({"region/Europe"}) if patterns and entry.body and "Europe" in entry.body.values() else ()
            )
            left = patterns and not paths
            told = Told(seq, truth.epoch, entry.id, entry.rev, frozenset(paths), left, entry.body is None, entry.body)
            rows.append(told)
        return rows


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path)


def test_what_was_written_as_it_was_answered_breaks_nothing(written: Written) -> None:
    assert written.truth().broken == []


def test_an_accepted_write_that_is_not_in_the_log_is_noticed(written: Written) -> None:
    attempt = written.ledger.begin("new", EUROPE)
    assert written.truth().broken == []  # nobody was told that it is stored
    written.ledger.accepted(attempt, "1-abc", 7)
    assert "an accepted write is not there" in written.truth().broken[0]


def test_a_write_that_was_done_twice_is_noticed(written: Written) -> None:
    with Store.open(written.url) as store:
        store.barrel("geo").put(EUROPE, id="stays", update=True)
    assert "which nobody asked for" in written.truth().broken[0]


def test_a_write_whose_answer_was_lost_may_be_there(written: Written) -> None:
    written.ledger.begin("stays", EUROPE)
    with Store.open(written.url) as store:
        store.barrel("geo").put(EUROPE, id="stays", update=True)
    assert written.truth().broken == []


def test_a_refused_write_that_is_there_is_noticed(written: Written) -> None:
    written.ledger.refused(written.ledger.begin("stays", EUROPE))
    with Store.open(written.url) as store:
        store.barrel("geo").put(EUROPE, id="stays", update=True)
    assert "which was refused" in written.truth().broken[0]


@pytest.mark.parametrize(
    ("seqs", "patterns", "missing"),
    [
        ((1, 2, 3, 4, 5, 6), False, 0),
        ((4, 5, 6), False, 0),
        ((1, 2, 3, 4, 5), False, 1),
        ((4, 6), False, 1),
        ((4,), True, 0),
        ((2, 4, 5), True, 0),
        ((2, 4), True, 1),
        ((2, 3, 4, 5), True, 1),
        ((2, 5), True, 1),
    ],
)
def test_what_was_not_told_is_noticed(written: Written, seqs: tuple[int, ...], patterns: bool, missing: int) -> None:
    journal = Journal("l", ("region/Europe",) if patterns else (), lives=[written.rows(*seqs, patterns=patterns)])
    truth = written.truth()
    assert list(misled(journal, truth)) == []
    assert len(untold(journal, truth.histories())) == missing


def test_a_leave_of_what_it_knew_before_is_not_missed(written: Written) -> None:
    journal = Journal("l", ("region/Europe",), since=3, first=False, lives=[written.rows(4, 5, patterns=True)])
    assert len(untold(journal, written.truth().histories())) == 1


def test_what_is_told_out_of_order_or_otherwise_than_it_is_is_noticed(written: Written) -> None:
    truth, rows = written.truth(), written.rows(4, 5, 6)

    def wrong(*told: Told, lives: int = 1) -> int:
        return len(list(misled(Journal("l", lives=[[*told]] * lives), truth)))

    assert wrong(*rows) == 0
    assert wrong(*rows, lives=2) == 0  # it was told again after a restart
    assert wrong(rows[0], rows[0], rows[1]) == 0  # or what it had in hand when the connection was lost
    assert wrong(rows[1], rows[0]) == 1
    assert wrong(Told(4, truth.epoch, "stays", "9-abc")) == 1
    assert wrong(Told(4, "other", "stays", rows[0].rev)) == 1
    assert wrong(Told(4, truth.epoch, "stays", rows[0].rev, body=ASIA)) == 1


def test_what_a_subscriber_did_not_hear_last_is_noticed(written: Written) -> None:
    truth = written.truth()
    heard = [
        Heard(f"_id/{entry.id}", {"seq": seq, "id": entry.id, "rev": entry.rev}) for seq, entry in truth.log.items()
    ]
    assert unheard(Messages("m", heard), truth.histories()) == []
    assert len(unheard(Messages("m", heard[:-1]), truth.histories())) == 1
    assert len(unheard(Messages("m", [*heard, heard[0]]), truth.histories())) == 1
    assert len(unheard(Messages("m", heard, paths=True), truth.histories())) == 5  # none of its paths
    assert unheard(Messages("m", [], since_at=time.monotonic()), truth.histories()) == []
    assert list(misheard(Messages("m", heard), truth)) == []
    assert len(list(misheard(Messages("m", [Heard("_id/stays", {"seq": 4, "id": "stays", "rev": "x"})]), truth))) == 1


# The proxy


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that says what it hears; its port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            try:
                while data := self.request.recv(65_536):
                    self.request.sendall(data)
            except OSError:
                return

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(echo: int) -> Iterator[Proxy]:
    with Proxy(lambda: echo) as made:
        yield made


@pytest.fixture
def client(proxy: Proxy) -> Iterator[Callable[[], socket.socket]]:
    """Connects through the proxy."""
    made: list[socket.socket] = []

    def connect() -> socket.socket:
        made.append(socket.create_connection(("127.0.0.1", proxy.port), timeout=30))
        return made[-1]

    yield connect
    for each in made:
        each.close()


def said(connection: socket.socket, count: int) -> bytes:
    """So many bytes, or what came before the end."""
    got = b""
    try:
        while len(got) < count and (more := connection.recv(count - len(got))):
            got += more
    except ConnectionResetError:
        return got
    return got


def test_a_connection_is_cut_after_exactly_so_many_bytes(proxy: Proxy, client: Callable[[], socket.socket]) -> None:
    first = client()
    proxy.cut_after(7)
    first.sendall(b"0123456789")
    assert said(first, 100) == b"0123456"
    assert proxy.cuts == 1
    second = client()
    second.sendall(b"0123456789")
    assert said(second, 10) == b"0123456789"


def test_connections_are_reset_and_refused(proxy: Proxy, client: Callable[[], socket.socket]) -> None:
    first = client()
    first.sendall(b"a")
    assert said(first, 1) == b"a"
    proxy.refuse()
    with pytest.raises(ConnectionResetError):
        client().recv(1)
    first.sendall(b"b")
    assert said(first, 1) == b"b"
    proxy.reset()
    assert said(first, 1) == b""
    proxy.heal()
    again = client()
    again.sendall(b"c")
    assert said(again, 1) == b"c"


def test_a_frozen_link_delivers_later_and_a_black_hole_never(
    proxy: Proxy, client: Callable[[], socket.socket]
) -> None:
    connection = client()
    connection.sendall(b"a")
    assert said(connection, 1) == b"a"
    proxy.freeze()
    connection.sendall(b"b")
    connection.settimeout(0.2)
    with pytest.raises(TimeoutError):
        connection.recv(1)
    proxy.heal()
    connection.settimeout(30)
    assert said(connection, 1) == b"b"
    proxy.black_hole()
    late = client()
    until(lambda: proxy.connections == 2, "the second connection")
    proxy.heal()
    for each in (connection, late):
        each.sendall(b"c")
        each.settimeout(0.2)
        with pytest.raises(TimeoutError):
            each.recv(1)


def test_a_slow_link_is_slow(proxy: Proxy, client: Callable[[], socket.socket]) -> None:
    connection = client()
    connection.sendall(b"a")
    assert said(connection, 1) == b"a"
    proxy.slow(10_000)
    began = time.monotonic()
    connection.sendall(b"x" * 2_000)
    assert said(connection, 2_000) == b"x" * 2_000
    assert time.monotonic() - began >= 0.2


def test_packets_are_found_in_any_pieces() -> None:
    whole = [publish_packet("to/a/b", b"x" * 300, 1, 7), b"\xd0\x00", publish_packet("barrels/b/x", b"y")]
    for size in (1, 2, 3, 100, 1_000):
        packets = Packets()
        data = b"".join(whole)
        found = [each for at in range(0, len(data), size) for each in packets.feed(data[at : at + size])]
        assert found == whole
    assert published(whole[0]) == ("to/a/b", 1, b"\x00\x07")
    assert published(whole[1]) is None


@pytest.mark.parametrize(("fate", "passed"), [("drop", []), ("double", [0.0, 0.0])])
def test_publications_meet_their_fate_and_nothing_else_does(fate: str, passed: list[float]) -> None:
    chances = {"drop": 0.0, "double": 0.0, "delay": 0.0, fate: 1.0}
    meddling = Meddling(random.Random(1), **chances)  # type: ignore[arg-type]
    told = meddling.passing("down", publish_packet("to/a/b", b"x", 1, 7))
    assert [later for later, _ in told] == passed
    assert meddling.answers("down") == (b"\x40\x02\x00\x07" if fate == "drop" else b"")
    other = publish_packet("barrels/b/x", b"x", 1, 8)
    assert meddling.passing("down", other) == [(0.0, other)]
    meddling.calm()
    late = publish_packet("to/a/b", b"x", 1, 9)
    assert meddling.passing("down", late) == [(0.0, late)]


def test_a_delayed_publication_comes_behind_the_next(tmp_path: Path) -> None:
    sent = [publish_packet("to/a/b", b"first"), publish_packet("other", b"second")]
    with socket.create_server(("127.0.0.1", 0)) as server:
        with Proxy(lambda: server.getsockname()[1]) as proxy:
            proxy.meddle = lambda: Meddling(random.Random(1), drop=0, double=0, delay=1, delay_s=0.2)
            with socket.create_connection(("127.0.0.1", proxy.port), timeout=30) as connection:
                behind, _ = server.accept()
                with behind:
                    behind.settimeout(30)
                    connection.sendall(b"".join(sent))
                    assert said(behind, len(sent[0] + sent[1])) == sent[1] + sent[0]
            until(lambda: proxy.connections == 1, "the connection")
