"""A second service beside that of a world, on the same database and the same broker: which of them publishes?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from running import until
from trials import Trial
from worlds import External, World
from writers import HttpWriter


class Beside(World):
    """The second service. It leans on the first one's database and broker, through the same doors."""

    kind = "external"

    def __init__(self, first: External) -> None:
        super().__init__(first.folder / "beside", first.nursery)
        self.first = first

    @property
    def database(self) -> str:
        return self.first.database

    def arguments(self) -> list[str]:
        return self.first.arguments()

    def start(self) -> None:
        super().start()
        self.mqtt_port = self.first.mosquitto.port


class Pair:
    """Both services around one trial, each with a writer and a listener of its own."""

    def __init__(self, trial: Trial) -> None:
        assert isinstance(trial.world, External)
        self.trial = trial
        self.second = Beside(trial.world)
        self.second.start()

    @property
    def services(self) -> tuple[World, World]:
        return self.trial.world, self.second

    def takes_part(self) -> None:
        """Who writes to the second service, and listens to it."""
        trial, door = self.trial, self.second.door("http")
        writer = HttpWriter(door, "beside", trial.ledger, trial.luck.getrandbits(64))
        trial.writers.append(writer)
        writer.start()
        trial.listens_at(self.second, "http")
        trial.listens_at(self.second, "http", "region/+", cursor="beside")

    def holder(self) -> World:
        """The one that publishes; waited for."""
        return until(lambda: next(filter(publishes, self.services), None), "a holder")

    def other(self, one: World) -> World:
        """The one that is not this one."""
        first, second = self.services
        return second if one is first else first

    def holds(self) -> None:
        """Come to rest, stop the second service, and ask for everything that was promised."""
        self.trial.rests()
        self.second.stop()
        self.trial.holds()


def publishes(service: World) -> bool:
    """Whether a service says that it is the one which publishes."""
    part = service.direct("GET", "/health").json()["parts"]["publisher"]
    return bool(part.get("role") == "holder")


@contextmanager
def pair(trial: Trial) -> Iterator[Pair]:
    """Both for the length of the block."""
    made = Pair(trial)
    try:
        yield made
    finally:
        made.second.close()
