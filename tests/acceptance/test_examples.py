"""What the docs show is what happens: their commands are run, and their output is compared; the examples as well.

In a page, an HTML comment before a block says what is done with it: `run` runs it and compares the output that
stands under each command; `run: NAME` starts it in a terminal of its own; `shown: NAME` is what that terminal has
to show by then. In expected output `…` stands for anything, also for whole lines.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from running import ROOT, SHARED, Running, clean_environment, shared, until

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"<!-- (run|shown)(?:: ([\w -]+))? -->\n+```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

SAME = (
    (re.compile(r"\x1b\[[\d;]*m"), ""),
    (re.compile(r'("epoch":"|^epoch +)[0-9a-f]{8}', re.MULTILINE), r"\1E"),
    (re.compile(r"\b(\d+)-[0-9a-f]{8}\b"), r"\1-E"),
    (re.compile(r"in [\d.,]+ s \([\d,]+/s\)"), "in S s (R/s)"),
    (re.compile(r'"(seconds|rate)":[\d.]+'), r'"\1":R'),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[\d.]*(Z|\+00:00)"), "T"),
    (re.compile(r'("store":)"[0-9a-f]{32}"'), r'\1"S"'),
    (re.compile(r"\b[0-9a-f]{32}(?=\.db)"), "U"),
)
"""Colours, and what differs from run to run: epochs, times, rates, the store's id."""


@dataclass(frozen=True)
class Block:
    """A block of a page that is run or compared."""

    what: str
    terminal: str | None
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """Those blocks of a page that a comment marks."""
    return [Block(*found.groups()) for found in BLOCK.finditer(page.read_text())]


def steps(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with the output that stands under it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        length = 1
        while lines[length - 1].endswith("\\"):
            length += 1
        yield "\n".join(lines[:length]), "\n".join(lines[length:])


def same(text: str) -> str:
    """Output without what differs from run to run, blank lines and trailing spaces."""
    for pattern, to in SAME:
        text = pattern.sub(to, text)
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines() if line.strip())


def agrees(expected: str, output: str) -> bool:
    """Whether the output is what the page shows."""
    lines = []
    for line in same(expected).splitlines():
        if line.strip() == "…":
            lines.append(r"(?:[^\n]*\n)*")
        else:
            lines.append("[^\n]*".join(map(re.escape, line.split("…"))) + "\n")
    return re.fullmatch("".join(lines), same(output)) is not None


class Terminal:
    """A command on a terminal, and what it has shown there."""

    def __init__(
        self, command: list[str], folder: Path, environment: dict[str, str], *, errors_apart: bool = True
    ) -> None:
        """Where errors stand apart, a progress bar that nobody sees does not come between the lines."""
        self._shown = b""
        self._errors = b""
        screen, inside = pty.openpty()
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=inside,
            stderr=subprocess.PIPE if errors_apart else inside,
        )
        os.close(inside)
        self._readers = [threading.Thread(target=read, args=(screen,)) for read in (self._read, self._read_errors)]
        for reader in self._readers:
            reader.start()

    def _read(self, screen: int) -> None:
        with open(screen, "rb", buffering=0) as file:
            while True:
                try:
                    data = file.read(1 << 16)
                except OSError:  # what Linux gives once nobody holds the terminal any more
                    return
                if not data:
                    return
                self._shown += data

    def _read_errors(self, _screen: int) -> None:
        for line in self.process.stderr or ():
            self._errors += line

    @property
    def output(self) -> str:
        """Standard output, then standard error."""
        return (self._shown + self._errors).decode().replace("\r\n", "\n")

    def wait(self) -> str:
        """What it has shown when it has ended."""
        self.process.wait(60)
        for reader in self._readers:
            reader.join(10)
        return self.output

    def close(self) -> None:
        """End it, if it has not ended by itself."""
        if self.process.poll() is None:
            self.process.terminate()
        self.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()


def streams(spile: Running) -> int:
    """How many streams have begun, so that what is written from now on comes later."""
    return sum(each["position"] is not None for each in spile.http.get("/listeners").json()["streams"])


