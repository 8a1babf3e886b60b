"""What a request's topic says, and on which topics it is answered.

Pure. A level that no text is encoded as is refused, so that every barrel and document has one topic.
"""

from __future__ import annotations

from dataclasses import dataclass

from broker.mqtt.topicnames import TOPIC_BYTES_MAX, decode_segment, rest_of_request
from feeds.errors import BadRequest

REQUESTS = "from"

_FORM = "Publish to from/<user>/<client id>/<verb>/<barrel>/<rest>, each level percent-encoded by itself."


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request goes: `<verb>/<barrel>/<rest…>`, decoded.

    `id` is the rest with its levels joined, None where there is none; `tail` is `<barrel>/<rest…>` as it was
    given, for the answer's topic.
    """

    verb: str
    barrel: str
    id: str | None
    tail: str

    def name(self, what: str) -> str:
        """The rest where it has to be one level, as the name of a call or a stream; BadRequest if not."""
        if self.id is None or self.tail.count("/") != 1:
            raise BadRequest(
                f"`{self.verb}` takes a barrel and the name of a {what}.",
                hint=f"Publish to from/<user>/<client id>/{self.verb}/<barrel>/<{what}>.",
            )
        return self.id


def parse_place(topic: str) -> Place:
    """The place that a topic under `from/<user>/<client id>/` names; BadRequest says what is wrong."""
    verb, _, tail = rest_of_request(topic).partition("/")
    if not verb or not tail:
        raise BadRequest(f"The topic {_shown(topic)} names no verb and barrel.", hint=_FORM)
    levels = [_decoded(level) for level in tail.split("/")]
    return Place(verb, levels[0], "/".join(levels[1:]) if len(levels) > 1 else None, tail)


def answer_topic(client_name: str, kind: str, tail: str) -> str:
    """Where a client hears an answer of this kind (`accepted/put`, `document`, …)."""
    return f"to/{client_name}/{kind}/{tail}"


def rejected_topic(client_name: str, topic: str) -> str:
    """Where a client hears that a request was refused. What does not fit into a topic is cut off."""
    return _cut(f"to/{client_name}/rejected/{rest_of_request(topic)}")


def refused_topic(client_name: str, topic: str) -> str:
    """Where a client hears that it may not publish to `topic` at all."""
    return _cut(f"to/{client_name}/rejected/publish/{topic}")


def _decoded(level: str) -> str:
    text = decode_segment(level)
    if text is None:
        raise BadRequest(
            f"The level {_shown(level)} of the topic is not encoded as it should be.",
            hint="Percent-encode %, /, +, #, * and control characters in upper-case hex, and nothing else.",
        )
    return text


def _cut(topic: str) -> str:
    encoded = topic.encode()
    return topic if len(encoded) <= TOPIC_BYTES_MAX else encoded[:TOPIC_BYTES_MAX].decode(errors="ignore")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 200 else text[:200] + "…")
