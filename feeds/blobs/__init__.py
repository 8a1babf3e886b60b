"""Bytes kept in write-once files."""

from feeds.blobs.files import BlobFiles
from feeds.blobs.values import (
    CHUNK_BYTES_MAX,
    Appending,
    BlobSettings,
    Chunk,
    Damage,
    FileInfo,
    Placed,
    Row,
    Scrubbed,
    State,
    Tag,
)

__all__ = [
    "CHUNK_BYTES_MAX",
    "Appending",
    "BlobFiles",
    "BlobSettings",
    "Chunk",
    "Damage",
    "FileInfo",
    "Placed",
    "Row",
    "Scrubbed",
    "State",
    "Tag",
]
