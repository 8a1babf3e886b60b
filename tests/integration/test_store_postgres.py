"""A store on PostgreSQL: what stands in the way of opening one, and what is of its own there."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, create_engine

sys.path.insert(0, str(Path(__file__).parent))
from databases import Databases
from ports import free_port
from postgres import PASSWORD, QUOTED, Cluster, binary
from running import until
from store_tools import count, refusal

from feeds import Position, Store, Token
from feeds.errors import BadRequest, Missing, NewerSchema, NotFound, StoreLocked, Unavailable
from feeds.storage import anew, asking
from feeds.storage import postgres as postgres_connections
from feeds.storage.migrate import STORE
from feeds.storage.schema import metadata
from feeds.storage.statements import LOCK_CLASS, SCHEMA_LOCK, USE_LOCK


@pytest.fixture
def url(databases: Databases) -> str:
    """A database with an empty store's tables, the test's own."""
    return databases.fresh()


# -- opening


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://user:s3cret@host", "names no database"),
        ("postgresql://user:s3cret@host:port/spile", "cannot be read"),
        ("postgresql+psycopg2://user:s3cret@host/spile", "psycopg2"),
        ("postgresql://user:s3cret@host/spile?retries=5", "'retries'"),
        ("mysql://user:s3cret@host/spile", "'mysql'"),
    ],
)
def test_urls_that_cannot_be_meant_are_refused_and_their_passwords_not_told(url: str, says: str) -> None:
    error = refusal(lambda: Store.open(url))
    assert isinstance(error, BadRequest)
    assert says in error.reason
    assert "s3cr" not in f"{error.reason} {error.hint}"


def test_what_refuses_a_store_is_told_in_a_line_that_says_what_to_do(postgres: Cluster) -> None:
    name = postgres.database()
    wrong = postgres.url(name, user="stranger").replace(QUOTED, "guessed")
    told = {
        "refused the login": refusal(lambda: Store.open(wrong)),
        "no such database": refusal(lambda: Store.open(postgres.url("nowhere"))),
        "cannot be reached": refusal(lambda: Store.open(postgres.url(name, port=free_port()))),
        "no store in this database": refusal(lambda: Store.open(postgres.url(name), create=False)),
    }
    for says, error in told.items():
        assert isinstance(error, Unavailable)
        assert says in error.reason
        assert "\n" not in error.reason
        assert error.hint
        assert PASSWORD not in str(error) and "guessed" not in str(error)


def test_a_user_who_may_not_make_tables_is_told_what_to_grant(postgres: Cluster) -> None:
    user = postgres.user("reader")
    error = refusal(lambda: Store.open(postgres.url(postgres.database(), user=user)))
    assert isinstance(error, Unavailable)
    assert "may not do this" in error.reason and "permission denied" in error.reason
    assert "GRANT" in error.hint


def test_a_user_with_a_password_opens_a_database_of_its_own(postgres: Cluster) -> None:
    user, name = postgres.user("owner"), postgres.database()
    postgres.run(f'ALTER DATABASE "{name}" OWNER TO "{user}"')
    with Store.open(postgres.url(name, user=user)) as store:
        store.create("geo").put({"n": 1}, id="x")
        assert PASSWORD not in store.database.url and QUOTED not in store.database.url


def test_a_database_in_another_encoding_is_refused(postgres: Cluster) -> None:
    postgres.run("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' LOCALE_PROVIDER libc TEMPLATE template0")
    error = refusal(lambda: Store.open(postgres.url("latin")))
    assert isinstance(error, BadRequest)
    assert "LATIN1" in error.reason


def test_a_database_without_a_free_connection_says_so(postgres: Cluster, url: str) -> None:
    name = url.rpartition("/")[2]
    user = postgres.user("few")
    postgres.run(f'ALTER ROLE "{user}" CONNECTION LIMIT 0')
    error = refusal(lambda: Store.open(postgres.url(name, user=user)))
    assert isinstance(error, Unavailable)
    assert "takes no more connections" in error.reason


def test_a_newer_schema_is_refused_and_left_alone(postgres: Cluster, url: str) -> None:
    name = url.rpartition("/")[2]
    postgres.run("UPDATE alembic_version SET version_num = '9999'", database=name)
    error = refusal(lambda: Store.open(url))
    assert isinstance(error, NewerSchema)
    assert postgres.run("SELECT version_num FROM alembic_version", database=name) == [("9999",)]


def described(url: str, build: Callable[[Connection], None]) -> dict[str, list[tuple[Any, ...]]]:
    """The columns, constraints and indexes of what `build` makes in an empty database."""
    engine = create_engine(url.replace("://", "+psycopg://"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        build(connection)
        assert STORE.found(connection) == STORE.head
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        found = {query: sorted(map(tuple, connection.exec_driver_sql(query))) for query in _DESCRIPTIONS}
    engine.dispose()
    return found


_DESCRIPTIONS = (
    "SELECT table_name, column_name, ordinal_position, data_type, character_maximum_length, collation_name,"
    " is_nullable, column_default FROM information_schema.columns WHERE table_schema = 'public'",
    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'public'::regnamespace",
    "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
)


def test_what_is_made_at_once_is_what_the_migrations_lead_to(postgres: Cluster) -> None:
    made, migrated = (described(postgres.url(postgres.database()), build) for build in (STORE.make, STORE.upgrade))
    assert made == migrated
    bytewise = {(row[0], row[1]) for row in made[_DESCRIPTIONS[0]] if row[5] == "C"}
    assert {("docs", "id"), ("paths", "places"), ("meta", "key")} <= bytewise


def test_whoever_waits_for_anothers_migration_waits_for_as_long_as_it_takes(
    postgres: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_connections.BoundedConnection, "answer_s", 2.5)
    url = postgres.url(postgres.database())
    with closing(postgres.connect(url.rpartition("/")[2])) as other, ThreadPoolExecutor() as pool:
        other.execute(f"SELECT pg_advisory_lock({LOCK_CLASS}, {SCHEMA_LOCK})")
        opening = pool.submit(Store.open, url)
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND now() - waitstart > interval '3 s'"
        until(lambda: opening.done() or other.execute(waiting).fetchone() == (1,))
        monkeypatch.undo()
        other.execute(f"SELECT pg_advisory_unlock({LOCK_CLASS}, {SCHEMA_LOCK})")
        opening.result().close()


def test_of_several_that_start_at_once_one_makes_the_tables(postgres: Cluster) -> None:
    url = postgres.url(postgres.database())
    found: list[str] = []

    def start() -> None:
        with Store.open(url) as store:
            found.append(store.id)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1


# -- its own ways


def test_commits_wait_for_the_disk_whatever_the_server_says(postgres: Cluster, url: str) -> None:
    assert postgres.run("SHOW synchronous_commit") == [("off",)]
    with Store.open(url) as store:
        told = store.writer.call(
            lambda transaction: transaction.execute("SELECT current_setting('synchronous_commit')")
        )
        assert told == [("on",)]


def test_transactions_see_what_others_committed_before_each_statement_whatever_the_server_says(
    postgres: Cluster,
) -> None:
    name = postgres.database()
    postgres.run(f"""ALTER DATABASE "{name}" SET default_transaction_isolation = 'serializable'""")
    with Store.open(postgres.url(name)) as store:
        told = store.writer.call(
            lambda transaction: transaction.execute("SELECT current_setting('transaction_isolation')")
        )
        assert told == [("read committed",)]


def test_a_question_with_a_character_that_cannot_be_stored_finds_nothing(url: str) -> None:
    with Store.open(url) as store:
        geo = store.create("geo")
        geo.put({"a\x00b": {"c": "x\x00y"}}, id="x")
        assert isinstance(refusal(lambda: geo.get("x\x00")), Missing)
        assert isinstance(refusal(lambda: store.barrel("geo\x00")), NotFound)
        assert geo.revs_diff({"x\x00": ["1-a"]}) == {"x\x00": {"missing": ["1-a"]}}
        assert store.cursors.get("geo", "a\x00") is None
        (hit,) = geo.find("a%00b/c", from_="x\x00y", to="x\x00y").results
        assert (hit.id, hit.path) == ("x", "a%00b/c")
        assert geo.find("_id/x%00").results == []
        assert geo.put({}, id="y", token=Token("k\x00", "s\x00", "d")).seq == 2
        assert geo.put({}, id="y", token=Token("k\x00", "s\x00", "d")).repeated


def test_a_page_of_large_documents_ends_at_its_bound_of_bytes(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(url) as store:
        geo = store.create("geo")
        size = asking.PAGE_BYTES_MAX // 4
        geo.bulk([{"_id": f"d{number}", "text": "x" * size} for number in range(10)])
        fetched: list[int] = []

        def counted(connection: Connection, statement: str, parameters: Any, limit: int, body: int | None) -> Any:
            fetched.append(len(asking.rows_of(connection, statement, parameters)))
            return asking.page_rows(connection, statement, parameters, limit, body)

        for module in ("feeds.barrel", "feeds.storage.replay"):
            monkeypatch.setattr(f"{module}.page_rows", counted)
        told: list[str] = []
        page, after = geo.tail_page(0)
        while page:
            told += [entry.id for entry in page]
            page, after = geo.tail_page(after)
        assert told == [f"d{number}" for number in range(10)]
        assert max(fetched) <= 5
        assert [row.id for row in geo.changes(docs=True).results] == told
        assert [row.id for row in geo.changes(docs=True, descending=True).results] == told[::-1]
        assert max(fetched) <= 5


def test_what_is_larger_than_every_buffer_on_the_way_is_written(url: str) -> None:
    with Store.open(url) as store:
        geo = store.create("geo")
        geo.bulk([{"_id": f"d{number}", "text": "x" * (2 << 20)} for number in range(10)])
        # In one exchange with all that goes with it: statements in a pipeline, not a COPY.
        store.set_note("large", "y" * (24 << 20))
        assert [row.seq for row in geo.changes().results] == list(range(1, 11))
        assert store.note("large") == "y" * (24 << 20)


def test_readers_wait_for_a_connection_and_are_told_when_none_comes_free(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from feeds.storage import database

    monkeypatch.setattr(database, "READERS_MAX", 1)
    with Store.open(url) as store:
        geo = store.create("geo")
        with store.database.reading(), monkeypatch.context() as impatient:
            impatient.setattr(database, "READER_WAIT_S", 0.05)
            error = refusal(geo.head)
        assert error.code == "overloaded"
        assert geo.head() == 0


# -- from a dump


def test_a_store_from_a_dump_begins_anew(postgres: Cluster, url: str) -> None:
    with Store.open(url) as store:
        geo = store.create("geo")
        geo.bulk([{"_id": f"d{number}", "n": number, "é": ["ß", None]} for number in range(50)])
        store.add_publisher("mqtt")
        store.move_publisher("mqtt", {geo: 20})
        store.set_note("retained:mqtt:1", "x")
        store.set_note("other", "stays")
        store.cursors.put([("geo", "listener", Position(20, geo.epoch))])
        geo.put({"n": 1}, id="t", token=Token("k", "s", "d"))
        first, epoch = store.id, geo.epoch
        assert isinstance(refusal(lambda: Store.begin_anew(url)), StoreLocked)
    there = postgres.url(postgres.database())
    dump = subprocess.run([str(binary("pg_dump")), "--no-owner", url], capture_output=True, check=True)
    psql = [str(binary("psql")), "--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", there]
    subprocess.run(psql, input=dump.stdout, stdout=subprocess.DEVNULL, check=True)
    assert Store.begin_anew(there) == 1
    with Store.open(there, create=False) as store:
        geo = store.barrel("geo")
        assert (store.id != first, geo.epoch != epoch) == (True, True)
        assert geo.head() == 51
        assert geo.resolve(Position(20, epoch)).snapshot
        assert store.publisher_position("mqtt", geo) is None
        assert (store.note("retained:mqtt:1"), store.note("other")) == (None, "stays")
        assert (count(store, "tokens"), count(store, "cursors")) == (0, 1)
        assert geo.put({"n": 2}, id="new").seq == 52
        assert [hit.id for hit in geo.find("n", from_=49).results] == ["d49"]
        assert store.check().problems == []


def test_a_store_that_is_open_does_not_begin_anew_although_the_server_was_restarted(
    postgres: Cluster, url: str
) -> None:
    database = url.rpartition("/")[2]
    mine = "FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
    with Store.open(url) as store:
        store.create("geo")
        ended = postgres.run(f"SELECT pid, pg_terminate_backend(pid) {mine}", database)
        assert len(ended) >= 2, "the writer's session and the watch's"
        looked = f"SELECT pid {mine} AND state = 'idle' AND query LIKE 'SELECT barrels%%'"
        until(lambda: postgres.run(looked, database), "the watch to be back, and to look")
        assert isinstance(refusal(lambda: Store.begin_anew(url)), StoreLocked)


def test_a_store_begins_anew_once_the_server_knows_that_nobody_has_it_open_any_more(
    postgres: Cluster, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anew, "ENDING_S", 30.0)
    Store.open(url).close()
    begun: list[int] = []
    with closing(postgres.connect(url.rpartition("/")[2])) as ending:
        ending.execute(f"SELECT pg_advisory_lock_shared({LOCK_CLASS}, {USE_LOCK})")
        beginning = threading.Thread(target=lambda: begun.append(Store.begin_anew(url)))
        beginning.start()
        asked = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_try_advisory_lock%'"
        until(lambda: postgres.run(asked), "the store to be found in use")
    beginning.join()
    assert begun == [0]


def test_what_is_no_store_does_not_begin_anew(postgres: Cluster, tmp_path: Path) -> None:
    assert isinstance(refusal(lambda: Store.begin_anew(postgres.url(postgres.database()))), Unavailable)
    assert isinstance(refusal(lambda: Store.begin_anew(tmp_path)), Unavailable)


def test_a_backup_of_postgresql_is_left_to_its_own_tools(url: str, tmp_path: Path) -> None:
    with Store.open(url) as store:
        error = refusal(lambda: store.backup(tmp_path / "copy"))
    assert isinstance(error, BadRequest)
    assert "pg_dump" in error.hint
    assert isinstance(refusal(lambda: Store.backup_of(url, tmp_path / "copy")), BadRequest)
    assert list(tmp_path.iterdir()) == []


def test_a_password_where_it_would_be_shown_is_refused() -> None:
    with pytest.raises(BadRequest, match="behind the question mark") as raised:
        Store.open("postgresql://u@127.0.0.1/db?password=secret")
    assert "secret" not in str(raised.value)
