"""compose.yaml and the Dockerfile, without containers: what they say is checked, and what they run is run.

The services run as processes in the file's order, on real PostgreSQL and Mosquitto, with Spile from the wheel that
the Dockerfile installs.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from email.parser import HeaderParser
from pathlib import Path

import httpx
import jsonschema
import paho.mqtt.client as mqtt
import pytest
import yaml
from brokers import Mosquitto
from compose import MissingVariable, Project
from dockerfile import Image, image, instructions, last_stage
from paho.mqtt.enums import CallbackAPIVersion
from postgres import binary, installed
from running import ROOT, MosquittoSub, clean_environment, until

COMPOSE = ROOT / "compose.yaml"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SECRETS = re.findall(r"^([A-Z_]+)=$", (ROOT / ".env.example").read_text(), re.MULTILINE)
GIVEN = {name: f"{name.lower()}+/%41'\"$x" for name in SECRETS}  # nothing in them may be taken for something else
PACKAGES = ("feeds", "listeners", "broker")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built of nothing but what the Dockerfile copies."""
    place = tmp_path_factory.mktemp("image")
    source = place / "source"
    source.mkdir()
    build = [rest for name, rest in instructions(DOCKERFILE) if name == "COPY" and not rest.startswith("--from")]
    for copied in build:
        *files, target = copied.split()
        for file in files:
            if (ROOT / file).is_dir():
                shutil.copytree(ROOT / file, source / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / file, source / target)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(place), str(source))
    (built,) = place.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path) -> Iterator[Path]:
    """The wheel, installed where every user can read it."""
    place = Path(tempfile.mkdtemp(prefix="spile-image-"))
    place.chmod(0o755)
    pip("install", "--no-deps", "--target", str(place), str(wheel))
    yield place
    shutil.rmtree(place)


def pip(*arguments: str) -> None:
    """Run pip without the network."""
    command = [sys.executable, "-m", "pip", *arguments, "--no-index", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean_environment())
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def programs(site: Path) -> dict[str, str]:
    """The variables with which processes find what would be in their images."""
    if not installed():
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    if Mosquitto.program() is None or shutil.which("mosquitto_sub") is None:
        pytest.skip("Mosquitto is not installed (Debian: mosquitto, mosquitto-clients)")
    servers = Path(str(binary("postgres"))).parent
    places = [site / "bin", Path(sys.executable).parent, servers, os.environ["PATH"], "/usr/sbin"]
    return {"PATH": ":".join(map(str, places)), "PYTHONPATH": str(site), "HOME": "/nonexistent"}


def images() -> dict[str, Image]:
    """The images of the file: that of the Dockerfile, and of the two others what matters here."""
    postgres = Image(
        ("sh", str(ROOT / "tests" / "tools" / "postgres_image")),
        ("postgres",),
        {"PGDATA": "/var/lib/postgresql/data", "SOCKETS": "/var/run/postgresql", "PGPORT": "5432"},
        ports=(5432,),
        named_user=True,
    )
    mosquitto = Image((), ("mosquitto", "-c", "/mosquitto/config/mosquitto.conf"), ports=(1883,))
    spile = replace(image(DOCKERFILE), reaches=(sys.prefix, sys.base_prefix))
    return {"postgres": postgres, "eclipse-mosquitto": mosquitto, "spile": spile}


@pytest.fixture(scope="module")
def project(programs: dict[str, str]) -> Iterator[Project]:
    """Every service, up and healthy; stopped at the end, each as it should."""
    project = Project(COMPOSE, GIVEN, images(), programs)
    codes: dict[str, int] = {}
    try:
        project.up()
        yield project
    finally:
        codes |= project.down()
    assert codes == dict.fromkeys(codes, 0)


# What the files say.


def services() -> dict[str, dict[str, object]]:
    return dict(yaml.safe_load(COMPOSE.read_text())["services"])


def test_the_file_follows_the_compose_specification() -> None:
    schema = json.loads((ROOT / "tests" / "data" / "compose-spec.json").read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    told = yaml.safe_load(COMPOSE.read_text())
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(told)] == []
    told["services"]["spile"]["depend_on"] = {}
    assert not validator.is_valid(told)


@pytest.mark.parametrize("name", services())
def test_no_service_has_more_than_it_needs(name: str) -> None:
    service = services()[name]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", str(service["user"])), "it runs as root"
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    logging = service["logging"]
    assert isinstance(logging, dict)
    assert {"max-size", "max-file"} <= set(logging["options"])
    assert service["restart"] == ("no" if name == "barrels" else "unless-stopped")
    assert not [port for port in service.get("ports", ()) if "_BIND:-127.0.0.1}:" not in port]  # type: ignore[attr-defined]


