"""What a Dockerfile says: its instructions, and what the image of its last stage runs."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Image:
    """What an image brings to the containers made of it."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    health: tuple[str, ...] = ()  # as in a compose file: `CMD` and the words
    user: str = "root"
    folder: str = "/"  # where its processes run; its user may write there
    ports: tuple[int, ...] = ()
    named_user: bool = False  # whether its program insists on a user that has a name
    reaches: tuple[str, ...] = ()  # folders of this machine that its processes have to read


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions in order, each with what follows it on its lines."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found = (line.strip().partition(" ") for line in joined.splitlines() if line.strip())
    return [(name.upper(), rest.strip()) for name, _, rest in found]


def last_stage(found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The instructions from the last FROM on."""
    begin = max(at for at, (name, _) in enumerate(found) if name == "FROM")
    return found[begin:]


def image(text: str) -> Image:
    """The image that a Dockerfile makes."""
    told = dict.fromkeys(("ENTRYPOINT", "CMD", "HEALTHCHECK", "USER", "WORKDIR"), "")
    environment: dict[str, str] = {}
    ports: list[int] = []
    for name, rest in last_stage(instructions(text)):
        if name == "ENV":
            environment |= dict(each.split("=", 1) for each in shlex.split(rest))
        elif name == "EXPOSE":
            ports += map(int, rest.split())
        elif name in told:
            told[name] = rest
    health = told["HEALTHCHECK"].partition("CMD ")[2]
    return Image(
        tuple(json.loads(told["ENTRYPOINT"] or "[]")),
        tuple(json.loads(told["CMD"] or "[]")),
        environment,
        ("CMD", *json.loads(health)) if health else (),
        told["USER"] or "root",
        told["WORKDIR"] or "/",
        tuple(ports),
    )
