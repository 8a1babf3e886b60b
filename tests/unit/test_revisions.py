"""What a revision is called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds.errors import BadRequest
from feeds.revisions import GENERATION_MAX, Revision, next_revision, revision_digest

names = st.text(st.characters(exclude_characters=",\"'\\", exclude_categories=["Cc", "Cs", "Z"]), min_size=1).filter(
    lambda text: len(text) <= 128
)


@given(st.integers(1, GENERATION_MAX), names)
def test_a_revision_reads_back_from_its_text(generation: int, digest: str) -> None:
    revision = Revision(generation, digest)
    assert Revision.parse(str(revision)) == revision


@pytest.mark.parametrize("text", ["2-bbbb", "3-c", "1-a-b", "2147483647-x", "1-" + "é" * 128, "10-0"])
def test_any_text_after_the_generation_is_kept_as_given(text: str) -> None:
    assert str(Revision.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *("x", "zzz", "", "-", "1-", "1", "0-a", "01-a", "+1-a", "-1-a", " 1-a", "1.0-a", "¹-a", "١-a"),
        *("2147483648-a", "9999999999-a", "99999999999-a", "1-" + "a" * 129),
        *("1-a b", "1-a,b", '1-a"b', "1-a'b", "1-a\\b", "1-\\"),
        *("1-a\n", "1-\x00", "1-\x7f", "1-\x85", "1-\u2028", "1-\ud800"),
        *(None, 1, True, ["1-a"], {"rev": "1-a"}),
    ],
)
def test_what_is_no_revision_is_refused_by_name(text: object) -> None:
    with pytest.raises(BadRequest) as refused:
        Revision.parse(text)
    assert repr(text)[:80] in refused.value.reason


@given(st.tuples(st.integers(1, 3), names), st.tuples(st.integers(1, 3), names))
def test_keys_order_by_generation_and_then_by_the_bytes_of_the_digest(a: tuple[int, str], b: tuple[int, str]) -> None:
    def in_bytes(revision: Revision) -> tuple[int, bytes]:
        return revision.generation, revision.digest.encode()

    one, other = Revision(*a), Revision(*b)
    assert (one.key < other.key) == (in_bytes(one) < in_bytes(other))


def test_the_digest_of_known_edits_never_changes() -> None:
    """Replicas of different versions must agree: these values are part of the format."""
    first = revision_digest(False, None, b'{"a":1}')
    second = revision_digest(True, "1-" + first, b"{}", [("b.txt", "text/plain", "0" * 64), ("a", "x/y", "1" * 64)])
    assert (first, second) == ("359458858e78dd42b9f05f4e52d21ea6", "43fed44c54efaf159e7836a1fb132973")


parts = st.text("0:ab1-+", max_size=4)
edits = st.tuples(
    st.booleans(),
    st.none() | parts,
    st.binary(max_size=4) | parts.map(str.encode),
    st.lists(st.tuples(parts, parts, parts), max_size=2, unique_by=lambda part: part[0]).map(sorted),
)


@given(edits, edits)
def test_different_edits_have_different_digests(
    a: tuple[bool, str | None, bytes, list[tuple[str, str, str]]],
    b: tuple[bool, str | None, bytes, list[tuple[str, str, str]]],
) -> None:
    assert (revision_digest(*a) == revision_digest(*b)) == (a == b)


def test_what_could_run_together_is_kept_apart() -> None:
    assert len({revision_digest(False, None, b""), revision_digest(False, "", b"")}) == 2
    assert revision_digest(False, "1-a", b"b") != revision_digest(False, "1-ab", b"")
    assert revision_digest(False, None, b"", [("ab", "c", "d")]) != revision_digest(
        False, None, b"", [("a", "bc", "d")]
    )
    assert revision_digest(False, None, b"1:a1:b1:c") != revision_digest(False, None, b"", [("a", "b", "c")])


def test_attachments_count_whatever_order_they_are_listed_in() -> None:
    one, other = ("a", "text/plain", "0" * 64), ("b", "text/plain", "1" * 64)
    assert revision_digest(False, None, b"{}", [one, other]) == revision_digest(False, None, b"{}", [other, one])


def test_the_next_revision_is_one_generation_on_and_names_its_parent() -> None:
    first = next_revision(None, False, b'{"a":1}')
    second = next_revision(first, False, b'{"a":2}')
    assert first == Revision(1, revision_digest(False, None, b'{"a":1}'))
    assert second == Revision(2, revision_digest(False, str(first), b'{"a":2}'))
    assert len(second.digest) == 32 and second.digest == second.digest.lower()


def test_the_last_generation_has_no_next_one() -> None:
    with pytest.raises(BadRequest, match="last generation"):
        next_revision(Revision(GENERATION_MAX, "a"), False, b"{}")
