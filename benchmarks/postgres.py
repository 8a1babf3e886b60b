"""The store on PostgreSQL: bulk and single writes with the index, in one process and in two, on a cluster of its own.

Beside it what the server takes when the same rows come in by COPY with nothing else to do.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring import arguments, documents, median_of, report, syncs_per_second
from feeds import Barrel, Store

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "tools"))
from postgres import Cluster, cluster

BATCH = 1_000
CALLERS = 64

ASKED = {
    "bulk_docs_per_s": 8_000,
    "put_per_s_64_callers": 2_500,
    "two_processes_to_one": 0.7,
}

# A process of its own: loads its documents in calls of 1,000 when it is told to, and says how long it took.
_LOADER = """
import sys, time
from benchmarks.measuring import documents
from feeds import Store
url, name, begin, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
docs = documents(begin + count)[begin:]
with Store.open(url) as store:
    barrel = store.barrel(name)
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.time()
    for at in range(0, count, 1_000):
        barrel.bulk(docs[at : at + 1_000])
    print(began, time.time(), flush=True)
"""


def bulk(barrel: Barrel, docs: list[bytes]) -> float:
    """Documents a second in calls of 1,000."""
    began = time.perf_counter()
    for at in range(0, len(docs), BATCH):
        barrel.bulk(docs[at : at + BATCH])
    return len(docs) / (time.perf_counter() - began)


def many_callers(barrel: Barrel, docs: list[bytes], callers: int) -> float:
    """Puts a second of so many threads."""
    share = len(docs) // callers

    def call(number: int) -> None:
        for doc in docs[number * share : (number + 1) * share]:
            barrel.put(doc)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return share * callers / (time.perf_counter() - began)


def loaders(url: str, names: list[str], count: int) -> float:
    """Documents a second of a process for each name, each loading so many into the barrel of that name."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _LOADER, url, name, str(at * count), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for at, name in enumerate(names)
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    times: list[float] = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        assert process.stdout is not None
        times += map(float, process.stdout.readline().split())
        process.communicate()
    return len(names) * count / (max(times) - min(times))


def raw_copy(server: Cluster, source: str, count: int) -> float:
    """Documents a second when the rows of a store are sent into another's tables by COPY, 1,000 in a commit."""
    import psycopg

    target = server.database()
    Store.open(server.url(target)).close()
    tables = {"docs": "doc", "revs": "doc", "log": "seq", "paths": "doc"}
    taken = 0.0
    with psycopg.connect(server.url(source)) as reader, psycopg.connect(server.url(target)) as writer:
        for at in range(0, count, BATCH):
            parts: dict[str, list[Any]] = {}
            for name, by in tables.items():
                rows = f"SELECT * FROM {name} WHERE {by} > {at} AND {by} <= {at + BATCH}"
                with reader.cursor().copy(f"COPY ({rows}) TO STDOUT (FORMAT BINARY)") as copy:
                    parts[name] = list(copy)
            began = time.perf_counter()
            for name, chunks in parts.items():
                with writer.cursor().copy(f"COPY {name} FROM STDIN (FORMAT BINARY)") as copy:
                    for chunk in chunks:
                        copy.write(chunk)
            writer.commit()
            taken += time.perf_counter() - began
    return count / taken


def measure(count: int) -> dict[str, float]:
    """All figures once."""
    docs = documents(count + 1_000 + 12_800)
    with cluster(durable=True, shared_buffers="512MB", max_wal_size="4GB") as server:
        name = server.database()
        url = server.url(name)
        with Store.open(url) as store:
            barrel = store.create("bench")
            bulk_rate = bulk(barrel, docs[:count])
            single_rate = many_callers(barrel, docs[count : count + 1_000], 1)
            many_rate = many_callers(barrel, docs[count + 1_000 :], CALLERS)
            for other in ("alone", "shared", "left", "right"):
                store.create(other)
        one = loaders(url, ["alone"], count)
        return {
            "bulk_docs_per_s": bulk_rate,
            "raw_copy_docs_per_s": raw_copy(server, name, count),
            "put_per_s_1_caller": single_rate,
            "put_per_s_64_callers": many_rate,
            "one_process_docs_per_s": one,
            "two_processes_to_one": loaders(url, ["shared", "shared"], count // 2) / one,
            "two_processes_two_barrels_to_one": loaders(url, ["left", "right"], count // 2) / one,
            "syncs_per_s": syncs_per_second(server.folder),
        }


def main() -> None:
    """Run it."""
    options = arguments(__doc__ or "", runs=3, documents=20_000)
    report("postgres", median_of(options.runs, lambda: measure(options.documents)), ASKED)


if __name__ == "__main__":
    main()
