"""From a put to whoever hears of it, at 300 puts a second: a plain MQTT subscriber, and a listener's callback."""

from __future__ import annotations

import threading
import time
from typing import Any

import httpx
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.measuring import arguments, median_of, percentile, report
from benchmarks.service import service
from listeners import Change, Listener

ASKED = {"mqtt_p50_ms": 3, "mqtt_p99_ms": 10, "listener_p50_ms": 5, "listener_p99_ms": 20}


def put_at_rate(url: str, rate: int, seconds: int, begun: dict[str, float]) -> None:
    """Put small documents at an even rate, noting when each put began."""
    with httpx.Client(base_url=url) as client:
        start = time.perf_counter()
        for number in range(rate * seconds):
            due = start + number / rate
            wait = due - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            name = f"d{number}"
            begun[name] = time.perf_counter()
            client.put(f"/barrels/bench/docs/{name}", json={"value": number, "unit": "celsius"}).raise_for_status()


def figures(name: str, begun: dict[str, float], heard: dict[str, float]) -> dict[str, float]:
    """Percentiles of the time from a put to its being heard of, in milliseconds."""
    times = [(heard[key] - begun[key]) * 1000 for key in begun]
    return {f"{name}_p50_ms": percentile(times, 0.5), f"{name}_p99_ms": percentile(times, 0.99)}


def wait_for(heard: dict[str, float], count: int) -> None:
    """Until everything has been heard."""
    deadline = time.monotonic() + 30
    while len(heard) < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"only {len(heard)} of {count} were heard")
        time.sleep(0.01)


def to_mqtt(rate: int, seconds: int, broker: str | None = None) -> dict[str, float]:
    """To a plain subscriber of `_id/#`, on the embedded broker or another."""
    with service(broker=broker) as running:
        running.create("bench")
        heard: dict[str, float] = {}
        ready = threading.Event()
        client = paho.Client(CallbackAPIVersion.VERSION2)

        def hear(_c: paho.Client, _d: Any, message: paho.MQTTMessage) -> None:
            heard.setdefault(message.topic.rsplit("/", 1)[1], time.perf_counter())

        client.on_message = hear
        client.on_connect = lambda c, *_: c.subscribe("barrels/bench/_id/#", 1)
        client.on_subscribe = lambda *_: ready.set()
        client.connect("127.0.0.1", running.mqtt_port)
        client.loop_start()
        ready.wait(10)
        begun: dict[str, float] = {}
        put_at_rate(running.url, rate, seconds, begun)
        wait_for(heard, len(begun))
        client.disconnect()
        client.loop_stop()
        return figures("mqtt", begun, heard)


def to_listener(rate: int, seconds: int) -> dict[str, float]:
    """To the callback of a listener over MQTT."""
    with service() as running:
        running.create("bench")
        heard: dict[str, float] = {}

        def hear(change: Change) -> None:
            heard.setdefault(change.id, time.perf_counter())

        listener = Listener(f"mqtt://127.0.0.1:{running.mqtt_port}/bench", ["/value/#"], hear, since="first")
        listener.start()
        begun: dict[str, float] = {}
        put_at_rate(running.url, rate, seconds, begun)
        wait_for(heard, len(begun))
        listener.stop()
        return figures("listener", begun, heard)


def main() -> None:
    """Run it."""
    options = arguments(__doc__ or "", runs=3, rate=300, seconds=10)
    found = median_of(options.runs, lambda: to_mqtt(options.rate, options.seconds))
    found |= median_of(options.runs, lambda: to_listener(options.rate, options.seconds))
    report("latency", found, ASKED)


if __name__ == "__main__":
    main()
