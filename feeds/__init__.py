"""Spile's documents: barrels on SQL storage with revision trees, a changes log and a path index.

Usable embedded, without any network. `Store.open` is where to begin. Names are imported when they are first asked
for, so that a program that only speaks to a service does not pay for the database.
"""

from typing import TYPE_CHECKING

from feeds.lazily import names_of

if TYPE_CHECKING:
    from feeds.attachments.documents import Attachment
    from feeds.attachments.stubs import Content, Moves
    from feeds.attachments.uploads import Upload
    from feeds.barrel import Barrel
    from feeds.barrels import BarrelInfo, BarrelSettings
    from feeds.errors import SpileError
    from feeds.findings import CheckReport
    from feeds.limits import StoreSettings
    from feeds.patterns import Pattern, parse_patterns
    from feeds.positions import FIRST, NOW, Mark, Position, parse_since
    from feeds.rows import ChangesPage, FeedPage, FindPage, Found, LogEntry, Row, Start
    from feeds.storage.backup import Manifest
    from feeds.storage.reading import Document
    from feeds.store import Store
    from feeds.writes import Outcome, Token, Write, Written

__getattr__ = names_of(
    __name__,
    {
        "feeds.attachments.documents": ("Attachment",),
        "feeds.attachments.stubs": ("Content", "Moves"),
        "feeds.attachments.uploads": ("Upload",),
        "feeds.barrel": ("Barrel",),
        "feeds.barrels": ("BarrelInfo", "BarrelSettings"),
        "feeds.errors": ("SpileError",),
        "feeds.findings": ("CheckReport",),
        "feeds.limits": ("StoreSettings",),
        "feeds.patterns": ("Pattern", "parse_patterns"),
        "feeds.positions": ("FIRST", "NOW", "Mark", "Position", "parse_since"),
        "feeds.rows": ("ChangesPage", "FeedPage", "FindPage", "Found", "LogEntry", "Row", "Start"),
        "feeds.storage.backup": ("Manifest",),
        "feeds.storage.reading": ("Document",),
        "feeds.store": ("Store",),
        "feeds.writes": ("Outcome", "Token", "Write", "Written"),
    },
)

__all__ = [
    "FIRST",
    "NOW",
    "Attachment",
    "Barrel",
    "BarrelInfo",
    "BarrelSettings",
    "ChangesPage",
    "CheckReport",
    "Content",
    "Document",
    "FeedPage",
    "FindPage",
    "Found",
    "LogEntry",
    "Manifest",
    "Mark",
    "Moves",
    "Outcome",
    "Pattern",
    "Position",
    "Row",
    "SpileError",
    "Start",
    "Store",
    "StoreSettings",
    "Token",
    "Upload",
    "Write",
    "Written",
    "parse_patterns",
    "parse_since",
]
