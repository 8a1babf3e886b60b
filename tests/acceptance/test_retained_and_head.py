"""What stays on the broker: the newest change where a barrel retains, and where the log is."""

from __future__ import annotations

import json
from pathlib import Path

from running import MosquittoSub, Running, serve, until


def retained(spile: Running, topic: str) -> list[str]:
    """What a client that comes now is handed under a filter, as `topic payload`."""
    with MosquittoSub(spile.mqtt_port, "-q", "1", "-t", topic, "-t", "mark", "-F", "%r %t %p") as heard:
        with MosquittoSub(spile.mqtt_port, "-t", "other"):
            pass
        import paho.mqtt.publish

        paho.mqtt.publish.single("mark", "x", qos=1, hostname="127.0.0.1", port=spile.mqtt_port)
        until(lambda: any(" mark " in line for line in heard.lines), "the mark behind what is retained")
        return [line[2:] for line in heard.lines if line.startswith("1 ")]


def test_the_head_is_retained_and_follows_the_log(spile: Running) -> None:
    spile.http.post("/barrels/geo", json={})
    spile.http.put("/barrels/geo/docs/a", json={"x": 1})
    info = spile.http.get("/barrels/geo").json()

    def head() -> bool:
        found = retained(spile, "barrels/geo/_head")
        return bool(found) and json.loads(found[0].split(" ", 1)[1]) == {"seq": 1, "epoch": info["epoch"]}

    until(head, "the head at seq 1")


def test_the_newest_change_of_each_document_is_retained_until_it_is_deleted(spile: Running) -> None:
    spile.http.post("/barrels/geo", json={"retain": True})
    first = spile.http.put("/barrels/geo/docs/a", json={"x": 1}).json()
    spile.http.put("/barrels/geo/docs/a", json={"x": 2, "_rev": first["rev"]})
    other = spile.http.put("/barrels/geo/docs/b", json={"x": 3}).json()
    ids = "barrels/geo/_id/#"
    until(lambda: len(retained(spile, ids)) == 2, "two retained documents")
    assert any(json.loads(line.split(" ", 1)[1])["doc"]["x"] == 2 for line in retained(spile, ids))
    spile.http.delete("/barrels/geo/docs/b", params={"rev": other["rev"]})
    until(lambda: len(retained(spile, ids)) == 1, "the deleted one is cleared")


def test_turning_retain_on_and_off_brings_the_broker_in_line(spile: Running) -> None:
    spile.http.post("/barrels/geo", json={})
    for name in ("a", "b", "c"):
        spile.http.put(f"/barrels/geo/docs/{name}", json={"x": name})
    assert retained(spile, "barrels/geo/_id/#") == []
    spile.http.patch("/barrels/geo", json={"retain": True})
    until(lambda: len(retained(spile, "barrels/geo/_id/#")) == 3, "all three retained")
    spile.http.patch("/barrels/geo", json={"publish": ["_id/a"]})
    until(lambda: len(retained(spile, "barrels/geo/_id/#")) == 1, "only what is published")
    spile.http.patch("/barrels/geo", json={"retain": False})
    until(lambda: retained(spile, "barrels/geo/_id/#") == [], "none")


def test_dropping_a_barrel_clears_what_was_retained(spile: Running) -> None:
    spile.http.post("/barrels/geo", json={"retain": True})
    spile.http.put("/barrels/geo/docs/a", json={"x": 1})
    until(lambda: len(retained(spile, "barrels/geo/#")) >= 2, "the document and the head")
    spile.http.delete("/barrels/geo")
    until(lambda: retained(spile, "barrels/geo/#") == [], "nothing")


def test_retained_messages_survive_a_restart(tmp_path: Path) -> None:
    with serve(tmp_path / "data") as spile:
        spile.http.post("/barrels/geo", json={"retain": True})
        spile.http.put("/barrels/geo/docs/a", json={"x": 1})
        until(lambda: len(retained(spile, "barrels/geo/_id/#")) == 1, "the document")
    with serve(tmp_path / "data") as spile:
        assert len(retained(spile, "barrels/geo/_id/#")) == 1


def test_only_what_a_barrel_publishes_is_told(spile: Running) -> None:
    spile.http.post("/barrels/geo", json={"publish": ["region/#"]})
    with MosquittoSub(spile.mqtt_port, "-q", "1", "-t", "barrels/geo/#", "-F", "%t") as heard:
        spile.http.put("/barrels/geo/docs/a", json={"region": "Europe", "area": 5})
        spile.http.put("/barrels/geo/docs/b", json={"region": "Asia"})
        until(lambda: "barrels/geo/region/Asia" in heard.lines, "the second document's message")
    told = [line for line in heard.lines if line not in ("barrels/geo/_head", "barrels/geo/_lag")]
    assert told == ["barrels/geo/region/Europe", "barrels/geo/region/Asia"]


def test_conflicts_have_a_topic_of_their_own(spile: Running) -> None:
    spile.http.post("/barrels/geo", json={})
    with MosquittoSub(spile.mqtt_port, "-q", "1", "-t", "barrels/geo/_conflicts/#", "-F", "%t %p") as heard:
        for rev in ("1-aa", "1-bb"):
            write(spile, rev)
        until(lambda: heard.lines, "the conflict")
        spile.http.delete("/barrels/geo/docs/a/b", params={"rev": "1-aa"})
        until(lambda: len(heard.lines) == 2, "the way out of it")
        write(spile, "1-aa0")
        until(lambda: len(heard.lines) == 3, "the next conflict")
        spile.http.post("/barrels/geo/docs/_purge", json={"a/b": []}).raise_for_status()
        until(lambda: len(heard.lines) == 4, "the purge, which ends it")
    told = [json.loads(line.split(" ", 1)[1])["conflicts"] for line in heard.lines]
    assert told == [["1-aa"], [], ["1-aa0"], []]


def write(spile: Running, rev: str) -> None:
    """A first revision that was made elsewhere."""
    body = {"new_edits": False, "docs": [{"_id": "a/b", "_rev": rev, "x": rev}]}
    assert spile.http.post("/barrels/geo/docs/_bulk", json=body).status_code == 200
