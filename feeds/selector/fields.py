"""The name of a field in a selector: keys and array positions joined by dots.

Pure. A backslash takes the character behind it as it is: `a\\.b` is the one key `a.b`, `\\$a` the key `$a`.
"""

from __future__ import annotations

LEVELS_MAX = 100  # documents are not nested deeper
CHARACTERS_MAX = 1024  # about what an indexed path has at most; the canonical form repeats it at each condition


class UnfitField(ValueError):
    """The name of a field that cannot be one; says why."""


def read_field(name: str) -> tuple[str, ...]:
    """The keys that a name goes through; UnfitField says what is wrong with it."""
    if "\\" not in name:
        segments = name.split(".")
    else:
        segments = _escaped(name)
    if "" in segments:
        raise UnfitField("a name between its dots is empty" if name else "its name is empty")
    return tuple(segments)


def write_field(path: tuple[str, ...]) -> str:
    """The name that `read_field` reads as this path."""
    name = ".".join(segment.replace("\\", "\\\\").replace(".", "\\.") for segment in path)
    return "\\" + name if name.startswith("$") else name


def _escaped(name: str) -> list[str]:
    segments = [""]
    characters = iter(name)
    for character in characters:
        if character == ".":
            segments.append("")
            continue
        if character == "\\":
            character = next(characters, "")
            if not character:
                raise UnfitField("it ends in a single backslash")
        segments[-1] += character
    return segments
