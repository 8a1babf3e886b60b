"""The merge functions that a program registered, and what became of the conflicts that rules looked at."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from feeds.errors import Exists
from feeds.merging.rules import Function, Rule, fields, function_rule, newest
from feeds.merging.setting import MergeSetting, check_rule_name

log = logging.getLogger("spile.merging")

REASONS_MAX = 10_000  # documents whose conflict stays, remembered with why

Leaves = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a rule did about one conflict: `reason` says why it stays, None that it is settled."""

    barrel: int
    name: str
    id: str
    leaves: Leaves
    reason: str | None
    missing: str | None = None
    """The function that would be needed, and is not registered."""


class Merging:
    """Functions by name, and figures. Every call may come from any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._functions: dict[str, Function] = {}
        self._reasons: OrderedDict[tuple[int, str], tuple[Leaves, str]] = OrderedDict()
        self._missing: set[str] = set()
        self._needed: dict[str, str] = {}
        self.settled = 0
        """Conflicts that rules have merged since the store was opened."""
        self.failed = 0
        """Attempts that failed."""

    def register(self, name: str, function: Function) -> None:
        """Let barrels name `function` as their merge rule: `{"rule": "python", "name": name}`.

        It is given the live leaves of a document, the greatest revision first, and gives one of them, or the user's
        keys of a merged document, or None to leave the conflict. It has to be pure, quick (writers wait for it), and
        to absorb: merging its result with what it was made of gives the same. Conflicts that wait for it are settled
        with the next round of upkeep, or at once by `Store.settle`. Exists where the name is taken.
        """
        check_rule_name(name)
        with self._guard:
            if name in self._functions:
                raise Exists(f"There is a merge function {name!r} already", hint="Register it under another name.")
            self._functions[name] = function
            self._reasons.clear()

    def rule(self, setting: MergeSetting) -> tuple[Rule | None, bool]:
        """The rule of a setting, None where its function is not registered; and whether it is proven."""
        if setting.rule == "newest":
            assert setting.field is not None
            return newest(setting.field), True
        if setting.rule == "fields":
            return fields, True
        function = self._functions.get(setting.name or "")
        return (None if function is None else function_rule(function)), False

    def reason(self, barrel: int, id: str) -> str | None:
        """Why the conflict of a document stays, if a rule was asked lately."""
        found = self._reasons.get((barrel, id))
        return None if found is None else found[1]

    def gave_up(self, barrel: int, id: str, leaves: Leaves) -> bool:
        """Whether a rule was asked about these very leaves already, and would say the same again."""
        found = self._reasons.get((barrel, id))
        return found is not None and found[0] == leaves

    def note(self, attempts: Iterable[Attempt]) -> None:
        """Remember what was committed; a conflict that stays is logged once."""
        for attempt in attempts:
            key = (attempt.barrel, attempt.id)
            with self._guard:
                if attempt.reason is None:
                    self.settled += 1
                    self._reasons.pop(key, None)
                    continue
                self.failed += 1
                known = self._reasons.pop(key, None)
                self._reasons[key] = (attempt.leaves, attempt.reason)
                if len(self._reasons) > REASONS_MAX:
                    self._reasons.popitem(last=False)
            if attempt.missing is not None:
                self._tell_missing(attempt.missing, attempt.name)
            elif known is None:
                log.warning("the conflict of %r in %s stays: %s", attempt.id, attempt.name, attempt.reason)

    def _tell_missing(self, function: str, barrel: str) -> None:
        """Log it once, not for each document."""
        if function not in self._missing:
            self._missing.add(function)
            log.warning("conflicts in %s stay: no merge function %r is registered", barrel, function)

    def forget(self, barrel: int) -> None:
        """Ask anew about a barrel: its rule is another one."""
        with self._guard:
            for key in [key for key in self._reasons if key[0] == barrel]:
                del self._reasons[key]

    def needs(self, needed: Mapping[str, str]) -> None:
        """Note which barrels name which functions; `missing` tells those that are not registered."""
        self._needed = dict(needed)

    @property
    def missing(self) -> dict[str, str]:
        """Barrels whose conflicts stay for want of a function, and its name, as of the last round of upkeep."""
        return {barrel: name for barrel, name in self._needed.items() if name not in self._functions}

    def stats(self) -> dict[str, int]:
        """How many conflicts were merged, and how many attempts failed."""
        return {"conflicts_settled": self.settled, "conflicts_failed": self.failed}
