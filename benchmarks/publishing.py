"""Changes that were committed beforehand, on their way to one raw MQTT subscriber, beside bare in-process routing.

The log is read, messages are made, and the embedded broker delivers them; the subscriber is a raw socket in a
process of its own. What it is compared with, in the same run, is stock amqtt fed from memory by the cheapest routing.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import uvloop

from benchmarks.embedded_routing import connect_packet, started, stock
from benchmarks.measuring import arguments, documents, folder, report
from broker.publishing.publisher import LogPublisher
from broker.serve import tune_interpreter
from feeds import Store

ASKED = {"qos1_to_bare": 0.8, "qos0_to_bare": 0.8}
ROOT = Path(__file__).resolve().parents[1]
FILTER = b"barrels/bench/_id/#"
BATCH = 1_000
RUN_S_MAX = 120


def subscribe(port: int, count: int, qos: int) -> None:
    """Receive so many messages of whatever size, acknowledging them at QoS 1, and print when the last came."""
    sock = socket.create_connection(("127.0.0.1", port))
    body = b"\x00\x01" + len(FILTER).to_bytes(2, "big") + FILTER + bytes((qos,))
    sock.sendall(connect_packet("bench-raw") + b"\x82" + bytes((len(body),)) + body)
    greeting = b""
    while len(greeting) < 9:
        greeting += sock.recv(9 - len(greeting))
    print("ready", flush=True)
    rest = b""
    while count > 0:
        came = sock.recv(262_144)
        if not came:
            raise SystemExit("the broker has closed the connection")
        data, at, acks = rest + came, 0, []
        while len(data) - at >= 5:
            length, shift, place = 0, 0, at + 1
            while True:
                byte = data[place]
                length |= (byte & 127) << shift
                place += 1
                shift += 7
                if byte < 128:
                    break
            if len(data) < place + length:
                break
            if qos:
                topic = int.from_bytes(data[place : place + 2], "big")
                acks.append(b"\x40\x02" + data[place + 2 + topic : place + 4 + topic])
            at = place + length
            count -= 1
        rest = data[at:]
        if acks:
            sock.sendall(b"".join(acks))
    print(time.monotonic(), flush=True)
    sock.close()


async def published(count: int, qos: int) -> float:
    """Deliveries a second of changes that wait in the log."""
    with folder() as place, Store.open(place) as store, ThreadPoolExecutor(2) as executor:
        barrel = store.create("bench")
        docs = documents(count)
        for at in range(0, count, BATCH):
            barrel.bulk(docs[at : at + BATCH])
        broker = await started()
        reader = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.publishing", "subscribe", str(broker.port), str(count), str(qos)),
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        assert reader.stdout is not None
        await reader.stdout.readline()
        began = time.monotonic()
        publisher = LogPublisher(store, broker, executor)
        async with asyncio.timeout(RUN_S_MAX):
            ended = float(await reader.stdout.readline())
        await publisher.stop()
        await reader.wait()
        await broker.stop()
        return count / (ended - began)


async def measure(count: int, runs: int) -> dict[str, float]:
    """Both ways at both qualities of service, in turn."""
    found: dict[str, list[float]] = {}
    for _ in range(runs):
        for qos in (0, 1):
            found.setdefault(f"qos{qos}_per_s", []).append(await published(count, qos))
            found.setdefault(f"qos{qos}_bare_per_s", []).append(await stock(1, count, qos))
    figures = {name: statistics.median(rates) for name, rates in found.items()}
    for qos in (0, 1):
        figures[f"qos{qos}_to_bare"] = figures[f"qos{qos}_per_s"] / figures[f"qos{qos}_bare_per_s"]
    return figures


def main() -> None:
    """Run it, or be its subscriber."""
    if sys.argv[1:2] == ["subscribe"]:
        subscribe(*map(int, sys.argv[2:]))
        return
    options = arguments(__doc__ or "", changes=30_000, runs=3)
    tune_interpreter()
    report("publishing", uvloop.run(measure(options.changes, options.runs)), ASKED)


if __name__ == "__main__":
    main()
