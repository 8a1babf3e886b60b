"""Where the contents of a store's attachments are, by its settings: a folder, or the URL of an object store.

Pure. Opening it is `feeds.blobs.opening`'s.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from feeds.errors import BadRequest

__all__ = ["check_place", "contents_place"]

SCHEMES = ("file", "s3")


def contents_place(database: str, data: Path, blobs: str | None) -> str | Path | None:
    """The place as `Store.open` takes it, of the store with this database (URL or folder) and data directory.

    None stands for the folder `blobs` beside a SQLite database; on PostgreSQL it is one in the data directory.
    """
    if blobs:
        return blobs if "://" in blobs else Path(blobs)
    scheme, is_url, _ = database.partition("://")
    return None if not is_url or scheme.startswith("sqlite") else data / "blobs"


def check_place(blobs: str) -> str:
    """The place, if it can be one; BadRequest, which never shows it, if not: there may be a secret in it."""
    if "://" not in blobs:
        return blobs
    try:
        parts = urlsplit(blobs)
    except ValueError as error:
        raise BadRequest(f"the place of attachments is no URL: {error}", hint=_HINT) from None
    if parts.scheme not in SCHEMES:
        raise BadRequest("the place of attachments is neither a folder nor an object store", hint=_HINT)
    if "@" in parts.netloc or "@" in parts.query:
        raise BadRequest(
            "the URL of attachments has a user or password in it",
            hint="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead: URLs are logged and listed.",
        )
    return blobs


_HINT = "Give a folder, file:///a/folder, or s3://bucket/prefix?endpoint=https://host&region=name."
