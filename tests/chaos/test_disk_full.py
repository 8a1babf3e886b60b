"""The disk of the service is full: writes are refused, reads are served, and it goes on by itself."""

from __future__ import annotations

from disks import Ballast, small_disk
from running import until
from trials import Trial
from worlds import World, in_worlds


@in_worlds("embedded")
def test_a_full_disk_loses_nothing_and_is_got_over(world: World, seed: int) -> None:
    with small_disk(world.data, mib=24) as disk:
        ballast = Ballast(disk)
        trial = Trial(world, seed)

        def unwell() -> bool:
            ballast.grow()
            return world.direct("GET", "/health").status_code == 503

        try:
            trial.everyone()
            for _ in range(2):
                trial.goes_on(40)
                until(unwell, "a word of it in /health")
                assert world.direct("GET", "/barrels/geo/changes?limit=10").status_code == 200
                ballast.drop()
            trial.goes_on(40)
            trial.holds()
        finally:
            trial.close()