def test_the_secrets_are_those_of_the_example() -> None:
    asked = re.findall(r"\$\{(\w+):\?set it in \.env, see docs/how-to/compose\.md\}", COMPOSE.read_text())
    assert set(asked) == set(SECRETS)
    assert COMPOSE.read_text().count(":?") == len(asked)


@pytest.mark.parametrize("missing", SECRETS)
@pytest.mark.parametrize("how", ["unset", "empty"])
def test_a_missing_secret_stops_with_a_line_that_says_what_to_set(missing: str, how: str) -> None:
    given = {name: value for name, value in GIVEN.items() if name != missing} | (
        {missing: ""} if how == "empty" else {}
    )
    with pytest.raises(MissingVariable) as told:
        Project(COMPOSE, given, images(), {})
    line = f"required variable {missing} is missing a value: set it in .env, see docs/how-to/compose.md"
    assert str(told.value).endswith(line)


def test_the_page_says_how_to_make_every_secret(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    (made,) = re.findall(r"^for name .*\.env$", (ROOT / "docs/how-to/compose.md").read_text(), re.MULTILINE)
    shutil.copy(ROOT / ".env.example", tmp_path)
    subprocess.run(["bash", "-euc", made], check=True, cwd=tmp_path)
    given = dict(line.split("=", 1) for line in (tmp_path / ".env").read_text().splitlines())
    assert set(given) == set(SECRETS)
    assert len(set(given.values())) == len(SECRETS)
    assert min(map(len, given.values())) == 48


def test_the_image_runs_as_nobody_who_matters_and_says_how_it_is() -> None:
    made = image(DOCKERFILE)
    assert made.user == services()["spile"]["user"]
    assert made.health[:3] == ("CMD", "spile", "health")
    names = [name for name, _ in last_stage(instructions(DOCKERFILE))]
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert names[-1] == "CMD"
    labels = " ".join(rest for name, rest in instructions(DOCKERFILE) if name == "LABEL")
    assert {"title", "description", "licenses"} <= set(re.findall(r"org\.opencontainers\.image\.(\w+)=", labels))


def test_what_the_image_is_built_of_is_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    copied = [rest.split()[:-1] for name, rest in instructions(DOCKERFILE) if name == "COPY" and "--from" not in rest]
    assert {file for files in copied for file in files} == kept


# What is in the image.


def test_the_wheel_has_every_file_of_the_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
    there = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if ".dist-info/" not in name} == there
    assert any(name.startswith("feeds/storage/migrations/versions/") for name in names)


def test_the_image_installs_what_the_services_need(wheel: Path) -> None:
    (run,) = (rest for name, rest in instructions(DOCKERFILE) if name == "RUN" and "pip install" in rest)
    what = shlex.split(run)[-1]
    extras = set(re.findall(r"\w+", what.partition("[")[2]))
    with zipfile.ZipFile(wheel) as packed:
        (about,) = (name for name in packed.namelist() if name.endswith(".dist-info/METADATA"))
        needs = HeaderParser().parsestr(packed.read(about).decode()).get_all("Requires-Dist", [])
    needed = [
        need for need in needs if "extra ==" not in need or set(re.findall(r"extra == ['\"](\w+)", need)) & extras
    ]
    assert any(re.match(r"psycopg\[.*binary.*\]", need) for need in needed), "the slim image has no libpq"
    assert any(need.startswith("paho-mqtt") for need in needed)


def test_the_image_refuses_to_start_open_to_everyone(programs: dict[str, str], tmp_path: Path) -> None:
    made = image(DOCKERFILE)
    command = [*made.entrypoint, *made.command]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=programs, cwd=tmp_path)
    assert done.returncode == 2
    assert "set a token (SPILE_TOKEN)" in " ".join(re.sub(r"[│╭╮╰╯─]", " ", done.stderr).split())


# What the services do.


def http(project: Project, token: str = GIVEN["SPILE_TOKEN"]) -> httpx.Client:
    """HTTP to the service, as whoever has the token."""
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=f"http://127.0.0.1:{project.ports[8000]}", headers=headers, timeout=20)


def readings(project: Project) -> list[str]:
    """The lines of the listener that tell of the thermometer."""
    return [line for line in project.said("listener").splitlines() if "thermometer" in line]


def account(user: str) -> tuple[str, str]:
    """A user of the broker, and the password."""
    return user, GIVEN[f"{user.upper()}_PASSWORD"]


