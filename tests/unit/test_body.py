"""Documents as text: what is accepted, its canonical form, and merge patches."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from feeds.body import (
    DEPTH_MAX,
    INTEGER_MAX,
    INTEGER_MIN,
    canonical,
    check_id,
    check_values,
    draft,
    merge_patch,
    read_json,
)
from feeds.errors import BadRequest, TooLarge

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
scalars = st.one_of(
    *(st.none(), st.booleans(), texts, st.floats(allow_nan=False, allow_infinity=False)),
    st.integers(INTEGER_MIN, INTEGER_MAX),
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))
objects = st.dictionaries(texts.filter(lambda key: key[:1] != "_"), values, max_size=4)


def same(a: Any, b: Any) -> bool:
    """Equal, and of the same types all the way down (1 is neither 1.0 nor true)."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return a == b and math.copysign(1, a) == math.copysign(1, b)
    return bool(a == b)


@settings(max_examples=60)
@given(objects)
@example({"a": -0.0, "b": 5e-324, "c": 1e22, "d": 2**64 - 1})
def test_what_was_written_comes_back_the_same(data: dict[str, Any]) -> None:
    made = draft(data)
    assert same(json.loads(made.body), data)
    assert same(read_json(made.body), data)
    assert draft(made.body).body == made.body
    assert draft(json.dumps(data)).body == made.body


@settings(max_examples=60)
@given(st.dictionaries(texts, scalars, max_size=5))
def test_the_order_of_keys_and_white_space_do_not_matter(data: dict[str, Any]) -> None:
    turned = dict(reversed(data.items()))
    assert canonical(turned) == canonical(data)
    assert canonical(read_json(json.dumps(data, indent=3))) == canonical(data)


def test_the_canonical_form_is_what_it_is() -> None:
    data = {"b": [1, 1.0, -0.0, 1e100, 0.1], "a": {"z": None, "é": True, "Z": "\n\U0001f37a"}, "": {}}
    assert canonical(data).decode() == (
        '{"":{},"a":{"Z":"\\n\U0001f37a","z":null,"é":true},"b":[1,1.0,-0.0,1e100,0.1]}'
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "[1,]",
        "NaN",
        "Infinity",
        '{"a":-Infinity}',
        "nul",
        '{"a" 1}',
        "\ufeff{}",
        "01",
        "{}x",
    ],
)
def test_what_is_no_json_is_refused_with_a_reason(text: str) -> None:
    for given_text in (text, text.encode()):
        with pytest.raises(BadRequest, match="JSON"):
            read_json(given_text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"\xff", "0xff at byte 0"),
        (b'{"a":"\xc3"}', "0xc3 at byte 6"),
        (b'{"abc\xff":1}', "0xff at byte 5"),
        (b'{"a":1} \xff', "0xff at byte 8"),
        (b'{"\xed\xa0\x80":1}', "a lone surrogate at byte 2"),
        ("{}".encode("utf-16"), "0xff at byte 0"),
        (b"\x1f\x8b\x08", "0x8b at byte 1"),
    ],
)
def test_what_is_no_utf8_is_refused_with_its_place(text: bytes, told: str) -> None:
    for read in (draft, read_json):
        with pytest.raises(BadRequest) as raised:
            read(text)
        assert "is not UTF-8" in raised.value.reason
        assert raised.value.reason.endswith(told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a":"\\ud800"}', "\\ud800 at byte 6"),
        ('{"a":"\\ud800x"}', "\\ud800 at byte 6"),
        ('{"a":"\\uD8FFxxxxx"}', "\\uD8FF at byte 6"),
        ('{"a":"\\ud800\\nxxxxxxxx"}', "\\ud800 at byte 6"),
        ('{"a":"\\ud800\\ud83d\\ude00"}', "\\ud800 at byte 6"),
        ('{"a":"\\ud83d\\ude00\\udc00"}', "\\udc00 at byte 18"),
        ('{"é":"\\ude00"}', "\\ude00 at byte 7"),
        ('{"\\ude00":1}', "\\ude00 at byte 2"),
        ('{"a":"\\\\\\ud800"}', "\\ud800 at byte 8"),
        ('{"é":"\ud800"}', "U+D800 at byte 7"),
    ],
)
def test_a_lone_surrogate_is_refused_with_its_place(text: str, told: str) -> None:
    forms: list[str | bytes] = [text] if "\ud800" in text else [text, text.encode()]
    for read in (draft, read_json):
        for given_text in forms:
            with pytest.raises(BadRequest) as raised:
                read(given_text)
            assert "lone surrogate" in raised.value.reason
            assert raised.value.reason.endswith(told)


