"""A service that is killed after a commit and before its change is published. Arguments as for `spile`."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from broker.cli.main import main
from broker.mqtt.contract import Message
from broker.mqtt.embedded import EmbeddedBroker

_publish = EmbeddedBroker.publish


async def publish(self: EmbeddedBroker, batch: Sequence[Message]) -> None:
    """Die on the first change; everything else is published as ever."""
    if any("/_id/" in message.topic for message in batch):
        os.kill(os.getpid(), signal.SIGKILL)
    await _publish(self, batch)


if __name__ == "__main__":
    EmbeddedBroker.publish = publish  # type: ignore[method-assign]
    main()
