"""The pure parts of attachments over HTTP: digests and ranges in headers, and what browsers are told."""

from base64 import b64encode
from contextlib import suppress
from hashlib import md5, sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.http.digests import announced, digest_headers
from broker.http.disposition import browser_headers, disposition
from broker.http.errors import RangeNotSatisfiable
from broker.http.ranges import Part, asked_part
from broker.http.related import boundary_of
from broker.http.with_contents import wants_related
from feeds.attachments.stubs import Content
from feeds.errors import BadRequest

DATA = b"hello"
SHA = b64encode(sha256(DATA).digest()).decode()
MD5 = b64encode(md5(DATA).digest()).decode()
CONTENT = Content(sha256(DATA).hexdigest(), MD5, len(DATA))
TAG = b'"sha256-x"'


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("content-md5", MD5),
        ("digest", f"sha-256={SHA}, MD5={MD5}"),
        ("digest", f"unixsum=30637,SHA-256={SHA}"),
        ("repr-digest", f"sha-256=:{SHA}:"),
        ("content-digest", f"sha-512=:AAAA:, sha-256=:{SHA}:;x=1, md5=:{MD5}:"),
    ],
)
def test_a_digest_is_read_however_it_is_told(name: str, value: str) -> None:
    found = announced([(b"host", b"t"), (name.encode(), value.encode())])
    assert not found.is_nothing
    assert found.sha256 in (None, CONTENT.sha256) and found.md5 in (None, MD5)


@pytest.mark.parametrize("whole", [True, False])
def test_what_a_download_is_told_to_be_is_read_as_the_same(whole: bool) -> None:
    told = digest_headers(CONTENT, whole=whole)
    found = announced(told)
    assert (found.sha256, found.md5) == (CONTENT.sha256, CONTENT.md5)
    assert any(name.startswith(b"content-") for name, _ in told) is whole


@given(
    name=st.sampled_from([b"digest", b"repr-digest", b"content-digest", b"content-md5"]), value=st.binary(max_size=60)
)
def test_any_text_in_a_digest_is_read_or_refused(name: bytes, value: bytes) -> None:
    with suppress(BadRequest):
        announced([(name, value)])


@given(
    first=st.one_of(st.none(), st.integers(0, 200)),
    last=st.one_of(st.none(), st.integers(0, 200)),
    length=st.integers(0, 100),
)
def test_a_range_is_what_slicing_gives(first: int | None, last: int | None, length: int) -> None:
    data = bytes(length)
    asked = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    if first is None:
        expected = None if last is None else data[max(0, length - last) :]
    elif last is None:
        expected = data[first:]
    else:
        expected = data[first : last + 1] if last >= first else None
    try:
        part = asked_part(asked, None, TAG, length)
    except RangeNotSatisfiable:
        assert expected == b""
        return
    if expected is None:
        assert part is None
    else:
        assert part is not None and part.length == len(expected) > 0 and part.offset + part.length <= length


def test_a_range_counts_only_for_the_content_that_it_was_begun_with() -> None:
    assert asked_part("bytes=1-2", TAG.decode(), TAG, 10) == Part(1, 2, 10)
    assert asked_part("bytes=1-2", 'W/"sha256-x"', TAG, 10) is None
    assert asked_part("bytes=1-2", "Sat, 21 Nov 2026 10:00:00 GMT", TAG, 10) is None
    assert asked_part(None, TAG.decode(), TAG, 10) is None


@given(st.text(min_size=1, max_size=40))
def test_any_name_makes_a_header_of_one_line(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        return
    told = disposition("attachment", name)
    assert told.isascii() and told.decode().isprintable()
    assert told.count(b'"') == 2


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("image/png", True),
        ("IMAGE/PNG; x=y", True),
        ("video/mp4", True),
        ("text/plain", True),
        ("text/html", False),
        ("image/svg+xml", False),
        ("application/xhtml+xml", False),
        ("application/pdf", False),
        ("text/xml", False),
        ("", False),
    ],
)
def test_what_may_hold_a_program_is_a_download(kind: str, shown: bool) -> None:
    told = dict(browser_headers("a/b", kind))
    assert told[b"content-disposition"] == (b"inline" if shown else b"attachment") + b'; filename="b"'
    assert told[b"x-content-type-options"] == b"nosniff"


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (None, False),
        ("*/*", False),
        ("multipart/*", False),
        ("multipart/related", True),
        ("Multipart/Related; q=0.5", True),
        ("multipart/related;q=0", False),
        ("multipart/related;q=x", False),
        ("application/json, multipart/related", True),
        ("application/json, multipart/related;q=0.9", False),
    ],
)
def test_related_is_sent_to_those_who_name_it(accept: str | None, wanted: bool) -> None:
    assert wants_related(accept) is wanted


def test_a_boundary_is_read_from_the_type() -> None:
    assert boundary_of('multipart/related; type="application/json"; boundary="a b"') == "a b"
    assert boundary_of("Multipart/Related;boundary=x") == "x"
    assert boundary_of("application/json; boundary=x") is None
    assert boundary_of(None) is None
    for broken in ("multipart/related", "multipart/related; boundary=", f"multipart/related; boundary={'x' * 71}"):
        with pytest.raises(BadRequest):
            boundary_of(broken)
