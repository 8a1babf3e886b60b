"""A device that knows MQTT alone: it writes its readings, and sees each one answered.

    spile create readings --retain
    python examples/device.py --client greenhouse-1 --barrel readings

Every reading carries a token of its own. If no answer comes in time, the same message with the same token is sent
again: the service stores it once, however often it arrives.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import uuid
from queue import Empty, Queue
from threading import Event
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

ANSWER_S = 5.0  # how long an answer may take before the request is repeated
ATTEMPTS = 10
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
        self._mqtt.on_connect = self._connected
        self._mqtt.on_subscribe = self._subscribed
        self._mqtt.on_message = self._heard
        self._mqtt.connect(host, port)
        self._mqtt.loop_start()
        if not self._listening.wait(ANSWER_S):  # before it, an answer would find nobody
            self.close()
            raise Refused("The broker lets nobody in; check user and password.")

    def set(self, barrel: str, document_id: str, document: dict[str, Any]) -> dict[str, Any]:
        """Write the document, whatever stood there before; returns `{id, rev, seq}`. Raises Refused."""
        token = uuid.uuid4().hex
        payload = json.dumps({**document, "_token": token})
        for attempt in range(ATTEMPTS):
            self._mqtt.publish(f"from/{self._me}/set/{barrel}/{document_id}", payload, qos=1)
            answer = self._answer_to(token)
            if answer is None:
                continue  # lost on the way, or the service is away: the same again
            kind, body = answer
            if kind == "accepted":
                return body
            if body["error"] not in ("overloaded", "unavailable"):
                raise Refused(f"{body['reason'].rstrip('.')}. {body['hint']}")
            time.sleep(min(30.0, 0.5 * 2**attempt))
        raise Refused(f"There was no answer to {ATTEMPTS} attempts.")

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

    def _connected(self, client: mqtt.Client, *_: Any) -> None:
        client.subscribe(f"to/{self._me}/#", qos=1)

    def _subscribed(self, *_: Any) -> None:
        self._listening.set()

    def _heard(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        kind = message.topic.split("/")[3]
        self._answers.put((kind, json.loads(message.payload)))


def main() -> None:
    """Write some readings, a second apart."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--client", default="greenhouse-1", help="the client id; every device needs its own")
    parser.add_argument("--user")
    parser.add_argument("--password", help="the service's token, where it has one")
    parser.add_argument("--barrel", default="readings")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between readings")
    asked = parser.parse_args()
    try:
        write(Device(asked.host, asked.port, asked.client, asked.user, asked.password), asked)
    except Refused as refusal:
        raise SystemExit(str(refusal)) from refusal


def write(device: Device, asked: argparse.Namespace) -> None:
    """The readings, one after the other."""
    try:
        for number in range(asked.count):
            if number:
                time.sleep(asked.every)
            celsius = round(20 + 5 * math.sin(number / 3), 1)
            written = device.set(asked.barrel, asked.client, {"celsius": celsius, "number": number})
            print(f"{written['id']} is {celsius} °C at seq {written['seq']}", flush=True)
    finally:
        device.close()


if __name__ == "__main__":
    main()
