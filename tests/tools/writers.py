"""Writers that go on through every fault: each asks again until it is answered, and keeps a ledger.

Each has documents of its own and waits for an answer before the next write. A request that may have been lost is
asked again as it was: with its token, or, over HTTP with a revision, without one. So nothing may be done twice.
"""

from __future__ import annotations

import json
import queue
import random
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from promises import Attempt, Body, Ledger
from proxy import Proxy
from worlds import BARREL

REGIONS = ("Europe", "Asia", "Africa")
TAGS = ("a", "b.c", "d e")  # a dot and a space, which some brokers do not take in topics
ANSWER_S = 1.5  # how long to wait for an answer before asking again
FINISH_S = 60.0
_RETRY_S = 0.1
_LATER = frozenset({"overloaded", "unavailable", "storage_full", "timeout", "rate_limited", "internal"})


class Refused(Exception):
    """The service said no, and asking again would not help."""


class Writer:
    """A thread that writes random states of its documents, one after the other, until it is to finish."""

    def __init__(
        self, door: Proxy, name: str, ledger: Ledger, seed: int, *, ids: int = 200, pause_s: float = 0.0
    ) -> None:
        self.door = door
        self.name = name
        self.ledger = ledger
        self.repeats = 0  # how often it had to ask again
        self.luck = random.Random(seed)
        self._ids = [f"{name}/{number}" for number in range(ids)]
        self._pause_s = pause_s
        self._count = 0
        self._finish = threading.Event()
        self._give_up = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"writer {name}", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def finish(self) -> None:
        """Get the last answer, and stop. Raises what the writer failed with."""
        self._finish.set()
        if self._thread.ident is None:
            self.close()
            return
        self._thread.join(FINISH_S)
        if self._thread.is_alive():
            self._give_up.set()
            self._thread.join(FINISH_S)
            raise AssertionError(f"writer {self.name} got no answer within {FINISH_S} s")
        self.close()
        self.check()

    def check(self) -> None:
        """Raise what the writer failed with, if it has."""
        if self._failure is not None:
            raise self._failure

    def abandon(self) -> None:
        """Stop without an answer: what was asked last may be done or not."""
        self._give_up.set()
        self._finish.set()
        if self._thread.ident is not None:
            self._thread.join(FINISH_S)
        self.close()

    def step(self) -> None:
        """One write, or a few at once, answered."""
        self.write(self.pick())

    def pick(self) -> str:
        """A document: some are written often, so that much happens to them, most now and then, so that what is
        missed once is not made good by the next write."""
        return self._ids[int(len(self._ids) * self.luck.random() ** 3)]

    def write(self, id: str) -> None:
        """Write or delete a document, and note what came of it."""
        before = self.ledger.newest(id)
        lives = before is not None and before.body is not None
        body = None if lives and self.luck.random() < 0.15 else self.body()
        attempt = self.ledger.begin(id, body)
        self.note(attempt, lambda: self.ask(attempt, before))

    def body(self) -> Body:
        """A new state of a document; no two are the same."""
        self._count += 1
        tags = [tag for tag in TAGS if self.luck.random() < 0.4]
        return {"region": self.luck.choice(REGIONS), "tags": tags, "by": {"writer": self.name, "n": self._count}}

    def token(self) -> str:
        """A token that nobody else uses."""
        return f"{self.name}-{self.luck.getrandbits(64):x}"

    def note(self, attempt: Attempt, ask: Callable[[], tuple[str, int] | None]) -> None:
        """Ask, and enter the answer."""
        answer = ask()
        if answer is not None:
            self.ledger.accepted(attempt, *answer)

    def ask(self, attempt: Attempt, before: Attempt | None) -> tuple[str, int] | None:
        """Ask until there is an answer: revision and seq. None when the writer was abandoned."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the connection."""

    def again(self) -> bool:
        """Whether to ask once more, a little later."""
        self.repeats += 1
        return not self._give_up.wait(_RETRY_S)

    def _run(self) -> None:
        try:
            while not self._finish.is_set():
                self.step()
                self._finish.wait(self._pause_s)
        except BaseException as error:  # noqa: BLE001 - `finish` raises it
            self._failure = error


