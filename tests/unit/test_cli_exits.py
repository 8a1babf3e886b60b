"""Exit codes and how errors read."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from broker.cli.exits import EXIT_CODES, exit_code, report
from broker.cli.remote_errors import error_of
from feeds import errors
from feeds.errors import Conflict, Deleted, Missing, SpileError, StorageFull, StoreLocked, Unavailable


def every_error(kind: type[SpileError] = SpileError) -> Iterator[type[SpileError]]:
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from every_error(below)


@pytest.mark.parametrize("kind", list(every_error()))
def test_every_code_has_an_exit_code(kind: type[SpileError]) -> None:
    assert kind.code in EXIT_CODES


@pytest.mark.parametrize("kind", list(every_error()))
def test_an_error_arrives_over_http_as_what_it_was(kind: type[SpileError]) -> None:
    sent = kind("this is why", hint="do that")
    got = error_of(400, msgspec.json.encode(sent.as_dict()), "http://here")
    assert (got.hint, exit_code(got), got.retryable) == ("do that", exit_code(sent), sent.retryable)
    assert got.reason.endswith("this is why")
    if kind is not SpileError:
        assert got.code == sent.code


def test_missing_and_deleted_are_told_apart() -> None:
    assert isinstance(error_of(404, msgspec.json.encode(Missing().as_dict()), ""), Missing)
    assert isinstance(error_of(404, msgspec.json.encode(Deleted().as_dict()), ""), Deleted)


def test_a_code_from_a_newer_service_keeps_its_name() -> None:
    body = b'{"error": "too_purple", "reason": "not today"}'
    error = error_of(400, body, "")
    assert (error.code, error.reason, exit_code(error)) == ("too_purple", "not today", 1)


@pytest.mark.parametrize("body", [b"<html>", b"", b"[]", b'{"detail": "x"}'])
def test_what_is_not_a_spile_is_no_service(body: bytes) -> None:
    error = error_of(404, body, "http://here")
    assert isinstance(error, Unavailable)
    assert "http://here" in error.reason


def test_refusals_are_1_and_no_service_is_3() -> None:
    assert exit_code(Conflict()) == exit_code(Missing()) == 1
    assert exit_code(Unavailable()) == exit_code(StoreLocked()) == 3


def test_a_service_whose_disk_is_full_is_there_and_refuses() -> None:
    assert exit_code(StorageFull()) == 1


def test_an_error_is_told_on_standard_error_with_its_code_and_hint(capsys: pytest.CaptureFixture[str]) -> None:
    report(Conflict("geo/FR has changed", hint="Read it again."))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "spile: geo/FR has changed [conflict]\n  hint: Read it again.\n"
