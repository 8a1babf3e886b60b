"""A subscriber that stops reading while 100,000 changes pass: what it costs the service, and whom it slows."""

from __future__ import annotations

import socket
import threading
import time

import httpx
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.measuring import arguments, documents, report
from benchmarks.service import service

ASKED = {"grown_mib": 32}
BATCH = 500
CONNECT = b"\x10\x13\x00\x04MQTT\x04\x02\x00\x00\x00\x07stalled"


def stalled(port: int) -> socket.socket:
    """A raw client that subscribes to every change at QoS 0 and never reads again."""
    topic = b"barrels/bench/#"
    body = b"\x00\x01" + len(topic).to_bytes(2, "big") + topic + b"\x00"
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.sendall(CONNECT + b"\x82" + bytes((len(body),)) + body)
    assert connection.recv(4) == b"\x20\x02\x00\x00"
    assert connection.recv(5)[0] == 0x90
    return connection


def measure(changes: int, with_stalled: bool) -> dict[str, float]:
    """Bulk writes while one QoS 1 subscriber reads, with or without a stalled one beside it."""
    docs = documents(changes)
    with service() as running:
        running.create("bench")
        heard = 0
        ready = threading.Event()

        def count(*_: object) -> None:
            nonlocal heard
            heard += 1

        reader = paho.Client(CallbackAPIVersion.VERSION2)
        reader.on_message = count
        reader.on_connect = lambda client, *_: client.subscribe("barrels/bench/ok/true", 1)
        reader.on_subscribe = lambda *_: ready.set()
        reader.connect("127.0.0.1", running.mqtt_port)
        reader.loop_start()
        ready.wait(10)
        connection = stalled(running.mqtt_port) if with_stalled else None
        before = running.memory_mib()
        began = time.perf_counter()
        with httpx.Client(base_url=running.url, timeout=60) as client:
            for at in range(0, len(docs), BATCH):
                body = b'{"docs":[' + b",".join(docs[at : at + BATCH]) + b"]}"
                client.post("/barrels/bench/docs/_bulk", content=body).raise_for_status()
        took = time.perf_counter() - began
        expected = sum(b'"ok":true' in doc for doc in docs)
        deadline = time.monotonic() + 120
        while heard < expected and time.monotonic() < deadline:
            time.sleep(0.05)
        if heard < expected:
            raise SystemExit(f"the reader heard {heard} of {expected}")
        if connection is not None:
            connection.close()
        reader.disconnect()
        reader.loop_stop()
        return {
            "grown_mib": running.memory_mib("VmHWM") - before,
            "bulk_docs_per_s": len(docs) / took,
            "heard_per_s": expected / (time.perf_counter() - began),
        }


def main() -> None:
    """Run it."""
    options = arguments(__doc__ or "", changes=100_000)
    without = measure(options.changes, with_stalled=False)
    beside = measure(options.changes, with_stalled=True)
    figures = {f"{name}_without": value for name, value in without.items()}
    figures |= {f"{name}_beside": value for name, value in beside.items()}
    figures["grown_mib"] = beside["grown_mib"] - without["grown_mib"]
    report("stalled", figures, ASKED)


if __name__ == "__main__":
    main()
