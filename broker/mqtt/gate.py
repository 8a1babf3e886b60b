"""The access rules that hold without users: everyone is anonymous, and everyone keeps to their own topics."""

from __future__ import annotations

from broker.mqtt.contract import Client, Refused


class OpenGate:
    """Everyone is let in, as nobody in particular.

    Only the service publishes under `barrels/` and `to/`; a client publishes only under its own `from/`, and
    reads only its own `to/`; nobody reads `from/`. All other topics are the users' own.
    """

    def authenticate(self, client_id: str, user: str | None, password: bytes | None) -> str | Refused | None:
        """Nobody's claim to be a user can be checked here, so none is believed."""
        return None

    def may_publish(self, client: Client, topic: str) -> str | None:
        """None for yes, else the reason why not."""
        first = topic.partition("/")[0]
        if first in ("barrels", "to"):
            return f"only the service publishes under {first}/"
        if first == "from" and not topic.startswith(f"from/{client.name}/"):
            return f"your requests go under from/{client.name}/"
        return None

    def may_subscribe(self, client: Client, topic_filter: str) -> str | None:
        """None for yes, else the reason why not."""
        levels = topic_filter.split("/")
        if levels[0] == "from":
            return "only the service reads under from/"
        if levels[0] == "to" and "/".join(levels[1:3]) != client.name:
            return f"your answers come under to/{client.name}/"
        return None

    def may_receive(self, client: Client, topic: str) -> bool:
        """Whether a message under `topic` may reach this client through a wide filter."""
        if topic.startswith("to/"):
            return topic.startswith(f"to/{client.name}/")
        return not (topic.startswith("from/") or topic in ("from", "to"))
