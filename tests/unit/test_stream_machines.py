"""Sender and receiver joined by a channel that loses, doubles and reorders: what is promised holds all the same.

The barrel here is a model: small enough to check by eye, and slow. Its replay tells the newest row of each
document in an interval; a document that ever stood under a tag counts as having left it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import msgspec
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from feeds.errors import BadRequest
from feeds.positions import FIRST, NOW, Mark, Position, parse_since
from feeds.rows import Row
from listeners.backoff import Backoff
from listeners.stream.actions import Deliver, Discard, Finished, Item, Send, Wanted
from listeners.stream.messages import Close, decode_array, decode_credit, decode_open
from listeners.stream.receiver import Receiver
from listeners.stream.sender import Sender, SenderLimits

IDS = ["a", "b", "c", "d"]
TAGS = ["x", "y", "z"]


@dataclass
class Barrel:
    """A log of (id, tags or None for a deletion); seq is the place in it, from 1."""

    epoch: str
    log: list[tuple[str, frozenset[str] | None]] = field(default_factory=list)

    @property
    def head(self) -> int:
        return len(self.log)

    def state(self, document: str, upto: int) -> tuple[int, frozenset[str] | None]:
        for seq in range(upto, 0, -1):
            if self.log[seq - 1][0] == document:
                return seq, self.log[seq - 1][1]
        return 0, None

    def row(self, seq: int, wanted: frozenset[str], leaves: bool) -> bytes | None:
        """The change at `seq` as a stream with these tags (none: all) is told it; `leaves`: also what left."""
        document, tags = self.log[seq - 1]
        matched = wanted & (tags or frozenset())
        left = {
            tag
            for at in range(1, seq)
            if self.log[at - 1][0] == document
            for tag in wanted & (self.log[at - 1][1] or frozenset())
        }
        removed = bool(wanted) and not matched
        if removed and not (leaves and left):
            return None
        rev = f"{seq}-{self.epoch}"
        paths = sorted(matched or left)
        row = Row(seq, document, rev, [rev], paths=paths, removed=removed, deleted=tags is None)
        return msgspec.json.encode(row)

    def newest(self, after: int, upto: int) -> list[int]:
        return sorted({document: seq + after + 1 for seq, (document, _) in enumerate(self.log[after:upto])}.values())

    def matching(self, wanted: frozenset[str]) -> dict[str, str]:
        found = {}
        for document in IDS:
            seq, tags = self.state(document, self.head)
            if seq and (wanted & (tags or frozenset()) if wanted else tags is not None):
                found[document] = f"{seq}-{self.epoch}"
        return found


class Service:
    """One stream's service: keeps the cursor, follows by replay and, at the head, change by change."""

    def __init__(self, barrel: Barrel, window_pending: int) -> None:
        self.barrel = barrel
        self.limits = SenderLimits(array_bytes=600, pending_bytes=window_pending)
        self.cursor: Position | None = None
        self.sender: Sender | None = None
        self.name: str | None = None
        self.wanted: frozenset[str] = frozenset()
        self.live = False
        self.upto = 0
        self.leaves = True
        self.out: list[bytes] = []

    def heard(self, message: bytes, now: float) -> None:
        if b'"patterns"' in message or (b'"ack"' not in message and b'"close"' not in message):
            self._open(message, now)
            return
        word = decode_credit(message)
        if self.sender is None or self.sender.run != word.run:
            return
        if isinstance(word, Close):
            self.sender = None
            return
        try:
            self.sender.credited(word, now)
        except BadRequest as error:
            self.sender.fail(error)
        self._keep_cursor(self.sender)

    def _keep_cursor(self, sender: Sender) -> None:
        if self.name and (cursor := sender.cursor) is not None:
            self.cursor = Position(cursor, sender.epoch)

    def _open(self, message: bytes, now: float) -> None:
        opened = decode_open(message)
        if self.sender is not None and self.sender.run == opened.run:
            return
        self.name, self.wanted = opened.name, frozenset(opened.patterns)
        since: Position | Mark = parse_since(opened.since)
        if self.name and self.cursor is not None:
            since = self.cursor
        head, epoch = self.barrel.head, self.barrel.epoch
        snapshot = isinstance(since, Position) and (since.epoch not in (None, epoch) or since.seq > head)
        start = since.seq if isinstance(since, Position) and not snapshot else head if since is NOW else 0
        self.leaves = since is not FIRST and not snapshot
        self.upto = head
        self.live = False
        self.sender = Sender(opened, epoch=epoch, start=start, snapshot=snapshot, now=now, limits=self.limits)
        if snapshot:
            self.sender.snapshot_ends_at(head)
        self._keep_cursor(self.sender)

    def step(self, now: float, *, sends: int = 3) -> None:
        sender = self.sender
        if sender is None:
            return
        sender.tick(now)
        if self.live:
            after = sender.looked_at
            told = [(seq, self.barrel.row(seq, self.wanted, True)) for seq in range(after + 1, self.barrel.head + 1)]
            rows = [(seq, row) for seq, row in told if row is not None]
            self.live = sender.offer(rows, self.barrel.head)
        elif room := sender.room():
            self._page(sender, min(room[0], 3), room[1])
        for _ in range(sends):
            if (array := sender.next_array(now)) is not None:
                self.out.append(array)

    def _page(self, sender: Sender, rows_max: int, bytes_max: int) -> None:
        if sender.looked_at >= self.upto:
            self.upto, self.leaves = self.barrel.head, True
        rows, seq = [], self.upto
        for at in self.barrel.newest(sender.looked_at, self.upto):
            if (row := self.barrel.row(at, self.wanted, self.leaves)) is not None:
                rows.append((at, row))
            if len(rows) == rows_max or sum(len(row) for _, row in rows) >= bytes_max:
                seq = at
                break
        level = seq == self.barrel.head
        sender.page(rows, seq, level=level)
        self.live = level and sender.follow


