"""A stream of 300,000 changes to one listener over the embedded broker: rows a second, and the service's memory."""

from __future__ import annotations

import time

import httpx

from benchmarks.measuring import arguments, documents, median_of, report
from benchmarks.service import service
from listeners import listen

ASKED = {"rows_per_s": 30_000, "grown_mib": "flat"}
BATCH = 1_000


def measure(changes: int, docs: bool, broker: str | None = None) -> dict[str, float]:
    """Load so many documents, then hear of them all from the beginning, over the embedded broker or another."""
    with service(broker=broker) as running:
        # Of paths another broker would be told all.
        running.create("bench", **({"publish": ["_id/#"]} if broker else {}))
        bodies = documents(changes)
        with httpx.Client(base_url=running.url, timeout=60) as client:
            for at in range(0, changes, BATCH):
                body = b'{"docs":[' + b",".join(bodies[at : at + BATCH]) + b"]}"
                client.post("/barrels/bench/docs/_bulk", content=body).raise_for_status()
        before = running.memory_mib()
        source = f"mqtt://127.0.0.1:{running.mqtt_port}/bench"
        began = time.perf_counter()
        heard = 0
        with listen(source, since="first", docs=docs, follow=False, window=20_000, bytes=8 << 20) as feed:
            for _ in feed:
                heard += 1
        took = time.perf_counter() - began
        if heard != changes:
            raise SystemExit(f"{heard} of {changes} changes were heard")
        return {"rows_per_s": changes / took, "grown_mib": running.memory_mib("VmHWM") - before}


def main() -> None:
    """Run it."""
    options = arguments(__doc__ or "", changes=300_000, runs=3)
    figures = median_of(options.runs, lambda: measure(options.changes, docs=False))
    with_docs = median_of(options.runs, lambda: measure(options.changes, docs=True))
    report("broker_stream", figures | {f"{name}_with_docs": value for name, value in with_docs.items()}, ASKED)


if __name__ == "__main__":
    main()
