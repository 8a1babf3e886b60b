"""`listen`, `listen_async` and `Listener` take the same options, spelled out in each so that `help` shows them."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest

from listeners import Listener, listen, listen_async


def defaults(of: Callable[..., object]) -> dict[str, object]:
    """Every option and what it is when it is not given."""
    parameters = inspect.signature(of).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("other", [listen_async, Listener])
def test_options_and_their_defaults_are_the_same_everywhere(other: Callable[..., object]) -> None:
    options = defaults(listen)
    assert {"since", "name", "window", "bytes", "patience_s", "on_snapshot_end"} <= set(options)
    assert {name: value for name, value in defaults(other).items() if name in options} == options


def test_a_listener_takes_besides_only_what_is_done_with_failures() -> None:
    assert set(defaults(Listener)) - set(defaults(listen)) == {"on_error", "dead_letters", "retries"}