@pytest.mark.parametrize("text", ['{"a":"\\ud83d', '{"a":"\\ud83d\\', '{"a":"\\ud83d\\ude', '{"a":"\\\\ud800"'])
def test_a_text_cut_off_is_told_as_that(text: str) -> None:
    with pytest.raises(BadRequest, match="ends in the middle"):
        draft(text)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"a": {"b": ["x", "y\udc00"]}}, "The text at 'a/b/1' holds a lone surrogate: U+DC00 at character 1"),
        ({"a": [{"\ud800": 1}]}, "The key '\\ud800' holds a lone surrogate: U+D800 at character 0"),
    ],
)
def test_a_lone_surrogate_in_a_mapping_is_told_by_its_path(value: Any, told: str) -> None:
    with pytest.raises(BadRequest) as raised:
        draft(value)
    assert raised.value.reason == told


@pytest.mark.parametrize("number", ["1e400", "-1e999", "9" * 5000])
def test_a_number_beyond_what_is_kept_is_told_as_that(number: str) -> None:
    with pytest.raises(BadRequest, match="too large"):
        draft(f'{{"a":[{number}]}}')


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a":NaN}', "NaN at byte 5"),
        ('{"a":-Infinity}', "Infinity at byte 6"),
        ("\ufeff{}", "byte order mark"),
        ("", "it is empty"),
        ('{"a":1,}', "trailing comma in object at byte 7"),
        ('{"a":1 // one\n}', "expected ',' or '}' at byte 7"),
        ('{"a":1}x', "trailing characters at byte 7"),
        ('{"a":"\\x"}', "invalid escape character in string at byte 7"),
        ('{"a":"\\u12"}', "invalid character in unicode escape at byte 10"),
    ],
)
def test_the_usual_mistakes_are_told_by_name(text: str, told: str) -> None:
    with pytest.raises(BadRequest) as raised:
        draft(text)
    assert told in raised.value.reason


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":1}',
        '{"x":[{"a":1,"b":2,"a":3}]}',
        '{"_id":"a:b","_id":"a:b"}',
        '{"_id":"x","_rev":"1-a:b","_revisions":{"start":1,"start":1,"ids":["a:b"]},"a":1}',
        '{"a":1,"\\u0061":2}',
        '{"a":"\\u003A","b":1,"b":2}',
        '{"é":1,"é":2}',
        '{"":1,"":2}',
    ],
)
def test_a_key_twice_in_one_object_is_refused_by_name(text: str) -> None:
    for read in (draft, read_json):
        with pytest.raises(BadRequest, match=r"has the key '.*' twice in one object"):
            read(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"a":{"a":1},"b":[{"a":2},{"a":3}]}',
        '{"_id":"::","_rev":"2-:","_revisions":{"start":2,"ids":[":",":x"]},"_history":[{"rev":"1-:"}],"a":":"}',
        '{"a:":":\\u003a\\":","b\\":":1}',
        '{"é":1,"e\u0301":2}',
    ],
)
def test_keys_and_colons_elsewhere_are_taken(text: str) -> None:
    assert draft(text).body
    assert read_json(text) == json.loads(text)


