"""Real data, a real broker, a real client: countries are loaded, and mosquitto_sub hears what it asked for."""

from __future__ import annotations

import json
from pathlib import Path

from running import MosquittoSub, Running, serve, shared, until

CHANGES = "barrels/geo/_id/#"
EUROPE = "barrels/geo/region/Europe"


def test_a_plain_client_hears_every_country_and_those_of_a_region(spile: Running) -> None:
    countries = shared("countries.json")
    spile.run("create", "geo")
    with MosquittoSub(spile.mqtt_port, "-q", "1", "-t", CHANGES, "-F", "%t %p") as every:
        with MosquittoSub(spile.mqtt_port, "-q", "1", "-t", EUROPE, "-F", "%p") as europe:
            spile.run("load", "geo", str(countries), "--id", "cca3")
            until(lambda: len(every.lines) >= 250 and len(europe.lines) >= 53, "250 and 53 messages")
            last = spile.http.get("/barrels/geo").json()["seq"]
            until(lambda: any(f'"seq":{last},' in line for line in every.lines), "the last change")
            assert (len(every.lines), len(europe.lines)) == (250, 53)
    seqs = [json.loads(line.split(" ", 1)[1])["seq"] for line in every.lines]
    assert seqs == sorted(seqs)
    assert {line.split(" ", 1)[0] for line in every.lines} >= {"barrels/geo/_id/FRA", "barrels/geo/_id/ABW"}
    told = [json.loads(line) for line in europe.lines]
    assert all(each["entered"] and each["value"] == "Europe" and each["path"] == "region/Europe" for each in told)


def test_a_country_that_moves_leaves_one_topic_and_enters_the_other(spile: Running) -> None:
    spile.http.post("/barrels/geo", json={})
    spile.http.put("/barrels/geo/docs/FRA", json={"region": "Europe", "name": {"common": "France"}})
    with MosquittoSub(spile.mqtt_port, "-q", "1", "-t", "barrels/geo/region/+", "-F", "%t %p") as regions:
        spile.http.patch("/barrels/geo/docs/FRA", json={"region": "Asia"})
        until(lambda: len(regions.lines) >= 2, "a leave and an entry")
    told = {line.split(" ", 1)[0]: json.loads(line.split(" ", 1)[1]) for line in regions.lines}
    left, came = told["barrels/geo/region/Europe"], told["barrels/geo/region/Asia"]
    assert left["removed"] is True
    assert "entered" not in left
    assert came["entered"] is True
    assert "removed" not in came
    assert left["id"] == came["id"] == "FRA"


def test_a_deletion_is_told_on_all_the_old_paths(spile: Running) -> None:
    spile.http.post("/barrels/geo", json={})
    rev = spile.http.put("/barrels/geo/docs/FRA", json={"region": "Europe", "cities": ["Paris", "Lyon"]}).json()[
        "rev"
    ]
    with MosquittoSub(spile.mqtt_port, "-q", "1", "-t", "barrels/geo/#", "-F", "%t %p") as every:
        spile.http.delete("/barrels/geo/docs/FRA", params={"rev": rev})
        until(lambda: "barrels/geo/cities/1/Lyon" in str(every.lines), "the deletion's messages")
    told = {line.split(" ", 1)[0]: json.loads(line.split(" ", 1)[1]) for line in every.lines}
    assert told["barrels/geo/_id/FRA"]["deleted"] is True
    for topic in ("region/Europe", "cities/0/Paris", "cities/1/Lyon"):
        assert told[f"barrels/geo/{topic}"]["removed"] is True


def test_readings_land_on_their_sensors_in_order(spile: Running, tmp_path: object) -> None:
    lines = [{"sensor": f"field/{at % 3}", "at": at, "value": at / 2} for at in range(300)]
    text = "\n".join(json.dumps(line) for line in lines).encode()
    with MosquittoSub(spile.mqtt_port, "-q", "1", "-t", "barrels/sensors/_id/field/1", "-F", "%p") as heard:
        spile.run("load", "sensors", "-", "--id", "sensor", "--update", stdin=text)
        until(lambda: any('"at":298' in line for line in heard.lines), "the last reading")
    values = [json.loads(line)["doc"]["at"] for line in heard.lines]
    assert values == sorted(values)
    assert spile.http.get("/barrels/sensors").json()["doc_count"] == 3
    assert spile.http.get("/barrels/sensors").json()["seq"] == 300


def test_a_backup_is_taken_while_the_service_runs_and_restored_as_another_life(
    spile: Running, tmp_path: Path
) -> None:
    spile.http.post("/barrels/geo", json={})
    spile.http.put("/barrels/geo/docs/FRA", json={"region": "Europe"})
    copy, restored = tmp_path / "copy.db", tmp_path / "restored"
    spile.run("backup", str(copy), "--data", str(spile.data))
    spile.http.put("/barrels/geo/docs/ITA", json={"region": "Europe"})
    spile.run("restore", str(copy), "--data", str(restored))
    epoch = spile.http.get("/barrels/geo").json()["epoch"]
    with serve(restored) as other:
        info = other.http.get("/barrels/geo").json()
        assert (info["seq"], info["doc_count"]) == (1, 1)
        assert info["epoch"] != epoch
        answer = other.http.get("/barrels/geo/changes", params={"since": f"1-{epoch}"})
        assert (answer.status_code, answer.json()["error"]) == (410, "epoch_changed")


def test_what_expires_is_told_soon_and_never_as_living(spile: Running) -> None:
    spile.http.post("/barrels/short", json={"ttl": 1})
    with MosquittoSub(spile.mqtt_port, "-q", "1", "-t", "barrels/short/kind/#", "-F", "%p") as heard:
        spile.http.put("/barrels/short/docs/a", json={"kind": "brief"})
        until(lambda: spile.http.get("/barrels/short/docs/a").status_code == 404, "the expiry")
        (row,) = spile.http.get("/barrels/short/changes").json()["results"]
        assert (row["deleted"], row["expired"]) == (True, True)
        assert spile.http.get("/barrels/short").json()["doc_count"] == 0
        until(lambda: len(heard.lines) == 2, "the removal on its path")
    assert json.loads(heard.lines[1])["removed"] is True