class Application:
    """What a listener does: keeps a copy of what is told, drops what a snapshot left out, then acknowledges."""

    def __init__(self) -> None:
        self.copy: dict[str, str] = {}
        self.snapshot: set[str] | None = None
        self.inbox: list[Item] = []
        self.handed: list[Item] = []
        self.last: tuple[str, int] = ("", 0)

    def tell(self, item: Item) -> None:
        if item.boundary == "start":
            self.snapshot = set()
        elif item.boundary == "end":
            assert self.snapshot is not None
            self.copy = {key: rev for key, rev in self.copy.items() if key in self.snapshot}
            self.snapshot = None
        elif item.row is not None:
            if item.row.removed or item.row.deleted:
                self.copy.pop(item.row.id, None)
            else:
                self.copy[item.row.id] = item.row.rev
                if self.snapshot is not None:
                    self.snapshot.add(item.row.id)


class World:
    """Barrel, service, channel, listener and clock, moved one event at a time."""

    def __init__(self, seed: int, wanted: Wanted, pending: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.lives = 0
        self.barrel = Barrel("e0")
        self.service = Service(self.barrel, pending)
        self.wanted = wanted
        self.tags = frozenset(wanted.patterns)
        self.application = Application()
        self.receiver = self.listener(wanted)
        self.up: list[bytes] = []
        self.down: list[bytes] = []
        self.error: Exception | None = None
        self.finished = False
        self.kept: Position | None = None  # what a listener without a name stores for itself
        self.do(self.receiver.connected(self.now))

    def listener(self, wanted: Wanted) -> Receiver:
        return Receiver(wanted, nonce=lambda: f"{self.random.getrandbits(64):x}", backoff=Backoff(rng=lambda: 0.5))

    def do(self, actions: list) -> None:  # type: ignore[type-arg]
        for action in actions:
            if isinstance(action, Send):
                self.up.append(action.data)
            elif isinstance(action, Discard):
                self.application.inbox.clear()
            elif isinstance(action, Deliver):
                before = self.application.inbox[-1].seq if self.application.inbox else -1
                for item in action.items:
                    assert item.row is None or item.seq > before or item.snapshot
                    before = item.seq
                self.application.inbox += action.items
                held = sum(item.row is not None for item in self.application.inbox)
                assert held <= max(self.wanted.window, 1), "the listener holds more than its window"
            elif isinstance(action, Finished):
                assert action.error is None
                self.finished = True

    # Events

    def write(self) -> None:
        tags = frozenset(tag for tag in TAGS if self.random.random() < 0.4)
        self.barrel.log.append((self.random.choice(IDS), None if self.random.random() < 0.2 else tags))

    def serve(self) -> None:
        self.service.step(self.now)
        self.down += self.service.out
        self.service.out.clear()

    def arrive(self, *, fair: bool = False) -> None:
        if message := self._pick(self.up, fair):
            self.service.heard(message, self.now)
            position = self.receiver.position
            if (cursor := self.service.cursor) and position and cursor.epoch == position.epoch:
                assert cursor.seq <= position.seq, "the cursor moved beyond what was acknowledged"
        if (message := self._pick(self.down, fair)) and not self.finished:
            self.do(self.receiver.received(decode_array(message), len(message), self.now))

    def _pick(self, channel: list[bytes], fair: bool) -> bytes | None:
        if not channel:
            return None
        luck = 1.0 if fair else self.random.random()
        if luck < 0.1:
            channel.pop(0)
            return None
        if luck < 0.2:
            channel.append(channel[0])
        elif luck < 0.3:
            return channel.pop(self.random.randrange(len(channel)))
        return channel.pop(0)

    def apply(self) -> None:
        app = self.application
        if app.inbox:
            item = app.inbox.pop(0)
            app.tell(item)
            app.handed.append(item)
        if app.handed and self.random.random() < 0.7:
            self.acknowledge()

    def acknowledge(self) -> None:
        if self.application.handed:
            item = self.application.handed[-1]
            self.application.handed.clear()
            self.do(self.receiver.acked(item, self.now))

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.do(self.receiver.tick(self.now))

    def lose_connection(self) -> None:
        self.up.clear()
        self.down.clear()
        self.receiver.lost(self.now)
        self.do(self.receiver.connected(self.now))

    def restart_service(self) -> None:
        cursor = self.service.cursor
        self.service = Service(self.barrel, self.service.limits.pending_bytes)
        self.service.cursor = cursor

    def restart_listener(self) -> None:
        self.kept = self.receiver.position or self.kept
        self.up.clear()
        self.down.clear()
        self.application.inbox.clear()
        self.application.handed.clear()
        self.application.snapshot = None
        since = self.wanted.since if self.wanted.name or self.kept is None else self.kept
        self.receiver = self.listener(self._since(since))
        self.do(self.receiver.connected(self.now))

    def _since(self, since: Position | Mark | None) -> Wanted:
        w = self.wanted
        return Wanted(w.patterns, since, w.name, w.window, w.bytes, w.docs, w.follow)

    def recreate_barrel(self) -> None:
        self.lives += 1
        self.barrel = Barrel(f"e{self.lives}")
        cursor = self.service.cursor
        self.service = Service(self.barrel, self.service.limits.pending_bytes)
        self.service.cursor = cursor

    def rest(self) -> bool:
        return self.application.copy == self.barrel.matching(self.tags) and not self.application.inbox

    def settle(self) -> None:
        """With nothing going wrong any more, all comes to rest."""
        for _ in range(400):
            self.serve()
            for _ in range(6):
                self.arrive(fair=True)
                self.apply()
            self.acknowledge()
            self.wait(0.5)
            quiet = not self.up and not self.down and self.receiver.open
            if quiet and self.receiver.position == Position(self.barrel.head, self.barrel.epoch) and self.rest():
                return
        raise AssertionError(
            f"no rest: copy {self.application.copy}, barrel {self.barrel.matching(self.tags)}, "
            f"position {self.receiver.position}, head {self.barrel.head}-{self.barrel.epoch}"
        )


EVENTS = {
    "write": 8,
    "serve": 8,
    "arrive": 10,
    "apply": 8,
    "acknowledge": 3,
    "lose_connection": 1,
    "restart_service": 1,
    "restart_listener": 1,
    "recreate_barrel": 1,
    "short": 4,
    "long": 1,
}

WEIGHTED = [name for name, weight in EVENTS.items() for _ in range(weight)]


@settings(max_examples=800, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32),
    events=st.lists(st.sampled_from(WEIGHTED), min_size=40, max_size=250),
    window=st.sampled_from([0, 1, 2, 5, 100]),
    bytes_=st.sampled_from([0, 150, 1_000, 1 << 20]),
    pending=st.sampled_from([100, 1 << 20]),
    patterns=st.sampled_from([(), ("x",), ("x", "y")]),
    name=st.sampled_from([None, "n"]),
    since=st.sampled_from([None, FIRST]),
)
def test_a_listener_ends_up_with_everything_whatever_the_channel_does(
    seed: int,
    events: list[str],
    window: int,
    bytes_: int,
    pending: int,
    patterns: tuple[str, ...],
    name: str | None,
    since: Mark | None,
) -> None:
    world = World(seed, Wanted(patterns, since, name, window, bytes_), pending)
    for event in events:
        if event in ("short", "long"):
            world.wait(1.0 if event == "short" else 35.0)
        else:
            getattr(world, event)()
    note(f"{seed} {events} {window} {bytes_} {pending} {patterns} {name} {since}")
    world.settle()
