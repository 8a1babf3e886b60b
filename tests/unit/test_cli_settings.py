"""Settings: where they come from, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.addresses import Address, without_password
from broker.settings import Settings, describe_settings, load_settings
from feeds.errors import BadRequest


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("SPILE_")]:
        monkeypatch.delenv(name)


def test_nothing_given_is_a_service_for_this_machine_alone() -> None:
    settings = load_settings()
    assert settings.http == Address("127.0.0.1", 8000)
    assert settings.exposed == ()
    assert settings.database_url == "sqlite:///data/spile.db"


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "spile.toml"
    file.write_text('http = "127.0.0.1:1"\nmqtt = "127.0.0.1:2"\nreaders = 3\n')
    monkeypatch.setenv("SPILE_HTTP", "127.0.0.1:11")
    monkeypatch.setenv("SPILE_MQTT", "127.0.0.1:12")
    monkeypatch.setenv("SPILE_ALLOWED_HOSTS", "spile.example, localhost")
    settings = load_settings({"http": "127.0.0.1:21", "mqtt": None}, file)
    assert (settings.http.port, settings.mqtt.port, settings.readers) == (21, 12, 3)
    assert settings.allowed_hosts == ("spile.example", "localhost")
    assert settings.log_level == "info"


def test_every_setting_says_what_it_means() -> None:
    described = describe_settings()
    assert {setting.name for setting in described} == set(Settings.model_fields)
    for setting in described:
        assert setting.description.endswith("."), setting.name
        assert setting.variable == f"SPILE_{setting.name.upper()}"


@pytest.mark.parametrize("name", ["http", "mqtt", "mqtt_ws"])
@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.168.1.5", "example.org"])
def test_listening_beyond_this_machine_without_a_token_is_refused(name: str, host: str) -> None:
    with pytest.raises(BadRequest, match=f"{name} .* can be reached from other machines") as caught:
        load_settings({name: f"{host}:1234"})
    assert "SPILE_TOKEN" in caught.value.reason


def test_with_a_token_it_may_be_reached() -> None:
    settings = load_settings({"http": "0.0.0.0:80", "token": "secret"})
    assert settings.exposed == ("http 0.0.0.0:80",)


def test_a_burst_without_a_rate_is_refused() -> None:
    with pytest.raises(BadRequest, match="units_burst: it goes with units_per_second"):
        load_settings({"units_burst": 100.0})
    assert load_settings({"units_burst": 100.0, "units_per_second": 10.0}).units_burst == 100.0


@pytest.mark.parametrize("http", ["0.0.0.0:80", "127.0.0.1:80"])
def test_a_token_of_no_characters_is_none(http: str) -> None:
    with pytest.raises(BadRequest, match="token: it is empty"):
        load_settings({"http": http, "token": ""})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "[::1]"])
def test_loopback_needs_no_token(host: str) -> None:
    assert load_settings({"http": f"{host}:80"}).exposed == ()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"http": "8000"}, "http: '8000' is not HOST:PORT"),
        ({"http": ":8000"}, "is not HOST:PORT"),
        ({"http": "::1:8000"}, "brackets"),
        ({"http": "127.0.0.1:70000"}, "the port is a number"),
        ({"readers": 0}, "readers: "),
        ({"log_level": "loud"}, "log_level: "),
        ({"colour": "red"}, "there is no setting colour"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(given: dict[str, object], told: str) -> None:
    with pytest.raises(BadRequest) as caught:
        load_settings(given)
    assert told in caught.value.reason


def test_a_wrong_file_is_refused_and_named(tmp_path: Path) -> None:
    file = tmp_path / "spile.toml"
    with pytest.raises(BadRequest, match="is not there"):
        load_settings({}, file)
    file.write_text("colour = 1")
    with pytest.raises(BadRequest, match="there is no setting colour") as caught:
        load_settings({}, file)
    assert str(file) in caught.value.hint
    file.write_text("this is not toml")
    with pytest.raises(BadRequest, match="cannot be read"):
        load_settings({}, file)


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPILE_READERS", "many")
    with pytest.raises(BadRequest, match="readers: ") as caught:
        load_settings()
    assert "SPILE_READERS" in caught.value.hint


def test_a_variable_that_is_no_setting_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPILE_URL", "http://elsewhere")
    assert load_settings().http.port == 8000


def test_secrets_are_not_shown() -> None:
    settings = load_settings({"token": "hush", "database": "postgresql://u:hush@x/y"})
    assert "hush" not in repr(settings)


@pytest.mark.parametrize("text", ["127.0.0.1:8000", "[::1]:0", "localhost:65535"])
def test_an_address_reads_back_from_its_text(text: str) -> None:
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mqtt://user:secret@host:1883", "mqtt://user@host:1883"),
        ("postgresql+psycopg://u:p%40ss@host/db?x=1", "postgresql+psycopg://u@host/db?x=1"),
        ("postgresql://host/db?user=u&password=hush&x=1", "postgresql://host/db?user=u&x=1"),
        ("postgresql://u:p@host/db?sslpassword=hush", "postgresql://u@host/db"),
        ("sqlite:///data/spile.db", "sqlite:///data/spile.db"),
        ("http://user@host/", "http://user@host/"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown
