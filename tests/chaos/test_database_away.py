"""The database is away for ten seconds: what was accepted stays, what comes is refused and comes again."""

from __future__ import annotations

import time

import pytest
from running import until
from trials import Trial
from worlds import LONG

AWAY_S = 10.0
SHORT_S = 6.0  # of a file that another process holds: a writer waits for 5 s before it is told


@pytest.mark.usefixtures("attentive")
def test_a_database_that_is_away_for_ten_seconds_loses_nothing(trial: Trial) -> None:
    away_s = SHORT_S if trial.world.kind == "embedded" and not LONG else AWAY_S
    trial.everyone()
    trial.goes_on(40)
    repeats = [writer.repeats for writer in trial.writers]

    def each_was_refused() -> bool:
        return all(writer.repeats > before for writer, before in zip(trial.writers, repeats, strict=True))

    with trial.world.database_away():
        back_at = time.monotonic() + away_s
        until(lambda: trial.world.direct("GET", "/health").status_code == 503, "a word of it in /health")
        until(each_was_refused, "every writer to ask again: no answer to an earlier write is on its way")
        stood = trial.ledger.accepted_count
        until(lambda: time.monotonic() > back_at, "the end of it", away_s + 30)
        assert trial.ledger.accepted_count == stood
    trial.goes_on(40)
    until(lambda: trial.world.direct("GET", "/health").status_code == 200, "a word that it is back")
    trial.holds()
