"""Opens the contents that a folder or a URL names.

| named | kept in |
| --- | --- |
| a path | blob files of this machine, which one process holds |
| `file:///srv/contents` | a plain directory of objects, which several processes may use |
| `s3://bucket/prefix?endpoint=…&region=…` | a bucket of an S3-compatible store |
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from feeds.blobs.contents import Contents
from feeds.blobs.local import LocalContents
from feeds.blobs.objects import ObjectContents
from feeds.blobs.objects_bucket import Bucket
from feeds.blobs.objects_folder import Folder
from feeds.errors import BadRequest, Unavailable

_HINT = "Name a folder, file:///a/folder, or s3://bucket/prefix?endpoint=https://host&region=name."
_OPTIONS = {"endpoint", "region", "path_style"}


def open_contents(where: str | Path) -> Contents:
    """The contents that a folder or a URL names.

    BadRequest for what names none, Unavailable where it cannot be used (no package, no server, no such bucket, no
    right to it), StoreLocked where another process holds the folder, Damaged where it is something else.
    """
    if isinstance(where, Path) or "://" not in where:
        return LocalContents.open(Path(where))
    return ObjectContents(_bucket(where))


def _bucket(url: str) -> Bucket:
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError as error:
        raise BadRequest(f"The URL of the contents cannot be read: {error}", hint=_HINT) from None
    if "@" in parts.netloc:
        raise BadRequest(
            "The URL of the contents has a user or password in it",
            hint="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead: URLs are logged and listed.",
        )
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.strip("/") or options:
            raise BadRequest("A file URL of contents needs an absolute path, and nothing else", hint=_HINT)
        return Folder(Path(unquote(parts.path)))
    if parts.scheme == "s3":
        return _s3(parts.netloc, unquote(parts.path).strip("/"), options)
    raise BadRequest(f"Contents cannot be kept at {parts.scheme!r} URLs", hint=_HINT)


def _s3(bucket: str, prefix: str, options: dict[str, str]) -> Bucket:
    unknown = sorted(options.keys() - _OPTIONS)
    if not bucket or unknown:
        told = f"has no option {unknown[0]!r}" if unknown else "needs a bucket"
        raise BadRequest(f"An s3 URL of contents {told}", hint=_HINT)
    endpoint = options.get("endpoint")
    if endpoint is not None and (not endpoint.startswith(("http://", "https://")) or "@" in endpoint):
        raise BadRequest("The endpoint of an s3 URL is http://host:port or https://host", hint=_HINT)
    if options.get("path_style", "true") not in ("true", "false"):
        raise BadRequest("The option path_style of an s3 URL is true or false", hint=_HINT)
    try:
        from feeds.blobs.objects_s3 import S3Address, S3Bucket
    except ModuleNotFoundError as error:
        raise Unavailable(
            f"The package {error.name} is not installed, which object stores need",
            hint="Install it: pip install 'spile[objects]'.",
        ) from None
    return S3Bucket(
        S3Address(bucket, prefix, endpoint, options.get("region"), options.get("path_style", "true") == "true")
    )
