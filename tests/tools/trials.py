"""A trial: a world with writers and an audience, a fault in the middle, and at the end the question what holds."""

from __future__ import annotations

import json
import random
from typing import Any

import paho.mqtt.client as paho
from audience import Listener, ListeningProcess, Plain
from meddling import Meddling, meddler
from paho.mqtt.enums import CallbackAPIVersion
from promises import Ledger, all_broken, read_truth, unheard, untold
from proxy import Proxy
from running import until
from worlds import BARREL, World
from writers import HttpWriter, MqttWriter, Writer

SETTLE_S = 60.0


class Trial:
    """Everyone around one world: who writes, who listens, and what was promised to them."""

    def __init__(self, world: World, seed: int, **settings: Any) -> None:
        """Start the world, and make the barrel with these settings."""
        self.world = world
        self.ledger = Ledger()
        self.luck = random.Random(seed)
        self.writers: list[Writer] = []
        self.listeners: list[Listener] = []
        self.processes: list[ListeningProcess] = []
        self.subscribers: list[Plain] = []
        self.meddled: list[Meddling] = []
        world.start()
        made = world.direct("POST", f"/barrels/{BARREL}", json={"retain": True, **settings})
        assert made.status_code == 201, made.text

    # Who takes part

    def writes_over(self, kind: str, **options: Any) -> Writer:
        """A writer over `http` or `mqtt`, which begins at once, through a door of its own."""
        writer = (self.over_http if kind == "http" else self.over_mqtt)(**options)
        writer.start()
        return writer

    def over_http(self, **options: Any) -> HttpWriter:
        """A writer over HTTP that does not write by itself."""
        writer = HttpWriter(self._door("http", options), f"http{len(self.writers)}", *self._writing(), **options)
        self.writers.append(writer)
        return writer

    def over_mqtt(self, **options: Any) -> MqttWriter:
        """A writer over MQTT that does not write by itself."""
        writer = MqttWriter(self._door("mqtt", options), f"mqtt{len(self.writers)}", *self._writing(), **options)
        self.writers.append(writer)
        return writer

    def _writing(self) -> tuple[Ledger, int]:
        return self.ledger, self.luck.getrandbits(64)

    def listens_over(self, kind: str, *patterns: str, **options: Any) -> Listener:
        """A listener in a thread over `http` (a WebSocket) or `mqtt`, through a door of its own."""
        return self.listens_at(self.world, kind, *patterns, **options)

    def listens_at(self, world: World, kind: str, *patterns: str, **options: Any) -> Listener:
        """As `listens_over`, at a service of the caller's choice."""
        name = f"listener {len(self.listeners)} over {kind}"
        listener = Listener(name, kind, self._door(kind, options, world), *patterns, **options)
        self.listeners.append(listener)
        return listener

    def process_over(self, kind: str, *patterns: str, cursor: bool) -> ListeningProcess:
        """A listener that is a process; its place is a cursor in the service, or in its own file."""
        name = f"process{len(self.processes)}"
        state = self.world.folder / f"{name}.ndjson"
        door = self.world.door(kind)
        process = ListeningProcess(self.world.nursery, state, name, kind, door, *patterns, cursor=cursor)
        self.processes.append(process)
        return process

    def subscribes(self, **options: Any) -> Plain:
        """A plain MQTT client with a session that is kept, through a door of its own."""
        plain = Plain(f"plain{len(self.subscribers)}", self.world.door("mqtt"), **options)
        self.subscribers.append(plain)
        return plain

    def everyone(self) -> None:
        """A writer and listeners of every kind, and a plain subscriber: what most trials begin with."""
        self.subscribes()
        self.listens_over("http")
        self.listens_over("mqtt", "region/Europe", "tags/+/a")
        self.listens_over("mqtt", cursor="all")
        self.listens_over("http", "_id/http0/#", "region/+", cursor="some")
        self.writes_over("http")
        self.writes_over("mqtt")

    @property
    def doors(self) -> list[Proxy]:
        """The doors of everyone who writes or listens."""
        return [each.door for each in (*self.writers, *self.audience, *self.subscribers)]

    @property
    def audience(self) -> list[Listener | ListeningProcess]:
        """Everyone who follows a feed."""
        return [*self.listeners, *self.processes]

    def _door(self, kind: str, options: dict[str, Any], world: World | None = None) -> Proxy:
        door = (world or self.world).door(kind)
        if options.pop("meddled", False):
            door.meddle = meddler(self.luck, self.meddled)
        return door

    # What happens

    def heals(self) -> None:
        """No link is hurt any more."""
        for door in (*self.doors, *self.world.links):
            door.heal()

    def goes_on(self, writes: int = 60, *, seconds: float = SETTLE_S) -> None:
        """Until so many more writes were accepted; raises what a writer failed with."""
        wanted = self.ledger.accepted_count + writes

        def has_gone_on() -> bool:
            for writer in self.writers:
                writer.check()
            return self.ledger.accepted_count >= wanted

        until(has_gone_on, f"{writes} more writes", seconds)

    def rests(self) -> None:
        """The writers finish, and everyone gets what is missing."""
        for writer in self.writers:
            writer.finish()
        self.is_told()

    def is_told(self) -> None:
        """Everyone gets what is missing, now that nobody writes."""
        for meddling in self.meddled:
            meddling.calm()
        histories = self.ledger.histories()
        for listener in self.audience:
            until(lambda: Nothing(untold(listener.look(), histories)), "to be told", SETTLE_S)  # noqa: B023
        for plain in self.subscribers:
            until(lambda: Nothing(unheard(plain.messages, histories)), "to be heard", SETTLE_S)  # noqa: B023

    def holds(self) -> None:
        """Come to rest, stop the service, and ask for everything that was promised."""
        self.rests()
        if all(not plain.sessions_lost for plain in self.subscribers):
            until(lambda: Nothing(self.badly_retained()), "what is retained", SETTLE_S)
        for each in self.audience:
            each.stop()
        for plain in self.subscribers:
            plain.stop()
        self.world.stop()
        truth = read_truth(self.world.database, BARREL, self.ledger)
        journals = [each.journal for each in self.audience]
        broken = all_broken(truth, journals, [each.messages for each in self.subscribers])
        assert not broken, "\n".join(broken)

    def badly_retained(self) -> list[str]:
        """What a client that comes now is told of each document, and ought not to be; or is not, and ought to be."""
        retained = self._retained()
        wrong = []
        for id, history in self.ledger.histories().items():
            newest, told = history[-1], retained.pop(id, None)
            wanted = None if newest.body is None else newest.seq
            if told != wanted:
                wrong.append(f"of {id} {told} is retained, and not {wanted}")
        return wrong + [f"of {id} {seq} is retained, which nobody wrote" for id, seq in retained.items()]

    def _retained(self) -> dict[str, int]:
        """The seq of each retained message on `_id`, by document."""
        found: dict[str, int] = {}
        known: list[bool] = []
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id="newcomer")

        def heard(_client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
            if message.retain and message.topic == "own/end":
                known.append(True)
            elif message.retain and "/_id/" in message.topic:
                body = json.loads(message.payload)
                found[body["id"]] = body["seq"]

        def connected(*_: Any) -> None:
            client.publish("own/end", b"end", qos=1, retain=True)

        def published(*_: Any) -> None:
            # What is retained comes filter by filter; what is published meanwhile may come in between.
            client.subscribe([(f"barrels/{BARREL}/_id/#", 1), ("own/end", 1)])

        client.on_message, client.on_connect, client.on_publish = heard, connected, published
        client.connect("127.0.0.1", self.world.mqtt_port)
        client.loop_start()
        try:
            until(lambda: known, "the end of what is retained")
        finally:
            client.disconnect()
            client.loop_stop()
        return found

    def close(self) -> None:
        """End everyone, whatever state they are in."""
        for writer in self.writers:
            writer.abandon()
        for listener in self.listeners:
            listener.close()
        for plain in self.subscribers:
            plain.close()
        self.world.close()


class Nothing(list[str]):
    """Sentences about what is wrong: true when there are none, and shown when a wait for that ends."""

    def __init__(self, sentences: list[str]) -> None:
        super().__init__(sentences[:5])

    def __bool__(self) -> bool:
        return not len(self)
