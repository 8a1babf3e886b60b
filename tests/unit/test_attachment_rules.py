"""The rules of attachments: what may be said of them, how stubs stand in bodies, and how a revision gets its own."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace
from hashlib import md5, sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds.attachments.given import ATTACHMENTS_MAX, INLINE_BYTES_MAX, Given, check_name, read_attachments
from feeds.attachments.resolve import resolve
from feeds.attachments.stubs import MARK, Content, Stub, contents_of, hashed, joined, moves, split, stubs_of
from feeds.body import canonical, draft
from feeds.errors import BadRequest, MissingStub, SpileError, TooLarge
from feeds.paths import document_paths
from feeds.revisions import revision_digest
from feeds.writes import Write


def content(data: bytes) -> Content:
    return Content(sha256(data).hexdigest(), b64encode(md5(data).digest()).decode(), len(data))


def stub(data: bytes, content_type: str = "text/plain", revpos: int = 1) -> Stub:
    told = content(data)
    return Stub(content_type=content_type, digest=told.digest, length=told.length, revpos=revpos, stub=True)


class Held:
    """A barrel that holds these contents."""

    def __init__(self, *data: bytes) -> None:
        self.contents = [content(each) for each in data]

    def md5_of(self, wanted: str) -> str | None:
        return next((each.md5 for each in self.contents if each.sha256 == wanted), None)

    def held(self, wanted: str | None, brief: str | None) -> Content | None:
        return next((each for each in self.contents if each.sha256 == wanted or each.md5 == brief), None)


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(
    lambda name: name[0] != "_"
)
STUBS = st.dictionaries(
    NAMES,
    st.builds(stub, st.binary(max_size=4), st.sampled_from(["text/plain", "image/png"]), st.integers(1, 9))
    | st.builds(lambda at: Stub(link=f"https://example.org/{at}", revpos=1), st.integers(0, 3)),
    max_size=4,
)
KEYS = st.text(max_size=8).filter(lambda key: key[:1] != "_")
VALUES = st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8), st.lists, max_leaves=4)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=4)


# -- stubs in a body


@given(DOCUMENTS, STUBS)
def test_a_body_gives_back_its_stubs_and_the_text_of_its_keys(document: dict[str, Any], stubs: Any) -> None:
    text = canonical(document)
    body = joined(stubs, text)
    assert split(body) == (stubs, text)
    assert stubs_of(body) == stubs


@given(DOCUMENTS, STUBS)
def test_the_first_bytes_tell_whether_there_are_attachments(document: dict[str, Any], stubs: Any) -> None:
    assert joined(stubs, canonical(document)).startswith(MARK) == bool(stubs)


@given(STUBS, STUBS)
def test_moves_lead_from_one_to_the_other(before: Any, after: Any) -> None:
    told = moves(before, after)
    if told is None:
        assert {name: each.meaning for name, each in before.items()} == {
            name: each.meaning for name, each in after.items()
        }
        return
    assert set(before) - set(told.went) | set(told.came) == set(after)
    assert not set(told.came) & set(before)
    assert all(before[name].meaning != after[name].meaning for name in told.changed)


@given(STUBS, st.integers(1, 99))
def test_when_an_attachment_came_has_no_part_in_the_digest(stubs: Any, revpos: int) -> None:
    later = {
        name: Stub(
            content_type=s.content_type, digest=s.digest, length=s.length, link=s.link, revpos=revpos, stub=s.stub
        )
        for name, s in stubs.items()
    }
    assert revision_digest(False, None, b"{}", hashed(stubs)) == revision_digest(False, None, b"{}", hashed(later))


@given(STUBS)
def test_names_types_and_contents_have_a_part_in_the_digest(stubs: Any) -> None:
    digests = {revision_digest(False, None, b"{}", hashed(stubs))}
    for name, each in stubs.items():
        without = {other: value for other, value in stubs.items() if other != name}
        digests.add(revision_digest(False, None, b"{}", hashed(without)))
        kind = Stub(content_type="x/y", digest=each.digest, length=each.length, link=each.link, revpos=1)
        digests.add(revision_digest(False, None, b"{}", hashed(without | {name: kind})))
    assert len(digests) == 1 + 2 * len(stubs)


def test_attachments_stand_on_paths_by_their_names() -> None:
    body = {"_attachments": {"a/b.jpg": {}, "note": {}}, "x": 1, "_other": 2}
    assert document_paths(body) == [
        ("_attachments/a%2Fb.jpg", "a/b.jpg"),
        ("_attachments/note", "note"),
        ("x/1", 1),
    ]


def test_of_names_that_are_cut_to_one_text_one_stands() -> None:
    names: dict[str, Any] = {"n" * 150 + end: {} for end in "ab"}
    assert len(document_paths({"_attachments": names})) == 1


# -- what a caller may say


def told(value: Any) -> SpileError:
    with pytest.raises(SpileError) as refused:
        read_attachments({"a.txt": value})
    return refused.value


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (1, "is no object"),
        ({}, "is given by nothing"),
        ({"stub": False}, "is given by nothing"),
        ({"stub": True, "data": ""}, "data and stub"),
        ({"data": "x", "size": 1}, "unknown field 'size'"),
        ({"data": "YWJj="}, "is not base64"),
        ({"data": "YWJ"}, "is not base64"),
        ({"data": "YW\nJj"}, "is not base64"),
        ({"data": "YWJjé"}, "is not base64"),
        ({"data": "YWJj-_"}, "is not base64"),
        ({"data": 1}, "it is no text"),
        ({"data": "", "length": -1}, "length must be"),
        ({"data": "", "length": True}, "length must be"),
        ({"data": "", "length": "3"}, "length must be"),
        ({"data": "", "revpos": 0}, "revpos must be"),
        ({"data": "", "content_type": ""}, "content_type must be"),
        ({"data": "", "content_type": "a\r\nb: c"}, "content_type must be"),
        ({"data": "", "content_type": 7}, "content_type must be"),
        ({"data": "", "digest": "sha256-12"}, "is no digest"),
        ({"data": "", "digest": "SHA256-" + "0" * 64}, "is no digest"),
        ({"data": "", "digest": "md5-xx"}, "is no digest"),
        ({"data": "", "digest": 5}, "is no digest"),
        ({"stub": "yes"}, "stub must be true"),
        ({"follows": 1}, "follows must be true"),
        ({"link": "no url"}, "link must be a URL"),
        ({"link": "https://a b"}, "link must be a URL"),
        ({"link": 1}, "link must be a URL"),
        ({"upload": 1}, "upload must be text"),
    ],
)
def test_what_is_no_attachment_is_refused_with_the_reason(value: Any, why: str) -> None:
    refusal = told(value)
    assert isinstance(refusal, BadRequest)
    assert why in refusal.reason
    assert refusal.hint


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "0 bytes"),
        ("n" * 513, "513 bytes"),
        ("_x", "begins with an underscore"),
        ("a\nb", "control character"),
        ("a\x00", "control character"),
        ("a\x85", "control character"),
        ("\ud800", "surrogate"),
        (7, "is text"),
    ],
)
def test_a_name_that_cannot_be_is_refused(name: Any, why: str) -> None:
    with pytest.raises(BadRequest, match=why):
        check_name(name)


@given(NAMES)
def test_any_other_name_may_be(name: str) -> None:
    assert check_name(name) == name


@given(st.binary(max_size=64))
def test_base64_gives_the_bytes(data: bytes) -> None:
    found = read_attachments({"a": {"data": b64encode(data).decode()}})["a"]
    assert found is not None and found.data == data


def test_too_many_and_too_much_are_refused() -> None:
    with pytest.raises(TooLarge, match="1001 attachments"):
        read_attachments({str(number): {"stub": True} for number in range(ATTACHMENTS_MAX + 1)})
    half = b64encode(bytes(INLINE_BYTES_MAX // 2 + 1)).decode()
    with pytest.raises(TooLarge, match="bytes"):
        read_attachments({"a": {"data": half}, "b": {"data": half}})
    with pytest.raises(TooLarge, match="link"):
        read_attachments({"a": {"link": "https://" + "x" * 3_000}})


def test_contents_do_not_count_as_the_document() -> None:
    data = b64encode(bytes(3_000)).decode()
    given = draft(b'{"a":1,"_attachments":{"x":{"data":"%b"}}}' % data.encode(), bytes_max=100)
    assert given.body == b'{"a":1}'
    assert given.attachments is not None and given.attachments["x"] is not None
    with pytest.raises(TooLarge):
        draft(b'{"a":"%b","_attachments":{}}' % data.encode(), bytes_max=100)


@pytest.mark.parametrize(
    "text",
    [
        b'{"_attachments":{"a":{"link":"x:y"},"a":{"link":"x:z"}}}',
        b'{"_attachments":{"a":{"link":"x:y","link":"x:z"}}}',
        b'{"_attachments":{},"_attachments":{}}',
    ],
)
def test_a_key_that_is_there_twice_is_refused_in_attachments_too(text: bytes) -> None:
    with pytest.raises(BadRequest, match="twice"):
        draft(text)


def test_colons_in_names_types_and_links_are_no_keys() -> None:
    text = b'{"_id":"a:b","_attachments":{"a:b":{"link":"x:y:z","content_type":"a:b"}},"k":":"}'
    assert draft(text).attachments == {"a:b": Given("a:b", link="x:y:z")}


def test_a_content_that_is_not_what_was_announced_is_refused() -> None:
    right = content(b"hello")
    given = Given(sha256=right.sha256, md5=right.md5, length=5)
    given.check("a", right)
    for wrong in ({"length": 4}, {"sha256": "0" * 64}, {"md5": content(b"").md5}):
        with pytest.raises(BadRequest, match="'a'"):
            replace(given, **wrong).check("a", right)


def test_only_what_has_bytes_to_store_waits() -> None:
    assert Write.put({"_attachments": {"a": {"data": ""}}}).is_waiting
    assert Write.put({"_attachments": {"a": {"upload": "u"}}}).is_waiting
    assert Write.put({"_attachments": {"a": {"follows": True}}}).is_waiting
    assert not Write.put({"_attachments": {"a": {"stub": True}, "b": {"link": "x:y"}}}).is_waiting
    assert not Write.put({"a": 1}).is_waiting


def test_a_merge_patch_names_attachments_and_removes_with_null() -> None:
    write = Write.merge("x", {"a": 1, "_attachments": {"b": None, "c": {"link": "x:y"}}})
    assert write.attachments == {"b": None, "c": Given(link="x:y")}
    assert write.patch == {"a": 1}
    with pytest.raises(BadRequest):
        Write.put({"_attachments": {"b": None}})


# -- how a revision gets its own

PARENT = {"a": stub(b"aaa"), "b": stub(b"bb", "image/png"), "l": Stub(link="x:y", revpos=1)}


def stubbed(**fields: Any) -> Given:
    found = read_attachments({"n": {"stub": True, **fields}})["n"]
    assert found is not None
    return found


@given(STUBS, st.integers(2, 9))
def test_what_is_sent_back_as_it_was_read_stays_as_it_is(stubs: Any, generation: int) -> None:
    sent = {
        name: Given(link=each.link, content_type=each.content_type if isinstance(each.content_type, str) else None)
        if isinstance(each.link, str)
        else stubbed(digest=each.digest, length=each.length, content_type=each.content_type, revpos=each.revpos)
        for name, each in stubs.items()
    }
    assert resolve(sent, stubs, generation, Held()) == stubs


@given(STUBS, STUBS, st.integers(2, 9))
def test_a_patch_leaves_what_it_does_not_name(stubs: Any, others: Any, generation: int) -> None:
    gone = dict.fromkeys(others)
    left = resolve(gone, stubs, generation, Held(), patch=True)
    assert left == {name: each for name, each in stubs.items() if name not in others}
    assert resolve({}, stubs, generation, Held(), patch=True) == stubs
    assert resolve({}, stubs, generation, Held()) == {}


def test_a_new_content_comes_in_this_generation_and_the_same_one_came_when_it_came() -> None:
    new = resolve({"a": Given("text/plain", content=content(b"new"))}, PARENT, 5, Held())
    assert new == {"a": stub(b"new", revpos=5)}
    same = resolve({"a": Given("text/plain", content=content(b"aaa"))}, PARENT, 5, Held())
    assert same == {"a": PARENT["a"]}
    other_type = resolve({"a": Given("text/html", content=content(b"aaa"))}, PARENT, 5, Held())
    assert other_type == {"a": stub(b"aaa", "text/html", 5)}


def test_a_stub_takes_the_parents_by_name_or_by_digest() -> None:
    assert resolve({"a": stubbed()}, PARENT, 2, Held()) == {"a": PARENT["a"]}
    renamed = resolve({"c": stubbed(digest=PARENT["b"].digest)}, PARENT, 2, Held())
    assert renamed == {"c": stub(b"bb", "image/png", 2)}
    brief = resolve({"a": stubbed(digest=f"md5-{content(b'aaa').md5}")}, PARENT, 2, Held(b"aaa", b"bb"))
    assert brief == {"a": PARENT["a"]}


@pytest.mark.parametrize(
    ("name", "given", "why"),
    [
        ("x", stubbed(), "no attachment of that name"),
        ("l", stubbed(digest=content(b"zz").digest), "is a link"),
        ("a", stubbed(digest=content(b"zz").digest), "under that name, not"),
        ("x", stubbed(digest=content(b"zz").digest), "is not here"),
        ("a", stubbed(digest=f"md5-{content(b'zz').md5}"), "under that name, not"),
    ],
)
def test_a_stub_of_what_the_parent_does_not_have_is_refused(name: str, given: Given, why: str) -> None:
    with pytest.raises(MissingStub, match=why) as refused:
        resolve({name: given}, PARENT, 2, Held(b"aaa", b"bb", b"zz"))
    assert refused.value.details["name"] == name


def test_a_stub_without_a_digest_takes_the_parents_link_as_well() -> None:
    kept = resolve({"l": stubbed()}, PARENT, 2, Held())
    assert kept == {"l": PARENT["l"]}


def test_a_replicated_stub_whose_md5_is_not_here_takes_what_the_parent_has_under_its_name() -> None:
    of_something_compressed = f"md5-{content(b'gzip of aaa').md5}"
    kept = resolve({"a": stubbed(digest=of_something_compressed)}, PARENT, 2, Held(b"aaa"), replicated=True)
    assert kept["a"].meaning == PARENT["a"].meaning


@pytest.mark.parametrize("told", [{"digest": f"md5-{content(b'gzip of more').md5}"}, {}])
def test_a_replicated_stub_that_came_with_another_revision_is_not_what_the_parent_has(told: dict[str, str]) -> None:
    assert resolve({"a": stubbed(revpos=1, **told)}, PARENT, 3, Held(b"aaa"), replicated=True)["a"] == PARENT["a"]
    with pytest.raises(MissingStub):
        resolve({"a": stubbed(revpos=2, **told)}, PARENT, 3, Held(b"aaa"), replicated=True)


def test_a_stub_that_tells_another_length_is_refused() -> None:
    with pytest.raises(BadRequest, match="length of 7"):
        resolve({"a": stubbed(length=7)}, PARENT, 2, Held())


def test_a_replicated_stub_takes_what_the_barrel_holds_and_keeps_what_it_tells() -> None:
    held = Held(b"zz")
    sent = stubbed(digest=content(b"zz").digest, content_type="a/b", revpos=3, length=2)
    assert resolve({"z": sent}, {}, 7, held, replicated=True) == {"z": stub(b"zz", "a/b", 3)}
    brief = stubbed(digest=f"md5-{content(b'zz').md5}", content_type="a/b")
    assert resolve({"z": brief}, {}, 7, held, replicated=True) == {"z": stub(b"zz", "a/b", 7)}
    with pytest.raises(MissingStub):
        resolve({"z": stubbed(digest=content(b"no").digest)}, {}, 7, held, replicated=True)
    with pytest.raises(MissingStub):
        resolve({"z": stubbed(revpos=3)}, {}, 7, held, replicated=True)


def test_a_document_cannot_grow_too_many_by_patches() -> None:
    many = {str(number): Stub(link="x:y", revpos=1) for number in range(ATTACHMENTS_MAX)}
    with pytest.raises(TooLarge):
        resolve({"one more": Given(link="x:y")}, many, 2, Held(), patch=True)


def test_contents_are_told_once_and_links_are_none() -> None:
    assert contents_of({"a": stub(b"x"), "b": stub(b"x"), "l": Stub(link="x:y", revpos=1)}) == {content(b"x").sha256}
