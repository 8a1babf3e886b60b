"""The messages of streams, the addresses they go to, and what is refused."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.errors import BadRequest, Forbidden, NotFound, SpileError
from listeners.backoff import Backoff
from listeners.errors import Closed, Refused, Replaced, error_of
from listeners.links.address import Address, StorePlace, parse_address
from listeners.stream.messages import (
    BYTES_MAX,
    WINDOW_MAX,
    Array,
    Close,
    Credit,
    End,
    Open,
    decode_array,
    decode_credit,
    decode_open,
    decode_run,
    encode,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
FIELDS = st.sampled_from(["run", "name", "since", "patterns", "window", "bytes", "docs", "follow", "ack", "close"])


def test_an_open_is_written_as_the_design_shows_it() -> None:
    opened = Open(run="r", name="n", since="first", patterns=["region/#"], window=10, bytes=20, docs=True)
    assert encode(opened) == (
        b'{"run":"r","name":"n","since":"first","patterns":["region/#"],"window":10,"bytes":20,"docs":true}'
    )
    assert decode_open(encode(opened)) == opened


def test_what_an_open_leaves_out_has_a_default() -> None:
    opened = decode_open(b'{"run":"r"}')
    assert opened == Open(run="r", patterns=[], window=1_000, bytes=1 << 20, docs=False, follow=True)


def test_a_window_beyond_the_limit_is_cut_to_it() -> None:
    opened = decode_open(b'{"run":"r","window":99999999,"bytes":99999999999}')
    assert (opened.window, opened.bytes) == (WINDOW_MAX, BYTES_MAX)


def test_an_array_leaves_out_what_it_does_not_say() -> None:
    rows = [msgspec.Raw(b'{"seq":57,"id":"a","rev":"1-a","changes":["1-a"]}')]
    assert encode(Array(run="r", prev="41-e", seq="57-e", rows=rows)) == (
        b'{"run":"r","prev":"41-e","seq":"57-e","rows":[{"seq":57,"id":"a","rev":"1-a","changes":["1-a"]}]}'
    )
    assert encode(Array(run="r", rows=[], end=End("done"))) == b'{"run":"r","rows":[],"end":{"code":"done"}}'


def test_credit_and_close_are_told_apart() -> None:
    credit = Credit(run="r", ack="5-e", window=10, bytes=100)
    assert decode_credit(encode(credit)) == credit
    assert decode_credit(encode(Close(run="r"))) == Close(run="r")


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (b"", "open cannot be read"),
        (b"[]", "open cannot be read"),
        (b"{}", "`run`"),
        (b'{"run":""}', "`run`"),
        (b'{"run":"r","window":"many"}', "window"),
        (b'{"run":"r","window":-1}', "negative"),
        (b'{"run":"r","name":""}', "no name"),
        (b'{"run":"r","name":"a\\u0001"}', "no name"),
        (b'{"run":"r","patterns":"a/#"}', "patterns"),
        (b'{"run":"r","since":1.5}', "since"),
        (b'{"run":"r","pattern":["a/#"]}', "unknown field `pattern`"),
        (b'{"run":"r","x":' + b"[" * 100_000, "open cannot be read"),
        (b'{"run":"\xff"}', "open cannot be read"),
    ],
)
def test_a_bad_open_is_refused_with_what_is_wrong(message: bytes, told: str) -> None:
    with pytest.raises(BadRequest) as raised:
        decode_open(message)
    assert told in raised.value.reason
    assert raised.value.hint


def test_a_field_that_is_not_known_is_refused_with_those_that_are() -> None:
    for decode, known in ((decode_open, "run, name, since, patterns"), (decode_credit, "run, ack, window, bytes")):
        with pytest.raises(BadRequest) as raised:
            decode(b'{"run":"r","ack":"1-e","x":1}' if decode is decode_credit else b'{"run":"r","x":1}')
        assert "unknown field `x`" in raised.value.reason
        assert known in raised.value.hint


def test_what_a_newer_service_adds_to_an_array_is_passed_over() -> None:
    row = b'{"seq":1,"id":"a","rev":"1-a","changes":["1-a"],"new":1}'
    array = decode_array(b'{"run":"r","prev":"0-e","seq":"1-e","rows":[%b],"new":{}}' % row)
    assert [row.id for row in array.rows] == ["a"]


def test_a_credit_without_a_position_is_refused() -> None:
    with pytest.raises(BadRequest, match="acknowledges no position"):
        decode_credit(b'{"run":"r","window":1,"bytes":1}')


@settings(deadline=None)
@given(st.binary(max_size=60) | st.dictionaries(FIELDS, JSON).map(msgspec.json.encode))
def test_nothing_but_a_refusal_comes_of_any_other_bytes(data: bytes) -> None:
    for decode in (decode_open, decode_credit, decode_array):
        with contextlib.suppress(BadRequest):
            decode(data)
    assert decode_run(data) is None or isinstance(decode_run(data), str)


def test_an_error_comes_back_as_what_it_was() -> None:
    for error in (NotFound("no barrel"), Forbidden("not yours"), Closed(), Replaced("other")):
        end = End.of(error)
        again = error_of(end.code, end.reason, end.hint)
        assert type(again) is type(error)
        assert (again.reason, again.hint) == (error.reason, error.hint)
    strange = error_of("strange", "new in 9.0")
    assert isinstance(strange, Refused)
    assert isinstance(strange, SpileError)
    assert "strange" in strange.reason


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mqtt://h/geo", "mqtt://h:1883/geo"),
        ("mqtts://h/geo", "mqtts://h:8883/geo"),
        ("mqtt://u:p@h:1/a%2Fb", "mqtt://h:1/a%2Fb"),
        ("http://h:8000/geo", "ws://h:8000/barrels/geo/feed"),
        ("https://h/geo", "wss://h:443/barrels/geo/feed"),
        ("ws://h/barrels/geo/feed", "ws://h:80/barrels/geo/feed"),
        ("http://h/under/here/barrels/geo", "ws://h:80/under/here/barrels/geo/feed"),
        ("http://h/couch/geo", "ws://h:80/couch/barrels/geo/feed"),
        ("http://h/barrels/barrels", "ws://h:80/barrels/barrels/feed"),
        ("http://[::1]:8000/geo/", "ws://[::1]:8000/barrels/geo/feed"),
    ],
)
def test_an_address_is_read_from_a_url_and_shown_without_secrets(url: str, shown: str) -> None:
    assert str(parse_address(url)) == shown


def test_user_password_and_barrel_are_decoded() -> None:
    address = parse_address("mqtt://us%40er:p%2Fw@h/a%2Fb")
    assert isinstance(address, Address)
    assert (address.user, address.password, address.barrel) == ("us@er", "p/w", "a/b")


def test_a_password_without_a_user_is_a_token_over_http_and_nothing_that_mqtt_can_send() -> None:
    address = parse_address("http://:t0ken@h/a")
    assert isinstance(address, Address)
    assert (address.user, address.password) == ("", "t0ken")
    with pytest.raises(BadRequest, match="without a user"):
        parse_address("mqtt://:t0ken@h/a")


def test_a_folder_or_database_with_a_barrel_is_a_place_in_this_process() -> None:
    assert parse_address("some/folder#geo") == StorePlace("some/folder", "geo")
    assert parse_address("sqlite:///d/spile.db#a%2Fb") == StorePlace("sqlite:///d/spile.db", "a/b")


def test_a_password_is_not_shown_in_a_refusal() -> None:
    with pytest.raises(BadRequest) as raised:
        parse_address("mqtt://user:secret@host/")
    assert "secret" not in raised.value.reason


def test_waits_double_to_their_limit_and_begin_again_after_a_success() -> None:
    backoff = Backoff(1.0, 5.0, rng=lambda: 0.5)
    assert [backoff.next() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    backoff.reset()
    assert backoff.next() == 1.0