class Desk:
    """Someone who follows a page: a folder with the examples, a service, and terminals."""

    def __init__(self, spile: Running, folder: Path) -> None:
        self.spile = spile
        self.folder = folder
        folder.mkdir()
        (folder / "examples").symlink_to(ROOT / "examples")
        if (SHARED / "countries.json").exists():
            (folder / "countries.json").symlink_to(SHARED / "countries.json")
        self.terminals: dict[str, Terminal] = {}
        self.environment = clean_environment(
            SPILE_URL=spile.url,
            PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            COLUMNS="100",
            LINES="40",
            TERM="dumb",
            PYTHONUNBUFFERED="1",
        )

    def here(self, text: str) -> str:
        """A page's command, for the ports of this service."""
        text = text.replace("http://127.0.0.1:8000", self.spile.url).replace(
            "mqtt://127.0.0.1:1883", f"mqtt://127.0.0.1:{self.spile.mqtt_port}"
        )
        return re.sub(r"\bmosquitto_(sub|pub|rr)\b", rf"mosquitto_\1 -p {self.spile.mqtt_port}", text)

    def open(self, block: Block) -> Terminal:
        """A terminal in which the block runs."""
        text = self.here(block.text)
        if block.language == "python":
            return Terminal([sys.executable, "-c", text], self.folder, self.environment, errors_apart=False)
        (command,) = (command for command, _ in steps(text))
        return Terminal(["bash", "-c", f"exec {command}"], self.folder, self.environment)

    def run(self, command: str) -> str:
        """What a command shows."""
        terminal = Terminal(["bash", "-c", self.here(command)], self.folder, self.environment)
        try:
            return self.as_told(terminal.wait())
        finally:
            terminal.close()

    def as_told(self, output: str) -> str:
        """Output with the ports that the pages have."""
        return output.replace(self.spile.url, "http://127.0.0.1:8000").replace(f":{self.spile.mqtt_port}", ":1883")

    def listening(self) -> int:
        """How many MQTT subscriptions the service has, and streams that have begun."""
        found = re.search(r"^spile_mqtt_subscriptions (\S+)", self.spile.http.get("/metrics").text, re.MULTILINE)
        assert found is not None
        return int(float(found[1])) + streams(self.spile)

    def follow(self, block: Block) -> None:
        """Do what the page says at this block, and check what it shows."""
        if block.what == "shown":
            terminal = self.terminals[block.terminal or ""]
            try:
                until(lambda: agrees(block.text, self.as_told(terminal.output)), "the output that is shown", 20)
            except AssertionError:
                assert self.as_told(terminal.output) == block.text
        elif block.terminal is None:
            for command, expected in steps(block.text):
                output = self.run(command)
                assert agrees(expected, output), f"$ {command}\n{output}\n--- but the page shows\n{expected}"
        else:
            before = self.listening()
            terminal = self.terminals[block.terminal] = self.open(block)
            until(
                lambda: terminal.process.poll() is not None or self.listening() > before,
                f"{block.terminal} to listen",
            )

    def close(self) -> None:
        """Close every terminal."""
        for terminal in self.terminals.values():
            terminal.close()


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_what_a_page_shows_is_what_happens(page: Path, spile: Running, tmp_path: Path) -> None:
    if any("countries.json" in block.text for block in blocks(page)):
        shared("countries.json")
    desk = Desk(spile, tmp_path / "desk")
    try:
        for block in blocks(page):
            desk.follow(block)
    finally:
        desk.close()


def example(name: str, *arguments: str, folder: Path) -> Terminal:
    """An example as a process of its own."""
    command = [sys.executable, str(ROOT / "examples" / name), *arguments]
    return Terminal(command, folder, clean_environment(PYTHONUNBUFFERED="1"), errors_apart=False)


def ended(terminal: Terminal, code: int = 0) -> str:
    """What an example has shown, once it has ended as expected."""
    output = terminal.wait()
    terminal.close()
    assert terminal.process.returncode == code, output
    return output


@pytest.fixture
def places(spile: Running) -> Running:
    """A service that holds the places."""
    spile.run("load", "places", str(ROOT / "examples" / "places.ndjson"))
    return spile


def test_the_listener_goes_on_where_it_was(places: Running, tmp_path: Path) -> None:
    asked = (f"{places.url}/places", "region/#", "--name", "printer", "--once")
    assert len(ended(example("listen.py", *asked, folder=tmp_path)).splitlines()) == 21
    places.http.patch("/barrels/places/docs/tr/istanbul", json={"region": None})
    places.http.patch("/barrels/places/docs/at/vienna", json={"region": "Asia"})
    lines = ended(example("listen.py", *asked, folder=tmp_path)).splitlines()
    assert [line.split()[1:3] for line in lines] == [["left", "tr/istanbul"], ["changed", "at/vienna"]]


