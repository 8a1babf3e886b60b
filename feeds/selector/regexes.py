"""Regular expressions that cannot be made to run for ever.

They are RE2's: a match takes time in proportion to the text, whatever the pattern. In return there are no
back-references and no look-around, and a pattern's program has a size, which is limited here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import re2

CHARACTERS_MAX = 1024
STEPS_MAX = 2_000  # of all programs in one selector; the worst pattern takes some 10 ns for each, at every byte
TEXT_BYTES_MAX = 256 * 1024  # of what is looked at, so that no document takes more than seconds
_MEMORY_BYTES_MAX = 2 * 1024 * 1024  # of one pattern's automaton; where it needs more, RE2 goes on without one

# What every match begins with: literal characters behind `^`, in a pattern that has no alternatives.
_LITERAL = re.compile(r"\^([\w \-/:,;@#%&=<>~'\"!]+)(.?)", re.ASCII)


class UnfitRegex(ValueError):
    """A pattern that cannot be used; says why."""


def check_regex(pattern: str) -> int:
    """How many steps the pattern's program has; UnfitRegex says why it cannot be used."""
    if len(pattern) > CHARACTERS_MAX:
        raise UnfitRegex(f"it has {len(pattern)} characters; {CHARACTERS_MAX} are allowed")
    steps: int = _compiled(pattern).programsize
    return steps


def searcher(pattern: str) -> Callable[[Any], bool]:
    """Whether a value is a text in which the pattern is found anywhere. Texts above 256 KiB are not."""
    search = _compiled(pattern).search

    def found(value: Any) -> bool:
        if type(value) is not str:
            return False
        text = value.encode()
        return len(text) <= TEXT_BYTES_MAX and search(text) is not None

    return found


def literal_prefix(pattern: str) -> str:
    """What every text in which the pattern is found begins with, as far as that is plain to see."""
    found = _LITERAL.match(pattern)
    if found is None or "|" in pattern:
        return ""
    prefix, behind = found.groups()
    return str(prefix[:-1] if behind and behind in "*?{" else prefix)


def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.max_mem = _MEMORY_BYTES_MAX
    options.log_errors = False
    options.never_capture = True
    try:
        return re2.compile(pattern, options=options)
    except re2.error as error:
        told = error.args[0]
        raise UnfitRegex(told.decode(errors="replace") if isinstance(told, bytes) else str(told)) from None
