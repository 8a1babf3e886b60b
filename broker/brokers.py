"""The broker of a service, as its settings name it: the embedded one, or another that is reached through paho."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from broker.access import TokenGate
from broker.external import BrokerAccess, BrokerAddress, ExternalBroker, ExternalLimits
from broker.external.access import read_password, tls_context
from broker.health import PartHealth
from broker.mqtt.contract import Requests
from broker.mqtt.embedded import EmbeddedBroker
from broker.mqtt.gate import OpenGate
from broker.mqtt.limits import BrokerLimits
from broker.settings import Settings
from feeds.errors import BadRequest

log = logging.getLogger("spile.service")

Broker = EmbeddedBroker | ExternalBroker


def make_broker(
    settings: Settings, store_id: str, requests: Requests, may_connect: Callable[[], Awaitable[bool]] | None = None
) -> Broker:
    """The broker, not started; `may_connect` is for an external one, see there. BadRequest where a file that the
    settings name cannot be used."""
    if settings.broker is not None:
        assert may_connect is not None, "an external broker is never one's own alone"
        return _external(settings, settings.broker, store_id, requests, may_connect)
    return EmbeddedBroker(
        host=settings.mqtt.host,
        port=settings.mqtt.port,
        websocket=(settings.mqtt_ws.host, settings.mqtt_ws.port) if settings.mqtt_ws else None,
        origins=settings.allowed_origins,
        gate=OpenGate() if settings.token is None else TokenGate(settings.token.get_secret_value()),
        requests=requests,
        state=settings.data,
        limits=BrokerLimits(
            packet_bytes=settings.packet_bytes_max,
            connections=settings.connections_max,
            queue_messages=settings.session_messages_max,
            queue_bytes=settings.session_bytes_max,
        ),
    )


def publisher_name(settings: Settings, instance: str | None) -> str:
    """What the position at the broker is stored under: another broker is told everything from the beginning.

    `instance` tells the process from others on the same database, where there can be others. All of them that
    publish to one external broker have to name it alike.
    """
    if settings.broker is None:
        return "embedded" if instance is None else f"embedded-{instance}"
    address = BrokerAddress.parse(settings.broker)
    place = f"{address.host}:{address.port}/{settings.broker_prefix}"
    return f"external-{hashlib.sha256(place.encode()).hexdigest()[:8]}"


def broker_url(settings: Settings, broker: Broker) -> str:
    """Where clients find it."""
    if isinstance(broker, ExternalBroker):
        return str(broker.access.address)
    return f"mqtt://{settings.mqtt.host}:{broker.port}"


def broker_figures(broker: Broker) -> Callable[[], dict[str, Any]]:
    """Its figures, for metrics."""
    return lambda: asdict(broker.stats())


def broker_health(broker: Broker) -> PartHealth:
    """Its state."""
    if isinstance(broker, ExternalBroker):
        return broker.health()
    figures = {"connections": broker.stats().connections}
    if broker.failure is None:
        return PartHealth("running", figures=figures)
    hint = (
        "What the broker has to keep (for persistent sessions, retained messages) is refused. Where the disk of the "
        "data folder is full, free some space; it is tried again by itself."
    )
    return PartHealth("failing", broker.failure, hint, figures)


def _external(
    settings: Settings,
    url: str,
    store_id: str,
    requests: Requests,
    may_connect: Callable[[], Awaitable[bool]],
) -> ExternalBroker:
    address = BrokerAddress.parse(url)
    password: str | None = None
    if settings.broker_password is not None:
        password = settings.broker_password.get_secret_value()
    elif settings.broker_password_file is not None:
        password = read_password(settings.broker_password_file)
    user = settings.broker_user or address.user
    if password is not None and user is None:
        raise BadRequest("The broker's password has no user.", hint="Set broker_user (SPILE_BROKER_USER).")
    access = BrokerAccess(
        address=address,
        client_id=f"spile-{store_id}",
        user=user,
        password=password,
        tls=tls_context(settings.broker_ca, settings.broker_cert, settings.broker_key) if address.tls else None,
        keepalive_s=settings.broker_keepalive,
    )
    device = None
    if settings.broker_probe_user is not None:
        secret = settings.broker_probe_password
        device = BrokerAccess(
            address=address,
            client_id="spile-probe",
            user=settings.broker_probe_user,
            password=None if secret is None else secret.get_secret_value(),
            tls=access.tls,
            clean=True,
        )
    return ExternalBroker(
        access,
        requests=requests,
        prefix=settings.broker_prefix,
        kind=settings.broker_kind,
        device=device,
        may_connect=may_connect,
        limits=ExternalLimits(window=settings.broker_window, packet_bytes=settings.broker_packet_bytes_max),
    )