def test_the_listener_works_over_mqtt_and_follows(places: Running, tmp_path: Path) -> None:
    source = f"mqtt://127.0.0.1:{places.mqtt_port}/places"
    terminal = example("listen.py", source, "region/Europe", "--since", "now", folder=tmp_path)
    try:
        until(lambda: streams(places), "the stream")
        places.http.patch("/barrels/places/docs/tr/istanbul", json={"region": "Asia"})
        until(lambda: "left    tr/istanbul" in terminal.output, "the leave")
    finally:
        terminal.close()


def test_the_listener_says_what_is_wrong(places: Running, tmp_path: Path) -> None:
    output = ended(example("listen.py", f"{places.url}/nowhere", "--once", folder=tmp_path), 1)
    assert output == "There is no barrel 'nowhere'. Create it first, or check the name.\n"


def test_the_device_writes_its_readings_and_sees_them_answered(spile: Running, tmp_path: Path) -> None:
    spile.http.post("/barrels/readings")
    asked = ("--port", str(spile.mqtt_port), "--client", "greenhouse-1", "--count", "3", "--every", "0")
    assert len(ended(example("device.py", *asked, folder=tmp_path)).splitlines()) == 3
    document = spile.http.get("/barrels/readings/docs/greenhouse-1").json()
    assert (document["number"], document["_rev"][:2]) == (2, "3-")
    assert "_token" not in document


def test_the_device_gives_up_what_will_never_be_taken(spile: Running, tmp_path: Path) -> None:
    output = ended(example("device.py", "--port", str(spile.mqtt_port), folder=tmp_path), 1)
    assert output.startswith("There is no barrel 'readings'.")


def feed_of_the_page() -> str:
    """The part of the page that knows nothing of a browser's document."""
    found = re.search(r'<script id="feed">(.*?)</script>', (ROOT / "examples/browser.html").read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def test_the_feed_of_the_browser_page_follows_a_barrel(places: Running, tmp_path: Path) -> None:
    node = ["node", "--no-warnings", "--experimental-websocket"]
    try:
        if subprocess.run([*node, "-e", "new WebSocket('ws://127.0.0.1:9').onerror = () => {}"]).returncode:
            pytest.skip("this node has no WebSocket")
    except FileNotFoundError:
        pytest.skip("node is not installed")
    script = tmp_path / "feed.cjs"
    script.write_text(
        feed_of_the_page()
        + f"""
        new Feed("ws://{places.url.removeprefix("http://")}/barrels/places/feed", {{
          patterns: ["region/#"],
          since: process.argv[2],
          onChange: (row) => console.log(row.id, row.removed ?? false, row.doc?.region ?? null),
          onState: (text) => console.log("--", text),
          onSnapshot: (edge) => console.log("-- snapshot", edge),
        }});
        """
    )
    terminals = [
        Terminal([*node, str(script), since], tmp_path, clean_environment(NO_COLOR="1"), errors_apart=False)
        for since in ("first", "7-elsewhere")
    ]
    try:
        until(lambda: all("-- up to date" in terminal.output for terminal in terminals), "both to catch up")
        assert "fr/paris false Europe" in terminals[0].output
        assert terminals[1].output.index("-- snapshot start") < terminals[1].output.index("fr/paris")
        assert terminals[1].output.index("ca/montreal") < terminals[1].output.index("-- snapshot end")
        places.http.patch("/barrels/places/docs/tr/istanbul", json={"region": None})
        places.http.delete("/barrels/places/docs/at/vienna", headers={"If-Match": "*"})
        for terminal in terminals:
            until(lambda terminal=terminal: "at/vienna true null" in terminal.output, "the deletion")
            assert "tr/istanbul true null" in terminal.output
    finally:
        for terminal in terminals:
            terminal.close()


def test_the_browser_page_asks_for_nothing_from_elsewhere() -> None:
    page = (ROOT / "examples/browser.html").read_text()
    assert not re.search(r"https?://", page)
    assert "/feed`" in page
