"""Making a store another one, after its database was put back from a dump or copied.

What was written after the dump is not there, although listeners may have heard of it: so every barrel begins a new
epoch, by which they are sent a snapshot.
"""

from __future__ import annotations

import uuid

from sqlalchemy import Connection, delete, func, select, update
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from feeds.barrels import new_epoch
from feeds.errors import StoreLocked, Unavailable
from feeds.storage.database import Database
from feeds.storage.migrate import migrate
from feeds.storage.publishers import RETAINED_NOTES
from feeds.storage.refusals import translated
from feeds.storage.replications import RESTORED, RUN
from feeds.storage.schema import barrels, meta, publishers, replications, tokens
from feeds.storage.session import let_go
from feeds.storage.statements import LOCK_CLASS, USE_LOCK

ENDING_S = 1.0  # so long the server may take to notice that a process which had the store open has ended
LOOK_S = 0.02


def begin_anew(url: str) -> int:
    """Give the store at a URL a new id and each barrel a new epoch, and forget tokens and what brokers were told.

    How many barrels there are. Seqs stay. StoreLocked while a process has the store open, Unavailable where there is
    none.
    """
    database = Database(url, create=False)
    try:
        connection = database.connect()
        try:
            with translated():
                migrate(connection, create=False)
                if database.is_shared:
                    _be_alone(connection)
                connection.exec_driver_sql("BEGIN").close()
                number = renew(connection)
                connection.exec_driver_sql("COMMIT").close()
        finally:
            let_go(connection)
        return number
    finally:
        database.close()


def renew(connection: Connection) -> int:
    """Make the store another one, in the caller's transaction; how many barrels there are."""
    keys = connection.execute(select(barrels.c.barrel)).scalars().all()
    for key in keys:
        connection.execute(update(barrels).where(barrels.c.barrel == key).values(epoch=new_epoch()))
    if connection.execute(update(meta).where(meta.c.key == "store").values(value=uuid.uuid4().hex)).rowcount != 1:
        raise Unavailable("There is no store in this database", hint="Check the URL.")
    retained = func.substr(meta.c.key, 1, len(RETAINED_NOTES)) == RETAINED_NOTES
    connection.execute(delete(meta).where(retained))
    connection.execute(delete(publishers))
    connection.execute(delete(tokens))
    connection.execute(update(replications).where(replications.c.wanted == RUN).values(wanted=RESTORED))
    return len(keys)


def _be_alone(connection: Connection) -> None:
    """Keep others from opening the store until the connection ends; every process that has it open holds this lock
    with others."""
    lock = f"SELECT pg_try_advisory_lock({LOCK_CLASS}, {USE_LOCK})"
    retrying = Retrying(
        retry=retry_if_result(lambda alone: not alone),
        wait=wait_fixed(LOOK_S),
        stop=stop_after_delay(ENDING_S),
        retry_error_callback=lambda _: False,
    )
    if not retrying(lambda: connection.exec_driver_sql(lock).scalar()):
        raise StoreLocked("The store is in use", hint="Stop every process that has it open.")
