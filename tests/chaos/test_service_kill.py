"""The service is killed while it loads and publishes, again and again: nothing that was accepted is lost, and
everyone is told."""

from __future__ import annotations

import pytest
from trials import Trial


@pytest.mark.usefixtures("attentive")
def test_kills_under_load_lose_nothing_and_nobody_misses_anything(trial: Trial) -> None:
    trial.everyone()
    loader = trial.over_http()
    for _ in range(3):
        trial.goes_on(trial.luck.randint(20, 80))
        loader.load(300)  # answered, but not told yet
        trial.world.kill()
        trial.world.start()
    trial.goes_on(30)
    trial.holds()
