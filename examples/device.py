"""A device that knows MQTT alone: it writes its readings, and sees each one answered.

    spile create readings --retain
    python examples/device.py --client greenhouse-1 --barrel readings

Every reading carries a token of its own. While no answer comes, the same message with the same token is sent again:
the service stores it once, however often it arrives. So neither broker nor service has to be there all the time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import signal
import sys
import time
import uuid
from pathlib import Path
from queue import Empty, Queue
from threading import Event
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

ANSWER_S = 5.0  # how long an answer may take before the request is repeated
WAIT_S_MAX = 30.0  # between repetitions while the service is overloaded, and between attempts to connect
LATER = ("overloaded", "rate_limited", "unavailable", "timeout", "storage_full")  # refusals that time may mend
Answer = tuple[str, dict[str, Any]]  # its kind (`accepted`, `rejected`), and the body


class Refused(Exception):
    """The service does not take a reading, and will not take it later."""


class Device:
    """One MQTT connection with a client id of its own, which is its name to the service."""

    def __init__(
        self, host: str, port: int, client: str, user: str | None = None, password: str | None = None
    ) -> None:
        self._me = f"{user or 'anonymous'}/{client}"
        self._answers: Queue[Answer] = Queue()
        self._listening = Event()
        self._mqtt = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client, protocol=mqtt.MQTTv311)
        if user is not None:
            self._mqtt.username_pw_set(user, password)
        self._mqtt.reconnect_delay_set(1, int(WAIT_S_MAX))
        self._mqtt.on_connect = self._connected
        self._mqtt.on_connect_fail = lambda *_: say("The broker is away; trying again.")
        self._mqtt.on_disconnect = self._disconnected
        self._mqtt.on_subscribe = lambda *_: self._listening.set()
        self._mqtt.on_message = self._heard
        self._mqtt.connect_async(host, port, keepalive=15)
        self._mqtt.loop_start()  # connects, and connects again whenever the connection is lost

    def set(self, barrel: str, document_id: str, document: dict[str, Any]) -> dict[str, Any]:
        """Write the document, whatever stood there before; returns `{id, rev, seq}`. Raises Refused."""
        token = uuid.uuid4().hex
        payload = json.dumps({**document, "_token": token})
        pause = 0.5
        while True:
            self._listening.wait()  # before it, an answer would find nobody
            self._mqtt.publish(f"from/{self._me}/set/{barrel}/{document_id}", payload, qos=1)
            answer = self._answer_to(token)
            if answer is None:
                continue  # lost on the way, or the service is away: the same again
            kind, body = answer
            if kind == "accepted":
                return body
            if body["error"] not in LATER:
                raise Refused(f"{body['reason'].rstrip('.')}. {body['hint']}")
            time.sleep(pause)
            pause = min(WAIT_S_MAX, 2 * pause)

    def close(self) -> None:
        """Disconnect."""
        self._mqtt.disconnect()
        self._mqtt.loop_stop()

    def _answer_to(self, token: str) -> Answer | None:
        deadline = time.monotonic() + ANSWER_S
        while (left := deadline - time.monotonic()) > 0:
            try:
                kind, body = self._answers.get(timeout=left)
            except Empty:
                return None
            if body.get("token") == token:
                return kind, body
        return None

    def _connected(self, client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            say(f"The broker does not let this device in ({reason}); trying again.")
        else:
            client.subscribe(f"to/{self._me}/#", qos=1)

    def _disconnected(self, *_: Any) -> None:
        self._listening.clear()

    def _heard(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        kind = message.topic.split("/")[3]
        self._answers.put((kind, json.loads(message.payload)))


def say(what: str) -> None:
    """Tell whoever reads the log."""
    print(what, file=sys.stderr, flush=True)


def main() -> None:
    """Write readings, a second apart."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--client", default="greenhouse-1", help="the client id; every device needs its own")
    parser.add_argument("--user", help="its password is in MQTT_PASSWORD: others can read command lines")
    parser.add_argument("--barrel", default="readings")
    parser.add_argument("--count", type=int, default=10, help="how many readings; 0: without end")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between readings")
    parser.add_argument("--beat", type=Path, help="a file to touch at every reading that was taken")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # containers are stopped with it: the same as Ctrl-C
    device = Device(asked.host, asked.port, asked.client, asked.user, os.environ.get("MQTT_PASSWORD"))
    try:
        write(device, asked)
    except Refused as refusal:
        raise SystemExit(str(refusal)) from refusal
    except KeyboardInterrupt:
        pass
    finally:
        device.close()


def write(device: Device, asked: argparse.Namespace) -> None:
    """The readings, one after the other."""
    for number in itertools.count() if asked.count == 0 else range(asked.count):
        if number:
            time.sleep(asked.every)
        celsius = round(20 + 5 * math.sin(number / 3), 1)
        written = device.set(asked.barrel, asked.client, {"celsius": celsius, "number": number})
        print(f"{written['id']} is {celsius} °C at seq {written['seq']}", flush=True)
        if asked.beat is not None:
            asked.beat.touch()


if __name__ == "__main__":
    main()
