"""Links as the small texts of a type of their own that CouchDB's clients, which know no links, are shown.

Pure. The type keeps the link's own, so that nothing is lost where such a text comes back.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, unquote

_LINK: Final = re.compile(r'text/uri-list; of="([^"]*)"')


def link_type(content_type: str | None) -> str:
    """The content type that a link is shown with; it keeps the link's own."""
    return f'text/uri-list; of="{quote(content_type or "", safe="/")}"'


def is_link_type(content_type: object) -> bool:
    """Whether a content of this type is a link that was shown."""
    return _LINK.fullmatch(str(content_type)) is not None


def type_of_link(content_type: object) -> str | None:
    """The link's own type in that of the text that it is shown as; None where it had none."""
    found = _LINK.fullmatch(str(content_type))
    return unquote(found[1]) or None if found is not None else None
