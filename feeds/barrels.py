"""What a barrel may be called, how it may be set up, and what is told about it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from feeds.errors import BadRequest
from feeds.merging.setting import MergeSetting
from feeds.patterns import parse_patterns

NAME_BYTES_MAX = 128
REVS_LIMIT_MAX = 1_000_000
PEERS_MAX = 32
_NAME = re.compile(r"[a-z][a-z0-9_$()+/-]*")
_PEER = re.compile(r"(?!here$)[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_DAY = 86_400.0


def check_barrel_name(name: str) -> str:
    """The name, if a barrel may have it (CouchDB's rule)."""
    if not isinstance(name, str) or len(name) > NAME_BYTES_MAX or not _NAME.fullmatch(name):
        raise BadRequest(
            f"{str(name)[:NAME_BYTES_MAX]!r} is no name for a barrel",
            hint=f"Begin with a-z, go on with a-z 0-9 _ $ ( ) + / -, {NAME_BYTES_MAX} bytes at most.",
        )
    return name


def is_peer_name(name: str) -> bool:
    """Whether a peer may be called so. `here` is what a service calls itself."""
    return _PEER.fullmatch(name) is not None


class BarrelSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=False):
    """What an operator may set for one barrel."""

    retain: bool = False
    """The newest change of each document stays on its `_id` topic as a retained message."""
    publish: tuple[str, ...] | None = None
    """Patterns of the paths that are published at all (`_id/#` for whole documents); None: everything."""
    path_qos: int = 1
    """MQTT quality of service of messages on paths, 0 or 1; those on `_id` always have 1."""
    ttl: float | None = None
    """Seconds that a document lives after it was written; applies to writes from now on."""
    ttl_field: str | None = None
    """The user key that holds when a document expires, as an RFC 3339 time."""
    replicate_expiry: bool = False
    """Whether deletions by expiry are replicated."""
    revs_limit: int = 1000
    """Revisions remembered per branch of a document."""
    merge: MergeSetting | None = None
    """The rule by which documents in conflict are merged, the same on every replica; None: conflicts stay."""
    log_kept: float = 7 * _DAY
    """Seconds that old log rows and left paths are kept for the publisher and for listeners that were away."""
    peers: tuple[str, ...] | None = None
    """Which of the service's peers nested calls ask, by name and in this order; None: all of them."""

    @classmethod
    def parse(cls, given: Mapping[str, Any] | None, base: BarrelSettings | None = None) -> BarrelSettings:
        """Settings from JSON values over `base`; BadRequest names the setting that cannot be."""
        merged = {**msgspec.structs.asdict(base or cls()), **dict(given or {})}
        try:
            settings = msgspec.convert(merged, cls)
        except msgspec.ValidationError as error:
            raise BadRequest(
                f"The barrel cannot be set up like that: {error}", hint=f"Settings are {', '.join(_FIELDS)}."
            ) from None
        settings.check()
        return settings

    def check(self) -> None:
        """Refuse values that make no sense, each by name."""
        problems = {
            "path_qos": self.path_qos not in (0, 1),
            "ttl": self.ttl is not None and not 0 < self.ttl <= 100 * 365 * _DAY,
            "ttl_field": self.ttl_field is not None
            and (not self.ttl_field or self.ttl_field.startswith("_") or len(self.ttl_field) > 256),
            "revs_limit": not 1 <= self.revs_limit <= REVS_LIMIT_MAX,
            "log_kept": not 0 <= self.log_kept <= 100 * 365 * _DAY,
            "peers": self.peers is not None
            and (len(self.peers) > PEERS_MAX or not all(map(is_peer_name, self.peers))),
        }
        for name, wrong in problems.items():
            if wrong:
                raise BadRequest(
                    f"{name} cannot be {getattr(self, name)!r}",
                    hint="path_qos is 0 or 1, ttl and log_kept are seconds up to 100 years, ttl_field is a user "
                    f"key, revs_limit lies between 1 and {REVS_LIMIT_MAX}, peers are up to {PEERS_MAX} names.",
                )
        if self.merge is not None:
            self.merge.check()
        if self.publish is not None:
            parse_patterns(self.publish)


_FIELDS = [field.name for field in msgspec.structs.fields(BarrelSettings)]


class BarrelInfo(msgspec.Struct, frozen=True):
    """A barrel as it is told to a reader."""

    name: str
    epoch: str
    seq: int
    doc_count: int
    deleted_count: int
    bytes: int
    """Of the winners' bodies."""
    skipped_paths: int
    """Paths left out of index and topics because they are too long or too deep, since the barrel was made."""
    created: str
    settings: BarrelSettings


_read_settings: dict[str, BarrelSettings] = {}


def settings_of(text: str) -> BarrelSettings:
    """A barrel's settings from their column; parsed once for each text."""
    found = _read_settings.get(text)
    if found is None:
        if len(_read_settings) > 1_000:
            _read_settings.clear()
        found = _read_settings[text] = BarrelSettings.parse(msgspec.json.decode(text))
    return found


def barrel_info(row: Sequence[Any]) -> BarrelInfo:
    """What is told of a barrel, from its row."""
    return BarrelInfo(row[1], row[2], row[3], row[4], row[5], row[6], row[8], row[10], settings_of(row[9]))


def new_epoch() -> str:
    """A random name for a barrel's life: short, since it is part of every position."""
    return uuid.uuid4().hex[:8]
