"""Spile's documents: barrels on SQL storage with revision trees, a changes log and a path index.

Usable embedded, without any network. `Store.open` is where to begin.
"""

from feeds.barrel import Barrel
from feeds.barrels import BarrelInfo, BarrelSettings
from feeds.errors import SpileError
from feeds.patterns import Pattern, parse_patterns
from feeds.positions import FIRST, NOW, Mark, Position, parse_since
from feeds.rows import ChangesPage, FeedPage, FindPage, Found, LogEntry, Row, Start
from feeds.storage.reading import Document
from feeds.store import Store, StoreSettings
from feeds.writes import Outcome, Token, Write, Written

__all__ = [
    "FIRST",
    "NOW",
    "Barrel",
    "BarrelInfo",
    "BarrelSettings",
    "ChangesPage",
    "Document",
    "FeedPage",
    "FindPage",
    "Found",
    "LogEntry",
    "Mark",
    "Outcome",
    "Pattern",
    "Position",
    "Row",
    "SpileError",
    "Start",
    "Store",
    "StoreSettings",
    "Token",
    "Write",
    "Written",
    "parse_patterns",
    "parse_since",
]