@pytest.mark.parametrize(
    "value",
    [
        *({"a": float("nan")}, {"a": [float("inf")]}, {"a": 2**64}, {"a": [-(2**63) - 1]}, {"a": {1: 2}}, {1: 2}),
        *(
            {"a": "\ud800"},
            {"\udfff": 1},
            {"a": (1,)},
            {"a": b"x"},
            {"a": {2}},
            {"a": object()},
            [],
            "x",
            1,
            None,
            True,
        ),
    ],
)
def test_values_that_would_not_come_back_are_refused(value: Any) -> None:
    with pytest.raises(BadRequest):
        draft(value)


def nested(depth: int, inner: Any = 1) -> Any:
    """A document of so many levels."""
    for level in range(depth - 1):
        inner = [inner] if level % 2 else {"a": inner}
    return {"a": inner}


def test_depth_is_limited() -> None:
    assert draft(nested(DEPTH_MAX)).data
    with pytest.raises(BadRequest, match="deeper"):
        draft(nested(DEPTH_MAX + 1))
    for text in (b'{"a":' * 100_000, b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"):
        with pytest.raises(BadRequest):
            draft(text)
    with pytest.raises(BadRequest, match="deeper"):
        check_values(nested(DEPTH_MAX + 1))


def test_size_is_limited_as_given_and_as_kept() -> None:
    assert draft({"a": "x" * 92}, bytes_max=100).body == b'{"a":"' + b"x" * 92 + b'"}'
    for large in ({"a": "x" * 93}, b'{"a": "' + b"x" * 92 + b'"}', '{"a":"' + "é" * 47 + '"}'):
        with pytest.raises(TooLarge):
            draft(large, bytes_max=100)


def test_reserved_fields_are_taken_off() -> None:
    made = draft(
        {"_id": "x", "_rev": "2-b", "_deleted": True, "_revisions": {"start": 2, "ids": ["b", "a"]}, "a": 1}
        | {"_conflicts": ["1-z"], "_history": []}
    )
    assert (made.id, made.rev, made.deleted, made.revisions) == ("x", "2-b", True, (2, ("b", "a")))
    assert (made.data, made.body) == ({"a": 1}, b'{"a":1}')
    inside = {"a": {"_id": 1, "_x": 2}}
    assert draft(inside).data == inside


@pytest.mark.parametrize(
    "field",
    [
        *({"_x": 1}, {"_": 1}, {"_attachments": []}, {"_deleted": "yes"}, {"_rev": 1}, {"_id": None}, {"_id": "_x"}),
        *({"_revisions": value} for value in (None, {}, {"start": 1, "ids": []}, {"start": 1, "ids": ["a", "b"]})),
        *({"_revisions": value} for value in ({"start": "1", "ids": ["a"]}, {"start": 1, "ids": [1]})),
    ],
)
def test_reserved_fields_that_cannot_be_are_refused_by_name(field: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match=next(iter(field))):
        draft({**field, "a": 1})


@pytest.mark.parametrize(
    "id", ["a", "x" * 512, "é" * 256, "/".join("a" * 32), "_design/a", "a b", "/", "a//b", "%+#*"]
)
def test_ids_within_the_rules_are_taken(id: str) -> None:
    assert check_id(id) == id


@pytest.mark.parametrize(
    "id",
    [
        "",
        "x" * 513,
        "é" * 257,
        "/".join("a" * 33),
        "_a",
        "_local/a",
        "_design/",
        "a\0",
        "\x9f",
        "\ud800",
        None,
        1,
        b"a",
    ],
)
def test_ids_against_the_rules_are_refused(id: Any) -> None:
    with pytest.raises(BadRequest):
        check_id(id)


RFC_7396 = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "result"), RFC_7396)
def test_merge_patches_do_what_the_rfc_says(target: Any, patch: Any, result: Any) -> None:
    before = json.dumps([target, patch])
    assert merge_patch(target, patch) == result
    assert json.dumps([target, patch]) == before


@settings(max_examples=60)
@given(objects, objects)
def test_a_merge_patch_twice_is_a_merge_patch_once(target: dict[str, Any], patch: dict[str, Any]) -> None:
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once
    assert merge_patch(target, {}) == target
