"""Patterns: which of a document's paths somebody wants to hear of.

Pure. A pattern is an MQTT topic filter over paths; many of them at once are matched by `feeds.matcher`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from feeds.errors import BadRequest

LEVELS_MAX = 64
BYTES_MAX = 1024

_FORBIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | 0xFFFE) + chr(plane << 16 | 0xFFFF) for plane in range(17))
    + "]"
)
_SHOWN_CHARACTERS_MAX = 80


@dataclass(frozen=True, slots=True)
class Pattern:
    """A topic filter over paths, split at `/`: literal levels, `+` for any one, a last `#` for the rest.

    Literal levels are percent-encoded as in paths. Under a barrel's topic the filter is the barrel's
    levels followed by these.
    """

    levels: tuple[str, ...]

    @classmethod
    def parse(cls, text: object) -> Pattern:
        """The pattern that somebody wrote.

        One leading `/` is dropped, `*` stands for `+` and a last `*` for `#`. BadRequest names the pattern
        and how to mend it.
        """
        if not isinstance(text, str):
            raise _refused(text, "is not text", "A pattern is text, such as `region/+/name` or `region/#`.")
        levels = text.removeprefix("/").split("/")
        if levels == [""]:
            raise _refused(text, "is empty", "Leave patterns out, or write `/*`, to hear everything.")
        last = len(levels) - 1
        levels = ["+" if level == "*" and at < last else level for at, level in enumerate(levels)]
        if levels[last] == "*":
            levels[last] = "#"
        _check(text, levels)
        return cls(tuple(levels))

    @property
    def hears_everything(self) -> bool:
        """Whether this is `#` (written `/*` as well), which every path matches."""
        return self.levels == ("#",)

    def matches(self, path_levels: Sequence[str]) -> bool:
        """Whether the path, split into its encoded segments, matches. As in MQTT, `a/#` matches `a` too."""
        levels = self.levels
        needed = len(levels)
        if levels[-1] == "#":
            needed -= 1
            if len(path_levels) < needed:
                return False
        elif len(path_levels) != needed:
            return False
        for at in range(needed):
            level = levels[at]
            if level != "+" and level != path_levels[at]:
                return False
        return True

    def __str__(self) -> str:
        """The pattern as text that `parse` reads back."""
        text = "/".join(self.levels)
        return "/" + text if text.startswith("/") else text


def parse_patterns(texts: Iterable[str]) -> tuple[Pattern, ...]:
    """The patterns of a list, each once, in the order given. None at all means everything."""
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise BadRequest("Patterns are not a list.", hint='Send them as a list, such as ["region/#"].')
    return tuple(dict.fromkeys(Pattern.parse(text) for text in texts))


def _check(text: str, levels: Sequence[str]) -> None:
    if found := _FORBIDDEN.search(text):
        raise _refused(
            text,
            f"holds U+{ord(found[0]):04X}",
            "Percent-encode control characters and noncharacters, as they stand in paths.",
        )
    for at, level in enumerate(levels):
        if level == "#" and at < len(levels) - 1:
            raise _refused(text, "has levels after `#`", "Use `#` last only, and `+` for a single level.")
        if level not in ("+", "#") and (wildcard := next((sign for sign in "+#*" if sign in level), None)):
            raise _refused(
                text,
                f"has `{wildcard}` inside a level",
                f"A wildcard is a whole level; the character itself is written %{ord(wildcard):02X}.",
            )
    if len(levels) > LEVELS_MAX:
        why = f"has {len(levels)} levels"
        raise _refused(text, why, f"Paths have at most {LEVELS_MAX}; shorten it with `#`.")
    if (size := len("/".join(levels).encode())) > BYTES_MAX:
        raise _refused(text, f"has {size} bytes", f"Paths have at most {BYTES_MAX}; shorten it with `#`.")


def _refused(text: object, why: str, mend: str) -> BadRequest:
    shown = repr(text)
    if len(shown) > _SHOWN_CHARACTERS_MAX:
        shown = shown[:_SHOWN_CHARACTERS_MAX] + "…"
    return BadRequest(f"Pattern {shown} {why}.", hint=mend)
