"""Names of blob files, and checksums of what is in them: pure, and checked by eye and by chance."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds.blobs.checksums import crc32c, cut
from feeds.blobs.claims import Claims
from feeds.blobs.names import OFFSET_MAX, check_name, check_prefix, check_range
from feeds.blobs.values import CHUNK_BYTES_MAX, Tag
from feeds.errors import BadChecksum, BadRequest

RUN = uuid.UUID(int=1).hex


@pytest.mark.parametrize("prefix", ["", "a/b", "a^b", "a\nb", "\x00", "a\x7f", "\x85", "\ud800", "x" * 129, "é" * 65])
def test_a_prefix_that_could_not_be_told_apart_in_a_name_is_refused(prefix: str) -> None:
    with pytest.raises(BadRequest):
        check_prefix(prefix)


@pytest.mark.parametrize("prefix", ["a", ".", "..", "x" * 128, "é" * 64, "with space", "~"])
def test_any_other_prefix_names_files(prefix: str) -> None:
    assert check_name(f"{check_prefix(prefix)}^{RUN}^0") == f"{prefix}^{RUN}^0"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            "a",
            "..",
            "../index.db",
            "/etc/passwd",
            f"../a^{RUN}^0",
            f"a/../b^{RUN}^0",
            f"a^{RUN}^0/..",
            f"a^{RUN}^",
        ),
        *(
            f"a^{RUN}^00",
            f"a^{RUN}^-1",
            f"a^{RUN}^0\n",
            f"a^{RUN[:-1]}^0",
            f"a^{RUN.upper()[:-1]}A^0",
            f"a^b^{RUN}^0",
        ),
        *(f"a\x00^{RUN}^0", f"^{RUN}^0", f"a^{RUN}^٣", f"a^{RUN}^" + "1" * 19),
    ],
)
def test_a_name_from_outside_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(BadRequest):
        check_name(name)


@pytest.mark.parametrize(("offset", "size"), [(-1, 1), (0, 0), (0, -1), (OFFSET_MAX, 1), (0, OFFSET_MAX + 1)])
def test_a_range_that_is_none_is_refused(offset: int, size: int) -> None:
    with pytest.raises(BadRequest):
        check_range(offset, size)


def test_the_checksum_is_crc32c() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C (Castagnoli)


@pytest.mark.parametrize("size", [1, 10, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX + 1, 3 * CHUNK_BYTES_MAX])
@pytest.mark.parametrize("given_sum", [False, True])
def test_bytes_are_cut_into_chunks_that_say_who_summed_them(size: int, given_sum: bool) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    data = data[:size]
    rows = cut(7, data, crc32c(data) if given_sum else None)
    assert b"".join(data[row[0] - 7 : row[0] - 7 + row[1]] for row in rows) == data
    assert all(crc32c(data[row[0] - 7 : row[0] - 7 + row[1]]) == row[3] for row in rows)
    one = len(rows) == 1
    assert one == (size <= CHUNK_BYTES_MAX)
    tag = Tag.SERVER if not given_sum else Tag.CLIENT if one else Tag.SPLIT
    assert {row[4] for row in rows} == {tag}


@pytest.mark.parametrize("size", [1, CHUNK_BYTES_MAX + 1])
def test_a_checksum_of_other_bytes_is_refused(size: int) -> None:
    with pytest.raises(BadChecksum):
        cut(0, b"a" * size, crc32c(b"b" * size))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.integers(1, 10))))
def test_claims_know_every_byte_that_is_claimed(steps: list[tuple[bool, int, int]]) -> None:
    claims = Claims()
    model: dict[int, int] = {}
    for add, start, size in steps:
        free = all(start >= end or start + size <= begin for begin, end in model.items())
        assert claims.free(start, start + size) == free
        if add and free:
            claims.add(start, start + size)
            model[start] = start + size
        elif model:
            gone = min(model, key=lambda begin: abs(begin - start))
            claims.remove(gone)
            del model[gone]
        assert claims.end() == max(model.values(), default=0)
