"""Why a broker cannot be had: what went wrong in words, whether waiting can help, and what to change.

Once the service runs, everything is tried again. At its start, what only an operator can mend stops it.
"""

from __future__ import annotations

import socket
import ssl

from broker.external.access import BrokerAddress
from broker.external.wire import GREETING
from feeds.errors import BadRequest, SpileError, Unauthorized, Unavailable

_LOGIN = "Correct broker_user and broker_password (SPILE_BROKER_PASSWORD), or add the user at the broker."


class Unreachable(Unavailable):
    """The broker does not answer."""

    hint = "See that the broker runs, and that the setting broker names its host and port. It is tried again."


class Refuses(Unavailable):
    """The broker does not let Spile in."""

    hint = _LOGIN

    def __init__(self, reason: str, *, hint: str, login: bool = False, may_pass: bool = False) -> None:
        super().__init__(reason, hint=hint)
        self._login = login
        self.may_pass = may_pass
        """Whether it may be that the broker was just starting or stopping."""

    def at_start(self) -> SpileError:
        """The same as an error that waiting cannot help."""
        return (Unauthorized if self._login else BadRequest)(self.reason, hint=self.hint)


def no_connection(address: BrokerAddress, fault: Exception) -> Unavailable:
    """What a failed attempt at TCP or TLS means."""
    match fault:
        case ssl.SSLCertVerificationError():
            return Refuses(
                f"{address} shows a certificate that is not trusted: {fault.verify_message}.",
                hint="Name the authority that signed it as broker_ca, and the host by the name in the certificate.",
            )
        case ssl.SSLError():
            return Refuses(
                f"{address} does not agree on TLS: {_tls_words(fault)}.",
                hint="See that the port is the broker's for TLS; for one without, write mqtt://. Where the broker "
                "asks for a client certificate, set broker_cert and broker_key.",
            )
        case socket.gaierror():
            return Unreachable(f"{address}: there is no host of this name ({fault.strerror}).")
        case UnicodeError():
            return Unreachable(f"{address}: that is no name of a host.")
        case TimeoutError():
            return Unreachable(f"{address} does not answer in time.")
        case ConnectionRefusedError():
            return Unreachable(f"{address} refuses connections: nothing listens there.")
        case ConnectionError() if address.tls:
            return Refuses(
                f"{address} closed the connection while TLS was agreed on.",
                hint="See that the port is the broker's for TLS; for one without, write mqtt://.",
                may_pass=True,
            )
        case OSError():
            return Unreachable(f"{address} cannot be reached: {fault.strerror or fault}.")
    return Unreachable(f"{address} cannot be reached: {fault}.")


def no_greeting(address: BrokerAddress, greeting: bytes, lost: str | None) -> Unavailable:
    """What it means that a connection stood and no CONNACK let Spile in; `lost` is None where it still stands."""
    if len(greeting) == 4 and greeting.startswith(GREETING):
        return _refused(address, greeting[3])
    if greeting[:2] == GREETING[: len(greeting[:2])] and greeting:
        return Unreachable(f"{address} closed the connection in the middle of its greeting.")
    if greeting:
        return Refuses(
            f"{address} speaks another protocol than MQTT; its answer began with {greeting!r}.",
            hint="Name the port on which the broker speaks MQTT: usually 1883, with TLS (mqtts://) 8883.",
        )
    if lost is None:
        return Unreachable(f"{address} took the connection, and does not answer in time.")
    if "ssl" in lost.lower() or "tls" in lost.lower():
        return Refuses(
            f"{address} ended TLS: {lost}.",
            hint="Where the broker asks for a client certificate, set broker_cert and broker_key.",
        )
    return Refuses(
        f"{address} closed the connection without an answer.",
        hint="See that this is the broker's port for MQTT 3.1.1 (with TLS: mqtts://), and what its log says. Some "
        "brokers close where a login or a client certificate is missing.",
        may_pass=True,
    )


def _refused(address: BrokerAddress, code: int) -> Unavailable:
    match code:
        case 1:
            return Refuses(f"{address} does not speak MQTT 3.1.1.", hint="Spile needs a broker with MQTT 3.1.1.")
        case 2:
            return Refuses(
                f"{address} refuses the client id.", hint="Let the broker accept client ids like spile-<store>."
            )
        case 3:
            return Unreachable(f"{address} says that it is not available now.")
        case 4:
            return Refuses(f"{address} refuses the login: bad user or password.", hint=_LOGIN, login=True)
        case 5:
            return Refuses(f"{address} refuses the login: not authorized.", hint=_LOGIN, login=True)
    return Refuses(f"{address} refuses the connection with code {code}.", hint="Look into the broker's log.")


def _tls_words(fault: ssl.SSLError) -> str:
    return (fault.reason or str(fault)).replace("_", " ").lower()
