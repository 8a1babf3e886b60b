"""Random histories of the write-once register against a map of every byte: small enough to check by eye, and slow."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import uuid
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from feeds.blobs import BlobFiles, BlobSettings, State
from feeds.blobs.checksums import crc32c
from feeds.errors import AlreadyWritten, BadEpoch, NotWritten, SpileError, Trimmed

GONE = -1  # a trimmed byte; what is not in the map was never written
FILE_BYTES = 60
FOREIGN = [f"c^{uuid.UUID(int=number).hex}^0" for number in range(2)]

chunks = st.binary(min_size=1, max_size=12) | st.sampled_from([b"a", b"aa", b"aaaa", b"ab" * 10])
places = st.integers(0, 70)
sizes = st.integers(1, 40)
picks = st.integers(0, 1_000)


@cache
def empty() -> Path:
    """A folder in which nothing is yet: making one takes longer than a history does."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    BlobFiles.open(folder).close()
    return folder


class Register(RuleBasedStateMachine):
    """What may be done with the register, and what must come of it."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp()) / "blobs"
        shutil.copytree(empty(), self.folder)
        self.settings = BlobSettings(file_bytes_max=FILE_BYTES, prefixes_max=2, handles_max=2)
        self.files = BlobFiles.open(self.folder, self.settings)
        self.bytes: dict[str, dict[int, int]] = {}
        self.promised: dict[str, int] = {}  # behind what was given away in this run
        self.current: set[str] = set()
        self.lines: dict[str, str] = {}  # the newest file of a prefix in this run
        self.order: list[str] = []  # prefixes by when they were used
        self.removed: set[str] = set()
        self.epoch = 0

    def teardown(self) -> None:
        if hasattr(self, "files"):
            self.files.close()
            shutil.rmtree(self.folder.parent)

    # -- the model

    def known(self, pick: int) -> str:
        names = sorted({*self.bytes, *FOREIGN})
        return names[pick % len(names)]

    def states(self, name: str, offset: int, size: int) -> list[int | None]:
        return [self.bytes.get(name, {}).get(at) for at in range(offset, offset + size)]

    def retire(self, *names: str) -> None:
        for name in names:
            self.current.discard(name)
            self.maybe_remove(name)

    def maybe_remove(self, name: str) -> None:
        held = self.bytes[name]
        end = max([*(at + 1 for at in held), self.promised.get(name, 0)], default=0)
        if held and name not in self.current and all(held.get(at) == GONE for at in range(end)):
            self.removed.add(name)

    def placed(self, prefix: str, name: str, offset: int, size: int) -> None:
        if name not in self.bytes:
            before = self.lines.get(prefix)
            self.bytes[name] = {}
            self.current.add(name)
            self.lines[prefix] = name
            if before is not None:
                self.retire(before)
        assert name in self.current
        assert name == self.lines[prefix], "a prefix goes on in its newest file"
        assert offset >= self.promised.get(name, 0), "what was given away stays so"
        assert all(at < offset for at in self.bytes[name]), "an append goes behind everything"
        assert offset == 0 or offset + size <= FILE_BYTES
        self.promised[name] = offset + size

    def use(self, prefix: str) -> None:
        if prefix in self.order:
            self.order.remove(prefix)
        self.order.append(prefix)
        if len(self.order) > self.settings.prefixes_max and self.order.pop(0) in self.lines:
            oldest = next(each for each in self.lines if each not in self.order)
            self.retire(self.lines.pop(oldest))

    # -- what is done

    @rule(prefix=st.sampled_from("abd"), data=chunks, extra=st.sampled_from([0, 0, 5, 30]), summed=st.booleans())
    def append(self, prefix: str, data: bytes, extra: int, summed: bool) -> None:
        self.use(prefix)
        place = self.files.append(prefix, data, extra=extra, checksum=crc32c(data) if summed else None)
        self.placed(prefix, place.file, place.offset, len(data) + extra)
        self.bytes[place.file].update(zip(range(place.offset, place.offset + len(data)), data, strict=True))

    @rule(prefix=st.sampled_from("abd"), size=sizes)
    def reserve(self, prefix: str, size: int) -> None:
        self.use(prefix)
        place = self.files.reserve(prefix, size)
        self.placed(prefix, place.file, place.offset, size)

    @rule(pick=picks, offset=places, data=chunks)
    def write(self, pick: int, offset: int, data: bytes) -> None:
        self.written(self.known(pick), offset, data)

    @rule(pick=picks, offset=places, size=sizes, change=st.sampled_from([None, None, 0, -1]))
    def write_again(self, pick: int, offset: int, size: int, change: int | None) -> None:
        """The very bytes that stand there, or all but one."""
        name = self.known(pick)
        data = bytearray(max(state or 0, 0) for state in self.states(name, offset, size))
        if change is not None:
            data[change] ^= 1
        self.written(name, offset, bytes(data))

    def written(self, name: str, offset: int, data: bytes) -> None:
        states = self.states(name, offset, len(data))
        expected: type[SpileError] | None = None
        if name in self.removed or GONE in states:
            expected = Trimmed
        elif any(state is not None for state in states) and states != list(data):
            expected = AlreadyWritten
        if expected is not None:
            with pytest.raises(expected):
                self.files.write(name, offset, data)
            return
        self.files.write(name, offset, data)
        self.bytes.setdefault(name, {}).update(zip(range(offset, offset + len(data)), data, strict=True))

    @rule(pick=picks, offset=places, size=sizes)
    def trim(self, pick: int, offset: int, size: int) -> None:
        self.trimmed(self.known(pick), offset, size)

    @rule(pick=picks)
    def trim_all(self, pick: int) -> None:
        name = self.known(pick)
        self.trimmed(name, 0, max([*self.bytes.get(name, {}), self.promised.get(name, 1) - 1, 0]) + 1)

    def trimmed(self, name: str, offset: int, size: int) -> None:
        self.files.trim(name, offset, size)
        if name not in self.removed:
            self.bytes.setdefault(name, {}).update(dict.fromkeys(range(offset, offset + size), GONE))
            self.maybe_remove(name)

    @rule(pick=picks)
    def seal(self, pick: int) -> None:
        name = self.known(pick)
        self.files.seal(name)
        if name in self.bytes.keys() - self.removed:
            held = self.bytes[name]
            held.update({at: GONE for at in range(max(held, default=0)) if at not in held})
            self.ended(name)

    @rule(pick=picks)
    def remove(self, pick: int) -> None:
        name = self.known(pick)
        self.files.remove(name)
        if name in self.bytes.keys() - self.removed:
            held = self.bytes[name]
            held.update(dict.fromkeys(range(max(held, default=-1) + 1), GONE))
            self.ended(name)

    def ended(self, name: str) -> None:
        self.current.discard(name)
        self.promised.pop(name, None)
        if set(self.bytes[name].values()) <= {GONE}:
            self.removed.add(name)

    @rule(pick=picks, offset=places, size=sizes)
    def read(self, pick: int, offset: int, size: int) -> None:
        name = self.known(pick)
        states = self.states(name, offset, size)
        try:
            data = self.files.read(name, offset, size)
        except Trimmed:
            assert name in self.removed or GONE in states
        except NotWritten as error:
            assert name not in self.removed
            assert None in states
            assert GONE not in states
            ranges = [range(at, at + length) for at, length in error.details["ranges"]]
            told = {at for each in ranges for at in each}
            assert told == {offset + at for at, state in enumerate(states) if state is not None}
        else:
            assert name not in self.removed
            assert states == list(data)

    @rule(pick=picks, start=picks, size=picks)
    def read_what_is_there(self, pick: int, start: int, size: int) -> None:
        """Part of a run of written bytes, from anywhere in it to anywhere."""
        name = self.known(pick)
        held = self.bytes.get(name, {})
        written = sorted(at for at, state in held.items() if state != GONE)
        if written and name not in self.removed:
            first = end = written[start % len(written)]
            while held.get(end, GONE) != GONE:
                end += 1
            size = size % (end - first) + 1
            assert list(self.files.read(name, first, size)) == self.states(name, first, size)

    @rule(later=st.integers(0, 2))
    def change_epoch(self, later: int) -> None:
        self.files.set_epoch(self.epoch + later)
        if later:
            self.epoch += later
            self.lines.clear()
            self.retire(*list(self.current))

    @precondition(lambda self: self.epoch)
    @rule()
    def stay_behind(self) -> None:
        for act in (
            lambda: self.files.append("a", b"x", epoch=self.epoch - 1),
            lambda: self.files.write(FOREIGN[0], 0, b"x", epoch=self.epoch - 1),
            lambda: self.files.trim(FOREIGN[0], 0, 1, epoch=self.epoch - 1),
        ):
            try:
                act()
            except BadEpoch:
                continue
            raise AssertionError("the epoch is over")

    @rule()
    def restart(self) -> None:
        self.files.close()
        self.files = BlobFiles.open(self.folder, self.settings)
        self.promised.clear()
        self.lines.clear()
        self.order.clear()
        self.current.clear()
        for name in [name for name, held in self.bytes.items() if not held and name not in self.removed]:
            del self.bytes[name]
        self.retire(*self.bytes)

    @rule()
    def scrub(self) -> None:
        assert self.files.scrub(30).damaged == []

    # -- what holds

    @invariant()
    def index_and_disk_agree_with_the_model(self) -> None:
        self.files.set_epoch(self.epoch)  # behind everything that is still on its way
        listed = {file.name: file for file in self.files.list_files(removed=True)}
        assert listed.keys() == self.bytes.keys()
        assert {name for name, file in listed.items() if file.removed} == self.removed
        for name, held in self.bytes.items():
            file = listed[name]
            assert file.end == max(held, default=-1) + 1
            assert file.trimmed == sum(state == GONE for state in held.values())
            assert file.written == len(held) - file.trimmed
            assert file.current == (name in self.current)
            found: dict[int, int] = {}
            for row in self.files.checksum_list(name):
                states = self.states(name, row.offset, row.size)
                if row.state is State.TRIMMED:
                    assert set(states) == {GONE}
                else:
                    assert row.checksum == crc32c(bytes(state or 0 for state in states))
                found.update({row.offset + at: state for at, state in enumerate(states) if state is not None})
            assert found == held
        on_disk = {path.name for path in (self.folder / "files").iterdir()}
        assert on_disk == self.bytes.keys() - self.removed


Register.TestCase.settings = settings(
    max_examples=25, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
TestRegister = Register.TestCase
