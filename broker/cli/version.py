"""Which version of Spile this is."""

from __future__ import annotations

from importlib import metadata

__all__ = ["version_text"]


def version_text() -> str:
    """The version's number, such as `0.1.0`; a source tree that was not installed has none."""
    try:
        return metadata.version("spile")
    except metadata.PackageNotFoundError:
        return "(not installed)"
