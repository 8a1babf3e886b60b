"""The wall clock of the service jumps back: seqs, tokens, cursors and upkeep do not lean on it."""

from __future__ import annotations

import timepiece
from trials import Trial
from worlds import World, in_worlds

HOUR_S = 3_600.0


@in_worlds("embedded", long=("external",))
def test_a_clock_that_jumps_back_changes_nothing(world: World, seed: int) -> None:
    clock = world.folder / "clock"
    timepiece.set_wrong_by(clock, 0.0)
    world.variables |= {timepiece.VARIABLE: str(clock), "SPILE_MAINTAIN_EVERY": "0.2"}
    trial = Trial(world, seed)
    try:
        trial.everyone()
        for hours in (-1, 0, -2, -10_000):
            trial.goes_on(30)
            timepiece.set_wrong_by(clock, hours * HOUR_S)
        trial.world.kill()
        trial.world.start()
        trial.goes_on(30)
        trial.holds()
    finally:
        trial.close()
