"""One store in two worlds: what MQTT devices write shows up in PouchDB, and what PouchDB saves on MQTT topics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion
from pouchdb import Pouch
from proxy import Proxy
from replicas import http_port
from running import MosquittoSub, Running, serve, until

SYNC = """
kept.sync = local('a').sync(url, {live: true, retry: true, ...options});
kept.sync.on('error', () => {});
"""


def publish(service: Running, topic: str, doc: dict[str, Any]) -> None:
    """Publish as a device does; back when the service has stored it."""
    device = Client(CallbackAPIVersion.VERSION2, client_id="device")
    device.connect("127.0.0.1", service.mqtt_port)
    device.loop_start()
    try:
        device.publish(f"from/anonymous/device/{topic}", json.dumps(doc), qos=1).wait_for_publish(30)
    finally:
        device.disconnect()
        device.loop_stop()


def test_a_device_and_a_browser_see_each_others_documents(service: Running, client: Pouch) -> None:
    service.http.post("/barrels/db")
    client.run(SYNC, url=f"{service.url}/couch/db", options={})
    with MosquittoSub(service.mqtt_port, "-t", "barrels/db/#", "-v") as heard:
        publish(service, "put/db/sensor/1", {"room": "kitchen", "celsius": 21.5})
        until(
            lambda: client.run("return (await local('a').get('sensor/1').catch(() => ({}))).celsius === 21.5"),
            "what the device wrote, in PouchDB",
        )
        client.run("await local('a').put({_id: 'note', room: 'kitchen', text: 'open the window'});")
        until(
            lambda: any(line.startswith("barrels/db/room/kitchen ") and '"note"' in line for line in heard.lines),
            "what PouchDB saved, on its topic",
        )
        until(
            lambda: any(
                line.startswith("barrels/db/_id/note ") and "open the window" in line for line in heard.lines
            ),
            "the document itself, on its own topic",
        )

        client.run("const doc = await local('a').get('sensor/1'); await local('a').remove(doc);")
        until(
            lambda: any(
                line.startswith("barrels/db/_id/sensor/1 ") and '"deleted":true' in line for line in heard.lines
            ),
            "a deletion in PouchDB, on the topic",
        )
    client.run("kept.sync.cancel()")


def test_a_live_pull_is_narrowed_and_hears_nothing_else(service: Running, client: Pouch) -> None:
    service.http.post("/barrels/db")
    options = {"selector": {"room": "kitchen"}, "live": True, "retry": True}
    url = f"{service.url}/couch/db"
    client.run("kept.pull = local('a').replicate.from(url, options);", url=url, options=options)
    for number in range(20):
        room = "kitchen" if number % 2 else "hall"
        service.http.put(f"/barrels/db/docs/d{number}", json={"room": room})
    until(lambda: client.run("return (await local('a').allDocs()).rows.length") == 10, "the ten of the kitchen")
    rooms = client.run("return (await local('a').allDocs({include_docs: true})).rows.map((row) => row.doc.room)")
    assert set(rooms) == {"kitchen"}
    client.run("kept.pull.cancel()")


def test_a_live_sync_outlives_a_service_that_is_killed(tmp_path: Path, client: Pouch) -> None:
    count = "return (await local('a').allDocs()).rows.length"
    quick = {"back_off_function": None}
    services: list[Running] = []
    with Proxy(lambda: http_port(services[-1])) as door:
        with serve(tmp_path / "data") as service:
            services.append(service)
            service.http.post("/barrels/db")
            url = f"http://127.0.0.1:{door.port}/couch/db"
            client.run(SYNC.replace("...options", "back_off_function: () => 50"), url=url, options=quick)
            service.http.put("/barrels/db/docs/before", json={})
            until(lambda: client.run(count) == 1, "what was written before")
            service.http.close()
            service.kill()
        client.run("await local('a').put({_id: 'meanwhile'});")
        with serve(tmp_path / "data") as service:
            services.append(service)
            there = "/barrels/db/docs/meanwhile"
            until(lambda: service.http.get(there).status_code == 200, "what was saved meanwhile")
            service.http.put("/barrels/db/docs/after", json={})
            until(lambda: client.run(count) == 3, "what was written after")
            client.run("kept.sync.cancel()")
