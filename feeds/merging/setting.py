"""The merge rule that a barrel's settings name."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from feeds.errors import BadRequest
from feeds.faults import shown

NAME_CHARACTERS_MAX = 128
FIELD_CHARACTERS_MAX = 256

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]*")


class MergeSetting(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How documents in conflict are merged."""

    rule: Literal["newest", "fields", "python"]
    """`newest`: the leaf whose `field` is the latest; `fields`: field by field; `python`: the function `name`."""
    field: str | None = None
    name: str | None = None

    def check(self) -> None:
        """Refuse what makes no sense, by name."""
        if (self.field is not None) is not (self.rule == "newest"):
            raise BadRequest(
                "The merge rule newest, and only that, names a field", hint='Send {"rule": "newest", "field": "at"}.'
            )
        if (self.name is not None) is not (self.rule == "python"):
            raise BadRequest(
                "The merge rule python, and only that, has a name",
                hint='Send {"rule": "python", "name": "…"} with the name that the function is registered by.',
            )
        if self.field is not None and not _is_user_key(self.field):
            raise BadRequest(
                f"{shown(self.field)} is no field that a document can have",
                hint=f"Name a user key of 1 to {FIELD_CHARACTERS_MAX} characters.",
            )
        if self.name is not None:
            check_rule_name(self.name)

    def __str__(self) -> str:
        """As the command line takes it."""
        return ":".join(part for part in (self.rule, self.field or self.name) if part)


def _is_user_key(key: str) -> bool:
    return 1 <= len(key) <= FIELD_CHARACTERS_MAX and not key.startswith("_")


def check_rule_name(name: str) -> str:
    """The name, if a merge function may have it."""
    if not isinstance(name, str) or len(name) > NAME_CHARACTERS_MAX or not _NAME.fullmatch(name):
        raise BadRequest(
            f"{shown(str(name))} is no name for a merge function",
            hint=f"Begin with a letter, go on with letters, digits, _ . : and -; {NAME_CHARACTERS_MAX} at most.",
        )
    return name
