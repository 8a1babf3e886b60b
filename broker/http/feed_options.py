"""What a reader of changes may ask for, with one meaning in every mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast, get_args

from broker.http.options import Options
from feeds.errors import BadRequest
from feeds.patterns import Pattern, parse_patterns
from feeds.positions import Mark, Position, parse_since
from listeners.stream.messages import Attachments

MODES: Final = ("normal", "longpoll", "continuous", "eventsource")
KNOWN: Final = ("since", "limit", "pattern", "docs", "attachments", "descending", "feed", "heartbeat", "timeout")

# Proxies commonly give an idle connection a minute; ten seconds is the beat of the stream as well.
HEARTBEAT_MS: Final = 10_000
TIMEOUT_MS: Final = 60_000
_MS_MAX: Final = 24 * 3600 * 1000
_LIMIT_MAX: Final = 2**53


@dataclass(frozen=True, slots=True)
class FeedOptions:
    """A reader's wish. Times in seconds; `timeout_s` None waits without an end."""

    mode: str
    since: Position | Mark
    patterns: Sequence[Pattern]
    docs: bool
    attachments: Attachments
    limit: int | None
    descending: bool
    heartbeat_s: float | None
    timeout_s: float | None


def read_feed_options(options: Options, last_event_id: str | None) -> FeedOptions:
    """The wish in a request's options; BadRequest names what contradicts itself.

    An event source that connects again says in `Last-Event-ID` where it stands, and that beats `since`.
    """
    mode = options.choice("feed", MODES, "normal")
    since = options.raw("since")
    if last_event_id and mode == "eventsource":
        since = last_event_id
    if isinstance(since, str) and since.isascii() and since.isdigit() and len(since) <= 19:
        since = int(since)
    descending = options.flag("descending")
    if descending and mode != "normal":
        raise BadRequest(
            f"descending does not go with feed={mode}.", hint="Read backwards with feed=normal, and a limit."
        )
    docs = options.flag("docs")
    attachments = cast(Attachments, options.choice("attachments", get_args(Attachments), "stubs"))
    if attachments == "contents" and not docs:
        raise BadRequest("attachments=contents goes with docs=true.", hint="Contents stand in the documents.")
    return FeedOptions(
        mode=mode,
        since=parse_since(since),
        patterns=parse_patterns(options.texts("pattern")),
        docs=docs,
        attachments=attachments,
        limit=options.number("limit", most=_LIMIT_MAX),
        descending=descending,
        heartbeat_s=_heartbeat(options),
        timeout_s=_timeout(options, mode),
    )


def _heartbeat(options: Options) -> float | None:
    """Milliseconds, `true` for the default, `false` for none."""
    given = options.raw("heartbeat")
    if given is None or given is True or given == "true":
        return HEARTBEAT_MS / 1000
    if given is False or given == "false":
        return None
    number = options.number("heartbeat", least=100, most=_MS_MAX)
    return None if number is None else number / 1000


def _timeout(options: Options, mode: str) -> float | None:
    number = options.number("timeout", most=_MS_MAX)
    if number is None:
        return TIMEOUT_MS / 1000 if mode == "longpoll" else None
    return number / 1000
