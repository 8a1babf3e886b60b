"""Connections to PostgreSQL through psycopg 3: how they are set up, and that no wait on them is without end.

A server that is gone is told by its socket, one behind a network that swallows everything by nothing at all: so every
answer has to come within `answer_s`, or the connection is given up.
"""

from __future__ import annotations

import select
import uuid
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Any

import psycopg
from psycopg import Connection, Cursor, adapt, pq
from psycopg.types.numeric import Int8BinaryDumper, Int8Dumper
from psycopg.types.string import StrBinaryDumper, StrDumper
from psycopg.waiting import Ready, Wait
from sqlalchemy import URL, Dialect, Engine, create_engine
from sqlalchemy.pool import NullPool

from feeds.errors import BadRequest

ANSWER_S = 10.0  # for one statement; those of a store take milliseconds
PATIENT_S = 3_600.0  # for one statement of a check, a repair or a migration, which may read a whole table
CONNECT_S = 3
LOCK_S = 8.0  # for another process to end its transaction: it holds a barrel for fractions of a second
IDLE_S = 10.0  # inside a transaction: a process that hangs there loses it, so that others go on
VERSION_MIN = 130_000
_PREPARED_MAX = 500  # statements; a store has some 150

_PARAMETERS: dict[str, Any] = {
    "application_name": "spile",
    "client_encoding": "utf8",
    "connect_timeout": CONNECT_S,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": int(ANSWER_S * 1000),
}

_SETTINGS: dict[str, str] = {
    "statement_timeout": f"{int(ANSWER_S * 900)}ms",
    "lock_timeout": f"{int(LOCK_S * 1000)}ms",
    "idle_in_transaction_session_timeout": f"{int(IDLE_S * 1000)}ms",
    # Whatever the server's default is: in a stricter one a writer fails that has only waited for another.
    "default_transaction_isolation": "read committed",
    # The server's own: a client that vanished must not hold a barrel's row for the two hours of the system's default.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "jit": "off",
    # Every statement is written for one index. Without statistics, as in a table that has just been filled, the
    # planner takes other ways, and keeps to them for as long as the statement stays prepared.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}


class BoundedCursor(Cursor[Any]):
    """A cursor whose results come in binary: bodies are not written as hexadecimal digits and read again."""

    def __init__(self, connection: Connection[Any], **options: Any) -> None:
        super().__init__(connection, **options)
        self.format = pq.Format.BINARY


class BoundedConnection(Connection[Any]):
    """A connection that is given up when an answer does not come in time."""

    answer_s: float = ANSWER_S

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """As psycopg's, but with an end."""
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(self._bounded(gen), interval)
        except NoAnswer:
            self.pgconn.finish()
            raise

    def _bounded(self, generator: Any) -> Generator[Any, Any, Any]:
        """The waits of psycopg's generator, until nothing moves for too long.

        In a pipeline it stops sending when the socket's buffer is full, and waits for an answer to what the server
        never got: so what is left is sent here.
        """
        flush, seconds = self.pgconn.flush, self.answer_s
        try:
            wanted = next(generator)
            end = monotonic() + seconds
            while True:
                sending = wanted == Wait.R and flush()
                ready = yield Wait.RW if sending else wanted
                if ready:
                    end = monotonic() + seconds
                elif monotonic() > end:
                    generator.close()
                    raise NoAnswer(f"it did not answer within {seconds:g} s")
                if sending:
                    if ready == Ready.W:
                        continue
                    ready &= Ready.R
                wanted = generator.send(ready)
        except StopIteration as done:
            return done.value

    @contextmanager
    def patient(self) -> Iterator[None]:
        """Statements inside the block may take long, as those of a check or a migration do."""
        before = self.answer_s
        self.answer_s = PATIENT_S
        try:
            yield
        finally:
            self.answer_s = before

    def is_stale(self) -> bool:
        """Whether the server ended this idle connection meanwhile: then there is something to read on it."""
        if self.closed or self.pgconn.transaction_status != pq.TransactionStatus.IDLE:
            return True
        poller = select.poll()
        poller.register(self.pgconn.socket, select.POLLIN)
        return bool(poller.poll(0))


class NoAnswer(psycopg.OperationalError):
    """The database did not answer in time."""


class _Text(StrDumper):
    """Text of a parameter. PostgreSQL cannot hold U+0000, and nothing that is stored has any control character: what
    is looked for with one is not there, and neither is it with U+0001 in its place, which sorts alike."""

    def dump(self, obj: str) -> Any:
        return super().dump(obj.replace("\x00", "\x01") if "\x00" in obj else obj)


class _BinaryText(StrBinaryDumper):
    def dump(self, obj: str) -> Any:
        return super().dump(obj.replace("\x00", "\x01") if "\x00" in obj else obj)


def postgres_engine(url: URL) -> Engine:
    """An engine for a PostgreSQL URL; BadRequest where the URL names something that cannot be asked for."""
    parameters: dict[str, Any] = {}
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        isolation_level="AUTOCOMMIT",
        paramstyle="format",
        poolclass=NullPool,
        use_native_hstore=False,
        creator=lambda: connect(parameters),
    )
    parameters.update(_parameters(engine.dialect, url))
    # By this name another process finds the sessions of one that hangs; PostgreSQL keeps 63 bytes of it.
    parameters["application_name"] = f"{parameters['application_name'][:40]}-{uuid.uuid4().hex[:12]}"
    return engine


