"""A link over WebSocket, to a service's `/barrels/{barrel}/feed`."""

from __future__ import annotations

import asyncio
import base64

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from feeds.errors import BadRequest, SpileError
from listeners.errors import LinkLost, Unreached, error_of
from listeners.following import Events
from listeners.links.address import Address, checked_token
from listeners.links.tls import HINT, tls_words

# An array has 64 KiB, unless one document alone is larger; documents have 8 MiB where nobody raised the limit.
_MESSAGE_BYTES_MAX = 256 << 20
_CONNECT_S_MAX = 10.0
_STATUS_CODES = {400: "bad_request", 401: "unauthorized", 403: "forbidden", 404: "not_found", 503: "unavailable"}
_POLICY_VIOLATION = 1008


class _Refusal(msgspec.Struct):
    error: str
    reason: str | None = None
    hint: str | None = None


class Dialing(connect):
    """A connection that is not made elsewhere: what it sends, secrets too, was meant for one service."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """What a redirect comes to: the error that it is."""
        return exc


class WebSocketLink:
    """One WebSocket connection, which carries one stream."""

    def __init__(self, address: Address, *, token: str | None = None) -> None:
        """To the address; `token` is sent as a bearer's, else the address's user and password if it has them."""
        self._address = address
        self._token = None if token is None else checked_token(token)
        self._socket: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Where it leads, without secrets."""
        return str(self._address)

    async def connect(self, events: Events) -> None:
        """Connect and begin to read."""
        try:
            self._socket = await Dialing(
                self.address,
                additional_headers=self._headers(),
                ssl=self._address.files.context() if self._address.tls else None,
                compression=None,
                max_size=_MESSAGE_BYTES_MAX,
                open_timeout=_CONNECT_S_MAX,
                close_timeout=2.0,
            )
        except InvalidStatus as fault:
            raise self._refused(fault) from None
        except (OSError, TimeoutError, UnicodeError, InvalidHandshake, InvalidURI) as fault:
            wrong = tls_words(fault)
            raise Unreached(
                f"No service answers at {self.address}: {wrong or fault or 'no answer in time'}.",
                hint=HINT if self._address.tls else "Check the address, and that the service runs.",
            ) from None
        self._reader = asyncio.create_task(self._read(self._socket, events), name="spile websocket link")

    async def send(self, data: bytes, *, opens: bool) -> None:
        """Send a message; the service tells an open from credit by itself."""
        if self._socket is None:
            raise LinkLost(f"{self.address} is not connected.")
        try:
            await self._socket.send(data, text=True)
        except ConnectionClosed as fault:
            raise LinkLost(f"{self.address} closed the connection: {fault}.") from None

    async def close(self) -> None:
        """Close the connection; waits for a moment at most."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])
        if self._socket is not None:
            await self._socket.close()

    async def _read(self, socket: ClientConnection, events: Events) -> None:
        try:
            while True:
                message = await socket.recv(decode=False)
                events.message(message)
        except ConnectionClosed as fault:
            received = fault.rcvd
            if received is not None and received.code == _POLICY_VIOLATION:
                events.refused(BadRequest(received.reason or "The service refused the message."))
            events.lost(LinkLost(f"{self.address} closed the connection: {fault}."))

    def _headers(self) -> dict[str, str]:
        if self._token is not None:
            return {"Authorization": f"Bearer {self._token}"}
        if self._address.user is not None:
            pair = f"{self._address.user}:{self._address.password or ''}".encode()
            return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
        return {}

    def _refused(self, fault: InvalidStatus) -> SpileError:
        status = fault.response.status_code
        if 300 <= status < 400:
            where = fault.response.headers.get("Location", "elsewhere")
            return BadRequest(
                f"{self.address} sends us on to {where[:200]}",
                hint="Name the address that it leads to, if it is right.",
            )
        try:
            told = msgspec.json.decode(fault.response.body or b"", type=_Refusal)
            return error_of(told.error, told.reason, told.hint)
        except msgspec.MsgspecError:
            code = _STATUS_CODES.get(status, "unavailable")
            return error_of(code, f"{self.address} answers with HTTP status {status}.")
