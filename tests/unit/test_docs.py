"""The docs say what the code does: generated pages are fresh, names are documented, links lead somewhere."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import msgspec
import pytest

from broker.couch.table import TABLE as COUCH
from broker.external.state import ExternalStats
from broker.mqtt.contract import Client, Message
from broker.publishing.topics import BarrelTopics
from broker.requests.service import RequestService
from broker.serve import serving
from broker.settings import load_settings
from feeds import BarrelSettings, Row, Store
from feeds.storage.schema import metadata
from listeners.stream.messages import Array, Close, Credit, End, Open

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "examples" / "README.md", *sorted(DOCS.rglob("*.md"))]
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[(?:[^\]]|\n)*\]\(([^)\s]+)\)|(?:href|src)=\"([^\"]+)\"")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def generate() -> Iterator[ModuleType]:
    """The generator, imported from where it stands."""
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = before


def text_of(page: Path) -> str:
    """A page without its code."""
    return FENCED.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """What can be linked to in a page, as GitHub names headings."""
    plain = (re.sub(r"[`*]|\[|\]\([^)]*\)", "", heading).lower() for heading in HEADING.findall(text_of(page)))
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain}


def links(page: Path) -> list[str]:
    return [first or second for first, second in LINK.findall(text_of(page))]


def test_generated_pages_are_what_the_generator_writes(generate: ModuleType) -> None:
    stale = [path.name for path, text in generate.pages().items() if not path.exists() or path.read_text() != text]
    assert not stale, f"run `python docs/generate.py`: {', '.join(stale)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            dead.append(link)
    assert not dead


def test_every_page_can_be_reached_from_the_index() -> None:
    index = DOCS / "index.md"
    reached = {(DOCS / link.partition("#")[0]).resolve() for link in links(index)}
    assert not [str(page) for page in PAGES if page not in reached | {index}]


def test_the_readme_links_to_the_index() -> None:
    assert "docs/index.md" in links(ROOT / "README.md")


def named_in(hint: str) -> set[str]:
    """The names that a hint such as `Verbs are put, set.` lists."""
    return set(hint.rstrip(".").partition(" are ")[2].split(", "))


async def test_every_verb_and_call_over_mqtt_is_documented(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []

    async def answer(_client: str, message: Message) -> bool:
        assert isinstance(message.payload, bytes)
        told.append(msgspec.json.decode(message.payload))
        return True

    client = Client.of(None, "reader")
    with ThreadPoolExecutor(1) as readers, Store.open(tmp_path) as store:
        store.create("b")
        service = RequestService(store, None, answer, readers)
        for unknown in ("nothing/b/x", "call/b/nothing"):
            await service.handle(client, f"from/anonymous/reader/{unknown}", b"{}")
        service.close()
    verbs, calls = (named_in(each["hint"]) for each in told)
    assert verbs >= {"put", "stream"}
    assert calls >= {"bulk", "head"}
    page = (DOCS / "reference" / "topics.md").read_text()
    assert not [verb for verb in verbs if f"`from/<client>/{verb}/<b>/" not in page]
    assert not [call for call in calls if f"| `{call}` |" not in page]


def test_every_topic_of_a_barrel_beside_its_paths_is_documented() -> None:
    topics = BarrelTopics("b", "epoch", BarrelSettings(), 1)
    pages = [(DOCS / page).read_text() for page in ("reference/topics.md", "concepts/paths-and-topics.md")]
    for topic in (topics.head, topics.lag):
        assert all(f"| `{topic.replace('/b/', '/<b>/')}` |" in page for page in pages)


@pytest.mark.parametrize("message", [Open, Array, End, Credit, Close, Row])
def test_every_field_of_a_stream_is_documented(message: type[msgspec.Struct]) -> None:
    page = (DOCS / "reference" / "streams.md").read_text()
    missing = [
        field.encode_name
        for field in msgspec.structs.fields(message)
        if not re.search(rf"[`{{ ]{field.encode_name}[`?:,}}]", page)
    ]
    assert not missing


def test_every_route_of_couchdbs_protocol_is_documented() -> None:
    page = (DOCS / "concepts" / "couchdb.md").read_text()
    words = {word for row in COUCH for word in row.template.split("/") if word.startswith("_")}
    words -= {"_local", "_design"}  # what is told of are the documents
    assert words >= {"_changes", "_replicate"}
    assert not [word for word in sorted(words) if not re.search(rf"[`/]{word}[`/]", page)]


def test_every_table_is_documented() -> None:
    page = (DOCS / "concepts" / "storage.md").read_text()
    picture = (DOCS / "pictures" / "tables.svg").read_text()
    assert not [name for name in metadata.tables if f"| `{name}` |" not in page]
    assert not [name for name in metadata.tables if f">{name}</text>" not in picture]


async def test_every_metric_is_documented_and_every_documented_one_is_there(
    generate: ModuleType, tmp_path: Path
) -> None:
    from metric_meanings import MEANINGS, ONLY_AFTER_USE  # type: ignore[import-not-found]

    flags = {"data": tmp_path, "http": "127.0.0.1:0", "mqtt": "127.0.0.1:0"}
    async with serving(load_settings(flags)) as service:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.http.port}", timeout=60) as client:
            await client.post("/barrels/b")
            async with asyncio.timeout(20):
                while "spile_publisher_seq_behind{" not in (shown := (await client.get("/metrics")).text):
                    await asyncio.sleep(0.02)
    there = set(re.findall(r"^# TYPE (spile_\S+)", shown, re.MULTILINE))
    there = {name for name in there if not name.endswith("_created")}
    assert not sorted(there - set(MEANINGS)), "say in docs/metric_meanings.py what these mean"
    assert not sorted(set(MEANINGS) - there - ONLY_AFTER_USE)


def test_every_metric_of_an_external_broker_is_documented(generate: ModuleType) -> None:
    from metric_meanings import MEANINGS

    figures = {f"spile_mqtt_{field.name}" for field in fields(ExternalStats)}
    assert not sorted(figures - set(MEANINGS)), "say in docs/metric_meanings.py what these mean"


def test_the_docs_speak_of_spile_alone() -> None:
    strange = re.compile(r"/work/|/tmp/|localhost:\d|\bTODO\b|\bFIXME\b")
    assert not [str(page) for page in PAGES if strange.search(page.read_text())]