class HttpWriter(Writer):
    """Over HTTP: documents one by one, and now and then a few in a bulk request."""

    def __init__(self, door: Proxy, *arguments: Any, answer_s: float = 2 * ANSWER_S, **options: Any) -> None:
        super().__init__(door, *arguments, **options)
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{door.port}/barrels/{BARREL}", timeout=answer_s)

    def step(self) -> None:
        """A document, or a few together."""
        if self.luck.random() < 0.2:
            self._bulk(list({self.pick() for _ in range(5)}))
        else:
            super().step()

    def ask(self, attempt: Attempt, before: Attempt | None) -> tuple[str, int] | None:
        """PUT or DELETE; an update by its revision, which needs no token, or of whatever there is, with one."""
        place = f"/docs/{quote(attempt.id)}"
        headers = {"Idempotency-Key": self.token()}
        rev = before.rev if before is not None else None
        if attempt.body is None:
            told = self._told("DELETE", place, params={"rev": rev}, headers=headers)
        elif rev is not None and self.luck.random() < 0.5:
            told = self._told("PUT", place, json={**attempt.body, "_rev": rev})
        elif before is not None and before.body is not None and self.luck.random() < 0.3:
            # Every state has the same keys, so that a new one is also a patch that leads to it.
            told = self._told("PATCH", place, json=attempt.body, headers=headers)
        else:
            told = self._told("PUT", place, params={"update": "true"}, json=attempt.body, headers=headers)
        return None if told is None else (told["rev"], told["seq"])

    def write_over_something_newer(self) -> bool:
        """An update of a revision that is not the newest: whether it was refused, as it has to be."""
        stale = self.ledger.superseded(self._ids)
        if stale is None:
            return True
        attempt = self.ledger.begin(stale.id, self.body())
        try:
            self._told("PUT", f"/docs/{quote(stale.id)}", json={**(attempt.body or {}), "_rev": stale.rev})
        except Refused as refused:
            self.ledger.refused(attempt)
            return "conflict" in str(refused)
        return False

    def close(self) -> None:
        self._http.close()

    def load(self, count: int) -> None:
        """Write so many documents in one request: more than is told or published in a moment."""
        self._bulk([f"{self.name}/loaded/{number}" for number in range(count)])

    def _bulk(self, ids: list[str]) -> None:
        attempts = [self.ledger.begin(id, self.body()) for id in ids]
        docs = [{"_id": attempt.id, **(attempt.body or {})} for attempt in attempts]
        headers = {"Idempotency-Key": self.token()}
        told = self._told("POST", "/docs/_bulk", json={"docs": docs, "update": True}, headers=headers)
        for attempt, result in zip(attempts, told["results"] if told is not None else (), strict=told is not None):
            if "error" in result:
                raise Refused(f"{attempt}: {result}")
            self.ledger.accepted(attempt, result["rev"], result["seq"])

    def _told(self, method: str, place: str, **request: Any) -> Any:
        while True:
            try:
                answer = self._http.request(method, place, **request)
                if answer.is_success:
                    return answer.json()
                told = answer.json()
                if told.get("error") not in _LATER:
                    raise Refused(f"{method} {place} {request}: {answer.status_code} {answer.text}")
            except (httpx.TransportError, json.JSONDecodeError):
                pass  # whether it was done is not known: it is asked again
            if not self.again():
                return None


class MqttWriter(Writer):
    """Over MQTT with tokens, as a device does it: publish, wait for the answer with the token, publish again."""

    def __init__(self, door: Proxy, *arguments: Any, **options: Any) -> None:
        super().__init__(door, *arguments, **options)
        self._answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._client_id = self.name
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=self._client_id)
        self._client.on_connect = lambda client, *_: client.subscribe(f"to/anonymous/{self._client_id}/#", 1)
        self._client.on_message = lambda _client, _data, message: self._answers.put(
            {"topic": message.topic, **json.loads(message.payload)}
        )
        self._client.reconnect_delay_set(0.1, 0.5)  # type: ignore[arg-type]
        self._client.connect_async("127.0.0.1", door.port, keepalive=5)
        self._client.loop_start()

    def ask(self, attempt: Attempt, before: Attempt | None) -> tuple[str, int] | None:
        """Publish a `set` or a `delete`."""
        token = self.token()
        if attempt.body is None:
            assert before is not None
            verb, body = "delete", {"_rev": before.rev, "_token": token}
        else:
            verb, body = "set", {**attempt.body, "_token": token}
        topic = f"from/anonymous/{self._client_id}/{verb}/{BARREL}/{attempt.id}"
        while True:
            self._client.publish(topic, json.dumps(body), qos=1)
            while (answer := self._answer()) is not None:
                if answer.get("token") != token:
                    continue  # an answer that came twice
                if "rev" in answer:
                    return answer["rev"], answer["seq"]
                if answer["error"] not in _LATER:
                    raise Refused(f"{topic} {body}: {answer}")
                break
            if not self.again():
                return None

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _answer(self) -> dict[str, Any] | None:
        try:
            return self._answers.get(timeout=ANSWER_S)
        except queue.Empty:
            return None
