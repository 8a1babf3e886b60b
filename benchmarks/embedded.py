"""The store in one process: bulk and single writes with the index, beside what SQLite alone gives in the same run."""

from __future__ import annotations

import sqlite3
import statistics
import threading
import time
from pathlib import Path

from benchmarks.measuring import arguments, documents, folder, median_of, report, syncs_per_second
from feeds import Barrel, Store

BATCH = 1_000
CALLERS = 64

ASKED = {
    "bulk_docs_per_s": 15_000,
    "bulk_to_raw_sqlite": 0.5,
    "put_per_s_1_caller": 1_200,
    "put_per_s_64_callers": 3_500,
    "update_20000_to_100": 1.3,
    "changes_rows_per_s": None,
}


def bulk(barrel: Barrel, docs: list[bytes]) -> float:
    """Documents a second in calls of 1,000."""
    began = time.perf_counter()
    for at in range(0, len(docs), BATCH):
        barrel.bulk(docs[at : at + BATCH])
    return len(docs) / (time.perf_counter() - began)


def raw_insert(store: Path, place: Path) -> float:
    """Documents a second when the very rows of `store` are inserted into an empty copy with plain sqlite3."""
    source = sqlite3.connect(store)
    schema = [
        sql
        for (sql,) in source.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")
        if "sqlite_" not in sql
    ]
    tables = ("docs", "revs", "log", "paths")
    rows = {
        name: source.execute(f"SELECT * FROM {name} ORDER BY {order}").fetchall()
        for name, order in zip(tables, ("doc", "doc", "seq", "seq"), strict=True)
    }
    source.close()
    target = sqlite3.connect(place / "raw.db", isolation_level=None)
    target.execute("PRAGMA journal_mode = WAL")
    target.execute("PRAGMA synchronous = FULL")
    target.execute("PRAGMA wal_autocheckpoint = 4000")
    target.execute("PRAGMA cache_size = -32768")
    for sql in schema:
        target.execute(sql)
    count = len(rows["docs"])
    began = time.perf_counter()
    for at in range(0, count, BATCH):
        target.execute("BEGIN")
        for name in tables:
            each = len(rows[name]) // count
            part = rows[name][at * each : (at + BATCH) * each]
            target.executemany(f"INSERT INTO {name} VALUES ({','.join('?' * len(part[0]))})", part)
        target.execute("COMMIT")
    elapsed = time.perf_counter() - began
    target.close()
    return count / elapsed


def singles(barrel: Barrel, docs: list[bytes]) -> float:
    """Puts a second of one caller."""
    began = time.perf_counter()
    for doc in docs:
        barrel.put(doc)
    return len(docs) / (time.perf_counter() - began)


def many_callers(barrel: Barrel, docs: list[bytes]) -> float:
    """Puts a second of 64 threads."""
    share = len(docs) // CALLERS

    def call(number: int) -> None:
        for doc in docs[number * share : (number + 1) * share]:
            barrel.put(doc)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(CALLERS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return share * CALLERS / (time.perf_counter() - began)


def updates(barrel: Barrel, count: int) -> float:
    """How much longer the last updates of one document take than its first hundred."""
    times: list[float] = []
    rev = barrel.put({"_id": "hot", "value": -1, "at": "x"}).rev
    for number in range(count):
        began = time.perf_counter()
        rev = barrel.put({"_id": "hot", "value": number, "at": "x"}, rev=rev).rev
        times.append(time.perf_counter() - began)
    return statistics.median(times[-200:]) / statistics.median(times[50:250])


def changes(barrel: Barrel) -> float:
    """Rows a second of the log without documents."""
    began = time.perf_counter()
    rows = len(barrel.changes().results)
    return rows / (time.perf_counter() - began)


def measure(count: int) -> dict[str, float]:
    """All figures once."""
    docs = documents(count + 2_000 + 6_400)
    with folder() as place:
        with Store.open(place) as store:
            barrel = store.create("bench")
            bulk_rate = bulk(barrel, docs[:count])
        raw_rate = raw_insert(place / "spile.db", place)
        with Store.open(place) as store:
            barrel = store.barrel("bench")
            return {
                "bulk_docs_per_s": bulk_rate,
                "raw_sqlite_docs_per_s": raw_rate,
                "bulk_to_raw_sqlite": bulk_rate / raw_rate,
                "put_per_s_1_caller": singles(barrel, docs[count : count + 2_000]),
                "put_per_s_64_callers": many_callers(barrel, docs[count + 2_000 :]),
                "changes_rows_per_s": changes(barrel),
                "syncs_per_s": syncs_per_second(place),
            }


def main() -> None:
    """Run it."""
    options = arguments(__doc__ or "", runs=3, documents=50_000, updates=20_100)
    figures = median_of(options.runs, lambda: measure(options.documents))
    with folder() as place, Store.open(place) as store:
        figures["update_20000_to_100"] = updates(store.create("hot"), options.updates)
    report("embedded", figures, ASKED)


if __name__ == "__main__":
    main()