def connect(parameters: Mapping[str, Any]) -> BoundedConnection:
    """A connection, set up as a store needs it."""
    connection = BoundedConnection.connect(**parameters)
    try:
        connection.prepare_threshold = 2
        connection.prepared_max = _PREPARED_MAX
        names, values = zip(*_SETTINGS.items(), strict=True)
        connection.execute(
            "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS given(name, value)",
            (list(names), list(values)),
        )
        # Off loses answered writes in a crash; whatever waits for more than the disk is the operator's choice.
        connection.execute(
            "SELECT set_config('synchronous_commit', 'on', false)"
            " WHERE current_setting('synchronous_commit') IN ('off', 'local')"
        )
    except BaseException:
        connection.close()
        raise
    return connection


def check_server(connection: BoundedConnection) -> None:
    """Refuse a server that cannot hold a store: too old, or not in UTF-8."""
    version = connection.info.server_version
    if version < VERSION_MIN:
        raise BadRequest(
            f"PostgreSQL {version // 10_000} is too old for a store", hint=f"Use {VERSION_MIN // 10_000} or later."
        )
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise BadRequest(
            f"The database holds text as {encoding}, and a store needs UTF8",
            hint="Make another: createdb --encoding=UTF8 --template=template0 NAME.",
        )


def _parameters(dialect: Dialect, url: URL) -> dict[str, Any]:
    _, given = dialect.create_connect_args(url)
    if url.query.keys() & {"password", "sslpassword"}:
        raise BadRequest(
            "The database URL has a password behind the question mark, where it would be shown",
            hint="Put it before the @, or into PGPASSWORD or a password file.",
        )
    context = given.pop("context", None)
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    for name in given:
        if name not in known:
            raise BadRequest(
                f"The database URL asks for {name!r}, which PostgreSQL does not know",
                hint="Options of libpq may stand behind the question mark, as in ?sslmode=verify-full.",
            )
    adapters = adapt.AdaptersMap(context.adapters if context is not None else psycopg.adapters)
    # One type for every integer: psycopg takes the smallest that fits, and each would be another prepared statement.
    adapters.register_dumper(int, Int8Dumper)
    adapters.register_dumper(int, Int8BinaryDumper)
    adapters.register_dumper(str, _BinaryText)
    adapters.register_dumper(str, _Text)
    ours = {"context": _Context(adapters), "autocommit": True, "cursor_factory": BoundedCursor}
    return {**_PARAMETERS, **given, **ours}


class _Context:
    """What psycopg takes adapters from."""

    connection = None

    def __init__(self, adapters: adapt.AdaptersMap) -> None:
        self.adapters = adapters
