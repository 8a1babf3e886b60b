"""Merge functions of an operator's own: registering those that the settings name, and how they do for `/health`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module

from broker.health import PartHealth
from feeds import Store
from feeds.errors import BadRequest

_HINT = (
    "Name it in `merge_functions` and start the service again. Until then these conflicts stay; they can be resolved "
    "by hand."
)


def register_merge_functions(store: Store, named: Iterable[str]) -> None:
    """Register each `NAME=MODULE:FUNCTION`; BadRequest where there is no such function."""
    for each in named:
        name, _, place = each.partition("=")
        module, _, attribute = place.partition(":")
        if not (name and module and attribute):
            raise BadRequest(
                f"{each!r} in merge_functions names no function",
                hint="Write NAME=MODULE:FUNCTION, several by commas.",
            )
        try:
            function = getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise BadRequest(
                f"the merge function {each!r} cannot be had: {error}", hint="Check PYTHONPATH and the names."
            ) from error
        if not callable(function):
            raise BadRequest(f"{place!r} in merge_functions is no function", hint="Name a function of the module.")
        store.merging.register(name, function)


def merging_health(store: Store) -> Callable[[], PartHealth]:
    """Whether every function that a barrel names as its merge rule is there."""

    def look() -> PartHealth:
        figures = store.merging.stats()
        missing = store.merging.missing
        if not missing:
            return PartHealth("running", figures=figures)
        told = ", ".join(f"{function!r} of {barrel}" for barrel, function in sorted(missing.items())[:10])
        return PartHealth("waiting", f"merge functions are not registered: {told}", _HINT, figures)

    return look
