"""One document, in process, over HTTP and over MQTT: stored, read and found alike, or refused in the same words."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from feeds import Barrel, Pattern, Store
from feeds.errors import SpileError
from feeds.paths import document_leaves, fits, id_levels, leaf_path

from .http_tools import Served, served
from .requests_tools import Device, serving

Told = tuple[Any, ...]


def nested(levels: int, opening: str = '{"a":', closing: str = "}") -> bytes:
    """A document of so many levels."""
    return (opening * levels + "1" + closing * levels).encode()


STORED: dict[str, bytes] = {
    "as deep as may be": nested(100),
    "as deep as is indexed": nested(63),
    "deeper than is indexed": nested(64),
    "the least and the greatest integers": b'{"a":-9223372036854775808,"b":18446744073709551615}',
    "integers that doubles do not hold": b'{"a":9007199254740993,"b":9007199254740992}',
    "zeros": b'{"a":-0.0,"b":0,"c":0.0}',
    "the least and the greatest floats": b'{"a":5e-324,"b":-1.7976931348623157e308}',
    "a whole float": b'{"a":1.0,"b":1E2}',
    "an empty key": b'{"":1,"a":{"":{"":"x"}}}',
    "an empty text": b'{"a":""}',
    "keys with the signs of topics": b'{"a/b":1,"+":"+","#":"#","*":"*","%2F":"%","$SYS":"$share"}',
    "keys with control characters": b'{"\\u0000":"\\u0000","a\\tb":"\\u001f","\x7f":"\xc2\x85"}',
    "noncharacters": '{"\ufffe":"\uffff","\U0010ffff":"\ufdd0"}'.encode(),
    "both forms of an accent": '{"é":"é","e\u0301":"e\u0301"}'.encode(),
    "a surrogate pair": b'{"\\ud83d\\ude00":"\\ud83d\\ude00"}',
    "marks that turn the writing": '{"\u202e":"\u200b","\ufeff":"\u2028"}'.encode(),
    "reserved names further down": b'{"a":{"_id":1,"_rev":null,"_token":2,"__proto__":{}}}',
    "texts like values": b'{"a":true,"b":"true","c":null,"d":"null","e":{},"f":"{}","g":[],"h":"[]"}',
    "numbers as keys": b'{"0":1,"1":{"0":[2,[3]]}}',
    "dots": b'{".":"..","..":"."}',
    "a long text": b'{"a":"%b"}' % (b"x/" * 1000),
    "a long key": b'{"%b":1}' % (b"k" * 70_000),
    "a long array": b'{"a":[%b]}' % b",".join(b"%d" % number for number in range(10_000)),
    "white space": b' \r\n\t{ "a" : 1 } ',
    "what a reader was given": b'{"_conflicts":["1-a"],"_history":[],"a":1}',
}

REFUSED: dict[str, tuple[bytes, str]] = {
    "too deep": (nested(101), "nested deeper"),
    "a bomb of objects": (b'{"a":' * 100_000, "nested deeper"),
    "a bomb of arrays": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested deeper"),
    "an integer too large": (b'{"a":[{"b":18446744073709551616}]}', "'a/0/b' does not fit into 64 bits"),
    "an integer too small": (b'{"a":-9223372036854775809}', "'a' does not fit into 64 bits"),
    "thousands of digits": (b'{"a":%b}' % (b"9" * 5000), "too large"),
    "a float too large": (b'{"a":1e400}', "too large"),
    "not a number": (b'{"a":NaN}', "NaN at byte 5"),
    "infinity": (b'{"a":-Infinity}', "Infinity at byte 6"),
    "a reserved field": (b'{"_a":1}', "'_a' is reserved"),
    "a long reserved field": (b'{"_%b":1}' % (b"k" * 70_000), "is reserved"),
    "attachments": (b'{"_attachments":[]}', "_attachments must be an object"),
    "a history": (b'{"_revisions":{"start":1,"ids":["a"]}}', "replicated writes only"),
    "a revision that is none": (b'{"_rev":"x"}', "not a revision"),
    "a revision that is no text": (b'{"_rev":null}', "_rev must be text, not null"),
    "an id that is no text": (b'{"_id":null}', "_id must be text, not null"),
    "a deletion that is neither": (b'{"_deleted":1}', "_deleted must be"),
    "a key twice": (b'{"a":{"b":1,"\\u0062":1}}', "the key 'b' twice"),
    "a byte order mark": (b'\xef\xbb\xbf{"a":1}', "byte order mark"),
    "a comment": (b'{"a":1/**/}', "at byte 6"),
    "a trailing comma": (b'{"a":1,}', "trailing comma in object at byte 7"),
    "single quotes": (b"{'a':1}", "at byte 1"),
    "two documents": (b"{}{}", "at byte 2"),
    "a raw control character": (b'{"a":"\x01"}', "at byte 6"),
    "nothing": (b"", "empty"),
    "white space alone": (b" ", "empty"),
    "half a document": (b'{"a":', "ends in the middle"),
    "an array": (b"[]", "not an array"),
    "a document in a text": (b'"{}"', "not a string"),
    "a number": (b"5", "not a number"),
    "null": (b"null", "not null"),
    "UTF-16": ("{}".encode("utf-16"), "not UTF-8: 0xff at byte 0"),
    "Latin-1": (b'{"a":"\xe9"}', "not UTF-8: 0xe9 at byte 6"),
    "an overlong form": (b'{"a":"\xc0\xaf"}', "not UTF-8: 0xc0 at byte 6"),
    "a surrogate in UTF-8": (b'{"a":"\xed\xa0\x80"}', "a lone surrogate at byte 6"),
    "a lone surrogate": (b'{"a":"\\ud800"}', "lone surrogate: \\ud800 at byte 6"),
}

IDS = [
    *("x" * 512, "é" * 256, "/".join("a" * 32), "/", "a//b/", "+", "a/#", "*", "%2F", "%zz", " ", "..", "a/../b"),
    *("?a=b", "#x", '"', "\\", "{id}", "_design/x", "a/_b", "\ufeff", "\u202e", "\uffff", "é", "e\u0301", "$SYS"),
    *("😀" * 128, "null", ":", "a:b,c"),
]

NO_IDS = [
    *("x" * 513, "é" * 257, "/".join("a" * 33), "_a", "_local/x", "\0", "a\nb", "\x7f", "\x85", "a\x9f"),
]


@dataclass
class Inputs:
    """Three stores with a barrel each, behind the three ways to write."""

    barrel: Barrel
    web: Served
    device: Device

    async def put(self, id: str, document: bytes) -> list[Told]:
        """What each way answers to the document."""
        try:
            first: Told = ("stored", self.barrel.put(document, id=id).rev)
        except SpileError as error:
            first = (error.code, error.reason, error.hint)
        status, body = await self.web.plain("PUT", f"/barrels/geo/docs/{quote(id, safe='')}", document)
        heard = await self.device.asked(f"put/geo/{id_levels(id)}", document)
        return [first, _told(status in (200, 201), json.loads(body)), _told("accepted" in heard.topic, heard.body)]

    async def get(self, id: str) -> list[Any]:
        """What each way reads."""
        _, body = await self.web.plain("GET", f"/barrels/geo/docs/{quote(id, safe='')}")
        heard = await self.device.asked(f"get/geo/{id_levels(id)}")
        return [json.loads(self.barrel.get(id).json()), json.loads(body), heard.body["doc"]]


def _told(stored: bool, answer: Any) -> Told:
    return ("stored", answer["rev"]) if stored else (answer["error"], answer["reason"], answer["hint"])


@pytest.fixture
async def inputs(tmp_path: Path) -> AsyncIterator[Inputs]:
    async with AsyncExitStack() as stack:
        store = stack.enter_context(Store.open(tmp_path / "process"))
        web = await stack.enter_async_context(served(tmp_path / "http"))
        service = await stack.enter_async_context(serving(tmp_path / "mqtt"))
        web.store.create("geo")
        yield Inputs(store.create("geo"), web, await service.device())
        assert [each.check().problems for each in (store, web.store, service.store)] == [[], [], []]


async def test_odd_documents_are_stored_read_and_found_alike(inputs: Inputs) -> None:
    for number, (name, document) in enumerate(STORED.items()):
        id = f"d{number}"
        answers = await inputs.put(id, document)
        assert answers[0][0] == "stored", (name, answers)
        assert len(set(answers)) == 1, (name, answers)
        given = {key: value for key, value in json.loads(document).items() if key[:1] != "_"}
        read = await inputs.get(id)
        whole = {"_id": id, "_rev": answers[0][1], **given}
        assert [_exact(each) for each in read] == [_exact(whole)] * 3, name
        for leaf in document_leaves(given)[:20]:
            if fits(leaf):
                found = inputs.barrel.changes(patterns=[Pattern.parse("/" + leaf_path(leaf))]).results
                assert id in [row.id for row in found], (name, leaf)
    assert inputs.barrel.info().skipped_paths == 3


async def test_hostile_documents_are_refused_in_the_same_words(inputs: Inputs) -> None:
    for name, (document, told) in REFUSED.items():
        answers = await inputs.put("x", document)
        assert (len(set(answers)), answers[0][0]) == (1, "bad_request"), (name, answers)
        assert told in answers[0][1], (name, answers[0])
        assert answers[0][2] and len(answers[0][1]) < 300, (name, answers[0])
    assert inputs.barrel.head() == 0


async def test_odd_ids_are_stored_read_and_found_alike(inputs: Inputs) -> None:
    for id in IDS:
        answers = await inputs.put(id, b'{"a":1}')
        assert (len(set(answers)), answers[0][0]) == (1, "stored"), (id, answers)
        assert [each["_id"] for each in await inputs.get(id)] == [id] * 3
        pattern = Pattern.parse(f"_id/{id_levels(id)}")
        assert [row.id for row in inputs.barrel.changes(patterns=[pattern]).results] == [id]


async def test_ids_that_cannot_be_are_refused_in_the_same_words(inputs: Inputs) -> None:
    for id in NO_IDS:
        answers = await inputs.put(id, b"{}")
        named = await inputs.web.plain("POST", "/barrels/geo/docs", json.dumps({"_id": id}).encode())
        answers.append(_told(named[0] == 201, json.loads(named[1])))
        assert (len(set(answers)), answers[0][0]) == (1, "bad_request"), (id, answers)


def _exact(document: dict[str, Any]) -> str:
    """Its JSON, in which `1`, `1.0`, `true`, `0.0` and `-0.0` are not the same."""
    return json.dumps(document, sort_keys=True)
