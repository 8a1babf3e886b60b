"""Every error has a status, and reads as one object."""

import importlib
import pkgutil
from collections.abc import Iterator

import msgspec
import pytest

import feeds
import listeners
from broker.http.answers import etag, revisions_in
from broker.http.errors import STATUS, MethodNotAllowed, error_answer
from broker.http.origin import check_host, check_origin
from broker.regulation import Limit
from feeds.errors import Conflict, Forbidden, Missing, Overloaded, SpileError


def every_error(cls: type[SpileError] = SpileError) -> Iterator[type[SpileError]]:
    yield cls
    for below in cls.__subclasses__():
        yield from every_error(below)


def test_the_table_of_statuses_covers_every_code() -> None:
    for package in (feeds, listeners):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if "migrations" not in module.name:
                importlib.import_module(module.name)
    missing = {error.code for error in every_error() if error.__module__.startswith(("feeds", "listeners", "broker"))}
    assert missing - STATUS.keys() == set()


def test_an_error_is_answered_as_one_object() -> None:
    answer = error_answer(Conflict())
    assert answer.status == 409
    assert msgspec.json.decode(answer.body).keys() == {"error", "reason", "hint"}


def test_missing_tells_itself_from_deleted() -> None:
    assert msgspec.json.decode(error_answer(Missing()).body)["missing"] is True


def test_what_may_be_tried_again_says_when() -> None:
    assert (b"retry-after", b"1") in error_answer(Overloaded()).headers


def test_a_wrong_method_is_told_the_right_ones() -> None:
    assert (b"allow", b"GET, HEAD") in error_answer(MethodNotAllowed(allow="GET, HEAD")).headers


def test_a_limit_refuses_by_name_and_takes_again_what_was_given_back() -> None:
    limit = Limit("things", 2)
    limit.take(2)
    with pytest.raises(Overloaded, match="things"):
        limit.take()
    limit.give()
    limit.take()
    assert (limit.used, limit.refused) == (2, 1)


def test_something_larger_than_a_limit_passes_alone() -> None:
    limit = Limit("bytes", 10)
    limit.take(100)
    with pytest.raises(Overloaded):
        limit.take(1)


@pytest.mark.parametrize("rev", ["1-" + "a" * 32, '2-"x"', "3-é", "4-a%b", "5-a b", "6-a,b"])
def test_an_entity_tag_leads_back_to_its_revision(rev: str) -> None:
    assert revisions_in(etag(rev).decode("latin-1")) == [rev]


def test_several_tags_weak_or_bare_are_read() -> None:
    assert revisions_in('W/"1-a", "2-b",3-c, *') == ["1-a", "2-b", "3-c", "*"]


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "http://["])
def test_a_page_of_another_origin_may_not_write(origin: str) -> None:
    headers = [(b"host", b"127.0.0.1:8000"), (b"origin", origin.encode())]
    with pytest.raises(Forbidden, match="Pages of"):
        check_origin(headers, frozenset())
    check_origin(headers, frozenset([origin]))


@pytest.mark.parametrize("headers", [[(b"host", b"a:1")], [(b"host", b"a:1"), (b"origin", b"http://a:1")]])
def test_programs_and_own_pages_may_write(headers: list[tuple[bytes, bytes]]) -> None:
    check_origin(headers, frozenset())


@pytest.mark.parametrize("host", [b"spile.example", b"spile.example:8000", b"[::1]:8000", b"SPILE.example"])
def test_an_allowed_host_passes_whatever_its_port(host: bytes) -> None:
    check_host([(b"host", host)], {"spile.example", "[::1]"})


@pytest.mark.parametrize("host", [b"evil.example", b"", b"spile.example.evil"])
def test_another_host_is_refused(host: bytes) -> None:
    with pytest.raises(Forbidden, match="name"):
        check_host([(b"host", host)], {"spile.example"})
    check_host([(b"host", host)], frozenset())