def publish(project: Project, user: str, client_id: str, *messages: tuple[str, str]) -> None:
    """Publish as a device does, and return when all is acknowledged."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv311)
    client.username_pw_set(*account(user))
    client.connect("127.0.0.1", project.ports[1883])
    client.loop_start()
    try:
        for topic, payload in messages:
            client.publish(topic, payload, qos=1).wait_for_publish(10)
    finally:
        client.disconnect()
        client.loop_stop()


def test_the_services_start_in_the_order_of_their_health(project: Project) -> None:
    assert project.started[:6] == ["postgres", "mosquitto", "spile", "barrels", "device", "listener"]


def test_the_processes_run_what_is_in_the_image(project: Project, site: Path, programs: dict[str, str]) -> None:
    asked = [sys.executable, "-c", "import broker, feeds, listeners; print(broker.__file__, feeds.__file__)"]
    shown = subprocess.run(asked, capture_output=True, text=True, check=True, env=programs, cwd="/").stdout.split()
    assert [Path(file).parents[1] for file in shown] == [site, site]


def test_the_listener_hears_what_the_device_writes(project: Project) -> None:
    until(lambda: len(readings(project)) >= 2, "two readings")
    assert project.said("device").startswith("thermometer is 20.0 °C at seq 1\n")
    line = re.compile(r"(\d+)-\w+  (?:came|changed) +thermometer +celsius/[\d.]+")
    told = [line.fullmatch(each) for each in readings(project)]
    seqs = [int(each[1]) for each in told if each]
    assert len(seqs) == len(told)
    assert seqs == sorted(set(seqs))


def test_the_token_opens_http_and_nothing_else_does(project: Project) -> None:
    with http(project) as client, http(project, "guess") as stranger:
        assert client.get("/barrels/readings").json()["settings"]["retain"] is True
        assert stranger.get("/barrels/readings").status_code == 401


def test_the_service_tried_the_access_file_and_found_it_enforced(project: Project) -> None:
    with http(project) as client:
        until(lambda: "open_to_clients" in client.get("/health").json()["parts"]["mqtt"], "what was found")
        health = client.get("/health").json()
    assert health["state"] == "running", health
    assert health["parts"]["mqtt"]["open_to_clients"] == []


def test_a_device_that_publishes_beyond_its_own_topics_is_not_heard(project: Project) -> None:
    fake = json.dumps({"celsius": 99, "_id": "intruder"})
    own = json.dumps({"celsius": 1})
    beyond = (
        ("barrels/readings/_id/intruder", fake),
        ("barrels/readings/celsius/99", fake),
        ("to/greenhouse/thermometer/accepted/set/readings/intruder", fake),
        ("from/printer/thermometer/set/readings/intruder", fake),
        ("from/greenhouse/another/set/readings/intruder", fake),
    )
    user, password = account("printer")
    asked = ("-u", user, "-P", password, "-q", "1", "-t", "barrels/readings/#", "-F", "%t")
    with MosquittoSub(project.ports[1883], *asked) as everyone:
        publish(project, "greenhouse", "visitor", *beyond, ("from/greenhouse/visitor/set/readings/visitor", own))
        until(lambda: "visitor" in project.said("listener"), "the reading under its own topic")
        until(lambda: "barrels/readings/_id/visitor" in everyone.lines, "its message")
    assert "intruder" not in project.said("listener")
    assert not [line for line in everyone.lines if "intruder" in line or line.endswith("/99")]
    with http(project) as client:
        assert client.get("/barrels/readings/docs/intruder").status_code == 404


def test_nobody_comes_to_the_broker_without_a_password(project: Project) -> None:
    port = str(project.ports[1883])
    for login in ((), ("-u", "spile"), ("-u", "spile", "-P", "guess")):
        command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", port, *login, "-t", "barrels/#", "-E", "-W", "5"]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 5, login


@pytest.mark.parametrize("names", [("mosquitto",), ("postgres", "mosquitto", "spile")], ids="+".join)
def test_device_and_listener_outlive_what_they_speak_to(project: Project, names: tuple[str, ...]) -> None:
    for name in names:
        project.kill(name)
    heard = len(readings(project))
    for name in names:
        for other, condition in project.services[name].needs.items():
            project.wait(other, condition)
        project.start(name)
    until(lambda: len(readings(project)) > heard + 1, "two more readings", 60)
    assert project.is_up("device")
    assert project.is_up("listener")
    for name in ("postgres", "mosquitto", "spile", "device"):
        project.wait(name, "service_healthy")


def test_the_barrel_is_made_once_and_found_later(project: Project) -> None:
    with http(project) as client:
        epoch = client.get("/barrels/readings").json()["epoch"]
        project.start("barrels")
        project.wait("barrels", "service_completed_successfully")
        assert client.get("/barrels/readings").json()["epoch"] == epoch


def test_a_password_that_the_broker_cannot_take_stops_it_with_a_clear_line(programs: dict[str, str]) -> None:
    project = Project(COMPOSE, GIVEN | {"PRINTER_PASSWORD": "with a blank"}, images(), programs)
    try:
        project.start("mosquitto")
        until(lambda: not project.is_up("mosquitto"), "its end")
        line = "MQTT_PASSWORD_printer: set it to printable ASCII characters without blanks and colons\n"
        assert project.said("mosquitto") == line
    finally:
        project.down()
