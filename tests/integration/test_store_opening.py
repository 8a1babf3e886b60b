"""Opening stores: schemas, locks, URLs, and what stands in the way."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, create_engine

sys.path.insert(0, str(Path(__file__).parent))
from store_tools import refusal

from feeds import Store
from feeds.blobs.migrate import INDEX
from feeds.errors import BadRequest, NewerSchema, StoreLocked, Unavailable
from feeds.storage.asking import one_transaction
from feeds.storage.database import Database
from feeds.storage.migrate import STORE
from feeds.storage.refusals import translated
from feeds.storage.versions import Schema


def test_a_store_is_made_where_there_is_none_and_found_again(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a" / "b") as store:
        store.create("geo", {"retain": True}).put({"n": 1}, id="x")
        first = store.id
    with Store.open(f"sqlite:///{tmp_path}/a/b/spile.db", create=False) as store:
        assert store.id == first
        assert store.barrel("geo").settings.retain
        assert store.barrel("geo").get("x").data["n"] == 1
        assert store.barrel("geo").put({"n": 1}, id="y").seq == 2


def test_a_store_that_is_not_to_be_made_is_not_made(tmp_path: Path) -> None:
    assert isinstance(refusal(lambda: Store.open(tmp_path / "none", create=False)), Unavailable)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///:memory:", "mysql://x/y", "nonsense://x", "sqlite:///", "sqlite:////", "sqlite:////tmp"],
)
def test_urls_that_cannot_hold_a_store_are_refused(url: str) -> None:
    assert isinstance(refusal(lambda: Store.open(url)), BadRequest)


def test_a_store_is_held_by_one_process(tmp_path: Path) -> None:
    code = "import sys; from feeds import Store; Store.open(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        error = refusal(lambda: Store.open(tmp_path))
        assert isinstance(error, StoreLocked)
        assert str(holder.pid) in error.reason
        holder.kill()
    with Store.open(tmp_path) as store:
        assert isinstance(refusal(lambda: Store.open(tmp_path)), StoreLocked)
        assert store.barrels() == []
    Store.open(tmp_path).close()


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "spile.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    error = refusal(lambda: Store.open(tmp_path))
    assert isinstance(error, NewerSchema)
    assert "9999" in error.reason
    with closing(sqlite3.connect(tmp_path / "spile.db")) as database:
        assert database.execute("SELECT version_num FROM alembic_version").fetchone() == ("9999",)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "spile.db").write_text("these are my notes\n" * 500)
    error = refusal(lambda: Store.open(tmp_path))
    assert error.code == "damaged"
    assert (tmp_path / "spile.db").read_text().startswith("these are my notes")


@pytest.mark.parametrize("schema", [STORE, INDEX], ids=["store", "blobs"])
def test_what_is_made_at_once_is_what_the_migrations_lead_to(schema: Schema) -> None:
    def tables(build: Callable[[Connection], None]) -> list[str]:
        engine = create_engine("sqlite://")
        with engine.connect() as connection:
            build(connection)
            assert schema.found(connection) == schema.head
            assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
            query = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
            made = [" ".join(sql.split()) for (sql,) in connection.exec_driver_sql(query)]
        engine.dispose()
        return made

    assert tables(schema.make) == tables(schema.upgrade)
    assert ScriptDirectory.from_config(schema.config()).get_heads() == [schema.head]


_OLD = """
revision, down_revision = "0001", None
"""
_NEW = """
from alembic import op
revision, down_revision = "0002", "0001"
def upgrade():
    op.execute("ALTER TABLE notes ADD COLUMN twice INTEGER")
    op.execute("UPDATE notes SET twice = 2 * id")
    op.execute("DELETE FROM obstacles")
"""


def test_an_older_schema_is_led_on_and_stays_as_it_is_where_that_fails(tmp_path: Path) -> None:
    (tmp_path / "versions").mkdir()
    (tmp_path / "versions" / "v0001.py").write_text(_OLD)
    (tmp_path / "versions" / "v0002.py").write_text(_NEW)
    shutil.copy(STORE.folder / "env.py", tmp_path)
    schema = Schema("What keeps notes", MetaData(), tmp_path, head="0002")
    with closing(Database(str(tmp_path / "notes"))) as database, database.reading() as connection:

        def run(statement: str) -> list[Any]:
            result = connection.exec_driver_sql(statement)
            return list(result.all()) if result.returns_rows else []

        def lead_on() -> None:
            with translated(), one_transaction(connection, "BEGIN IMMEDIATE"):
                schema.lead_on(connection)

        run("CREATE TABLE notes (id INTEGER)")
        run("INSERT INTO notes VALUES (21)")
        run("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        run("INSERT INTO alembic_version VALUES ('0001')")
        assert "no such table: obstacles" in refusal(lead_on).reason
        assert schema.found(connection) == "0001"
        assert run("SELECT * FROM notes") == [(21,)]
        run("CREATE TABLE obstacles (id INTEGER)")
        lead_on()
        assert schema.found(connection) == "0002"
        assert run("SELECT * FROM notes") == [(21, 42)]


def test_a_store_that_could_not_be_made_is_made_another_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.open(tmp_path / "first").close()  # the statements are known by now
    statements = STORE._statements["sqlite"]
    for made in (1, len(statements) - 1, len(statements)):
        monkeypatch.setitem(STORE._statements, "sqlite", [*statements[:made], "INSERT INTO nowhere VALUES (1)"])
        assert "no such table: nowhere" in refusal(lambda: Store.open(tmp_path / "store")).reason
    monkeypatch.undo()
    with Store.open(tmp_path / "store") as store:
        assert store.create("geo").put({}, id="x").seq == 1


def test_a_fresh_store_does_not_wait_for_alembic(tmp_path: Path) -> None:
    program = "import sys; from feeds import Store; Store.open(sys.argv[1]).close(); print('alembic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert isinstance(refusal(lambda: Store.open(tmp_path / "store")), Unavailable)
    finally:
        tmp_path.chmod(0o700)


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    geo = store.create("geo")
    store.close()
    store.close()
    assert isinstance(refusal(lambda: geo.put({}, id="x")), Unavailable)
    assert isinstance(refusal(geo.head), Unavailable)
