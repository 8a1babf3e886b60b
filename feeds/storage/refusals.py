"""What a database said, in our words: each error of a driver as the SpileError that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from feeds.errors import Damaged, Overloaded, SpileError, StorageFull, Unavailable

LOST = "The connection to the database was lost"

# By SQLSTATE, or by its class where that says enough: what it means here, and what to do.
_MEANINGS: dict[str, tuple[str, str]] = {
    "28P01": ("The database refused the login", "Check user and password in the database URL."),
    "28": ("The database refused the login", "Check user and password in the database URL, and pg_hba.conf."),
    "3D000": ("There is no such database", "Make it first: createdb --encoding=UTF8 NAME."),
    "42501": (
        "The user of the database may not do this",
        "Let the user own the database, or run: GRANT CREATE, USAGE ON SCHEMA public TO the_user.",
    ),
    "25006": ("The database is read-only", "Name the primary server in the database URL, not a standby."),
    "53300": (
        "The database takes no more connections",
        "Raise max_connections in PostgreSQL; a service uses up to 20.",
    ),
    "57P01": ("The database is shutting down", ""),
    "57P02": ("The database has crashed, and starts again", ""),
    "57P03": ("The database is starting or stopping", ""),
    "57014": ("The database took too long", "Look what keeps it busy; the request may be repeated."),
    "55P03": ("Another process holds what is to be written", "The request may be repeated."),
    "25P03": ("This process was held up inside a transaction, which the database ended", ""),
    "40": ("The database asks to repeat the transaction", ""),
}
_REPEATABLE = ("40001", "40P01")
_FULL = ("53100",)
_DAMAGED = ("XX001", "XX002")
_LOSSES = ("08", "57P01", "57P02", "57P03", "25P03", "25P04", "57P05")


@contextmanager
def translated() -> Iterator[None]:
    """Database errors inside the block come out as the SpileError that says what to do."""
    try:
        yield
    except DBAPIError as error:
        raise translate(error) from error


def translate(error: DBAPIError) -> SpileError:
    """The SpileError for what the driver said."""
    text = _line(str(error.orig))
    if _driver(error) == "psycopg":
        return _of_postgres(sqlstate(error), text, is_lost(error))
    return _of_sqlite(text)


def is_lost(error: DBAPIError) -> bool:
    """Whether the connection went with it, so that nothing more can be said on it."""
    if error.connection_invalidated:
        return True
    state = sqlstate(error)
    return state is not None and state.startswith(_LOSSES)


def is_repeatable(error: DBAPIError) -> bool:
    """Whether nothing is wrong but the moment: the transaction lost against another one."""
    return sqlstate(error) in _REPEATABLE


def sqlstate(error: DBAPIError) -> str | None:
    """PostgreSQL's code of the error; None from SQLite, or where there was no server to give one."""
    found = getattr(error.orig, "sqlstate", None)
    return found if isinstance(found, str) else None


def _driver(error: DBAPIError) -> str:
    return type(error.orig).__module__.partition(".")[0]


def _of_postgres(state: str | None, text: str, lost: bool) -> SpileError:
    if state is not None:
        if state in _FULL:
            return StorageFull(f"The database's disk is full: {text}")
        if state in _DAMAGED:
            return Damaged(f"The database is damaged: {text}", hint="Restore a backup of the database.")
        meaning = _MEANINGS.get(state) or _MEANINGS.get(state[:2])
        if meaning is not None:
            return Unavailable(f"{meaning[0]}: {text}", hint=meaning[1] or None)
    for said, code in _SAID:
        if said in text:
            return _of_postgres(code, text, lost)
    if state is None or lost:
        reason = f"{LOST}: {text}" if lost else f"The database cannot be reached: {text}"
        return Unavailable(reason, hint="Check that PostgreSQL runs, and can be reached at this address from here.")
    return Unavailable(f"The database refused ({state}): {text}")


# A refusal to connect comes without a code, as text of the server's.
_SAID = (
    ("too many connections", "53300"),
    ("password authentication failed", "28P01"),
    ("no password supplied", "28P01"),
    ("no pg_hba.conf entry", "28000"),
    ('role "', "28000"),
    ('database "', "3D000"),
    ("too many clients", "53300"),
    ("remaining connection slots", "53300"),
    ("the database system is", "57P03"),
)


def _of_sqlite(text: str) -> SpileError:
    if "disk is full" in text or "No space left" in text:
        return StorageFull(f"The store's disk is full: {text}")
    if "locked" in text or "busy" in text:
        return Unavailable(
            f"The database is locked by another process: {text}",
            hint="End the other program's transaction; the request may be repeated.",
        )
    if "malformed" in text or "not a database" in text or "corrupt" in text:
        return Damaged(f"The database file is damaged: {text}")
    if "readonly" in text or "unable to open" in text:
        return Unavailable(f"The database cannot be written: {text}", hint="Check the folder's permissions and disk.")
    if "disk I/O error" in text:
        return Unavailable(f"The disk failed: {text}", hint="Check the disk and its free space.")
    return Unavailable(f"The database refused: {text}")


def too_many_readers(limit: int) -> Overloaded:
    """Every connection for readers is in use, and stayed so."""
    return Overloaded(f"All {limit} connections for readers of the database are busy")


def _line(text: str) -> str:
    """A driver's message as one line."""
    return " ".join(text.split())
