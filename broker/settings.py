"""Every setting of the service: its meaning, its default, and where it may be given.

A flag of `spile serve` beats the environment (`SPILE_…`), which beats the TOML file of `--config`, which
beats the default. What the settings lead to is decided where the parts are put together.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetPydanticSchema,
    PlainSerializer,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import core_schema
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from broker.addresses import Address
from broker.contents_place import check_place, contents_place
from broker.external.access import BrokerAddress
from broker.external.names import check_prefix
from broker.logs import LogFormat, LogLevel
from feeds.errors import BadRequest
from listeners.nested.places import PeerPlace

__all__ = ["Described", "Settings", "describe_settings", "load_settings"]

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
_AROUND_BYTES = 32 * KIB  # of a message beside its document: the topic, the row, its leaves


def _as_address(value: object) -> Address:
    if isinstance(value, Address):
        return value
    if not isinstance(value, str):
        raise ValueError("an address is text of the form HOST:PORT, as in 127.0.0.1:8000")
    return Address.parse(value)


def _as_names(value: object) -> object:
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    return value


def _as_places(value: object) -> object:
    given = _as_names(value)
    if not isinstance(given, list | tuple):
        raise ValueError("peers are a list of texts of the form NAME=URL")
    try:
        places = tuple(each if isinstance(each, PeerPlace) else PeerPlace.parse(str(each)) for each in given)
    except BadRequest as error:
        raise ValueError(f"{error.reason}. {error.hint}") from None
    names = [place.name for place in places]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)}: give every peer a name of its own")
    return places


HostPort = Annotated[
    Address,
    GetPydanticSchema(lambda _source, _handler: core_schema.is_instance_schema(Address)),
    BeforeValidator(_as_address),
    PlainSerializer(str, return_type=str),
]
Names = Annotated[tuple[str, ...], BeforeValidator(_as_names)]
Places = Annotated[
    tuple[PeerPlace, ...],
    GetPydanticSchema(lambda _source, _handler: core_schema.is_instance_schema(tuple)),
    BeforeValidator(_as_places),
    PlainSerializer(lambda places: [str(place) for place in places], return_type=list[str]),
]
Prefix = Annotated[str, AfterValidator(check_prefix)]
Kind = Literal["auto", "plain", "nats"]
Bytes = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=1)]
Milliseconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseSettings):
    """The service's settings, checked. Frozen; made by `load_settings`."""

    model_config = SettingsConfigDict(
        env_prefix="SPILE_",
        extra="forbid",
        frozen=True,
        env_ignore_empty=True,
        enable_decoding=False,
        validate_default=True,
    )

    data: Path = Field(Path("data"), description="Directory of the store, the broker's state and blobs.")
    database: str | None = Field(
        None,
        description="SQLAlchemy URL of the store; default: spile.db (SQLite) in the data directory.",
        repr=False,
    )
    blobs: str | None = Field(
        None,
        description="Folder, or file:///… or s3://…, of attachments; default: blobs in the data directory.",
        repr=False,
    )
    http: HostPort = Field(Address("127.0.0.1", 8000), description="HOST:PORT of HTTP and the feeds over it.")
    mqtt: HostPort = Field(Address("127.0.0.1", 1883), description="HOST:PORT of the embedded MQTT broker.")
    mqtt_ws: HostPort | None = Field(
        None, description="HOST:PORT of MQTT over WebSocket on the embedded broker; default: off."
    )
    broker: str | None = Field(
        None,
        description="mqtt://HOST:PORT or mqtts://HOST:PORT of a broker to use instead of the embedded one.",
        repr=False,
    )
    broker_user: str | None = Field(None, description="Spile's user at that broker.")
    broker_password: SecretStr | None = Field(None, description="Its password.")
    broker_password_file: Path | None = Field(None, description="File whose first line is the password.")
    broker_ca: Path | None = Field(
        None, description="PEM file of the authority that signed that broker's certificate; default: the system's."
    )
    broker_cert: Path | None = Field(None, description="PEM file of Spile's client certificate, for mqtts://.")
    broker_key: Path | None = Field(None, description="PEM file of its key; default: it stands in the same file.")
    broker_prefix: Prefix = Field("", description="Levels before `barrels/`, `from/` and `to/` there, as `site1`.")
    broker_kind: Kind = Field(
        "auto",
        description="nats: `.` and space in topics are encoded; plain: they are not; auto: found out by trying.",
    )
    broker_keepalive: int = Field(
        15,
        ge=1,
        le=65_535,
        description="Seconds after which a silent broker is pinged, and as many more for an answer.",
    )
    broker_window: int = Field(
        1_000, ge=1, le=30_000, description="Changes sent to that broker and not yet acknowledged."
    )
    broker_packet_bytes_max: Bytes = Field(MIB, description="Largest message that the broker takes.")
    broker_probe_user: str | None = Field(
        None, description="A device's user at that broker, whose bounds are tried at the start."
    )
    broker_probe_password: SecretStr | None = Field(None, description="Its password.")
    token: SecretStr | None = Field(
        None, description="One secret that every request has to carry (HTTP: `Authorization: Bearer …`)."
    )
    peers: Places = Field(
        (),
        description="Peers that nested calls go to, as NAME=http://:TOKEN@HOST:PORT, with commas between.",
        repr=False,
    )
    merge_functions: Names = Field(
        (),
        description="Merge rules of your own, as NAME=MODULE:FUNCTION, for barrels that name them.",
    )
    allowed_hosts: Names = Field(
        (), description="Host names that requests may ask for, with commas between; default: any."
    )
    allowed_origins: Names = Field(
        (),
        description="Web origins (https://host:port) whose pages may write and open WebSockets; default: its own.",
    )

    couch_at_root: bool = Field(
        False, description="Whether CouchDB's protocol is spoken at the root too, beside /couch/."
    )

    document_bytes_max: Bytes = Field(8 * MIB, description="Largest document that is taken.")
    bulk_bytes_max: Bytes = Field(64 * MIB, description="Largest body of one bulk request.")
    attachment_bytes_max: Bytes = Field(16 * GIB, description="Largest attachment that is taken.")
    publish_bytes_max: Bytes = Field(
        256 * KIB, description="Above this a document is left out of MQTT messages (`doc_omitted`)."
    )
    packet_bytes_max: Bytes = Field(8 * MIB + 64 * KIB, description="Largest packet that the embedded broker reads.")
    publish_backlog_max: Count = Field(
        1_000_000, description="Changes that may wait for the broker before only newest states are told."
    )

    queue_ms_target: Milliseconds = Field(
        50.0, description="Milliseconds that writes may wait; when they wait longer, the newest are refused."
    )
    units_per_second: Rate | None = Field(
        None,
        description="Request units that one client may use in a second (1 KiB written, 10 KiB read); default: any.",
    )
    units_burst: Rate | None = Field(
        None, description="Request units that it may use at once; default: those of ten seconds."
    )
    http_connections_max: Count = Field(10_000, description="HTTP connections open at once.")
    requests_max: Count = Field(512, description="HTTP requests in work at once; others are overloaded.")
    request_bytes_max: Bytes = Field(256 * MIB, description="Bytes of HTTP bodies held at once.")
    write_queue_max: Count = Field(20_000, description="Writes that may wait for the writer.")
    connections_max: Count = Field(10_000, description="Connections the embedded broker holds at once.")
    session_messages_max: Count = Field(1_000, description="Messages queued for one MQTT session.")
    session_bytes_max: Bytes = Field(MIB, description="Bytes queued for one MQTT session.")
    uploads_max: Count = Field(64, description="Attachments on their way in over HTTP at once.")
    downloads_max: Count = Field(256, description="Large attachments on their way out over HTTP at once.")
    streams_max: Count = Field(100, description="Streams one client may have open at once.")
    replications_max: Count = Field(100, description="Replications that the service keeps and runs.")
    readers: Count = Field(4, description="Threads that read the store for requests and replays.")

    maintain_every: Seconds = Field(60.0, description="Seconds between rounds of expiry, compaction and log pruning.")
    blobs_kept: Seconds = Field(
        3600.0, description="Seconds that an uploaded content is kept until a document names it."
    )
    scrub_bytes_per_second: int = Field(
        MIB, ge=0, description="Bytes of attachments read in a second to find damage early; 0: none."
    )
    stop_timeout: Seconds = Field(10.0, description="Seconds that requests in work are given when stopping.")

    log_level: LogLevel = Field("info", description="What is logged: debug, info, warning or error.")
    log_format: LogFormat = Field("text", description="How it is logged, to standard error: text or json.")

    @property
    def database_url(self) -> str:
        """Where the store is, as a URL: `database` if given, else SQLite in the data directory."""
        return self.database if self.database is not None else f"sqlite:///{self.data / 'spile.db'}"

    @property
    def blobs_place(self) -> str | Path | None:
        """Where the contents of attachments are; None: in the folder `blobs` beside a SQLite database."""
        return contents_place(self.database_url, self.data, self.blobs)

    @property
    def is_guarded(self) -> bool:
        """Whether requests have to say who they are."""
        return self.token is not None

    @property
    def exposed(self) -> tuple[str, ...]:
        """The settings whose address can be reached from other machines, each as `name HOST:PORT`."""
        embedded = {} if self.broker else {"mqtt": self.mqtt, "mqtt_ws": self.mqtt_ws}
        listening = {"http": self.http, **embedded}
        return tuple(
            f"{name} {address}" for name, address in listening.items() if address and not address.is_loopback
        )

    @field_validator("blobs")
    @classmethod
    def _check_blobs(cls, place: str | None) -> str | None:
        try:
            return None if place is None else check_place(place)
        except BadRequest as error:
            raise ValueError(f"{error.reason}. {error.hint}") from None

    @field_validator("token")
    @classmethod
    def _check_token(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None and not token.get_secret_value():
            raise ValueError("it is empty, and everyone could give it; leave it out for none")
        return token

    @field_validator("broker")
    @classmethod
    def _check_broker(cls, url: str | None) -> str | None:
        try:
            if url is not None:
                BrokerAddress.parse(url)
        except BadRequest as error:
            raise ValueError(f"{error.reason} {error.hint}") from None
        return url

    @model_validator(mode="after")
    def _refuse_two_brokers(self) -> Self:
        """Either the embedded broker or another: what is said of the one that does not run is a mistake."""
        given = sorted(self.model_fields_set)
        if self.broker is None:
            idle = [name for name in given if name.startswith("broker_")]
            if idle:
                raise ValueError(f"{', '.join(idle)}: these are about an external broker; name it as broker")
            return self
        embedded = [name for name in given if name in ("mqtt", "mqtt_ws")]
        if embedded:
            raise ValueError(
                f"broker: with an external broker no embedded one runs; leave out {' and '.join(embedded)}"
            )
        if self.broker_password is not None and self.broker_password_file is not None:
            raise ValueError("broker_password and broker_password_file: give one of the two")
        tls = [name for name in given if name in ("broker_ca", "broker_cert", "broker_key")]
        if tls and not BrokerAddress.parse(self.broker).tls:
            raise ValueError(f"{', '.join(tls)}: these are about TLS; write mqtts:// in broker")
        if self.publish_bytes_max + _AROUND_BYTES > self.broker_packet_bytes_max:
            raise ValueError(
                f"publish_bytes_max: documents of {self.publish_bytes_max} bytes do not fit into messages of "
                f"{self.broker_packet_bytes_max} (broker_packet_bytes_max) with what stands around them"
            )
        return self

    @model_validator(mode="after")
    def _refuse_what_would_do_nothing(self) -> Self:
        for name, needed in (("units_burst", "units_per_second"), ("broker_probe_password", "broker_probe_user")):
            if getattr(self, name) is not None and getattr(self, needed) is None:
                raise ValueError(f"{name}: it goes with {needed}, and does nothing without")
        return self

    @model_validator(mode="after")
    def _refuse_open_listening(self) -> Self:
        if self.exposed and not self.is_guarded:
            raise ValueError(
                f"{', '.join(self.exposed)} can be reached from other machines, and anyone there could read "
                "and write everything: set a token (SPILE_TOKEN), or stay on 127.0.0.1"
            )
        return self


def load_settings(flags: Mapping[str, Any] | None = None, config: Path | None = None) -> Settings:
    """The settings from flags, environment, file and defaults, in this order of strength.

    `flags` holds settings by name; None means not given. Raises BadRequest that names every setting
    that is wrong, unknown or dangerous, and where it comes from.
    """
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    if config is not None and not config.is_file():
        raise BadRequest(f"the settings file {config} is not there", hint="Check the path given as --config.")

    class Loaded(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            file = (TomlConfigSettingsSource(settings_cls, config),) if config is not None else ()
            return (init_settings, env_settings, *file)

    try:
        return Loaded(**given)
    except ValidationError as error:
        raise BadRequest(_told(error), hint=_where(config)) from error
    except (ValueError, OSError) as error:
        # The file is no TOML, or cannot be opened.
        raise BadRequest(f"the settings cannot be read: {error}", hint=_where(config)) from error


class Described(NamedTuple):
    """A setting as documentation shows it."""

    name: str
    variable: str
    default: str
    description: str


def describe_settings() -> list[Described]:
    """Every setting in order of declaration."""
    described = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None or field.default == () else str(field.default)
        described.append(Described(name, f"SPILE_{name.upper()}", default, field.description or ""))
    return described


def _told(error: ValidationError) -> str:
    told = []
    for problem in error.errors(include_url=False, include_input=False):
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            told.append(f"there is no setting {name}")
            continue
        message = problem["msg"].removeprefix("Value error, ")
        told.append(f"{name}: {message}" if name else message)
    return "; ".join(told)


def _where(config: Path | None) -> str:
    variables = sorted(
        name for name in os.environ if name.startswith("SPILE_") and name[6:].lower() in Settings.model_fields
    )
    sources = ["the flags", *variables, *([str(config)] if config else [])]
    return f"Correct it where it was given: {', '.join(sources)}."
