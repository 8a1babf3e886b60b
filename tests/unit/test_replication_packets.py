"""What goes into one message of a replicator: everything, in order, and never more than fits."""

from __future__ import annotations

from base64 import b64encode

from hypothesis import given
from hypothesis import strategies as st

from listeners.replication.packets import data_bytes, packets

texts = st.lists(st.integers(1, 5_000).map(bytes), max_size=60)
sizes = st.integers(3_000, 40_000)


@given(texts, sizes)
def test_every_text_goes_into_one_message_in_order(texts: list[bytes], packet_bytes: int) -> None:
    counts = list(packets(texts, packet_bytes))
    assert sum(counts) == len(texts)
    assert all(counts)


@given(texts, sizes)
def test_only_one_that_goes_alone_is_larger_than_a_message(texts: list[bytes], packet_bytes: int) -> None:
    at = 0
    for count in packets(texts, packet_bytes):
        part, at = texts[at : at + count], at + count
        assert count == 1 or len(b",".join(part)) + 100 < packet_bytes


def test_no_call_has_more_documents_than_the_service_takes() -> None:
    assert list(packets([b"{}"] * 4_000, 64 << 20)) == [1_500, 1_500, 1_000]


def test_the_answers_to_a_message_of_small_documents_fit_into_one_too() -> None:
    (first, *_) = packets([b"{}"] * 4_000, 64 << 10)
    assert first * 150 < 64 << 10


@given(sizes)
def test_a_part_of_a_content_fits_as_base64(packet_bytes: int) -> None:
    part = data_bytes(packet_bytes)
    assert len(b64encode(bytes(part))) + 1_500 < packet_bytes
    assert len(b64encode(bytes(part))) > packet_bytes - 2_100
