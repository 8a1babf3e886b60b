"""How fast the embedded broker routes, what idle connections cost, and what a reader that stops costs.

Prints one JSON object: medians of several interleaved runs, and the machine. Subscribers are raw sockets in a
process of their own, so that they are no part of what is measured save for the processor they take. The rates
to compare with are stock amqtt's, fed in process by routing of our own over its subscriptions and
`handler.mqtt_publish`.

    python benchmarks/embedded_routing.py [--messages 20000] [--runs 3] [--uvloop] [--no-stock]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import selectors
import socket
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psutil  # type: ignore[import-untyped]

from broker.mqtt.contract import Message
from broker.mqtt.embedded import EmbeddedBroker
from broker.mqtt.gate import OpenGate

TOPIC = "bench/house/sensors/kitchen/temperature"  # clients may publish it too
PAYLOAD_BYTES = 200
BATCH = 1_000
RUN_S_MAX = 60
MIB = 1024 * 1024

Send = Callable[[int, int], Awaitable[None]]


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--messages", type=int, default=20_000, help="deliveries of one run; to 50 subscribers 5 times as many"
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--uvloop", action="store_true")
    parser.add_argument("--no-stock", action="store_true", help="leave stock amqtt out")
    parser.add_argument("--memory", action="store_true", help="measure memory only")
    parser.add_argument("--subscribe", nargs=4, type=int, metavar=("PORT", "CLIENTS", "EACH", "QOS"))
    parser.add_argument("--publish", nargs=3, type=int, metavar=("PORT", "MESSAGES", "QOS"))
    options = parser.parse_args()
    if options.subscribe:
        subscribe(*options.subscribe)
    elif options.publish:
        publish(*options.publish)
    elif options.memory:
        print(json.dumps(asyncio.run(memory())))
    else:
        run = asyncio.run
        if options.uvloop:
            import uvloop

            run = uvloop.run
        print(json.dumps(run(measure(options)), indent=2))


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every measurement, the kinds in turn within each run."""
    rates: dict[str, list[float]] = {}
    for _ in range(options.runs):
        for clients in (1, 50):
            for qos in (0, 1):
                name = f"1->{clients} QoS {qos}"
                each = max(options.messages // 10, options.messages // clients)
                rates.setdefault(f"{name}, in process", []).append(await ours(clients, each, qos))
                rates.setdefault(f"{name}, over TCP", []).append(await ours(clients, each, qos, over_tcp=True))
                if not options.no_stock:
                    rates.setdefault(f"{name}, stock amqtt in process", []).append(await stock(clients, each, qos))
    medians = {name: round(statistics.median(found)) for name, found in rates.items()}
    shares = {
        name.removesuffix(", stock amqtt in process"): round(
            medians[name.replace("stock amqtt ", "")] / medians[name], 2
        )
        for name in medians
        if "stock" in name
    }
    return {
        "deliveries_per_s": medians,
        "in_process_over_stock": shares,
        "latency_ms_qos1_at_500_per_s": await latency(),
        **json.loads(await output_of("--memory")),
        "runs": options.runs,
        "deliveries": options.messages,
        "loop": "uvloop" if options.uvloop else "asyncio",
        "machine": machine(),
    }


async def ours(clients: int, each: int, qos: int, *, over_tcp: bool = False) -> float:
    """Deliveries a second of the embedded broker."""
    broker = await started()
    try:
        payload = b"x" * PAYLOAD_BYTES
        if over_tcp:
            publisher = await child("--publish", broker.port, each, qos)
            return await rate(broker.port, clients, each, qos, lambda _n, _q: publish_elsewhere(publisher))

        async def send(count: int, message_qos: int) -> None:
            for first in range(0, count, BATCH):
                await broker.publish([Message(TOPIC, payload, message_qos)] * min(BATCH, count - first))

        return await rate(broker.port, clients, each, qos, send)
    finally:
        await broker.stop()


async def started() -> EmbeddedBroker:
    """A broker on a free port."""
    broker = EmbeddedBroker(host="127.0.0.1", port=0, gate=OpenGate(), requests=None, state=None)
    await broker.start()
    return broker


async def stock(clients: int, each: int, qos: int) -> float:
    """The same of stock amqtt, with the cheapest routing that can be put before it."""
    import logging

    from amqtt.broker import Broker

    logging.getLogger("amqtt").setLevel(logging.ERROR)
    port = free_port()
    plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    broker = Broker({"listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}}, "plugins": plugins})
    await broker.start()

    async def send(count: int, message_qos: int) -> None:
        payload = b"x" * PAYLOAD_BYTES
        under_way: set[asyncio.Task[Any]] = set()
        for _ in range(count):
            for session, wanted in broker.subscriptions.get(TOPIC, ()):
                handler = broker.sessions[session.client_id][1]
                if not message_qos:
                    await handler.mqtt_publish(TOPIC, payload, 0, False)
                    continue
                task = asyncio.create_task(handler.mqtt_publish(TOPIC, payload, min(wanted, 1), False))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                if len(under_way) >= 100 * clients:
                    await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
        if under_way:
            await asyncio.wait(under_way)

    try:
        return await rate(port, clients, each, qos, send)
    finally:
        await broker.shutdown()


async def rate(port: int, clients: int, each: int, qos: int, send: Send) -> float:
    """Deliveries a second from the first message sent to the last one received."""
    process = await child("--subscribe", port, clients, each, qos)
    assert process.stdout is not None
    await process.stdout.readline()
    begin = time.monotonic()
    try:
        async with asyncio.timeout(RUN_S_MAX):
            await send(each, qos)
            end = float(await process.stdout.readline())
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    return clients * each / (end - begin)


async def publish_elsewhere(publisher: asyncio.subprocess.Process) -> None:
    """Let the publisher go that is waiting in a process of its own."""
    assert publisher.stdin is not None
    publisher.stdin.write(b"go\n")
    await publisher.wait()


async def child(mode: str, *numbers: int) -> asyncio.subprocess.Process:
    """This program again, as the other side."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        mode,
        *map(str, numbers),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


async def latency() -> dict[str, float]:
    """From publish to arrival on a socket of the same process, at a rate that queues nothing."""
    broker = await started()
    reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
    writer.write(connect_packet("latency") + subscribe_packet(1))
    await reader.readexactly(4 + 5)
    took_ms: list[float] = []
    size = len(publish_bytes(1))
    for _ in range(1_000):
        begin = time.perf_counter()
        await broker.publish([Message(TOPIC, b"x" * PAYLOAD_BYTES, 1)])
        data = await reader.readexactly(size)
        took_ms.append((time.perf_counter() - begin) * 1e3)
        at = size - PAYLOAD_BYTES - 2
        writer.write(b"\x40\x02" + data[at : at + 2])
        await asyncio.sleep(0.002)
    writer.close()
    await writer.wait_closed()
    await broker.stop()
    took_ms.sort()
    return {"p50": round(took_ms[500], 3), "p99": round(took_ms[990], 3)}


async def output_of(mode: str) -> bytes:
    """What this program prints in another mode, in a process whose memory is its own."""
    process = await asyncio.create_subprocess_exec(sys.executable, __file__, mode, stdout=asyncio.subprocess.PIPE)
    printed, _ = await process.communicate()
    return printed


async def memory() -> dict[str, Any]:
    """The figures about memory."""
    stopped = await stalled(100_000)
    return {"idle_1000_connections_mib": await idle(1_000), "reader_that_stops": stopped}


async def idle(count: int) -> float:
    """What idle connections cost, in MiB of this process; the clients' sockets are in another."""
    raise_file_limit()
    broker = await started()
    process = psutil.Process()
    before = process.memory_info().rss
    clients = await child("--subscribe", broker.port, count, 1, 1)
    assert clients.stdout is not None
    await clients.stdout.readline()
    used: int = process.memory_info().rss - before
    clients.kill()
    await clients.wait()
    await broker.stop()
    return round(used / MIB, 1)


async def stalled(count: int) -> dict[str, Any]:
    """A subscriber that stops reading while messages pass: memory, and what a reader beside it gets."""
    broker = await started()
    process = psutil.Process()
    silent = socket.create_connection(("127.0.0.1", broker.port))
    silent.sendall(connect_packet("silent") + subscribe_packet(0))
    before = process.memory_info().rss
    rate_beside = await rate(broker.port, 1, count, 0, lambda n, _: _send_all(broker, n))
    grown = process.memory_info().rss - before
    stats = broker.stats()
    silent.close()
    await broker.stop()
    return {"grown_mib": round(grown / MIB, 1), "dropped": stats.dropped, "beside_per_s": round(rate_beside)}


async def _send_all(broker: EmbeddedBroker, count: int) -> None:
    payload = b"x" * PAYLOAD_BYTES
    for first in range(0, count, BATCH):
        await broker.publish([Message(TOPIC, payload, 0)] * min(BATCH, count - first))


# The other side: plain sockets, and as little work as can be.


def subscribe(port: int, clients: int, each: int, qos: int) -> None:
    """Subscribe with so many clients, say so, and tell when each has received its messages."""
    raise_file_limit()
    chooser = selectors.DefaultSelector()
    size = len(publish_bytes(qos))
    states: list[dict[str, Any]] = []
    for number in range(clients):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(connect_packet(f"bench-{os.getpid()}-{number}") + subscribe_packet(qos))
        greeting = b""
        while len(greeting) < 9:
            greeting += sock.recv(9 - len(greeting))
        state = {"sock": sock, "rest": b"", "missing": each}
        states.append(state)
        chooser.register(sock, selectors.EVENT_READ, state)
    print("ready", flush=True)
    missing = clients
    while missing:
        for key, _ in chooser.select():
            state = key.data
            came = state["sock"].recv(262_144)
            if not came:
                raise SystemExit("the broker has closed the connection")
            data = state["rest"] + came
            whole = len(data) // size
            state["rest"] = data[whole * size :]
            state["missing"] -= whole
            if qos:
                at = size - PAYLOAD_BYTES - 2
                acks = [b"\x40\x02" + data[place + at : place + at + 2] for place in range(0, whole * size, size)]
                state["sock"].sendall(b"".join(acks))
            if state["missing"] <= 0:
                chooser.unregister(state["sock"])
                missing -= 1
    print(time.monotonic(), flush=True)
    for each_state in states:
        each_state["sock"].close()


def publish(port: int, count: int, qos: int) -> None:
    """Publish as fast as acknowledgements come back, with 100 under way."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(connect_packet(f"publisher-{os.getpid()}"))
    sock.recv(4)
    sys.stdin.readline()
    one = publish_bytes(qos)
    at = len(one) - PAYLOAD_BYTES - 2
    if not qos:
        for first in range(0, count, 100):
            sock.sendall(one * min(100, count - first))
    else:
        sent = acked_bytes = 0
        while acked_bytes < 4 * count:
            room = min(count - sent, 100 - (sent - acked_bytes // 4))
            if room:
                ids = [(number % 65_535 + 1).to_bytes(2, "big") for number in range(sent, sent + room)]
                sock.sendall(b"".join(one[:at] + packet_id + one[at + 2 :] for packet_id in ids))
                sent += room
            acked_bytes += len(sock.recv(65_536))
    sock.sendall(b"\xe0\x00")
    sock.shutdown(socket.SHUT_WR)
    while sock.recv(65_536):
        pass


def connect_packet(client_id: str) -> bytes:
    """A CONNECT with a clean session."""
    body = b"\x00\x04MQTT\x04\x02\x00\x00" + len(client_id).to_bytes(2, "big") + client_id.encode()
    return bytes((0x10, len(body))) + body


def subscribe_packet(qos: int) -> bytes:
    """A SUBSCRIBE to the topic."""
    body = b"\x00\x01" + len(TOPIC).to_bytes(2, "big") + TOPIC.encode() + bytes((qos,))
    return bytes((0x82, len(body))) + body


def publish_bytes(qos: int) -> bytes:
    """A PUBLISH, with a packet id of 0 at QoS 1."""
    body = len(TOPIC).to_bytes(2, "big") + TOPIC.encode() + (b"\x00\x00" if qos else b"") + b"x" * PAYLOAD_BYTES
    return bytes((0x30 | qos << 1, len(body) & 127 | 128, len(body) >> 7)) + body


def raise_file_limit() -> None:
    """As many sockets as the system lets this process have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def machine() -> dict[str, Any]:
    """What this was measured on."""
    return {
        "cpus": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 1024**3, 1),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": platform.processor() or platform.machine(),
    }


if __name__ == "__main__":
    main()
