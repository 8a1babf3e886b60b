"""What a replay by pattern costs: 100 matches among a million changes, from the beginning and from a position."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import msgspec

from benchmarks.measuring import arguments, folder, report
from feeds import Barrel, Pattern, Store, parse_patterns

ASKED = {"first_100_of_1m_ms": 20, "leaves_100_of_1m_ms": 20}
MATCHES = 100
BATCH = 5_000


def fill(barrel: Barrel, count: int) -> None:
    """So many small documents, a hundred of which stand under `kind/rare`."""
    every = count // MATCHES
    for begin in range(0, count, BATCH):
        barrel.bulk(
            [
                msgspec.json.encode(
                    {"_id": f"d{at:08d}", "kind": "rare" if at % every == 7 else f"common-{at % 40}", "at": at}
                )
                for at in range(begin, min(count, begin + BATCH))
            ]
        )


def replay(barrel: Barrel, after: int, patterns: Sequence[Pattern]) -> tuple[float, int]:
    """Milliseconds and rows of one replay."""
    began = time.perf_counter()
    replaying = barrel.replay(after, patterns)
    rows = 0
    while True:
        page = replaying.next(1_000)
        rows += len(page.rows)
        if page.caught_up:
            return (time.perf_counter() - began) * 1000, rows


def median(barrel: Barrel, after: int, patterns: Sequence[Pattern], runs: int) -> float:
    """The median of several replays, which must tell a hundred rows each."""
    times = []
    for _ in range(runs):
        took, rows = replay(barrel, after, patterns)
        assert rows == MATCHES, rows
        times.append(took)
    return statistics.median(times)


def main() -> None:
    """Run it."""
    options = arguments(__doc__ or "", changes=1_000_000, runs=21)
    rare = parse_patterns(["kind/rare"])
    with folder() as place, Store.open(place) as store:
        barrel = store.create("bench")
        fill(barrel, options.changes)
        figures: dict[str, object] = {"changes": options.changes}
        figures["first_100_of_1m_ms"] = median(barrel, 0, rare, options.runs)
        position = barrel.head() // 2
        for row in barrel.changes(patterns=rare).results:
            barrel.merge(row.id, {"kind": "moved"})
        figures["leaves_100_of_1m_ms"] = median(barrel, position, rare, options.runs)
    report("replay", figures, ASKED)


if __name__ == "__main__":
    main()
