"""Ids for documents that come without one."""

from __future__ import annotations

import uuid_utils


def new_id() -> str:
    """32 hex digits that no other document has, and that sort by when they were made.

    A UUID of version 7 (RFC 9562) without its dashes: 48 bits of milliseconds, a counter, and at least 32 random
    bits. In one process each is greater than the one before. New documents so lie side by side in the tables and in
    the index, which takes a seventh off the time of a bulk write against random ids.
    """
    return uuid_utils.uuid7().hex
